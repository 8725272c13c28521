//! Threads that fill batches ahead of their use.
//!
//! Threads take batch numbers in order and fill buffers; whoever uses the batches gets them in order too, whichever thread was faster.
//! Only so many batches are begun ahead; with those filled the threads sleep, and are woken when the store is low rather than at every
//! batch, because waking a thread costs more than filling a batch of small images. There is one thread as long as it keeps up, and
//! another is added whenever batches had to be waited for.

use std::any::Any;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use biodist_process::threads;

use super::dataset::Affine;
use super::order::Position;
use crate::compute::Pixels;

/// Batches begun ahead, beside one for each thread.
const AHEAD: u64 = 2;
/// Batches between decisions about another thread.
const WINDOW: u64 = 8;
/// The part of a window's time that may be lost to waiting before another thread is added.
const TOLERATED_WAIT: f64 = 0.05;

/// Why the lock is never poisoned: what a source does happens outside it.
const NO_PANIC: &str = "no thread panics while it holds the lock";

/// A batch, ready to be used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// [samples, H, W, C], scaled; none where they come as bytes.
    pub pixels: Vec<f32>,
    /// The same as stored, and what scales it, where a device does.
    pub bytes: Vec<u8>,
    pub scaling: Option<Affine>,
    pub labels: Vec<u32>,
    pub position: Position,
}

impl Loaded {
    /// What a backend is given.
    pub fn input(&self) -> Pixels<'_> {
        match &self.scaling {
            None => Pixels::Floats(&self.pixels),
            Some(Affine { scale, shift }) => Pixels::Bytes { values: &self.bytes, scale, shift },
        }
    }
}

/// Where batches come from.
pub(super) trait Source: Send + Sync + 'static {
    /// Number of batches, or `None` where they never end.
    fn batches(&self) -> Option<u64>;
    /// Makes `batch` the batch of this number, whatever it held before.
    fn fill(&self, number: u64, batch: &mut Loaded) -> Result<()>;
}

/// Batches of a source, in order.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    most_threads: usize,
    window: Window,
}

struct Shared {
    source: Box<dyn Source>,
    state: Mutex<State>,
    /// There may be work for a sleeping thread.
    work: Condvar,
    /// A batch was filled.
    filled: Condvar,
}

struct State {
    /// Batches handed out.
    taken: u64,
    /// Batches begun, those handed out among them.
    begun: u64,
    /// Batches that may be begun ahead.
    ahead: u64,
    /// Batches from number `taken` on; `None` where not yet filled.
    store: VecDeque<Option<Result<Loaded>>>,
    /// Buffers given back.
    spare: Vec<Loaded>,
    stop: bool,
}

/// Time lost to waiting since the last decision about threads.
struct Window {
    since: Instant,
    waited: Duration,
    batches: u64,
}

impl Pipeline {
    /// Begins to load with the fewest of `threads`; more are added, up to the most of them, while batches are waited for.
    pub(super) fn new(source: impl Source, threads: RangeInclusive<usize>) -> Pipeline {
        let state = State { taken: 0, begun: 0, ahead: AHEAD, store: VecDeque::new(), spare: Vec::new(), stop: false };
        let shared = Shared { source: Box::new(source), state: Mutex::new(state), work: Condvar::new(), filled: Condvar::new() };
        let (shared, window) = (Arc::new(shared), Window::begin());
        let mut pipeline = Pipeline { shared, threads: Vec::new(), most_threads: *threads.end(), window };
        for _ in 0..*threads.start() {
            let Err(error) = pipeline.add_thread() else { continue };
            if pipeline.threads.is_empty() {
                // Nobody else will ever fill the first batch.
                let mut state = pipeline.shared.lock();
                state.begun = 1;
                state.store.push_back(Some(Err(error)));
            }
            break;
        }
        pipeline
    }

