//! Buffers on GPUs: tensors of libtorch's.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::{Buffer, Operation, Place};
use crate::compute::cuda::driver::Driver;
use crate::config::TransportChoice;
use crate::exchange::torch::{self, Collectives};
use crate::exchange::{Span, Transport};
use crate::observe::Doing;

/// This rank's GPU, joined with the others'.
pub struct Gpu {
    collectives: Box<dyn Collectives>,
    by: &'static str,
    device: tch::Device,
    rank: usize,
    size: usize,
}

impl Gpu {
    /// GPU number `index`. Collective.
    pub fn join(index: usize, choice: TransportChoice, transport: &Arc<dyn Transport>) -> Result<Gpu> {
        let driver = Rc::new(Driver::new(index)?);
        let (collectives, by) = torch::join(Some(&driver), transport, choice, 300.0)?.context("there are several ranks")?;
        Ok(Gpu { collectives, by, device: tch::Device::Cuda(index), rank: transport.rank(), size: transport.size() })
    }
}

impl Place for Gpu {
    fn by(&self) -> &'static str {
        self.by
    }

    fn buffer(&mut self, part: usize) -> Result<Box<dyn Buffer + '_>> {
        let all = Tensor::f_zeros([(part * self.size) as i64], (Kind::Float, self.device))?;
        let own = all.f_narrow(0, (self.rank * part) as i64, part as i64)?;
        Ok(Box::new(OnDevice { collectives: &mut *self.collectives, all, own }))
    }
}

/// A tensor.
struct OnDevice<'a> {
    collectives: &'a mut dyn Collectives,
    all: Tensor,
    /// This rank's part of it.
    own: Tensor,
}

impl Buffer for OnDevice<'_> {
    fn fill(&mut self, value: &dyn Fn(usize) -> f32) -> Result<()> {
        let values: Vec<f32> = (0..self.all.numel()).map(value).collect();
        self.all.f_copy_(&Tensor::f_from_slice(&values)?)?;
        Ok(())
    }

    fn perform(&mut self, operation: Operation) -> Result<()> {
        let of = |doing| Span { doing, layer: None };
        if operation != Operation::AllGather {
            let handle = self.collectives.reduce_scatter(of(Doing::ReduceScatter), &self.all, &self.own)?;
            self.collectives.wait(handle)?;
        }
        if operation != Operation::ReduceScatter {
            let handle = self.collectives.all_gather(of(Doing::AllGather), &[(&self.own, &self.all)])?;
            self.collectives.wait(handle)?;
        }
        self.collectives.settle()
    }

    fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.all.numel()];
        self.all.f_to_device(tch::Device::Cpu)?.f_copy_data(&mut values, self.all.numel())?;
        Ok(values)
    }
}
