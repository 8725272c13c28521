//! This rank's latest spans, where a trace is recorded: in a ring, so memory is bounded however long the run is.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::doing::Doing;

/// Spans that a rank keeps: 1.5 MB of memory, and 10 MB of the file.
pub const KEPT: usize = 1 << 16;

/// Nanoseconds since the recording began.
pub type Time = u64;

/// A span that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    pub started: Time,
    pub nanoseconds: u64,
    pub step: u64,
    pub doing: Doing,
    pub layer: Option<usize>,
}

impl Event {
    pub const WORDS: usize = 3;

    pub fn to_words(self) -> [u64; Event::WORDS] {
        let layer = self.layer.map_or(0, |layer| layer as u64 + 1) & 0xffff;
        [self.started, self.nanoseconds, self.step << 24 | layer << 8 | self.doing as u64]
    }

    pub fn of_words(words: &[u64]) -> Event {
        let what = words[2];
        let layer = ((what >> 8 & 0xffff) as usize).checked_sub(1);
        Event { started: words[0], nanoseconds: words[1], step: what >> 24, doing: Doing::of(what as u8), layer }
    }
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Event>,
    dropped: u64,
}

struct Recorder {
    began: Instant,
    /// The same moment, in nanoseconds since 1970.
    clock: u64,
    ring: Mutex<Ring>,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Records from now on.
pub fn start() {
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    RECORDER.get_or_init(|| Recorder { began: Instant::now(), clock, ring: Mutex::default() });
}

/// The time, where a trace is recorded.
pub fn now() -> Option<Time> {
    RECORDER.get().map(|recorder| recorder.began.elapsed().as_nanos() as Time)
}

/// Keeps a span that began at `started` and ends now.
pub fn record(doing: Doing, layer: Option<usize>, step: u64, started: Time) {
    keep(doing, layer, step, started, now().unwrap_or(started));
}

/// Keeps a span between two times.
pub(super) fn keep(doing: Doing, layer: Option<usize>, step: u64, started: Time, ended: Time) {
    let Some(recorder) = RECORDER.get() else { return };
    let nanoseconds = ended.saturating_sub(started);
    // Poisoned by a panic that ends the process anyway.
    let Ok(mut ring) = recorder.ring.lock() else { return };
    if ring.events.len() == KEPT {
        ring.events.pop_front();
        ring.dropped += 1;
    }
    ring.events.push_back(Event { started, nanoseconds, step, doing, layer });
}

/// This rank's events as words, how many were dropped, and its clock at time 0.
pub fn recorded() -> (Vec<u64>, u64, u64) {
    let Some(recorder) = RECORDER.get() else { return (Vec::new(), 0, 0) };
    let ring = recorder.ring.lock().expect("no thread panics with it");
    (ring.events.iter().flat_map(|event| event.to_words()).collect(), ring.dropped, recorder.clock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_as_words() {
        let event = Event { started: 5_000, nanoseconds: 1_500, step: 1 << 33, doing: Doing::Forward, layer: Some(3) };
        assert_eq!(Event::of_words(&event.to_words()), event);
        let without = Event { layer: None, doing: Doing::Step, ..event };
        assert_eq!(Event::of_words(&without.to_words()), without);
    }
}