    /// The next batch, or `None` after the last. Waits where it is not ready.
    ///
    /// # Errors
    /// What went wrong in a loading thread, a panic included. There are no batches after it.
    pub(super) fn next(&mut self) -> Result<Option<Loaded>> {
        let mut state = self.shared.lock();
        if self.shared.source.batches().is_some_and(|batches| state.taken >= batches) {
            return Ok(None);
        }
        ensure!(!state.stop, "loading has ended with an error");
        let asked = Instant::now();
        while !matches!(state.store.front(), Some(Some(_))) {
            state = self.shared.filled.wait(state).expect(NO_PANIC);
        }
        self.window.waited += asked.elapsed();
        let batch = state.store.pop_front().flatten().expect("the loop ends when it is there");
        state.taken += 1;
        state.stop = batch.is_err();
        let first = state.taken == 1;
        let wake = state.stop || state.begun - state.taken <= state.ahead - AHEAD;
        drop(state);
        if wake {
            self.shared.work.notify_all();
        }
        if first {
            // There is nothing but waiting before the first batch.
            self.window = Window::begin();
        } else if batch.is_ok() {
            self.add_thread_if_slow();
        }
        batch.map(Some)
    }

    /// Takes a batch's buffers back, to be filled again.
    pub(super) fn recycle(&mut self, batch: Loaded) {
        let mut state = self.shared.lock();
        // As many as are ever about: those begun ahead, and the one in use.
        if state.spare.len() as u64 <= state.ahead {
            state.spare.push(batch);
        }
    }

    /// Threads at work.
    pub(super) fn threads(&self) -> usize {
        self.threads.len()
    }

    fn add_thread_if_slow(&mut self) {
        self.window.batches += 1;
        if self.window.batches < WINDOW {
            return;
        }
        let slow = self.window.waited.as_secs_f64() > TOLERATED_WAIT * self.window.since.elapsed().as_secs_f64();
        if slow && self.threads.len() < self.most_threads && self.add_thread().is_err() {
            // Loading goes on as it is.
            self.most_threads = self.threads.len();
        }
        self.window = Window::begin();
    }

    fn add_thread(&mut self) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = threads::spawn(&format!("load-{}", self.threads.len()), move || shared.work())?;
        self.threads.push(thread);
        self.shared.lock().ahead = AHEAD + self.threads.len() as u64;
        Ok(())
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.work.notify_all();
        for thread in self.threads.drain(..) {
            // Its panic, had it one, was delivered as an error.
            let _ = thread.join();
        }
    }
}

impl Window {
    fn begin() -> Window {
        Window { since: Instant::now(), waited: Duration::ZERO, batches: 0 }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(NO_PANIC)
    }

    /// The life of a thread: to fill one batch after the other.
    fn work(&self) {
        while let Some((number, mut batch)) = self.begin() {
            let filled = catch_unwind(AssertUnwindSafe(|| self.source.fill(number, &mut batch)));
            let result = filled.unwrap_or_else(|panic| Err(anyhow!("loading data failed: {}", text(&*panic)))).map(|()| batch);
            let mut state = self.lock();
            let place = (number - state.taken) as usize;
            state.store[place] = Some(result);
            drop(state);
            self.filled.notify_one();
        }
    }

    /// The next batch to fill, with buffers for it; sleeps while enough are begun. `None` when there is nothing left to do.
    fn begin(&self) -> Option<(u64, Loaded)> {
        let mut state = self.lock();
        loop {
            if state.stop || self.source.batches().is_some_and(|batches| state.begun >= batches) {
                return None;
            }
            if state.begun - state.taken < state.ahead {
                break;
            }
            state = self.work.wait(state).expect(NO_PANIC);
        }
        let number = state.begun;
        state.begun += 1;
        state.store.push_back(None);
        Some((number, state.spare.pop().unwrap_or_default()))
    }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let message = panic.downcast_ref::<&str>().copied();
    message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    /// Batches that hold their number; what `act` does comes first.
    struct Numbers<F> {
        batches: Option<u64>,
        act: F,
    }

    impl<F: Fn(u64) -> Result<()> + Send + Sync + 'static> Source for Numbers<F> {
        fn batches(&self) -> Option<u64> {
            self.batches
        }

