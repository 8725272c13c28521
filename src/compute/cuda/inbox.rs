//! What the GPU is given for a step: pixels, labels, the batch's place and what scales it, and the optimisers' constants.
//!
//! Graphs have addresses, not numbers: what differs from step to step lies at places of its own. A batch goes through page-locked memory on
//! a stream of its own, so that it arrives while the updates of the step before are made; they read the activity that the batch before was
//! laid out as, not its pixels.

use std::cell::OnceCell;

use anyhow::Result;

use super::gpu::{Address, Event, Gpu, Stream};
use super::kernels::arguments as c;
use super::pool::{Place, Pool};
use crate::compute::cpu::pool::Pool as Threads;
use crate::compute::{Batch, Pixels};

const EACH_OPTIMIZER: usize = size_of::<c::Optimizer>().next_multiple_of(16);

pub struct Inbox {
    pixels: Place,
    labels: Place,
    /// Place, scales and shifts.
    place: Place,
    optimizers: Place,
    /// Page-locked memory for all but pixels, in this order.
    here: *mut u8,
    /// The same for pixels, as bytes and as floats, taken when the first come: mostly bytes alone do.
    pixels_here: [OnceCell<*mut u8>; 2],
    channels: usize,
    arrived: Event,
    /// Behind the last optimisers on their way.
    told: Event,
}

impl Inbox {
    /// For `samples` samples of `units` values in so many channels, and so many optimisers.
    pub fn new([samples, units, channels, optimizers]: [usize; 4], pool: &mut Pool, gpu: &dyn Gpu) -> Result<Inbox> {
        let place = size_of::<c::Place>() + 8 * channels;
        let reserved = [4 * samples * units, 4 * samples, place, optimizers * EACH_OPTIMIZER].map(|bytes| pool.reserve(bytes));
        let [pixels, labels, place, optimizers] = reserved;
        let here = gpu.page_locked(reserved[1..].iter().map(|place| place.bytes.next_multiple_of(64)).sum())?;
        let (arrived, told) = (gpu.event()?, gpu.event()?);
        Ok(Inbox { pixels, labels, place, optimizers, here, pixels_here: Default::default(), channels, arrived, told })
    }

    /// Where a place's bytes are made up here.
    fn here(&self, place: Place) -> *mut u8 {
        let before = [self.labels, self.place, self.optimizers].into_iter().take_while(|other| *other != place);
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

    /// The scales of bytes, number 0, or their shifts, number 1, by channel.
    pub fn scaling(&self, number: usize, pool: &Pool) -> Address {
        pool.at(self.place).offset(size_of::<c::Place>() + 4 * number * self.channels)
    }

    pub fn optimizer(&self, number: usize, pool: &Pool) -> Address {
        pool.at(self.optimizers).offset(number * EACH_OPTIMIZER)
    }

    /// Sends a batch by `copies`; what `stream` is given from now on has it, and what read the last one was waited for. `threads` copy it to where
    /// the GPU fetches it.
    pub fn send(&self, batch: &Batch, pool: &Pool, threads: &Threads, gpu: &dyn Gpu, [stream, copies]: [Stream; 2]) -> Result<()> {
        const PIECE: usize = 1 << 18;
        let (pixel, scaling) = match batch.pixels {
            Pixels::Floats(_) => (4, [&[][..]; 2]),
            Pixels::Bytes { scale, shift, .. } => (1, [scale, shift]),
        };
        let colours = scaling[0].len() as u32;
        let of_kind = &self.pixels_here[usize::from(pixel == 4)];
        if of_kind.get().is_none() {
            let _ = of_kind.set(gpu.page_locked(self.pixels.bytes / 4 * pixel)?);
        }
        let pixels_here = *of_kind.get().expect("it was taken just now, or before");
        // What went before has been fetched; it always has, as a step is waited for.
        gpu.synchronize(self.arrived)?;
        let (to, from) = (pixels_here as usize, batch.pixels.bytes());
        threads.run(from.len().div_ceil(PIECE), |piece| {
            let part = &from[piece * PIECE..from.len().min((piece + 1) * PIECE)];
            // SAFETY: there is room for as many pixels as the place has, which the caller has seen to fit, and each thread has pieces of
            // its own.
            unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), (to as *mut u8).add(piece * PIECE), part.len()) };
        });
        let place = c::Place { step: batch.step as u32, step_high: (batch.step >> 32) as u32, first: batch.first as u32, colours };
        // SAFETY: the same of labels, place and what scales each channel; nothing here is being fetched.
        unsafe {
            std::ptr::copy_nonoverlapping(batch.labels.as_ptr(), self.here(self.labels).cast(), batch.labels.len());
            let place_here = self.here(self.place).cast::<c::Place>();
            place_here.write(place);
            let scaling_here = place_here.add(1).cast::<f32>();
            for (number, values) in scaling.into_iter().enumerate() {
                std::ptr::copy_nonoverlapping(values.as_ptr(), scaling_here.add(number * self.channels), values.len());
            }
        }
        let [labels, place] = [self.labels, self.place].map(|place| self.here(place));
        let all =
            [(self.pixels, pixels_here, from.len()), (self.labels, labels, 4 * batch.labels.len()), (self.place, place, self.place.bytes)];
        for (place, here, bytes) in all {
            // SAFETY: page-locked memory that stays as it is until `arrived`, and places that were reserved for as much.
            unsafe { gpu.upload(pool.at(place), here, bytes, copies)? };
        }
        gpu.record(self.arrived, copies)?;
        gpu.wait(stream, self.arrived)
    }

    /// Sends the constants of all optimisers on `stream`.
    pub fn tell(&self, optimizers: &[c::Optimizer], pool: &Pool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        gpu.synchronize(self.told)?;
        debug_assert_eq!(optimizers.len() * EACH_OPTIMIZER, self.optimizers.bytes);
        for (number, optimizer) in optimizers.iter().enumerate() {
            // SAFETY: there is room for all, of which none is being fetched.
            unsafe { self.here(self.optimizers).add(number * EACH_OPTIMIZER).cast::<c::Optimizer>().write(*optimizer) };
        }
        // SAFETY: page-locked memory that stays as it is until `told`.
        unsafe { gpu.upload(pool.at(self.optimizers), self.here(self.optimizers), self.optimizers.bytes, stream)? };
        gpu.record(self.told, stream)
    }
}
