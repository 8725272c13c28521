//! Collective operations on tensors through this host's memory and the ranks' transport: for devices that NCCL does not join, and for
//! several ranks on one GPU.

use std::sync::Arc;

use anyhow::Result;
use tch::Tensor;

use super::tensors::{Collectives, Ticket};
use super::{Transport, reduce_scatter};
use crate::compute::cpu::pool::Pool;
use crate::compute::cpu::simd::Isa;

/// Operations are done when they return.
pub struct Staged {
    transport: Arc<dyn Transport>,
    isa: Isa,
    pool: Pool,
}

impl Staged {
    pub fn new(transport: Arc<dyn Transport>) -> Staged {
        Staged { transport, isa: Isa::available()[0], pool: Pool::new(1) }
    }

    fn parts(&self, each: usize) -> Vec<std::ops::Range<usize>> {
        (0..self.transport.size()).map(|rank| rank * each..(rank + 1) * each).collect()
    }
}

impl Collectives for Staged {
    fn all_gather(&mut self, pairs: &[(&Tensor, &Tensor)]) -> Result<Ticket> {
        for (own, all) in pairs {
            let each = own.numel();
            let ranges = self.parts(each);
            let mut staged = vec![0.0f32; all.numel()];
            own.f_copy_data(&mut staged[ranges[self.transport.rank()].clone()], each)?;
            unsafe { self.transport.all_gather_ranges(staged.as_mut_ptr(), &ranges) };
            all.shallow_clone().f_copy_(&Tensor::f_from_slice(&staged)?.f_view_as(all)?)?;
        }
        Ok(Ticket(0))
    }

    fn reduce_scatter(&mut self, all: &Tensor, own: &Tensor) -> Result<Ticket> {
        let ranges = self.parts(own.numel());
        let mut staged = vec![0.0f32; all.numel()];
        all.f_copy_data(&mut staged, all.numel())?;
        unsafe { reduce_scatter(&*self.transport, self.isa, &self.pool, staged.as_mut_ptr(), &ranges) };
        let part = &staged[ranges[self.transport.rank()].clone()];
        own.shallow_clone().f_copy_(&Tensor::f_from_slice(part)?.f_view_as(own)?)?;
        Ok(Ticket(0))
    }

    fn wait(&mut self, _ticket: Ticket) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}
