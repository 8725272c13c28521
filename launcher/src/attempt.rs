//! One start of mpirun, from its first line to its end, whether it ends by itself or has to be ended.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use biodist_process::last_word::LAUNCH;
use biodist_process::speech::{self, Lines, Stream};
use biodist_process::{signals, start, threads};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::ending::Ending;
use crate::output::{Author, Journal, follow};
use crate::speech::say;

/// Between two requests to the ranks for a checkpoint and the end.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// After SIGTERM, Open MPI itself kills the ranks within two seconds.
const AFTER_TERM: Duration = Duration::from_secs(10);
/// mpirun ends a job within seconds of saying so, unless it waits for a host that it cannot reach: for a quarter of an hour, which is what
/// the system's TCP takes to give up data that nobody acknowledges. The ranks' watchdogs wait a little longer before they do the same.
const AFTER_ITS_WORD: Duration = Duration::from_secs(8);
/// How often mpirun's messages are looked at.
const GLANCE: Duration = Duration::from_millis(500);
/// mpirun's messages are shown when they are this old: by then it is known whether they are of the job's end.
const HOLD: Duration = Duration::from_secs(1);
/// A rank that nobody could end keeps its end of the pipes open; what it still says is not waited for longer than this.
const AFTER_EXIT: Duration = Duration::from_secs(2);

/// What the supervisor waits for.
pub enum Event {
    Signal(i32),
    Exited(ExitStatus),
}

/// The signals that mean "checkpoint and end", as events from now on. To be able to heed them, the launcher does not wait for whoever
/// reads what it says.
///
/// # Errors
/// Signal handlers, or a thread, that the system refuses.
pub fn listen() -> Result<(Sender<Event>, Receiver<Event>)> {
    speech::never_wait();
    let (sender, receiver) = channel();
    let mut signals = signal_hook::iterator::Signals::new(signals::requests()).context("cannot handle signals")?;
    let for_signals = sender.clone();
    threads::spawn("signals", move || {
        for signal in &mut signals {
            if for_signals.send(Event::Signal(signal)).is_err() {
                break;
            }
        }
    })?;
    Ok((sender, receiver))
}

/// How one attempt is run.
pub struct Attempt<'a> {
    pub line: &'a [OsString],
    pub variables: &'a [(&'static str, String)],
    pub launch_id: &'a str,
    pub logs: Option<PathBuf>,
    /// How long the ranks may take for a checkpoint after a request to stop.
    pub grace: Duration,
    pub sender: &'a Sender<Event>,
    pub events: &'a Receiver<Event>,
}

/// How it went.
pub struct Outcome {
    pub ending: Ending,
    /// The rank that is held responsible, or rank 0 where mpirun names none.
    pub speaker: usize,
    /// What it wrote last, oldest line first.
    pub last_words: Vec<String>,
    /// Why the logs are not whole, where they are not.
    pub log_error: Option<String>,
}

