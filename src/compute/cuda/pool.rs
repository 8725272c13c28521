//! The GPU's memory: one piece, taken before the first step, so that a step takes none and what does not fit is known at the start.

use anyhow::Result;

use super::failure::Failure;
use super::gpu::{Address, Gpu};
use crate::exit::Exit;
use crate::text::plural;

/// Of which kernels read whole lines.
const ALIGNMENT: usize = 256;

/// Bytes within the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    start: usize,
    pub bytes: usize,
}

/// Places are reserved first; addresses they have when the pool was taken.
#[derive(Default)]
pub struct Pool {
    bytes: usize,
    base: Option<Address>,
}

impl Pool {
    pub fn reserve(&mut self, bytes: usize) -> Place {
        assert!(self.base.is_none(), "memory is reserved before it is taken");
        let place = Place { start: self.bytes, bytes };
        self.bytes += bytes.next_multiple_of(ALIGNMENT);
        place
    }

    /// Bytes that were reserved.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes what was reserved from `gpu`; `samples` is the batch that it is for.
    pub fn take(&mut self, gpu: &dyn Gpu, samples: usize) -> Result<()> {
        let (free, total) = gpu.memory()?;
        let needed = self.bytes as u64;
        let full = |exit: Exit| {
            let gib = |bytes: u64| format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30));
            exit.error(format!(
                "the GPU's memory is full: this network needs {} for {samples} sample{} a GPU, and {} of {} are free; \
                 make data.batch_size smaller, or use more GPUs",
                gib(needed),
                plural(samples),
                gib(free),
                gib(total)
            ))
        };
        if needed > total {
            return Err(full(Exit::Usage));
        }
        // What others have taken they may give back: another try can succeed.
        if needed > free {
            return Err(full(Exit::Failed));
        }
        let base = gpu.allocate(self.bytes).map_err(|error| match error.downcast_ref::<Failure>() {
            Some(failure) if failure.status == Failure::OUT_OF_MEMORY => full(Exit::Failed),
            _ => error,
        })?;
        self.base = Some(base);
        Ok(())
    }

    pub fn at(&self, place: Place) -> Address {
        self.base.expect("memory is taken before the first step").offset(place.start)
    }

    /// Gives it back, where it was taken.
    pub fn release(&mut self, gpu: &dyn Gpu) {
        // A GPU that fails says so elsewhere.
        let _ = self.base.take().map(|base| gpu.release(base));
    }

    /// All of it.
    pub fn whole(&self) -> (Address, usize) {
        (self.base.expect("memory is taken before the first step"), self.bytes)
    }
}
