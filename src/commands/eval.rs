//! `biodist eval`: how a run's checkpoint does on the run's test set.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use crate::config::{Config, Output};
use crate::cpus;
use crate::data::DataSet;
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::observe::watchdog;
use crate::plan::{self, DataFacts};
use crate::training::{self, Best, Checkpoints, Engine, Evaluation, evaluate};

/// Evaluate a run's checkpoint on its test set
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Folder of the run
    run: PathBuf,
    /// Which checkpoint: the step of one, "last" (the newest that is whole), or "best" (lowest error on the validation set)
    #[arg(long, value_name = "STEP", default_value = "last")]
    checkpoint: Choice,
    /// Override a key, for instance --set 'data.test="data/mnist/test"' where the data have moved
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
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
    if !written.exists() {
        return Err(Exit::Usage.error(format!("{}: no run is there (it would have a {})", args.run.display(), training::CONFIG)));
    }
    let config = Config::load(&written, &args.set)?;
    watchdog::watch(&transport, config.parallel.stall_timeout)?;
    if config.data.test.is_none() {
        return Err(Exit::Usage.error(format!("{}: data.test is not set, so there is nothing to evaluate on", written.display())));
    }
    // Rank 0 chooses for all, and reads for all.
    let step = if transport.rank() == 0 { choose(&args)? } else { 0 };
    let step = transport.all_gather_words(&[step])[0];
    let evaluation = on_test(config, &args.run, step, transport.clone())?;
    if transport.rank() > 0 {
        return Ok(());
    }
    let (Evaluation { sums, seconds }, classifies) = evaluation;
    if args.json {
        let mut line = json!({
            "run": args.run, "checkpoint": step, "split": "test", "samples": sums.samples, "loss": sums.mean(sums.loss),
        });
        if classifies {
            for (name, count) in [("top1", sums.top1_error), ("top5", sums.top5_error)] {
                line[format!("{name}_error")] = json!(sums.mean(count));
                line[format!("{name}_errors")] = json!(count as u64);
            }
        }
        line["seconds"] = json!(seconds);
        say(line);
        return Ok(());
    }
    say(format_args!("{}, checkpoint {}, on {} test samples:", args.run.display(), step, sums.samples));
    say(format_args!("loss         {:.6}", sums.mean(sums.loss)));
    if classifies {
        for (name, count) in [("top-1", sums.top1_error), ("top-5", sums.top5_error)] {
            say(format_args!("{name} error  {:.2} % ({count} wrong)", 100.0 * sums.mean(count)));
        }
    }
    say(format_args!("time         {seconds:.2} s"));
    Ok(())
}

/// The checkpoint of `step` of the run in `run` on the test set of `config`, and whether it classifies. Collective.
///
/// # Errors
/// Where `config` has no `data.test`, or the data or the checkpoint cannot be used.
pub fn on_test(mut config: Config, run: &Path, step: u64, transport: Arc<dyn Transport>) -> Result<(Evaluation, bool)> {
    let moved =
        || format!("{} names data that cannot be used (eval --set data.train=DIR names others)", run.join(training::CONFIG).display());
    let (train, _) = DataSet::open_train(&config.data, config.experiment.seed).with_context(moved)?;
    let test = DataSet::open_test(&config.data, &train).with_context(moved)?.context("data.test is not set")?;
    let facts = DataFacts::of_shape(train.input_shape(), train.classes());
    let network = plan::network(&config, &facts)?;
    // Any number of ranks will do: batches are not of training's size.
    config.data.batch_size = config.data.batch_size.next_multiple_of(transport.size());
    let share = cpus::take(&*transport, config.parallel.threads_per_rank)?;
    let mut engine = Engine::new(&config, &network, transport.clone(), share.threads)?;
    Checkpoints::of(run).load_model(step, &mut engine, &*transport)?;
    let evaluation = evaluate(&mut engine, &test, &*transport, || false)?.expect("nothing stops it");
    Ok((evaluation, config.network.output == Output::Softmax))
}

fn choose(args: &EvalArgs) -> Result<u64> {
    let checkpoints = Checkpoints::of(&args.run);
    let state = match args.checkpoint {
        Choice::Step(step) => checkpoints.verified(step)?,
        Choice::Best => checkpoints.verified(Best::required(&args.run)?.step)?,
        Choice::Last => checkpoints.newest()?.ok_or_else(|| Exit::Usage.error(format!("{} has no checkpoint yet", args.run.display())))?,
    };
    Ok(state.step)
}
