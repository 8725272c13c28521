//! Who holds up the job: a judgement from what all ranks' heartbeats have shown, without clocks, memory or sockets, so that it can be tested.

use std::collections::BTreeMap;

use crate::observe::{Doing, Reading};

/// Seconds that reading and writing files may take without any sign of progress, where the limit is lower: a network's disk has bad
/// minutes.
const PATIENCE_WITH_DATA: f64 = 60.0;
pub const PATIENCE_WITH_CHECKPOINTS: f64 = 600.0;

/// What is known of a rank, and since when nothing new.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub reading: Reading,
    /// When its watchdog last ticked.
    pub alive_at: f64,
    /// When it last moved.
    pub moved_at: f64,
}

/// All that an observer has seen. Times are seconds of its own clock.
#[derive(Debug, Default)]
pub struct Observations {
    ranks: BTreeMap<usize, Seen>,
}

/// A rank that holds up the job.
#[derive(Clone, Debug, PartialEq)]
pub struct StalledRank {
    pub reading: Reading,
    pub silence: f64,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its process gives no sign of life, or nothing carries one here.
    Silent,
    /// It lives, the others wait for it, and it does not move.
    Stuck,
    /// It waits in the same exchange as all ranks do.
    Waiting,
}

impl Observations {
    /// Takes note of a reading; an older one than what is known, by another way, is passed over.
    pub fn note(&mut self, reading: Reading, now: f64) {
        let seen = self.ranks.entry(reading.rank).or_insert(Seen { reading, alive_at: now, moved_at: now });
        if reading.alive < seen.reading.alive {
            return;
        }
        if reading.alive != seen.reading.alive {
            seen.alive_at = now;
        }
        if reading.motion() != seen.reading.motion() || reading.doing() != seen.reading.doing() {
            seen.moved_at = now;
        }
        seen.reading = reading;
    }

    /// How many ranks are known.
    pub fn ranks(&self) -> usize {
        self.ranks.len()
    }

    pub fn get(&self, rank: usize) -> Option<&Seen> {
        self.ranks.get(&rank)
    }

    /// An exchange that a rank which is not to blame waits in, the latest where there are several.
    pub fn waited_in(&self, stalled: &[StalledRank]) -> Option<Reading> {
        let blamed = |reading: &Reading| stalled.iter().any(|stalled| stalled.reading.rank == reading.rank);
        let readings = self.ranks.values().map(|seen| seen.reading);
        let waits = readings.filter(|reading| !blamed(reading) && !reading.has_left() && reading.doing().is_collective());
        waits.max_by_key(|reading| reading.collectives())
    }

    /// A rank whose connection has closed: one that was ending is done. Another one is missed from now on.
    pub fn closed(&mut self, rank: usize) {
        let done = |seen: &Seen| seen.reading.has_left() || seen.reading.doing() == Doing::Ending;
        if self.ranks.get(&rank).is_some_and(done) {
            self.ranks.remove(&rank);
        }
    }

    /// The ranks that give no sign of life for `limit` seconds.
    pub fn silent(&self, now: f64, limit: f64) -> Vec<StalledRank> {
        let silent = self.ranks.values().filter(|seen| !seen.reading.has_left() && now - seen.alive_at >= limit);
        silent.map(|seen| StalledRank { reading: seen.reading, silence: now - seen.alive_at, kind: Kind::Silent }).collect()
    }

    /// The ranks that hold up the job for more than `limit` seconds, where all `size` of them are observed.
    ///
    /// Collective operations come in the same order on all ranks, so those that have begun the fewest are waited for, and the others are
    /// not to blame, however long they have not moved.
    pub fn stalled(&self, now: f64, limit: f64, size: usize) -> Vec<StalledRank> {
        let silent = self.silent(now, limit);
        if !silent.is_empty() {
            return silent;
        }
        let ranks: Vec<&Seen> = self.ranks.values().filter(|seen| !seen.reading.has_left()).collect();
        let ending = ranks.iter().any(|seen| seen.reading.doing() == Doing::Ending);
        if ranks.len() < size || ending {
            return Vec::new();
        }
        let least = ranks.iter().map(|seen| seen.reading.collectives()).min().unwrap_or(0);
        let behind: Vec<&Seen> = ranks.into_iter().filter(|seen| seen.reading.collectives() == least).collect();
        let waits = |seen: &&Seen| seen.reading.doing().is_collective();
        // In an exchange that all have begun, only those that have left it can be what the rest of it waits for.
        let (kind, accused): (Kind, Vec<&Seen>) = match behind.iter().copied().filter(|seen| !waits(seen)).collect::<Vec<_>>() {
            busy if busy.is_empty() && behind.len() == size && size > 1 => (Kind::Waiting, behind),
            busy if busy.is_empty() => (Kind::Stuck, behind),
            busy => (Kind::Stuck, busy),
        };
        let stalled = |seen: &&Seen| now - seen.moved_at >= patience(seen.reading.doing(), limit);
        // One that has stopped ticking may have waited a little before it stopped: soon it will be known as silent, which says more.
        let falls_silent = |seen: &&Seen| now - seen.alive_at >= limit / 2.0;
        if !accused.iter().all(stalled) || accused.iter().any(falls_silent) {
            return Vec::new();
        }
        accused.iter().map(|seen| StalledRank { reading: seen.reading, silence: now - seen.moved_at, kind }).collect()
    }
}

