//! Heartbeats between hosts: small messages by TCP, beside MPI and not by it, since MPI may be what is stuck.
//!
//! Rank 0's host listens. Every rank elsewhere sends the heartbeats that it sees on its own host; back come ticks, so that the loss of rank 0
//! is noticed too, and the verdict. Nothing here waits: what is not ready is tried again at the next tick.
//!
//! Whoever connects must know a number that rank 0 drew and told by MPI, as other jobs and port scanners are about. Who does not know it
//! must not do harm either: rank 0 listens where its hosts talk to each other, and only until all ranks are there; strangers are few, the
//! oldest making room for new ones, and have a few seconds for the 32 bytes that they are listened to.

mod addresses;
mod channel;
#[cfg(test)]
mod tests;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

pub use self::addresses::TOLD;
use self::channel::{Becomes, Channel, Stranger, bytes, words};
use crate::host;
use crate::observe::heartbeat::Reading;

/// An address that does not answer within this is tried again later.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a rank waits for rank 0's answer where it is connected, and rank 0 for what a stranger has to say.
const PATIENCE: Duration = Duration::from_secs(3);
/// Strangers at a time. A rank that makes room for them tries again.
const STRANGERS: usize = 32;
/// Connections taken at a time: a flood of them must not keep the watchdog from its ranks.
const AT_A_TIME: usize = 64;
/// Times that a rank tries each address at which nobody takes its connection, and where somebody does, a flood of strangers may be.
const TRIES: usize = 2;
const TRIES_IN_A_FLOOD: usize = 50;

/// Where rank 0 can be reached, as it travels by MPI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    token: u64,
    addresses: Vec<SocketAddr>,
}

impl Invitation {
    pub fn to_bytes(&self) -> Vec<u8> {
        let addresses: Vec<String> = self.addresses.iter().map(SocketAddr::to_string).collect();
        format!("{} {}", self.token, addresses.join(" ")).into_bytes()
    }

    /// None where rank 0 could not listen.
    pub fn of_bytes(bytes: &[u8]) -> Option<Invitation> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ');
        let token = words.next()?.parse().ok()?;
        let addresses: Vec<SocketAddr> = words.filter_map(|word| word.parse().ok()).collect();
        (!addresses.is_empty()).then_some(Invitation { token, addresses })
    }
}

/// This host's addresses, as they travel to rank 0.
pub fn own_addresses() -> [u64; TOLD] {
    addresses::to_words(&addresses::own().unwrap_or_default())
}

/// Rank 0's side.
pub struct Hub {
    listeners: Vec<TcpListener>,
    token: u64,
    /// Ranks that are to connect.
    expected: usize,
    strangers: Vec<Stranger>,
    /// Connections of ranks.
    channels: Vec<(Channel, usize)>,
}

impl Hub {
    /// Listens for `expected` ranks at ports that the system chooses, where this host talks to the others, of which `others` are the
    /// addresses as [`own_addresses`] gives them.
    pub fn listen(expected: usize, others: &[u64]) -> Result<(Hub, Invitation)> {
        let own = addresses::own()?;
        let mut at = addresses::towards(&own, others);
        if at.is_empty() {
            log::info!("no interface of {} is known to lead to the other hosts: it listens for their watchdogs at all", host::name());
            at.push(Ipv4Addr::UNSPECIFIED);
        }
        Hub::listen_at(expected, &own, &at)
    }

    fn listen_at(expected: usize, own: &[Ipv4Addr], at: &[Ipv4Addr]) -> Result<(Hub, Invitation)> {
        let mut listeners = Vec::new();
        let mut invited = Vec::new();
        for address in at {
            let listener = TcpListener::bind((*address, 0)).context("no port can be listened at")?;
            listener.set_nonblocking(true)?;
            let port = listener.local_addr()?.port();
            let reached = if address.is_unspecified() { own } else { std::slice::from_ref(address) };
            invited.extend(reached.iter().map(|address| SocketAddr::V4(SocketAddrV4::new(*address, port))));
            listeners.push(listener);
        }
        let token = random()?;
        let hub = Hub { listeners, token, expected, strangers: Vec::new(), channels: Vec::new() };
        Ok((hub, Invitation { token, addresses: invited }))
    }

    /// Sends a tick to all and hands the readings that have arrived to `note`; returns the ranks whose connections have closed.
    pub fn exchange(&mut self, mut note: impl FnMut(Reading)) -> Vec<usize> {
        for _ in 0..AT_A_TIME {
            let new: Vec<TcpStream> = self.listeners.iter().filter_map(|listener| Some(listener.accept().ok()?.0)).collect();
            if new.is_empty() {
                break;
            }
            // One that fails at once will try again.
            new.into_iter().filter_map(|stream| Stranger::new(stream).ok()).for_each(|stranger| self.meet(stranger, &mut note));
            let too_many = self.strangers.len().saturating_sub(STRANGERS);
            self.strangers.drain(..too_many);
        }
        for stranger in std::mem::take(&mut self.strangers) {
            self.meet(stranger, &mut note);
        }
        for (channel, _) in &mut self.channels {
            for message in channel.receive() {
                words(&message).as_chunks().0.iter().for_each(|words| note(Reading::of_words(*words)));
            }
            channel.send(&[]);
        }
        let gone = self.channels.iter().filter(|(channel, _)| channel.closed).map(|(_, rank)| *rank).collect();
        self.channels.retain(|(channel, _)| !channel.closed);
        if self.is_complete() {
            self.listeners.clear();
            self.strangers.clear();
        }
        gone
    }

