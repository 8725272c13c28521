//! A launch from its first start to its last report: what is started, what a failure leads to, and on which hosts it goes on.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use biodist_process::{leftovers, ranks, start};

use crate::attempt::{Attempt, Event, Outcome, listen};
use crate::cli::Cli;
use crate::command;
use crate::ending::{Ending, NOT_FINITE, STOPPED, USAGE};
use crate::mpirun::{self, Job, Reach};
use crate::placement::{Share, largest_divisor, place, total};
use crate::remote::{self, Agent};
use crate::resources;
use crate::slurm;
use crate::speech::say;
use biodist_process::exit::Exit;

/// Between a failure and the next start: GPUs and ports of dead processes become free.
const PAUSE: Duration = Duration::from_secs(2);
/// Lines of the rank that failed which the last report repeats.
const LAST_WORDS: usize = 10;

/// Does what the command line asks for; returns the exit code.
///
/// # Errors
/// Hosts that are not understood or cannot be used, an mpirun that cannot be started.
pub fn run(cli: &Cli) -> Result<u8> {
    let variable = |name: &str| std::env::var(name).ok();
    if cli.arguments()[0] == "biodist" {
        return Err(Exit::Usage.error("leave the word biodist out: biodist-launch train CONFIG"));
    }
    refuse_copies(variable)?;
    let gpus = cli.gpus.map(|count| count as usize);
    let resources = resources::find(cli.hosts.as_deref(), cli.ranks, gpus, variable)?;
    let shares = place(&resources.slots, cli.ranks)?;
    let launcher = std::env::current_exe().ok();
    let job = Job {
        shares,
        program: mpirun::program(cli.program.as_deref(), launcher.as_deref())?,
        arguments: cli.arguments().to_vec(),
        folder: std::env::current_dir().context("cannot find out the working folder")?,
        variables: cli.env.clone(),
        reach: resources.reach,
        cpus: std::thread::available_parallelism().map_or(1, usize::from),
    };
    let variables = mpirun::own_variables(start::is_root(), resources.tasks_per_node);
    if cli.dry_run {
        command::refuse_unknown(&job.program, &job.arguments)?;
        let left_over: String = ranks::variables().iter().map(|name| format!(" -u {name}")).collect();
        let without = if left_over.is_empty() { String::new() } else { format!("env{left_over} ") };
        let line = mpirun::quoted(&variables, &mpirun::command_line(&job, &environment()));
        writeln!(std::io::stdout(), "{without}{line}").context("the standard output cannot be written")?;
        return Ok(0);
    }
    leftovers::remove();
    let (sender, events) = listen()?;
    let name = format!("{}-{}", local_time(), std::process::id());
    let logs = std::path::absolute(&cli.log_dir).context("cannot find out the folder for logs")?.join(&name);
    let agent = if resources.reach == Reach::Slurm { Agent::of_slurm() } else { Agent::from_environment(variable) };
    let mut launch = Launch { cli, job, slots: resources.slots, variables, logs, id: name, agent, sender, events };
    launch.check_hosts()?;
    // Hosts may have been asked for a while.
    if launch.stop_requested(Duration::ZERO) {
        say("stopped on request before anything was started");
        return Ok(STOPPED as u8);
    }
    launch.run()
}

struct Launch<'a> {
    cli: &'a Cli,
    job: Job,
    /// The hosts that are left.
    slots: Vec<Share>,
    variables: Vec<(&'static str, String)>,
    logs: PathBuf,
    id: String,
    agent: Agent,
    sender: Sender<Event>,
    events: Receiver<Event>,
}

