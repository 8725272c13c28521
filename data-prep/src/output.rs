//! The folder that a preparation fills, and how an interrupted one is told from anything else.
//!
//! `job.json` is written before the first shard and removed after the last manifest. While it is there the folder belongs to
//! that job alone: the same command goes on, anything else is refused. A lock on it keeps two processes apart.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::error::{excerpt, usage};
use crate::files::{PARTIAL, sync_folder, write_atomically};

const JOB: &str = "job.json";

/// An output folder that belongs to the running job.
pub struct Output {
    folder: PathBuf,
    resumed: bool,
    /// Holds the lock for as long as the job runs.
    _lock: File,
}

impl Output {
    /// Takes `folder` for `job`, a description of the command and its inputs. Creates the folder where it is missing.
    ///
    /// # Errors
    /// Where the folder holds anything but the same job interrupted, or another process is at work in it.
    pub fn claim(folder: &Path, job: &Value) -> Result<Output> {
        if folder.exists() && !folder.is_dir() {
            return Err(usage(format!("--out {} is a file; give a folder that is empty or does not exist", folder.display())));
        }
        std::fs::create_dir_all(folder).with_context(|| format!("--out {} cannot be created", folder.display()))?;
        let path = folder.join(JOB);
        let resumed = path.exists();
        if resumed {
            let text = std::fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let found: Value = serde_json::from_slice(&text).unwrap_or_default();
            if found != *job {
                return Err(usage(format!(
                    "--out {} holds another preparation that was interrupted ({}); finish that with its own command, delete it, or give another folder",
                    folder.display(),
                    difference(&found, job)
                )));
            }
        } else {
            if let Some(name) = first_entry(folder)? {
                return Err(usage(format!(
                    "--out {} is not empty (it holds {name}); give a folder that is empty or does not exist",
                    folder.display()
                )));
            }
            write_atomically(&path, format!("{job:#}\n").as_bytes())?;
        }
        let lock = OpenOptions::new().read(true).write(true).open(&path);
        let lock = lock.with_context(|| format!("{} cannot be opened", path.display()))?;
        // File systems without locks have no protection against two processes; all else works there.
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            bail!("another data-prep is at work in {}; wait until it ends", folder.display());
        }
        Ok(Output { folder: folder.to_owned(), resumed, _lock: lock })
    }

    /// Makes a new job pass `check` before it writes anything; where it does not, the folder is given back. A job that goes on has
    /// passed.
    pub fn admit(self, check: impl FnOnce() -> Result<()>) -> Result<Output> {
        if !self.resumed
            && let Err(refusal) = check()
        {
            self.release()?;
            return Err(refusal);
        }
        Ok(self)
    }

    /// Ends the job: from now on the folder is a finished data set.
    pub fn release(self) -> Result<()> {
        let path = self.folder.join(JOB);
        std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
        sync_folder(&path)
    }
}

/// A name in the folder, other than what is left of a job killed in its first moment.
fn first_entry(folder: &Path) -> Result<Option<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("--out {} cannot be read", folder.display()))? {
        let name = entry.with_context(|| format!("--out {} cannot be read", folder.display()))?.file_name();
        if name != *format!("{JOB}.{PARTIAL}") {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    Ok(names.into_iter().min())
}

/// The first key in which two jobs differ, for a message.
fn difference(found: &Value, wanted: &Value) -> String {
    let empty = serde_json::Map::new();
    let (found, wanted) = (found.as_object().unwrap_or(&empty), wanted.as_object().unwrap_or(&empty));
    let keys = found.keys().chain(wanted.keys());
    let Some(key) = keys.into_iter().find(|key| found.get(*key) != wanted.get(*key)) else { return "unreadable".to_owned() };
    let show = |value: Option<&Value>| value.map_or("absent".to_owned(), |value| excerpt(&value.to_string()));
    format!("{key} is {} there, {} here", show(found.get(key)), show(wanted.get(key)))
}

/// What identifies an input file in a job: its absolute path, length and modification time.
pub fn identity(path: &Path) -> Result<Value> {
    use std::os::unix::fs::MetadataExt;
    let absolute = path.canonicalize().map_err(|error| usage(format!("{} cannot be opened: {error}", path.display())))?;
    let metadata = absolute.metadata().with_context(|| format!("{} cannot be examined", path.display()))?;
    Ok(serde_json::json!({
        "path": absolute.to_string_lossy(),
        "bytes": metadata.len(),
        "modified": format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_whose_job_was_not_admitted_is_free_for_another() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let refused = Output::claim(&folder, &json!({ "size": 1 })).unwrap().admit(|| bail!("no room"));
        assert_eq!(refused.err().unwrap().to_string(), "no room");
        let admitted = Output::claim(&folder, &json!({ "size": 2 })).unwrap().admit(|| Ok(())).unwrap();
        drop(admitted);
        // What was admitted once goes on unasked.
        Output::claim(&folder, &json!({ "size": 2 })).unwrap().admit(|| bail!("no room any more")).unwrap();
        let other = Output::claim(&folder, &json!({ "size": 1 })).err().unwrap().to_string();
        assert!(other.contains("size is 2 there, 1 here") && other.contains("delete it"), "{other}");
    }
}
