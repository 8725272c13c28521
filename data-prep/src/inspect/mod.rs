//! Looking at prepared data sets: what they hold, whether it is intact, how it looks.

pub mod info;
pub mod sheet;
pub mod show;
pub mod verify;

use std::path::{Path, PathBuf};

use shards::manifest::{FILE_NAME, PARTS};

/// A number of things, named as one or as several.
pub fn number(count: u64, thing: &str) -> String {
    let ending = if thing.ends_with('s') { "es" } else { "s" };
    format!("{count} {thing}{}", if count == 1 { "" } else { ending })
}

/// The data sets that a folder stands for: itself, or those that one preparation put below it.
pub fn parts(folder: &Path) -> Vec<PathBuf> {
    let below: Vec<PathBuf> = PARTS.iter().map(|part| folder.join(part)).collect();
    if folder.join(FILE_NAME).exists() || !below.iter().any(|part| part.join(FILE_NAME).exists()) {
        return vec![folder.to_owned()];
    }
    below.into_iter().filter(|part| part.exists()).collect()
}
