//! A thread on each rank that ends the job when it no longer moves, and says who holds it up.
//!
//! Collective operations cannot tell: they wait for ever, and all ranks but one look alike. So every rank's heartbeat lies where the ranks of its
//! host see it (`board`), and travels to rank 0 from other hosts (`link`). A rank that stops, in whatever it does, stops ticking; one that
//! lives and does not move is behind the others in the count of collective operations (`judge`). Each host's ranks look after each other,
//! rank 0 after all of them, and all after rank 0. Whoever reaches a verdict tells the others, and all end with the code of a stall,
//! without MPI, which may be what is stuck.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use biodist_process::ancestors::Process;
use biodist_process::{speech, threads};

use super::board::Board;
use super::judge::{Kind, Observations, StalledRank};
use super::link::{Heard, Hub, Invitation, Spoke};
use super::{guard, judge, link};
use crate::exchange::{self, Transport};
use crate::exit::Exit;
use crate::job;
use crate::observe::heartbeat;

/// How long ranks may take to reach rank 0 by TCP before training begins without.
const GREETING: Duration = Duration::from_secs(10);
/// Ranks that a verdict names; of more, it gives the number.
const NAMED: usize = 8;

/// Watches all ranks from now on, until the process ends: `limit` seconds without progress end the job. Collective.
pub fn watch(transport: &Arc<dyn Transport>, limit: f64) -> Result<()> {
    let board = Board::join(&**transport)?;
    let hosts = exchange::host_names(&**transport);
    let (rank, size) = (transport.rank(), transport.size());
    let sees_rank_0 = board.readings().any(|reading| reading.rank == 0);
    // Whether any rank must be told by TCP.
    let apart: u64 = transport.all_gather_words(&[u64::from(!sees_rank_0)]).into_iter().sum();
    let mut observations = Observations::default();
    let link = if apart > 0 { connect(&**transport, sees_rank_0, apart as usize, &mut observations) } else { Link::None };
    let interval = Duration::from_secs_f64((limit / 20.0).clamp(0.01, 1.0));
    let watch = Watch { limit, interval, rank, size, hosts, board, link, observations, now: 0.0, hub_at: 0.0 };
    threads::spawn("watchdog", move || watch.run())?;
    Ok(())
}

/// How this rank learns of those on other hosts.
enum Link {
    /// There are none, or this rank sees rank 0 without.
    None,
    Hub(Hub),
    Spoke(Spoke),
    /// Rank 0 cannot be reached but by MPI.
    Missing,
}

/// Collective.
fn connect(transport: &dyn Transport, sees_rank_0: bool, apart: usize, observations: &mut Observations) -> Link {
    let addresses = transport.all_gather_words(&link::own_addresses());
    let hub = if transport.rank() == 0 { Some(Hub::listen(apart, &addresses)) } else { None };
    let mut message = match &hub {
        Some(Ok((_, invitation))) => invitation.to_bytes(),
        _ => Vec::new(),
    };
    transport.broadcast(&mut message);
    let link = match (hub, Invitation::of_bytes(&message)) {
        (Some(Ok((mut hub, _))), _) => {
            hub.greet(GREETING, |reading| observations.note(reading, 0.0));
            Link::Hub(hub)
        }
        (Some(Err(error)), _) => {
            log::warn!("stalled ranks of other hosts will not be named: {error:#}");
            Link::Missing
        }
        (None, _) if sees_rank_0 => Link::None,
        (None, Some(invitation)) => {
            let mut spoke = Spoke::new(transport.rank(), invitation);
            spoke.greet(GREETING);
            Link::Spoke(spoke)
        }
        (None, None) => Link::Missing,
    };
    // None goes on, and perhaps stops, before the others know it.
    transport.barrier();
    link
}

struct Watch {
    limit: f64,
    interval: Duration,
    rank: usize,
    size: usize,
    hosts: Vec<String>,
    board: Board,
    link: Link,
    observations: Observations,
    /// Seconds that this thread has seen pass: time in which the whole job stood still, suspended, is nobody's fault.
    now: f64,
    /// When rank 0 was last heard of.
    hub_at: f64,
}

impl Watch {
    fn run(mut self) -> ! {
        let mut last = Instant::now();
        loop {
            std::thread::sleep(self.interval);
            let elapsed = last.elapsed().min(2 * self.interval);
            last = Instant::now();
            self.now += elapsed.as_secs_f64();
            heartbeat::tick();
            for reading in self.board.readings() {
                self.observations.note(reading, self.now);
            }
            let heard = self.exchange();
            if let Some(verdict) = self.board.verdict().or(heard).or_else(|| self.judge()) {
                self.end(&verdict);
            }
        }
    }

    /// Heartbeats with other hosts; the verdict where one arrives.
    fn exchange(&mut self) -> Option<String> {
        let Watch { link, observations, board, now, hub_at, .. } = self;
        match link {
            Link::None | Link::Missing => {}
            Link::Hub(hub) => {
                for rank in hub.exchange(|reading| observations.note(reading, *now)) {
                    observations.closed(rank);
                }
            }
            Link::Spoke(spoke) => {
                match spoke.exchange(board.readings()) {
                    Heard::Nothing => {}
                    Heard::Tick => *hub_at = *now,
                    Heard::Verdict(text) => return Some(text),
                }
                if !spoke.is_connected() && spoke.has_tried_all() {
                    log::warn!("rank 0 cannot be reached by TCP: a stall will be noticed, but not explained");
                    *link = Link::Missing;
                }
            }
        }
        None
    }

