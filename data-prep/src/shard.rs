//! One shard, opened read-only and mapped.
//!
//! Labels and the table of samples are copied when the shard is opened, after their checksums were compared: a file that is
//! altered later can then give wrong pixels, but never a position outside the map.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use memmap2::{Advice, Mmap};

use crate::fault::Registration;
use crate::format::{ENTRY_LENGTH, Encoding, Entry, HEADER_LENGTH, Header, MAX_SIDE};
use crate::statistics::PixelSums;

/// An open shard.
pub struct Shard {
    path: PathBuf,
    file: File,
    /// Length, modification time in seconds and nanoseconds, as they were at opening.
    identity: (u64, i64, i64),
    // Declared before the map: unregistered before it is unmapped.
    _registration: Registration,
    map: Mmap,
    header: Header,
    sums: PixelSums,
    labels: Vec<u32>,
    /// Empty where all samples are raw and of one shape.
    entries: Vec<Entry>,
}

/// A sample as it is stored.
pub struct Stored<'a> {
    pub bytes: &'a [u8],
    pub height: usize,
    pub width: usize,
    pub label: u32,
}

impl Shard {
    /// Opens a shard and checks everything but the checksums of its data.
    pub fn open(path: &Path) -> Result<Shard> {
        let file = File::open(path).with_context(|| format!("shard {} cannot be opened", path.display()))?;
        let metadata = file.metadata().with_context(|| format!("shard {} cannot be examined", path.display()))?;
        ensure!(metadata.is_file(), "shard {} is not a file", path.display());
        // An empty file cannot be mapped.
        ensure!(metadata.len() > 0, "shard {} is empty; prepare the data set again", path.display());
        // SAFETY: shards are never written in place. A file that someone changes all the same changes bytes of pixels, which
        // have no invalid values; one that someone shortens ends the process through `fault`.
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("shard {} cannot be mapped", path.display()))?;
        let registration = Registration::new(map.as_ptr() as usize, map.len(), path);
        let parsed = Tables::parse(&map).with_context(|| format!("shard {} cannot be used; prepare the data set again", path.display()))?;
        let Tables { header, sums, labels, entries } = parsed;
        let identity = (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        Ok(Shard { path: path.to_owned(), file, identity, _registration: registration, map, header, sums, labels, entries })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The checksum that ends the header, as the manifest has it.
    pub fn header_crc32(&self) -> String {
        header_crc32(&self.header.to_bytes())
    }

    /// Bytes of the file.
    pub fn file_length(&self) -> u64 {
        self.identity.0
    }

    pub fn sums(&self) -> &PixelSums {
        &self.sums
    }

    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Height and width of each sample.
    pub fn frames(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.labels.len()).map(|index| self.entry(index)).map(|entry| (entry.height, entry.width))
    }

    /// Sample `index` of this shard, straight from the map. Fails where the file has changed since it was opened.
    pub fn stored(&self, index: usize) -> Result<Stored<'_>> {
        ensure!(index < self.labels.len(), "shard {} has {} samples, asked was number {index}", self.path.display(), self.labels.len());
        self.check_unchanged()?;
        let entry = self.entry(index);
        let start = HEADER_LENGTH + entry.offset as usize;
        let bytes = &self.map[start..start + entry.length as usize];
        Ok(Stored { bytes, height: entry.height as usize, width: entry.width as usize, label: self.labels[index] })
    }

    /// Asks the system to bring sample `index` into memory, without waiting.
    pub fn prefetch(&self, index: usize) {
        if index < self.labels.len() {
            let entry = self.entry(index);
            // Advice only: where the system declines it, the sample is read when it is used.
            let _ = self.map.advise_range(Advice::WillNeed, HEADER_LENGTH + entry.offset as usize, entry.length as usize);
        }
    }

    /// Asks the system to bring the whole shard into memory, without waiting.
    pub fn prefetch_all(&self) {
        let _ = self.map.advise(Advice::WillNeed);
    }

    /// Number of checksummed blocks.
    pub fn blocks(&self) -> usize {
        self.header.blocks() as usize
    }

    /// Compares the checksum of one block of data.
    pub fn verify_block(&self, block: usize) -> Result<()> {
        self.check_unchanged()?;
        let length = self.header.block_length as usize;
        let data = &self.map[HEADER_LENGTH..HEADER_LENGTH + self.header.data_length as usize];
        let start = block * length;
        let end = (start + length).min(data.len());
        let computed = crc32fast::hash(&data[start..end]);
        let at = self.map.len() - 4 * (self.blocks() - block);
        let stored = u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes"));
        ensure!(
            computed == stored,
            "shard {} is altered in bytes {} to {}: checksum {computed:08x}, where {stored:08x} is stored; prepare the data set again",
            self.path.display(),
            HEADER_LENGTH + start,
            HEADER_LENGTH + end
        );
        Ok(())
    }

    fn entry(&self, index: usize) -> Entry {
        if let Some(entry) = self.entries.get(index) {
            return *entry;
        }
        let length = self.header.sample_length();
        Entry { offset: index as u64 * length, length, height: self.header.height, width: self.header.width }
    }

    fn check_unchanged(&self) -> Result<()> {
        let path = self.path.display();
        let metadata = self.file.metadata().with_context(|| format!("shard {path} can no longer be read"))?;
        if metadata.nlink() == 0 {
            bail!("shard {path} was removed or replaced while it was in use; restore it and run again");
        }
        let (length, seconds, nanoseconds) = self.identity;
        if metadata.len() != length {
            let now = metadata.len();
            bail!("shard {path} has {now} bytes, where it had {length} when it was opened; restore it and run again");
        }
        if (metadata.mtime(), metadata.mtime_nsec()) != (seconds, nanoseconds) {
            bail!("shard {path} was written to while it was in use; check it with `data-prep verify` and run again");
        }
        Ok(())
    }
}

