//! `biodist sweep`: random search for hyperparameters.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use biodist_process::files::write_atomically;
use biodist_process::quote;

use super::eval::{self, Tested};
use super::overrides::{Overrides, tell_unused};
use crate::compute::{Measure, device};
use crate::config::{Config, Loaded, Purpose};
use crate::data::{DataSet, batches_per_epoch};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::search::{
    Children, Ended, Ending, Epochs, Fingerprints, Jobs, Reached, Results, Rungs, Space, SweepFolder, Trial, Values, assignment, describe,
    percent, summary,
};
use crate::text::plural;
use crate::training::{Best, Checkpoints, Schedule, StopRequest, doubts, longer, records};

/// A trial's configuration, in its folder: what the process that trains it is given.
const TRIAL: &str = "trial.toml";

/// Search for hyperparameters at random, and choose by the error on validation samples
///
/// Each trial is a run of `biodist train` in DIR/trials/NNN, with values drawn from the space; a trial's score is the lowest error on the
/// validation set, at the checkpoint that best.json names. The best trial's checkpoint is evaluated on the test set, once, at the end:
/// no other trial ever sees that. What has been found is in DIR/results.jsonl, a line for each trial, and DIR/best.toml is a configuration with the best
/// values that `biodist train` accepts. Checkpoints stay of the best trial alone, and until then of those that may still become it; of the others stay
/// metrics and configuration, and `biodist train DIR/trials/NNN --out RUN` trains them to the same bits again.
///
/// The same command goes on where it stopped: finished trials are kept, unfinished ones resume. The data must hold what they held, but may be
/// elsewhere. Ctrl-C, SIGTERM, SIGHUP or SIGUSR1 end it with exit code 75 when all trials in training have written a checkpoint. Trials whose loss is
/// not finite count as diverged, and the search goes on. So it does where a trial fails, for want of room for instance; the code is 1 then, and the
/// same command tries it again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct SweepArgs {
    /// Configuration: a file, the name of one that comes with the program, or the folder of a run; keys of the space replace its values
    config: PathBuf,
    /// Folder of the sweep
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// What is searched: "paper" (Table 4), "wide" (which holds every value of Table 5 too), or a TOML file that gives keys of the
    /// configuration a domain, such as learning.alpha = { uniform = [0.01, 0.2] }, { log_uniform = [a, b] } or { choice = [...] }. Keys that no draw uses are left out
    #[arg(long, default_value = "paper", value_name = "NAME|FILE")]
    space: String,
    /// Number of trials, all trained as long as the configuration says; the same command with more of them makes a search larger
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=100_000))]
    trials: usize,
    /// Successive halving instead: EPOCHS:TRIALS,... trains that many trials to that many epochs, then the best of them on. 10:60,50:10,500:1
    /// trains 60 trials to 10 epochs, the best 10 of these to 50, and the best of those to 500; 0.1:60 would train them on a tenth of the samples.
    /// best.toml trains whole epochs
    #[arg(long, value_name = "EPOCHS:TRIALS,...", conflicts_with = "trials")]
    rungs: Option<Rungs>,
    /// What the values are drawn from: the same seed draws the same, and a trial's values do not depend on how many there are
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Trials at a time; they divide this machine's CPUs, or its GPUs
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    jobs: usize,
    /// Samples of the training set to choose by: short for --set data.validation=N
    #[arg(long, value_name = "N")]
    validation: Option<usize>,
}

const EXAMPLES: &str = "Examples:
  The paper's search, 60 trials from Table 4:
    biodist sweep mnist_fc_dtp_parallel.toml --out sweeps/dtp --validation 10000 --jobs 8
  Its protocol for ImageNet, all trials to 10 epochs and the best one on to 500:
    biodist sweep imagenet_dtp.toml --out sweeps/imagenet --validation 50000 --rungs 10:60,500:1";

