//! One shard, opened read-only and mapped.
//!
//! Labels and the table of samples are copied when the shard is opened, after their checksums were compared: a file that is
//! altered later can then give wrong pixels, but never a position outside the map.
//!
//! A map needs no open file, and a data set may have more shards than a process may have descriptors, so only their folder is held
//! open; the file is looked at by its name in there before each sample. That takes two thirds of what a look by the whole path takes,
//! which is more than small samples take. Where another file has the name, the map still holds the one that was opened. One that was
//! removed is missed: soon others may be, and a start would fail. A new time of modification alone says little, since people touch
//! files to save them from being purged: then the header and the tables are compared, and of the data each block before a sample of it
//! is used.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::files::open_regular;
use memmap2::{Advice, Mmap};

use crate::fault::Registration;
use crate::format::{ENTRY_LENGTH, Encoding, Entry, HEADER_LENGTH, Header, MAX_SIDE};
use crate::statistics::PixelSums;

/// A folder of shards, open for looks at its files.
#[derive(Clone)]
pub struct Folder(Arc<File>);

/// An open shard.
pub struct Shard {
    path: PathBuf,
    folder: Folder,
    /// Name in the folder.
    name: CString,
    /// Device and inode, by which the file is known under its name.
    file: (u64, u64),
    trust: Mutex<Trust>,
    // Declared before the map: unregistered before it is unmapped.
    _registration: Registration,
    map: Mmap,
    header: Header,
    sums: PixelSums,
    labels: Vec<u32>,
    /// Empty where all samples are raw and of one shape.
    entries: Vec<Entry>,
}

/// How far the file is known to be as it was opened.
struct Trust {
    /// Seconds and nanoseconds of the last modification that was looked into.
    modified: (i64, i64),
    /// Which blocks of data were compared since then; all count as sound where none has been since opening.
    blocks: Option<Vec<bool>>,
}

/// A sample as it is stored.
pub struct Stored<'a> {
    pub bytes: &'a [u8],
    pub height: usize,
    pub width: usize,
    pub label: u32,
}

impl Folder {
    pub fn open(path: &Path) -> Result<Folder> {
        // Reading its list takes a permission more than using its files does.
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path);
        Ok(Folder(Arc::new(opened.with_context(|| format!("{} cannot be opened", path.display()))?)))
    }

    fn look(&self, name: &CString) -> io::Result<libc::stat> {
        let mut found = MaybeUninit::uninit();
        // SAFETY: the descriptor is open, the name ends in a zero byte, and the call fills `found` where it succeeds.
        unsafe {
            match libc::fstatat(self.0.as_raw_fd(), name.as_ptr(), found.as_mut_ptr(), 0) {
                0 => Ok(found.assume_init()),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }
}

impl Shard {
    /// Opens the shard at `path`, which lies in `folder`, and checks everything but the checksums of its data.
    pub fn open(folder: &Folder, path: &Path) -> Result<Shard> {
        let name = CString::new(path.file_name().unwrap_or_default().as_bytes()).context("a file name holds a zero byte")?;
        let file = open_regular(path).with_context(|| format!("shard {} cannot be opened", path.display()))?;
        let metadata = file.metadata().with_context(|| format!("shard {} cannot be examined", path.display()))?;
        // An empty file cannot be mapped.
        ensure!(metadata.len() > 0, "shard {} is empty; prepare the data set again", path.display());
        // SAFETY: shards are never written in place. A file that someone changes all the same changes bytes of pixels, which
        // have no invalid values; one that someone shortens ends the process through `fault`.
        let map = unsafe { Mmap::map(&file) }.with_context(|| format!("shard {} cannot be mapped{}", path.display(), too_many_maps()))?;
        let registration = Registration::new(map.as_ptr() as usize, map.len(), path);
        let parsed = Tables::parse(&map).with_context(|| format!("shard {} cannot be used; prepare the data set again", path.display()))?;
        let Tables { header, sums, labels, entries } = parsed;
        let trust = Mutex::new(Trust { modified: (metadata.mtime(), metadata.mtime_nsec()), blocks: None });
        let file = (metadata.dev(), metadata.ino());
        let folder = folder.clone();
        Ok(Shard { path: path.to_owned(), folder, name, file, trust, _registration: registration, map, header, sums, labels, entries })
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
        self.map.len() as u64
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
        let entry = self.entry(index);
        self.check_unchanged(entry.offset..entry.offset + entry.length)?;
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
        self.check_unchanged(0..0)?;
        self.compare_block(block)
    }

    fn compare_block(&self, block: usize) -> Result<()> {
        let length = self.header.block_length as usize;
        let data = &self.map[HEADER_LENGTH..HEADER_LENGTH + self.header.data_length as usize];
        let start = block * length;
        let end = (start + length).min(data.len());
        let computed = crc32fast::hash(&data[start..end]);
        let at = self.map.len() - 4 * (self.blocks() - block);
        let stored = u32::from_le_bytes(self.map[at..at + 4].try_into().expect("four bytes"));
        ensure!(
            computed == stored,
            "shard {} is altered in bytes {} to {}: checksum {computed:08x}, where {stored:08x} is stored; restore it, or delete the data \
             set's folder and prepare it again",
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

    /// Fails where the file is no longer what was opened, as far as the bytes at `data` of its data depend on it.
    fn check_unchanged(&self, data: Range<u64>) -> Result<()> {
        let path = self.path.display();
        let found = match self.folder.look(&self.name) {
            Ok(found) if (found.st_dev, found.st_ino) == self.file => found,
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                bail!("shard {path} was removed while it was in use; restore it and run again")
            }
            Err(error) => return Err(error).with_context(|| format!("shard {path} can no longer be examined")),
        };
        let (now, length) = (found.st_size, self.map.len());
        ensure!(now == length as i64, "shard {path} has {now} bytes, where it had {length} when it was opened; restore it and run again");
        let modified = (found.st_mtime, found.st_mtime_nsec);
        let mut trust = self.trust.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if trust.modified != modified {
            let tables = &self.map[HEADER_LENGTH + self.header.data_length as usize..];
            let same = self.map[..HEADER_LENGTH] == self.header.to_bytes() && crc32fast::hash(tables) == self.header.tables_crc32;
            ensure!(same, "shard {path} was written to while it was in use: its header or tables are altered; restore it and run again");
            *trust = Trust { modified, blocks: Some(vec![false; self.blocks()]) };
        }
        let Some(compared) = &mut trust.blocks else { return Ok(()) };
        let length = u64::from(self.header.block_length);
        let blocks = (data.start / length) as usize..data.end.div_ceil(length) as usize;
        for (block, compared) in blocks.clone().zip(&mut compared[blocks]) {
            if !*compared {
                self.compare_block(block).with_context(|| format!("shard {path} was written to while it was in use"))?;
                *compared = true;
            }
        }
        Ok(())
    }
}

/// What stands in the way where the process has no room for another map. Counts in small steps: memory takes maps, too.
fn too_many_maps() -> String {
    let most = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok().and_then(|most| most.trim().parse::<usize>().ok());
    let taken = File::open("/proc/self/maps").map_or(0, |maps| BufReader::new(maps).split(b'\n').count());
    match most {
        Some(most) if taken + 8 >= most => format!(
            ": a process may have {most} maps (vm.max_map_count), and each shard takes one; prepare the data set again with a larger \
             --shard-mib"
        ),
        _ => String::new(),
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
