//! The loop: steps, and what is due between them. It never sees which rule runs.
//!
//! Everything that ranks must do together is decided from what all of them know: the step, or words that they have just exchanged.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::best::Scored;
use super::evaluate::evaluate;
use super::identity::Identity;
use super::metrics::{EvaluationLine, TrainLine, has_evaluation};
use super::recorder::Recorder;
use super::run_folder::{RunFolder, holds_run, record_divergence};
use super::schedule::Schedule;
use super::signals::StopRequest;
use super::state::State;
use super::tally::{Clock, Tallied, Tally};
use crate::compute::Batch;
use crate::config::{Config, Output};
use crate::data::{BatchPlan, DataSet, Loader, Position, evenly, plain_batch};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::await_first_word;
use crate::learner::{Engine, LayerDiagnostics, replicas};
use crate::observe::{self, Doing};
use crate::rules::Phase;
use crate::versions;

/// The data sets of a run.
pub struct Splits {
    pub train: Arc<DataSet>,
    pub validation: Option<Arc<DataSet>>,
    pub test: Option<Arc<DataSet>>,
}

/// A run as it was planned, and where it goes on.
pub struct Run<'a> {
    pub config: &'a Config,
    pub schedule: Schedule,
    pub splits: &'a Splits,
    /// On rank 0.
    pub folder: Option<RunFolder>,
    /// The folder as it was named, where other ranks may find it too.
    pub out: &'a Path,
    pub resumed: Option<&'a State>,
    /// Checksum of the parameters that the run was given to begin with.
    pub initial: Option<String>,
    /// Whether it is one of many, which keep no checkpoint of step 0.
    pub trial: bool,
}

pub struct Trainer<'a> {
    config: &'a Config,
    schedule: Schedule,
    splits: &'a Splits,
    out: &'a Path,
    identity: Identity,
    engine: Engine,
    transport: Arc<dyn Transport>,
    stop: StopRequest,
    /// Steps done.
    step: u64,
    /// Step of the newest checkpoint.
    saved: Option<u64>,
    saved_at: Instant,
    trial: bool,
    /// Of the checkpoint that did best on the validation set so far.
    best: Option<Scored>,
    tally: Tally,
    clock: Clock,
    record: Option<Recorder>,
}

/// What all ranks agreed to do now.
struct Agreed {
    stop: bool,
    checkpoint: bool,
}

