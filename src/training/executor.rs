//! What the engine asks of a device: a backend for the rules, and updates that all ranks share.

use std::sync::Arc;

use anyhow::{Context, Result};
use tch::Device;

use super::diagnostics::{self, LayerDiagnostics};
use crate::compute::cpu::profile::Profile;
use crate::compute::cpu::{self, CpuBackend, simd::Isa};
use crate::compute::cuda::{self, TorchBackend};
use crate::compute::{Backend, Update};
use crate::config::{Config, TransportChoice, Wire};
use crate::exchange::{self, AdamSteps, Exchange, ParameterMemory, TensorExchange, Transport};
use crate::exit::Exit;
use crate::network::{Maps, Network};
use crate::rules::{self, Diagnosis, Phase, Rule, Step};

const ON_CPU_ALONE: &str =
    "training.diagnostics = true: diagnostics are measured on the CPU alone; set parallel.device = \"cpu\", or leave them out";

const WIRE_OF_GPUS: &str =
    "parallel.wire = \"bf16\": this rank computes on the CPU, where the same bits on any number of ranks need whole float32; use \"f32\"";

/// A device with its share of the exchange among ranks.
pub trait Executor {
    /// Where the rule works.
    fn backend(&mut self) -> &mut dyn Backend;

    /// The same, to be asked for measures and parameters.
    fn state(&self) -> &dyn Backend;

    /// Initial parameters, from the seed.
    fn initialize(&mut self);

    /// Waits for what the rule asked of the backend; afterwards the measures are there. Fails where one of its operations has.
    fn finish(&mut self) -> Result<()>;

    /// Lets `rule` learn from the backend's batch, and waits for its measures. Factors may begin to travel; no parameter changes. Returns the
    /// updates, for [`Executor::update`] or [`Executor::give_up`]. Collective.
    fn learn(&mut self, transport: &dyn Transport, rule: &dyn Rule, phase: Phase) -> Result<Vec<Update>>;

    /// Ends what [`Executor::learn`] began, where there is to be no update. Returns when all ranks have learned.
    fn give_up(&mut self, transport: &dyn Transport);

    /// Applies `updates` to the parameters of every rank. Collective.
    fn update(&mut self, transport: &dyn Transport, updates: &[Update], steps: AdamSteps) -> Result<()>;

    /// Compares the rule with back-propagation on the backend's batch, by forward layer. Collective; no parameter changes.
    fn diagnose(&mut self, transport: &dyn Transport, rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>>;

    /// Whether one copy of the parameters serves all ranks of a host.
    fn shares_parameters(&self) -> bool;

    /// Brings Adam's moments to rank 0. Collective.
    fn gather_moments(&self, transport: &dyn Transport);

    /// Checksum of this rank's parameters.
    fn checksum(&self) -> u64;

    fn profile(&self) -> &Profile;

    fn reset_profile(&mut self);

    /// The kernels in use: "avx512", "avx2", "portable", or "libtorch".
    fn kernels(&self) -> &'static str;

    fn threads(&self) -> usize;

    /// "cpu", or which GPU.
    fn device(&self) -> String;

    /// Bytes in use of the GPU's memory, where there is one.
    fn device_memory(&self) -> Option<u64>;
}

/// The CPU's kernels, on memory that the ranks of a host share.
pub struct OnCpu {
    backend: CpuBackend,
    exchange: Exchange,
    /// Where the configuration asks for it.
    diagnosis: Option<Diagnosis>,
}

impl OnCpu {
    /// With the rule on its backend. `threads` is what this rank may use.
    pub fn new(
        config: &Config,
        network: &Network,
        maps: Arc<Maps>,
        transport: &dyn Transport,
        threads: usize,
    ) -> Result<(OnCpu, Box<dyn Rule>)> {
        let parallel = &config.parallel;
        if parallel.backend == TransportChoice::Nccl {
            return Err(Exit::Usage.error(exchange::NCCL_WITHOUT_GPU));
        }
        if parallel.wire == Wire::Bf16 {
            return Err(Exit::Usage.error(WIRE_OF_GPUS));
        }
        let isa = Isa::choose(parallel.kernels, parallel.precision).map_err(|error| Exit::Usage.error(error.to_string()))?;
        let (_, sizes) = cpu::spans(&maps);
        let memory = ParameterMemory::new(sizes, transport, parallel.exchange)?;
        let shared = memory.shared;
        let parameters = exchange::parameters(&maps, memory);
        let setup = cpu::Setup { isa, threads, seed: config.experiment.seed, capacity: config.data.batch_size / transport.size() };
        let mut backend = CpuBackend::new(network, maps.clone(), parameters, &setup);
        let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
        let diagnosis = config.training.diagnostics.then(|| Diagnosis::new(&*rule, network, &maps, &mut backend));
        let exchange = Exchange::new(&mut backend, shared, transport, parallel)?;
        Ok((OnCpu { backend, exchange, diagnosis }, rule))
    }
}

impl Executor for OnCpu {
    fn backend(&mut self) -> &mut dyn Backend {
        &mut self.backend
    }

    fn state(&self) -> &dyn Backend {
        &self.backend
    }

    fn initialize(&mut self) {
        self.backend.initialize();
    }

    fn finish(&mut self) -> Result<()> {
        Ok(())
    }

