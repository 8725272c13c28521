//! A barrier of the ranks of a host, in memory that they share.
//!
//! Ranks of a host meet twice a step, and wait for the last. They should neither be late when it comes nor keep a core from it until then:
//! they spin for a moment, give the core away, then sleep. MPI's own barrier never sleeps, and of 16 ranks on two cores those that waited
//! took most of the cores' time.

use std::sync::atomic::{AtomicU32, Ordering::*};

/// Rounds of the spin loop where every rank has a core, and times that the core is given away before a rank sleeps.
const SPINS: u32 = 4_000;
const YIELDS: u32 = 100;

/// What ranks share; zeros are one where nobody has arrived.
#[repr(C, align(64))]
pub struct Shared {
    arrived: Line,
    /// Counts the times that all have met.
    round: Line,
    sleepers: Line,
}

/// A cache line of its own: who arrives does not disturb who spins.
#[repr(C, align(64))]
struct Line(AtomicU32);

/// One rank's side.
pub struct HostBarrier {
    shared: &'static Shared,
    ranks: u32,
    spins: u32,
}

impl HostBarrier {
    /// A barrier of `ranks` processes or threads, all of which have `shared`.
    pub fn new(shared: &'static Shared, ranks: usize) -> HostBarrier {
        // SAFETY: asks for a number.
        let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
        let spins = if usize::try_from(cpus).is_ok_and(|cpus| ranks <= cpus) { SPINS } else { 0 };
        HostBarrier { shared, ranks: ranks as u32, spins }
    }

    /// Returns when all ranks have called it. What they wrote before, all see after.
    pub fn meet(&self) {
        let Shared { arrived, round, sleepers } = self.shared;
        // It stays until this rank has arrived.
        let seen = round.0.load(Acquire);
        if arrived.0.fetch_add(1, AcqRel) + 1 == self.ranks {
            arrived.0.store(0, Relaxed);
            round.0.store(seen.wrapping_add(1), SeqCst);
            // Whoever counts himself later sees the new round.
            if sleepers.0.load(SeqCst) > 0 {
                futex(&round.0, libc::FUTEX_WAKE, i32::MAX as u32);
            }
            return;
        }
        let met = || round.0.load(Acquire) != seen;
        for _ in 0..self.spins {
            if met() {
                return;
            }
            std::hint::spin_loop();
        }
        for _ in 0..YIELDS {
            if met() {
                return;
            }
            std::thread::yield_now();
        }
        sleepers.0.fetch_add(1, SeqCst);
        while round.0.load(SeqCst) == seen {
            // Returns at once where the round is another by now, and at any time for no reason.
            futex(&round.0, libc::FUTEX_WAIT, seen);
        }
        sleepers.0.fetch_sub(1, SeqCst);
    }
}

/// Between processes: without the flag that says it is of one alone.
fn futex(word: &AtomicU32, operation: libc::c_int, value: u32) {
    // SAFETY: the word is there as long as the borrow; without a timeout no other argument is an address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, value, std::ptr::null::<libc::timespec>()) };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use super::*;

    fn zeros() -> &'static Shared {
        let line = || Line(AtomicU32::new(0));
        Box::leak(Box::new(Shared { arrived: line(), round: line(), sleepers: line() }))
    }

    #[test]
    fn nobody_leaves_before_all_have_come() {
        for ranks in [1, 2, 16] {
            let (shared, came) = (zeros(), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                for rank in 0..ranks {
                    let came = &came;
                    scope.spawn(move || {
                        let barrier = HostBarrier::new(shared, ranks);
                        for round in 0..300 {
                            // Now and then long enough for the others to sleep.
                            if round % 100 == rank {
                                std::thread::sleep(Duration::from_millis(3));
                            }
                            came.fetch_add(1, Relaxed);
                            barrier.meet();
                            let seen = came.load(Relaxed);
                            // Others may have come to the next one already.
                            assert!((ranks * (round + 1)..ranks * (round + 2)).contains(&seen), "{seen} of {ranks} in {round}");
                        }
                    });
                }
            });
            assert_eq!((came.load(Relaxed), shared.sleepers.0.load(Relaxed)), (300 * ranks, 0));
        }
    }
}
