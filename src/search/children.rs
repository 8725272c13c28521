//! The processes that train, each on CPUs of its own.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use biodist_process::files::read_regular;
use biodist_process::start;

use crate::cpus::{self, Part};
use crate::exit::Exit;
use crate::training::StopRequest;

/// What a process has of the machine.
#[derive(Clone, Debug)]
struct Slot {
    cpus: Part,
    /// As `CUDA_VISIBLE_DEVICES` names it.
    gpu: Option<String>,
}

impl Slot {
    /// Parts of the machine for `jobs` processes at a time. They take `gpus` GPUs in turn, of which several processes can share one.
    fn divide(jobs: usize, gpus: usize) -> Vec<Slot> {
        // Where the user shows only some of the GPUs, their numbers count among those.
        let shown = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let names: Vec<&str> = shown.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let gpu = |slot: usize| {
            let number = (gpus > 0).then(|| slot % gpus)?;
            Some(names.get(number).map_or(number.to_string(), |name| name.to_string()))
        };
        cpus::divide(jobs).into_iter().enumerate().map(|(slot, cpus)| Slot { cpus, gpu: gpu(slot) }).collect()
    }
}

/// How a trial's process ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    Diverged,
    /// Asked to stop; its checkpoint is written.
    Stopped,
    /// With what it said.
    Refused(String),
    Failed(String),
}

/// What is done in the processes.
pub trait Jobs {
    /// Starts `job` in a free slot of `children`.
    fn start(&mut self, children: &mut Children, slot: usize, job: usize) -> Result<()>;

    /// Takes down how `job` ended.
    fn ended(&mut self, job: usize, ended: Ended) -> Result<()>;
}

/// Processes that are running, in slots.
pub struct Children {
    slots: Vec<Slot>,
    /// By slot.
    running: Vec<Option<(usize, Child, PathBuf)>>,
}

/// Between two looks at the processes: far less than any trial takes.
const PAUSE: Duration = Duration::from_millis(20);

impl Children {
    /// None yet; `jobs` at a time divide this machine's CPUs and its `gpus`.
    pub fn new(jobs: usize, gpus: usize) -> Children {
        let slots = Slot::divide(jobs, gpus);
        let running = slots.iter().map(|_| None).collect();
        Children { slots, running }
    }

    /// Does `pending`, as many at a time as there are slots, until none is left or a request to stop has ended those that run; whether it has.
    pub fn run(&mut self, pending: impl IntoIterator<Item = usize>, stop: &StopRequest, jobs: &mut impl Jobs) -> Result<bool> {
        let mut pending = pending.into_iter();
        let mut stopped = false;
        loop {
            while let Some(slot) = self.free().filter(|_| !stopped && !stop.received())
                && let Some(job) = pending.next()
            {
                jobs.start(self, slot, job)?;
            }
            if self.idle() {
                return Ok(stopped || stop.received());
            }
            if stop.received() && !stopped {
                stopped = true;
                self.stop();
            }
            match self.poll()? {
                // Somebody stopped this process alone: the same command would start it again, so all stop.
                Some((_, Ended::Stopped)) if !stopped => {
                    stopped = true;
                    self.stop();
                }
                // A process that was asked to stop before it could listen, by this one or by Ctrl-C, which reaches all.
                Some((_, Ended::Failed(_))) if stopped || stop.received() => {}
                Some((job, ended)) => jobs.ended(job, ended)?,
                None => {}
            }
        }
    }

    /// A slot in which nothing runs.
    fn free(&self) -> Option<usize> {
        self.running.iter().position(Option::is_none)
    }

    fn idle(&self) -> bool {
        self.running.iter().all(Option::is_none)
    }

    /// Threads that a process in `slot` has CPUs for.
    pub fn threads(&self, slot: usize) -> usize {
        self.slots[slot].cpus.threads
    }

    /// Starts this program with `arguments` for trial `trial` in a free slot. What it says goes to `log`.
    pub fn start(&mut self, slot: usize, trial: usize, arguments: &[&OsStr], log: &Path) -> Result<()> {
        let program = std::env::current_exe().context("this program's file cannot be found")?;
        let out = OpenOptions::new().create(true).append(true).open(log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = Command::new(&program);
        command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        if let Some(gpu) = &self.slots[slot].gpu {
            command.env("CUDA_VISIBLE_DEVICES", gpu);
        }
        self.slots[slot].cpus.give(&mut command);
        // Of a process that outlives this one nobody would write down what it finds, and its folder would be busy when the sweep goes on.
        start::end_with_parent(start::as_no_rank(&mut command), libc::SIGKILL);
        let child = command.spawn().with_context(|| format!("{} cannot be started", program.display()))?;
        self.running[slot] = Some((trial, child, log.to_owned()));
        Ok(())
    }

    /// Asks all to write a checkpoint and end.
    fn stop(&self) {
        for (_, child, _) in self.running.iter().flatten() {
            // SAFETY: the number is that of a child that nobody has waited for.
            unsafe { libc::kill(child.id() as libc::pid_t, libc::SIGUSR1) };
        }
    }

    /// Waits a moment, and takes a process that has ended: its trial, and how.
    fn poll(&mut self) -> Result<Option<(usize, Ended)>> {
        for running in &mut self.running {
            let Some((trial, child, log)) = running else { continue };
            if let Some(status) = child.try_wait().context("a trial's process cannot be waited for")? {
                let ended = (*trial, how(status, log));
                *running = None;
                return Ok(Some(ended));
            }
        }
        std::thread::sleep(PAUSE);
        Ok(None)
    }
}

impl Drop for Children {
    /// An error must not leave processes behind.
    fn drop(&mut self) {
        for (_, child, _) in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn how(status: ExitStatus, log: &Path) -> Ended {
    const STOPPED: i32 = Exit::Stopped as i32;
    const NOT_FINITE: i32 = Exit::NotFinite as i32;
    const USAGE: i32 = Exit::Usage as i32;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ended::Done,
        (Some(NOT_FINITE), _) => Ended::Diverged,
        (Some(STOPPED), _) => Ended::Stopped,
        (Some(USAGE), _) => Ended::Refused(last_words(log)),
        (Some(code), _) => Ended::Failed(format!("exit code {code}: {}", last_words(log))),
        (None, signal) => Ended::Failed(format!("killed by signal {}", signal.unwrap_or(0))),
    }
}

/// The last error that the process reported.
fn last_words(log: &Path) -> String {
    let text = read_regular(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let said = text.lines().rev().filter_map(|line| line.strip_prefix("biodist: ")).find(|said| !said.starts_with("warn: "));
    said.map_or(format!("see {}", log.display()), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_a_process_is_no_warning() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("train.log");
        std::fs::write(&log, "biodist: a disk is full\nbiodist: warn: a host is gone\nother\n").unwrap();
        assert_eq!(last_words(&log), "a disk is full");
        std::fs::write(&log, "biodist: warn: a host is gone\n").unwrap();
        assert!(last_words(&log).starts_with("see "));
    }
}
