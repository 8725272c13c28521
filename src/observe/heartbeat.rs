//! A rank's heartbeat: counters that other processes read to see whether it lives, and moves.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicPtr, AtomicU64};

use super::doing::{Doing, Row};
use super::trace;

/// One rank's counters; a cache line in memory that all ranks of a host see.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Heartbeat {
    /// Rank + 1, once the heartbeat is in use.
    rank: AtomicU64,
    process: AtomicU64,
    /// Ticks of the rank's watchdog: they stop where the whole process does.
    alive: AtomicU64,
    /// Spans begun and ended.
    progress: AtomicU64,
    /// Samples that its loading threads have made.
    loaded: AtomicU64,
    step: AtomicU64,
    /// The innermost span and the one round it, as [`word`] packs them.
    doing: AtomicU64,
    /// Collective operations begun. The highest bit says that the rank has taken leave.
    collectives: AtomicU64,
}

const LEFT: u64 = 1 << 63;

/// A heartbeat as it was read at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    pub rank: usize,
    pub process: u64,
    pub alive: u64,
    pub progress: u64,
    pub loaded: u64,
    pub step: u64,
    doing: u64,
    collectives: u64,
}

static OWN: Heartbeat = Heartbeat {
    rank: AtomicU64::new(0),
    process: AtomicU64::new(0),
    alive: AtomicU64::new(0),
    progress: AtomicU64::new(0),
    loaded: AtomicU64::new(0),
    step: AtomicU64::new(0),
    doing: AtomicU64::new(0),
    collectives: AtomicU64::new(0),
};

/// This rank's heartbeat: its own until there is a place that other ranks see.
static PULSE: AtomicPtr<Heartbeat> = AtomicPtr::new((&raw const OWN).cast_mut());

fn heartbeat() -> &'static Heartbeat {
    // SAFETY: a heartbeat is never taken back, and all its fields are atomic.
    unsafe { &*PULSE.load(Acquire) }
}

/// Whoever publishes the heartbeat sets its rank too.
pub fn publish(place: &'static Heartbeat, rank: usize) {
    let own = heartbeat();
    place.process.store(u64::from(std::process::id()), Relaxed);
    for (to, from) in [(&place.alive, &own.alive), (&place.progress, &own.progress), (&place.loaded, &own.loaded)] {
        to.store(from.load(Relaxed), Relaxed);
    }
    for (to, from) in [(&place.step, &own.step), (&place.doing, &own.doing), (&place.collectives, &own.collectives)] {
        to.store(from.load(Relaxed), Relaxed);
    }
    place.rank.store(rank as u64 + 1, Release);
    PULSE.store(std::ptr::from_ref(place).cast_mut(), Release);
}

/// The place of a heartbeat that nobody else sees.
pub fn own() -> &'static Heartbeat {
    &OWN
}

/// A tick of the watchdog.
pub fn tick() {
    heartbeat().alive.fetch_add(1, Relaxed);
}

/// Notes that loading threads have made one more sample.
pub fn loaded() {
    heartbeat().loaded.fetch_add(1, Relaxed);
}

/// Says that this rank needs nobody any more, nor will anyone wait for it: not to be missed from now on.
pub fn leave() {
    heartbeat().collectives.fetch_or(LEFT, Relaxed);
}

/// What a rank is doing while this lives.
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    doing: u64,
    before: u64,
    started: Option<trace::Time>,
}

/// The innermost span in the low half, the one round it above.
fn word(doing: Doing, layer: Option<usize>) -> u64 {
    doing as u64 | layer.map_or(0, |layer| (layer as u64 + 1) & 0xffff) << 8
}

const HALF: u64 = (1 << 24) - 1;

fn parts(word: u64) -> (Doing, Option<usize>) {
    (Doing::of(word as u8), ((word >> 8 & 0xffff) as usize).checked_sub(1))
}

/// This rank does `doing`, of `layer` (counted from 0) where it belongs to one.
pub fn span(doing: Doing, layer: Option<usize>) -> Span {
    let heartbeat = heartbeat();
    let before = heartbeat.doing.load(Relaxed);
    let now = word(doing, layer);
    heartbeat.doing.store(now | (before & HALF) << 24, Relaxed);
    heartbeat.progress.fetch_add(1, Relaxed);
    if doing.is_collective() {
        heartbeat.collectives.fetch_add(1, Relaxed);
    }
    Span { doing: now, before, started: trace::now() }
}

/// [`span`], unless the innermost one is of this kind already and says more.
pub fn span_unless_in(doing: Doing) -> Option<Span> {
    (parts(heartbeat().doing.load(Relaxed)).0 != doing).then(|| span(doing, None))
}

/// The step that begins, counted from 0.
pub fn step(step: u64) -> Span {
    heartbeat().step.store(step, Relaxed);
    span(Doing::Step, None)
}

