//! The checkpoint that did best on the validation set, and `best.json`, which names it.
//!
//! What is best follows from metrics.jsonl and the checkpoints that exist, so a file that an interruption left behind is put right when the
//! run goes on. All ranks know the score to beat, for they write a checkpoint together; the file is rank 0's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use biodist_process::files::{read_if_there, write_atomically};
use serde::{Deserialize, Serialize};

use super::checkpoint::Checkpoints;
use super::records::{Line, Measured, Score, evaluations};
use super::tally::Sums;
use crate::compute::Measure;
use crate::exchange::Transport;
use crate::exit::Exit;

pub const FILE_NAME: &str = "best.json";

/// A checkpoint and what it is compared by: how it did on the validation set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    pub step: u64,
    score: Score,
}

impl Scored {
    /// None where the loss is not finite.
    pub fn new(step: u64, sums: &Sums, classifies: bool) -> Option<Scored> {
        let score = Score::of(classifies.then(|| sums.mean(Measure::Top1Error)), Some(sums.mean(Measure::Loss)))?;
        Some(Scored { step, score })
    }

    /// Whether this is better; of equals the earlier stays.
    pub fn beats(&self, other: Option<&Scored>) -> bool {
        other.is_none_or(|other| self.score < other.score)
    }

    /// Rank 0's, on all ranks. Collective.
    pub fn shared(scored: Option<Scored>, transport: &dyn Transport) -> Option<Scored> {
        let words = scored.map_or([0; 4], |Scored { step, score }| [1, step, score.error.to_bits(), score.loss.to_bits()]);
        let all = transport.all_gather_words(&words);
        (all[0] == 1).then(|| Scored { step: all[1], score: Score { error: f64::from_bits(all[2]), loss: f64::from_bits(all[3]) } })
    }
}

/// The content of `best.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Step of the checkpoint.
    pub step: u64,
    /// Epochs done by then.
    pub epoch: u64,
    pub validation: Measured,
    /// On the test set, at the same step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<Measured>,
}

impl Best {
    /// What the run in `run` says; None where nothing has been evaluated on a validation set.
    ///
    /// # Errors
    /// Where the file cannot be read, or is not what was written.
    pub fn read(run: &Path) -> Result<Option<Best>> {
        let path = run.join(FILE_NAME);
        let bytes = read_if_there(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let best = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
        best.map_err(|error| anyhow!("{} is damaged: {error}; training on with --resume makes it anew", path.display()))
    }

    /// The same, where its absence is an error of usage.
    pub fn required(run: &Path) -> Result<Best> {
        Best::read(run)?.ok_or_else(|| {
            Exit::Usage.error(format!(
                "{} has no best checkpoint: that takes data.validation above 0 and one evaluation; use --checkpoint last",
                run.display()
            ))
        })
    }

    fn write(&self, run: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("numbers are JSON");
        write_atomically(&run.join(FILE_NAME), (text + "\n").as_bytes())
    }
}

/// The best of the checkpoints that are there, with its score.
fn find(checkpoints: &Checkpoints) -> Result<Option<(Best, Scored)>> {
    let lines = evaluations(checkpoints.run())?;
    let steps = checkpoints.steps()?;
    let mut best: Option<Scored> = None;
    for line in lines.iter().filter(|line| line.split == "validation" && steps.contains(&line.step)) {
        let scored = line.measured.score().map(|score| Scored { step: line.step, score });
        best = scored.filter(|scored| scored.beats(best.as_ref())).or(best);
    }
    Ok(best.and_then(|scored| Some((compose(&lines, scored.step)?, scored))))
}

fn compose(lines: &[Line], step: u64) -> Option<Best> {
    let of = |split: &str| lines.iter().find(|line| line.split == split && line.step == step);
    let validation = of("validation")?;
    Some(Best { step, epoch: validation.epoch, validation: validation.measured, test: of("test").map(|line| line.measured) })
}

/// Whether `best.json` says what metrics and checkpoints do.
pub fn is_current(checkpoints: &Checkpoints) -> Result<bool> {
    let written = Best::read(checkpoints.run()).unwrap_or(None);
    Ok(written == find(checkpoints)?.map(|(best, _)| best))
}

/// The file, on rank 0 of a run in training.
pub struct BestFile {
    run: PathBuf,
    /// Step of the checkpoint that the file names.
    named: Option<u64>,
}

impl BestFile {
    /// Puts the file right, once metrics and checkpoints are as the run goes on from; and the score to beat.
    pub fn open(checkpoints: &Checkpoints) -> Result<(BestFile, Option<Scored>)> {
        let run = checkpoints.run().to_owned();
        let found = find(checkpoints)?;
        match &found {
            Some((best, _)) => best.write(&run)?,
            None => match std::fs::remove_file(run.join(FILE_NAME)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("{} cannot be removed", run.join(FILE_NAME).display()));
                }
                _ => {}
            },
        }
        let score = found.map(|(_, score)| score);
        Ok((BestFile { run, named: score.map(|score| score.step) }, score))
    }

    /// Names the checkpoint of `step`, whose evaluations are in the metrics.
    pub fn name(&mut self, step: u64) -> Result<()> {
        if let Some(best) = compose(&evaluations(&self.run)?, step) {
            best.write(&self.run)?;
            self.named = Some(step);
        }
        Ok(())
    }

    /// Goes on in `run`, to which the run's folder was moved.
    pub fn follow(&mut self, run: &Path) {
        self.run = run.to_owned();
    }

    /// Step of the checkpoint that must stay.
    pub fn named(&self) -> Option<u64> {
        self.named
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scored(step: u64, error: f64, loss: f64) -> Scored {
        Scored { step, score: Score { error, loss } }
    }

    #[test]
    fn of_equals_the_earlier_stays() {
        assert!(scored(2, 0.1, 9.0).beats(None));
        assert!(scored(2, 0.1, 0.5).beats(Some(&scored(1, 0.1, 0.6))));
        assert!(!scored(2, 0.1, 0.5).beats(Some(&scored(1, 0.1, 0.5))));
    }

    #[test]
    fn only_checkpoints_that_are_there_are_named() {
        let run = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::of(run.path());
        let line = |split: &str, step: u64, error: f64| {
            format!("{{\"split\":\"{split}\",\"step\":{step},\"epoch\":{step},\"loss\":0.5,\"top1_error\":{error}}}\n")
        };
        let lines = line("validation", 1, 0.2) + &line("test", 1, 0.7) + &line("validation", 2, 0.1) + &line("validation", 3, 0.3);
        std::fs::write(run.path().join("metrics.jsonl"), lines).unwrap();
        assert_eq!(BestFile::open(&checkpoints).unwrap().1, None);
        assert!(Best::required(run.path()).unwrap_err().to_string().contains("data.validation"));
        for step in [0, 1, 3] {
            std::fs::create_dir_all(checkpoints.folder(step)).unwrap();
        }
        assert!(!is_current(&checkpoints).unwrap());
        let (file, best) = BestFile::open(&checkpoints).unwrap();
        assert_eq!((file.named(), best), (Some(1), Some(scored(1, 0.2, 0.5))));
        let read = Best::read(run.path()).unwrap().unwrap();
        assert_eq!(
            (read.step, read.validation.get(Measure::Top1Error), read.test.unwrap().get(Measure::Top1Error)),
            (1, Some(0.2), Some(0.7))
        );
        assert!(is_current(&checkpoints).unwrap());
        std::fs::write(run.path().join(FILE_NAME), "{\"step\": 1").unwrap();
        assert!(Best::read(run.path()).unwrap_err().to_string().contains("damaged"));
    }
}
