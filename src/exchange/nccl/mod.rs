//! NCCL: collective operations between GPUs.
//!
//! Its functions are bound by `libloading` when a run needs them, so that the program starts where NCCL is missing (why not by cudarc:
//! see [`crate::compute::cuda::libraries`]). Each rank has one communicator on one GPU; the ranks find each other by an id that goes round
//! by MPI. Operations go to a stream of their own, so that they run beside the stream that computes, ours or libtorch's; events order the
//! two: an operation begins when its input has been made, and the other stream goes on when it asks for the result.
//!
//! An operation that never ends, because another rank has, would keep the GPU busy for ever: errors are polled while this side waits, and
//! at the time-out the communicator is aborted, which ends it.
//!
//! All of this is tested without a GPU against a stand-in; **nothing of it has been timed on GPUs yet**.

mod library;
#[cfg(all(test, feature = "torch"))]
mod tests;

use std::any::Any;
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};

pub use self::library::Communicator;
use self::library::{Id, Library};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::{Event, Gpu, Stream};
use crate::exchange::settings::TransportChoice;
use crate::exchange::{Handle, NCCL_WITHOUT_GPU, Span, Transport};
use crate::exit::Exit;
use crate::observe::{trace, transferred};

/// What an NCCL function returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status(pub i32);

impl Status {
    pub const SUCCESS: Status = Status(0);
    const IN_PROGRESS: Status = Status(7);

    /// In words, with what usually helps.
    fn meaning(self) -> String {
        match self.0 {
            0 => "no error".to_owned(),
            1 => "a CUDA call failed; the GPU may be out of memory or have failed (see `nvidia-smi` and the kernel's log)".to_owned(),
            2 => {
                "a call of the operating system failed: check the network (NCCL_SOCKET_IFNAME chooses the interface) and, in a container, \
                  the size of /dev/shm; NCCL_DEBUG=INFO says more"
                    .to_owned()
            }
            3 => "an error inside NCCL; NCCL_DEBUG=INFO says more".to_owned(),
            4 | 5 => "NCCL was called wrongly, which also happens where ranks have different versions of it".to_owned(),
            6 => "another rank has ended, or the connection to it broke; the first rank to fail says why".to_owned(),
            7 => "still in progress".to_owned(),
            other => format!("error {other}"),
        }
    }
}

/// What is exchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    F32,
    Bf16,
}

impl Element {
    pub fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::Bf16 => 2,
        }
    }
}

/// What one call moves: `count` elements of `own`, and as many for each rank of `all`, in memory of the device.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub own: *mut c_void,
    pub all: *mut c_void,
    pub count: usize,
    pub element: Element,
}

/// What [`Nccl`] calls: NCCL and the driver, or a stand-in.
#[allow(clippy::missing_safety_doc)]
pub trait Calls {
    /// Pointers are to memory of the device that is valid until the operation has ended: `count` elements for `own`, as many for each
    /// rank for `all`.
    unsafe fn all_gather(&self, own: *const c_void, all: *mut c_void, count: usize, element: Element, stream: Stream) -> Status;
    /// Likewise.
    unsafe fn reduce_scatter(&self, all: *const c_void, own: *mut c_void, count: usize, element: Element, stream: Stream) -> Status;
    fn group_start(&self) -> Status;
    fn group_end(&self) -> Status;
    /// An error that came up after a call had returned.
    fn async_error(&self) -> Status;
    /// Ends what is under way; nothing can be called afterwards.
    fn abort(&self);
    /// What the library says about its last error.
    fn details(&self) -> String;
    fn stream(&self) -> Result<Stream>;
    fn event(&self) -> Result<Event>;
    fn record(&self, event: Event, stream: Stream) -> Result<()>;
    fn wait(&self, stream: Stream, event: Event) -> Result<()>;
    fn passed(&self, event: Event) -> Result<bool>;
    /// Between two events that the device has passed.
    fn seconds(&self, from: Event, to: Event) -> Result<f64>;
}