    /// Listens to a stranger, who may be a rank.
    fn meet(&mut self, stranger: Stranger, note: &mut impl FnMut(Reading)) {
        match stranger.listen(self.token) {
            Becomes::Known(mut channel, rank) => {
                // From now on it is missed.
                note(Reading::of_rank(rank));
                channel.answer(self.token);
                // One that has connected again has given the connection before up.
                self.channels.retain(|(_, other)| *other != rank);
                self.channels.push((channel, rank));
            }
            Becomes::Stranger(stranger) if stranger.since.elapsed() < PATIENCE => self.strangers.push(stranger),
            Becomes::Stranger(_) | Becomes::Nobody => {}
        }
    }

    /// Whether all ranks are there. A connection that closes later is its rank's end: nobody comes back.
    fn is_complete(&self) -> bool {
        self.listeners.is_empty() || self.channels.len() >= self.expected
    }

    /// Answers the ranks, which connect now, for as long as `patience` lets it.
    pub fn greet(&mut self, patience: Duration, mut note: impl FnMut(Reading)) {
        let started = Instant::now();
        while !self.is_complete() && started.elapsed() < patience {
            self.exchange(&mut note);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends the verdict to all, behind whatever is on its way.
    pub fn publish(&mut self, text: &str) {
        for (channel, _) in &mut self.channels {
            channel.flush();
            channel.send(text.as_bytes());
        }
    }
}

/// Any other rank's side.
pub struct Spoke {
    rank: usize,
    invitation: Invitation,
    /// Addresses tried so far, and those of them that took no connection.
    tried: usize,
    failed: usize,
    /// A connection, and since when there is one.
    channel: Option<(Channel, Instant)>,
    greeted: bool,
    /// Rank 0 has closed the connection: it has ended.
    pub ended: bool,
}

/// What a spoke has heard.
pub enum Heard {
    Nothing,
    Tick,
    Verdict(String),
}

impl Spoke {
    pub fn new(rank: usize, invitation: Invitation) -> Spoke {
        Spoke { rank, invitation, tried: 0, failed: 0, channel: None, greeted: false, ended: false }
    }

    /// Whether rank 0 has answered.
    pub fn is_connected(&self) -> bool {
        self.greeted
    }

    /// Whether every address was tried so often that a connection is unlikely.
    pub fn has_tried_all(&self) -> bool {
        let addresses = self.invitation.addresses.len();
        self.channel.is_none() && (self.failed >= TRIES * addresses || self.tried >= TRIES_IN_A_FLOOD * addresses)
    }

    /// Connects, and waits for the answer as long as `patience` lets it.
    pub fn greet(&mut self, patience: Duration) {
        let started = Instant::now();
        while !self.greeted && !self.has_tried_all() && started.elapsed() < patience {
            self.exchange(std::iter::empty());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends `readings`, and listens. Tries the next address where there is no connection; this alone may take a moment.
    pub fn exchange(&mut self, readings: impl Iterator<Item = Reading>) -> Heard {
        let Some((channel, since)) = &mut self.channel else {
            if !self.ended && !self.has_tried_all() {
                self.connect();
            }
            return Heard::Nothing;
        };
        if self.greeted {
            channel.send(&bytes(readings.flat_map(Reading::to_words)));
        } else {
            channel.flush();
        }
        let mut heard = Heard::Nothing;
        for message in channel.receive() {
            if self.greeted {
                heard = if message.is_empty() { Heard::Tick } else { Heard::Verdict(String::from_utf8_lossy(&message).into_owned()) };
            } else {
                self.greeted = Channel::is_answer(&message, self.invitation.token);
                heard = Heard::Tick;
            }
            if matches!(heard, Heard::Verdict(_)) {
                break;
            }
        }
        // What takes a connection and does not answer may be another's program at an address that both hosts have.
        let is_silent = !self.greeted && since.elapsed() >= PATIENCE;
        if channel.closed || is_silent {
            self.ended = self.greeted;
            self.channel = None;
        }
        heard
    }

    fn connect(&mut self) {
        let address = self.invitation.addresses[self.tried % self.invitation.addresses.len()];
        self.tried += 1;
        let Ok(mut channel) = TcpStream::connect_timeout(&address, CONNECT).and_then(Channel::new) else {
            self.failed += 1;
            return;
        };
        channel.greet(self.invitation.token, self.rank);
        self.channel = Some((channel, Instant::now()));
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom cannot be read")?;
    Ok(u64::from_le_bytes(bytes))
}
