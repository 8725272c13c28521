//! How ranks reach each other: messages that travel while a rank computes, and the few collectives that training needs beside them, over MPI
//! or within one process.

use std::ops::Range;

use anyhow::Result;

use crate::compute::cpu::Arena;
use crate::observe::{Doing, span};

/// Bytes to or from one rank. Memory is the caller's, and stays as it is until the handle was waited for.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    pub rank: usize,
    pub at: *mut u8,
    pub bytes: usize,
}

impl Message {
    /// Elements `range` of `buffer`, which is not touched before [`Transport::begin`].
    pub fn of(rank: usize, buffer: *mut f32, range: &Range<usize>) -> Message {
        Message { rank, at: buffer.wrapping_add(range.start).cast(), bytes: range.len() * size_of::<f32>() }
    }
}

/// Messages that travel together, until [`Transport::wait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle(pub usize);

/// What a transfer is in a trace.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub doing: Doing,
    pub layer: Option<usize>,
}

/// All ranks but `rank`, from the one after it on: each rank begins with another.
pub fn others(rank: usize, size: usize) -> impl Iterator<Item = usize> {
    (1..size).map(move |distance| (rank + distance) % size)
}

/// A range of `each` elements for each of `size` ranks, one after another.
pub fn equal_ranges(size: usize, each: usize) -> Vec<Range<usize>> {
    (0..size).map(|rank| rank * each..(rank + 1) * each).collect()
}

/// Operations among all ranks. Every rank must make the same calls in the same order.
///
/// Buffers are float32; a rank's part of a buffer is a range of elements.
pub trait Transport: Send + Sync {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Rank and number of ranks on this host.
    fn local(&self) -> (usize, usize);

    /// Whether all hosts have as many ranks as this one, and ranks go host by host.
    fn uniform(&self) -> bool {
        self.local().1 == self.size()
    }

    fn barrier(&self);

    /// Waits for the ranks of this host alone.
    fn host_barrier(&self) {
        self.barrier();
    }

    /// Every rank's `own` (of equal length), in the order of ranks.
    fn all_of(&self, own: &[f32]) -> Vec<f32> {
        let mut all = vec![0.0; own.len() * self.size()];
        let ranges = equal_ranges(self.size(), own.len());
        all[ranges[self.rank()].clone()].copy_from_slice(own);
        // SAFETY: `all` is borrowed for as long, and holds the ranges of all ranks.
        unsafe { self.all_gather_ranges(all.as_mut_ptr(), &ranges) };
        all
    }

    /// The same for whole numbers.
    fn all_gather_words(&self, own: &[u64]) -> Vec<u64>;

    /// From now on a thread, on the CPUs that this one has now, moves messages while the rank computes; before, they move where they are
    /// waited for.
    ///
    /// # Errors
    /// A thread that the system has not to give.
    fn accompany(&self) -> Result<()> {
        Ok(())
    }

    /// Begins to exchange messages with other ranks. What one rank sends another, that one receives, in the same order and of the same
    /// lengths.
    ///
    /// # Safety
    /// Memory is valid until the wait has returned; until then what is sent does not change, and nobody else uses what is received.
    unsafe fn begin(&self, traced: Span, sends: &[Message], receives: &[Message]) -> Handle;

    /// Returns when all messages of the handle were sent and received.
    fn wait(&self, handle: Handle);

    /// Every rank's range of `buffer` to all ranks, in place.
    ///
    /// # Safety
    /// `buffer` must hold all ranges.
    unsafe fn all_gather_ranges(&self, buffer: *mut f32, ranges: &[Range<usize>]) {
        let _span = span(Doing::AllGather, None);
        let others = || others(self.rank(), self.size());
        let sends: Vec<Message> = others().map(|rank| Message::of(rank, buffer, &ranges[self.rank()])).collect();
        let receives: Vec<Message> = others().map(|rank| Message::of(rank, buffer, &ranges[rank])).collect();
        // SAFETY: the caller's buffer holds the ranges, which do not overlap, until the wait below.
        let handle = unsafe { self.begin(Span { doing: Doing::AllGather, layer: None }, &sends, &receives) };
        self.wait(handle);
    }

    /// Every rank's range of `buffer` to rank 0, in place.
    ///
    /// # Safety
    /// `buffer` must hold all ranges on rank 0, and its own range on the others.
    unsafe fn gather_ranges(&self, buffer: *mut f32, ranges: &[Range<usize>]) {
        let _span = span(Doing::Gather, None);
        let traced = Span { doing: Doing::Gather, layer: None };
        let handle = if self.rank() == 0 {
            let receives: Vec<Message> = (1..self.size()).map(|rank| Message::of(rank, buffer, &ranges[rank])).collect();
            // SAFETY: as the caller promises; waited for below.
            unsafe { self.begin(traced, &[], &receives) }
        } else {
            // SAFETY: as the caller promises; waited for below.
            unsafe { self.begin(traced, &[Message::of(0, buffer, &ranges[self.rank()])], &[]) }
        };
        self.wait(handle);
    }

    /// Rank 0's bytes to all.
    fn broadcast(&self, bytes: &mut Vec<u8>);

    /// `elements[r]` zeroed elements of this host's r-th rank in memory that all ranks of the host see, in their order; `None` where those
    /// of some host cannot share any, and on a rank that is alone on its host. Collective among all ranks, which all name as many elements.
    fn shared(&self, elements: &[usize]) -> Result<Option<Vec<Arena>>>;

    /// Gives the memory of all [`Transport::shared`] arenas back. Collective.
    ///
    /// # Safety
    /// No such arena is used any more.
    unsafe fn release_shared(&self);

    /// `bytes` zeroed bytes that the ranks of this host share, for as long as the process lives; `None` where they share none. Collective.
    fn host_memory(&self, _bytes: usize) -> Result<Option<*mut u8>> {
        Ok(None)
    }

    /// Takes leave in good order, with any exit code; launchers take a process that ends without it for a failed one. Collective, and the last
    /// call of all.
    fn finish(&self);

    /// Ends the whole job at once, with this rank's `code`.
    fn abort(&self, code: i32) -> !;
}

/// One process alone.
pub struct Single;

impl Transport for Single {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn local(&self) -> (usize, usize) {
        (0, 1)
    }

    fn barrier(&self) {}

    fn all_gather_words(&self, own: &[u64]) -> Vec<u64> {
        own.to_vec()
    }

    unsafe fn begin(&self, _traced: Span, sends: &[Message], receives: &[Message]) -> Handle {
        assert!(sends.is_empty() && receives.is_empty(), "there is no other rank");
        Handle(0)
    }

    fn wait(&self, _handle: Handle) {}

    fn broadcast(&self, _bytes: &mut Vec<u8>) {}

    fn shared(&self, _elements: &[usize]) -> Result<Option<Vec<Arena>>> {
        Ok(None)
    }

    unsafe fn release_shared(&self) {}

    fn finish(&self) {}

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}
