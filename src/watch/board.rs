//! The heartbeats of all ranks of a host, in memory that they share, and the verdict that one of them reached.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU32};

use anyhow::Result;

use crate::exchange::Transport;
use crate::observe::heartbeat::{self, Heartbeat, Reading};

/// Bytes of a verdict at most.
const LONGEST: usize = 4096 - 8;

/// What shared memory holds before the heartbeats; all zero at first.
#[repr(C, align(64))]
struct Verdict {
    /// 0: none; 1: being written; 2: there.
    state: AtomicU32,
    length: AtomicU32,
    text: [AtomicU8; LONGEST],
}

/// The board of one host.
pub struct Board {
    heartbeats: &'static [Heartbeat],
    /// Absent where this rank sees itself alone.
    verdict: Option<&'static Verdict>,
}

impl Board {
    /// Puts this rank's heartbeat where the ranks of its host see it; where they share no memory, the board shows this rank alone. Collective.
    pub fn join(transport: &dyn Transport) -> Result<Board> {
        let (local, ranks) = transport.local();
        let bytes = size_of::<Verdict>() + ranks * size_of::<Heartbeat>();
        let board = match transport.host_memory(bytes)? {
            // SAFETY: the memory is zeroed and never freed, it begins with a page, and what lies in it is atomic.
            Some(memory) => unsafe {
                let verdict = &*memory.cast::<Verdict>();
                let heartbeats = std::slice::from_raw_parts(memory.add(size_of::<Verdict>()).cast::<Heartbeat>(), ranks);
                heartbeat::publish(&heartbeats[local], transport.rank());
                Board { heartbeats, verdict: Some(verdict) }
            },
            None => {
                heartbeat::publish(heartbeat::own(), transport.rank());
                Board { heartbeats: std::slice::from_ref(heartbeat::own()), verdict: None }
            }
        };
        Ok(board)
    }

    /// The ranks of this host.
    pub fn readings(&self) -> impl Iterator<Item = Reading> {
        self.heartbeats.iter().filter_map(Heartbeat::read)
    }

    /// Tells the other ranks of this host; the first verdict stands. Whether this is the first.
    pub fn publish(&self, text: &str) -> bool {
        let Some(verdict) = self.verdict else { return true };
        if verdict.state.compare_exchange(0, 1, AcqRel, Relaxed).is_err() {
            return false;
        }
        let mut length = 0;
        for (place, byte) in verdict.text.iter().zip(text.bytes()) {
            place.store(byte, Relaxed);
            length += 1;
        }
        verdict.length.store(length, Relaxed);
        verdict.state.store(2, Release);
        true
    }

    /// What some rank of this host has found.
    pub fn verdict(&self) -> Option<String> {
        let verdict = self.verdict.filter(|verdict| verdict.state.load(Acquire) == 2)?;
        let length = verdict.length.load(Relaxed) as usize;
        let bytes: Vec<u8> = verdict.text[..length].iter().map(|byte| byte.load(Relaxed)).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}
