//! `biodist-launch`: from a host file or a Slurm allocation to a supervised mpirun.
//!
//! mpirun alone starts biodist just as well. What this adds: hosts are checked before anything is sent to them, lost connections are
//! noticed, the output of each rank is kept, and a run goes on from its last checkpoint, without the host that failed.

use std::process::ExitCode;

use clap::Parser;

mod attempt;
mod cli;
mod command;
mod ending;
mod hosts;
mod launch;
mod mpirun;
mod output;
mod placement;
mod remote;
mod resources;
mod slurm;
mod speech;
mod usage;

fn main() -> ExitCode {
    let code = launch::run(&cli::Cli::parse()).unwrap_or_else(|error| {
        speech::say(&format!("{error:#}"));
        usage::exit_code(&error)
    });
    speech::finish();
    ExitCode::from(code)
}
