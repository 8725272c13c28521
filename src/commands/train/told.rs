//! What is said of runs before they are trained, once of many that are alike.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;

use crate::config::{Config, Loaded};
use crate::data::{DataSet, batches_per_epoch};
use crate::training::doubts;

/// What has been said.
#[derive(Default)]
pub struct Told(BTreeSet<String>);

impl Told {
    /// Of one run.
    pub fn tell(&mut self, Loaded { config, typed, .. }: &Loaded, steps_per_epoch: usize) {
        for doubt in doubts(config, steps_per_epoch, typed) {
            if self.0.insert(doubt.clone()) {
                log::warn!("{doubt}");
            }
        }
    }

    /// Of runs that other processes train, whose logs nobody reads as they begin.
    pub fn tell_all(&mut self, loaded: &[Loaded]) -> Result<()> {
        let mut samples = BTreeMap::new();
        for loaded in loaded {
            let Config { data, experiment, .. } = &loaded.config;
            let samples = match samples.entry((&data.train, data.validation)) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(new) => *new.insert(DataSet::open_train(data, experiment.seed)?.0.len()),
            };
            let steps = batches_per_epoch(samples, data.batch_size);
            // Where a batch is too large the run's own process says so.
            if steps > 0 {
                self.tell(loaded, steps);
            }
        }
        Ok(())
    }
}