        fn fill(&self, number: u64, batch: &mut Loaded) -> Result<()> {
            (self.act)(number)?;
            batch.labels.clear();
            batch.labels.push(number as u32);
            Ok(())
        }
    }

    fn pipeline(batches: Option<u64>, threads: usize, act: impl Fn(u64) -> Result<()> + Send + Sync + 'static) -> Pipeline {
        Pipeline::new(Numbers { batches, act }, threads..=threads)
    }

    fn pause(number: u64) -> Result<()> {
        // Later batches are faster, so that they are filled out of order.
        std::thread::sleep(Duration::from_micros(300 * (3 - number % 4)));
        Ok(())
    }

    #[test]
    fn batches_come_in_order_and_end() {
        for threads in [1, 3] {
            let mut pipeline = pipeline(Some(50), threads, pause);
            for number in 0..50 {
                let batch = pipeline.next().unwrap().unwrap();
                assert_eq!(batch.labels, [number]);
                pipeline.recycle(batch);
            }
            assert_eq!(pipeline.next().unwrap(), None);
            assert_eq!(pipeline.next().unwrap(), None);
        }
        assert_eq!(pipeline(Some(0), 2, pause).next().unwrap(), None);
    }

    #[test]
    fn only_so_many_batches_are_begun_ahead() {
        let begun = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&begun);
        let mut pipeline = pipeline(None, 1, move |_| {
            counter.fetch_add(1, Relaxed);
            Ok(())
        });
        for taken in 1..=20 {
            pipeline.next().unwrap().unwrap();
            std::thread::sleep(Duration::from_millis(2));
            assert!(begun.load(Relaxed) <= taken + AHEAD + 1);
        }
        assert!(begun.load(Relaxed) > 20, "nothing is begun ahead");
    }

    #[test]
    fn buffers_are_used_again() {
        let mut pipeline = pipeline(None, 2, |_| Ok(()));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..200 {
            let batch = pipeline.next().unwrap().unwrap();
            seen.insert(batch.labels.as_ptr());
            pipeline.recycle(batch);
        }
        // Those begun ahead with two threads, and the one in use.
        assert!(seen.len() <= 5, "{} buffers", seen.len());
    }

    #[test]
    fn an_error_comes_at_its_batch_and_ends_the_loading() {
        for threads in [1, 3] {
            let mut pipeline = pipeline(None, threads, |number| if number == 5 { Err(anyhow!("shard torn")) } else { pause(number) });
            for number in 0..5 {
                assert_eq!(pipeline.next().unwrap().unwrap().labels, [number]);
            }
            assert_eq!(pipeline.next().unwrap_err().to_string(), "shard torn");
            assert!(pipeline.next().unwrap_err().to_string().contains("ended with an error"));
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        let mut pipeline = pipeline(None, 1, |number| if number == 1 { panic!("index {number} is bad") } else { Ok(()) });
        pipeline.next().unwrap();
        assert_eq!(pipeline.next().unwrap_err().to_string(), "loading data failed: index 1 is bad");
        assert!(pipeline.next().is_err());
    }

    #[test]
    fn threads_are_added_only_while_batches_are_waited_for() {
        let slow = |_| {
            std::thread::sleep(Duration::from_millis(3));
            Ok(())
        };
        let mut waited_for = Pipeline::new(Numbers { batches: None, act: slow }, 1..=3);
        for _ in 0..60 {
            waited_for.next().unwrap();
        }
        assert_eq!(waited_for.threads(), 3);

        // Pauses that outweigh what a busy machine may delay the thread by: the batches ahead last for tens of milliseconds.
        let mut fast_enough = Pipeline::new(Numbers { batches: None, act: |_| Ok(()) }, 1..=3);
        for _ in 0..20 {
            fast_enough.next().unwrap();
            std::thread::sleep(Duration::from_millis(25));
        }
        assert_eq!(fast_enough.threads(), 1);
    }
}
