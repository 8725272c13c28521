//! Messages on their way, and the thread that moves them while the rank computes.
//!
//! MPI moves nothing outside its own calls. While messages are under way a thread tests them, with a pause after each test, so that it takes
//! little of a core that computes; a rank that waits for a message tests without pause itself. MPI is started as serialized: one lock round
//! its calls, [`Transfers::turn`], which also holds what is under way.

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use biodist_process::threads;
use mpi::ffi;

use crate::exchange::transport::{Handle, Message, Span};
use crate::observe::{trace, transferred};

/// Bytes of one message of MPI's at most: its counts have 32 bits.
const PIECE: usize = 1 << 30;
/// Between two tests of the thread: far below what the system's buffers hold at the speed of a network.
const PAUSE: Duration = Duration::from_micros(50);
const TAG: c_int = 1;

struct UnderWay {
    traced: Span,
    /// Messages that are not there yet.
    left: usize,
    began: Option<trace::Time>,
}

/// What this rank's messages are at.
pub struct State {
    requests: Vec<ffi::MPI_Request>,
    /// Whose request each is.
    of: Vec<usize>,
    handles: BTreeMap<usize, UnderWay>,
    next: usize,
    /// There is a thread, or there will be.
    accompanied: bool,
    /// Somebody waits, and tests by himself.
    waiting: bool,
    /// When the last transfer ended: a link carries one after the other.
    ended: trace::Time,
    indices: Vec<c_int>,
    statuses: Vec<ffi::MPI_Status>,
}

// SAFETY: requests are handles, which any thread may use that has the lock.
unsafe impl Send for State {}

struct Shared {
    state: Mutex<State>,
    more: Condvar,
}

/// This rank's messages.
pub struct Transfers {
    shared: Arc<Shared>,
    comm: ffi::MPI_Comm,
}

impl Transfers {
    /// Over `comm`, which nothing else sends on.
    pub fn new(comm: ffi::MPI_Comm) -> Transfers {
        let state = State {
            requests: Vec::new(),
            of: Vec::new(),
            handles: BTreeMap::new(),
            next: 0,
            accompanied: false,
            waiting: false,
            ended: 0,
            indices: Vec::new(),
            statuses: Vec::new(),
        };
        Transfers { shared: Arc::new(Shared { state: Mutex::new(state), more: Condvar::new() }), comm }
    }

    /// This thread's turn to call MPI, as long as it holds what is returned.
    pub fn turn(&self) -> MutexGuard<'_, State> {
        lock(&self.shared)
    }

    /// [`Transport::accompany`](crate::exchange::Transport::accompany).
    pub fn accompany(&self) -> io::Result<()> {
        if !std::mem::replace(&mut self.turn().accompanied, true) {
            let shared = Arc::clone(&self.shared);
            threads::spawn("exchange", move || accompany(&shared))?;
        }
        Ok(())
    }

    /// [`Transport::begin`](crate::exchange::Transport::begin).
    pub unsafe fn begin(&self, traced: Span, sends: &[Message], receives: &[Message]) -> Handle {
        if sends.is_empty() && receives.is_empty() {
            // None has this number.
            return Handle(usize::MAX);
        }
        let mut state = self.turn();
        let handle = state.next;
        state.next += 1;
        let before = state.requests.len();
        for message in receives {
            for (at, bytes) in pieces(message) {
                // SAFETY: the caller keeps the memory until the wait; the turn to call MPI is this thread's.
                state.requests.push(unsafe {
                    let mut request = ffi::RSMPI_REQUEST_NULL;
                    ffi::MPI_Irecv(at.cast(), bytes, ffi::RSMPI_UINT8_T, message.rank as c_int, TAG, self.comm, &mut request);
                    request
                });
            }
        }
        for message in sends {
            for (at, bytes) in pieces(message) {
                // SAFETY: the same.
                state.requests.push(unsafe {
                    let mut request = ffi::RSMPI_REQUEST_NULL;
                    ffi::MPI_Isend(at.cast(), bytes, ffi::RSMPI_UINT8_T, message.rank as c_int, TAG, self.comm, &mut request);
                    request
                });
            }
        }
        let left = state.requests.len() - before;
        state.of.extend(std::iter::repeat_n(handle, left));
        if left > 0 {
            state.handles.insert(handle, UnderWay { traced, left, began: trace::now() });
            drop(state);
            self.shared.more.notify_one();
        }
        Handle(handle)
    }

    /// [`Transport::wait`](crate::exchange::Transport::wait).
    pub fn wait(&self, handle: Handle) {
        let mut state = self.turn();
        while state.handles.contains_key(&handle.0) {
            state.waiting = true;
            if !state.test() {
                drop(state);
                std::thread::yield_now();
                state = self.turn();
            }
        }
        state.waiting = false;
        if !state.requests.is_empty() {
            drop(state);
            self.shared.more.notify_one();
        }
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A message in pieces that MPI can count. One without bytes needs none.
fn pieces(message: &Message) -> impl Iterator<Item = (*mut u8, c_int)> + '_ {
    (0..message.bytes).step_by(PIECE).map(|from| (message.at.wrapping_add(from), (message.bytes - from).min(PIECE) as c_int))
}

/// Moves what is under way, as long as nobody waits for it.
fn accompany(shared: &Shared) {
    // The system rounds sleeps up by 50 µs unless it is told not to.
    // SAFETY: takes a number, and concerns this thread alone.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
    loop {
        let mut state = lock(shared);
        while state.requests.is_empty() || state.waiting {
            state = shared.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let moved = state.test();
        drop(state);
        if !moved {
            std::thread::sleep(PAUSE);
        }
    }
}

impl State {
    /// Lets MPI move what it can; whether a message has ended by it.
    fn test(&mut self) -> bool {
        let count = self.requests.len();
        self.indices.resize(count, 0);
        // SAFETY: a status is made of integers, for which zeros are values.
        self.statuses.resize(count, unsafe { std::mem::zeroed() });
        let mut ended = 0;
        let (indices, statuses) = (self.indices.as_mut_ptr(), self.statuses.as_mut_ptr());
        // SAFETY: as many requests, indices and statuses as `count` says; whoever has the state has the turn to call
        // MPI.
        unsafe { ffi::MPI_Testsome(count as c_int, self.requests.as_mut_ptr(), &mut ended, indices, statuses) };
        // None are left, or none has ended.
        let ended = usize::try_from(ended).unwrap_or(0).min(count);
        self.indices.truncate(ended);
        self.indices.sort_unstable();
        while let Some(index) = self.indices.pop() {
            self.requests.swap_remove(index as usize);
            let handle = self.of.swap_remove(index as usize);
            let Some(under_way) = self.handles.get_mut(&handle) else { continue };
            under_way.left -= 1;
            if under_way.left == 0 {
                let Some(UnderWay { traced, began, .. }) = self.handles.remove(&handle) else { continue };
                if let (Some(began), Some(now)) = (began, trace::now()) {
                    transferred(traced.doing, traced.layer, began.max(self.ended), now);
                    self.ended = now;
                }
            }
        }
        ended > 0
    }
}
