//! `biodist train`: from a configuration to a trained network, or from where an earlier start of the same run ended.

mod axis;
mod jobs;
mod study;
mod told;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use self::axis::{Axis, Seeds};
use self::study::{Member, Part, Study};
use self::told::Told;
use super::overrides::{Overrides, tell_unused};
use super::{memory, room};
use crate::agreement::{Facts, agree};
use crate::config::{Config, Loaded, Output, Purpose, Schedule as Turns};
use crate::cpus::{self, Share};
use crate::data::{DataSet, batches_per_epoch};
use crate::exchange::{self, Sharing, Transport};
use crate::exit::Exit;
use crate::job::say;
use crate::learner::Engine;
use crate::network::Group;
use crate::plan::{DataFacts, Plan};
use crate::search::Ended;
use crate::text::{grouped, plural, scaled, table};
use crate::training::{self, Best, Checkpoints, Initial, Run, RunFolder, Schedule, Splits, State, StopRequest, Trainer};
use crate::watch::{self, Trace};

/// Train a network, alone or as a rank under mpirun
///
/// SIGUSR1, SIGTERM, SIGHUP or Ctrl-C write a checkpoint and end with code 75; the same command with --resume goes on. Under mpirun, send it
/// SIGUSR1: the others leave Open MPI's ranks two seconds. With data.validation above 0, the checkpoint with the lowest validation error is
/// kept, and best.json in the run's folder names it.
#[derive(Debug, clap::Args)]
pub struct TrainArgs {
    /// Configuration: a file, the name of one that comes with the program, or the folder of a run
    config: PathBuf,
    #[command(flatten)]
    overrides: Overrides,
    /// Folder of the run [default: runs/NAME, by the experiment's name]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Record what each rank does and when, for ui.perfetto.dev or chrome://tracing
    ///
    /// A process for each rank, with rows for steps, loading, compute (by layer), exchange, update, what is done between steps, and what
    /// travels to other ranks in the background. Each rank keeps its latest 65,536 spans (1.5 MB); the file, about 10 MB a rank, is written
    /// when training ends or is stopped. On GPUs the spans show when the host handed the work out.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Go on from the newest whole checkpoint, or start where there is none yet
    ///
    /// `biodist train runs/a --resume` goes on with the run in runs/a.
    #[arg(long)]
    resume: bool,
    /// Train with each of these seeds, such as 0,1,2 or 0-4, in DIR/seed_N; then show mean and deviation of the test error
    ///
    /// One whose loss is not finite is shown as diverged, and the code is 77 when the others are done. (Under mpirun it ends them all.)
    #[arg(long, value_name = "SEED,...", value_delimiter = ',')]
    seeds: Vec<Seeds>,
    /// Train with each of these values of KEY, in DIR/NAME_VALUE; then show their test errors
    ///
    /// NAME is the last part of KEY. For instance --vary learning.auxiliary_units=2,8,32,128 for Figure 4, or --vary
    /// 'learning.sigma=[0.1,0.2],[0.3,0.4]', in DIR/sigma_0.1_0.2. Given several times, or with --seeds, every combination is trained, in a
    /// folder within the folder of the first value. Those that diverge are told as with --seeds.
    #[arg(long, value_name = "KEY=VALUE,...")]
    vary: Vec<Axis>,
    /// Of --vary and --seeds: runs at a time, each a process of its own; they divide this machine's CPUs, or its GPUs
    #[arg(long, value_name = "N", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    jobs: Option<usize>,
    /// Of --vary and --seeds: train every Nth run alone, from the Ith on (from 0)
    ///
    /// In a job array of Slurm with `--array=0-9`, all with the same command: --array $SLURM_ARRAY_TASK_ID/10.
    #[arg(long, value_name = "I/N")]
    array: Option<Part>,
    /// Print data.batch_size and nothing else: what biodist-launch asks where it goes on with fewer hosts
    #[arg(long, hide = true)]
    print_batch_size: bool,
    /// Write no checkpoint of step 0: a search's trials are many, and begin again as they began
    #[arg(long, hide = true)]
    trial: bool,
}

impl TrainArgs {
    /// The run's folder. A run that is itself given, and that is to go on, goes on where it is.
    fn folder(&self, config: &Config) -> PathBuf {
        let own = self.given_run().filter(|_| self.resume).map(Path::to_owned);
        let usual = || Path::new("runs").join(&config.experiment.name);
        self.out.clone().or(own).unwrap_or_else(usual)
    }

