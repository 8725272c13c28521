//! Making a data set: shards, then the manifest.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use biodist_process::files::{AtomicFile, PARTIAL};

use crate::format::{BLOCK_LENGTH, Encoding, Entry, HEADER_LENGTH, Header};
use crate::manifest::{FILE_NAME, Manifest, ShardRecord};
use crate::shard::{Folder, Shard, header_crc32};
use crate::statistics::PixelSums;

/// What is known of a data set before its samples are.
#[derive(Clone, Debug)]
pub struct Description {
    pub channels: usize,
    /// One name per class.
    pub class_names: Vec<String>,
    pub encoding: Encoding,
    /// Program, command and options, for the manifest.
    pub made_by: serde_json::Value,
}

/// Writes the shards of one folder, and its manifest last. Shards may be written in any order and by several threads.
pub struct DatasetWriter {
    folder: PathBuf,
    description: Description,
}

/// A finished shard: its place in the manifest and what the statistics need.
pub struct FinishedShard {
    record: ShardRecord,
    frame: Frame,
    sums: PixelSums,
}

impl FinishedShard {
    pub fn samples(&self) -> usize {
        self.record.samples as usize
    }
}

/// Height and width of a set of samples.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    NoSamples,
    Shared(u32, u32),
    Differs,
}

impl Frame {
    fn of(header: &Header) -> Frame {
        match (header.samples, header.height) {
            (0, _) => Frame::NoSamples,
            (_, 0) => Frame::Differs,
            (_, height) => Frame::Shared(height, header.width),
        }
    }

    fn join(self, other: Frame) -> Frame {
        match (self, other) {
            (Frame::NoSamples, frame) | (frame, Frame::NoSamples) => frame,
            (one, two) if one == two => one,
            _ => Frame::Differs,
        }
    }
}

impl DatasetWriter {
    /// Begins, or goes on with, the data set in `folder`. What an interrupted writer left half done is removed.
    pub fn begin(folder: &Path, description: Description) -> Result<DatasetWriter> {
        std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be created", folder.display()))?;
        for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
            let path = entry.with_context(|| format!("{} cannot be read", folder.display()))?.path();
            if path.extension().is_some_and(|extension| extension == PARTIAL) {
                std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
            }
        }
        Ok(DatasetWriter { folder: folder.to_owned(), description })
    }

    /// Whether the manifest is there, so that nothing is left to do.
    pub fn is_finished(&self) -> bool {
        self.folder.join(FILE_NAME).exists()
    }

    /// Shard `number` if an earlier run finished it.
    pub fn finished(&self, number: usize) -> Result<Option<FinishedShard>> {
        let path = self.path(number);
        if !path.exists() {
            return Ok(None);
        }
        let shard = match Shard::open(&Folder::open(&self.folder)?, &path) {
            Ok(shard) => shard,
            Err(_) => {
                log::warn!("{} was damaged since it was made, and is made again", path.display());
                return Ok(None);
            }
        };
        let header = shard.header();
        let record = ShardRecord {
            file: file_name(number),
            bytes: shard.file_length(),
            samples: header.samples,
            header_crc32: shard.header_crc32(),
        };
        Ok(Some(FinishedShard { record, frame: Frame::of(header), sums: shard.sums().clone() }))
    }

    /// Begins shard `number`.
    pub fn shard(&self, number: usize) -> Result<ShardWriter> {
        let mut file = AtomicFile::create(&self.path(number))?;
        file.write(&[0; HEADER_LENGTH])?;
        Ok(ShardWriter {
            file,
            name: file_name(number),
            channels: self.description.channels as u32,
            classes: self.description.class_names.len() as u32,
            encoding: self.description.encoding,
            sums: PixelSums::new(self.description.channels),
            labels: Vec::new(),
            entries: Vec::new(),
            data_length: 0,
            block: crc32fast::Hasher::new(),
            blocks: Vec::new(),
        })
    }

    /// Writes the manifest over `shards`, in the order of their numbers, and removes shards of higher ones: an interrupted writer's, with fewer
    /// samples each.
    pub fn finish(&self, shards: Vec<FinishedShard>) -> Result<Manifest> {
        let mut sums = PixelSums::new(self.description.channels);
        let mut frame = Frame::NoSamples;
        for shard in &shards {
            sums.checked_add(&shard.sums).context("the data set has too many pixels")?;
            frame = frame.join(shard.frame);
        }
        let channels = self.description.channels as u32;
        let shape = match frame {
            Frame::Shared(height, width) => Some([height, width, channels]),
            _ => None,
        };
        let incomplete = || format!("the data set in {} cannot be completed", self.folder.display());
        let (format, version) = Manifest::header();
        let manifest = Manifest {
            format,
            version,
            samples: shards.iter().map(|shard| shard.record.samples).sum(),
            classes: self.description.class_names.len() as u32,
            class_names: self.description.class_names.clone(),
            channels,
            shape,
            encoding: self.description.encoding,
            statistics: sums.statistics(),
            shards: shards.into_iter().map(|shard| shard.record).collect(),
            made_by: self.description.made_by.clone(),
        };
        self.remove_from(manifest.shards.len()).and_then(|()| manifest.write(&self.folder)).with_context(incomplete)?;
        Ok(manifest)
    }

    fn remove_from(&self, number: usize) -> Result<()> {
        for entry in std::fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let read = name.to_str().and_then(|name| name.split('.').next()?.parse().ok());
            if read.is_some_and(|read| read >= number && *name == *file_name(read)) {
                std::fs::remove_file(self.folder.join(name))?;
            }
        }
        Ok(())
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(file_name(number))
    }
}