/// Seconds that a rank may do the same.
fn patience(doing: Doing, limit: f64) -> f64 {
    match doing {
        Doing::Load => limit.max(PATIENCE_WITH_DATA),
        Doing::Starting | Doing::Checkpoint => limit.max(PATIENCE_WITH_CHECKPOINTS),
        _ => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ranks as they are at time 0; from then on those of `ticking` give signs of life, and nobody moves.
    fn observations(ranks: &[Reading], ticking: &[usize], until: f64) -> Observations {
        let mut observations = Observations::default();
        ranks.iter().for_each(|reading| observations.note(*reading, 0.0));
        for rank in ticking {
            let mut alive = ranks[*rank];
            alive.alive += 1;
            observations.note(alive, until);
        }
        observations
    }

    fn blamed(observations: &Observations, now: f64, size: usize) -> (Vec<usize>, Option<Kind>) {
        let stalled = observations.stalled(now, 2.0, size);
        (stalled.iter().map(|stalled| stalled.reading.rank).collect(), stalled.first().map(|stalled| stalled.kind))
    }

    #[test]
    fn who_gives_no_sign_of_life_is_named_and_not_who_waits() {
        let waits = |rank| Reading::example(rank, Doing::Barrier, None, 9);
        // Even one that stopped within the exchange which the others have left since.
        for stopped in [Reading::example(1, Doing::Forward, Some(0), 8), Reading::example(1, Doing::Barrier, None, 9)] {
            let ranks = [waits(0), stopped, waits(2)];
            assert_eq!(blamed(&observations(&ranks, &[0, 2], 2.5), 2.5, 3), (vec![1], Some(Kind::Silent)));
            assert_eq!(blamed(&observations(&ranks, &[0, 1, 2], 1.5), 1.5, 3), (vec![], None));
        }
    }

    #[test]
    fn a_connection_that_closes_is_a_good_end_only_of_a_rank_that_was_ending() {
        let ranks = [0, 1, 2].map(|rank| Reading::example(rank, if rank == 2 { Doing::Ending } else { Doing::AllGather }, None, 9));
        let mut observations = observations(&ranks, &[0, 2], 1.5);
        observations.closed(1);
        observations.closed(2);
        assert_eq!((observations.ranks(), observations.silent(2.5, 2.0).len()), (2, 1));
    }

    #[test]
    fn a_rank_that_lives_and_does_not_move_is_named() {
        let waits = |rank| Reading::example(rank, Doing::AllGather, None, 9);
        let ranks = [waits(0), Reading::example(1, Doing::Forward, Some(3), 8), waits(2)];
        let seen = observations(&ranks, &[0, 1, 2], 2.5);
        assert_eq!(blamed(&seen, 2.5, 3), (vec![1], Some(Kind::Stuck)));
        let waited_in = seen.waited_in(&seen.stalled(2.5, 2.0, 3)).unwrap();
        assert_eq!((waited_in.rank, waited_in.describe().as_str()), (2, "all-gather"));
        // Two exchanges behind, and waiting in the wrong one.
        let ranks = [waits(0), Reading::example(1, Doing::Barrier, None, 7), waits(2)];
        assert_eq!(blamed(&observations(&ranks, &[0, 1, 2], 2.5), 2.5, 3), (vec![1], Some(Kind::Stuck)));
    }

    #[test]
    fn a_rank_that_stopped_after_some_waiting_is_called_silent() {
        let ranks = [Reading::example(0, Doing::AllGather, None, 10), Reading::example(1, Doing::AllGather, None, 9)];
        // It has not moved since 0, and ticked until 0.5.
        let mut observations = observations(&ranks, &[1], 0.5);
        for (now, verdict) in [(2.0, (vec![], None)), (2.25, (vec![], None)), (2.5, (vec![1], Some(Kind::Silent)))] {
            let mut waits = ranks[0];
            waits.alive = (now * 100.0) as u64;
            observations.note(waits, now);
            assert_eq!(blamed(&observations, now, 2), verdict, "at {now}");
        }
    }

    #[test]
    fn an_exchange_that_all_wait_in_is_nobodys_fault() {
        let ranks = [0, 1].map(|rank| Reading::example(rank, Doing::AllGather, None, 4));
        assert_eq!(blamed(&observations(&ranks, &[0, 1], 2.5), 2.5, 2), (vec![0, 1], Some(Kind::Waiting)));
    }

    #[test]
    fn who_waits_for_files_has_more_time() {
        for (doing, patience) in [(Doing::Load, 60.0), (Doing::Checkpoint, 600.0), (Doing::Starting, 600.0)] {
            let ranks = [Reading::example(0, doing, None, 4), Reading::example(1, Doing::Barrier, None, 5)];
            assert_eq!(blamed(&observations(&ranks, &[0, 1], patience - 1.0), patience - 1.0, 2), (vec![], None), "{doing:?}");
            assert_eq!(blamed(&observations(&ranks, &[0, 1], patience), patience, 2), (vec![0], Some(Kind::Stuck)), "{doing:?}");
        }
    }

    #[test]
    fn whoever_ends_or_has_left_is_not_missed() {
        let ranks = [Reading::example(0, Doing::Ending, None, 4), Reading::example(1, Doing::Barrier, None, 5)];
        assert_eq!(blamed(&observations(&ranks, &[0, 1], 4.0), 4.0, 2), (vec![], None));
        let left = Reading::example(0, Doing::Step, None, (1 << 63) | 4);
        assert!(left.has_left() && left.collectives() == 4);
        assert_eq!(blamed(&observations(&[left, ranks[1]], &[1], 4.0), 4.0, 2), (vec![], None));
    }

    #[test]
    fn no_judgement_without_all_of_them_but_for_silence() {
        let ranks = [0, 1].map(|rank| Reading::example(rank, Doing::AllGather, None, 4));
        assert_eq!(blamed(&observations(&ranks, &[0, 1], 2.5), 2.5, 4), (vec![], None));
        assert_eq!(blamed(&observations(&ranks, &[0], 2.5), 2.5, 4), (vec![1], Some(Kind::Silent)));
    }
}