/// A header's checksum in the manifest's form.
pub fn header_crc32(header: &[u8; HEADER_LENGTH]) -> String {
    let crc = u32::from_le_bytes(header[HEADER_LENGTH - 4..].try_into().expect("four bytes"));
    format!("{crc:08x}")
}

/// A shard's header and tables, checked against each other and the length of the file.
#[derive(Debug)]
pub struct Tables {
    pub header: Header,
    pub sums: PixelSums,
    pub labels: Vec<u32>,
    pub entries: Vec<Entry>,
}

impl Tables {
    /// Reads the tables of a shard given whole. Allocates no more than the shard's own length.
    pub fn parse(shard: &[u8]) -> Result<Tables> {
        let header = Header::parse(shard)?;
        let expected = header.file_length().context("its header has impossible sizes")?;
        let found = shard.len() as u64;
        ensure!(found >= expected, "it is cut off: {found} bytes, where its header announces {expected}");
        ensure!(found == expected, "it has {found} bytes, where its header announces {expected}");
        let tables = &shard[HEADER_LENGTH + header.data_length as usize..];
        let computed = crc32fast::hash(tables);
        ensure!(
            computed == header.tables_crc32,
            "its tables are altered: checksum {computed:08x}, where {:08x} is stored",
            header.tables_crc32
        );
        let (samples, channels) = (header.samples as usize, header.channels as usize);
        let (sums, rest) = tables.split_at(8 + 16 * channels);
        let (labels, rest) = rest.split_at(4 * samples);
        let entries = if header.has_entries() { &rest[..ENTRY_LENGTH * samples] } else { &[] };
        let long = |at: usize| u64::from_le_bytes(sums[at..at + 8].try_into().expect("eight bytes"));
        let sums = PixelSums { pixels: long(0), channels: (0..channels).map(|c| [long(8 + 16 * c), long(16 + 16 * c)]).collect() };
        let labels: Vec<u32> = labels.chunks_exact(4).map(|label| u32::from_le_bytes(label.try_into().expect("four bytes"))).collect();
        if let Some(at) = labels.iter().position(|&label| label >= header.classes) {
            bail!("its sample {at} has label {} of {} classes", labels[at], header.classes);
        }
        let entries: Vec<Entry> = entries.chunks_exact(ENTRY_LENGTH).map(Entry::from_bytes).collect();
        for (at, entry) in entries.iter().enumerate() {
            check_entry(&header, entry).with_context(|| format!("its sample {at} is impossible"))?;
        }
        Ok(Tables { header, sums, labels, entries })
    }
}

fn check_entry(header: &Header, entry: &Entry) -> Result<()> {
    let end = entry.offset.checked_add(entry.length);
    ensure!(
        end.is_some_and(|end| end <= header.data_length),
        "it has {} bytes from {} of {}",
        entry.length,
        entry.offset,
        header.data_length
    );
    let sides = 1..=MAX_SIDE;
    ensure!(sides.contains(&entry.height) && sides.contains(&entry.width), "its frame is {} x {}", entry.height, entry.width);
    if header.height != 0 {
        let shared = (header.height, header.width);
        ensure!((entry.height, entry.width) == shared, "its frame is {} x {}", entry.height, entry.width);
    }
    if header.encoding == Encoding::Raw {
        let pixels = u64::from(entry.height) * u64::from(entry.width) * u64::from(header.channels);
        ensure!(entry.length == pixels, "it has {} bytes for {pixels} values", entry.length);
    }
    Ok(())
}
