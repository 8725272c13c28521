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
mod usage;

fn main() -> ExitCode {
    match launch::run(&cli::Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("biodist-launch: {error:#}");
            ExitCode::from(usage::exit_code(&error))
        }
    }
}
