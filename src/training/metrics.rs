//! `metrics.jsonl`: what training measured, a line at a time, and TensorBoard's events beside it.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use biodist_process::files::{read_regular, write_atomically};
use serde_json::{Map, Value, json};

use super::records::{self, FILE_NAME, Line, TIME, evaluations, read};
use super::run_folder::leads_to;
use super::tally::{Clock, Sums};
use super::tensorboard::EventFile;
use crate::learner::{LayerDiagnostics, Seconds};

/// A line of training.
#[derive(Clone, Debug)]
pub struct TrainLine {
    pub step: u64,
    /// Number of the epoch that the line's last step was part of, counted from 1.
    pub epoch: u64,
    pub sums: Sums,
    pub clock: Clock,
    /// Whether labels are predicted, so that there are errors to count.
    pub classifies: bool,
}

impl TrainLine {
    pub fn samples_per_second(&self) -> f64 {
        self.clock.samples as f64 / self.clock.total.max(f64::MIN_POSITIVE)
    }

    /// Seconds a step: load, compute, exchange, update.
    pub fn step_seconds(&self) -> [f64; 4] {
        let Seconds { compute, exchange, update } = self.clock.engine;
        [self.clock.load, compute, exchange, update].map(|seconds| seconds / self.clock.steps.max(1) as f64)
    }

    fn to_json(&self) -> Value {
        let mut line = begin(Line::TRAIN, self.step, self.epoch, &self.sums, self.classifies);
        let [load, compute, exchange, update] = self.step_seconds();
        line.insert("samples_per_second".into(), json!(self.samples_per_second()));
        line.insert("seconds".into(), json!({ "load": load, "compute": compute, "exchange": exchange, "update": update }));
        line.into()
    }
}

/// A line of an evaluation.
#[derive(Clone, Debug)]
pub struct EvaluationLine {
    pub split: &'static str,
    pub step: u64,
    /// Epochs done, one that is under way included.
    pub epoch: u64,
    pub sums: Sums,
    pub seconds: f64,
    pub classifies: bool,
    /// By forward layer, where they were asked for.
    pub diagnostics: Option<Vec<LayerDiagnostics>>,
}

impl EvaluationLine {
    fn to_json(&self) -> Value {
        let mut line = begin(self.split, self.step, self.epoch, &self.sums, self.classifies);
        line.insert("samples".into(), json!(self.sums.samples));
        line.insert("samples_per_second".into(), json!(self.sums.samples as f64 / self.seconds.max(f64::MIN_POSITIVE)));
        if let Some(layers) = &self.diagnostics {
            let by_name = layers.iter().enumerate().map(|(layer, diagnostics)| (format!("layers.{layer}"), json!(diagnostics)));
            line.insert("diagnostics".into(), by_name.collect::<Map<String, Value>>().into());
        }
        line.into()
    }
}

fn begin(split: &str, step: u64, epoch: u64, sums: &Sums, classifies: bool) -> Map<String, Value> {
    let mut line = Map::new();
    line.insert("split".into(), json!(split));
    line.insert("step".into(), json!(step));
    line.insert("epoch".into(), json!(epoch));
    line.extend(sums.means(classifies).map(|(measure, mean)| (measure.key().to_owned(), json!(mean))));
    line
}

/// The file, and TensorBoard's beside it, on rank 0.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    /// When the run went on, and the seconds that it had trained before, by the last line that it keeps.
    began: (Instant, f64),
    events: EventFile,
}

impl MetricsFile {
    /// Opens the file in `run`, made where there is none, for going on from `step`: lines past it are cut, and so is one of training between regular ones, which an
    /// earlier end of training left.
    pub fn resume(run: &Path, step: u64, last_regular: u64) -> Result<MetricsFile> {
        let path = run.join(FILE_NAME);
        let text = read(run)?;
        // A line that a crash cut is the last, and has no other beside it.
        let recorded = records::recorded(run, &text)?;
        let with_text = text.split_inclusive('\n').zip(&recorded);
        let kept: String = with_text.filter(|(_, line)| keeps(line, step, last_regular)).map(|(text, _)| text).collect();
        if kept != text {
            write_atomically(&path, kept.as_bytes())?;
        }
        let file = open(&path)?;
        // A line of training that was cut may be older than the checkpoint, and a kill may have come between a line and its event: events
        // begin anew where the last regular line is.
        let since = if EventFile::exists(run)? { last_regular } else { 0 };
        let mut events = EventFile::begin(run, since)?;
        for text in kept.split_inclusive('\n').filter(|text| whole(text).is_some_and(|line| line.step >= since)) {
            events.add(&serde_json::from_str(text)?)?;
        }
        let before = records::lines(&kept).flatten().last().and_then(|line| line.time).unwrap_or(0.0);
        Ok(MetricsFile { path, file, began: (Instant::now(), before), events })
    }

    pub fn train(&mut self, line: &TrainLine) -> Result<()> {
        self.append(line.to_json())
    }

