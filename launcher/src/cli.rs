//! The command line of the launcher: its own options, then biodist's subcommand and everything after it, untouched.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Starts biodist on the hosts of a host file, of a Slurm allocation, or on this machine, and starts it again from the last checkpoint
/// when a process or a host fails.
///
/// SIGUSR1, SIGTERM, Ctrl-C and a closed terminal (SIGHUP, unless started with nohup) ask the ranks for a checkpoint and the end (exit
/// code 75). The exit code is that of the rank that ended
/// first, 76 where a host is lost, and 128 + N where signal N killed a rank.
#[derive(Debug, Parser)]
#[command(name = "biodist-launch", version, max_term_width = 120, disable_help_subcommand = true)]
#[command(
    override_usage = "biodist-launch [OPTIONS] COMMAND...\n       biodist-launch --hosts hosts/two_nodes.txt train imagenet_dtp.toml"
)]
#[command(subcommand_value_name = "COMMAND...", subcommand_help_heading = "Command")]
pub struct Cli {
    /// Hosts to run on, in Open MPI's syntax ("node1 slots=4" a line). Without it: the Slurm allocation, else this machine
    #[arg(long, value_name = "FILE")]
    pub hosts: Option<PathBuf>,
    /// Processes in all; by default as many as the hosts have slots
    #[arg(long, value_name = "N")]
    pub ranks: Option<usize>,
    /// Processes on a host whose line has no slots=; by default the host's GPUs, or 1 where there is none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub gpus: Option<u32>,
    /// How often a `train` that failed is started again, from its last complete checkpoint
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub max_restarts: u32,
    /// Folder for the output of each rank, a new folder in it for each start
    #[arg(long, value_name = "DIR", default_value = "logs")]
    pub log_dir: PathBuf,
    /// Seconds that the ranks have for their last checkpoint when asked to end
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(..=604_800))]
    pub grace: u64,
    /// A variable for every rank, beside LD_LIBRARY_PATH, RUST_*, OMP_NUM_THREADS, NCCL_*, UCX_*, FI_* and BIODIST_*, which are passed on
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// What starts biodist, such as "apptainer exec --nv biodist.sif biodist"; by default the one beside biodist-launch
    #[arg(long, value_name = "WORDS")]
    pub program: Option<String>,
    /// Print mpirun's command line instead of running it
    #[arg(long)]
    pub dry_run: bool,
    #[command(subcommand)]
    pub command: Biodist,
}

/// What biodist is to do; its own help has the details.
#[derive(Debug, Subcommand)]
pub enum Biodist {
    #[command(external_subcommand)]
    Command(Vec<OsString>),
}

impl Cli {
    /// biodist's subcommand and its arguments.
    pub fn arguments(&self) -> &[OsString] {
        let Biodist::Command(words) = &self.command;
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_subcommand_is_biodists() {
        let cli = Cli::try_parse_from(["biodist-launch", "--ranks", "4", "train", "a.toml", "--out", "x", "--ranks", "-3"]).unwrap();
        assert_eq!(cli.ranks, Some(4));
        assert_eq!(cli.arguments(), ["train", "a.toml", "--out", "x", "--ranks", "-3"]);
    }

    #[test]
    fn the_launchers_own_options_are_checked() {
        let error = |words: &[&str]| Cli::try_parse_from([&["biodist-launch"], words].concat()).unwrap_err().to_string();
        assert!(error(&["--host", "f", "train"]).contains("--hosts"), "the nearest option is named");
        assert!(error(&["--ranks", "many", "train"]).contains("many"));
        assert!(error(&[]).contains("Usage"));
    }
}
