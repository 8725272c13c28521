//! The one thread pool of a rank.
//!
//! A step of a small network is dozens of parallel passes of a few tens of microseconds, so a pass must start within about one: workers
//! spin for a moment before they sleep. Items are handed out by an atomic counter; which thread computes an item never changes its value.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use biodist_process::threads;

/// Rounds of the spin loop before a waiting thread gives its core away, and before it sleeps.
const SPINS: u32 = 4_000;
const YIELDS: u32 = 200;

type Body<'a> = dyn Fn(usize) + Sync + 'a;

struct Shared {
    /// Counts passes; a worker that sees it change has work.
    pass: AtomicUsize,
    body: Mutex<Option<*const Body<'static>>>,
    items: AtomicUsize,
    next: AtomicUsize,
    busy: AtomicUsize,
    panicked: AtomicBool,
    quit: AtomicBool,
    sleepers: Mutex<usize>,
    wake: Condvar,
}

// SAFETY: the body pointer is only used while `run`, which owns it, waits.
unsafe impl Send for Shared {}
// SAFETY: the same.
unsafe impl Sync for Shared {}

pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// A pool of `count` threads, the caller's among them.
    ///
    /// # Errors
    /// Threads that the system has not to give.
    pub fn new(count: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            pass: AtomicUsize::new(0),
            body: Mutex::new(None),
            items: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            quit: AtomicBool::new(false),
            sleepers: Mutex::new(0),
            wake: Condvar::new(),
        });
        let mut pool = Pool { shared, workers: Vec::new() };
        for index in 1..count.max(1) {
            let shared = Arc::clone(&pool.shared);
            pool.workers.push(threads::spawn(&format!("compute-{index}"), move || worker(&shared))?);
        }
        Ok(pool)
    }

    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `body` once for each of `0..items`, on all threads, and returns when all calls have.
    pub fn run(&self, items: usize, body: impl Fn(usize) + Sync) {
        if self.workers.is_empty() || items <= 1 {
            (0..items).for_each(body);
            return;
        }
        let shared = &*self.shared;
        let body: &Body<'_> = &body;
        // SAFETY: the lifetime ends when this function returns, and no worker is busy then.
        let erased = unsafe { std::mem::transmute::<*const Body<'_>, *const Body<'static>>(body) };
        *shared.body.lock().expect("no thread panics with the lock") = Some(erased);
        shared.items.store(items, Relaxed);
        shared.next.store(0, Relaxed);
        shared.busy.store(self.workers.len(), Relaxed);
        shared.pass.fetch_add(1, SeqCst);
        if *shared.sleepers.lock().expect("no thread panics with the lock") > 0 {
            shared.wake.notify_all();
        }
        take_items(shared, body);
        wait(|| shared.busy.load(Acquire) == 0);
        if shared.panicked.load(Relaxed) {
            panic!("a compute thread panicked");
        }
    }

    /// `body` for the `index`-th of `parts` nearly equal ranges of `0..items`.
    pub fn run_ranges(&self, items: usize, parts: usize, body: impl Fn(std::ops::Range<usize>) + Sync) {
        let parts = parts.min(items).max(1);
        self.run(parts, |part| body(items * part / parts..items * (part + 1) / parts));
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.quit.store(true, SeqCst);
        self.shared.pass.fetch_add(1, SeqCst);
        drop(self.shared.sleepers.lock());
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            let _ = worker.join();
        }
    }
}

fn take_items(shared: &Shared, body: &Body<'_>) {
    let items = shared.items.load(Relaxed);
    loop {
        let item = shared.next.fetch_add(1, Relaxed);
        if item >= items {
            return;
        }
        body(item);
    }
}

/// Spins, then yields, until `done`.
pub fn wait(done: impl Fn() -> bool) {
    let mut round = 0;
    while !done() {
        round += 1;
        if round < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
}

fn worker(shared: &Shared) {
    let mut seen = 0;
    loop {
        let mut round = 0;
        while shared.pass.load(Acquire) == seen {
            round += 1;
            if round < SPINS {
                std::hint::spin_loop();
            } else if round < SPINS + YIELDS {
                std::thread::yield_now();
            } else {
                let mut sleepers = shared.sleepers.lock().expect("no thread panics with the lock");
                *sleepers += 1;
                while shared.pass.load(SeqCst) == seen {
                    sleepers = shared.wake.wait(sleepers).expect("no thread panics with the lock");
                }
                *sleepers -= 1;
            }
        }
        seen += 1;
        if shared.quit.load(SeqCst) {
            return;
        }
        let body = shared.body.lock().expect("no thread panics with the lock").expect("a pass has a body");
        // SAFETY: the body is there until `run` returns, which waits for this worker.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take_items(shared, unsafe { &*body })));
        if outcome.is_err() {
            shared.panicked.store(true, Relaxed);
        }
        shared.busy.fetch_sub(1, Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_runs_once_in_every_pass() {
        for threads in 1..4 {
            let pool = Pool::new(threads).unwrap();
            for items in [0, 1, 2, 7, 100] {
                let counts: Vec<AtomicUsize> = (0..items).map(|_| AtomicUsize::new(0)).collect();
                for _ in 0..200 {
                    pool.run(items, |item| {
                        counts[item].fetch_add(1, Relaxed);
                    });
                }
                assert!(counts.iter().all(|count| count.load(Relaxed) == 200), "{threads} threads, {items} items");
            }
        }
    }

    #[test]
    fn ranges_cover_everything_in_order() {
        let pool = Pool::new(2).unwrap();
        let seen: Vec<AtomicUsize> = (0..10).map(|_| AtomicUsize::new(0)).collect();
        pool.run_ranges(10, 3, |range| {
            for i in range {
                seen[i].fetch_add(i + 1, Relaxed);
            }
        });
        assert!(seen.iter().enumerate().all(|(i, value)| value.load(Relaxed) == i + 1));
    }
}
