//! The folder that a preparation fills, and how an interrupted one is told from anything else.
//!
//! `job.json` is written before the first shard, and marked as complete after the last manifest. The folder belongs to that job alone:
//! the same command goes on, or finds all done; anything else is refused. A lock on it keeps two processes apart; it is taken before
//! anything is looked at. A job that made nothing leaves nothing that another one could be refused for.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use biodist_process::exit::Exit;
use biodist_process::files::{self, PARTIAL, open_at_once, open_regular, sync_folder, write_atomically};
use biodist_process::quote::excerpt;
use serde_json::{Value, json};
use shards::manifest::PARTS;

use crate::prepare::{base_name, journal};

const JOB: &str = "job.json";
/// Its entry that says that nothing is left to do.
const COMPLETE: &str = "complete";
/// Inputs up to this many bytes are known by their content, larger ones by size and time of modification.
pub const COMPARED: u64 = 256 << 20;

/// An output folder that belongs to the running job.
pub struct Output {
    folder: PathBuf,
    resumed: bool,
    created: bool,
    released: bool,
    /// `job.json`, locked for as long as the job runs.
    job: File,
}

impl Output {
    /// Takes `folder` for `job`, a description of the command and its inputs. Creates the folder where it is missing. None where the
    /// same job is complete.
    ///
    /// # Errors
    /// Where the folder holds anything but the same job, or another process is at work in it.
    pub fn claim(folder: &Path, job: &Value) -> Result<Option<Output>> {
        let created = !folder.exists();
        if !created && !folder.is_dir() {
            return Err(Exit::Usage.error(format!("--out {} is a file; give a folder that is empty or does not exist", folder.display())));
        }
        std::fs::create_dir_all(folder).with_context(|| format!("--out {} cannot be created", folder.display()))?;
        let mut output = Output { folder: folder.to_owned(), resumed: false, created, released: false, job: locked(folder)? };
        let complete = output.begin(job)?;
        Ok((!complete).then_some(output))
    }

    /// Whether the job is complete.
    fn begin(&mut self, job: &Value) -> Result<bool> {
        let path = self.folder.join(JOB);
        let mut text = Vec::new();
        self.job.read_to_end(&mut text).with_context(|| format!("{} cannot be read", path.display()))?;
        let mut found: Value = serde_json::from_slice(&text).unwrap_or_default();
        let complete = found.as_object_mut().is_some_and(|entries| entries.remove(COMPLETE).is_some());
        self.resumed = found == *job;
        if self.resumed {
            return Ok(complete);
        }
        if let Some(name) = made(&self.folder)? {
            if text.is_empty() {
                std::fs::remove_file(&path).with_context(|| format!("{} cannot be removed", path.display()))?;
                return Err(not_empty(&self.folder, &name));
            }
            let (folder, difference) = (self.folder.display(), difference("", &found, job).unwrap_or_default());
            return Err(Exit::Usage.error(match complete {
                true => format!("--out {folder} holds another data set ({difference}); give another folder, or delete {folder}"),
                false => format!(
                    "--out {folder} holds another preparation that was interrupted ({difference}); go on with what that one was given, \
                     delete {folder} to begin anew, or give another folder"
                ),
            }));
        }
        clear(&self.folder)?;
        let written = self.job.set_len(0).and_then(|()| self.job.rewind());
        let written = written.and_then(|()| self.job.write_all(format!("{job:#}\n").as_bytes())).and_then(|()| self.job.sync_all());
        written.with_context(|| format!("{} cannot be written", path.display()))?;
        sync_folder(&path)?;
        Ok(false)
    }

    /// Makes a new job pass `check` before it writes anything. A job that goes on has passed.
    pub fn admit(self, check: impl FnOnce() -> Result<()>) -> Result<Output> {
        if !self.resumed {
            check()?;
        }
        Ok(self)
    }

    /// Ends `job`: from now on the folder is a finished data set.
    pub fn release(mut self, mut job: Value) -> Result<()> {
        job[COMPLETE] = true.into();
        self.released = true;
        write_atomically(&self.folder.join(JOB), format!("{job:#}\n").as_bytes())
    }
}

