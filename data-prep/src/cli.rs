//! The command line of `data-prep`: what each subcommand is asked for, and what it prints.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use data_prep::manifest::Manifest;
use data_prep::prepare::{self, idx};

/// Prepare labelled images for training: shards that are checksummed, mapped into memory and opened in an instant.
#[derive(Parser)]
#[command(name = "data-prep", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// From idx files (MNIST and its relatives), gzipped or not, in file order
    Idx {
        /// Images: [N, H, W] or [N, H, W, C] of unsigned bytes
        #[arg(long, value_name = "FILE")]
        images: PathBuf,
        /// Labels: [N] of unsigned bytes
        #[arg(long, value_name = "FILE")]
        labels: PathBuf,
        /// Folder to create; the same command goes on where it was interrupted
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Number of classes [default: the largest label and one]
        #[arg(long, value_name = "N")]
        classes: Option<u32>,
        #[command(flatten)]
        shards: Shards,
    },
}

#[derive(clap::Args)]
struct Shards {
    /// Pixels per shard, in MiB
    #[arg(long, value_name = "MIB", default_value_t = prepare::SHARD_MIB, value_parser = clap::value_parser!(u32).range(1..=65536))]
    shard_mib: u32,
}

/// Runs the command line and gives the exit code: 0 done, 1 failed, 2 wrong usage.
pub fn run() -> ExitCode {
    data_prep::install_fault_handler();
    let result = match Cli::parse().command {
        Command::Idx { images, labels, out, classes, shards } => {
            idx::run(&idx::Options { images, labels, out: out.clone(), classes, shard_mib: shards.shard_mib })
                .and_then(|manifest| done(&manifest, &out))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where even stderr is closed.
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(data_prep::error::exit_code(&error))
        }
    }
}

fn done(manifest: &Manifest, out: &std::path::Path) -> Result<()> {
    let shape = manifest.shape.map_or("differing frames".to_owned(), |[h, w, c]| format!("{h} x {w} x {c}"));
    say(&format!("{}: {} samples of {shape}, {} classes", out.display(), manifest.samples, manifest.classes))
}

/// Prints a line; a reader that went away is no error.
fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
