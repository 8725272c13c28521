//! One rank's learner: backend, rule, optimisers and exchange behind the few calls that the training loop makes.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use super::adam;
use crate::compute::cpu::profile::{Phase as ProfilePhase, Profile};
use crate::compute::cpu::{CpuBackend, Setup, simd::Isa};
use crate::compute::{Backend, Batch, Buffer, Measure, Part};
use crate::config::{Config, Optimizer};
use crate::exchange::{self, AdamSteps, Exchange, ParameterMemory, Transport};
use crate::exit::Exit;
use crate::network::{MapId, Maps, Network};
use crate::rules::{self, Phase, Rule};

/// Steps that each optimiser has taken: one stands still while the other's turn lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OptimizerSteps {
    pub forward: u64,
    pub inverse: u64,
}

/// Seconds since the last reset, by what a rank was doing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seconds {
    pub compute: f64,
    pub exchange: f64,
    pub update: f64,
}

pub struct Engine {
    backend: CpuBackend,
    rule: Box<dyn Rule>,
    exchange: Exchange,
    transport: Arc<dyn Transport>,
    optimizer: Optimizer,
    steps: OptimizerSteps,
    global_batch: usize,
}

impl Engine {
    /// A learner on this rank's share of the batch, with parameters not yet set: [`Engine::initialize`] or [`Engine::write`] comes next.
    ///
    /// `threads` is what this rank may use. Fails where the ranks do not divide the batch, the processor lacks the kernels asked for, or
    /// memory is short.
    pub fn new(config: &Config, network: &Network, transport: Arc<dyn Transport>, threads: usize) -> Result<Engine> {
        let (global_batch, size) = (config.data.batch_size, transport.size());
        if !global_batch.is_multiple_of(size) {
            return Err(Exit::Usage.error(format!("data.batch_size = {global_batch} cannot be divided among {size} ranks")));
        }
        let isa = Isa::choose(config.parallel.kernels, config.parallel.precision).map_err(|error| Exit::Usage.error(error.to_string()))?;
        let maps = Arc::new(Maps::new(network, config.learning.rule, config.learning.auxiliary_units.unwrap_or(0)));
        let (_, sizes) = crate::compute::cpu::spans(&maps);
        let memory = ParameterMemory::new(sizes, &*transport, config.parallel.exchange)?;
        let shared = memory.shared;
        let parameters = exchange::parameters(&maps, memory);
        let setup = Setup { isa, threads, seed: config.experiment.seed, capacity: global_batch / size };
        let mut backend = CpuBackend::new(network, maps.clone(), parameters, &setup);
        let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
        let exchange = Exchange::new(&mut backend, shared, &*transport, config.parallel.exchange)?;
        let optimizer = config.optimizer.clone();
        Ok(Engine { backend, rule, exchange, transport, optimizer, steps: OptimizerSteps::default(), global_batch })
    }

    /// Draws the initial parameters from the seed: the same on every rank. Collective.
    pub fn initialize(&mut self) {
        if self.writes() {
            self.backend.initialize();
        }
        self.transport.barrier();
    }

    /// Whether this rank must set parameters itself: all do, but for those that share one copy, where rank 0 does.
    pub fn writes(&self) -> bool {
        !self.exchange.shares_parameters() || self.transport.rank() == 0
    }

    /// One step on this rank's part of a global batch: activities, targets, errors, then the update on all ranks. Collective.
    ///
    /// Fails, before any parameter changes, where the loss is not finite.
    pub fn learn(&mut self, batch: &Batch, phase: Phase) -> Result<()> {
        ensure!(batch.samples * self.transport.size() == self.global_batch, "a training batch is whole");
        self.backend.begin(batch)?;
        let updates = self.rule.learn(&mut self.backend, phase);
        self.check_finite(batch)?;
        let taken = OptimizerSteps {
            forward: self.steps.forward + u64::from(phase.trains_forward()),
            inverse: self.steps.inverse + u64::from(phase.trains_inverse()),
        };
        let form = self.optimizer.epsilon_form;
        let steps = AdamSteps {
            forward: adam::step(&self.optimizer.forward, form, taken.forward, self.global_batch),
            inverse: adam::step(&self.optimizer.inverse, form, taken.inverse, self.global_batch),
        };
        self.exchange.update(&mut self.backend, &*self.transport, &updates, steps)?;
        self.steps = taken;
        Ok(())
    }

    fn check_finite(&self, batch: &Batch) -> Result<()> {
        for (name, measure) in [("loss", Measure::Loss), ("inverse_loss", Measure::InverseLoss)] {
            if let Some(sample) = self.backend.measure(measure).iter().position(|loss| !loss.is_finite()) {
                let value = self.backend.measure(measure)[sample];
                return Err(Exit::NotFinite.error(format!(
                    "{name} is {value} at step {} (sample {} of the global batch); the last checkpoint is from before. \
                     A smaller learning rate, sigma or alpha usually helps",
                    batch.step,
                    batch.first + sample
                )));
            }
        }
        Ok(())
    }

    /// The forward pass alone, on any number of samples up to this rank's share of a batch. Not collective.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<()> {
        self.backend.begin(batch)?;
        self.rule.forward().run(&mut self.backend);
        Ok(())
    }

    /// A measure of each sample of the last batch of this rank.
    pub fn measure(&self, measure: Measure) -> &[f32] {
        self.backend.measure(measure)
    }

    /// Most samples in a batch of this rank.
    pub fn capacity(&self) -> usize {
        self.global_batch / self.transport.size()
    }

    pub fn maps(&self) -> &Maps {
        &self.backend.maps
    }

    pub fn steps(&self) -> OptimizerSteps {
        self.steps
    }

    pub fn set_steps(&mut self, steps: OptimizerSteps) {
        self.steps = steps;
    }

    /// Brings to rank 0 what it lacks for a checkpoint. Collective; afterwards [`Engine::read`] on rank 0 has everything.
    pub fn gather(&self) {
        self.exchange.gather_moments(&self.backend, &*self.transport);
    }

    /// A tensor in its interchange layout.
    pub fn read(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        self.backend.read_parameter(map, part, buffer)
    }

    /// Replaces a tensor by `values` in its interchange layout. Where [`Engine::writes`] says no, this does nothing.
    /// Call [`Transport::barrier`] when all are written.
    pub fn write(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        self.backend.write_parameter(map, part, buffer, values).context("this is a checkpoint of another network")
    }

    /// Checksum of this rank's parameters; equal on all ranks, or the replicas differ.
    pub fn checksum(&self) -> u64 {
        self.backend.parameters.checksum(&self.backend.pool)
    }

    pub fn profile(&self) -> &Profile {
        &self.backend.profile
    }

    pub fn reset_profile(&mut self) {
        self.backend.profile.reset();
    }

    /// Seconds since the profile was reset.
    pub fn seconds(&self) -> Seconds {
        let mut seconds = Seconds::default();
        for (phase, _) in crate::compute::cpu::profile::PHASES {
            let spent = self.backend.profile.get(phase).seconds;
            match phase {
                ProfilePhase::Exchange => seconds.exchange += spent,
                ProfilePhase::UpdateForward | ProfilePhase::UpdateInverse => seconds.update += spent,
                _ => seconds.compute += spent,
            }
        }
        seconds
    }

    /// The kernels in use: "avx512", "avx2" or "portable".
    pub fn kernels(&self) -> &'static str {
        self.backend.isa.name()
    }

    pub fn threads(&self) -> usize {
        self.backend.pool.threads()
    }
}
