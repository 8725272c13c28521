//! TensorBoard's event files, beside `metrics.jsonl`: every line of that file as scalars, for watching a run live.
//!
//! They lie in the run's own folder, by whose path TensorBoard calls the run. It sorts scalars by their tags, so these begin with what is looked
//! at first: error, loss, then what is within the network, then speed. And it compares runs by the settings that come before the scalars.
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

use self::event::Setting;
use crate::compute::Measure;
use crate::config::{Config, touches};
use crate::host;

/// How their names begin, by which TensorBoard knows them.
const NAME: &str = "events.out.tfevents.";

/// A file of events that is being written, on rank 0.
pub struct EventFile {
    path: PathBuf,
    file: File,
    /// Step whose layers were shown: of two splits that are evaluated there, the first is enough.
    diagnosed: Option<u64>,
}

impl EventFile {
    /// Whether the run in `run` has events from before.
    pub fn exists(run: &Path) -> Result<bool> {
        Ok(newest(run)?.is_some())
    }

    /// Begins a file in the folder of `run`, whose events replace those from `step` on in the files before it.
    pub fn begin(run: &Path, step: u64) -> Result<EventFile> {
        // TensorBoard reads files by name; a clock that was set back, or another host's, must not put this one before an older one.
        let now = wall_time() as u64;
        let seconds = newest(run)?.map_or(now, |newest| now.max(newest + 1));
        let path = run.join(format!("{NAME}{seconds:010}.{}", host::name()));
        let opened = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = opened.with_context(|| format!("{} cannot be created", path.display()))?;
        let mut events = EventFile { path, file, diagnosed: None };
        events.write(&event::file_version(wall_time()))?;
        events.write(&event::session_start(wall_time(), signed(step)))?;
        let settings = settings(run);
        if !settings.is_empty() {
            events.write(&event::settings(wall_time(), &settings))?;
        }
        Ok(events)
    }

    /// Writes the numbers of a line of metrics.
    pub fn add(&mut self, line: &Value) -> Result<()> {
        let step = line["step"].as_u64().unwrap_or(0);
        let layers = self.diagnosed != Some(step);
        if line.get("diagnostics").is_some() {
            self.diagnosed = Some(step);
        }
        let values = scalars(line, layers);
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

/// A line's numbers with their tags, those of layers where they are asked for.
fn scalars(line: &Value, layers: bool) -> Vec<(String, f32)> {
    let split = line["split"].as_str().unwrap_or_default();
    let measured = Measure::ALL.iter().map(|measure| (tag(*measure, split), &line[measure.key()]));
    let speed = ("speed/samples_per_second_".to_owned() + split, &line["samples_per_second"]);
    let parts = line["seconds"].as_object().into_iter().flatten().map(|(part, value)| (format!("speed/seconds/{part}"), value));
    let inside = line["diagnostics"].as_object().into_iter().flatten().filter(|_| layers).flat_map(|(layer, quantities)| {
        quantities.as_object().into_iter().flatten().map(move |(quantity, value)| (format!("network/{quantity}/{layer}"), value))
    });
    let all = measured.chain([speed]).chain(parts).chain(inside);
    // What was not finite is written as null.
    let shown = |value: &Value| value.as_f64().map(|number| number as f32);
    all.filter_map(|(tag, value)| Some((tag, shown(value)?))).collect()
}

/// `error/top1_test`, `loss/train`, `loss/inverse_train`.
fn tag(measure: Measure, split: &str) -> String {
    let (name, kind) = measure.key().rsplit_once('_').map_or(("", measure.key()), |(name, kind)| (name, kind));
    if name.is_empty() { format!("{kind}/{split}") } else { format!("{kind}/{name}_{split}") }
}

/// What tells the run in `run` from others, by its configuration; nothing where there is none yet.
fn settings(run: &Path) -> Vec<(String, Setting)> {
    let Ok(config) = Config::load(&run.join(super::CONFIG), &[]) else { return Vec::new() };
    let layers: Vec<String> = config.network.layers.iter().map(|layer| layer.describe()).collect();
    let mut settings = config.settings();
    settings.retain(|key, _| touches(key).tells_runs_apart() && config.unused(key).is_none() && !key.starts_with("network.layers"));
    settings.insert("network.layers".to_owned(), format!("{:?}", layers.join(", ")));
    let setting = |text: &str| match text.parse() {
        Ok(number) => Setting::Number(number),
        Err(_) => text.parse().map_or_else(|_| Setting::Text(text.replace('"', "")), Setting::Switch),
    };
    settings.iter().map(|(key, value)| (key.clone(), setting(value))).collect()
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
