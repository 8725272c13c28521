//! What the origins of photos have in common: options, disk need, shards, the report of what was left out.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, bail};
use biodist_process::quote::excerpt;
use serde_json::Value;
use shards::format::Encoding;
use shards::manifest::{FILE_NAME, Manifest};
use shards::writer::{DatasetWriter, Description};

use super::disk;
use super::journal::{Journal, REPORT};
use super::pipeline::{self, Photos, Settings};
use super::{made_before, samples_per_shard};
use crate::photo::{CHANNELS, Treatment};

/// Photos prepared beforehand to learn how large they become.
const PROBES: usize = 24;

/// How the photos are to be stored.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub treatment: Treatment,
    pub shard_mib: u32,
    /// Zero: as many as there are processors.
    pub threads: usize,
    /// Fail at the first photo that cannot be decoded.
    pub strict: bool,
}

impl Options {
    /// What decides the bytes that are written, for the job and the manifest: neither the threads nor `strict`.
    pub fn describe(&self) -> Value {
        let treatment = &self.treatment;
        let quality = (treatment.encoding == Encoding::Jpeg).then_some(treatment.quality);
        serde_json::json!({
            "size": treatment.size,
            "full_frame": !treatment.square,
            "store": treatment.encoding,
            "quality": quality,
            "exif_orientation": treatment.exif_orientation,
            "shard_mib": self.shard_mib,
        })
    }

    pub fn threads(&self) -> usize {
        match self.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        }
    }
}

/// A part of a data set, "train" or "val", or the only one.
pub struct Part<'a> {
    pub label: &'a str,
    pub folder: &'a Path,
    pub photos: &'a dyn Photos,
    pub class_names: Vec<String>,
    pub made_by: Value,
}

impl Part<'_> {
    /// Mean bytes of a stored photo, from a few of them spread over all.
    pub fn bytes_per_photo(&self, options: &Options) -> Result<u64> {
        let treatment = &options.treatment;
        if let (Some(size), true, Encoding::Raw) = (treatment.size, treatment.square, treatment.encoding) {
            return Ok(u64::from(size) * u64::from(size) * CHANNELS as u64);
        }
        let count = self.photos.count();
        let probes = count.min(PROBES);
        let (mut bytes, mut readable) = (0, 0);
        for probe in 0..probes {
            if let Ok(prepared) = pipeline::prepare(self.photos, probe * count / probes, treatment, |_| Ok(()))? {
                bytes += prepared.bytes.len() as u64;
                readable += 1;
            }
        }
        Ok(bytes.checked_div(readable).unwrap_or(u64::from(u16::MAX)))
    }

    /// Prepares the part, from where an earlier run was interrupted.
    pub fn prepare(self, options: &Options, bytes_per_photo: u64) -> Result<Manifest> {
        // Another part was under way when the job was interrupted: this one's list of unreadable photos is no more.
        if self.folder.join(FILE_NAME).exists() {
            Journal::open(self.folder)?.remove()?;
            return made_before(self.folder, self.folder);
        }
        let mut description =
            Description { channels: CHANNELS, class_names: self.class_names, encoding: options.treatment.encoding, made_by: self.made_by };
        let settings = Settings {
            threads: options.threads(),
            photos_per_shard: samples_per_shard(options.shard_mib, bytes_per_photo),
            strict: options.strict,
        };
        let writer = DatasetWriter::begin(self.folder, description.clone())?;
        let mut journal = Journal::open(self.folder)?;
        let shards = pipeline::run(self.label, self.photos, &options.treatment, &settings, &writer, &mut journal)?;
        let unreadable = journal.report()?;
        if let Some(first) = unreadable.first() {
            if unreadable.len() == self.photos.count() {
                bail!("none of the {} photos could be used; the first is {}: {}", unreadable.len(), excerpt(&first.file), first.reason);
            }
            let report = self.folder.join(REPORT);
            let _ = writeln!(
                std::io::stderr(),
                "{}: {} of {} photos left out, listed in {}",
                self.label,
                unreadable.len(),
                self.photos.count(),
                report.display()
            );
            description.made_by["unreadable"] = unreadable.len().into();
        }
        let manifest = DatasetWriter::begin(self.folder, description)?.finish(shards)?;
        journal.remove()?;
        Ok(manifest)
    }
}

/// Says how much disk all parts need together, and fails where it is not there.
pub fn require_disk(out: &Path, label: &str, bytes: u64, options: &Options) -> Result<()> {
    let advice = match options.treatment.encoding {
        Encoding::Raw => "use --store jpeg, which takes about a tenth",
        Encoding::Jpeg => "lower --quality",
    };
    disk::require(out, label, bytes, advice)
}