    /// The folder of the run whose configuration is given.
    fn given_run(&self) -> Option<&Path> {
        let parent = self.config.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let given =
            if self.config.is_dir() { Some(self.config.as_path()) } else { self.config.ends_with(training::CONFIG).then_some(parent) };
        given.filter(|folder| training::holds_run(folder))
    }

    /// What must be the same on all ranks for them to do the same.
    fn facts(&self, study: &Option<Study>) -> Facts {
        Facts::default()
            .with("--resume", self.resume.to_string())
            .with("--trace", if self.trace.is_some() { "given" } else { "absent" })
            .with("--seeds and --vary", study.as_ref().map_or("absent".to_owned(), Study::to_string))
            .with("--array", format!("{:?}", self.array))
    }
}

/// Trains to the end, every run where there are several; [`Exit::Stopped`] where a signal asked to stop before.
pub fn run(args: TrainArgs, stop: StopRequest, transport: Arc<dyn Transport>) -> Result<()> {
    let load = |more: &[String]| -> Result<Loaded> {
        Loaded::read(&args.config, &[args.overrides.all().as_slice(), more].concat(), Purpose::Training)?.with_absolute_paths()
    };
    let study = Study::new(&args.vary, &args.seeds)?;
    if study.is_none() && (args.jobs.is_some() || args.array.is_some()) {
        return Err(Exit::Usage.error("--jobs and --array divide several runs: name them with --vary or --seeds"));
    }
    if args.jobs.is_some() && (transport.size() > 1 || args.trace.is_some()) {
        return Err(Exit::Usage.error("--jobs starts processes of its own: start it without mpirun, and without --trace"));
    }
    let loaded = load(&[])?;
    let config = &loaded.config;
    if args.print_batch_size {
        say(config.data.batch_size);
        return Ok(());
    }
    agree(&args.facts(&study).with_config(config), &*transport)?;
    // Processes that are started for `--jobs` watch themselves; this one only waits for them.
    if args.jobs.is_none() {
        watch::watch(&transport, config.parallel.stall_timeout)?;
    }
    let trace = args.trace.as_ref().map(|path| Trace::begin(path, transport.rank())).transpose()?;
    let out = args.folder(config);
    let result = match &study {
        None => {
            tell_unused(std::slice::from_ref(&loaded), &*transport);
            if let Some(given) = args.given_run().filter(|given| transport.rank() == 0 && args.out.is_none() && **given != out) {
                let (given, out) = (given.display(), out.display());
                say(format_args!("a run like that in {given} begins in {out}; the same command with --resume goes on with that one"));
            }
            train(&loaded, &out, &args, &mut Told::default(), stop, transport.clone())
        }
        Some(study) => several(study, &out, load, &args, stop, transport.clone()),
    };
    if let Some(trace) = trace
        && result.as_ref().err().is_none_or(|error| Exit::of(error) == Exit::Stopped)
    {
        trace.write(&*transport)?;
    }
    result
}

/// Trains the runs of `study` in folders within `out`, one after another or `--jobs` at a time, and says what they came to. Collective.
fn several(
    study: &Study,
    out: &Path,
    load: impl Fn(&[String]) -> Result<Loaded>,
    args: &TrainArgs,
    stop: StopRequest,
    transport: Arc<dyn Transport>,
) -> Result<()> {
    let all = study.members(out);
    let loaded: Vec<Loaded> = all.iter().map(|member| load(&member.assignments)).collect::<Result<_>>()?;
    study.check(&all, &loaded)?;
    tell_unused(&loaded, &*transport);
    let members = study::part(all, args.array);
    let loaded = study::part(loaded, args.array);
    // Whatever is refused is refused before hours of training.
    for (member, Loaded { config, .. }) in members.iter().zip(&loaded) {
        find(&member.folder, args.resume, config, &*transport)?;
    }
    let ended = match args.jobs {
        Some(jobs) => {
            Told::default().tell_all(&loaded)?;
            let configs: Vec<Config> = loaded.iter().map(|loaded| loaded.config.clone()).collect();
            jobs::run(jobs, args, &members, &configs, &stop)?
        }
        None => {
            let mut told = Told::default();
            let one = |(member, loaded): (&Member, &Loaded)| {
                let trained = train(loaded, &member.folder, args, &mut told, stop.clone(), transport.clone());
                let ended = diverged(&member.folder, trained, &*transport)?;
                // SAFETY: the engine is gone, and with it all that used this memory.
                unsafe { transport.release_shared() };
                Ok(ended)
            };
            members.iter().zip(&loaded).map(one).collect::<Result<_>>()?
        }
    };
    if let Some(Loaded { config, .. }) = loaded.first().filter(|_| transport.rank() == 0) {
        study.report(config, &members, &ended)?;
    }
    study::settle(&members, &ended)
}

