//! `metrics.jsonl`: what training measured, a line at a time.
//!
//! Each rank keeps its samples' measures until a line is due; then they are added up on all ranks in one order, that of steps and of samples
//! within the global batch. So a mean has the same bits on any number of ranks. What a checkpoint interrupts is kept in it.
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::files::write_atomically;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::diagnostics::LayerDiagnostics;
use super::engine::{Engine, Seconds};
use super::records::{FILE_NAME, read};
use super::tensorboard::EventFile;
use crate::compute::Measure;
use crate::exchange::Transport;
use crate::rules::Phase;

/// Sums over the samples since the last line, in float64.
///
/// In JSON they are the numbers' bits: no reader or writer rounds those.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "StoredSums", into = "StoredSums")]
pub struct Sums {
    pub samples: u64,
    pub loss: f64,
    pub top1_error: f64,
    pub top5_error: f64,
    /// Samples that trained an inverse.
    pub inverse_samples: u64,
    pub inverse_loss: f64,
}

#[derive(Serialize, Deserialize)]
struct StoredSums {
    samples: u64,
    inverse_samples: u64,
    bits: [u64; 4],
}

impl From<StoredSums> for Sums {
    fn from(stored: StoredSums) -> Sums {
        let [loss, top1_error, top5_error, inverse_loss] = stored.bits.map(f64::from_bits);
        Sums { samples: stored.samples, loss, top1_error, top5_error, inverse_samples: stored.inverse_samples, inverse_loss }
    }
}

impl From<Sums> for StoredSums {
    fn from(sums: Sums) -> StoredSums {
        let bits = [sums.loss, sums.top1_error, sums.top5_error, sums.inverse_loss].map(f64::to_bits);
        StoredSums { samples: sums.samples, inverse_samples: sums.inverse_samples, bits }
    }
}

/// Measures of a batch by sample; the order of [`Sums`]' fields.
const MEASURES: [Measure; 4] = [Measure::Loss, Measure::Top1Error, Measure::Top5Error, Measure::InverseLoss];

impl Sums {
    /// Adds samples in their order. `inverse` where they trained one.
    pub fn add(&mut self, [loss, top1, top5, inverse]: [&[f32]; 4], trained_inverse: bool) {
        let sum = |into: &mut f64, values: &[f32]| values.iter().for_each(|value| *into += f64::from(*value));
        self.samples += loss.len() as u64;
        sum(&mut self.loss, loss);
        sum(&mut self.top1_error, top1);
        sum(&mut self.top5_error, top5);
        if trained_inverse {
            self.inverse_samples += inverse.len() as u64;
            sum(&mut self.inverse_loss, inverse);
        }
    }

    pub fn mean(&self, sum: f64) -> f64 {
        sum / self.samples as f64
    }

    /// None where no inverse was trained.
    pub fn mean_inverse_loss(&self) -> Option<f64> {
        (self.inverse_samples > 0).then(|| self.inverse_loss / self.inverse_samples as f64)
    }
}

/// Sums as a checkpoint keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tallied {
    /// Step of the last regular line.
    pub since: u64,
    pub sums: Sums,
}

/// Measures on their way into a line.
pub struct Tally {
    pub tallied: Tallied,
    /// This rank's, `[step][measure][sample]`.
    pending: Vec<f32>,
    /// Of each pending step, whether it trained an inverse.
    trained_inverse: Vec<bool>,
    has_inverses: bool,
}

/// Values after which a rank's measures are added up before their line is due: 4 MB.
const MOST_PENDING: usize = 1 << 20;

impl Tally {
    pub fn new(tallied: Tallied, has_inverses: bool) -> Tally {
        Tally { tallied, pending: Vec::new(), trained_inverse: Vec::new(), has_inverses }
    }

    /// Takes the measures of the step that `engine` has just done. Collective, now and then.
    pub fn add(&mut self, engine: &Engine, phase: Phase, transport: &dyn Transport) {
        for measure in MEASURES {
            self.pending.extend_from_slice(engine.measure(measure));
        }
        self.trained_inverse.push(self.has_inverses && phase.trains_inverse());
        if self.pending.len() >= MOST_PENDING {
            self.settle(transport);
        }
    }

    /// Adds up what all ranks measured. Collective.
    pub fn settle(&mut self, transport: &dyn Transport) {
        let steps = self.trained_inverse.len();
        if steps == 0 {
            return;
        }
        let mut all = vec![0.0; self.pending.len() * transport.size()];
        transport.all_gather(&self.pending, &mut all);
        let (of_rank, of_step) = (self.pending.len(), self.pending.len() / steps);
        let samples = of_step / MEASURES.len();
        for (step, trained_inverse) in self.trained_inverse.iter().enumerate() {
            for rank in all.chunks_exact(of_rank) {
                let measures = &rank[step * of_step..(step + 1) * of_step];
                let measure = |index: usize| &measures[index * samples..(index + 1) * samples];
                self.tallied.sums.add([measure(0), measure(1), measure(2), measure(3)], *trained_inverse);
            }
        }
        self.pending.clear();
        self.trained_inverse.clear();
    }

    /// The sums of a regular line at `step`; the next line begins there.
    pub fn take(&mut self, step: u64) -> Sums {
        std::mem::replace(&mut self.tallied, Tallied { since: step, sums: Sums::default() }).sums
    }
}

