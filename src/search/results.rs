//! `results.jsonl`: what is known of each trial that has been trained, a line for each, in the order of their numbers.
//!
//! The file is replaced whenever a trial ends, so its content depends on what has been trained and not on when, or on how often the sweep
//! was interrupted.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use biodist_process::files::{read_if_there, write_atomically};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rungs::{Epochs, Rungs};
use super::space::Values;
use crate::compute::Measure;
use crate::training::Best;
use crate::training::records::Score;

pub const FILE_NAME: &str = "results.jsonl";

const DIVERGED: &str = "diverged";
const FAILED: &str = "failed";

/// How a trial did by the end of a rung: at its best checkpoint so far.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Epochs trained.
    pub epochs: Epochs,
    /// Of the validation set; absent for autoencoders.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation_error: Option<f64>,
    pub validation_loss: f64,
}

impl Reached {
    /// None where no loss of a validation was finite.
    pub fn new(epochs: Epochs, best: &Best) -> Option<Reached> {
        let validation_loss = best.validation.get(Measure::Loss)?;
        Some(Reached { epochs, validation_error: best.validation.get(Measure::Top1Error), validation_loss })
    }

    /// What trials are compared by.
    pub fn score(&self) -> Option<Score> {
        Score::of(self.validation_error, Some(self.validation_loss))
    }

    /// The error, or the loss where nothing is classified.
    pub fn value(&self) -> f64 {
        self.validation_error.unwrap_or(self.validation_loss)
    }
}

/// An end that no further training follows.
#[derive(Clone, Debug, PartialEq)]
pub enum Ending {
    /// The loss was not finite, after so many epochs; with what the trial had reached before.
    Diverged { epochs: Epochs, before: Option<Reached> },
    /// The process failed, for a reason that has nothing to do with the values; tried again when the sweep goes on.
    Failed { reason: String },
}

/// A trial that has been trained.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    pub number: usize,
    pub values: Values,
    /// By rung.
    pub rungs: Vec<Reached>,
    pub ending: Option<Ending>,
    /// Error (or loss) of the best checkpoint on the test set; of the best trial alone.
    pub test: Option<f64>,
}

impl Trial {
    pub fn new(number: usize, values: Values) -> Trial {
        Trial { number, values, rungs: Vec::new(), ending: None, test: None }
    }

    /// The best that is known of it.
    pub fn reached(&self) -> Option<&Reached> {
        match &self.ending {
            Some(Ending::Diverged { before, .. }) => before.as_ref(),
            _ => self.rungs.last(),
        }
    }

    pub fn status(&self, rungs: &Rungs) -> &'static str {
        match &self.ending {
            Some(Ending::Diverged { .. }) => DIVERGED,
            Some(Ending::Failed { .. }) => FAILED,
            None if self.rungs.len() == rungs.0.len() => "done",
            None => "stopped",
        }
    }

    /// Whether it was trained to the end of rung `rung`, whatever became of it then: nobody takes the place of one that diverges later.
    pub fn passed(&self, rung: usize) -> bool {
        self.rungs.len() > rung
    }

    fn to_json(&self, rungs: &Rungs) -> Value {
        let mut line = Map::new();
        let values: Map<String, Value> = self.values.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
        line.insert("trial".into(), json!(self.number));
        line.insert("values".into(), values.into());
        if let Some(reached) = self.reached() {
            if let Some(error) = reached.validation_error {
                line.insert("validation_error".into(), json!(error));
            }
            line.insert("validation_loss".into(), json!(reached.validation_loss));
        }
        if let Some(test) = self.test {
            let classifies = self.reached().is_some_and(|reached| reached.validation_error.is_some());
            line.insert(if classifies { "test_error" } else { "test_loss" }.into(), json!(test));
        }
        let epochs = match &self.ending {
            Some(Ending::Diverged { epochs, .. }) => *epochs,
            _ => self.rungs.last().map_or(Epochs(0.0), |reached| reached.epochs),
        };
        line.insert("epochs".into(), json!(epochs));
        line.insert("status".into(), json!(self.status(rungs)));
        line.insert("rungs".into(), json!(self.rungs));
        if let Some(Ending::Failed { reason }) = &self.ending {
            line.insert("reason".into(), json!(reason));
        }
        line.into()
    }
}

/// A line as it is read back.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    pub trial: usize,
    /// By key. A search does not need them, for its trials' values follow from the seed.
    #[serde(default)]
    pub values: Map<String, Value>,
    pub validation_error: Option<f64>,
    pub validation_loss: Option<f64>,
    /// A search tests its best trial alone, so most have neither.
    pub test_error: Option<f64>,
    pub test_loss: Option<f64>,
    pub epochs: Epochs,
    pub status: String,
    #[serde(default)]
    rungs: Vec<Reached>,
}