/// An operation that was begun.
struct Operation {
    traced: Span,
    /// Where a trace is recorded.
    started: Option<Event>,
    done: Event,
    /// What keeps the memory, until then.
    _kept: Box<dyn Any>,
}

/// Collective operations on a stream of their own. What they are given stays as it is until they were waited for.
pub struct Nccl<C> {
    calls: C,
    rank: usize,
    size: usize,
    stream: Stream,
    /// That which computes.
    main: Stream,
    timeout: Duration,
    /// Since the last [`Nccl::finish`].
    begun: Vec<Operation>,
    /// Events to be used again.
    free: Vec<Event>,
    aborted: bool,
    /// Whether a trace is recorded.
    traced: bool,
}

/// What ranks on GPUs exchange by, in words.
pub const BY_NCCL: &str = "NCCL, between GPUs";
pub const BY_MPI: &str = "MPI, through the hosts' memory";

/// How the GPUs of all ranks reach each other.
pub enum Joined {
    /// There is one rank.
    Alone,
    ByNccl(Box<Nccl<Communicator>>),
    ByMpi,
}

/// Joins the ranks' GPUs in the way that `choice` says; `driver` is that of this rank's, where it is one, which computes on `main`. Collective.
pub fn join(
    driver: Option<&Rc<Driver>>,
    main: Stream,
    transport: &Arc<dyn Transport>,
    choice: TransportChoice,
    stall_timeout: f64,
) -> Result<Joined> {
    let required = choice == TransportChoice::Nccl;
    if required && driver.is_none() {
        return Err(Exit::Usage.error(NCCL_WITHOUT_GPU));
    }
    if transport.size() == 1 {
        return Ok(Joined::Alone);
    }
    let by_nccl = match driver {
        Some(driver) if choice != TransportChoice::Mpi => {
            // The watchdog knows more of a stall, and is to speak first.
            connect(driver, main, transport, Duration::from_secs_f64(stall_timeout + 15.0), required)?
        }
        _ => None,
    };
    Ok(by_nccl.map_or(Joined::ByMpi, |nccl| Joined::ByNccl(Box::new(nccl))))
}

/// NCCL among all ranks of `transport`, this one on `driver`'s GPU, which computes on `main`; `None` where some rank cannot use it and none
/// needs to. Waits end after `timeout`. Collective, and so are its errors.
pub fn connect(
    driver: &Rc<Driver>,
    main: Stream,
    transport: &Arc<dyn Transport>,
    timeout: Duration,
    required: bool,
) -> Result<Option<Nccl<Communicator>>> {
    let ready = Library::load().and_then(|library| Ok((library.version()? as u64, driver.uuid()?, library)));
    let own = ready.as_ref().map_or([0; 3], |(version, uuid, _)| {
        let [one, other] = identity(*uuid, std::env::var("NCCL_HOSTID").ok().as_deref());
        [*version, one, other]
    });
    // Whatever happens from here on must happen on all ranks alike, or some would wait for the others for ever.
    let of_ranks = transport.all_gather_words(&own);
    let (versions, gpus): (Vec<u64>, Vec<[u64; 2]>) = of_ranks.chunks_exact(3).map(|words| (words[0], [words[1], words[2]])).unzip();
    if let Some(rank) = versions.iter().position(|version| *version == 0) {
        let here = ready.err().map_or(String::new(), |error| format!(" (here: {error:#})"));
        let message = format!("NCCL cannot be used on rank {rank}{here}");
        if required {
            let advice = "`GPU=yes make setup` installs it; or use \"mpi\"";
            return Err(Exit::Usage.error(format!("parallel.backend = \"nccl\": {message}; {advice}")));
        }
        log::warn!("{message}; GPUs exchange through the hosts' memory and MPI, which is slow");
        return Ok(None);
    }
    agree(&versions, &gpus)?;
    let (_, _, library) = ready?;
    let (rank, size) = (transport.rank(), transport.size());
    let own = if rank == 0 { library.id() } else { Err(anyhow!("rank 0 could not begin; it says why")) };
    let mut bytes = own.as_ref().map_or(Vec::new(), |id| id.0.to_vec());
    transport.broadcast(&mut bytes);
    let Ok(id) = <[u8; Id::BYTES]>::try_from(bytes) else {
        return Err(own.err().unwrap_or_else(|| anyhow!("an id is {} bytes", Id::BYTES)));
    };
    let communicator = Communicator::join(library, driver.clone(), Id(id), rank, size)?;
    Nccl::new(communicator, main, rank, size, timeout).map(Some)
}

