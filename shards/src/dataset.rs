//! A prepared data set, read-only.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Once;

use anyhow::{Context, Result, ensure};

use crate::format::Encoding;
use crate::manifest::Manifest;
use crate::shard::{Folder, Shard};
use crate::statistics::ChannelStatistics;

/// Data sets up to this many bytes are brought into memory whole at the first prefetch, one call per shard instead of one per sample.
const SMALL: u64 = 256 << 20;

/// A folder of shards with its manifest. Samples are numbered through all shards, in the manifest's order.
pub struct Dataset {
    folder: PathBuf,
    manifest: Manifest,
    shards: Vec<Shard>,
    /// Number of each shard's first sample.
    starts: Vec<usize>,
    small: bool,
    advised: Once,
}

/// One sample, decoded.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// [H, W, C]: borrowed from the map where it is stored raw.
    pub pixels: Cow<'a, [u8]>,
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    pub label: u32,
}

impl Dataset {
    /// Opens a data set and checks the manifest, and of every shard its length, header, tables, and agreement with the
    /// manifest. The pixels' own checksums are for `data-prep verify`.
    ///
    /// # Errors
    /// Names the first file that is missing, truncated, altered, of another version or foreign, what was found, and what to do.
    pub fn open(dir: &Path) -> Result<Dataset> {
        let manifest = Manifest::read(dir)?;
        let folder = Folder::open(dir)?;
        let mut shards = Vec::with_capacity(manifest.shards.len());
        let mut starts = Vec::with_capacity(manifest.shards.len());
        let mut samples = 0;
        for record in &manifest.shards {
            let path = dir.join(&record.file);
            let missing = || {
                format!(
                    "shard {} is missing, though the manifest in its folder lists it; restore it or prepare the data set again",
                    path.display()
                )
            };
            let shard = Shard::open(&folder, &path).map_err(|error| match error.downcast_ref::<std::io::Error>() {
                Some(cause) if cause.kind() == std::io::ErrorKind::NotFound => anyhow::anyhow!(missing()),
                _ => error,
            })?;
            let header = shard.header();
            let agrees = shard.header_crc32() == record.header_crc32
                && shard.file_length() == record.bytes
                && header.samples == record.samples
                && header.channels == manifest.channels
                && header.classes == manifest.classes
                && header.encoding == manifest.encoding
                && manifest.shape.is_none_or(|shape| header.samples == 0 || [header.height, header.width] == shape[..2]);
            ensure!(
                agrees,
                "shard {} belongs to another data set than the manifest in its folder (it has header checksum {}, {} bytes and {} \
                 samples; listed are {}, {} and {}); restore it or prepare the data set again",
                path.display(),
                shard.header_crc32(),
                shard.file_length(),
                header.samples,
                record.header_crc32,
                record.bytes,
                record.samples
            );
            starts.push(samples);
            samples += header.samples as usize;
            shards.push(shard);
        }
        let mut dataset = Dataset { folder: dir.to_owned(), manifest, shards, starts, small: false, advised: Once::new() };
        dataset.small = dataset.bytes() <= SMALL;
        Ok(dataset)
    }

    /// Compares the checksums of all samples, on this thread: a few gigabytes per second where they are in memory.
    ///
    /// # Errors
    /// Names the first shard that is altered, and which of its bytes.
    pub fn verify(&self) -> Result<()> {
        self.shards.iter().try_for_each(|shard| (0..shard.blocks()).try_for_each(|block| shard.verify_block(block)))
    }

    /// Bytes of all shards.
    pub fn bytes(&self) -> u64 {
        self.manifest.shards.iter().map(|record| record.bytes).sum()
    }

    /// The folder it was opened from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Number of samples, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.manifest.samples as usize
    }

    /// Stored [H, W, C] where all samples share it; `None` where frames differ.
    pub fn shape(&self) -> Option<[usize; 3]> {
        self.manifest.shape.map(|shape| shape.map(|side| side as usize))
    }

    pub fn channels(&self) -> usize {
        self.manifest.channels as usize
    }

    /// Number of classes: as prepared, else the largest label and one.
    pub fn classes(&self) -> usize {
        self.manifest.classes as usize
    }

    /// One name per class.
    pub fn class_names(&self) -> &[String] {
        &self.manifest.class_names
    }

    /// Stands for all that the shards hold, in their order: a CRC-32 of their headers' checksums, which cover those of labels and pixels.
    pub fn fingerprint(&self) -> u32 {
        self.manifest.fingerprint()
    }

    /// The label of sample `index`, which must be below [`Dataset::len`].
    pub fn label(&self, index: usize) -> u32 {
        let (shard, within) = self.locate(index);
        shard.labels()[within]
    }

    /// Sample `index`, decoded where it is stored as JPEG.
    ///
    /// # Errors
    /// Where the index is not below [`Dataset::len`], the shard has changed since it was opened, or a JPEG is broken.
    pub fn sample(&self, index: usize) -> Result<Sample<'_>> {
        ensure!(index < self.len(), "{} has {} samples, asked was number {index}", self.folder.display(), self.len());
        let (shard, within) = self.locate(index);
        let stored = shard.stored(within)?;
        let pixels = match self.manifest.encoding {
            Encoding::Raw => Cow::Borrowed(stored.bytes),
            Encoding::Jpeg => {
                let decoded = crate::jpeg::decode_stored(stored.bytes, stored.height, stored.width, self.channels());
                Cow::Owned(decoded.with_context(|| {
                    format!("sample {within} of shard {} cannot be decoded; check it with `data-prep verify`", shard.path().display())
                })?)
            }
        };
        Ok(Sample { pixels, height: stored.height, width: stored.width, channels: self.channels(), label: stored.label })
    }

    /// Mean and population deviation per channel of x / 255, computed when the data set was prepared.
    pub fn statistics(&self) -> &ChannelStatistics {
        &self.manifest.statistics
    }

    /// Asks the system to bring the samples that come next into memory, without waiting for them.
    pub fn prefetch(&self, indices: &[usize]) {
        if self.small {
            self.advised.call_once(|| self.shards.iter().for_each(Shard::prefetch_all));
            return;
        }
        for &index in indices.iter().filter(|&&index| index < self.len()) {
            let (shard, within) = self.locate(index);
            shard.prefetch(within);
        }
    }

    /// The shard of a sample and its number there. Empty shards share their start with the next one, which is the one meant.
    fn locate(&self, index: usize) -> (&Shard, usize) {
        let shard = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.shards[shard], index - self.starts[shard])
    }
}
