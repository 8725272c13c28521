//! One rank's learner: backend, rule, optimisers and exchange behind the few calls that the training loop makes.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::devices;
use super::diagnostics::{self, LayerDiagnostics};
use super::executor::{self, Executor, Rates, StepInFlight};
use super::optimizer;
use crate::agreement::{Facts, agree};
use crate::compute::profile::Profile;
use crate::compute::{Backend, Batch, Buffer, Measure, OptimizerStep, Part};
use crate::config::{BackwardWeights, Config, Optimizer};
use crate::data::Form;
use crate::exchange::{Optimizers, Transport};
use crate::exit::Exit;
use crate::network::{Map, MapId, Maps, Network, Role};
use crate::observe::{Doing, Row};
use crate::rules::{Phase, Rule};

/// Steps that each optimiser has taken: one stands still while the other's turn lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    executor: Box<dyn Executor>,
    rule: Box<dyn Rule>,
    maps: Arc<Maps>,
    transport: Arc<dyn Transport>,
    rule_name: &'static str,
    feedback_weights: BackwardWeights,
    inverse_weights: BackwardWeights,
    /// Times that inverses learn from a batch.
    inverse_iterations: usize,
    optimizer: Optimizer,
    /// The learning rate of each map, as it is written.
    rates: Vec<f64>,
    steps: OptimizerSteps,
    global_batch: usize,
}

impl Engine {
    /// A learner on this rank's share of the batch, with parameters not yet set: [`Engine::initialize`] or [`Engine::write`] comes next.
    ///
    /// Computes on the device that `parallel.device` means here; `threads` is what this rank may use of the CPU. Fails where the ranks do not
    /// divide the batch, the device lacks the kernels or the precision asked for, or memory is short. Collective.
    pub fn new(config: &Config, network: &Network, transport: Arc<dyn Transport>, threads: usize) -> Result<Engine> {
        let device = devices::choose(config.parallel.device, config.parallel.kernels, &*transport)?;
        let maps = prepare(config, network, &*transport)?;
        let (executor, rule) = executor::on(device, config, network, maps.clone(), &transport, threads)?;
        let engine = Engine::with(config, executor, rule, maps, transport);
        engine.agree()?;
        Ok(engine)
    }

    /// Refuses ranks whose kernels would give other bits than rank 0's. Collective.
    fn agree(&self) -> Result<()> {
        let arithmetic = match self.kernels() {
            "avx512" | "avx2" => "fused (avx512, avx2)",
            other => other,
        };
        agree(&Facts::default().with("the arithmetic of the kernels (parallel.kernels)", arithmetic), &*self.transport)
    }

    pub(super) fn with(
        config: &Config,
        executor: Box<dyn Executor>,
        rule: Box<dyn Rule>,
        maps: Arc<Maps>,
        transport: Arc<dyn Transport>,
    ) -> Engine {
        let (optimizer, global_batch) = (config.optimizer.clone(), config.data.batch_size);
        let (rule_name, steps) = (config.learning.rule.name(), OptimizerSteps::default());
        let rates = optimizer::rates(&optimizer, &maps);
        let (feedback_weights, inverse_weights) = (config.learning.feedback_weights, config.learning.inverse_weights);
        let inverse_iterations = config.inverse_iterations();
        Engine {
            executor,
            rule,
            maps,
            transport,
            rule_name,
            feedback_weights,
            inverse_weights,
            inverse_iterations,
            optimizer,
            rates,
            steps,
            global_batch,
        }
    }

    /// Draws the initial parameters from the seed: the same on every rank. Collective.
    pub fn initialize(&mut self) -> Result<()> {
        self.initialize_with(|_| Ok(()))
    }

