//! `biodist bench`: measurements of this machine.

mod collectives;
mod machine;
mod plot;
mod scaling;
mod step;

use std::sync::Arc;

use anyhow::Result;

use crate::exchange::Transport;

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    Step(step::StepArgs),
    Scaling(scaling::ScalingArgs),
    Collectives(collectives::CollectivesArgs),
}

pub fn run(command: BenchCommand, transport: Arc<dyn Transport>) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args, transport),
        BenchCommand::Scaling(args) => scaling::run(args, &*transport),
        BenchCommand::Collectives(args) => collectives::run(args, transport),
    }
}
