//! `biodist eval`: how a run's checkpoint does on the run's test set.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::json;

use crate::config::{Config, Output};
use crate::cpus;
use crate::data::DataSet;
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::observe::watchdog;
use crate::plan::{self, DataFacts};
use crate::training::{self, Checkpoints, Engine, evaluate};

/// Evaluate a run's checkpoint on its test set
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Folder of the run
    run: PathBuf,
    /// Step of the checkpoint [default: the newest that is whole]
    #[arg(long, value_name = "STEP")]
    checkpoint: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Prints loss and errors over the whole test set. Collective.
pub fn run(args: EvalArgs, transport: Arc<dyn Transport>) -> Result<()> {
    let written = args.run.join(training::CONFIG);
    if !written.exists() {
        return Err(Exit::Usage.error(format!("{}: no run is there (it would have a {})", args.run.display(), training::CONFIG)));
    }
    let mut config = Config::load(&written, &[])?;
    watchdog::watch(&transport, config.parallel.stall_timeout)?;
    let checkpoints = Checkpoints::of(&args.run);
    // Rank 0 chooses for all, and reads for all.
    let step = if transport.rank() == 0 { choose(&args, &checkpoints)? } else { 0 };
    let step = transport.all_gather_words(&[step])[0];
    let (train, _) = DataSet::open_train(&config.data, config.experiment.seed)?;
    let Some(test) = DataSet::open_test(&config.data, &train)? else {
        return Err(Exit::Usage.error(format!("{}: data.test is not set, so there is nothing to evaluate on", written.display())));
    };
    let facts = DataFacts::of_shape(train.input_shape(), train.classes());
    let network = plan::network(&config, &facts)?;
    // Any number of ranks will do: batches are not of training's size.
    config.data.batch_size = config.data.batch_size.next_multiple_of(transport.size());
    let share = cpus::take(&*transport, config.parallel.threads_per_rank)?;
    let mut engine = Engine::new(&config, &network, transport.clone(), share.threads)?;
    checkpoints.load_model(step, &mut engine, &*transport)?;
    let evaluation = evaluate(&mut engine, &test, &*transport, || false)?.expect("nothing stops it");
    if transport.rank() > 0 {
        return Ok(());
    }
    let (sums, seconds) = (evaluation.sums, evaluation.seconds);
    let classifies = config.network.output == Output::Softmax;
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

fn choose(args: &EvalArgs, checkpoints: &Checkpoints) -> Result<u64> {
    let state = match args.checkpoint {
        Some(step) => checkpoints.verified(step)?,
        None => checkpoints.newest()?.ok_or_else(|| Exit::Usage.error(format!("{} has no checkpoint yet", args.run.display())))?,
    };
    Ok(state.step)
}