    /// The same, with other values of some parameters, which `give` writes. It does so twice: what is transposed is of its values, and
    /// what it has of that counts all the same. Collective.
    pub fn initialize_with(&mut self, give: impl Fn(&mut Engine) -> Result<()>) -> Result<()> {
        if self.writes() {
            self.executor.initialize();
            let maps = self.maps.clone();
            for (index, values) in maps.all.iter().enumerate().filter_map(|(index, map)| Some((index, map.initial()?))) {
                self.write(MapId(index), Part::Weight, Buffer::Weights, &values)?;
            }
        }
        self.transport.barrier();
        give(self)?;
        if self.writes() {
            if self.feedback_weights == BackwardWeights::Transposed {
                self.transpose_into_feedback()?;
            }
            if self.inverse_weights == BackwardWeights::Transposed {
                self.transpose_into_inverses()?;
            }
        }
        self.transport.barrier();
        give(self)?;
        self.transport.barrier();
        self.executor.follow_signs(0)
    }

    /// Gives each layer's feedback the layer's weights, which in their interchange layout are in the same order.
    fn transpose_into_feedback(&mut self) -> Result<()> {
        let maps = self.maps.clone();
        for (forward, feedback) in maps.forward.iter().zip(&maps.feedback) {
            let copied = |map: &Map| map.role == Role::Feedback && map.parameters() > 0;
            if let Some(feedback) = feedback.filter(|feedback| copied(maps.get(*feedback))) {
                let weights = self.read(*forward, Part::Weight, Buffer::Weights);
                self.write(feedback, Part::Weight, Buffer::Weights, &weights)?;
            }
        }
        Ok(())
    }

    /// Gives each inverse its layer's weights: [out, in] becomes [in, out], and [k, k, Cin, Cout] of a convolution, or of each place of a
    /// local layer, becomes [Cout, k, k, Cin]. What an inverse has beyond that, for auxiliary features, stays as drawn.
    fn transpose_into_inverses(&mut self) -> Result<()> {
        let maps = self.maps.clone();
        for (forward, inverse) in maps.forward.iter().zip(&maps.inverse) {
            let Some(inverse) = *inverse else { continue };
            let weights = self.read(*forward, Part::Weight, Buffer::Weights);
            let mut transposed = self.read(inverse, Part::Weight, Buffer::Weights);
            let shape = &maps.get(*forward).weight.shape;
            let places: usize = shape[..shape.len().saturating_sub(4)].iter().product();
            let columns = shape[shape.len() - 1];
            let (block, wide) = (weights.len() / places, transposed.len() / (places * columns));
            for (from, to) in weights.chunks(block).zip(transposed.chunks_mut(wide * columns)) {
                for (row, values) in from.chunks(columns).enumerate() {
                    values.iter().enumerate().for_each(|(column, value)| to[column * wide + row] = *value);
                }
            }
            self.write(inverse, Part::Weight, Buffer::Weights, &transposed)?;
        }
        Ok(())
    }

    /// Whether this rank must set parameters itself: all do, but for those of a host that share one copy, where the first does.
    pub fn writes(&self) -> bool {
        !self.shares_parameters() || self.transport.local().0 == 0
    }

    /// Whether one copy of the parameters serves all ranks of a host.
    pub fn shares_parameters(&self) -> bool {
        self.executor.shares_parameters()
    }

    /// One step on this rank's part of a global batch: activities, targets, errors, then the update on all ranks, with learning rates that
    /// are `rate` times those of the configuration. Collective.
    ///
    /// Fails, before any parameter changes, where the loss is not finite.
    pub fn learn(&mut self, batch: &Batch, phase: Phase, rate: f64) -> Result<()> {
        ensure!(batch.samples * self.transport.size() == self.global_batch, "a training batch is whole");
        let last = if phase.trains_inverse() { self.inverse_iterations - 1 } else { 0 };
        for iteration in 0..last {
            self.step(batch, Phase::Inverse, iteration, rate)?;
        }
        self.step(batch, phase, last, rate)
    }

