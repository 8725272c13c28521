//! Buffers in a GPU's memory.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Buffer, Operation, Place};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::{Gpu as _, Stream};
use crate::config::TransportChoice;
use crate::exchange::cuda::{self, Collectives, Whole};
use crate::exchange::nccl::Element;
use crate::exchange::{Span, Transport};
use crate::observe::Doing;

/// This rank's GPU, joined with the others'.
pub struct Gpu {
    driver: Rc<Driver>,
    stream: Stream,
    collectives: Box<dyn Collectives>,
    by: &'static str,
    size: usize,
}

impl Gpu {
    /// GPU number `index`. Collective.
    pub fn join(index: usize, choice: TransportChoice, transport: &Arc<dyn Transport>) -> Result<Gpu> {
        let driver = Rc::new(Driver::new(index)?);
        let stream = driver.stream()?;
        let joined = cuda::join(driver.clone(), Some(&driver), stream, transport, choice, 300.0)?;
        let (collectives, by) = joined.context("there are several ranks")?;
        Ok(Gpu { driver, stream, collectives, by, size: transport.size() })
    }
}

impl Place for Gpu {
    fn by(&self) -> &'static str {
        self.by
    }

    fn buffer(&mut self, part: usize) -> Result<Box<dyn Buffer + '_>> {
        let whole = Whole { at: self.driver.allocate(4 * part * self.size)?, each: 4 * part, element: Element::F32 };
        Ok(Box::new(OnDevice { gpu: self, whole }))
    }
}

struct OnDevice<'a> {
    gpu: &'a mut Gpu,
    whole: Whole,
}

impl OnDevice<'_> {
    fn floats(&self) -> usize {
        self.whole.each / 4 * self.gpu.size
    }

    fn wait(&self) -> Result<()> {
        let (driver, done) = (&self.gpu.driver, self.gpu.driver.event()?);
        driver.record(done, self.gpu.stream)?;
        driver.synchronize(done)
    }
}

impl Buffer for OnDevice<'_> {
    fn fill(&mut self, value: &dyn Fn(usize) -> f32) -> Result<()> {
        let values: Vec<f32> = (0..self.floats()).map(value).collect();
        // SAFETY: the buffer was taken for as many.
        unsafe { self.gpu.driver.upload(self.whole.at, values.as_ptr().cast(), 4 * values.len(), self.gpu.stream)? };
        self.wait()
    }

    fn perform(&mut self, operation: Operation) -> Result<()> {
        let (collectives, whole) = (&mut self.gpu.collectives, self.whole);
        let of = |doing| Span { doing, layer: None };
        if operation != Operation::AllGather {
            let handle = collectives.reduce_scatter(of(Doing::ReduceScatter), &[whole])?;
            collectives.wait(handle)?;
        }
        if operation != Operation::ReduceScatter {
            let handle = collectives.all_gather(of(Doing::AllGather), &[whole])?;
            collectives.wait(handle)?;
        }
        collectives.settle()
    }

    fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.floats()];
        // SAFETY: there are as many.
        unsafe { self.gpu.driver.download(values.as_mut_ptr().cast(), self.whole.at, 4 * values.len(), self.gpu.stream)? };
        self.wait()?;
        Ok(values)
    }
}
