//! MPI as a transport.
//!
//! MPI is started only where a launcher has started this process. What ranks exchange in training are messages ([`transfer`]); its own
//! collectives serve what is small.

mod announced;
mod transfer;

use std::ffi::c_int;
use std::mem::ManuallyDrop;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use memmap2::MmapRaw;
use mpi::ffi;
use mpi::raw::AsRaw;
use mpi::topology::{Communicator, SimpleCommunicator};

use self::announced::Announced;
use self::transfer::Transfers;
use super::host_barrier::{self, HostBarrier};
use super::host_memory::{self, Offer, Words};
use super::transport::{Handle, Message, Single, Span, Transport};
use crate::compute::cpu::Arena;
use crate::host;
use crate::observe::{Doing, span};

const PAGE: usize = 4096;
/// Bytes of one broadcast at most: MPI's counts have 32 bits.
const PIECE: usize = 1 << 28;

/// Ranks started by an MPI launcher.
pub struct Mpi {
    world: SimpleCommunicator,
    /// The ranks of this host. Never freed: freeing is a collective call, and not allowed after the end.
    host: ManuallyDrop<SimpleCommunicator>,
    rank: usize,
    size: usize,
    uniform: bool,
    transfers: Transfers,
    /// Of this host's ranks, where they can share memory.
    barrier: Option<HostBarrier>,
    /// Memory of [`Transport::shared`] arenas.
    arenas: Mutex<Vec<MmapRaw>>,
}

/// A rank's side of memory that its host shares.
enum Mapped {
    Offered(Offer),
    Accepted(MmapRaw),
}

// SAFETY: calls come from one thread at a time (MPI is started as serialized): whoever has the turn of `transfer`.
unsafe impl Send for Mpi {}
// SAFETY: the same.
unsafe impl Sync for Mpi {}

/// MPI where this process was started by a launcher, otherwise one process alone.
pub fn connect() -> Result<Box<dyn Transport>> {
    let Some(announced) = Announced::find()? else { return Ok(Box::new(Single)) };
    let (universe, _) = mpi::initialize_with_threading(mpi::Threading::Serialized).context("MPI could not be started")?;
    let world = universe.world();
    // Ended by `finish`, and not by whichever error returns first: that would wait for the other ranks for ever.
    std::mem::forget(universe);
    let (rank, size) = (world.rank() as usize, world.size() as usize);
    announced.compare(size)?;
    let host = ManuallyDrop::new(world.split_shared(rank as i32));
    // SAFETY: a constant of the MPI that is linked, and a call on its world, which was just started, by all ranks.
    let messages = unsafe {
        let mut messages = ffi::RSMPI_COMM_NULL;
        ffi::MPI_Comm_dup(world.as_raw(), &mut messages);
        messages
    };
    let transfers = Transfers::new(messages);
    let mut mpi = Mpi { world, host, rank, size, uniform: false, transfers, barrier: None, arenas: Mutex::default() };
    mpi.uniform = mpi.is_uniform();
    mpi.barrier = mpi.make_barrier();
    Ok(Box::new(mpi))
}

impl Mpi {
    fn comm(&self) -> ffi::MPI_Comm {
        self.world.as_raw()
    }

    fn arenas(&self) -> MutexGuard<'_, Vec<MmapRaw>> {
        self.arenas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A barrier of the ranks of this host; `None` as for [`Mpi::find_memory`]. Collective.
    fn make_barrier(&self) -> Option<HostBarrier> {
        let memory = self.find_memory(size_of::<host_barrier::Shared>()).ok()??;
        let at = memory.as_mut_ptr().cast::<host_barrier::Shared>();
        std::mem::forget(memory);
        // SAFETY: zeros on a page boundary, which are one, and stay mapped.
        Some(HostBarrier::new(unsafe { &*at }, self.local().1))
    }

    /// `bytes` zeroed bytes that the ranks of this host share; `None` on a rank that is alone on its host. The error, on some of the ranks, is what
    /// some host lacks; then there is none anywhere. Collective.
    fn find_memory(&self, bytes: usize) -> Result<Option<MmapRaw>, Option<anyhow::Error>> {
        let mut lack = None;
        for make in [Offer::without_name, Offer::in_dev_shm] {
            let mine = self.offer(make, bytes);
            // An offer stands until all have accepted; where one could not, none shares.
            if !self.all_gather_words(&[u64::from(mine.is_err())]).contains(&1) {
                return Ok(mine.map_err(Some)?.map(|mapped| match mapped {
                    Mapped::Offered(offer) => offer.keep(),
                    Mapped::Accepted(memory) => memory,
                }));
            }
            // The second way's follows from what the first rank lacks, which it tells itself.
            lack = lack.or(mine.err());
        }
        Err(lack)
    }

    /// The same, with a warning where there is none. Collective.
    fn map(&self, bytes: usize) -> Option<MmapRaw> {
        let lack = match self.find_memory(bytes) {
            Ok(memory) => return memory,
            Err(lack) => lack,
        };
        // The others of the host lack the same.
        if let Some(lack) = lack.filter(|_| self.host.rank() <= 1) {
            log::warn!(
                "ranks of {} cannot share memory: {lack:#}; let them run in one container, or give it a larger /dev/shm",
                host::name()
            );
        }
        None
    }