    /// What belongs to one update of the parameters.
    fn step(&mut self, batch: &Batch, phase: Phase, iteration: usize, rate: f64) -> Result<()> {
        self.executor.backend().begin(batch)?;
        let step = StepInFlight::learn(&mut *self.executor, &*self.rule, phase, iteration)?;
        check_finite(step.state(), &self.maps, self.rule_name, batch)?;
        let taken = OptimizerSteps {
            forward: self.steps.forward + u64::from(phase.trains_forward()),
            inverse: self.steps.inverse + u64::from(phase.trains_inverse()),
        };
        let of = |(map, own): (&Map, &f64)| {
            if map.role == Role::Statistics {
                return optimizer::statistics(self.global_batch);
            }
            // Feedback learns with the forward model.
            let t = if map.role == Role::Inverse { taken.inverse } else { taken.forward };
            optimizer::step(self.optimizer.group(map.role), self.optimizer.epsilon_form, t, rate * own, self.global_batch)
        };
        let steps: Vec<OptimizerStep> = self.maps.all.iter().zip(&self.rates).map(of).collect();
        step.commit(Optimizers(&steps))?;
        self.steps = taken;
        self.executor.follow_signs(batch.step + 1)
    }

    /// The forward pass alone, on any number of samples up to this rank's share of a batch. Not collective.
    pub fn evaluate(&mut self, batch: &Batch) -> Result<()> {
        self.executor.backend().begin(batch)?;
        self.executor.evaluate(&*self.rule)
    }

    /// How the rule compares with back-propagation on this rank's part of a global batch, by forward layer; where the configuration has
    /// `training.diagnostics`. Nothing that trains changes. Collective.
    pub fn diagnose(&mut self, batch: &Batch) -> Result<Vec<LayerDiagnostics>> {
        ensure!(batch.samples * self.transport.size() == self.global_batch, "diagnostics are measured on a whole batch");
        self.executor.backend().begin(batch)?;
        let mut layers = self.executor.diagnose(&*self.rule)?;
        let maps = self.maps.clone();
        for ((layer, forward), feedback) in layers.iter_mut().zip(&maps.forward).zip(&maps.feedback) {
            // Which has the weights' own order.
            let layered = |feedback: &MapId| maps.get(*feedback).role == Role::Feedback && maps.get(*feedback).parameters() > 0;
            let Some(feedback) = feedback.filter(layered) else { continue };
            let linked = |map| maps.get(*forward).linked(&self.read(map, Part::Weight, Buffer::Weights));
            let [ours, theirs] = [*forward, feedback].map(linked);
            layer.feedback_angle_degrees = diagnostics::angle(diagnostics::products(&ours, &theirs));
        }
        Ok(layers)
    }

    /// A measure of each sample of the last batch of this rank.
    pub fn measure(&self, measure: Measure) -> &[f32] {
        self.executor.state().measure(measure)
    }

    /// The network's output for the last batch of this rank: [samples, units].
    pub fn output(&self) -> Result<Vec<f32>> {
        let forward = self.rule.forward();
        self.executor.state().read_activity(forward.h[forward.depth()])
    }

    /// How this rank best takes its batches.
    pub fn form(&self) -> Form {
        if self.executor.scales_pixels() { Form::Bytes } else { Form::Floats }
    }

    /// Most samples in a batch of this rank.
    pub fn capacity(&self) -> usize {
        self.global_batch / self.transport.size()
    }

    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    pub fn optimizer(&self) -> &Optimizer {
        &self.optimizer
    }

    pub fn steps(&self) -> OptimizerSteps {
        self.steps
    }

    pub fn set_steps(&mut self, steps: OptimizerSteps) {
        self.steps = steps;
    }

    /// Brings to rank 0 what it lacks for a checkpoint. Collective; afterwards [`Engine::read`] on rank 0 has everything.
    pub fn gather(&self) {
        self.executor.gather_moments();
    }