    fn judge(&self) -> Option<String> {
        let stalled = match &self.link {
            // All ranks are observed.
            Link::Hub(_) => self.observations.stalled(self.now, self.limit, self.size),
            Link::None if self.observations.ranks() == self.size => self.observations.stalled(self.now, self.limit, self.size),
            Link::None => self.observations.silent(self.now, self.limit),
            Link::Spoke(spoke) => {
                if spoke.is_connected() && !spoke.ended && self.now - self.hub_at >= self.limit {
                    let (host, silence) = (&self.hosts[0], self.now - self.hub_at);
                    return Some(format!(
                        "rank 0 on {host} has given no sign of life for {silence:.1} s: it was stopped, or the host or the network to it is lost"
                    ));
                }
                self.observations.silent(self.now, self.limit)
            }
            // Nobody else will say so; a rank that waits may have to wait for another's checkpoint.
            Link::Missing => {
                let seen = self.observations.get(self.rank)?;
                let silence = self.now - seen.moved_at;
                if silence < self.limit.max(judge::PATIENCE_WITH_CHECKPOINTS) {
                    return None;
                }
                return Some(format!(
                    "rank {} on {} has waited for {silence:.1} s in {}",
                    self.rank,
                    self.hosts[self.rank],
                    seen.reading.describe()
                ));
            }
        };
        if stalled.is_empty() { None } else { Some(self.accuse(&stalled)) }
    }

    fn accuse(&self, stalled: &[StalledRank]) -> String {
        let named: Vec<String> = stalled.iter().take(NAMED).map(|stalled| self.describe(stalled)).collect();
        let more = stalled.len().saturating_sub(NAMED);
        let more = if more > 0 { format!("; and {more} more ranks") } else { String::new() };
        let why = if stalled[0].kind == Kind::Waiting { "all ranks wait in one exchange, so the network may be down: " } else { "" };
        let waited_in = self.observations.waited_in(stalled).filter(|_| stalled[0].kind != Kind::Waiting);
        let others = waited_in.map_or(String::new(), |reading| format!("; the others wait in {}", reading.describe()));
        format!("{why}{}{more}{others}", named.join("; "))
    }

    fn describe(&self, stalled: &StalledRank) -> String {
        let StalledRank { reading, silence, kind } = stalled;
        let host = self.hosts.get(reading.rank).map_or("an unknown host", String::as_str);
        let who = format!("rank {} on {host}", reading.rank);
        let place = format!("step {}, {}", reading.step, reading.describe());
        match kind {
            Kind::Silent => {
                let on_this_host = self.board.readings().any(|other| other.rank == reading.rank);
                let state =
                    if on_this_host { process_state(reading.process) } else { "it was stopped, or its host or the network to it is lost" };
                format!("{who} has given no sign of life for {silence:.1} s ({state}); last seen in {place}")
            }
            Kind::Stuck | Kind::Waiting => format!("{who} has made no progress for {silence:.1} s in {place}"),
        }
    }

    /// Says what was found, lets the others do so, and ends this process.
    fn end(&mut self, verdict: &str) -> ! {
        // The reader of what this process says may be what holds it up.
        speech::never_wait();
        let is_first_here = self.board.publish(verdict);
        let limit = self.limit;
        let message =
            format!("stalled (parallel.stall_timeout = {limit} s): {verdict}. The job ends; --resume goes on from the last checkpoint");
        job::complain(self.rank, Exit::Stalled, &message, verdict);
        // Whoever ends first takes the others along: they must have read it by then, and their launcher what they say.
        let enough = Instant::now() + 4 * self.interval + Duration::from_millis(300);
        while Instant::now() < enough {
            if let Link::Hub(hub) = &mut self.link {
                hub.publish(verdict);
            }
            std::thread::sleep(self.interval / 4);
        }
        if is_first_here {
            guard::leave();
        }
        speech::finish();
        // SAFETY: the process ends, and with it whatever other threads are doing.
        unsafe { libc::_exit(Exit::Stalled as i32) }
    }
}

/// What the system says of a process of this host.
fn process_state(process: u64) -> &'static str {
    match u32::try_from(process).ok().and_then(Process::find).map(|process| process.state) {
        Some('T' | 't') => "its process was stopped, by SIGSTOP or a debugger",
        Some('D') => "its process waits for a disk or a device",
        Some('Z' | 'X') | None => "its process has ended",
        Some(_) => "its process does not get to run",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_of_processes_are_told_apart() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (process, number) = (u64::from(child.id()), child.id().cast_signed());
        let comes_to = |state: &str| {
            let deadline = Instant::now() + Duration::from_secs(10);
            while process_state(process) != state {
                assert!(Instant::now() < deadline, "{} instead of {state}", process_state(process));
            }
        };
        // Not at once: a program that is being loaded waits for the disk.
        comes_to("its process does not get to run");
        // SAFETY: kill only takes numbers.
        unsafe { libc::kill(number, libc::SIGSTOP) };
        comes_to("its process was stopped, by SIGSTOP or a debugger");
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process_state(process), "its process has ended");
    }
}
