//! Tensors of libtorch's, with the exchange on them.

use std::sync::Arc;

use anyhow::Result;

use super::{COPIED, Executor, Learning, Rates};
use crate::compute::Backend;
use crate::compute::cuda::{Stream, memory_rate};
use crate::compute::device::{Device, Kernels};
use crate::compute::profile::Profile;
use crate::compute::torch::{Setup, TorchBackend};
use crate::config::Config;
use crate::exchange::torch::TensorExchange;
use crate::exchange::{Optimizers, Sharing, Transport, UpdateExchange};
use crate::exit::Exit;
use crate::learner::diagnostics::LayerDiagnostics;
use crate::learner::engine::{self, Engine};
use crate::network::{Maps, Network};
use crate::rules::{self, Phase, Rule};

impl Engine {
    /// [`Engine::new`] on libtorch, on a device that may be the CPU: slow there, and the way to try what GPUs run without having one.
    pub fn on_tensors(config: &Config, network: &Network, transport: Arc<dyn Transport>, device: Device) -> Result<Engine> {
        let maps = engine::prepare(config, network, &*transport)?;
        let (executor, rule) = on_device(config, network, maps.clone(), &transport, device)?;
        Ok(Engine::with(config, executor, rule, maps, transport))
    }
}

/// An executor on libtorch's `device`, with the rule on its backend. Collective.
pub(super) fn on_device(
    config: &Config,
    network: &Network,
    maps: Arc<Maps>,
    transport: &Arc<dyn Transport>,
    device: Device,
) -> Result<(Box<dyn Executor>, Box<dyn Rule>)> {
    if config.training.diagnostics {
        return Err(Exit::Usage.error(NOT_ON_TENSORS));
    }
    let capacity = config.data.batch_size / transport.size();
    let plan = Sharing::plan(&maps, transport.size(), config.parallel.exchange, capacity, Kernels::Libtorch);
    let setup = Setup {
        device,
        precision: config.parallel.precision,
        seed: config.experiment.seed,
        capacity,
        label_smoothing: config.learning.label_smoothing,
        parts: plan.iter().map(|way| way.part(&**transport, Kernels::Libtorch)).collect(),
    };
    let mut backend = TorchBackend::new(network, maps.clone(), setup)?;
    let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
    let exchange = TensorExchange::new(&backend, plan, transport, &config.parallel.exchange())?;
    Ok((Box::new(OnTensors { backend, exchange }), rule))
}

const NOT_ON_TENSORS: &str = "training.diagnostics = true: diagnostics are measured by this program's own kernels, and these are libtorch's; \
     set parallel.kernels = \"cuda\" on a GPU, \"auto\" on a CPU";

/// Tensors on a device of libtorch's.
struct OnTensors {
    backend: TorchBackend,
    exchange: TensorExchange,
}

impl Executor for OnTensors {
    fn backend(&mut self) -> &mut dyn Backend {
        &mut self.backend
    }

    fn state(&self) -> &dyn Backend {
        &self.backend
    }

    fn initialize(&mut self) {
        self.backend.initialize();
    }

    fn follow_signs(&mut self, steps: u64) -> Result<()> {
        self.backend.follow_signs(steps)
    }

    fn evaluate(&mut self, rule: &dyn Rule) -> Result<()> {
        rule.forward().run(&mut self.backend);
        self.backend.finish()
    }

    fn learn(&mut self, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<()> {
        let taken = Learning::run(&mut self.backend, &mut self.exchange, rule, phase, iteration);
        // What failed first is the backend's, where it did.
        self.backend.finish().and(taken)
    }

    fn commit(&mut self, steps: Optimizers) -> Result<()> {
        self.exchange.commit(&mut self.backend, steps)
    }

    fn settle(&mut self) {
        self.exchange.settle();
    }

    fn diagnose(&mut self, _rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>> {
        Err(Exit::Usage.error(NOT_ON_TENSORS))
    }

    fn gather_moments(&self) {
        self.exchange.gather_moments(&self.backend);
    }

    fn checksum(&self) -> u64 {
        self.backend.checksum()
    }

    fn profile(&self) -> &Profile {
        self.backend.profile()
    }

    fn reset_profile(&mut self) {
        self.backend.reset_profile();
    }

    fn kernels(&self) -> &'static str {
        "libtorch"
    }

    fn device(&self) -> String {
        self.backend.describe()
    }

    fn device_memory(&self) -> Option<u64> {
        self.backend.driver()?.memory_in_use().ok()
    }

    fn rates(&self) -> Result<Option<Rates>> {
        let Some(driver) = self.backend.driver() else { return Ok(None) };
        // What its products could reach is not known here: bytes alone make the floors.
        Ok(Some(Rates {
            bytes: memory_rate(&**driver, Stream::LIBTORCH, COPIED)?,
            operations: f64::INFINITY,
            inverse_operations: f64::INFINITY,
        }))
    }
}