impl Drop for Output {
    /// Gives the folder back where nothing was made in it. Where that fails, the next job that wants it clears it.
    fn drop(&mut self) {
        if !self.released && matches!(made(&self.folder), Ok(None)) {
            let _ = clear(&self.folder).and_then(|()| Ok(std::fs::remove_file(self.folder.join(JOB))?));
            if self.created {
                let _ = std::fs::remove_dir(&self.folder);
            }
        }
    }
}

/// The folder's `job.json`, which is created where the folder is empty, locked.
fn locked(folder: &Path) -> Result<File> {
    let path = folder.join(JOB);
    loop {
        if !path.exists()
            // Another may create it between the two looks.
            && let Some(name) = names(folder)?.into_iter().find(|name| *name != JOB && *name != format!("{JOB}.{PARTIAL}"))
        {
            return Err(not_empty(folder, &name));
        }
        let file = open_at_once(&path, OpenOptions::new().read(true).write(true).create(true));
        let file = file.with_context(|| format!("{} cannot be opened", path.display()))?;
        if !files::lock(&file) {
            bail!("another data-prep is at work in {}; wait until it ends, or give another folder", folder.display());
        }
        // Whoever had the lock has ended, and may have taken the file along.
        let same = |there: std::fs::Metadata| file.metadata().is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()));
        if path.metadata().is_ok_and(same) {
            return Ok(file);
        }
    }
}

fn not_empty(folder: &Path, name: &str) -> anyhow::Error {
    Exit::Usage.error(format!("--out {} is not empty (it holds {name}); give a folder that is empty or does not exist", folder.display()))
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let read = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>());
    let mut names = read.with_context(|| format!("--out {} cannot be read", folder.display()))?;
    names.sort();
    Ok(names.into_iter().map(|name| name.to_string_lossy().into_owned()).collect())
}

/// Whether a job leaves a file of this name without having made anything.
fn is_working_file(name: &str) -> bool {
    name == JOB || name == journal::WORKING || name.ends_with(&format!(".{PARTIAL}"))
}