impl Launch<'_> {
    /// Every host must be there at the first start: fewer than asked for would be a surprise.
    fn check_hosts(&self) -> Result<()> {
        let unusable = self.unusable_hosts();
        if unusable.is_empty() {
            return Ok(());
        }
        if self.job.reach == Reach::Local {
            return Err(Exit::Usage.error(unusable[0].1.clone()));
        }
        let reasons: Vec<String> = unusable.iter().map(|(host, reason)| format!("{host}: {reason}")).collect();
        Err(anyhow!("cannot start on every host\n  {}", reasons.join("\n  ")))
    }

    fn unusable_hosts(&self) -> Vec<(String, String)> {
        match self.job.reach {
            Reach::Ssh => remote::unusable(&self.agent, &names(&self.job.shares), &self.job.folder, &self.job.program[0]),
            Reach::Slurm => slurm::lost_nodes(&names(&self.job.shares)),
            Reach::Local => remote::unusable(&self.agent, &["localhost".to_owned()], &self.job.folder, &self.job.program[0]),
        }
    }

    /// After a failure. Slurm itself takes minutes to miss a node (its SlurmdTimeout), in which every restart would be lost: where it
    /// misses none, a node that a step cannot be started on is lost too. Unless that is so of all, which is another fault.
    fn lost_hosts(&self) -> Vec<(String, String)> {
        let known = self.unusable_hosts();
        if self.job.reach != Reach::Slurm || !known.is_empty() {
            return known;
        }
        let asked = names(&self.job.shares);
        let silent = remote::unusable(&self.agent, &asked, &self.job.folder, &self.job.program[0]);
        if silent.len() < asked.len() { silent } else { known }
    }

    fn run(&mut self) -> Result<u8> {
        let wanted = total(&self.job.shares);
        let mut restarts = 0;
        let mut failed_at_once = false;
        loop {
            let logs = self.logs.join(format!("attempt-{}", restarts + 1));
            say(&format!("{} on {}; logs in {}", ranks(total(&self.job.shares)), places(&self.job.shares), logs.display()));
            let mut outcome = self.start(&logs)?;
            // Slurm and its nodes are asked instead, see `slurm::lost_nodes`.
            if self.job.reach == Reach::Slurm {
                outcome.ending.lost_hosts.clear();
            }
            let ending = &outcome.ending;
            if !ending.is_worth_a_restart() || !command::is_training(&self.job.arguments) {
                self.report(&outcome, restarts, None, &logs);
                return Ok(ending.exit_code());
            }
            let hindrance = if ending.hindrance.is_some() && self.lost_hosts().is_empty() {
                Some("that has to be mended first".to_owned())
            } else if restarts == self.cli.max_restarts {
                Some(format!("--max-restarts is {restarts}"))
            } else if ending.failed_at_once() && failed_at_once {
                Some("it failed at once twice".to_owned())
            } else {
                say(&ending.describe());
                failed_at_once = ending.failed_at_once();
                let stopped = self.stop_requested(PAUSE);
                let hindrance = match stopped {
                    true => None,
                    false => self.go_on_with_what_is_left(wanted, &ending.lost_hosts).err().map(|error| format!("{error:#}")),
                };
                // Hosts may have been asked for a while.
                if stopped || self.stop_requested(Duration::ZERO) {
                    say("stopped on request before it was started again");
                    return Ok(STOPPED as u8);
                }
                hindrance
            };
            if let Some(reason) = hindrance {
                self.report(&outcome, restarts, Some(&reason), &logs);
                return Ok(ending.exit_code());
            }
            restarts += 1;
            say(&format!("restart {restarts} of {} from the last complete checkpoint", self.cli.max_restarts));
        }
    }

    fn start(&self, logs: &Path) -> Result<Outcome> {
        let line = mpirun::command_line(&self.job, &environment());
        let attempt = Attempt {
            line: &line,
            variables: &self.variables,
            launch_id: &self.id,
            logs: Some(logs.to_path_buf()),
            grace: Duration::from_secs(self.cli.grace),
            sender: &self.sender,
            events: &self.events,
        };
        attempt.run(|code| self.sweep(code))
    }

    /// Ends what mpirun left behind, which it does only when it fails itself or loses a host.
    fn sweep(&self, code: i32) {
        if matches!(code, 0 | USAGE | STOPPED | NOT_FINITE) {
            return;
        }
        let hosts = match self.job.reach {
            Reach::Ssh | Reach::Slurm => names(&self.job.shares),
            Reach::Local => vec!["localhost".to_owned()],
        };
        let swept = remote::sweep(&self.agent, &hosts, &self.id);
        if swept > 0 {
            say(&format!("ended processes that were left on {swept} of {} hosts", hosts.len()));
        }
    }

    /// Whether a signal has come, or comes within `pause`.
    fn stop_requested(&self, pause: Duration) -> bool {
        matches!(self.events.recv_timeout(pause), Ok(Event::Signal(_)))
    }

    /// Makes the job the one to start next: resumed, on the same ranks where every host is there, else on the largest number that the
    /// remaining hosts hold and that divides the global batch.
    fn go_on_with_what_is_left(&mut self, wanted: usize, lost: &[String]) -> Result<()> {
        let unusable = self.lost_hosts();
        unusable.iter().for_each(|(host, reason)| say(&format!("{host} is lost: {reason}")));
        let before = self.slots.len();
        self.slots.retain(|slot| !lost.contains(&slot.host) && !unusable.iter().any(|(host, _)| *host == slot.host));
        if self.slots.len() < before {
            let most = wanted.min(total(&self.slots));
            if most == 0 {
                return Err(anyhow!("no host is left"));
            }
            let batch_size = command::batch_size(&self.job.program, &self.job.arguments)?;
            let count = largest_divisor(batch_size, most).context("the batch is empty")?;
            self.job.shares = place(&self.slots, Some(count))?;
        }
        self.job.arguments = command::resumed(&self.job.arguments);
        Ok(())
    }

    fn report(&self, outcome: &Outcome, restarts: u32, not_restarted: Option<&str>, logs: &Path) {
        let Outcome { ending, speaker, last_words, log_error } = outcome;
        let mut lines = vec![ending.describe()];
        match restarts {
            0 => {}
            1 => lines[0].push_str(", after 1 restart"),
            _ => lines[0].push_str(&format!(", after {restarts} restarts")),
        }
        if let Some(reason) = not_restarted {
            lines[0].push_str(&format!("; not started again: {reason}"));
        }
        if !matches!(ending.code, 0 | STOPPED) {
            // A rank that has said why it ends has just been heard.
            if ending.word.is_none() && !last_words.is_empty() {
                lines.push(format!("last lines of rank {speaker}:"));
                lines.extend(last_words[last_words.len().saturating_sub(LAST_WORDS)..].iter().map(|line| format!("  {line}")));
            }
            lines.push(format!("logs: {}", logs.display()));
        }
        lines.extend(log_error.iter().map(|error| format!("the logs are not whole: {error}")));
        if can_go_on(ending) && command::is_training(&self.job.arguments) {
            let mut again: Vec<OsString> = std::env::args_os().collect();
            again.truncate(again.len() - self.cli.arguments().len());
            again.extend(command::resumed(self.cli.arguments()));
            lines.push(format!("to go on from the last complete checkpoint: {}", mpirun::quoted(&[], &again)));
        }
        say(&lines.join("\n  "));
    }
}