    /// A tensor in its interchange layout.
    pub fn read(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        self.executor.state().read_parameter(map, part, buffer)
    }

    /// Replaces a tensor by `values` in its interchange layout. Where [`Engine::writes`] says no, this does nothing.
    /// Call [`Transport::barrier`] when all are written.
    pub fn write(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        if !self.writes() {
            return Ok(());
        }
        self.executor.backend().write_parameter(map, part, buffer, values).context("this is a checkpoint of another network")
    }

    /// Checksum of this rank's parameters; equal on all ranks, or the replicas differ.
    pub fn checksum(&self) -> u64 {
        self.executor.checksum()
    }

    pub fn profile(&self) -> &Profile {
        self.executor.profile()
    }

    pub fn reset_profile(&mut self) {
        self.executor.reset_profile();
    }

    /// What the GPU was measured to do; none on a CPU.
    pub fn rates(&self) -> Result<Option<Rates>> {
        self.executor.rates()
    }

    /// From now on the profile tells each phase's time, which on a GPU costs some.
    pub fn time_phases(&mut self) {
        self.executor.time_phases();
    }

    /// Seconds since the profile was reset.
    pub fn seconds(&self) -> Seconds {
        let mut seconds = Seconds::default();
        for doing in Doing::all() {
            let spent = self.profile().get(doing).seconds;
            match doing.row() {
                Row::Exchange => seconds.exchange += spent,
                Row::Update => seconds.update += spent,
                _ => seconds.compute += spent,
            }
        }
        seconds
    }

    /// The kernels in use: "avx512", "avx2", "portable", "cuda" or "libtorch".
    pub fn kernels(&self) -> &'static str {
        self.executor.kernels()
    }

    pub fn threads(&self) -> usize {
        self.executor.threads()
    }

    /// "cpu", or which GPU: "cuda:0 (NVIDIA H200)".
    pub fn device(&self) -> String {
        self.executor.device()
    }

    /// Bytes in use of the GPU's memory, by this process and others; absent on a CPU.
    pub fn device_memory(&self) -> Option<u64> {
        self.executor.device_memory()
    }
}

/// The maps of a network whose batch the ranks divide.
pub(super) fn prepare(config: &Config, network: &Network, transport: &dyn Transport) -> Result<Arc<Maps>> {
    config.data.samples_per_rank(transport.size())?;
    Ok(Arc::new(Maps::new(network, &config.learning.needs())))
}

/// Refuses a step whose losses are not finite: which, and where to look for the cause.
fn check_finite(state: &dyn Backend, maps: &Maps, rule: &str, batch: &Batch) -> Result<()> {
    for (name, measure) in [("loss", Measure::Loss), ("inverse_loss", Measure::InverseLoss)] {
        let losses = state.measure(measure);
        if let Some(sample) = losses.iter().position(|loss| !loss.is_finite()) {
            return Err(Exit::NotFinite.error(format!(
                "{name} is {} at step {} (sample {} of the global batch) under {rule}: {}. The last checkpoint is from before. \
                 A smaller learning rate, sigma or alpha usually helps",
                losses[sample],
                batch.step,
                batch.first + sample,
                first_not_finite(state, maps, measure)
            )));
        }
    }
    Ok(())
}

/// The lowest layer with a parameter that is not finite, or what else it must be.
fn first_not_finite(state: &dyn Backend, maps: &Maps, measure: Measure) -> String {
    for (index, map) in maps.all.iter().enumerate() {
        for (part, name, _) in map.tensors() {
            let values = state.read_parameter(MapId(index), part, Buffer::Weights);
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                return format!("{name} of layer {} holds {value}", map.layer);
            }
        }
    }
    if measure == Measure::InverseLoss {
        return "all parameters are finite, so it is an inverse's error that overflows when it is squared".to_owned();
    }
    let top = maps.forward.len() - 1;
    format!("all parameters are finite, so it is the arithmetic of the output, layer {top}, that overflows")
}
