//! What the GPU is given for a step: pixels, labels, the batch's place, and the optimisers' constants.
//!
//! Graphs have addresses, not numbers: what differs from step to step lies at places of its own. A batch goes through page-locked memory on
//! a stream of its own, so that it arrives while the updates of the step before are made; they read the activity that the batch before was
//! laid out as, not its pixels.

use anyhow::Result;

use super::gpu::{Address, Event, Gpu, Stream};
use super::kernels::arguments as c;
use super::pool::{Place, Pool};
use crate::compute::Batch;
use crate::compute::cpu::pool::Pool as Threads;

const EACH_OPTIMISER: usize = size_of::<c::Optimiser>().next_multiple_of(16);

pub struct Inbox {
    pixels: Place,
    labels: Place,
    place: Place,
    optimisers: Place,
    /// Page-locked memory for all of them, in this order.
    here: *mut u8,
    arrived: Event,
    /// Behind the last optimisers on their way.
    told: Event,
}

impl Inbox {
    /// For `samples` samples of `units` values, and so many optimisers.
    pub fn new([samples, units, optimisers]: [usize; 3], pool: &mut Pool, gpu: &dyn Gpu) -> Result<Inbox> {
        let reserved =
            [4 * samples * units, 4 * samples, size_of::<c::Place>(), optimisers * EACH_OPTIMISER].map(|bytes| pool.reserve(bytes));
        let [pixels, labels, place, optimisers] = reserved;
        let here = gpu.page_locked(reserved.iter().map(|place| place.bytes.next_multiple_of(64)).sum())?;
        Ok(Inbox { pixels, labels, place, optimisers, here, arrived: gpu.event()?, told: gpu.event()? })
    }

    /// Where a place's bytes are made up here.
    fn here(&self, place: Place) -> *mut u8 {
        let before = [self.pixels, self.labels, self.place, self.optimisers].into_iter().take_while(|other| *other != place);
        self.here.wrapping_add(before.map(|other| other.bytes.next_multiple_of(64)).sum())
    }

    pub fn pixels(&self, pool: &Pool) -> Address {
        pool.at(self.pixels)
    }

    pub fn labels(&self, pool: &Pool) -> Address {
        pool.at(self.labels)
    }

    pub fn place(&self, pool: &Pool) -> Address {
        pool.at(self.place)
    }

    pub fn optimiser(&self, number: usize, pool: &Pool) -> Address {
        pool.at(self.optimisers).offset(number * EACH_OPTIMISER)
    }

    /// Sends a batch by `copies`; what `stream` is given from now on has it, and what read the last one was waited for. `threads` copy it to where
    /// the GPU fetches it.
    pub fn send(&self, batch: &Batch, pool: &Pool, threads: &Threads, gpu: &dyn Gpu, [stream, copies]: [Stream; 2]) -> Result<()> {
        const PIECE: usize = 1 << 16;
        // What went before has been fetched; it always has, as a step is waited for.
        gpu.synchronize(self.arrived)?;
        let (to, from) = (self.here(self.pixels) as usize, batch.pixels);
        threads.run(from.len().div_ceil(PIECE), |piece| {
            let part = &from[piece * PIECE..from.len().min((piece + 1) * PIECE)];
            // SAFETY: there is room for as many pixels as the place has, which the caller has seen to fit, and each thread has pieces of
            // its own.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), (to as *mut f32).add(piece * PIECE), part.len()) };
        });
        let place = c::Place { step: batch.step as u32, step_high: (batch.step >> 32) as u32, first: batch.first as u32 };
        // SAFETY: the same of labels and place; nothing here is being fetched.
        unsafe {
            std::ptr::copy_nonoverlapping(batch.labels.as_ptr(), self.here(self.labels).cast(), batch.labels.len());
            self.here(self.place).cast::<c::Place>().write(place);
        }
        for (place, bytes) in [(self.pixels, 4 * from.len()), (self.labels, 4 * batch.labels.len()), (self.place, self.place.bytes)] {
            // SAFETY: page-locked memory that stays as it is until `arrived`, and places that were reserved for as much.
            unsafe { gpu.upload(pool.at(place), self.here(place), bytes, copies)? };
        }
        gpu.record(self.arrived, copies)?;
        gpu.wait(stream, self.arrived)
    }

    /// Sends the constants of all optimisers on `stream`.
    pub fn tell(&self, optimisers: &[c::Optimiser], pool: &Pool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        gpu.synchronize(self.told)?;
        debug_assert_eq!(optimisers.len() * EACH_OPTIMISER, self.optimisers.bytes);
        for (number, optimiser) in optimisers.iter().enumerate() {
            // SAFETY: there is room for all, of which none is being fetched.
            unsafe { self.here(self.optimisers).add(number * EACH_OPTIMISER).cast::<c::Optimiser>().write(*optimiser) };
        }
        // SAFETY: page-locked memory that stays as it is until `told`.
        unsafe { gpu.upload(pool.at(self.optimisers), self.here(self.optimisers), self.optimisers.bytes, stream)? };
        gpu.record(self.told, stream)
    }
}
