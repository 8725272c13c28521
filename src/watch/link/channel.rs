//! Connections: of ranks, which carry messages, and of strangers, until they have said the token.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// First words of a connection, beside the token.
const HELLO: u64 = u64::from_le_bytes(*b"biodist1");
/// What a rank says first: the length of the rest, [`HELLO`], the token, and which rank it is.
const GREETING: usize = 4 * size_of::<u64>();
/// Messages are far smaller; whoever sends more is no rank.
pub const LONGEST: usize = 1 << 20;
/// Bytes that one look takes in at most: what a rank sends must not keep the watchdog from the others.
pub const AT_A_TIME: usize = 1 << 18;

/// A TCP connection that carries messages of a kind and a body of words or text.
pub struct Channel {
    stream: TcpStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    pub closed: bool,
}

impl Channel {
    pub fn new(stream: TcpStream) -> std::io::Result<Channel> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(Channel { stream, incoming: Vec::new(), outgoing: Vec::new(), closed: false })
    }

    /// Queues a message, unless the last one has not even left: the other side does not read, and heartbeats are not to pile up.
    pub fn send(&mut self, body: &[u8]) {
        if self.outgoing.is_empty() {
            self.outgoing.extend_from_slice(&(body.len() as u64).to_le_bytes());
            self.outgoing.extend_from_slice(body);
        }
        self.flush();
    }

    pub fn flush(&mut self) {
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

    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// The messages that have arrived whole, as far as one look goes.
    pub fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = [0; 16 * 1024];
        let mut taken = 0;
        while !self.closed && taken < AT_A_TIME {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(count) => {
                    self.incoming.extend_from_slice(&buffer[..count]);
                    taken += count;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.closed = true,
            }
        }
        let mut messages = Vec::new();
        let mut rest = self.incoming.as_slice();
        while let Some((head, body)) = rest.split_first_chunk::<8>() {
            let length = u64::from_le_bytes(*head);
            if length > LONGEST as u64 {
                self.closed = true;
                break;
            }
            let Some((body, after)) = body.split_at_checked(length as usize) else { break };
            messages.push(body.to_vec());
            rest = after;
        }
        let used = self.incoming.len() - rest.len();
        self.incoming.drain(..used);
        messages
    }

    /// Says who this is, as the first thing of all.
    pub fn greet(&mut self, token: u64, rank: usize) {
        self.send(&bytes([HELLO, token, rank as u64]));
    }

    /// Answers a greeting: whoever answers so is rank 0.
    pub fn answer(&mut self, token: u64) {
        self.send(&bytes([HELLO, token]));
    }

    /// Whether a message is that answer.
    pub fn is_answer(message: &[u8], token: u64) -> bool {
        message == bytes([HELLO, token])
    }
}

/// A connection of which nothing is known. All that it costs is its descriptor and these bytes.
pub struct Stranger {
    stream: TcpStream,
    said: [u8; GREETING],
    heard: usize,
    pub since: Instant,
}

/// What becomes of a stranger.
pub enum Becomes {
    Known(Channel, usize),
    Stranger(Stranger),
    /// It has said something else, or left.
    Nobody,
}

impl Stranger {
    pub fn new(stream: TcpStream) -> std::io::Result<Stranger> {
        stream.set_nonblocking(true)?;
        Ok(Stranger { stream, said: [0; GREETING], heard: 0, since: Instant::now() })
    }

    /// Listens to what it has said by now, never past the first bytes that are no greeting's.
    pub fn listen(mut self, token: u64) -> Becomes {
        while self.heard < GREETING {
            match self.stream.read(&mut self.said[self.heard..]) {
                Ok(0) => return Becomes::Nobody,
                Ok(count) => self.heard += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Becomes::Nobody,
            }
            let opening = bytes([(GREETING - size_of::<u64>()) as u64, HELLO]);
            let compared = self.heard.min(opening.len());
            if self.said[..compared] != opening[..compared] {
                return Becomes::Nobody;
            }
        }
        let [_, _, theirs, rank] = words(&self.said)[..] else { return Becomes::Nobody };
        match self.heard {
            // One comparison of whole words, which takes as long whichever bits differ.
            GREETING if theirs ^ token == 0 => {
                Channel::new(self.stream).map_or(Becomes::Nobody, |channel| Becomes::Known(channel, rank as usize))
            }
            GREETING => Becomes::Nobody,
            _ => Becomes::Stranger(self),
        }
    }
}

pub fn bytes(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

pub fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().expect("eight bytes"))).collect()
}
