//! `biodist eval`: how a run's checkpoint does on the run's test set.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use super::overrides::{Overrides, tell_unused};
use crate::agreement::{Facts, agree};
use crate::compute::{Measure, Of};
use crate::config::find::may_be_file;
use crate::config::{Config, Loaded, Output, Purpose};
use crate::cpus;
use crate::data::DataSet;
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::learner::Engine;
use crate::plan::{self, DataFacts};
use crate::training::{self, Best, Checkpoints, Evaluation, State, Sums, evaluate};
use crate::watch;

/// Evaluate a run's checkpoint on its test set
///
/// The checkpoint knows the classes and the scale of what it was trained on, and needs no data.train. Where the test set has moved, or for
/// another one: data.test=DIR.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Folder of the run
    run: PathBuf,
    /// Which checkpoint: the step of one, "last" (the newest that is whole), or "best" (lowest error on the validation set)
    #[arg(long, value_name = "STEP", default_value = "last")]
    checkpoint: Choice,
    #[command(flatten)]
    overrides: Overrides,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Step(u64),
    Last,
    Best,
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Choice, String> {
        match text {
            "last" => Ok(Choice::Last),
            "best" => Ok(Choice::Best),
            step => step.parse().map(Choice::Step).map_err(|_| "expected the step of a checkpoint, \"last\" or \"best\"".to_owned()),
        }
    }
}

/// Prints loss and errors over the whole test set. Collective.
pub fn run(args: EvalArgs, transport: Arc<dyn Transport>) -> Result<()> {
    let written = args.run.join(training::CONFIG);
    if !may_be_file(&written) {
        return Err(Exit::Usage.error(format!("{}: no run is there (it would have a {})", args.run.display(), training::CONFIG)));
    }
    let loaded = Loaded::read(&written, &args.overrides.all(), Purpose::Training)?;
    tell_unused(std::slice::from_ref(&loaded), &*transport);
    let config = loaded.config;
    agree(&Facts::default().with_config(&config).with("data.train", args.overrides.name("data.train").to_string()), &*transport)?;
    watch::watch(&transport, config.parallel.stall_timeout)?;
    if config.data.test.is_none() {
        return Err(Exit::Usage.error(format!(
            "{}: data.test is not set, so there is nothing to evaluate on; name a test set with --set data.test=DIR",
            written.display()
        )));
    }
    // Rank 0 chooses for all, and reads for all.
    let mut chosen = if transport.rank() == 0 { serde_json::to_vec(&choose(&args)?)? } else { Vec::new() };
    transport.broadcast(&mut chosen);
    let state: State = serde_json::from_slice(&chosen)?;
    if args.overrides.name("data.train") {
        let (train, _) = DataSet::open_train(&config.data, config.experiment.seed)?;
        state.refuse_other_training_data(&train)?;
    }
    // Another test set may be asked for by name; the run's own must be what it was.
    let own = !args.overrides.name("data.test");
    let Tested { sums, seconds, classifies, data } = on_test(config, &args.run, &state, own, transport.clone())?;
    if transport.rank() > 0 {
        return Ok(());
    }
    let (step, trained_with) = (state.step, state.identity.and_then(|identity| identity.test));
    if args.json {
        let mut line = json!({
            "run": args.run.to_string_lossy(), "checkpoint": step, "split": "test", "data": data,
            "samples": sums.samples,
        });
        for (measure, mean) in sums.means(classifies) {
            line[measure.key()] = json!(mean);
            if measure.of() == Of::Classified {
                line[format!("{}s", measure.key())] = json!(sums.sum(measure) as u64);
            }
        }
        line["seconds"] = json!(seconds);
        say(line);
        return Ok(());
    }
    say(format_args!("{}, checkpoint {}, on {} test samples:", args.run.display(), step, sums.samples));
    say(format_args!("loss         {:.6}", sums.mean(Measure::Loss)));
    if classifies {
        for (name, measure) in [("top-1", Measure::Top1Error), ("top-5", Measure::Top5Error)] {
            say(format_args!("{name} error  {:.2} % ({} wrong)", 100.0 * sums.mean(measure), sums.sum(measure)));
        }
    }
    say(format_args!("time         {seconds:.2} s"));
    if let Some(other) = trained_with.filter(|trained_with| *trained_with != data) {
        say(format_args!("note         another test set than the run's own: its shards' checksum is {data}, the run's is {other}"));
    }
    Ok(())
}

/// How a checkpoint did on a test set.
pub struct Tested {
    pub sums: Sums,
    pub seconds: f64,
    /// Whether labels are predicted, so that there are errors to count.
    pub classifies: bool,
    /// Stands for the content of the test set.
    pub data: String,
}

/// The checkpoint of `state`, one of the run in `run`, on the test set of `config`; with `own` that must be the run's own. The scale of the
/// pixels and the classes are the checkpoint's. Collective.
///
/// # Errors
/// Where `config` has no `data.test`, or is not the configuration that was trained with; where the data or the checkpoint cannot be used, or
/// the loss is not finite.
pub fn on_test(mut config: Config, run: &Path, state: &State, own: bool, transport: Arc<dyn Transport>) -> Result<Tested> {
    state.refuse_another_run(run, &config, false, &["experiment.name", "data.batch_size"])?;
    let written = run.join(training::CONFIG);
    let trained = state.trained(|| Ok(DataSet::open_train(&config.data, config.experiment.seed)?.0)).with_context(|| {
        format!("{}: this checkpoint is from before they kept what they were trained on, so data.train is needed", written.display())
    })?;
    let test = DataSet::open_test(&config.data, &trained)
        .with_context(|| format!("{} names a test set that cannot be used (eval --set data.test=DIR names another)", written.display()))?
        .context("data.test is not set")?;
    agree(&Facts::default().with_data("data.test", &test), &*transport)?;
    if own {
        state.refuse_other_test_data(&test, "give it back what it held, or name it by --set data.test=DIR to evaluate on other data")?;
    }
    let network = plan::network(&config, &DataFacts::of_shape(trained.input, trained.class_names.len()))?;
    // Any number of ranks will do: batches are not of training's size.
    config.data.batch_size = config.data.batch_size.next_multiple_of(transport.size());
    config.training.diagnostics = false;
    let share = cpus::take(&*transport, config.parallel.threads_per_rank)?;
    let mut engine = Engine::new(&config, &network, transport.clone(), share.threads)?;
    Checkpoints::of(run).load_model(state.step, &mut engine, &*transport)?;
    let evaluation = evaluate(&mut engine, &test, &*transport, || false)?.expect("nothing stops it");
    let data = format_args!("the test set, of checkpoint {} in {},", state.step, run.display());
    let Evaluation { sums, seconds } = evaluation.of_finite_loss(data, "an earlier checkpoint may do (eval --checkpoint STEP)")?;
    Ok(Tested { sums, seconds, classifies: config.network.output == Output::Softmax, data: test.fingerprint() })
}

fn choose(args: &EvalArgs) -> Result<State> {
    let checkpoints = Checkpoints::of(&args.run);
    match args.checkpoint {
        Choice::Step(step) => checkpoints.verified(step),
        Choice::Best => checkpoints.verified(Best::required(&args.run)?.step),
        Choice::Last => checkpoints.newest()?.ok_or_else(|| Exit::Usage.error(format!("{} has no checkpoint yet", args.run.display()))),
    }
}
