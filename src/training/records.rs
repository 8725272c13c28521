//! Reading `metrics.jsonl` back: the one place that knows what a line of it looks like.

use std::path::Path;

use anyhow::{Context, Result};
use biodist_process::files::read_if_there;
use serde::de::Deserializer;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::compute::Measure;

/// Key of the seconds that the run had trained, over all its starts.
pub const TIME: &str = "time";
pub const FILE_NAME: &str = "metrics.jsonl";

/// Means over samples. Absent is what has no meaning (errors of an autoencoder) or was not finite.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured(pub [Option<f64>; Measure::COUNT]);

impl Measured {
    pub fn get(&self, measure: Measure) -> Option<f64> {
        self.0[measure as usize]
    }

    pub fn score(&self) -> Option<Score> {
        Score::of(self.get(Measure::Top1Error), self.get(Measure::Loss))
    }
}

impl Serialize for Measured {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(Measure::ALL.iter().filter_map(|measure| Some((measure.key(), self.get(*measure)?))))
    }
}

impl<'de> Deserialize<'de> for Measured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Measured, D::Error> {
        let fields = Map::deserialize(deserializer)?;
        Ok(Measured(Measure::ALL.map(|measure| fields.get(measure.key())?.as_f64())))
    }
}

/// What results are compared by, the least being the best: the error (the loss where nothing is classified), then the loss. Of equals the
/// first one counts.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Score {
    pub error: f64,
    pub loss: f64,
}

impl Score {
    /// None where the loss is not finite.
    pub fn of(error: Option<f64>, loss: Option<f64>) -> Option<Score> {
        let loss = loss.filter(|loss| loss.is_finite())?;
        Some(Score { error: error.unwrap_or(loss), loss })
    }
}

/// A line: the mean over training steps, or an evaluation.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Line {
    pub split: String,
    pub step: u64,
    /// Epochs begun.
    pub epoch: u64,
    /// Seconds of training. Absent in lines older than this entry.
    #[serde(default)]
    pub time: Option<f64>,
    /// By layer, then by quantity.
    #[serde(default)]
    pub diagnostics: Map<String, Value>,
    #[serde(flatten)]
    pub measured: Measured,
}

impl Line {
    pub const TRAIN: &str = "train";

    pub fn is_training(&self) -> bool {
        self.split == Line::TRAIN
    }
}

/// The lines of `text`; a last one without its end is being written, or was when the run was killed, and is left out.
pub fn lines(text: &str) -> impl Iterator<Item = serde_json::Result<Line>> {
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(serde_json::from_str)
}

/// The evaluations that the run in `run` has recorded, in their order; none where there is no file yet.
pub fn evaluations(run: &Path) -> Result<Vec<Line>> {
    let mut recorded = recorded(run, &read(run)?)?;
    recorded.retain(|line| !line.is_training());
    Ok(recorded)
}

/// Epochs that the run has begun, by its last whole line; 0 where there is none.
pub fn epochs(run: &Path) -> Result<u64> {
    Ok(lines(&read(run)?).flatten().last().map_or(0, |line| line.epoch))
}

/// The file as text; empty where there is none.
pub fn read(run: &Path) -> Result<String> {
    let path = run.join(FILE_NAME);
    let bytes = read_if_there(&path).with_context(|| format!("{} cannot be read", path.display()))?.unwrap_or_default();
    // A line that a crash cut may end within a character.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The [lines] of `text`, what the run in `run` has in its file.
///
/// # Errors
/// Where a line that has its end cannot be read: passed over, it would make another checkpoint the best, and that line's would be removed.
pub fn recorded(run: &Path, text: &str) -> Result<Vec<Line>> {
    let damaged = |number: usize| {
        let path = run.join(FILE_NAME);
        format!("line {number} of {} is damaged; mend it, or take it out to go on without it", path.display())
    };
    (1..).zip(lines(text)).map(|(number, line)| line.with_context(|| damaged(number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_are_told_from_training_and_from_cut_lines() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!((evaluations(run.path()).unwrap(), epochs(run.path()).unwrap()), (Vec::new(), 0));
        let text = "{\"split\":\"train\",\"step\":9,\"epoch\":1,\"loss\":2.5}\n\
                    {\"split\":\"validation\",\"step\":10,\"epoch\":1,\"loss\":0.1,\"top1_error\":0.30000000000000004,\"samples\":10}\n\
                    {\"split\":\"test\",\"step\":20,\"epoch\":2,\"loss\":null}\n\
                    {\"split\":\"test\",\"step\":30,\"epo";
        std::fs::write(run.path().join(FILE_NAME), text).unwrap();
        let lines = evaluations(run.path()).unwrap();
        assert_eq!(lines.len(), 2);
        // To the last bit, as it was written.
        let measured = lines[0].measured;
        assert_eq!(Measure::ALL.map(|measure| measured.get(measure)), [Some(0.1), Some(0.1 + 0.2), None, None]);
        assert_eq!((lines[0].split.as_str(), lines[0].step, lines[0].epoch), ("validation", 10, 1));
        assert_eq!(serde_json::to_string(&measured).unwrap(), "{\"loss\":0.1,\"top1_error\":0.30000000000000004}");
        assert_eq!((lines[1].step, lines[1].measured), (20, Measured::default()));
        assert_eq!(epochs(run.path()).unwrap(), 2);
    }

    #[test]
    fn the_error_decides_then_the_loss() {
        let score = |error, loss| Score::of(Some(error), Some(loss)).unwrap();
        assert!(score(0.1, 9.0) < score(0.2, 1.0) && score(0.1, 0.5) < score(0.1, 0.6));
        // Without classes the loss is all there is.
        assert!(Score::of(None, Some(0.4)) < Score::of(None, Some(0.5)));
        assert_eq!((Score::of(Some(0.1), Some(f64::NAN)), Score::of(Some(0.1), None)), (None, None));
    }
}