    pub fn evaluation(&mut self, line: &EvaluationLine) -> Result<()> {
        self.append(line.to_json())
    }

    /// Seconds that the run has trained, over all its starts.
    pub fn seconds(&self) -> f64 {
        let (began, before) = self.began;
        before + began.elapsed().as_secs_f64()
    }

    /// Goes on in `run`, to which the run's folder was moved.
    pub fn follow(&mut self, run: &Path) {
        self.path = run.join(FILE_NAME);
    }

    /// Somebody may remove the file while the run trains, or save another in its place as editors do: lines would go where nobody finds
    /// them. What was removed is written again, and what took its place is gone on with.
    fn reopen(&mut self) -> Result<()> {
        if leads_to(&self.path, &self.file) {
            return Ok(());
        }
        // Nothing is known where it cannot be looked at.
        let Ok(there) = self.path.try_exists() else { return Ok(()) };
        let path = self.path.display();
        if there {
            log::warn!("{path} was replaced while the run trains; its next lines go into the file that is there now");
        } else {
            log::warn!("{path} was removed while the run trains, and is written again");
            let lines = read_regular(Path::new(&format!("/proc/self/fd/{}", self.file.as_raw_fd()))).with_context(|| self.unwritable())?;
            write_atomically(&self.path, &lines)?;
        }
        self.file = open(&self.path)?;
        Ok(())
    }

    fn append(&mut self, mut line: Value) -> Result<()> {
        self.reopen()?;
        line[TIME] = json!((self.seconds() * 1e3).round() / 1e3);
        let text = format!("{line}\n");
        self.file.write_all(text.as_bytes()).with_context(|| self.unwritable())?;
        self.events.add(&line)
    }

    /// Brings all lines to disk: a checkpoint must not outlive the lines before it.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| self.unwritable())
    }

    fn unwritable(&self) -> String {
        format!("{} cannot be written; with room for it, --resume goes on from the last checkpoint", self.path.display())
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().append(true).create(true).open(path).with_context(|| format!("{} cannot be opened", path.display()))
}

/// Whether the run in `run` has been evaluated on `split` at `step`.
pub fn has_evaluation(run: &Path, split: &str, step: u64) -> Result<bool> {
    Ok(evaluations(run)?.iter().any(|line| line.split == split && line.step == step))
}

/// The line that `text` is; none of one that a crash cut.
fn whole(text: &str) -> Option<Line> {
    records::lines(text).next()?.ok()
}

fn keeps(line: &Line, step: u64, last_regular: u64) -> bool {
    line.step <= if line.is_training() { last_regular } else { step }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resuming_keeps_what_the_checkpoint_has_seen() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(FILE_NAME);
        let line = |split: &str, step: u64| format!("{{\"split\":\"{split}\",\"step\":{step},\"epoch\":1}}\n");
        let timed = line("test", 25).replace('}', ",\"time\":40.5}");
        let kept = line("train", 10) + &line("train", 20) + &line("test", 20) + &timed;
        let cut = line("train", 25) + &line("train", 30) + &line("validation", 30) + "{\"split\":\"train\",\"st";
        std::fs::write(&path, kept.clone() + &cut).unwrap();
        let mut metrics = MetricsFile::resume(run.path(), 25, 20).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        metrics.append(json!({ "split": "train", "step": 30, "epoch": 1 })).unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        let last: Value = serde_json::from_str(written.strip_prefix(&kept).unwrap()).unwrap();
        assert_eq!((&last["split"], &last["step"]), (&json!("train"), &json!(30)));
        assert!((40.5..100.0).contains(&last["time"].as_f64().unwrap()), "time goes on: {last}");
        assert!(has_evaluation(run.path(), "test", 25).unwrap());
        assert!(!has_evaluation(run.path(), "validation", 25).unwrap() && !has_evaluation(run.path(), "test", 30).unwrap());
    }

    #[test]
    fn keys_without_meaning_are_absent() {
        let mut sums = Sums::default();
        sums.add([&[1.0, 2.0], &[1.0, 0.0], &[0.0, 0.0], &[5.0, 7.0]], false);
        let clock = Clock { steps: 1, samples: 2, total: 0.5, load: 0.1, engine: Seconds::default() };
        let mut line = TrainLine { step: 1, epoch: 1, sums, clock, classifies: false };
        let json = line.to_json();
        assert_eq!(json["loss"], 1.5);
        assert!(json.get("inverse_loss").is_none() && json.get("top1_error").is_none() && json.get("top5_error").is_none());
        line.classifies = true;
        line.sums.add([&[3.0], &[0.0], &[0.0], &[4.0]], true);
        let json = line.to_json();
        assert_eq!((&json["loss"], &json["top1_error"], &json["inverse_loss"]), (&json!(2.0), &json!(1.0 / 3.0), &json!(4.0)));
        assert_eq!(json["samples_per_second"], 4.0);
    }
}
