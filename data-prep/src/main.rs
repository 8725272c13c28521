//! The `data-prep` command.

mod arguments;
mod commands;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("DATA_PREP_COMMIT"), ")");
    let matches = arguments::Arguments::command().version(VERSION).get_matches();
    match arguments::Arguments::from_arg_matches(&matches) {
        Ok(arguments) => commands::run(arguments),
        Err(error) => error.exit(),
    }
}