impl Drop for Span {
    fn drop(&mut self) {
        let heartbeat = heartbeat();
        heartbeat.doing.store(self.before, Relaxed);
        heartbeat.progress.fetch_add(1, Relaxed);
        if let Some(started) = self.started {
            let (doing, layer) = parts(self.doing);
            trace::record(doing, layer, heartbeat.step.load(Relaxed), started);
        }
    }
}

/// Notes in the trace that something was transferred in the background of the current step.
pub fn transferred(doing: Doing, layer: Option<usize>, started: trace::Time, ended: trace::Time) {
    if doing.row() == Row::Background {
        trace::keep(doing, layer, heartbeat().step.load(Relaxed), started, ended);
    }
}

impl Heartbeat {
    /// As it is now; none where no rank has it.
    pub fn read(&self) -> Option<Reading> {
        let rank = self.rank.load(Acquire).checked_sub(1)? as usize;
        Some(Reading {
            rank,
            process: self.process.load(Relaxed),
            alive: self.alive.load(Relaxed),
            progress: self.progress.load(Relaxed),
            loaded: self.loaded.load(Relaxed),
            step: self.step.load(Relaxed),
            doing: self.doing.load(Relaxed),
            collectives: self.collectives.load(Relaxed),
        })
    }
}

impl Reading {
    pub const WORDS: usize = 8;

    /// Of a rank that has shown nothing yet.
    pub fn of_rank(rank: usize) -> Reading {
        Reading { rank, ..Reading::default() }
    }

    pub fn to_words(self) -> [u64; Reading::WORDS] {
        let Reading { rank, process, alive, progress, loaded, step, doing, collectives } = self;
        [rank as u64, process, alive, progress, loaded, step, doing, collectives]
    }

    pub fn of_words([rank, process, alive, progress, loaded, step, doing, collectives]: [u64; Reading::WORDS]) -> Reading {
        Reading { rank: rank as usize, process, alive, progress, loaded, step, doing, collectives }
    }

    /// What the rank is doing.
    pub fn doing(&self) -> Doing {
        parts(self.doing).0
    }

    /// What changes as long as the rank moves. Samples count while it waits for them, and hide nothing else.
    pub fn motion(&self) -> [u64; 3] {
        [self.progress, self.step, if self.doing() == Doing::Load { self.loaded } else { 0 }]
    }

    /// Collective operations begun.
    pub fn collectives(&self) -> u64 {
        self.collectives & !LEFT
    }

    pub fn has_left(&self) -> bool {
        self.collectives & LEFT != 0
    }

    /// In words: "all-gather (checkpoint)", "forward of layer 2 (evaluation)".
    pub fn describe(&self) -> String {
        let named = |(doing, layer): (Doing, Option<usize>)| match layer {
            Some(layer) => format!("{} of layer {layer}", doing.name()),
            None => doing.name().to_owned(),
        };
        let (inner, outer) = (parts(self.doing), parts(self.doing >> 24));
        match outer.0 {
            Doing::Starting | Doing::BetweenSteps | Doing::Step => named(inner),
            doing if doing == inner.0 => named((doing, inner.1.or(outer.1))),
            _ => format!("{} ({})", named(inner), named(outer)),
        }
    }
}

#[cfg(test)]
impl Reading {
    /// A rank that does `doing` and has begun so many collective operations.
    pub fn example(rank: usize, doing: Doing, layer: Option<usize>, collectives: u64) -> Reading {
        Reading { rank, process: 100 + rank as u64, step: 7, doing: word(doing, layer), collectives, ..Reading::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_says_what_is_done_within_what() {
        let inner = word(Doing::Forward, Some(2)) | word(Doing::Evaluation, None) << 24;
        let reading = Reading { doing: inner, ..Reading::default() };
        assert_eq!(reading.describe(), "forward of layer 2 (evaluation)");
        let nested = word(Doing::AllGather, None) | word(Doing::AllGather, Some(3)) << 24;
        assert_eq!(Reading { doing: nested, ..Reading::default() }.describe(), "all-gather of layer 3");
        let reading = Reading { doing: word(Doing::Barrier, None) | word(Doing::Step, None) << 24, ..Reading::default() };
        assert_eq!((reading.describe().as_str(), reading.doing()), ("barrier", Doing::Barrier));
        assert_eq!(Reading::of_words(reading.to_words()), reading);
    }

    #[test]
    fn samples_are_motion_while_they_are_waited_for() {
        let waiting = |loaded| Reading { loaded, ..Reading::example(0, Doing::Load, None, 0) }.motion();
        let stuck = |loaded| Reading { loaded, ..Reading::example(0, Doing::Barrier, None, 0) }.motion();
        assert_ne!(waiting(1), waiting(2));
        assert_eq!(stuck(1), stuck(2));
    }
}
