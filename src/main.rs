//! `biodist`: see the library.

use std::process::ExitCode;

use biodist::cli::Cli;
use biodist::job;

fn main() -> ExitCode {
    match Cli::read() {
        Ok(cli) => job::end(cli.run()),
        Err(code) => code,
    }
}