/// The first name in the folder that stands for something made.
fn made(folder: &Path) -> Result<Option<String>> {
    for name in names(folder)? {
        let below = folder.join(&name);
        let nothing = if PARTS.contains(&name.as_str()) && below.is_dir() { made(&below)?.is_none() } else { is_working_file(&name) };
        if !nothing {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Removes what a job that made nothing has left, `job.json` excepted.
fn clear(folder: &Path) -> Result<()> {
    for name in names(folder)?.into_iter().filter(|name| name != JOB) {
        let path = folder.join(&name);
        let removed = if is_working_file(&name) {
            std::fs::remove_file(&path)
        } else {
            clear(&path).and_then(|()| Ok(std::fs::remove_dir(&path)?)).map_err(std::io::Error::other)
        };
        removed.with_context(|| format!("{} cannot be removed", path.display()))?;
    }
    Ok(())
}

/// The first thing in which two jobs differ, for a message.
fn difference(at: &str, found: &Value, wanted: &Value) -> Option<String> {
    match (found, wanted) {
        _ if found == wanted => None,
        (Value::Object(ours), Value::Object(theirs)) => {
            let keys = ours.keys().chain(theirs.keys());
            let below = |key: &String| if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            keys.into_iter().find_map(|key| difference(&below(key), &found[key], &wanted[key]))
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            ours.iter().zip(theirs).find_map(|(ours, theirs)| difference(at, ours, theirs))
        }
        _ if at.is_empty() => Some("its job.json is unreadable".to_owned()),
        _ => Some(format!("{at} is {} there, {} here", excerpt(&found.to_string()), excerpt(&wanted.to_string()))),
    }
}

/// Fails where the output would lie in one of the inputs, which would then hold it, or an input in the output.
pub fn require_apart(out: &Path, inputs: &[&Path]) -> Result<()> {
    let place = resolved(out);
    for input in inputs {
        // What is not there is told by who reads it.
        let Ok(there) = input.canonicalize() else { continue };
        let (out, input) = (out.display(), input.display());
        if place.starts_with(&there) {
            return Err(Exit::Usage.error(format!("--out {out} lies in {input}, which is read; give a folder outside of it")));
        }
        if there.starts_with(&place) {
            return Err(Exit::Usage.error(format!("{input}, which is read, lies in --out {out}; give another folder for the output")));
        }
    }
    Ok(())
}

/// Where a path leads, links followed as far as there is anything.
fn resolved(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut place = PathBuf::new();
    for part in absolute.components() {
        match part {
            Component::ParentDir => drop(place.pop()),
            part => place.push(part),
        }
        place = place.canonicalize().unwrap_or(place);
    }
    place
}

/// What identifies an input file in a job: its name and its content, or where that is large, its size and time of modification.
pub fn identity(path: &Path) -> Result<Value> {
    let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
    let metadata = file.metadata().with_context(|| format!("{} cannot be examined", path.display()))?;
    let mut identity = json!({ "name": base_name(path), "bytes": metadata.len() });
    if metadata.len() <= COMPARED {
        let mut hasher = crc32fast::Hasher::new();
        hash(&mut hasher, file).with_context(|| format!("{} cannot be read", path.display()))?;
        identity["content"] = format!("{:08x}", hasher.finalize()).into();
    } else {
        identity["modified"] = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec()).into();
    }
    Ok(identity)
}

/// Adds a file's bytes.
pub fn hash(hasher: &mut crc32fast::Hasher, mut file: impl Read) -> std::io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_in_which_nothing_was_made_is_free_for_another_job() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("out");
        let [one, two] = [1, 2].map(|size| json!({ "storing": { "size": size } }));
        let claim = |job| Output::claim(&folder, job).unwrap().unwrap();
        let refused = claim(&one).admit(|| bail!("no room"));
        assert_eq!(refused.err().unwrap().to_string(), "no room");
        assert!(!folder.exists());
        // Killed in its first moments: it can give nothing back.
        std::fs::create_dir_all(folder.join("train")).unwrap();
        for name in [JOB, "train/unreadable.jsonl", "train/00000.shard.partial"] {
            std::fs::write(folder.join(name), b"{\"size\"").unwrap();
        }
        let output = claim(&two);
        assert!(!folder.join("train").exists());
        let at_work = Output::claim(&folder, &one).err().unwrap().to_string();
        assert!(at_work.starts_with("another data-prep is at work in "), "{at_work}");
        std::fs::write(folder.join("00000.shard"), b"made").unwrap();
        drop(output);
        // What was admitted once goes on unasked.
        drop(claim(&two).admit(|| bail!("no room any more")).unwrap());
        let other = Output::claim(&folder, &one).err().unwrap().to_string();
        assert!(other.contains("storing.size is 2 there, 1 here") && other.contains(&format!("delete {}", folder.display())), "{other}");
        std::fs::remove_dir_all(&folder).unwrap();
        let output = claim(&one);
        std::fs::write(folder.join("00000.shard"), b"made").unwrap();
        output.release(one.clone()).unwrap();
        assert!(Output::claim(&folder, &one).unwrap().is_none());
        let other = Output::claim(&folder, &two).err().unwrap().to_string();
        assert!(other.contains("holds another data set (storing.size is 1 there, 2 here)"), "{other}");
    }

    #[test]
    fn an_output_in_an_input_is_seen_through_links() {
        let parent = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        std::fs::create_dir_all(path("in/deep")).unwrap();
        std::fs::write(path("in/file"), b"").unwrap();
        std::os::unix::fs::symlink(path("in/deep"), path("link")).unwrap();
        let apart = |out: &str, input: &str| require_apart(&path(out), &[&path(input)]).map_err(|error| error.to_string());
        for (out, input) in [("in", "in"), ("in/out", "in"), ("link/out", "in"), ("link/../out", "in"), ("no/../in/out", "in/deep/..")] {
            assert!(apart(out, input).is_err_and(|error| error.contains("give a folder outside")), "{out} {input}");
        }
        for (out, input) in [("in", "in/deep"), ("in", "link"), ("in", "in/file")] {
            assert!(apart(out, input).is_err_and(|error| error.contains("lies in --out")), "{out} {input}");
        }
        for (out, input) in [("in/out", "in/file"), ("in-out", "in"), ("out", "in"), ("in/../out", "in"), ("x", "none")] {
            assert_eq!(apart(out, input), Ok(()), "{out} {input}");
        }
    }
}