    fn learn(&mut self, transport: &dyn Transport, rule: &dyn Rule, phase: Phase) -> Result<Vec<Update>> {
        let OnCpu { backend, exchange, .. } = self;
        let mut step = Learning { backend, exchange, transport, updates: Vec::new(), failed: None };
        rule.learn(&mut step, phase);
        step.failed.map_or(Ok(step.updates), Err)
    }

    fn give_up(&mut self, transport: &dyn Transport) {
        self.exchange.settle(transport);
    }

    fn update(&mut self, transport: &dyn Transport, updates: &[Update], steps: AdamSteps) -> Result<()> {
        self.exchange.update(&mut self.backend, transport, updates, steps)
    }

    fn diagnose(&mut self, transport: &dyn Transport, rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>> {
        let diagnosis = self.diagnosis.as_ref().context("training.diagnostics was off when the engine was made")?;
        let comparisons = diagnosis.run(rule, &mut self.backend);
        diagnostics::measure(&mut self.backend, &mut self.exchange, transport, &comparisons)
    }

    fn shares_parameters(&self) -> bool {
        self.exchange.shares_parameters()
    }

    fn gather_moments(&self, transport: &dyn Transport) {
        self.exchange.gather_moments(&self.backend, transport);
    }

    fn checksum(&self) -> u64 {
        self.backend.parameters.checksum(&self.backend.pool)
    }

    fn profile(&self) -> &Profile {
        &self.backend.profile
    }

    fn reset_profile(&mut self) {
        self.backend.profile.reset();
    }

    fn kernels(&self) -> &'static str {
        self.backend.isa.name()
    }

    fn threads(&self) -> usize {
        self.backend.pool.threads()
    }

    fn device(&self) -> String {
        "cpu".to_owned()
    }

    fn device_memory(&self) -> Option<u64> {
        None
    }
}

/// Tensors on a device of libtorch's.
pub struct OnTensors {
    backend: TorchBackend,
    exchange: TensorExchange,
}

impl OnTensors {
    /// With the rule on its backend. Collective.
    pub fn new(
        config: &Config,
        network: &Network,
        maps: Arc<Maps>,
        transport: &Arc<dyn Transport>,
        device: Device,
    ) -> Result<(OnTensors, Box<dyn Rule>)> {
        if config.training.diagnostics {
            return Err(Exit::Usage.error(ON_CPU_ALONE));
        }
        let capacity = config.data.batch_size / transport.size();
        let plan = exchange::Sharing::plan(&maps, transport.size(), config.parallel.exchange, capacity);
        let setup = cuda::Setup {
            device,
            precision: config.parallel.precision,
            seed: config.experiment.seed,
            capacity,
            parts: plan.iter().map(|way| way.part(&**transport)).collect(),
        };
        let mut backend = TorchBackend::new(network, maps.clone(), setup)?;
        let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
        let exchange = TensorExchange::new(&backend, plan, transport, &config.parallel)?;
        Ok((OnTensors { backend, exchange }, rule))
    }
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

    fn finish(&mut self) -> Result<()> {
        self.backend.finish()
    }

    fn learn(&mut self, transport: &dyn Transport, rule: &dyn Rule, phase: Phase) -> Result<Vec<Update>> {
        let OnTensors { backend, exchange } = self;
        let mut step = Learning { backend, exchange, transport, updates: Vec::new(), failed: None };
        rule.learn(&mut step, phase);
        let (failed, updates) = (step.failed, step.updates);
        // What failed first is the backend's, where it did.
        self.backend.finish()?;
        failed.map_or(Ok(updates), Err)
    }

    fn give_up(&mut self, _transport: &dyn Transport) {}

    fn update(&mut self, _transport: &dyn Transport, updates: &[Update], steps: AdamSteps) -> Result<()> {
        self.exchange.update(&mut self.backend, updates, steps)
    }

    fn diagnose(&mut self, _transport: &dyn Transport, _rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>> {
        Err(Exit::Usage.error(ON_CPU_ALONE))
    }

    fn shares_parameters(&self) -> bool {
        false
    }

    fn gather_moments(&self, transport: &dyn Transport) {
        self.exchange.gather_moments(&self.backend, transport);
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

    fn threads(&self) -> usize {
        1
    }

    fn device(&self) -> String {
        self.backend.describe()
    }

    fn device_memory(&self) -> Option<u64> {
        self.backend.driver()?.memory_in_use().ok()
    }
}

/// Takes updates from a rule as they come.
trait Taking {
    type Backend: Backend;

    fn take(&mut self, backend: &mut Self::Backend, transport: &dyn Transport, update: Update) -> Result<()>;
}

impl Taking for Exchange {
    type Backend = CpuBackend;

    fn take(&mut self, backend: &mut CpuBackend, transport: &dyn Transport, update: Update) -> Result<()> {
        Exchange::take(self, backend, transport, update)
    }
}

impl Taking for TensorExchange {
    type Backend = TorchBackend;

    fn take(&mut self, backend: &mut TorchBackend, _transport: &dyn Transport, update: Update) -> Result<()> {
        TensorExchange::take(self, backend, update)
    }
}

/// A rule's step on a backend, whose updates go to the exchange.
struct Learning<'a, E: Taking> {
    backend: &'a mut E::Backend,
    exchange: &'a mut E,
    transport: &'a dyn Transport,
    updates: Vec<Update>,
    failed: Option<anyhow::Error>,
}

impl<E: Taking> Step for Learning<'_, E> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    fn update(&mut self, update: Update) {
        self.updates.push(update);
        if self.failed.is_none() {
            self.failed = self.exchange.take(self.backend, self.transport, update).err();
        }
    }
}
