//! What rank 0 keeps of a run while it trains: checkpoints, metrics, `best.json`, and what a person sees.
//!
//! All of it goes into the run's folder, wherever that is by now, so every writer looks for it first.

use anyhow::Result;

use super::best::{BestFile, Scored};
use super::checkpoint::Checkpoints;
use super::metrics::MetricsFile;
use super::progress::Progress;
use super::run_folder::RunFolder;
use super::schedule::Schedule;
use super::state::State;
use crate::learner::Engine;

/// What rank 0 alone writes and shows.
pub struct Recorder {
    pub folder: RunFolder,
    pub checkpoints: Checkpoints,
    pub best: BestFile,
    pub metrics: MetricsFile,
    pub progress: Progress,
}

impl Recorder {
    /// For a run in batches of `batch_size` that goes on after `step`, and had its last regular line of metrics after `last_regular`; with
    /// the score of the best checkpoint so far.
    pub fn open(
        folder: RunFolder,
        step: u64,
        schedule: Schedule,
        batch_size: usize,
        last_regular: u64,
    ) -> Result<(Recorder, Option<Scored>)> {
        // A run that is over has lost nothing but what a crash cut from its last line.
        let (step_kept, regular_kept) = if step >= schedule.last_step() { (u64::MAX, u64::MAX) } else { (step, last_regular) };
        let metrics = MetricsFile::resume(folder.path(), step_kept, regular_kept)?;
        let checkpoints = Checkpoints::of(folder.path());
        checkpoints.set_aside_beyond(step)?;
        let (best, score) = BestFile::open(&checkpoints)?;
        Ok((Recorder { folder, checkpoints, best, metrics, progress: Progress::new(step, schedule, batch_size) }, score))
    }

    /// Before anything is written: the run is its folder, which may have been moved, and not whatever is now at its path.
    ///
    /// Returns whether it was moved.
    pub fn follow(&mut self) -> Result<bool> {
        let moved = self.folder.follow()?;
        if moved {
            self.checkpoints = Checkpoints::of(self.folder.path());
            self.best.follow(self.folder.path());
            self.metrics.follow(self.folder.path());
        }
        Ok(moved)
    }

    /// Writes the checkpoint of `state`.
    pub fn write(&mut self, engine: &Engine, state: &State) -> Result<()> {
        self.metrics.sync()?;
        self.followed(|this| this.checkpoints.write(engine, state))
    }

    /// Names the checkpoint of `step` the best.
    pub fn name_best(&mut self, step: u64) -> Result<()> {
        self.followed(|this| this.best.name(step))
    }

    /// Writes in the run's folder, and once more where that is moved while it does.
    fn followed(&mut self, mut write: impl FnMut(&mut Recorder) -> Result<()>) -> Result<()> {
        self.follow()?;
        match write(self) {
            Err(_) if self.follow()? => write(self),
            written => written,
        }
    }

    /// Removes the checkpoints that have had their time. `best` must stay, and so must the one that is still named the best.
    pub fn prune(&self, keep: usize, best: Option<Scored>) {
        let kept: Vec<u64> = best.map(|score| score.step).into_iter().chain(self.best.named()).collect();
        self.checkpoints.prune(keep, &kept);
    }
}
