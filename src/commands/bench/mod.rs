//! `biodist bench`: measurements of this machine.

mod machine;
mod step;

use std::sync::Arc;

use anyhow::Result;

use crate::exchange::Transport;

#[derive(Debug, clap::Subcommand)]
pub enum BenchCommand {
    Step(step::StepArgs),
}

pub fn run(command: BenchCommand, transport: Arc<dyn Transport>) -> Result<()> {
    match command {
        BenchCommand::Step(args) => step::run(args, transport),
    }
}
