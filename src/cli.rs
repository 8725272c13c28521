//! The command line.

use std::process::ExitCode;

use anyhow::Result;
use biodist_process::arguments;
use biodist_process::last_word::LastWord;
use biodist_process::speech::{self, Stream};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::agreement::{self, Facts};
use crate::commands::{bench, check, configs, eval, keys, report, sweep, train};
use crate::exit::Exit;
use crate::rules::{self, Definition};
use crate::training::StopRequest;
use crate::{job, versions};

/// The whole program: does what the command line says, and returns the process's exit code.
///
/// `rules` are known to every command beside those that are built in; docs/own_rules.md shows a program with one of its own.
pub fn main(rules: &'static [&'static Definition]) -> ExitCode {
    rules::add(rules);
    shards::install_fault_handler("biodist");
    biodist_process::signals::survive_limit_on_files();
    match Cli::read() {
        Ok(cli) => job::end(cli.run()),
        Err(code) => code,
    }
}

/// The command line that [`main`] reads, for manual pages and completions.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Train networks with biologically motivated learning rules, on one process or many
///
/// Start it alone, or under mpirun for several processes: `mpirun -n 8 biodist train imagenet_dtp.toml`.
#[derive(Debug, Parser)]
#[command(name = "biodist", version = versions::text())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Train(train::TrainArgs),
    Eval(eval::EvalArgs),
    Sweep(sweep::SweepArgs),
    Check(check::CheckArgs),
    Configs(configs::ConfigsArgs),
    Keys(keys::KeysArgs),
    Report(report::ReportArgs),
    /// Measure speed
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

impl Command {
    fn name(&self) -> &'static str {
        match self {
            Command::Train(_) => "train",
            Command::Eval(_) => "eval",
            Command::Sweep(_) => "sweep",
            Command::Check(_) => "check",
            Command::Configs(_) => "configs",
            Command::Keys(_) => "keys",
            Command::Report(_) => "report",
            Command::Bench(_) => "bench",
        }
    }
}

impl Cli {
    /// The command line as typed; an error is help to show, with the exit code that it leads to.
    fn read() -> Result<Cli, ExitCode> {
        Cli::try_parse().map_err(|error| {
            // Every rank has the same command line, and one answer is enough.
            if job::speaks() {
                let objects = error.kind() == ErrorKind::InvalidUtf8;
                match arguments::shown(&error.render().to_string(), std::env::args_os(), objects) {
                    Some(message) => speech::speak(Stream::Err, message),
                    None => drop(error.print()),
                }
                if error.exit_code() != 0 {
                    speech::speak(Stream::Err, LastWord::line(Exit::Usage, 0, "the command line"));
                }
            } else if error.exit_code() != 0 {
                job::await_first_word();
            }
            ExitCode::from(error.exit_code() as u8)
        })
    }

    /// Does what was asked.
    fn run(self) -> Result<()> {
        // Before what takes seconds: a request to stop means code 75 from the first moment.
        let stop = match self.command {
            Command::Train(_) | Command::Sweep(_) => StopRequest::listen()?,
            _ => StopRequest::default(),
        };
        let transport = job::connect()?;
        stop.started();
        let program = format!("{} (commit {})", versions::CRATE, versions::COMMIT);
        let facts = Facts::default().with("the version of biodist", program).with("the command", self.command.name());
        agreement::agree(&facts, &*transport)?;
        match self.command {
            Command::Train(args) => train::run(args, stop, transport),
            Command::Eval(args) => eval::run(args, transport),
            Command::Sweep(args) => sweep::run(args, stop, transport),
            Command::Bench(command) => bench::run(command, transport),
            // What one rank does for all.
            _ if transport.rank() > 0 => Ok(()),
            Command::Check(args) => check::run(args),
            Command::Configs(args) => configs::run(&args),
            Command::Keys(args) => keys::run(&args),
            Command::Report(args) => report::run(&args),
        }
    }
}
