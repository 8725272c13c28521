//! `biodist bench`: measurements of this machine.

mod collectives;
mod loader;
pub mod machine;
mod scaling;
mod step;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::commands::image::{ImageShape, parse_classes};
use crate::commands::overrides::Overrides;
use crate::exchange::Transport;

/// The steps that are timed.
#[derive(Debug, clap::Args)]
struct Training {
    /// Configuration: a file, the name of one that comes with the program, or the folder of a run; it needs no data and no epochs
    config: PathBuf,
    /// Image as the network sees it
    #[arg(long, value_name = "HxWxC")]
    input: ImageShape,
    /// Number of classes
    #[arg(long, value_name = "K", value_parser = parse_classes)]
    classes: Option<usize>,
    /// Steps to time, after one that is not
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    #[command(flatten)]
    overrides: Overrides,
    /// Print one JSON object, as the last line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    Step(step::StepArgs),
    Scaling(scaling::ScalingArgs),
    Collectives(collectives::CollectivesArgs),
    Loader(loader::LoaderArgs),
}

pub fn run(command: BenchCommand, transport: Arc<dyn Transport>) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args, transport),
        BenchCommand::Scaling(args) => scaling::run(args, &*transport),
        BenchCommand::Collectives(args) => collectives::run(args, transport),
        BenchCommand::Loader(args) => loader::run(args, &*transport),
    }
}
