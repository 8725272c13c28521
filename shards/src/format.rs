//! The bytes of a shard.
//!
//! ```text
//! header   64 bytes, see [`Header`]; its last four are the CRC-32 of the sixty before
//! data     the samples one after the other, `data_length` bytes
//! tables   pixels per channel u64 · (sum, sum of squares) u64 x 2 per channel · label u32 per sample
//!          · offset u64, length u64, height u32, width u32 per sample, only where samples differ in length
//!          · CRC-32 per block of `block_length` bytes of data
//! ```
//! All numbers are little-endian. Every byte lies under a checksum: the header's covers the header, which holds that of the
//! tables, which hold those of the data's blocks; and the manifest holds the header's. Opening checks all but the blocks.
//!
//! Raw samples are packed densely instead of on multiples of 64 bytes. The one pass over a sample is a conversion to floats,
//! whose loads cost the same at any address; padding would cost MNIST 6% of its size, and dense samples of one shape need no
//! offset table: sample i lies at i times the sample's size. The tables come after the data because a writer that streams
//! knows them last.

use anyhow::{Result, bail, ensure};

/// First bytes of each shard. The high bit and the line ends show a file that went through a text-mode transfer.
pub const MAGIC: [u8; 8] = *b"\x89BDSHD\r\n";
/// The version of the shards that this library writes and reads.
pub const VERSION: u32 = 1;
/// Bytes of a header; the data begins there.
pub const HEADER_LENGTH: usize = 64;
/// Data bytes under one checksum, in the shards that are written.
pub const BLOCK_LENGTH: u32 = 1 << 20;
/// Bytes of one row of the table of samples that differ in length.
pub const ENTRY_LENGTH: usize = 24;
/// Most channels that a sample may have.
pub const MAX_CHANNELS: u32 = 64;
/// Most classes that a data set may have.
pub const MAX_CLASSES: u32 = 1 << 20;
/// Largest height or width of a sample, as in a JPEG.
pub const MAX_SIDE: u32 = 65535;
/// Photos of more pixels are refused before anything is allocated for them: some files announce frames that they do not hold.
pub const MAX_PIXELS: u64 = 1 << 27;

/// How a sample's pixels are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// [H, W, C] bytes.
    Raw,
    /// A JPEG file, one or three channels.
    Jpeg,
}

/// What a shard holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub encoding: Encoding,
    pub samples: u64,
    /// Bytes of all samples.
    pub data_length: u64,
    pub channels: u32,
    /// Height and width that all samples share; zero where they differ.
    pub height: u32,
    pub width: u32,
    /// Every label is below it.
    pub classes: u32,
    pub block_length: u32,
    /// CRC-32 of the tables.
    pub tables_crc32: u32,
}

/// Where a sample lies in the data, and its frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    pub offset: u64,
    pub length: u64,
    pub height: u32,
    pub width: u32,
}

impl Header {
    /// Whether the shard has a row per sample; raw samples of one shape need none.
    pub fn has_entries(&self) -> bool {
        self.encoding == Encoding::Jpeg || self.height == 0
    }

    /// Bytes of one raw sample of the shared shape.
    pub fn sample_length(&self) -> u64 {
        u64::from(self.height) * u64::from(self.width) * u64::from(self.channels)
    }

    /// Number of checksummed blocks.
    pub fn blocks(&self) -> u64 {
        self.data_length.div_ceil(u64::from(self.block_length))
    }

    /// Bytes of the tables; `None` where they would exceed 2^64.
    fn tables_length(&self) -> Option<u64> {
        let per_sample = 4 + if self.has_entries() { ENTRY_LENGTH as u64 } else { 0 };
        let sums = 8 + 16 * u64::from(self.channels);
        self.samples.checked_mul(per_sample)?.checked_add(sums)?.checked_add(self.blocks().checked_mul(4)?)
    }

    /// Bytes of the whole shard; `None` where they would exceed 2^64.
    pub fn file_length(&self) -> Option<u64> {
        (HEADER_LENGTH as u64).checked_add(self.data_length)?.checked_add(self.tables_length()?)
    }

    /// The header's bytes, checksum included.
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let encoding: u32 = match self.encoding {
            Encoding::Raw => 0,
            Encoding::Jpeg => 1,
        };
        let mut bytes = Vec::with_capacity(HEADER_LENGTH);
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(encoding.to_le_bytes());
        bytes.extend(self.samples.to_le_bytes());
        bytes.extend(self.data_length.to_le_bytes());
        for field in [self.channels, self.height, self.width, self.classes, self.block_length, self.tables_crc32, 0] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the fields fill the header")
    }

    /// Reads a header from a shard's first bytes and checks all that can be checked without the rest of the file.
    pub fn parse(bytes: &[u8]) -> Result<Header> {
        let found = &bytes[..bytes.len().min(MAGIC.len())];
        ensure!(found == &MAGIC[..found.len()], "it is not a shard (it begins with {}, a shard with {})", hex(found), hex(&MAGIC));
        ensure!(bytes.len() >= HEADER_LENGTH, "it is cut off: {} bytes, where the header alone has {HEADER_LENGTH}", bytes.len());
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        let version = word(8);
        ensure!(
            version == VERSION,
            "it has format version {version}, this program reads version {VERSION}; prepare it again, or use the program that wrote it"
        );
        let computed = crc32fast::hash(&bytes[..HEADER_LENGTH - 4]);
        let stored = word(HEADER_LENGTH - 4);
        ensure!(computed == stored, "its header is altered: checksum {computed:08x}, where {stored:08x} is stored");
        let encoding = match word(12) {
            0 => Encoding::Raw,
            1 => Encoding::Jpeg,
            other => bail!("its header names the unknown encoding {other}"),
        };
        let header = Header {
            encoding,
            samples: long(16),
            data_length: long(24),
            channels: word(32),
            height: word(36),
            width: word(40),
            classes: word(44),
            block_length: word(48),
            tables_crc32: word(52),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=MAX_CHANNELS).contains(&self.channels), "its header has {} channels, allowed are 1 to {MAX_CHANNELS}", self.channels);
        ensure!((1..=MAX_CLASSES).contains(&self.classes), "its header has {} classes, allowed are 1 to {MAX_CLASSES}", self.classes);
        ensure!(self.block_length >= 4096, "its header has blocks of {} bytes, at least 4096 are required", self.block_length);
        ensure!(
            (self.height == 0) == (self.width == 0) && self.height <= MAX_SIDE && self.width <= MAX_SIDE,
            "its header has frames of {} x {}",
            self.height,
            self.width
        );
        if !self.has_entries() {
            let expected = self.samples.checked_mul(self.sample_length());
            ensure!(
                expected == Some(self.data_length),
                "its header has {} data bytes for {} samples of {} bytes",
                self.data_length,
                self.samples,
                self.sample_length()
            );
        }
        if self.encoding == Encoding::Jpeg {
            ensure!(self.channels == 1 || self.channels == 3, "its header has JPEGs of {} channels", self.channels);
        }
        ensure!(self.file_length().is_some(), "its header has impossible sizes");
        Ok(())
    }
}

impl Entry {
    pub fn to_bytes(self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        bytes[..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.length.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.height.to_le_bytes());
        bytes[20..].copy_from_slice(&self.width.to_le_bytes());
        bytes
    }

    /// Reads one row; `bytes` has [`ENTRY_LENGTH`].
    pub fn from_bytes(bytes: &[u8]) -> Entry {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Entry { offset: long(0), length: long(8), height: word(16), width: word(20) }
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "nothing".to_owned();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
