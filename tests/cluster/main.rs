//! Real clusters on one machine: hosts with networks of their own, and a Slurm of two nodes. As root, with iproute2, openssh-server,
//! slurm-wlm and munge: `make test-cluster` installs them and runs this; `make test` leaves it out.

mod host;
mod hosts;
#[path = "../end_to_end/site.rs"]
#[allow(dead_code)]
mod site;
mod slurm;
#[path = "../end_to_end/spans.rs"]
#[allow(dead_code)]
mod spans;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The launcher that was built beside the program.
pub fn launcher() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_biodist")).with_file_name("biodist-launch");
    assert!(path.exists(), "{} is not built: cargo build --release --workspace", path.display());
    path
}

/// What a command that must succeed prints.
pub fn output(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