/// Where time went since the last line, on rank 0.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub steps: u64,
    pub samples: u64,
    /// From the beginning of each step to its end.
    pub total: f64,
    /// Waiting for data.
    pub load: f64,
    /// What the engine did.
    pub engine: Seconds,
}

impl Clock {
    /// Enters a step that took `total` seconds, `load` of them waiting for its `samples`.
    pub fn step(&mut self, samples: usize, total: f64, load: f64) {
        self.steps += 1;
        self.samples += samples as u64;
        self.total += total;
        self.load += load;
    }

    /// Takes over what `engine` has measured since it was last asked.
    pub fn absorb(&mut self, engine: &mut Engine) {
        let Seconds { compute, exchange, update } = engine.seconds();
        engine.reset_profile();
        self.engine.compute += compute;
        self.engine.exchange += exchange;
        self.engine.update += update;
    }
}

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
        let mut line = begin("train", self.step, self.epoch, &self.sums, self.classifies);
        if let Some(loss) = self.sums.mean_inverse_loss() {
            line.insert("inverse_loss".into(), json!(loss));
        }
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
    line.insert("loss".into(), json!(sums.mean(sums.loss)));
    if classifies {
        line.insert("top1_error".into(), json!(sums.mean(sums.top1_error)));
        line.insert("top5_error".into(), json!(sums.mean(sums.top5_error)));
    }
    line
}

/// The file, and TensorBoard's beside it, on rank 0.
pub struct MetricsFile {
    path: PathBuf,
    file: File,
    events: EventFile,
}

impl MetricsFile {
    /// Opens the file in `run`, made where there is none, for going on from `step`: lines past it are cut, and so is one of training between regular ones, which an
    /// earlier end of training left.
    pub fn resume(run: &Path, step: u64, last_regular: u64) -> Result<MetricsFile> {
        let path = run.join(FILE_NAME);
        let text = read(run)?;
        let kept: String = text.split_inclusive('\n').filter(|line| keeps(line, step, last_regular)).collect();
        if kept != text {
            write_atomically(&path, kept.as_bytes())?;
        }
        let file =
            OpenOptions::new().append(true).create(true).open(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
        // A line of training that was cut may be older than the checkpoint, and a kill may have come between a line and its event: events
        // begin anew where the last regular line is.
        let since = if EventFile::exists(run)? { last_regular } else { 0 };
        let mut events = EventFile::begin(run, since)?;
        for line in kept.lines().filter(|line| place(line).is_some_and(|(_, at)| at >= since)) {
            events.add(&serde_json::from_str(line)?)?;
        }
        Ok(MetricsFile { path, file, events })
    }

    pub fn train(&mut self, line: &TrainLine) -> Result<()> {
        self.append(&line.to_json())
    }

    pub fn evaluation(&mut self, line: &EvaluationLine) -> Result<()> {
        self.append(&line.to_json())
    }

    fn append(&mut self, line: &Value) -> Result<()> {
        let text = format!("{line}\n");
        self.file.write_all(text.as_bytes()).with_context(|| self.unwritable())?;
        self.events.add(line)
    }

    /// Brings all lines to disk: a checkpoint must not outlive the lines before it.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_data().with_context(|| self.unwritable())
    }

    fn unwritable(&self) -> String {
        format!("{} cannot be written; with room for it, --resume goes on from the last checkpoint", self.path.display())
    }
}

/// Whether the run in `run` has been evaluated on `split` at `step`.
pub fn has_evaluation(run: &Path, split: &str, step: u64) -> Result<bool> {
    Ok(read(run)?.lines().filter_map(place).any(|line| line == (split.to_owned(), step)))
}

/// Split and step of a line; none of one that a crash cut.
fn place(line: &str) -> Option<(String, u64)> {
    let value: Value = serde_json::from_str(line).ok()?;
    Some((value.get("split")?.as_str()?.to_owned(), value.get("step")?.as_u64()?))
}

fn keeps(line: &str, step: u64, last_regular: u64) -> bool {
    line.ends_with('\n')
        && match place(line) {
            Some((split, at)) if split == "train" => at <= last_regular,
            Some((_, at)) => at <= step,
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_keep_their_bits_in_a_checkpoint() {
        let sums = Sums {
            samples: 3,
            loss: 0.1 + 0.2,
            top1_error: 1.0 / 3.0,
            top5_error: f64::MIN_POSITIVE,
            inverse_samples: 2,
            inverse_loss: 1e300,
        };
        let text = serde_json::to_string(&Tallied { since: 7, sums }).unwrap();
        assert_eq!(serde_json::from_str::<Tallied>(&text).unwrap(), Tallied { since: 7, sums });
    }

    #[test]
    fn resuming_keeps_what_the_checkpoint_has_seen() {
        let run = tempfile::tempdir().unwrap();
        let path = run.path().join(FILE_NAME);
        let line = |split: &str, step: u64| format!("{{\"split\":\"{split}\",\"step\":{step}}}\n");
        let kept = line("train", 10) + &line("train", 20) + &line("test", 20) + &line("test", 25);
        let cut = line("train", 25) + &line("train", 30) + &line("validation", 30) + "{\"split\":\"train\",\"st";
        std::fs::write(&path, kept.clone() + &cut).unwrap();
        let mut metrics = MetricsFile::resume(run.path(), 25, 20).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
        metrics.append(&json!({ "split": "train", "step": 30 })).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept + &line("train", 30));
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