/// What tells a GPU from those of other ranks. NCCL takes ranks for as many hosts as `NCCL_HOSTID` names, and the same GPU on two of them for
/// two GPUs: it then goes through sockets, which is how it is tried with one.
pub(super) fn identity(uuid: [u8; 16], host: Option<&str>) -> [u64; 2] {
    let half = |at: usize| u64::from_le_bytes(uuid[at..at + 8].try_into().expect("eight bytes"));
    [half(0), half(8) ^ host.map_or(0, |host| u64::from(crc32fast::hash(host.as_bytes())))]
}

/// Refuses ranks that NCCL cannot join: two on one GPU, or different versions.
fn agree(versions: &[u64], gpus: &[[u64; 2]]) -> Result<()> {
    if let Some(other) = versions.iter().position(|version| *version != versions[0]) {
        return Err(Exit::Usage.error(format!(
            "rank 0 has NCCL {}, rank {other} has {}: all hosts need the same libtorch and NVIDIA libraries",
            versions[0], versions[other]
        )));
    }
    for (rank, gpu) in gpus.iter().enumerate() {
        if let Some(first) = gpus[..rank].iter().position(|other| other == gpu) {
            return Err(Exit::Usage.error(format!(
                "ranks {first} and {rank} would use the same GPU, which NCCL does not support: start as many ranks on a host as it has GPUs, \
                 or set parallel.backend = \"mpi\" to let ranks share GPUs and exchange through the host's memory"
            )));
        }
    }
    Ok(())
}

impl<C: Calls> Nccl<C> {
    pub(super) fn new(calls: C, main: Stream, rank: usize, size: usize, timeout: Duration) -> Result<Nccl<C>> {
        let stream = calls.stream()?;
        let traced = trace::now().is_some();
        Ok(Nccl { calls, rank, size, stream, main, timeout, begun: Vec::new(), free: Vec::new(), aborted: false, traced })
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// The piece in which this rank's `bytes` lie among those of all ranks, from `at`.
    pub fn piece(&self, at: u64, bytes: usize, element: Element) -> Piece {
        let all = at as *mut c_void;
        Piece { own: all.wrapping_byte_add(self.rank * bytes), all, count: bytes / element.bytes(), element }
    }

    /// Gives `operations` to the stream, behind what the other has been given so far. `kept` keeps what they use.
    fn begin(&mut self, what: &str, traced: Span, kept: Box<dyn Any>, operations: impl FnOnce(&C, Stream) -> Status) -> Result<Handle> {
        ensure!(!self.aborted, "NCCL was aborted after an error");
        let (ready, done) = (self.take_event()?, self.take_event()?);
        self.calls.record(ready, self.main)?;
        self.calls.wait(self.stream, ready)?;
        // The stream waits for the event as it is now; it may be recorded again at once.
        self.free.push(ready);
        let started = if self.traced { Some(self.take_event()?) } else { None };
        started.map_or(Ok(()), |event| self.calls.record(event, self.stream))?;
        let status = operations(&self.calls, self.stream);
        if status != Status::SUCCESS && status != Status::IN_PROGRESS {
            return Err(self.fail(what, status));
        }
        self.calls.record(done, self.stream)?;
        self.begun.push(Operation { traced, started, done, _kept: kept });
        Ok(Handle(self.begun.len() - 1))
    }

    fn take_event(&mut self) -> Result<Event> {
        self.free.pop().map_or_else(|| self.calls.event(), Ok)
    }

    /// What was transferred between which two seconds before the last operation's end, now that all have ended.
    fn spans(&self) -> Result<Vec<(Span, f64, f64)>> {
        let Some(last) = self.begun.last() else { return Ok(Vec::new()) };
        let before = |event: Event| self.calls.seconds(event, last.done);
        let span = |one: &Operation| one.started.map(|started| Ok((one.traced, before(started)?, before(one.done)?)));
        self.begun.iter().filter_map(span).collect()
    }

    /// Aborts, and says why.
    fn fail(&mut self, what: &str, status: Status) -> anyhow::Error {
        let error = anyhow!("NCCL's {what} failed on rank {}: {}{}", self.rank, status.meaning(), self.calls.details());
        self.end();
        error
    }

    fn end(&mut self) {
        if !self.aborted {
            self.aborted = true;
            self.calls.abort();
        }
    }
}

impl<C: Calls> Nccl<C> {
    /// For each piece: every rank's `own` to all ranks, in the order of ranks. `own` may be this rank's place in `all`.
    ///
    /// # Safety
    /// The pieces are memory of the device, which `kept` keeps.
    pub unsafe fn gather(&mut self, traced: Span, pieces: &[Piece], kept: Box<dyn Any>) -> Result<Handle> {
        self.begin("all-gather", traced, kept, |calls, stream| {
            // SAFETY: as the caller promises.
            let one = |piece: &Piece| unsafe { calls.all_gather(piece.own, piece.all, piece.count, piece.element, stream) };
            grouped(calls, pieces.iter().map(one))
        })
    }