/// Trains what is left to train, chooses, and reports.
pub fn run(args: SweepArgs, stop: StopRequest, transport: Arc<dyn Transport>) -> Result<()> {
    if transport.size() > 1 {
        return Err(Exit::Usage.error("a sweep starts its own processes: start it without mpirun, with --jobs N for several at a time"));
    }
    let mut set = args.overrides.all();
    set.extend(args.validation.map(|samples| format!("data.validation={samples}")));
    let read = |more: &[String]| -> Result<Loaded> {
        Loaded::read(&args.config, &[set.as_slice(), more].concat(), Purpose::Training)?.with_absolute_paths()
    };
    let load = |more: &[String]| read(more).map(|loaded| loaded.config);
    let Loaded { config: base, mut typed, .. } = read(&[])?;
    check(&base, args.rungs.is_some())?;
    let mut space = Space::named(&args.space)?;
    let left_out = space.restrict(&base, &typed, load);
    space.check(load)?;
    let rungs = args.rungs.clone().unwrap_or_else(|| Rungs::plain(args.trials));
    let drawn = (0..rungs.trials().min(LOOKED_AT)).map(|trial| read(&assignments(&space.draw(args.seed, trial))));
    let mut drawn: Vec<Loaded> = drawn.collect::<Result<_>>()?;
    // A draw may leave another unused, which nobody typed.
    drawn.iter_mut().for_each(|trial| trial.unused.retain(|unused| typed.contains(&unused.key)));
    let (data, samples) = data(&drawn[0].config)?;
    let odd = drawn.iter().map(|trial| turns(&trial.config, &rungs, samples)).collect::<Result<Vec<_>>>()?.into_iter().flatten().next();
    let folder = SweepFolder::open(&args.out, &base, &space, args.seed, &rungs, &data)?;
    tell_unused(&drawn, &*transport);
    let fall = |trial: &Loaded| trial.config.optimizer.cosine_epochs == base.training.epochs.map(|epochs| epochs as f64);
    if args.rungs.is_some() && typed.remove("training.epochs") && !drawn.iter().any(fall) {
        log::warn!("training.epochs was given and changes nothing: --rungs says how long trials are trained");
    }
    let (last, steps) = planned(&drawn[0].config, rungs.0.last().and_then(|rung| rung.epochs), samples);
    let doubts = if steps > 0 && odd.is_none() { doubts(&last, steps, &typed) } else { Vec::new() };
    odd.iter().chain(&doubts).for_each(|doubt| log::warn!("{doubt}"));
    left_out.iter().for_each(|(key, reason)| say(format_args!("{key} is not searched: {reason}")));
    let results = Results::open(folder.path(), &rungs, |trial| space.draw(args.seed, trial))?;
    let mut children = Children::new(args.jobs, device::shared(base.parallel.device, base.parallel.kernels));
    let mut sweep = Sweep { load: &load, folder, rungs, samples, results, stop };
    for rung in 0..sweep.rungs.0.len() {
        sweep.climb(&mut children, rung)?;
    }
    sweep.conclude(transport)
}

/// Trials of which one at least must use a key that is given.
const LOOKED_AT: usize = 16;

/// What a sweep needs of its configuration.
fn check(base: &Config, rungs: bool) -> Result<()> {
    if base.data.validation == 0 {
        return Err(Exit::Usage.error(
            "data.validation is 0, and a sweep chooses by the error on validation samples: set apart some of the training set with \
             --validation N, for instance 10000 of MNIST's 60000",
        ));
    }
    if base.training.eval_every_epochs == 0 && base.training.eval_every_steps == 0 {
        return Err(Exit::Usage.error("training.eval_every_epochs is 0, so no trial would be evaluated; set it to 1 or more"));
    }
    if rungs && base.training.max_steps.is_some() {
        return Err(Exit::Usage.error("training.max_steps is set, and --rungs counts epochs; leave one of the two out"));
    }
    Ok(())
}

/// The configuration of a trial that is trained to `epochs`, and the steps of an epoch; none where a batch takes more samples than there are.
fn planned(trial: &Config, epochs: Option<Epochs>, samples: usize) -> (Config, usize) {
    let mut config = trial.clone();
    if let Some(epochs) = epochs {
        epochs.give(&mut config, samples);
    }
    let steps = batches_per_epoch(samples, config.data.batch_size);
    (config, steps)
}

/// Where the forward model learns every other epoch alone: refuses a first rung in which it does not, and returns what to say of a later one
/// at whose end it stands as before.
fn turns(trial: &Config, rungs: &Rungs, samples: usize) -> Result<Option<String>> {
    let mut odd = None;
    for (number, rung) in (1..).zip(&rungs.0) {
        let (config, steps) = planned(trial, rung.epochs, samples);
        let Some(before) = (steps > 0).then(|| Schedule::new(&config, steps).ends_with_inverses()).flatten() else { continue };
        let instead = match rung.epochs {
            None => longer(&config, steps, before + 2),
            Some(_) => format!("--rungs {}", rungs.in_turns()),
        };
        if before == 0 {
            let ends = rung.epochs.map_or("trials end with it".to_owned(), |epochs| format!("the first of --rungs ends after {epochs}"));
            return Err(Exit::Usage.error(format!("{ALIKE}, and {ends}; {instead} trains both models")));
        }
        // Trials of one length are told what any other run is.
        odd = odd.or(rung.epochs.map(|_| {
            format!(
                "rung {number} ends in epoch {}, which trains the inverses alone: its trials are compared by what they were after epoch \
                 {before}; {instead} ends each rung with the forward model",
                before + 1
            )
        }));
    }
    Ok(odd)
}

