//! What the engine asks of a device: a backend for the rules, and updates that all ranks share.

mod cpu;
mod cuda;
#[cfg(feature = "torch")]
mod torch;

use std::sync::Arc;

use anyhow::Result;

use self::cpu::OnCpu;
use super::diagnostics::LayerDiagnostics;
use crate::compute::device::{Device, Kernels};
use crate::compute::profile::Profile;
#[cfg(feature = "torch")]
use crate::compute::settings::KernelChoice;
use crate::compute::{Activity, Backend, Update};
use crate::config::Config;
use crate::exchange::{Optimizers, Transport, UpdateExchange};
use crate::network::{Maps, Network};
use crate::rules::{Phase, Rule, Step};

/// Bytes that a GPU copies when the rate of its memory is measured.
const COPIED: usize = 256 << 20;

/// What works on `device`, with the rule on its backend. `threads` is what this rank may use of the CPU. Collective.
pub fn on(
    device: Device,
    config: &Config,
    network: &Network,
    maps: Arc<Maps>,
    transport: &Arc<dyn Transport>,
    threads: usize,
) -> Result<(Box<dyn Executor>, Box<dyn Rule>)> {
    match (device, Kernels::on_gpu(config.parallel.kernels)) {
        (Device::Cuda(index), Kernels::Own) => cuda::on_device(config, network, maps, transport, index, threads),
        #[cfg(feature = "torch")]
        (Device::Cuda(_), Kernels::Libtorch) => torch::on_device(config, network, maps, transport, device),
        #[cfg(feature = "torch")]
        (Device::Cpu, _) if config.parallel.kernels == KernelChoice::Libtorch => torch::on_device(config, network, maps, transport, device),
        _ => {
            let (executor, rule) = OnCpu::new(config, network, maps, transport, threads)?;
            Ok((Box::new(executor), rule))
        }
    }
}

/// A device with its share of the exchange among ranks.
pub trait Executor {
    /// Where the rule works.
    fn backend(&mut self) -> &mut dyn Backend;

    /// The same, to be asked for measures and parameters.
    fn state(&self) -> &dyn Backend;

    /// Initial parameters, from the seed.
    fn initialize(&mut self);

    /// Gives feedback that follows the signs of the layers' weights these signs, after `steps` steps. Collective.
    fn follow_signs(&mut self, steps: u64) -> Result<()>;

    /// The forward pass of `rule` on the backend's batch; afterwards the measures are there.
    fn evaluate(&mut self, rule: &dyn Rule) -> Result<()>;

    /// Lets `rule` learn from the backend's batch, and waits for its measures. What its updates need begins to travel; no parameter
    /// changes. [`Executor::commit`] or [`Executor::settle`] ends the step. Collective. `iteration` counts the times that inverses have
    /// learned from the batch before.
    fn learn(&mut self, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<()>;

    /// Applies the step's updates to the parameters of every rank. Collective.
    fn commit(&mut self, steps: Optimizers) -> Result<()>;

    /// Ends the step without them.
    fn settle(&mut self);

    /// Compares the rule with back-propagation on the backend's batch, by forward layer. Collective; no parameter changes.
    fn diagnose(&mut self, rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>>;

    /// Whether batches are best given as bytes.
    fn scales_pixels(&self) -> bool {
        false
    }

    /// Whether one copy of the parameters serves all ranks of a host.
    fn shares_parameters(&self) -> bool {
        false
    }

    /// Brings the moments to rank 0. Collective.
    fn gather_moments(&self);

    /// Checksum of this rank's parameters.
    fn checksum(&self) -> u64;

    fn profile(&self) -> &Profile;

    fn reset_profile(&mut self);

    /// From now on the profile tells each phase's time, where it else tells that of the whole.
    fn time_phases(&mut self) {}

    /// The kernels in use: "avx512", "avx2", "portable", "cuda" or "libtorch".
    fn kernels(&self) -> &'static str;

    /// Of the CPU that compute.
    fn threads(&self) -> usize {
        1
    }

    /// "cpu", or which GPU.
    fn device(&self) -> String;

    /// Bytes in use of the GPU's memory, where there is one.
    fn device_memory(&self) -> Option<u64>;

    /// What the GPU was measured to do, where there is one.
    fn rates(&self) -> Result<Option<Rates>> {
        Ok(None)
    }
}

/// What a GPU can do in a second.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Bytes that its memory moves, read and written.
    pub bytes: f64,
    /// Floating-point operations of products; infinite where that is not known.
    pub operations: f64,
    /// The same of passes through inverses.
    pub inverse_operations: f64,
}

/// A step whose updates travel, while all parameters are as they were. Dropped before [`StepInFlight::commit`], it ends without them.
pub struct StepInFlight<'a> {
    executor: &'a mut dyn Executor,
    committed: bool,
}

impl<'a> StepInFlight<'a> {
    /// Lets `rule` learn from the batch of `executor`. Collective.
    pub fn learn(executor: &'a mut dyn Executor, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<StepInFlight<'a>> {
        executor.learn(rule, phase, iteration)?;
        Ok(StepInFlight { executor, committed: false })
    }

    /// To be asked for measures and parameters.
    pub fn state(&self) -> &dyn Backend {
        self.executor.state()
    }

    /// Applies the updates to the parameters of every rank. Collective.
    pub fn commit(mut self, steps: Optimizers) -> Result<()> {
        self.committed = true;
        self.executor.commit(steps)
    }
}

impl Drop for StepInFlight<'_> {
    fn drop(&mut self) {
        if !self.committed {
            self.executor.settle();
        }
    }
}

/// A rule's step on a backend, whose updates go to the exchange.
struct Learning<'a, E: UpdateExchange> {
    backend: &'a mut E::Backend,
    exchange: &'a mut E,
    iteration: usize,
    failed: Option<anyhow::Error>,
}

impl<'a, E: UpdateExchange> Learning<'a, E> {
    /// Lets `rule` learn; an error where an update could not be taken.
    fn run(backend: &'a mut E::Backend, exchange: &'a mut E, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<()> {
        let mut step = Learning { backend, exchange, iteration, failed: None };
        rule.learn(&mut step, phase);
        step.failed.map_or(Ok(()), Err)
    }
}

impl<E: UpdateExchange> Step for Learning<'_, E> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    fn iteration(&self) -> usize {
        self.iteration
    }

    fn gather(&mut self, activity: Activity) -> Vec<f32> {
        match self.backend.read_activity(activity) {
            Ok(own) => self.exchange.transport().all_of(&own),
            Err(error) => {
                self.failed.get_or_insert(error);
                Vec::new()
            }
        }
    }

    fn update(&mut self, update: Update) {
        if self.failed.is_none() {
            self.failed = self.exchange.take(self.backend, update).err();
        }
    }
}