    /// Makes memory, on the first rank of a host, and takes it, on the others; nothing on one that is alone.
    fn offer(&self, make: impl Fn(usize) -> Result<Offer>, bytes: usize) -> Result<Option<Mapped>> {
        if self.host.size() == 1 {
            return Ok(None);
        }
        let offer = if self.host.rank() == 0 { Some(make(bytes)) } else { None };
        let mut words = offer.as_ref().and_then(|offer| offer.as_ref().ok()).map_or(Words::default(), Offer::words);
        {
            let _turn = self.transfers.turn();
            let bytes = size_of::<Words>() as c_int;
            // SAFETY: `words` has `bytes` bytes on every rank of the host, all of which call.
            unsafe { ffi::MPI_Bcast(words.as_mut_ptr().cast(), bytes, ffi::RSMPI_UINT8_T, 0, self.host.as_raw()) };
        }
        match offer {
            Some(offer) => Ok(Some(Mapped::Offered(offer?))),
            None => host_memory::accept(words, bytes).map(|memory| Some(Mapped::Accepted(memory))),
        }
    }

    /// [`Transport::uniform`]. Collective.
    fn is_uniform(&self) -> bool {
        let (local, of) = self.local();
        let mut first = self.rank as u64;
        // SAFETY: a word of eight bytes on every rank of the host, all of which call, before any other thread does.
        unsafe { ffi::MPI_Bcast((&raw mut first).cast(), 8, ffi::RSMPI_UINT8_T, 0, self.host.as_raw()) };
        let in_order = self.size.is_multiple_of(of) && first as usize == self.rank - self.rank % of && local == self.rank % of;
        self.all_gather_words(&[u64::from(in_order), of as u64]).chunks_exact(2).all(|rank| rank == [1, of as u64])
    }
}

impl Transport for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> (usize, usize) {
        (self.host.rank() as usize, self.host.size() as usize)
    }

    fn uniform(&self) -> bool {
        self.uniform
    }

    fn barrier(&self) {
        let _span = span(Doing::Barrier, None);
        let _turn = self.transfers.turn();
        // SAFETY: all ranks call, in their turn.
        unsafe { ffi::MPI_Barrier(self.comm()) };
    }

    fn host_barrier(&self) {
        let _span = span(Doing::Barrier, None);
        if let Some(barrier) = &self.barrier {
            return barrier.meet();
        }
        let _turn = self.transfers.turn();
        // SAFETY: all ranks of the host call, in their turn.
        unsafe { ffi::MPI_Barrier(self.host.as_raw()) };
    }

    fn all_gather_words(&self, own: &[u64]) -> Vec<u64> {
        let _span = span(Doing::AllGather, None);
        let mut all = vec![0u64; own.len() * self.size];
        let bytes = (own.len() * 8) as c_int;
        let _turn = self.transfers.turn();
        // SAFETY: `own` has `bytes` bytes and `all` as many for each rank; all ranks call with as many.
        unsafe {
            ffi::MPI_Allgather(
                own.as_ptr().cast(),
                bytes,
                ffi::RSMPI_UINT8_T,
                all.as_mut_ptr().cast(),
                bytes,
                ffi::RSMPI_UINT8_T,
                self.comm(),
            );
        }
        all
    }

    fn accompany(&self) -> Result<()> {
        Ok(self.transfers.accompany()?)
    }

    unsafe fn begin(&self, traced: Span, sends: &[Message], receives: &[Message]) -> Handle {
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { self.transfers.begin(traced, sends, receives) }
    }

    fn wait(&self, handle: Handle) {
        self.transfers.wait(handle);
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let length = self.all_gather_words(&[bytes.len() as u64])[0] as usize;
        bytes.resize(length, 0);
        let _span = span(Doing::Broadcast, None);
        let _turn = self.transfers.turn();
        for piece in bytes.chunks_mut(PIECE) {
            // SAFETY: the piece is borrowed, and as long on all ranks, by the length that they have just gathered.
            unsafe { ffi::MPI_Bcast(piece.as_mut_ptr().cast(), piece.len() as c_int, ffi::RSMPI_UINT8_T, 0, self.comm()) };
        }
    }

    fn shared(&self, elements: &[usize]) -> Result<Option<Vec<Arena>>> {
        let _span = span(Doing::SharedMemory, None);
        // Each rank's part in pages of its own, which lie in the memory nearest to whoever touches them first.
        let ends = elements.iter().scan(0, |end, len| {
            *end += (len * 4).next_multiple_of(PAGE);
            Some(*end)
        });
        let starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
        let Some(memory) = self.map(starts[elements.len()]) else { return Ok(None) };
        let at = memory.as_mut_ptr();
        self.arenas().push(memory);
        // SAFETY: the parts lie in the memory one behind the other, page by page, and it is kept in `arenas`.
        Ok(Some(elements.iter().zip(starts).map(|(len, start)| unsafe { Arena::shared(at.add(start).cast(), *len) }).collect()))
    }

    unsafe fn release_shared(&self) {
        self.arenas().clear();
    }

    fn host_memory(&self, bytes: usize) -> Result<Option<*mut u8>> {
        let kept = |memory: MmapRaw| {
            let at = memory.as_mut_ptr();
            std::mem::forget(memory);
            at
        };
        Ok(self.map(bytes).map(kept))
    }

    fn finish(&self) {
        let _turn = self.transfers.turn();
        // SAFETY: MPI was started, and nothing calls it afterwards.
        unsafe { ffi::MPI_Finalize() };
    }

    fn abort(&self, code: i32) -> ! {
        // SAFETY: any thread may end the job: what it interrupts is over.
        unsafe { ffi::MPI_Abort(self.comm(), code) };
        std::process::exit(code)
    }
}