impl Line {
    fn into_trial(self, values: Values) -> Trial {
        let diverged = || Ending::Diverged {
            epochs: self.epochs,
            before: self.validation_loss.map(|validation_loss| Reached {
                epochs: self.epochs,
                validation_error: self.validation_error,
                validation_loss,
            }),
        };
        // One that failed is tried again.
        let ending = (self.status == DIVERGED).then(diverged);
        Trial { number: self.trial, values, ending, test: self.test_error.or(self.test_loss), rungs: self.rungs }
    }

    /// Whether the trial may be chosen, however well it did before.
    pub fn counts(&self) -> bool {
        self.status != DIVERGED && self.status != FAILED
    }
}

/// The lines of the search in `folder`, in the order of its trials' numbers; none where there is no file yet.
///
/// # Errors
/// Names the file, and the first line that is none.
pub fn read(folder: &Path) -> Result<Vec<Line>> {
    let path = folder.join(FILE_NAME);
    let bytes = read_if_there(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    let text = String::from_utf8(bytes.unwrap_or_default()).with_context(|| format!("{} is damaged: it is not text", path.display()))?;
    let read = |(number, line): (usize, &str)| -> Result<Line> {
        let damaged =
            |what: String| anyhow!("{}:{number} is damaged: {what}; without that line its trial is trained again", path.display());
        let line: Line = serde_json::from_str(line).map_err(|error| damaged(error.to_string()))?;
        match [line.validation_error, line.test_error].into_iter().flatten().find(|error| !(0.0..=1.0).contains(error)) {
            Some(error) => Err(damaged(format!("an error of {error}, where a fraction is expected"))),
            None => Ok(line),
        }
    };
    (1..).zip(text.lines()).map(read).collect()
}

pub struct Results {
    path: PathBuf,
    rungs: Rungs,
    /// By number.
    trials: Vec<Trial>,
}

impl Results {
    /// What is known in `folder` of the trials with these values, by number.
    pub fn open(folder: &Path, rungs: &Rungs, values: impl Fn(usize) -> Values) -> Result<Results> {
        let path = folder.join(FILE_NAME);
        let mut trials: Vec<Trial> = (0..rungs.trials()).map(|number| Trial::new(number, values(number))).collect();
        for (number, line) in (1..).zip(read(folder)?) {
            let unknown = || anyhow!("{}:{number} is damaged: there is no trial {}; remove that line", path.display(), line.trial);
            let trial = trials.get_mut(line.trial).with_context(unknown)?;
            *trial = line.into_trial(std::mem::take(&mut trial.values));
        }
        Ok(Results { path, rungs: rungs.clone(), trials })
    }

    pub fn trials(&self) -> &[Trial] {
        &self.trials
    }

    /// Changes a trial, and writes the file anew.
    pub fn change(&mut self, number: usize, change: impl FnOnce(&mut Trial)) -> Result<()> {
        change(&mut self.trials[number]);
        let known = self.trials.iter().filter(|trial| !trial.rungs.is_empty() || trial.ending.is_some());
        let text: String = known.map(|trial| format!("{}\n", trial.to_json(&self.rungs))).collect();
        write_atomically(&self.path, text.as_bytes())
    }

    /// Those that passed rung `rung`, from the best: by error, then loss, then number.
    pub fn ranking(&self, rung: usize) -> Vec<usize> {
        let mut passed: Vec<&Trial> = self.trials.iter().filter(|trial| trial.passed(rung)).collect();
        let score = |trial: &Trial| trial.rungs[rung].score();
        passed.sort_by(|a, b| score(a).partial_cmp(&score(b)).unwrap_or(Ordering::Equal).then(a.number.cmp(&b.number)));
        passed.into_iter().map(|trial| trial.number).collect()
    }

    /// Trials that end for good, as far as rung `rung` tells by now: those that too many others beat, and those that diverged. One that has
    /// gone on is none of them, though another that failed at first may take its place in this rung later.
    pub fn given_up(&self, rung: usize) -> Vec<usize> {
        let going_on = self.rungs.0.get(rung + 1).map_or(1, |next| next.trials);
        let gone_on = |trial: &usize| self.trials[*trial].passed(rung + 1);
        let diverged = self.trials.iter().filter(|trial| matches!(trial.ending, Some(Ending::Diverged { .. })));
        let diverged = diverged.map(|trial| trial.number);
        self.ranking(rung).into_iter().skip(going_on).filter(|trial| !gone_on(trial)).chain(diverged).collect()
    }

    /// Trials of rung `rung` that are still to be trained to its end, in the order of their numbers.
    pub fn pending(&self, rung: usize) -> Vec<usize> {
        let mut members = match rung {
            0 => (0..self.trials.len()).collect(),
            _ => self.ranking(rung - 1),
        };
        members.truncate(self.rungs.0[rung].trials);
        members.sort_unstable();
        members.retain(|number| self.trials[*number].ending.is_none() && self.trials[*number].rungs.len() <= rung);
        members
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reached(epochs: u64, error: f64, loss: f64) -> Reached {
        Reached { epochs: Epochs(epochs as f64), validation_error: Some(error), validation_loss: loss }
    }

    fn values(number: usize) -> Values {
        vec![("learning.alpha".into(), toml::Value::Float(0.1 * number as f64))]
    }

    #[test]
    fn the_best_of_a_rung_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let rungs: Rungs = "1:5,2:2,4:1".parse().unwrap();
        let mut results = Results::open(folder.path(), &rungs, values).unwrap();
        assert_eq!(results.pending(0), [0, 1, 2, 3, 4]);
        for (number, error, loss) in [(0, 0.5, 1.0), (1, 0.2, 0.9), (2, 0.2, 0.8), (3, 0.2, 0.8)] {
            results.change(number, |trial| trial.rungs.push(reached(1, error, loss))).unwrap();
        }
        assert_eq!(results.pending(0), [4]);
        // Whatever trial 4 will do, two have done better than these.
        assert_eq!(results.given_up(0), [1, 0]);
        results
            .change(4, |trial| trial.ending = Some(Ending::Diverged { epochs: Epochs(1.0), before: Some(reached(1, 0.0, 0.0)) }))
            .unwrap();
        // The error, then the loss, then the number; one that diverged does not go on, however well it did.
        assert_eq!(results.ranking(0), [2, 3, 1, 0]);
        assert_eq!((results.pending(0).len(), results.pending(1)), (0, vec![2, 3]));
        assert_eq!((results.given_up(0), results.given_up(1)), (vec![1, 0, 4], vec![4]));
        results.change(3, |trial| trial.rungs.push(reached(2, 0.1, 0.5))).unwrap();
        assert_eq!(results.pending(1), [2]);
        results.change(2, |trial| trial.ending = Some(Ending::Failed { reason: "killed".into() })).unwrap();
        assert_eq!((results.pending(1).len(), results.pending(2)), (0, vec![3]));
        // Had trial 0 been tried again, and done better in the first rung, trial 3 would still be ahead in the second.
        results.change(0, |trial| trial.rungs[0] = reached(1, 0.0, 0.1)).unwrap();
        assert_eq!((results.ranking(0), results.given_up(0)), (vec![0, 2, 3, 1], vec![1, 4]));
        results.change(0, |trial| trial.rungs[0] = reached(1, 0.5, 1.0)).unwrap();
        let status: Vec<&str> = results.trials().iter().map(|trial| trial.status(&rungs)).collect();
        assert_eq!(status, ["stopped", "stopped", "failed", "stopped", "diverged"]);

        let text = std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap();
        let mut again = Results::open(folder.path(), &rungs, values).unwrap();
        // What failed is tried again, and all else is as it was.
        assert_eq!(again.pending(1), [2]);
        again.change(2, |trial| trial.ending = Some(Ending::Failed { reason: "killed".into() })).unwrap();
        assert_eq!(again.trials(), results.trials());
        assert_eq!(std::fs::read_to_string(folder.path().join(FILE_NAME)).unwrap(), text);
    }

    #[test]
    fn lines_have_the_keys_that_others_read() {
        let rungs = Rungs::plain(1);
        let mut trial = Trial { rungs: vec![reached(7, 0.25, 0.5)], test: Some(0.3), ..Trial::new(0, values(3)) };
        let line = trial.to_json(&rungs);
        let expected = json!({
            "trial": 0, "values": { "learning.alpha": 0.1 * 3.0 }, "validation_error": 0.25, "validation_loss": 0.5, "test_error": 0.3,
            "epochs": 7, "status": "done", "rungs": [{ "epochs": 7, "validation_error": 0.25, "validation_loss": 0.5 }],
        });
        assert_eq!(line, expected);
        // An autoencoder has no errors.
        trial.rungs[0].validation_error = None;
        let line = trial.to_json(&rungs);
        assert!(line.get("validation_error").is_none() && line.get("test_error").is_none() && line["test_loss"] == 0.3);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{\"trial\": 0", "{\"trial\":9,\"epochs\":1,\"status\":\"done\",\"rungs\":[]}"] {
            std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
            let error = Results::open(folder.path(), &Rungs::plain(2), values).err().unwrap().to_string();
            assert!(error.contains("results.jsonl:1 is damaged"), "{error}");
        }
    }
}