/// How one of several runs ended, where the next may follow. Of several ranks only those see a loss that is not finite whose samples have
/// it: the others are in a collective call of that step, which nobody can call off, so there it ends the job as in a single run.
fn diverged(folder: &Path, trained: Result<()>, transport: &dyn Transport) -> Result<Ended> {
    match trained {
        Err(error) if transport.size() == 1 && Exit::of(&error) == Exit::NotFinite => {
            log::warn!("{}: {error:#}", folder.display());
            Ok(Ended::Diverged)
        }
        trained => trained.map(|()| Ended::Done),
    }
}

/// Trains one run in `out`, from its beginning or from where it stopped. Collective.
fn train(loaded: &Loaded, out: &Path, args: &TrainArgs, told: &mut Told, stop: StopRequest, transport: Arc<dyn Transport>) -> Result<()> {
    let config = &loaded.config;
    let Start { mut folder, resumed, over } = find(out, args.resume, config, &*transport)?;
    if over {
        if folder.is_some() {
            resumed.iter().for_each(|state| told.tell(loaded, state.steps_per_epoch as usize));
            // It may have been killed between its last checkpoint and the removal of those before.
            let best = Best::read(out)?.map(|best| best.step);
            Checkpoints::of(out).prune(config.training.keep_checkpoints, best.as_slice());
            say(format_args!("{} is finished; more training.epochs or training.max_steps would go on", out.display()));
        }
        return Ok(());
    }

    let splits = open(config)?;
    agree(&given(&splits), &*transport)?;
    let facts = facts(&splits);
    let plan = Plan::new(config, &facts, transport.size())?;
    memory::refuse_too_large(&plan, config, &*transport)?;
    let steps_per_epoch = batches_per_epoch(splits.train.len(), config.data.batch_size);
    if folder.is_some() {
        told.tell(loaded, steps_per_epoch);
    }
    let schedule = Schedule::new(config, steps_per_epoch);
    let initial = if resumed.is_none() { Initial::open(config, &plan.maps)? } else { None };
    let fingerprint = initial.as_ref().map(|initial| initial.fingerprint.clone());
    if let Some(fingerprint) = &fingerprint {
        agree(&Facts::default().with("the content of learning.initial (checksum of its parameters)", fingerprint), &*transport)?;
    }
    match &resumed {
        // Rank 0 alone needs the file of a run that goes on.
        Some(state) => {
            state.refuse_other_data(&splits, steps_per_epoch as u64)?;
            if transport.rank() == 0 {
                state.refuse_other_initial(config, &plan.maps)?;
            }
        }
        None if args.resume && transport.rank() == 0 => say(format_args!("nothing to resume in {}: the run begins", out.display())),
        None => {}
    }

    let share = cpus::take(&*transport, config.parallel.threads_per_rank)?;
    let mut engine = Engine::new(config, &plan.network, transport.clone(), share.threads)?;
    let hosts = exchange::host_names(&*transport);
    if let Some(folder) = &mut folder {
        let mut about = training::about();
        about["hosts"] = json!(hosts);
        about["world_size"] = json!(transport.size());
        about["threads_per_rank"] = json!(engine.threads());
        about["kernels"] = json!(engine.kernels());
        about["steps_per_epoch"] = json!(steps_per_epoch);
        about["data"] = json!({ "train": splits.train.about(), "test": splits.test.as_ref().map(|test| test.about()) });
        folder.begin(config, about)?;
        room::warn_of_little(folder.path(), &plan)?;
        say(settings(config, &splits, &plan, &schedule, &engine, &share, &hosts, folder.path(), resumed.as_ref()));
    }
    match &resumed {
        Some(state) => {
            let checkpoints = Checkpoints::of(out);
            checkpoints.load_model(state.step, &mut engine, &*transport)?;
            checkpoints.load_optimizer(state, &mut engine, &*transport)?;
        }
        None => engine.initialize_with(|engine| initial.as_ref().map_or(Ok(()), |initial| initial.write(engine, &*transport)))?,
    }
    let run = Run { config, schedule, splits: &splits, folder, out, resumed: resumed.as_ref(), initial: fingerprint, trial: args.trial };
    Trainer::new(run, engine, transport, stop)?.run()
}

/// Where a run stands when it is started.
struct Start {
    /// On rank 0.
    folder: Option<RunFolder>,
    resumed: Option<State>,
    over: bool,
}