impl Attempt<'_> {
    /// Runs to the end. `sweep` is called when mpirun is gone, to end what it left.
    ///
    /// # Errors
    /// mpirun cannot be started, there is no place for the logs, or no thread to follow mpirun, which then ends with this process.
    pub fn run(&self, sweep: impl FnOnce(i32)) -> Result<Outcome> {
        let journal = Arc::new(Mutex::new(Journal::new(self.logs.clone())?));
        let started = Instant::now();
        let mut child = self.start()?;
        let process = child.id().cast_signed();
        let followers = [
            follow(child.stdout.take().context("stdout is piped")?, Lines(Stream::Out), Arc::clone(&journal))?,
            follow(child.stderr.take().context("stderr is piped")?, Lines(Stream::Err), Arc::clone(&journal))?,
        ];
        let sender = self.sender.clone();
        threads::spawn("mpirun", move || {
            if let Ok(status) = child.wait() {
                let _ = sender.send(Event::Exited(status));
            }
        })?;
        let says_it_ends = || {
            let Ok(mut journal) = journal.lock() else { return false };
            let ends = journal.recent(Author::Mpirun).any(announces_the_end);
            if !ends {
                speech::speak(Stream::Err, journal.release(HOLD));
            }
            ends
        };
        let (status, stop_requested) = self.supervise(process, says_it_ends)?;
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(1);
        let mut ending = Ending { code, stop_requested, lasted: started.elapsed(), signal: status.signal(), ..Ending::default() };
        sweep(code);
        let deadline = Instant::now() + AFTER_EXIT;
        while !followers.iter().all(|follower| follower.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut journal = journal.lock().map_err(|_| anyhow!("a thread that follows mpirun's output has failed"))?;
        journal.recent(Author::Mpirun).for_each(|line| ending.note(line));
        journal.words().iter().for_each(|word| ending.hear(word));
        ending.settle();
        if !ending.is_understood() {
            speech::speak(Stream::Err, journal.release(Duration::ZERO));
        }
        let speaker = ending.rank.unwrap_or(0);
        let last_words: Vec<String> = journal.recent(Author::Rank(speaker)).map(str::to_owned).collect();
        last_words.iter().for_each(|line| ending.note_of_rank(line));
        Ok(Outcome { ending, speaker, last_words, log_error: journal.file_error().map(str::to_owned) })
    }

    /// mpirun in a process group of its own, so that Ctrl-C reaches the launcher alone; it ends with the launcher.
    fn start(&self) -> Result<Child> {
        let mut command = Command::new(&self.line[0]);
        command.args(&self.line[1..]).envs(self.variables.iter().map(|(name, value)| (name, value))).env(LAUNCH, self.launch_id);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let started = start::end_with_parent(start::as_no_rank(&mut command), SIGTERM).spawn();
        started.map_err(|error| match error.kind() {
            ErrorKind::NotFound => anyhow!("mpirun is not on the PATH; install Open MPI, or load your cluster's module"),
            _ => anyhow!("mpirun cannot be started: {error}"),
        })
    }

    /// Waits for the end of mpirun; a request to stop is passed on, then enforced. Returns whether there was one.
    fn supervise(&self, process: libc::pid_t, says_it_ends: impl Fn() -> bool) -> Result<(ExitStatus, bool)> {
        let mut escalation = Escalation::Running;
        let mut requested = false;
        loop {
            let event = match escalation.deadline() {
                None => self.events.recv_timeout(GLANCE),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.events.recv_timeout(if matches!(escalation, Escalation::Asked(_)) { left.min(ASK_AGAIN) } else { left })
                }
            };
            match event {
                Ok(Event::Exited(status)) => return Ok((status, requested)),
                Ok(Event::Signal(signal)) => {
                    requested = true;
                    if let Some(next) = escalation.on_signal(signal, self.grace) {
                        escalation = next;
                        escalation.act(process);
                    }
                }
                Err(RecvTimeoutError::Timeout) if escalation == Escalation::Running => {
                    if says_it_ends() {
                        escalation = Escalation::Ending(Instant::now() + AFTER_ITS_WORD);
                    }
                }
                Err(RecvTimeoutError::Timeout) if escalation.deadline().is_some_and(|deadline| Instant::now() < deadline) => {
                    // mpirun drops what comes before it has started the ranks.
                    escalation.signal(process);
                }
                Err(RecvTimeoutError::Timeout) => {
                    escalation = escalation.on_timeout();
                    escalation.act(process);
                }
                Err(RecvTimeoutError::Disconnected) => return Err(anyhow!("mpirun cannot be waited for")),
            }
        }
    }
}

/// How far a request to stop has gone; each stage has until its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escalation {
    Running,
    /// Not asked: mpirun ends the job by itself.
    Ending(Instant),
    Asked(Instant),
    Terminated(Instant),
    Killed,
}

impl Escalation {
    fn deadline(self) -> Option<Instant> {
        match self {
            Escalation::Ending(deadline) | Escalation::Asked(deadline) | Escalation::Terminated(deadline) => Some(deadline),
            Escalation::Running | Escalation::Killed => None,
        }
    }

