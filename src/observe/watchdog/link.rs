//! Heartbeats between hosts: small messages by TCP, beside MPI and not by it, since MPI may be what is stuck.
//!
//! Rank 0's host listens. Every rank elsewhere sends the pulses that it sees on its own host; back come ticks, so that the loss of rank 0
//! is noticed too, and the verdict. Nothing here waits: what is not ready is tried again at the next tick. Whoever connects must know a
//! number that rank 0 drew and told by MPI, as other jobs and port scanners are about.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::observe::pulse::Reading;

/// First words of a connection, beside the token.
const HELLO: u64 = u64::from_le_bytes(*b"biodist1");
/// An address that does not answer within this is tried again later.
const CONNECT: Duration = Duration::from_secs(2);
/// Messages are far smaller; whoever sends more is no rank.
const LONGEST: usize = 1 << 20;

/// A TCP connection that carries messages of a kind and a body of words or text.
struct Channel {
    stream: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    closed: bool,
}

impl Channel {
    fn new(stream: TcpStream) -> std::io::Result<Channel> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Channel { stream, incoming: Vec::new(), outgoing: Vec::new(), closed: false })
    }

    /// Queues a message, unless the last one has not even left: the other side does not read, and heartbeats are not to pile up.
    fn send(&mut self, body: &[u8]) {
        if self.outgoing.is_empty() {
            self.outgoing.extend_from_slice(&(body.len() as u64).to_le_bytes());
            self.outgoing.extend_from_slice(body);
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.outgoing.is_empty() && !self.closed {
            match self.stream.write(&self.outgoing) {
                Ok(0) => self.closed = true,
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
    }

    /// The messages that have arrived whole.
    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        while !self.closed {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
        let mut messages = Vec::new();
        while let Some(head) = self.incoming.first_chunk::<8>() {
            let length = u64::from_le_bytes(*head) as usize;
            if length > LONGEST {
                self.closed = true;
                break;
            }
            let Some(body) = self.incoming.get(8..8 + length) else { break };
            messages.push(body.to_vec());
            self.incoming.drain(..8 + length);
        }
        messages
    }
}

fn bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
}

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

/// Rank 0's side.
pub struct Hub {
    listener: TcpListener,
    token: u64,
    /// A connection, and its rank once it has said the token.
    channels: Vec<(Channel, Option<usize>)>,
}

impl Hub {
    /// Listens at a port that the system chooses.
    pub fn listen() -> Result<(Hub, Invitation)> {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).context("no port can be listened at")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let token = random()?;
        let addresses = own_addresses()?.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Ok((Hub { listener, token, channels: Vec::new() }, Invitation { token, addresses }))
    }

    /// Sends a tick to all and hands the readings that have arrived to `note`; returns the ranks whose connections have closed.
    pub fn exchange(&mut self, mut note: impl FnMut(Reading)) -> Vec<usize> {
        while let Ok((stream, _)) = self.listener.accept() {
            // One that fails at once will try again.
            self.channels.extend(Channel::new(stream).map(|channel| (channel, None)));
        }
        let token = self.token;
        for (channel, rank) in &mut self.channels {
            for message in channel.receive() {
                let words = words(&message);
                match (&rank, words.as_slice()) {
                    (None, [HELLO, theirs, theirs_rank]) if *theirs == token => {
                        *rank = Some(*theirs_rank as usize);
                        // From now on it is missed.
                        note(Reading::of_rank(*theirs_rank as usize));
                        channel.send(&bytes([HELLO, token]));
                    }
                    (Some(_), readings) => readings.as_chunks().0.iter().for_each(|words| note(Reading::of_words(*words))),
                    _ => channel.closed = true,
                }
            }
            if rank.is_some() {
                channel.send(&[]);
            }
        }
        let gone = self.channels.iter().filter(|(channel, _)| channel.closed).filter_map(|(_, rank)| *rank).collect();
        self.channels.retain(|(channel, _)| !channel.closed);
        gone
    }

    /// Answers `expected` ranks, which connect now, for as long as `patience` lets it.
    pub fn greet(&mut self, expected: usize, patience: Duration, mut note: impl FnMut(Reading)) {
        let started = Instant::now();
        while self.channels.iter().filter(|(_, rank)| rank.is_some()).count() < expected && started.elapsed() < patience {
            self.exchange(&mut note);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends the verdict to all, behind whatever is on its way.
    pub fn publish(&mut self, text: &str) {
        for (channel, _) in self.channels.iter_mut().filter(|(_, rank)| rank.is_some()) {
            channel.flush();
            channel.send(text.as_bytes());
        }
    }
}

/// Any other rank's side.
pub struct Spoke {
    rank: usize,
    invitation: Invitation,
    /// Addresses tried so far.
    tried: usize,
    channel: Option<Channel>,
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
        Spoke { rank, invitation, tried: 0, channel: None, greeted: false, ended: false }
    }

    /// Whether rank 0 has answered.
    pub fn is_connected(&self) -> bool {
        self.greeted
    }

    /// Whether every address was tried so often that a connection is unlikely.
    pub fn has_tried_all(&self) -> bool {
        self.tried >= 2 * self.invitation.addresses.len()
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
        let Some(channel) = &mut self.channel else {
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
                self.greeted = words(&message) == [HELLO, self.invitation.token];
                heard = Heard::Tick;
            }
            if matches!(heard, Heard::Verdict(_)) {
                break;
            }
        }
        if channel.closed {
            self.ended = self.greeted;
            self.channel = None;
        }
        heard
    }

    fn connect(&mut self) {
        let address = self.invitation.addresses[self.tried % self.invitation.addresses.len()];
        self.tried += 1;
        let Ok(mut channel) = TcpStream::connect_timeout(&address, CONNECT).and_then(Channel::new) else { return };
        channel.send(&bytes([HELLO, self.invitation.token, self.rank as u64]));
        self.channel = Some(channel);
    }
}

