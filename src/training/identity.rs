//! Whose a checkpoint is: the run that wrote it, and the data that the run was given.
//!
//! Paths say neither. A folder can be removed and made anew, checkpoints can be copied, and other data can lie where a run's data lay. So a
//! checkpoint keeps the configuration's keys that a run may not change, and stands by what its data hold.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::state::State;
use super::trainer::Splits;
use crate::config::{Config, Difference, touches};
use crate::data::{DataSet, TrainingData};
use crate::exit::Exit;

/// The part of a [`State`] that says whose it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The configuration's keys that a run keeps to its end, as TOML.
    pub settings: BTreeMap<String, String>,
    pub trained: TrainingData,
    /// Checksum of the shards of the last test set that the run was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<String>,
    /// Checksum of the parameters that the run was given to begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
}

impl Identity {
    /// Of a run of `config` on `splits`, which begins with `initial` or goes on from `resumed`.
    pub fn new(config: &Config, splits: &Splits, initial: Option<String>, resumed: Option<&State>) -> Identity {
        let resumed = resumed.and_then(|state| state.identity.as_ref());
        let earlier = resumed.and_then(|identity| identity.test.clone());
        Identity {
            settings: config.settings().into_iter().filter(|(key, _)| !touches(key).may_change()).collect(),
            trained: TrainingData::clone(splits.train.trained()),
            test: splits.test.as_ref().map(|test| test.fingerprint()).or(earlier),
            initial: initial.or_else(|| resumed?.initial.clone()),
        }
    }
}

impl State {
    /// Refuses to use the checkpoint, one of `run`, for another run than that of `config`, but for the keys that are `free`.
    ///
    /// Keys that the checkpoint does not know came with a later version of the program; where the run's own configuration is at hand
    /// (`complete` is false), that decides on them.
    pub fn refuse_another_run(&self, run: &Path, config: &Config, complete: bool, free: &[&str]) -> Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let settings = &identity.settings;
        let mut differences = config.differences_in(|touches| !touches.may_change(), settings);
        differences.retain(|d| !free.contains(&d.key.as_str()) && (complete || settings.contains_key(&d.key)));
        if differences.is_empty() {
            return Ok(());
        }
        Err(Exit::Usage.error(format!(
            "checkpoint {} in {} is of a run of another configuration: {}; use the configuration that it was trained with, or another folder",
            self.step,
            run.display(),
            list(&differences)
        )))
    }

    /// Refuses to go on with the run on other data than it was given before.
    pub fn refuse_other_data(&self, splits: &Splits, steps_per_epoch: u64) -> Result<()> {
        let (then, now) = (self.steps_per_epoch, steps_per_epoch);
        if then != now {
            return Err(
                Exit::Usage.error(format!("data.train has {now} batches an epoch, and had {then} when the run began; it is other data"))
            );
        }
        self.refuse_other_training_data(&splits.train)?;
        let Some(test) = &splits.test else { return Ok(()) };
        self.refuse_other_test_data(
            test,
            "errors before and after would be one curve of two test sets; give it back what it held, or begin a new run",
        )
    }

    /// Refuses `test` where it is not the test set that the run was given; `advice` says what to do.
    pub fn refuse_other_test_data(&self, test: &DataSet, advice: &str) -> Result<()> {
        let then = self.identity.as_ref().and_then(|identity| identity.test.as_ref());
        let now = test.fingerprint();
        match then.filter(|then| **then != now) {
            Some(then) => Err(Exit::Usage.error(format!("{}; {advice}", other("data.test", then, &now)))),
            None => Ok(()),
        }
    }

    /// Refuses `train` where it is not what the checkpoint was trained on.
    pub fn refuse_other_training_data(&self, train: &DataSet) -> Result<()> {
        let advice = "give it back what it held, or begin a new run";
        let now = train.fingerprint();
        if let Some(then) = self.data.as_ref().filter(|then| **then != now) {
            return Err(Exit::Usage.error(format!("{}; {advice}", other("data.train", then, &now))));
        }
        let Some(Identity { trained, .. }) = &self.identity else { return Ok(()) };
        let now = train.trained();
        let names = trained.class_names.iter().zip(&now.class_names);
        if let Some((class, (then, now))) = names.enumerate().find(|(_, (then, now))| then != now) {
            return Err(Exit::Usage.error(format!("class {class} of data.train was {then:?} when the run began, and is {now:?}; {advice}")));
        }
        if *trained != **now {
            return Err(Exit::Usage.error(format!("data.train was {}, and is {}; {advice}", describe(trained), describe(now))));
        }
        Ok(())
    }

    /// What the checkpoint's network was trained on. `open` opens data.train, for a checkpoint that does not say so itself.
    pub fn trained(&self, open: impl FnOnce() -> Result<Arc<DataSet>>) -> Result<Arc<TrainingData>> {
        if let Some(identity) = &self.identity {
            return Ok(Arc::new(identity.trained.clone()));
        }
        let train = open()?;
        self.refuse_other_training_data(&train)?;
        Ok(train.trained().clone())
    }
}

/// Keys with both values.
pub fn list(differences: &[Difference]) -> String {
    let list: Vec<String> = differences.iter().map(|d| format!("{} is {} there and {} here", d.key, d.theirs, d.ours)).collect();
    list.join(", ")
}

/// That `key` holds something else than when the run began.
fn other(key: &str, then: &str, now: &str) -> String {
    format!(
        "{key} holds other data, or the same prepared otherwise, than when the run trained: its shards' checksum is {now}, and was {then}"
    )
}

fn describe(trained: &TrainingData) -> String {
    let TrainingData { input: [height, width, channels], class_names, statistics } = trained;
    format!(
        "{height} x {width} x {channels} of {} classes with means {:?} and deviations {:?}",
        class_names.len(),
        statistics.mean,
        statistics.deviation
    )
}