    /// The first signal asks for a checkpoint. A second Ctrl-C or SIGTERM does not want to wait for it; SIGUSR1 may come any number of
    /// times, and SIGHUP does so where a terminal is closed.
    fn on_signal(self, signal: i32, grace: Duration) -> Option<Escalation> {
        let insists = matches!(signal, SIGINT | SIGTERM);
        match self {
            Escalation::Running => Some(Escalation::Asked(Instant::now() + grace)),
            Escalation::Ending(_) if insists => Some(Escalation::Killed),
            Escalation::Asked(_) if insists => Some(Escalation::Terminated(Instant::now() + AFTER_TERM)),
            Escalation::Terminated(_) if insists => Some(Escalation::Killed),
            _ => None,
        }
    }

    fn on_timeout(self) -> Escalation {
        match self {
            Escalation::Asked(_) => Escalation::Terminated(Instant::now() + AFTER_TERM),
            _ => Escalation::Killed,
        }
    }

    fn act(self, process: libc::pid_t) {
        let what = match self {
            Escalation::Running | Escalation::Ending(_) => return,
            Escalation::Asked(_) => "asked the ranks for a checkpoint and the end; a second Ctrl-C or SIGTERM does not wait for it",
            Escalation::Terminated(_) => "ending mpirun",
            Escalation::Killed => "mpirun does not end by itself; killing it",
        };
        self.signal(process);
        say(what);
    }

    fn signal(self, process: libc::pid_t) {
        let signal = match self {
            Escalation::Running | Escalation::Ending(_) => return,
            Escalation::Asked(_) => libc::SIGUSR1,
            Escalation::Terminated(_) => libc::SIGTERM,
            Escalation::Killed => libc::SIGKILL,
        };
        // SAFETY: kill only takes numbers. The process is not waited for before the loop that calls this has ended, or has just ended,
        // and its number is not given to another one that soon.
        unsafe { libc::kill(process, signal) };
    }
}

/// Whether a line of mpirun's own says that it ends the job, in the words of Open MPI 4.
fn announces_the_end(line: &str) -> bool {
    ["the job has been aborted", "MPI_ABORT was invoked on rank", "exited on signal", "will terminate the job"]
        .iter()
        .any(|words| line.contains(words))
}

#[cfg(test)]
mod tests {
    use signal_hook::consts::{SIGHUP, SIGUSR1};

    use super::*;

    const GRACE: Duration = Duration::from_secs(100);

    #[test]
    fn the_end_is_announced_in_open_mpis_words() {
        let aborted = "a non-zero exit code. Per user-direction, the job has been aborted.";
        assert!(announces_the_end(aborted) && !announces_the_end("mpirun: Forwarding signal 10 to job"));
    }

    #[test]
    fn a_request_is_passed_on_and_then_enforced() {
        let asked = Escalation::Running.on_signal(SIGINT, GRACE).unwrap();
        assert!(matches!(asked, Escalation::Asked(deadline) if deadline > Instant::now() + GRACE / 2));
        assert_eq!((asked.on_signal(SIGUSR1, GRACE), asked.on_signal(SIGHUP, GRACE)), (None, None));
        let terminated = asked.on_signal(SIGTERM, GRACE).unwrap();
        assert!(matches!(terminated, Escalation::Terminated(_)));
        assert_eq!(terminated.on_signal(SIGINT, GRACE), Some(Escalation::Killed));
        assert!(matches!(asked.on_timeout(), Escalation::Terminated(_)));
        assert_eq!(terminated.on_timeout(), Escalation::Killed);
        let ending = Escalation::Ending(Instant::now());
        assert_eq!((ending.on_timeout(), ending.on_signal(SIGINT, GRACE)), (Escalation::Killed, Some(Escalation::Killed)));
        assert_eq!(ending.on_signal(SIGUSR1, GRACE), None, "it ends anyway");
        assert_eq!((Escalation::Running.deadline(), Escalation::Killed.deadline()), (None, None));
    }
}
