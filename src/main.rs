//! `biodist`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    biodist::cli::main(&[])
}