    /// For each piece: the sum over ranks of `all`, of which each rank gets its part in `own`.
    ///
    /// # Safety
    /// The same.
    pub unsafe fn scatter(&mut self, traced: Span, pieces: &[Piece], kept: Box<dyn Any>) -> Result<Handle> {
        self.begin("reduce-scatter", traced, kept, |calls, stream| {
            // SAFETY: as the caller promises.
            let one = |piece: &Piece| unsafe { calls.reduce_scatter(piece.all, piece.own, piece.count, piece.element, stream) };
            grouped(calls, pieces.iter().map(one))
        })
    }

    /// What the other stream is given from now on waits for the operation.
    pub fn await_on_device(&mut self, handle: Handle) -> Result<()> {
        let operation = self.begun.get(handle.0).ok_or_else(|| anyhow!("operation {} is not under way", handle.0))?;
        self.calls.wait(self.main, operation.done)
    }

    /// Waits here until all operations are done. Fails where one has, or does not end in time.
    pub fn finish(&mut self) -> Result<()> {
        let started = Instant::now();
        let Some(last) = self.begun.last().map(|operation| operation.done) else { return Ok(()) };
        while !self.calls.passed(last)? {
            let status = self.calls.async_error();
            if status != Status::SUCCESS && status != Status::IN_PROGRESS {
                return Err(self.fail("exchange", status));
            }
            if started.elapsed() > self.timeout {
                self.end();
                return Err(Exit::Stalled.error(format!(
                    "rank {}: an exchange by NCCL has not ended in {} s, past parallel.stall_timeout: another rank has stopped, or the network has",
                    self.rank,
                    self.timeout.as_secs_f64()
                )));
            }
            // Most waits are far shorter than a sleep.
            if started.elapsed() < Duration::from_millis(20) {
                std::thread::yield_now()
            } else {
                std::thread::sleep(Duration::from_micros(100))
            }
        }
        if let (true, Some(now)) = (self.traced, trace::now()) {
            let ago = |seconds: f64| now.saturating_sub((seconds * 1e9) as trace::Time);
            for (traced, from, to) in self.spans()? {
                transferred(traced.doing, traced.layer, ago(from), ago(to));
            }
        }
        self.free.extend(self.begun.drain(..).flat_map(|operation| operation.started.into_iter().chain([operation.done])));
        Ok(())
    }
}

/// Runs calls as one operation, and returns the first status that is not success.
fn grouped<C: Calls>(calls: &C, operations: impl Iterator<Item = Status>) -> Status {
    let mut status = calls.group_start();
    for one in operations {
        if status == Status::SUCCESS {
            status = one;
        }
    }
    let end = calls.group_end();
    if status == Status::SUCCESS { end } else { status }
}
