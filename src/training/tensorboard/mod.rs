//! TensorBoard's event files, beside `metrics.jsonl`: every line of that file as scalars, for watching a run live.
//!
//! TensorBoard keeps what it has read, and reads on where a file grows. So a resumed run leaves the files before it as they are, and
//! begins one of its own with the start of a session: there TensorBoard drops all it has from that step on, which are the steps that the
//! run does once more.

mod event;
mod record;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use serde_json::Value;

use super::checkpoint::create_folder;
use super::records::TIME;
use crate::host;

/// Folder of the files, in the run's.
pub const FOLDER: &str = "tensorboard";
/// How their names begin, by which TensorBoard knows them.
const NAME: &str = "events.out.tfevents.";

/// Keys of a line that say what it is of, instead of what was measured.
const NOT_MEASURED: [&str; 4] = ["step", "epoch", "samples", TIME];

/// A file of events that is being written, on rank 0.
pub struct EventFile {
    path: PathBuf,
    file: File,
}

impl EventFile {
    /// Whether the run in `run` has events from before.
    pub fn exists(run: &Path) -> Result<bool> {
        Ok(newest(&run.join(FOLDER))?.is_some())
    }

    /// Begins a file in the folder of `run`, whose events replace those from `step` on in the files before it.
    pub fn begin(run: &Path, step: u64) -> Result<EventFile> {
        let folder = run.join(FOLDER);
        create_folder(&folder)?;
        // TensorBoard reads files by name; a clock that was set back, or another host's, must not put this one before an older one.
        let now = wall_time() as u64;
        let seconds = newest(&folder)?.map_or(now, |newest| now.max(newest + 1));
        let path = folder.join(format!("{NAME}{seconds:010}.{}", host::name()));
        let opened = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = opened.with_context(|| format!("{} cannot be created", path.display()))?;
        let mut events = EventFile { path, file };
        events.write(&event::file_version(wall_time()))?;
        events.write(&event::session_start(wall_time(), signed(step)))?;
        Ok(events)
    }

    /// Writes the numbers of a line of metrics, tagged by its split: `test/top1_error`, `train/seconds/load`.
    pub fn add(&mut self, line: &Value) -> Result<()> {
        let step = line["step"].as_u64().unwrap_or(0);
        let mut values = Vec::new();
        collect(line["split"].as_str().unwrap_or_default(), line, &mut values);
        if values.is_empty() {
            return Ok(());
        }
        self.write(&event::scalars(wall_time(), signed(step), &values))
    }

    /// A record at a time, so that a reader sees no half one for longer than it takes to write.
    fn write(&mut self, message: &[u8]) -> Result<()> {
        self.file.write_all(&record::framed(message)).with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

fn collect(tag: &str, value: &Value, into: &mut Vec<(String, f32)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields.iter().filter(|(key, _)| !NOT_MEASURED.contains(&key.as_str())) {
                collect(&format!("{tag}/{key}"), value, into);
            }
        }
        Value::Number(number) => into.push((tag.to_owned(), number.as_f64().unwrap_or(f64::NAN) as f32)),
        _ => {}
    }
}

/// Seconds in the name of the newest file in `folder`.
fn newest(folder: &Path) -> Result<Option<u64>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        entries => entries.with_context(|| format!("{} cannot be read", folder.display()))?,
    };
    let mut newest = None;
    for entry in entries {
        let name = entry.with_context(|| format!("{} cannot be read", folder.display()))?.file_name();
        let seconds = name.to_str().and_then(|name| name.strip_prefix(NAME)?.split('.').next()?.parse().ok());
        newest = newest.max(seconds);
    }
    Ok(newest)
}

fn signed(step: u64) -> i64 {
    i64::try_from(step).unwrap_or(i64::MAX)
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
