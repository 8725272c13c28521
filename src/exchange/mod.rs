//! How ranks share an update.
//!
//! Two ways to bring one about: `activities`, where the factors of gradients travel, and `gradients`, where gradients do. [`cpu`] has them
//! for the CPU's kernels, [`cuda`] for ours on GPUs, `torch` for libtorch's devices; below them are a [`Transport`] between ranks, and NCCL between GPUs.

mod cpu;
pub mod cuda;
mod gather;
mod host_barrier;
mod host_memory;
mod mpi;
pub mod nccl;
mod ownership;
mod parameter_memory;
mod reduce;
pub mod settings;
mod sharing;
#[cfg(feature = "torch")]
pub mod torch;
mod transport;

use std::sync::Arc;

pub use self::cpu::Exchange;
pub use self::gather::{gather_bytes, host_names};
pub use self::mpi::connect;
pub use self::parameter_memory::{ParameterMemory, parameters};
pub use self::reduce::reduce_scatter;
pub use self::sharing::Sharing;
pub use self::transport::{Handle, Message, Single, Span, Transport, equal_ranges, others};
use anyhow::Result;

use crate::compute::{Backend, OptimizerStep, Update};
use crate::network::MapId;

/// Shares the updates of a step among the ranks: takes them as the rule hands them out, and changes parameters when all are there.
pub trait UpdateExchange {
    type Backend: Backend;

    /// Takes an update: what can travel now begins to. Both factors stay as they are until the step ends. That of a pool is none. Collective.
    fn take(&mut self, backend: &mut Self::Backend, update: Update) -> Result<()>;

    /// Between the ranks.
    fn transport(&self) -> &Arc<dyn Transport>;

    /// Ends the step: applies the updates that were taken to the parameters of every rank. Collective.
    fn commit(&mut self, backend: &mut Self::Backend, steps: Optimizers) -> Result<()>;

    /// Ends the step without an update: waits for what travels, since its memory is in use until then.
    fn settle(&mut self);
}

/// What to tell who wants NCCL on a CPU.
pub const NCCL_WITHOUT_GPU: &str = "parallel.backend = \"nccl\" joins GPUs, and this rank computes on the CPU; use \"auto\" or \"mpi\"";

/// The optimisers' constants at one step, by map.
#[derive(Clone, Copy, Debug)]
pub struct Optimizers<'a>(pub &'a [OptimizerStep]);

impl Optimizers<'_> {
    fn of(&self, map: MapId) -> OptimizerStep {
        self.0[map.0]
    }
}
