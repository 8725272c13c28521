//! From images of various origins to shards, one file per origin.

pub mod arrays;
pub mod cifar;
pub mod disk;
pub mod fetch;
pub mod folder;
pub mod idx;
pub mod imagenet;
pub mod journal;
pub mod npy;
pub mod photos;
pub mod pickle;
pub mod pipeline;
pub mod stream;
pub mod tree;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use shards::{Dataset, Manifest};

/// What a preparation has made.
pub struct Made {
    /// Folders with their manifests.
    pub parts: Vec<(PathBuf, Manifest)>,
    /// All of it was there before.
    pub before: bool,
}

impl Made {
    pub fn now(parts: Vec<(PathBuf, Manifest)>) -> Made {
        Made { parts, before: false }
    }

    /// What an earlier run of the same job has made.
    ///
    /// # Errors
    /// Where that is damaged or gone.
    pub fn before(out: &Path, folders: impl IntoIterator<Item = PathBuf>) -> Result<Made> {
        let opened = folders.into_iter().map(|folder| {
            let manifest = made_before(&folder, out)?;
            Ok((folder, manifest))
        });
        Ok(Made { parts: opened.collect::<Result<_>>()?, before: true })
    }
}

/// What an earlier run has made in `folder`.
///
/// # Errors
/// Where that is damaged or gone: then `all` has to be made again.
pub fn made_before(folder: &Path, all: &Path) -> Result<Manifest> {
    let dataset = Dataset::open(folder).with_context(|| {
        let all = all.display();
        format!("{all} was prepared by this command, but is damaged since; delete {all} and run the same command again")
    })?;
    Ok(dataset.manifest().clone())
}

/// Samples per shard for samples of `bytes` each.
pub fn samples_per_shard(shard_mib: u32, bytes: u64) -> usize {
    usize::try_from((u64::from(shard_mib) << 20) / bytes.max(1)).unwrap_or(usize::MAX).max(1)
}

/// What made a data set, for its manifest. Neither the time nor absolute paths, so that equal input gives equal bytes.
pub fn made_by(command: &str, options: serde_json::Value) -> serde_json::Value {
    serde_json::json!({ "program": concat!("data-prep ", env!("CARGO_PKG_VERSION")), "command": command, "options": options })
}

/// The last part of a path, as text.
pub fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Class names where the origin has none: the numbers.
pub fn numbered_classes(classes: u32) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}
