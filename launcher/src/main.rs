//! `biodist-launch`: from a host file or a Slurm allocation to a supervised mpirun.
//!
//! mpirun alone starts biodist just as well. What this adds: hosts are checked before anything is sent to them, lost connections are
//! noticed, the output of each rank is kept, and a run goes on from its last checkpoint, without the host that failed.

#![deny(clippy::undocumented_unsafe_blocks)]

use std::process::ExitCode;

use biodist_process::exit::Exit;
use biodist_process::speech::{Stream, speak};
use biodist_process::{arguments, ranks};
use clap::Parser;
use clap::error::ErrorKind;

mod attempt;
mod cli;
mod command;
mod ending;
mod hosts;
mod launch;
mod mpirun;
mod output;
mod placement;
mod question;
mod remote;
mod resources;
mod slurm;
mod speech;

fn main() -> ExitCode {
    biodist_process::signals::survive_limit_on_files();
    // Where it was started several times, which is refused, one answer is enough.
    let speaks = ranks::told_rank() == 0;
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            if speaks {
                let objects = error.kind() == ErrorKind::InvalidUtf8;
                match arguments::shown(&error.render().to_string(), std::env::args_os(), objects) {
                    Some(message) => speak(Stream::Err, message),
                    None => drop(error.print()),
                }
            }
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let code = launch::run(&cli).unwrap_or_else(|error| {
        if speaks {
            speech::say(&format!("{error:#}"));
        }
        Exit::of(&error) as u8
    });
    biodist_process::speech::finish();
    ExitCode::from(code)
}