/// Refuses to be one of several launchers that srun or mpirun has started: each would start a job of its own.
fn refuse_copies(variable: impl Fn(&str) -> Option<String>) -> Result<()> {
    let Some(launcher) = ranks::launcher() else { return Ok(()) };
    let (size, remedy) = match launcher.name.as_str() {
        "slurmstepd" => ("SLURM_STEP_NUM_TASKS", "start it once, in the batch script itself"),
        _ => ("OMPI_COMM_WORLD_SIZE", "start it without: it starts mpirun itself"),
    };
    let copies = variable(size).and_then(|copies| copies.parse::<usize>().ok()).unwrap_or(1);
    let name = if launcher.name == "slurmstepd" { "srun" } else { &launcher.name };
    if copies > 1 { Err(Exit::Usage.error(format!("biodist-launch was started several times by {name}; {remedy}"))) } else { Ok(()) }
}

/// Whether the same command, resumed, is what to do next, or after what hinders a rank that had begun.
fn can_go_on(ending: &Ending) -> bool {
    !matches!(ending.code, 0 | USAGE | NOT_FINITE) && (ending.hindrance.is_none() || ending.signal.is_some())
}

fn names(shares: &[Share]) -> Vec<String> {
    shares.iter().map(|share| share.host.clone()).collect()
}

fn ranks(count: usize) -> String {
    if count == 1 { "1 rank".to_owned() } else { format!("{count} ranks") }
}

fn places(shares: &[Share]) -> String {
    shares.iter().map(|share| format!("{} ({})", share.host, share.count)).collect::<Vec<_>>().join(", ")
}

/// The launcher's own environment, without names that are not text.
fn environment() -> Vec<(String, OsString)> {
    let mut all: Vec<_> = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    all.sort();
    all
}

/// The local time as `20180712-125350`.
fn local_time() -> String {
    let mut text = [0u8; 32];
    // SAFETY: every pointer is to a value that lives here, and the length is the buffer's; a null time is not passed on.
    let length = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        libc::localtime_r(&now, &mut parts);
        libc::strftime(text.as_mut_ptr().cast(), text.len(), c"%Y%m%d-%H%M%S".as_ptr(), &parts)
    };
    String::from_utf8_lossy(&text[..length]).into_owned()
}
