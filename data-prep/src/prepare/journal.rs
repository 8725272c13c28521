//! The photos that could not be used, remembered across interruptions.
//!
//! While a preparation runs they are lines of JSON, written before the shard that they are missing from is complete; at the
//! end they become `unreadable.txt` beside the shards, in the photos' order.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::files::{open_at_once, read_regular, sync_folder, write_atomically};
use biodist_process::quote::plain;
use serde::{Deserialize, Serialize};

/// The list while the preparation runs.
pub const WORKING: &str = "unreadable.jsonl";
/// The list that a finished data set holds, where there is anything to list.
pub const REPORT: &str = "unreadable.txt";

/// A photo that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unreadable {
    /// The shard in which it would lie.
    pub shard: usize,
    pub file: String,
    pub reason: String,
}

/// The list of one folder of shards.
pub struct Journal {
    folder: PathBuf,
    entries: Vec<Unreadable>,
    /// Opened with the first entry.
    file: Option<File>,
}

impl Journal {
    /// Opens the list, going on with an interrupted run's.
    pub fn open(folder: &Path) -> Result<Journal> {
        let path = folder.join(WORKING);
        let mut entries = Vec::new();
        if path.exists() {
            let bytes = read_regular(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            // A kill may have cut the last line; its shard is not complete then.
            entries.extend(bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()));
        }
        Ok(Journal { folder: folder.to_owned(), entries, file: None })
    }

    /// Forgets the entries of shards that are to be written again, and what a kill left of a line.
    pub fn keep(&mut self, complete: impl Fn(usize) -> bool) -> Result<()> {
        self.entries.retain(|entry| complete(entry.shard));
        let path = self.folder.join(WORKING);
        if path.exists() {
            let lines: Vec<String> = self.entries.iter().map(line).collect();
            write_atomically(&path, lines.concat().as_bytes())?;
        }
        Ok(())
    }

    /// How many are missing from a shard.
    pub fn of_shard(&self, shard: usize) -> usize {
        self.entries.iter().filter(|entry| entry.shard == shard).count()
    }

    pub fn add(&mut self, entry: Unreadable) -> Result<()> {
        let path = self.folder.join(WORKING);
        if self.file.is_none() {
            self.file = Some(
                open_at_once(&path, OpenOptions::new().create(true).append(true))
                    .with_context(|| format!("{} cannot be written", path.display()))?,
            );
        }
        if let Some(file) = &mut self.file {
            file.write_all(line(&entry).as_bytes()).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Brings all entries to disk.
    pub fn sync(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all).with_context(|| format!("{WORKING} cannot be written"))
    }

    /// Writes the final list, where there is anything to list, and returns its entries.
    pub fn report(&mut self) -> Result<&[Unreadable]> {
        self.entries.sort_by_key(|entry| entry.shard);
        if !self.entries.is_empty() {
            let lines: Vec<String> =
                self.entries.iter().map(|entry| format!("{}: {}\n", plain(&entry.file), plain(&entry.reason))).collect();
            write_atomically(&self.folder.join(REPORT), lines.concat().as_bytes())?;
        }
        Ok(&self.entries)
    }

    /// Removes the working list, once the manifest is written.
    pub fn remove(self) -> Result<()> {
        let path = self.folder.join(WORKING);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
            sync_folder(&path)?;
        }
        Ok(())
    }
}

fn line(entry: &Unreadable) -> String {
    format!("{}\n", serde_json::json!(entry))
}