/// Writes one shard. Dropped before [`ShardWriter::finish`], it leaves nothing behind.
pub struct ShardWriter {
    file: AtomicFile,
    name: String,
    channels: u32,
    classes: u32,
    encoding: Encoding,
    sums: PixelSums,
    labels: Vec<u32>,
    entries: Vec<Entry>,
    data_length: u64,
    block: crc32fast::Hasher,
    blocks: Vec<u32>,
}

impl ShardWriter {
    /// Appends a sample: its bytes as stored, its frame, label, and the sums of its pixels.
    pub fn add(&mut self, bytes: &[u8], (height, width): (u32, u32), label: u32, sums: &PixelSums) -> Result<()> {
        ensure!(label < self.classes, "label {label} of {} classes", self.classes);
        self.file.write(bytes)?;
        self.entries.push(Entry { offset: self.data_length, length: bytes.len() as u64, height, width });
        self.labels.push(label);
        self.sums.checked_add(sums).context("the shard has too many pixels")?;
        let mut rest = bytes;
        while !rest.is_empty() {
            let free = u64::from(BLOCK_LENGTH) - self.data_length % u64::from(BLOCK_LENGTH);
            let (part, after) = rest.split_at(rest.len().min(free as usize));
            self.block.update(part);
            self.data_length += part.len() as u64;
            if self.data_length.is_multiple_of(u64::from(BLOCK_LENGTH)) {
                self.end_block();
            }
            rest = after;
        }
        Ok(())
    }

    /// Completes the shard and gives the file its name.
    pub fn finish(mut self) -> Result<FinishedShard> {
        if !self.data_length.is_multiple_of(u64::from(BLOCK_LENGTH)) {
            self.end_block();
        }
        let mut frames = self.entries.iter().map(|entry| (entry.height, entry.width));
        let first = frames.next();
        let shared = first.filter(|first| frames.all(|frame| frame == *first));
        let (height, width) = shared.unwrap_or((0, 0));
        let mut header = Header {
            encoding: self.encoding,
            samples: self.labels.len() as u64,
            data_length: self.data_length,
            channels: self.channels,
            height,
            width,
            classes: self.classes,
            block_length: BLOCK_LENGTH,
            tables_crc32: 0,
        };
        let tables = self.tables(&header);
        header.tables_crc32 = crc32fast::hash(&tables);
        let bytes = header.to_bytes();
        self.file.write(&tables)?;
        self.file.rewrite_start(&bytes)?;
        self.file.commit()?;
        let record = ShardRecord {
            file: self.name,
            bytes: HEADER_LENGTH as u64 + self.data_length + tables.len() as u64,
            samples: header.samples,
            header_crc32: header_crc32(&bytes),
        };
        Ok(FinishedShard { record, frame: Frame::of(&header), sums: self.sums })
    }

    fn end_block(&mut self) {
        self.blocks.push(std::mem::take(&mut self.block).finalize());
    }

    fn tables(&self, header: &Header) -> Vec<u8> {
        let mut tables = Vec::new();
        tables.extend(self.sums.pixels.to_le_bytes());
        for sum in self.sums.channels.iter().flatten() {
            tables.extend(sum.to_le_bytes());
        }
        for label in &self.labels {
            tables.extend(label.to_le_bytes());
        }
        if header.has_entries() {
            for entry in &self.entries {
                tables.extend(entry.to_bytes());
            }
        }
        for block in &self.blocks {
            tables.extend(block.to_le_bytes());
        }
        tables
    }
}

fn file_name(number: usize) -> String {
    format!("{number:05}.shard")
}
