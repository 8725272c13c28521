//! The CPU's kernels, with the exchange on the memory that they work in.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{Executor, Learning};
use crate::compute::cpu::{self, CpuBackend, simd::Isa};
use crate::compute::profile::Profile;
use crate::compute::{Backend, Update};
use crate::config::{Config, TransportChoice, Wire};
use crate::exchange::{self, Exchange, NCCL_WITHOUT_GPU, Optimizers, ParameterMemory, Transport, UpdateExchange};
use crate::exit::Exit;
use crate::learner::diagnostics::{self, Compared, LayerDiagnostics};
use crate::network::{Maps, Network};
use crate::rules::{self, Collected, Diagnosis, Phase, Rule};

const WIRE_OF_GPUS: &str =
    "parallel.wire = \"bf16\": this rank computes on the CPU, where the same bits on any number of ranks need whole float32; use \"f32\"";

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
        transport: &Arc<dyn Transport>,
        threads: usize,
    ) -> Result<(OnCpu, Box<dyn Rule>)> {
        let parallel = &config.parallel;
        if parallel.backend == TransportChoice::Nccl {
            return Err(Exit::Usage.error(NCCL_WITHOUT_GPU));
        }
        if parallel.wire == Wire::Bf16 {
            return Err(Exit::Usage.error(WIRE_OF_GPUS));
        }
        let isa = Isa::choose(parallel.kernels, parallel.precision).map_err(|error| Exit::Usage.error(error.to_string()))?;
        let (_, sizes) = cpu::spans(&maps);
        let memory = ParameterMemory::new(sizes, &**transport, parallel.exchange)?;
        let shared = memory.shared;
        let parameters = exchange::parameters(&maps, memory);
        let setup = cpu::Setup {
            isa,
            threads,
            seed: config.experiment.seed,
            capacity: config.data.batch_size / transport.size(),
            label_smoothing: config.learning.label_smoothing as f32,
        };
        let mut backend = CpuBackend::new(network, maps.clone(), parameters, &setup)?;
        let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
        let diagnosis = config.training.diagnostics.then(|| Diagnosis::new(&*rule, network, &maps, &mut backend));
        let exchange = Exchange::new(&mut backend, shared, transport, parallel.exchange, parallel.overlap)?;
        Ok((OnCpu { backend, exchange, diagnosis }, rule))
    }
}

impl Compared for OnCpu {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn products(&mut self, updates: [Update; 2]) -> Result<[f64; 3]> {
        let transport = self.exchange.transport().clone();
        diagnostics::products_on_cpu(&mut self.backend, &mut self.exchange, &*transport, updates)
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

    fn follow_signs(&mut self, steps: u64) -> Result<()> {
        self.exchange.follow_signs(&mut self.backend, steps);
        Ok(())
    }

    fn evaluate(&mut self, rule: &dyn Rule) -> Result<()> {
        rule.forward().run(&mut self.backend);
        Ok(())
    }

    fn learn(&mut self, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<()> {
        Learning::run(&mut self.backend, &mut self.exchange, rule, phase, iteration)
    }

    fn commit(&mut self, steps: Optimizers) -> Result<()> {
        self.exchange.commit(&mut self.backend, steps)
    }

    fn settle(&mut self) {
        self.exchange.settle();
    }

    fn diagnose(&mut self, rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>> {
        let diagnosis = self.diagnosis.as_ref().context("training.diagnostics was off when the engine was made")?;
        let (transport, samples) = (self.exchange.transport().clone(), self.backend.batch());
        let all = |own: Vec<f32>| transport.all_of(&own);
        let mut step = Collected::among(&mut self.backend, &all);
        let comparisons = diagnosis.run(rule, &mut step, |step| std::mem::take(&mut step.updates));
        diagnostics::measure(self, &*transport, samples, &comparisons)
    }

    fn shares_parameters(&self) -> bool {
        self.exchange.shares_parameters()
    }

    fn gather_moments(&self) {
        self.exchange.gather_moments(&self.backend);
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