impl<'a> Trainer<'a> {
    /// A trainer of `engine`, whose parameters are set. Rank 0 cuts the metrics back to where the run goes on.
    pub fn new(mut run: Run<'a>, engine: Engine, transport: Arc<dyn Transport>, stop: StopRequest) -> Result<Trainer<'a>> {
        let step = run.resumed.map_or(0, |state| state.step);
        let tallied = run.resumed.map_or_else(Tallied::default, |state| state.metrics);
        let (record, best) = match run.folder.take() {
            Some(folder) => Recorder::open(folder, step, run.schedule, run.config.data.batch_size, tallied.since)
                .map(|(record, best)| (Some(record), best))?,
            None => (None, None),
        };
        let best = Scored::shared(best, &*transport);
        Ok(Trainer {
            config: run.config,
            schedule: run.schedule,
            splits: run.splits,
            out: run.out,
            identity: Identity::new(run.config, run.splits, run.initial, run.resumed),
            engine,
            transport,
            stop,
            step,
            saved: run.resumed.map(|state| state.step),
            saved_at: Instant::now(),
            trial: run.trial,
            best,
            tally: Tally::new(tallied, run.config.trains_inverses()),
            clock: Clock::default(),
            record,
        })
    }

    /// Trains to the end, or until asked to stop: then a checkpoint is written, and the error is [`Exit::Stopped`]. Collective.
    pub fn run(mut self) -> Result<()> {
        let result = self.run_to_end();
        if result.is_err()
            && let Some(record) = &mut self.record
        {
            // What cannot be written because the folder is gone says less than that it is gone.
            record.follow()?;
        }
        if let Err(error) = &result
            && Exit::of(error) == Exit::NotFinite
            && let Err(error) = self.record_divergence()
        {
            log::warn!("that the run diverged is not recorded: {error:#}");
        }
        result
    }

    /// A rank whose samples alone have such losses ends the job without a word from rank 0, so it records it itself where it finds the folder.
    fn record_divergence(&self) -> Result<()> {
        let _span = observe::span(Doing::Checkpoint, None);
        match &self.record {
            Some(record) => record_divergence(record.folder.path(), self.step),
            None => {
                await_first_word();
                if holds_run(self.out) { record_divergence(self.out, self.step) } else { Ok(()) }
            }
        }
    }

    fn run_to_end(&mut self) -> Result<()> {
        let _span = observe::span(Doing::BetweenSteps, None);
        if self.saved.is_none() && !self.trial {
            self.save()?;
        }
        if self.evaluation_is_due() {
            // What ended the run before may have done so during an evaluation.
            self.evaluate(true)?;
        }
        self.train(self.schedule.last_step())?;
        if let Some(record) = &self.record {
            record.progress.done(record.folder.path(), record.metrics.seconds());
        }
        Ok(())
    }

    fn train(&mut self, last: u64) -> Result<()> {
        if self.step >= last {
            return Ok(());
        }
        let mut loader = self.loader();
        let training = &self.config.training;
        let (log_every, checkpoint_every) = (training.log_every_steps, training.checkpoint_every_steps);
        let (checkpoint_every_epochs, verify_every) = (training.checkpoint_every_epochs, self.config.parallel.verify_every_steps);
        while self.step < last {
            self.learn(&mut loader)?;
            let step = self.step;
            let agreed = self.agree();
            let due = |every: u64| every > 0 && step.is_multiple_of(every);
            if due(log_every) || step == last {
                self.log(due(log_every))?;
            }
            if due(verify_every) {
                self.verify()?;
            }
            let interval = due(checkpoint_every) || self.schedule.every_epochs(checkpoint_every_epochs, step);
            if step == last || agreed.stop || agreed.checkpoint || interval {
                self.save()?;
            }
            if agreed.stop && step < last {
                return Err(self.stopped());
            }
            if self.evaluation_is_due() {
                self.evaluate(false)?;
            }
        }
        Ok(())
    }

    /// Batches from the present position on.
    fn loader(&self) -> Loader {
        let (rank, world_size) = (self.transport.rank(), self.transport.size());
        let (data, seed) = (&self.config.data, self.config.experiment.seed);
        let plan = BatchPlan { seed, batch_size: data.batch_size, shuffle: data.shuffle, rank, world_size };
        Loader::train(self.splits.train.clone(), plan, self.position(), self.engine.form())
    }

    fn phase(&self) -> Phase {
        self.schedule.phase(self.position().epoch)
    }

    /// Of the batch that comes next.
    fn position(&self) -> Position {
        self.schedule.position(self.step)
    }

    fn learn(&mut self, loader: &mut Loader) -> Result<()> {
        let started = Instant::now();
        let _step = observe::step(self.step);
        let loaded = {
            let _span = observe::span(Doing::Load, None);
            loader.next()?
        };
        let load = started.elapsed().as_secs_f64();
        assert_eq!(loaded.position, self.position(), "the loader and the loop are at the same batch");
        let samples = self.engine.capacity();
        let batch =
            Batch { pixels: loaded.input(), labels: &loaded.labels, samples, first: self.transport.rank() * samples, step: self.step };
        let phase = self.phase();
        self.engine.learn(&batch, phase, self.schedule.learning_rate(self.step))?;
        loader.recycle(loaded);
        self.tally.add(&self.engine, phase, &*self.transport);
        self.step += 1;
        self.clock.step(self.config.data.batch_size, started.elapsed().as_secs_f64(), load);
        if let Some(record) = &mut self.record {
            record.progress.step(self.step);
        }
        Ok(())
    }

    /// One rank's signal stops all of them, and rank 0's clock is everybody's. Costs a few microseconds, so it is done after every step.
    fn agree(&self) -> Agreed {
        let interval = Duration::from_secs_f64(60.0 * self.config.training.checkpoint_every_minutes);
        let due = self.transport.rank() == 0 && !interval.is_zero() && self.saved_at.elapsed() >= interval;
        let own = u64::from(self.stop.received()) | u64::from(due) << 1;
        let any = self.transport.all_gather_words(&[own]).into_iter().fold(0, |any, word| any | word);
        Agreed { stop: any & 1 != 0, checkpoint: any & 2 != 0 }
    }

    /// Writes a line of metrics: a `regular` one, or what is left when training ends between two.
    fn log(&mut self, regular: bool) -> Result<()> {
        self.tally.settle(&*self.transport);
        let since = self.tally.tallied;
        // A later, longer training goes on as if it had never ended here.
        let sums = if regular { self.tally.take(self.step) } else { since.sums };
        self.clock.absorb(&mut self.engine);
        let clock = std::mem::take(&mut self.clock);
        let Some(record) = &mut self.record else { return Ok(()) };
        // The last step done is part of this epoch, counted from 1.
        let epoch = (self.step - 1) / self.schedule.steps_per_epoch() as u64 + 1;
        record.follow()?;
        let line = TrainLine { step: self.step, epoch, sums, clock, classifies: self.config.network.output == Output::Softmax };
        record.metrics.train(&line)?;
        record.progress.train(&line);
        Ok(())
    }

    /// Fails where the ranks' parameters differ; otherwise their checksum.
    fn verify(&self) -> Result<u64> {
        replicas::compare(self.engine.checksum(), self.step, &*self.transport)
    }

    fn save(&mut self) -> Result<()> {
        if self.saved == Some(self.step) {
            return Ok(());
        }
        let _span = observe::span(Doing::Checkpoint, None);
        self.tally.settle(&*self.transport);
        let checksum = self.verify()?;
        self.engine.gather();
        let position = self.position();
        let state = State {
            version: State::VERSION,
            step: self.step,
            epoch: position.epoch,
            batch: position.batch,
            steps_per_epoch: self.schedule.steps_per_epoch() as u64,
            data: Some(self.splits.train.fingerprint()),
            phase: match self.phase() {
                Phase::Both => "both",
                Phase::Inverse => "inverse",
                Phase::Forward => "forward",
            }
            .to_owned(),
            optimizer_steps: self.engine.steps(),
            seed: self.config.experiment.seed,
            identity: Some(self.identity.clone()),
            parameter_checksum: format!("{checksum:016x}"),
            metrics: self.tally.tallied,
            biodist: versions::CRATE.to_owned(),
            files: Default::default(),
        };
        if let Some(record) = &mut self.record {
            record.write(&self.engine, &state)?;
            record.prune(self.config.training.keep_checkpoints, self.best);
        }
        // Ranks that share parameters must not change them while they are written.
        self.transport.barrier();
        self.saved = Some(self.step);
        self.saved_at = Instant::now();
        Ok(())
    }

    fn evaluation_is_due(&self) -> bool {
        self.schedule.evaluates(self.step)
    }

    /// Evaluates on what there is to evaluate on; with `missing`, only where there is no line of it yet.
    fn evaluate(&mut self, missing: bool) -> Result<()> {
        let _span = observe::span(Doing::Evaluation, None);
        let splits = [("validation", &self.splits.validation), ("test", &self.splits.test)];
        for (split, data) in splits {
            let Some(data) = data else { continue };
            if missing {
                let there = match &self.record {
                    Some(record) => has_evaluation(record.checkpoints.run(), split, self.step)?,
                    None => false,
                };
                if self.transport.all_gather_words(&[u64::from(there)])[0] == 1 {
                    continue;
                }
            }
            // The time of an evaluation is no part of a training step's.
            self.clock.absorb(&mut self.engine);
            let (stop, transport) = (&self.stop, &self.transport);
            let stopped = || transport.all_gather_words(&[u64::from(stop.received())]).contains(&1);
            let Some(evaluation) = evaluate(&mut self.engine, data, &**transport, stopped)? else {
                self.save()?;
                return Err(self.stopped());
            };
            let evaluation = evaluation.of_finite_loss(
                format_args!("the {split} set after step {}", self.step),
                "a checkpoint from before may do. A smaller learning rate usually helps",
            )?;
            // With the first of the splits.
            let diagnostics = if split == "validation" || self.splits.validation.is_none() { self.diagnose()? } else { None };
            self.engine.reset_profile();
            let classifies = self.config.network.output == Output::Softmax;
            let line = EvaluationLine {
                split,
                step: self.step,
                epoch: self.step.div_ceil(self.schedule.steps_per_epoch() as u64),
                sums: evaluation.sums,
                seconds: evaluation.seconds,
                classifies,
                diagnostics,
            };
            if let Some(record) = &mut self.record {
                record.follow()?;
                record.metrics.evaluation(&line)?;
                record.progress.evaluation(&line);
            }
            let score = Scored::new(self.step, &evaluation.sums, classifies).filter(|score| score.beats(self.best.as_ref()));
            if let (Some(score), "validation") = (score, split) {
                self.best = Some(score);
                self.save()?;
            }
        }
        self.name_best()
    }

    /// On one batch, the same at every step, of samples evenly apart in the validation split, or in training's where that has too few.
    fn diagnose(&mut self) -> Result<Option<Vec<LayerDiagnostics>>> {
        if !self.config.training.diagnostics {
            return Ok(None);
        }
        let (samples, rank) = (self.engine.capacity(), self.transport.rank());
        let of_all_ranks = self.config.data.batch_size;
        let enough = |data: &&Arc<DataSet>| data.len() >= of_all_ranks;
        let data = self.splits.validation.as_ref().filter(enough).unwrap_or(&self.splits.train);
        let first = rank * samples;
        let loaded = plain_batch(data, evenly(data.len(), of_all_ranks).skip(first).take(samples), self.engine.form())?;
        let batch = Batch { pixels: loaded.input(), labels: &loaded.labels, samples, first, step: self.step };
        self.engine.diagnose(&batch).map(Some)
    }

    /// Once all its evaluations are recorded, the checkpoint of this step is named the best, if it is.
    fn name_best(&mut self) -> Result<()> {
        if let (Some(record), Some(best)) = (&mut self.record, self.best)
            && best.step == self.step
        {
            // Writes a file, for which there is more patience than for an evaluation.
            let _span = observe::span(Doing::Checkpoint, None);
            record.name_best(best.step)?;
            record.prune(self.config.training.keep_checkpoints, Some(best));
        }
        Ok(())
    }

    fn stopped(&self) -> anyhow::Error {
        if let Some(record) = &self.record {
            record.progress.finish();
        }
        let last = self.schedule.last_step();
        Exit::Stopped.error(format!(
            "stopped on request after step {} of {last}, checkpoint written; the same command with --resume goes on",
            self.step
        ))
    }
}