/// Why a first epoch tells nothing of a trial.
const ALIKE: &str =
    "learning.schedule is \"alternating\": the first epoch trains the inverses alone, after which all trials have the same error";

/// What stands for the data of a trial's configuration, and the samples that it trains on. How they are read may be among the values that are drawn.
fn data(trial: &Config) -> Result<(Fingerprints, usize)> {
    let (train, _) = DataSet::open_train(&trial.data, trial.experiment.seed)?;
    let test = DataSet::open_test(&trial.data, train.trained())?;
    Ok((Fingerprints { train: train.fingerprint(), test: test.map(|test| test.fingerprint()) }, train.len()))
}

/// Values as overrides of a configuration.
fn assignments(values: &Values) -> Vec<String> {
    values.iter().map(|(key, value)| assignment(key, value)).collect()
}

struct Sweep<'a> {
    /// The configuration with these keys replaced.
    load: &'a dyn Fn(&[String]) -> Result<Config>,
    folder: SweepFolder,
    rungs: Rungs,
    /// Samples of the training set, of all trials.
    samples: usize,
    results: Results,
    stop: StopRequest,
}

impl Sweep<'_> {
    /// Trains the trials of rung `rung` to its end.
    fn climb(&mut self, children: &mut Children, rung: usize) -> Result<()> {
        self.free_room(rung);
        let pending = self.results.pending(rung);
        let total = pending.len();
        if total > 0 && self.rungs.0.len() > 1 {
            let epochs = self.rungs.0[rung].epochs.unwrap_or(Epochs(0.0));
            say(format_args!("rung {} of {}: {total} trial{} to {epochs}", rung + 1, self.rungs.0.len(), plural(total)));
        }
        let stop = self.stop.clone();
        if children.run(pending, &stop, &mut Climb { sweep: self, rung })? {
            return Err(Exit::Stopped.error("stopped on request, checkpoints written; the same command goes on"));
        }
        Ok(())
    }

    fn start(&mut self, children: &mut Children, slot: usize, trial: usize, rung: usize) -> Result<()> {
        let run = self.folder.trial(trial);
        let written = run.join(TRIAL);
        let mut config = self.configuration(&self.results.trials()[trial].values)?;
        config.experiment.name = format!("{}_trial_{trial:03}", config.experiment.name);
        config.data.test = None;
        // Beside the best, which stays anyway: a sweep has many runs.
        config.training.keep_checkpoints = 1;
        if let Some(epochs) = self.rungs.0[rung].epochs {
            epochs.give(&mut config, self.samples);
        }
        if config.parallel.threads_per_rank == 0 {
            config.parallel.threads_per_rank = children.threads(slot);
        }
        std::fs::create_dir_all(&run).with_context(|| format!("{} cannot be created", run.display()))?;
        write_atomically(&written, config.to_toml().as_bytes())?;
        let mut arguments = ["train", "--trial", "--resume", "--out"].map(OsStr::new).to_vec();
        arguments.extend([run.as_os_str(), written.as_os_str()]);
        children.start(slot, trial, &arguments, &run.join("train.log"))
    }

    fn configuration(&self, values: &Values) -> Result<Config> {
        (self.load)(&assignments(values))
    }

    fn record(&mut self, trial: usize, rung: usize, ended: Ended) -> Result<()> {
        let run = self.folder.trial(trial);
        let begun = Epochs(records::epochs(&run)? as f64);
        let epochs = self.rungs.0[rung].epochs.filter(|_| ended == Ended::Done).unwrap_or(begun);
        let reached = Best::read(&run)?.and_then(|best| Reached::new(epochs, &best));
        let ending = match (ended, reached) {
            (Ended::Stopped, _) => return Ok(()),
            (Ended::Refused(said), _) => return Err(Exit::Usage.error(format!("trial {trial} was refused: {said}"))),
            (Ended::Failed(reason), _) => Some(Ending::Failed { reason }),
            (Ended::Diverged, before) => Some(Ending::Diverged { epochs, before }),
            (Ended::Done, None) => Some(Ending::Diverged { epochs, before: None }),
            (Ended::Done, Some(_)) => None,
        };
        self.results.change(trial, |trial| match ending {
            Some(ending) => trial.ending = Some(ending),
            None => trial.rungs.extend(reached),
        })?;
        self.free_room(rung);
        let trial = &self.results.trials()[trial];
        let how = match (&trial.ending, trial.rungs.get(rung)) {
            (Some(Ending::Failed { reason }), _) => format!("failed: {reason}"),
            (Some(Ending::Diverged { .. }), _) => format!("diverged in epoch {}", begun.0),
            (None, Some(Reached { validation_error: Some(error), .. })) => format!("validation error {}", percent(*error)),
            (None, reached) => format!("validation loss {:.5}", reached.map_or(f64::NAN, |reached| reached.validation_loss)),
        };
        say(format_args!("trial {:3} of {}  {how}  ({})", trial.number, self.results.trials().len(), describe(trial, self.used(trial))));
        Ok(())
    }

    /// Which of a trial's values its training uses: others may have been drawn that leave them unused.
    fn used(&self, trial: &Trial) -> impl Fn(&str) -> bool + use<> {
        let config = self.configuration(&trial.values);
        move |key: &str| config.as_ref().is_ok_and(|config| config.unused(key).is_none())
    }

    /// Removes the checkpoints of trials that end for good: dozens of a network of ImageNet's size would fill a disk.
    fn free_room(&self, rung: usize) {
        self.results.given_up(rung).into_iter().for_each(|trial| Checkpoints::of(&self.folder.trial(trial)).remove_all());
    }

    /// Chooses the best, evaluates it on the test set, and reports.
    fn conclude(mut self, transport: Arc<dyn Transport>) -> Result<()> {
        let Some(best) = self.results.ranking(self.rungs.0.len() - 1).first().copied() else {
            say(self.summary().trim_end());
            self.refuse_failed()?;
            return Err(Exit::Failed.error(format!(
                "no trial was trained to the end; {} says why, and each trial's train.log has more",
                self.folder.path().join("results.jsonl").display()
            )));
        };
        let mut config = self.configuration(&self.results.trials()[best].values)?;
        if let Some(epochs) = self.rungs.0.last().and_then(|rung| rung.epochs) {
            epochs.give(&mut config, self.samples);
            // Who trains it longer gives epochs, and steps would end them early.
            config.training.max_steps = None;
        }
        let run = self.folder.trial(best);
        if config.data.test.is_some() && self.results.trials()[best].test.is_none() {
            let state = Checkpoints::of(&run).verified(Best::required(&run)?.step)?;
            let Tested { sums, classifies, .. } = eval::on_test(config.clone(), &run, &state, true, transport)?;
            let test = sums.mean(if classifies { Measure::Top1Error } else { Measure::Loss });
            // One that was the best before a failed trial was tried again is it no more.
            let others: Vec<usize> = self.results.trials().iter().filter(|trial| trial.test.is_some()).map(|trial| trial.number).collect();
            for other in others {
                self.results.change(other, |trial| trial.test = None)?;
            }
            self.results.change(best, |trial| trial.test = Some(test))?;
        }
        say(format_args!("\n{}", self.summary()));
        let trial = &self.results.trials()[best];
        let reached = trial.reached().context("the best trial has a score")?;
        let show =
            |score: f64| if reached.validation_error.is_some() { format!("error {}", percent(score)) } else { format!("loss {score:.5}") };
        let test = trial.test.map_or(String::new(), |test| format!(", test {}", show(test)));
        let found = format!("trial {best} of {}: validation {}{test}", self.results.trials().len(), show(reached.value()));
        let path = self.folder.path().join("best.toml");
        let text = format!(
            "# The best of `biodist sweep`, {found}.\n# Its run is {}; values that were searched: {}.\n\n{}",
            quote::message(&run.display().to_string()),
            quote::message(&assignments(&trial.values).join(", ")),
            config.to_toml()
        );
        write_atomically(&path, text.as_bytes())?;
        say(format_args!("{found}\nits configuration is {}", path.display()));
        self.refuse_failed()
    }

    fn summary(&self) -> String {
        summary(&self.results, &self.rungs, |trial| self.used(trial))
    }

    /// Names the trials that failed, once the others are trained: one of them may be better than the best.
    fn refuse_failed(&self) -> Result<()> {
        let trials = self.results.trials();
        let why = |trial: &Trial| match &trial.ending {
            Some(Ending::Failed { reason }) => Some(format!("trial {}: {reason}", trial.number)),
            _ => None,
        };
        let failed: Vec<String> = trials.iter().filter_map(why).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let (count, all, list) = (failed.len(), trials.len(), failed.join("; "));
        let them = if count == 1 { "it" } else { "them" };
        Err(Exit::Failed.error(format!("{count} of {all} trials failed: {list}; the same command tries {them} again")))
    }
}

/// The trials of a rung.
struct Climb<'a, 'b> {
    sweep: &'a mut Sweep<'b>,
    rung: usize,
}

impl Jobs for Climb<'_, '_> {
    fn start(&mut self, children: &mut Children, slot: usize, job: usize) -> Result<()> {
        self.sweep.start(children, slot, job, self.rung)
    }

    fn ended(&mut self, job: usize, ended: Ended) -> Result<()> {
        self.sweep.record(job, self.rung, ended)
    }
}