fn random() -> Result<u64> {
    let mut bytes = [0; 8];
    std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("/dev/urandom cannot be read")?;
    Ok(u64::from_le_bytes(bytes))
}

/// The IPv4 addresses of this host's interfaces, the loopback's last.
fn own_addresses() -> Result<Vec<IpAddr>> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the list is walked as its manual says, and freed once.
    let mut addresses = Vec::new();
    unsafe {
        if libc::getifaddrs(&mut first) != 0 {
            return Err(std::io::Error::last_os_error()).context("this host's addresses cannot be listed");
        }
        let mut entry = first;
        while let Some(interface) = entry.as_ref() {
            if let Some(address) = interface.ifa_addr.as_ref()
                && i32::from(address.sa_family) == libc::AF_INET
            {
                let address = &*interface.ifa_addr.cast::<libc::sockaddr_in>();
                addresses.push(IpAddr::V4(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))));
            }
            entry = interface.ifa_next;
        }
        libc::freeifaddrs(first);
    }
    addresses.sort_by_key(IpAddr::is_loopback);
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Doing;

    /// Lets both sides talk until `done`.
    fn talk(hub: &mut Hub, spoke: &mut Spoke, mut done: impl FnMut(&Heard, &[Reading], &[usize]) -> bool) {
        for _ in 0..500 {
            let heard = spoke.exchange([Reading::example(3, Doing::Forward, Some(1), 8)].into_iter());
            let mut noted = Vec::new();
            let gone = hub.exchange(|reading| noted.push(reading));
            if done(&heard, &noted, &gone) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it does not happen");
    }

    #[test]
    fn readings_ticks_and_verdicts_arrive() {
        let (mut hub, invitation) = Hub::listen().unwrap();
        let invitation = Invitation::of_bytes(&invitation.to_bytes()).unwrap();
        let mut spoke = Spoke::new(3, invitation);
        // Known from the first word on, so that it is missed even where it stops right after.
        talk(&mut hub, &mut spoke, |_, noted, _| noted == [Reading::of_rank(3)]);
        talk(&mut hub, &mut spoke, |_, noted, _| noted == [Reading::example(3, Doing::Forward, Some(1), 8)]);
        talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Tick));
        hub.publish("rank 7 is stuck");
        talk(&mut hub, &mut spoke, |heard, _, _| matches!(heard, Heard::Verdict(text) if text == "rank 7 is stuck"));
        assert!(spoke.is_connected() && !spoke.ended);
        drop(hub);
        while !spoke.ended {
            spoke.exchange(std::iter::empty());
        }
    }

    #[test]
    fn a_spoke_that_ends_is_noticed() {
        let (mut hub, invitation) = Hub::listen().unwrap();
        let mut spoke = Spoke::new(3, invitation);
        talk(&mut hub, &mut spoke, |_, noted, _| !noted.is_empty());
        drop(spoke);
        for _ in 0..500 {
            if hub.exchange(|_| {}) == [3] {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("its end is not noticed");
    }

    #[test]
    fn strangers_are_turned_away() {
        let (mut hub, mut invitation) = Hub::listen().unwrap();
        invitation.token ^= 1;
        let mut spoke = Spoke::new(3, invitation.clone());
        let mut stranger = TcpStream::connect(invitation.addresses[0]).unwrap();
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        for _ in 0..200 {
            spoke.exchange(std::iter::empty());
            hub.exchange(|_| panic!("a stranger was believed"));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!spoke.is_connected());
        stranger.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let closed = match stranger.read(&mut [0; 8]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(closed, "the connection is closed");
    }
}
