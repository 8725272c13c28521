//! Collective operations on tensors through this host's memory and the ranks' transport: for devices that NCCL does not join, and for
//! several ranks on one GPU.

use std::sync::Arc;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::Collectives;
use crate::compute::cpu::pool::Pool;
use crate::compute::cpu::simd::Isa;
use crate::exchange::{Handle, Message, Span, Transport, equal_ranges, others, reduce_scatter};
use crate::observe::{Doing, span};

/// Operations are done when they return.
pub struct Staged {
    transport: Arc<dyn Transport>,
    isa: Isa,
    pool: Pool,
}

impl Staged {
    pub fn new(transport: Arc<dyn Transport>) -> Result<Staged> {
        Ok(Staged { transport, isa: Isa::available()[0], pool: Pool::new(1)? })
    }

    /// Sends each other rank `own(rank)` and receives from it at `recv`, in `bytes` a rank.
    fn exchange(&self, doing: Doing, traced: Span, sent: impl Fn(usize) -> *mut u8, recv: &mut [u8], bytes: usize) {
        let _span = span(doing, traced.layer);
        let others = || others(self.transport.rank(), self.transport.size());
        let recv = recv.as_mut_ptr();
        let sends: Vec<Message> = others().map(|rank| Message { rank, at: sent(rank), bytes }).collect();
        let receives: Vec<Message> = others().map(|rank| Message { rank, at: recv.wrapping_add(rank * bytes), bytes }).collect();
        // SAFETY: what is sent and received is the callers', who keep it until this returns, and each rank has
        // `bytes` of its own in it.
        let handle = unsafe { self.transport.begin(traced, &sends, &receives) };
        self.transport.wait(handle);
    }
}

/// The bytes of a tensor.
fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

impl Collectives for Staged {
    fn all_gather(&mut self, traced: Span, pairs: &[(&Tensor, &Tensor)]) -> Result<Handle> {
        for (own, all) in pairs {
            let mut own = bytes_of(own)?;
            let (each, at) = (own.len(), own.as_mut_ptr());
            let mut staged = vec![0u8; each * self.transport.size()];
            staged[self.transport.rank() * each..][..each].copy_from_slice(&own);
            self.exchange(Doing::AllGather, traced, |_| at, &mut staged, each);
            all.shallow_clone().f_copy_(&Tensor::f_from_data_size(&staged, &all.size(), all.kind())?)?;
        }
        Ok(Handle(0))
    }

    fn reduce_scatter(&mut self, traced: Span, all: &Tensor, own: &Tensor) -> Result<Handle> {
        let (rank, size) = (self.transport.rank(), self.transport.size());
        if all.kind() == Kind::Float {
            let ranges = equal_ranges(size, own.numel());
            let mut staged = vec![0.0f32; all.numel()];
            all.f_copy_data(&mut staged, all.numel())?;
            // SAFETY: `staged` holds the ranges of all ranks.
            unsafe { reduce_scatter(&*self.transport, self.isa, &self.pool, staged.as_mut_ptr(), &ranges) };
            own.shallow_clone().f_copy_(&Tensor::f_from_slice(&staged[ranges[rank].clone()])?.f_view_as(own)?)?;
            return Ok(Handle(0));
        }
        // Sums are in float32, whatever travels.
        let mut sent = bytes_of(all)?;
        let (each, at) = (sent.len() / size, sent.as_mut_ptr());
        let mut recv = vec![0u8; sent.len()];
        recv[rank * each..][..each].copy_from_slice(&sent[rank * each..][..each]);
        self.exchange(Doing::ReduceScatter, traced, |to| at.wrapping_add(to * each), &mut recv, each);
        let parts = Tensor::f_from_data_size(&recv, &[size as i64, own.numel() as i64], all.kind())?;
        let sum = parts.f_to_kind(Kind::Float)?.f_sum_dim_intlist(&[0i64][..], false, Kind::Float)?;
        own.shallow_clone().f_copy_(&sum.f_view_as(own)?)?;
        Ok(Handle(0))
    }

    fn wait(&mut self, _handle: Handle) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }
}