/// Looks on rank 0, and tells all. Collective.
fn find(out: &Path, resume: bool, config: &Config, transport: &dyn Transport) -> Result<Start> {
    let mut folder = None;
    let mut message = Vec::new();
    if transport.rank() == 0 {
        let (found, state) = RunFolder::find(out, resume, config)?;
        let over = state.as_ref().map_or(Ok(false), |state| found.is_over(config, state))?;
        message = serde_json::to_vec(&(state, over))?;
        folder = Some(found);
    }
    transport.broadcast(&mut message);
    let (resumed, over) = serde_json::from_slice(&message)?;
    Ok(Start { folder, resumed, over })
}

/// The data sets of `config`.
pub(super) fn open(config: &Config) -> Result<Splits> {
    let (train, validation) = DataSet::open_train(&config.data, config.experiment.seed)?;
    let test = DataSet::open_test(&config.data, train.trained())?;
    Ok(Splits { train, validation, test })
}

/// What all ranks must have been given of data. The samples set apart for validation follow from data.train and the configuration.
fn given(splits: &Splits) -> Facts {
    let facts = Facts::default().with_data("data.train", &splits.train);
    match &splits.test {
        Some(test) => facts.with_data("data.test", test),
        None => facts,
    }
}

pub(super) fn facts(splits: &Splits) -> DataFacts {
    let validation = splits.validation.as_ref().map_or(0, |data| data.len());
    DataFacts {
        input: splits.train.input_shape(),
        classes: splits.train.classes(),
        train: Some(splits.train.len() + validation),
        test: splits.test.as_ref().map(|data| data.len()),
    }
}

/// The settings that a person wants to see before the first step.
#[allow(clippy::too_many_arguments)]
fn settings(
    config: &Config,
    splits: &Splits,
    plan: &Plan,
    schedule: &Schedule,
    engine: &Engine,
    share: &Share,
    hosts: &[String],
    out: &Path,
    resumed: Option<&State>,
) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    let from = resumed.map_or(String::new(), |state| format!(", from step {} on", state.step));
    row("run", format!("{}{from}", out.display()));
    let layers: Vec<String> = (0..plan.network.depth()).map(|layer| plan.network.describe(layer)).collect();
    let output = if config.network.output == Output::Softmax { "softmax" } else { "linear" };
    row("network", format!("{} | {} | {output}", plan.network.input, layers.join(" | ")));
    let turns = match (config.trains_inverses(), config.schedule()) {
        (false, _) => "",
        (true, Turns::Parallel) => ", parallel",
        (true, Turns::Alternating) => ", alternating",
    };
    row("rule", format!("{}{turns}", config.learning.rule.name()));
    let sum = |group: Group| plan.maps.all.iter().filter(|map| map.group() == group).map(|map| map.parameters() as u64).sum::<u64>();
    let parameters: Vec<String> = [
        ("forward", sum(Group::Forward)),
        ("inverse", sum(Group::Inverse)),
        ("feedback", sum(Group::Feedback)),
        ("not trained", sum(Group::NotTrained)),
    ]
    .into_iter()
    .filter(|(_, number)| *number > 0)
    .map(|(name, number)| format!("{name} {}", grouped(number)))
    .collect();
    row("parameters", parameters.join(", "));
    let data = &config.data;
    let (samples, batch, steps) = (splits.train.len(), data.batch_size, schedule.steps_per_epoch());
    row("data", format!("{} samples, {} step{} of {batch} an epoch", grouped(samples as u64), grouped(steps as u64), plural(steps)));
    row("length", format!("{} step{}", grouped(schedule.last_step()), plural(schedule.last_step() as usize)));
    let (ranks, threads) = (plan.ranks, engine.threads());
    let mut machines: Vec<&str> = hosts.iter().map(String::as_str).collect();
    machines.dedup();
    let machines = if machines.len() > 4 { format!("{} hosts", machines.len()) } else { machines.join(", ") };
    row("processes", format!("{ranks} rank{} x {threads} thread{} of {} CPUs on {machines}", plural(ranks), plural(threads), share.cpus));
    let exchange = match plan.exchange {
        Sharing::None => String::new(),
        _ if engine.device_memory().is_some() => format!(", exchange by {}", plan.ways_between_gpus()),
        Sharing::Activities => ", exchange by activities".to_owned(),
        Sharing::Gradients => ", exchange by gradients".to_owned(),
    };
    row("kernels", format!("{}{exchange}", engine.kernels()));
    row("memory", format!("{}B for all ranks of one host", scaled(plan.host_memory() as f64)));
    table(&rows, 2)
}
