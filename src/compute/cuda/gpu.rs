//! What the backend asks of a GPU.
//!
//! A trait, because all of it but the arithmetic must be tried where there is no GPU: the driver does it on one, and a stand-in of the
//! tests on plain memory, which runs each stream as late or as early as its waits allow, and refuses in a capture what CUDA refuses.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::ptr;

use anyhow::Result;

use super::kernels::Kernel;
use super::kernels::launches::Launch;

/// A stream; [`Stream::LIBTORCH`] is the one that libtorch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stream(pub *mut c_void);

impl Stream {
    pub const LIBTORCH: Stream = Stream(ptr::null_mut());
}

/// A point in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event(pub *mut c_void);

/// A compiled kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Function(pub *mut c_void);

/// What a stream was given while it was captured, to be given again at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Graph(pub *mut c_void);

/// Memory of the GPU. Nobody but the GPU looks into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address(pub u64);

impl Address {
    pub const NULL: Address = Address(0);

    /// `bytes` further on.
    pub fn offset(self, bytes: usize) -> Address {
        Address(self.0 + bytes as u64)
    }
}

/// One GPU. What it is given on a stream it does in order, later; errors that it meets come out of any later call.
///
/// While a stream is captured it does nothing of it, and what would wait for it, or take memory, is an error.
pub trait Gpu {
    /// Major and minor number of the compute capability.
    fn capability(&self) -> Result<(i32, i32)>;

    /// Such as "NVIDIA H200".
    fn name(&self) -> Result<String>;

    /// What tells this GPU from every other.
    fn uuid(&self) -> Result<[u8; 16]>;

    /// Bytes that are free, and all.
    fn memory(&self) -> Result<(u64, u64)>;

    /// Memory of the GPU, until [`Gpu::release`].
    fn allocate(&self, bytes: usize) -> Result<Address>;

    /// Gives back what [`Gpu::allocate`] gave, and waits for those that use it.
    fn release(&self, at: Address) -> Result<()>;

    /// Zeroed memory of the host that the GPU reaches by itself, for as long as the process lives.
    fn page_locked(&self, bytes: usize) -> Result<*mut u8>;

    /// A stream that waits for no other by itself.
    fn stream(&self) -> Result<Stream>;

    fn event(&self) -> Result<Event>;

    /// Makes kernels ready to be launched, each once.
    fn load(&self, kernels: &BTreeSet<Kernel>) -> Result<()>;

    /// # Safety
    /// `from` holds `bytes`, unchanged until the stream has come past this, and `to` has room for them.
    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize, stream: Stream) -> Result<()>;

    /// # Safety
    /// `from` holds `bytes`, and `to` has room for them until the stream has come past this.
    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize, stream: Stream) -> Result<()>;

    /// # Safety
    /// Both are memory of the GPU, of `bytes`, and do not overlap.
    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: Stream) -> Result<()>;

    /// Zeroes.
    ///
    /// # Safety
    /// There are so many bytes, a multiple of four.
    unsafe fn clear(&self, at: Address, bytes: usize, stream: Stream) -> Result<()>;

    /// # Safety
    /// The kernel was loaded, and what its arguments point to is as large as it takes it for.
    unsafe fn start(&self, launch: &Launch, stream: Stream) -> Result<()>;

    /// Puts `event` behind what `stream` has been given so far; in a graph, each time it is replayed.
    fn record(&self, event: Event, stream: Stream) -> Result<()>;

    /// What `stream` is given from now on waits for `event`.
    fn wait(&self, stream: Stream, event: Event) -> Result<()>;

    /// Whether the GPU has passed `event`.
    fn passed(&self, event: Event) -> Result<bool>;

    /// Waits on this thread until the GPU has passed `event`.
    fn synchronize(&self, event: Event) -> Result<()>;

    /// Seconds between two events that the GPU has passed.
    fn seconds(&self, from: Event, to: Event) -> Result<f64>;

    fn begin_capture(&self, stream: Stream) -> Result<()>;

    fn end_capture(&self, stream: Stream) -> Result<Graph>;

    /// Gives `stream` all that the graph was captured from.
    ///
    /// # Safety
    /// What its operations need still holds.
    unsafe fn replay(&self, graph: Graph, stream: Stream) -> Result<()>;
}
