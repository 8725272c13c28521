//! The plan of a run: every shape and size that follows from a configuration, its data, and the number of ranks.
//!
//! Making it is where a run that cannot work is refused, before anything is allocated.

mod count;
mod data;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::Result;

use crate::compute::cpu::spans;
use crate::compute::cuda::bytes_of_parameters;
use crate::compute::device::Kernels;
use crate::config::{Config, ExchangeChoice, Wire};
use crate::exchange::Sharing;
use crate::exit::Exit;
use crate::network::{Fields, LayerSpec, Map, Maps, Network, Role};
use crate::rules::{Feedback, Setting};
use count::Counted;
pub use count::StepCost;
pub use data::DataFacts;

/// More weights in a map, or more values in an activity of a batch, are taken for a mistake: 4 TB.
const MOST_VALUES: f64 = 1e12;
/// The same for pairs of connected positions, which are listed one by one.
const MOST_OFFSETS: f64 = 5e7;
/// Places of a pool's window, whose numbers float32 still tells apart.
const MOST_PLACES: f64 = 1.6e7;

/// Sizes of a run; bytes and operations are of one rank unless a field says otherwise.
#[derive(Clone, Debug)]
pub struct Plan {
    pub ranks: usize,
    /// Samples of one rank in a step.
    pub local_batch: usize,
    pub network: Network,
    pub maps: Arc<Maps>,
    pub memory: Memory,
    /// The same of a GPU, where this program's kernels compute.
    pub gpu_memory: Memory,
    pub disk: Disk,
    /// One kind of step, or, alternating, that of an inverse and that of a forward epoch.
    pub steps: Vec<StepCost>,
    pub exchange: Sharing,
    /// The same of each map on GPUs, where ranks choose map by map.
    pub between_gpus: Vec<Sharing>,
    /// What travels between GPUs.
    pub wire: Wire,
    /// Absent where no data was looked at.
    pub epoch: Option<Epoch>,
}

/// Bytes in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, padded to whole vectors.
    pub parameters: u64,
    /// What the optimisers keep for each parameter.
    pub moments: u64,
    pub activities: u64,
    /// Stored gradients, and room for what other ranks send of them, or of changes that travel rounded.
    pub gradients: u64,
}

impl Memory {
    pub fn whole(&self) -> u64 {
        self.parameters + self.moments + self.activities + self.gradients
    }
}

/// Bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The parameters of one checkpoint.
    pub model: u64,
    /// The optimisers' state beside them.
    pub optimizer: u64,
    /// Most checkpoints at a time: those kept, step 0, the best one where there is a validation split, and the one being written.
    pub checkpoints: usize,
}

impl Disk {
    /// Bytes of one checkpoint.
    pub fn checkpoint(&self) -> u64 {
        self.model + self.optimizer
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// Training samples, without those set apart for validation.
    pub samples: usize,
    pub steps: usize,
    /// Samples of the incomplete last batch, which train nothing in that epoch.
    pub left_out: usize,
    /// Steps of the whole run, where it has a length.
    pub total_steps: Option<u64>,
    pub validation: usize,
    pub test: Option<usize>,
}

impl Plan {
    /// Plans `config` on `ranks` ranks with data as `facts` has it.
    ///
    /// Errors are [`Exit::Usage`]: ranks that do not divide the batch, fewer samples than one batch, shapes beyond reason.
    pub fn new(config: &Config, facts: &DataFacts, ranks: usize) -> Result<Plan> {
        let samples = config.data.samples_per_rank(ranks)?;
        let epoch = epoch(config, facts)?;
        let network = network(config, facts)?;
        let maps = Arc::new(Maps::new(&network, &config.learning.needs()));
        let mut counted = Counted::new(config, &network, &maps, samples)?;
        let (phases, iterations) = (config.schedule().phases(), config.inverse_iterations());
        let exchange = match config.parallel.exchange {
            _ if ranks == 1 => Sharing::None,
            ExchangeChoice::Gradients => Sharing::Gradients,
            ExchangeChoice::Auto | ExchangeChoice::Activities => Sharing::Activities,
        };
        let between_gpus = Sharing::plan(&maps, ranks, config.parallel.exchange, samples, Kernels::Own);
        let (spans, sizes) = spans(&maps);
        let trained = || maps.all.iter().zip(&spans).filter(|(map, _)| map.trained());
        let kept = |map: &Map| config.optimizer.group(map.role).moments().len();
        let bytes = |elements: usize| 4 * elements as u64;
        let memory = Memory {
            parameters: bytes(sizes.weights),
            moments: trained().map(|(map, span)| bytes(kept(map) * (span.end - span.weights))).sum(),
            activities: counted.activity_bytes(),
            // A rank's own, and the others' parts of its range.
            gradients: if exchange == Sharing::Gradients { bytes(sizes.moments) + bytes(sizes.moments / ranks * (ranks - 1)) } else { 0 },
        };
        let wire = config.parallel.wire;
        let mut gpu_memory = Memory { activities: counted.activity_bytes_on_gpu(phases, &between_gpus, ranks, wire), ..Memory::default() };
        let several = counted.several(phases);
        // Of a gradient that is compared with back-propagation's.
        let compared = |map: &Map| config.training.diagnostics && map.role == Role::Forward && map.trained();
        for (index, (map, way)) in maps.all.iter().zip(&between_gpus).enumerate() {
            let parts = if *way == Sharing::None { 1 } else { ranks };
            let [parameters, moments] = bytes_of_parameters(map, config.optimizer.group(map.role).needed_moments(), parts);
            gpu_memory.parameters += parameters;
            gpu_memory.moments += moments;
            if parts > 1 && wire == Wire::Bf16 {
                gpu_memory.gradients += parameters / 2 + parameters / ranks as u64;
            }
            let stored = u64::from(*way == Sharing::Gradients || compared(map));
            gpu_memory.gradients += parameters * several.get(&index).copied().unwrap_or(stored);
        }
        let parameters: u64 = maps.all.iter().map(|map| map.parameters() as u64).sum();
        Ok(Plan {
            ranks,
            local_batch: samples,
            memory,
            gpu_memory,
            disk: Disk {
                model: 4 * parameters,
                optimizer: trained().map(|(map, _)| bytes(kept(map) * map.parameters())).sum(),
                checkpoints: config.training.keep_checkpoints + 2 + usize::from(config.data.validation > 0),
            },
            steps: phases.iter().map(|&phase| counted.step(phase, iterations, &between_gpus, ranks)).collect(),
            exchange,
            between_gpus,
            wire,
            epoch,
            network,
            maps,
        })
    }

    /// Bytes that a rank on a CPU receives, or reads from other ranks' memory, in a step whose cost is `cost` when updates are shared in
    /// `way`, with all ranks on one host or each on a host of its own. On one host parameters are there for all by `activities`; else, and
    /// by `gradients`, new parameters travel too.
    pub fn exchanged(&self, cost: &StepCost, way: Sharing, one_host: bool) -> u64 {
        let others = self.ranks as u64 - 1;
        let from_owners = cost.changed_bytes * others / self.ranks as u64;
        match way {
            Sharing::None => 0,
            Sharing::Activities => others * cost.factor_bytes + if one_host { 0 } else { from_owners },
            Sharing::Gradients => 2 * from_owners,
        }
    }

    /// Bytes that a rank on a GPU receives in a step whose cost is `cost`.
    pub fn exchanged_between_gpus(&self, cost: &StepCost) -> u64 {
        if self.wire == Wire::Bf16 { cost.between_gpus / 2 } else { cost.between_gpus }
    }

    /// How ranks on GPUs share updates, in words.
    pub fn ways_between_gpus(&self) -> String {
        let count = |way| self.between_gpus.iter().filter(|one| **one == way).count();
        match (count(Sharing::Activities), count(Sharing::Gradients)) {
            (_, 0) => "activities".to_owned(),
            (0, _) => "gradients".to_owned(),
            (by_activities, by_gradients) => format!("activities for {by_activities} maps, gradients for {by_gradients}"),
        }
    }

    /// Bytes of memory of all ranks, on one host.
    pub fn host_memory(&self) -> u64 {
        self.memory_of(self.ranks)
    }

    /// Bytes of memory of `ranks` of the ranks, on one host, which by `activities` hold parameters and moments once.
    pub fn memory_of(&self, ranks: usize) -> u64 {
        let Memory { parameters, moments, activities, gradients } = self.memory;
        let copies = if self.exchange == Sharing::Gradients { ranks as u64 } else { 1 };
        copies * (parameters + moments) + ranks as u64 * (activities + gradients)
    }
}

/// The network of `config` on data as `facts` has it; an error of [`Exit::Usage`] where a size is beyond any machine.
pub fn network(config: &Config, facts: &DataFacts) -> Result<Network> {
    let network = Network::new(facts.input, facts.classes, &config.network).map_err(|error| Exit::Usage.error(error.to_string()))?;
    let top = network.layers.len() - 1;
    let classes = network.layers[top].output.units() as f64;
    for (index, layer) in network.layers.iter().enumerate() {
        if layer.normalization().is_some() && layer.output.positions() * config.data.batch_size == 1 {
            return Err(Exit::Usage.error(format!(
                "network.layers[{index}] is normalised over batches of one value a channel, which is 0 whatever the value; raise \
                 data.batch_size, or leave out this layer's normalization"
            )));
        }
        let (inputs, outputs) = (layer.input.units() as f64, layer.output.units() as f64);
        let (weights, offsets, places) = match layer.kind {
            LayerSpec::Dense { .. } => (inputs * outputs, layer.input.positions() as f64, 0.0),
            LayerSpec::Local { kernel, .. } | LayerSpec::Conv { kernel, .. } => {
                let window = kernel as f64 * kernel as f64;
                (window * layer.input.channels as f64 * outputs, window * layer.output.positions() as f64, 0.0)
            }
            LayerSpec::AveragePool { kernel, .. } | LayerSpec::MaxPool { kernel, .. } => {
                let window = kernel as f64 * kernel as f64;
                (0.0, window * layer.output.positions() as f64, window)
            }
        };
        let rule = config.learning.rule;
        let kernel = match layer.kind {
            LayerSpec::Dense { .. } => None,
            LayerSpec::Local { kernel, .. }
            | LayerSpec::Conv { kernel, .. }
            | LayerSpec::AveragePool { kernel, .. }
            | LayerSpec::MaxPool { kernel, .. } => Some(kernel).filter(|_| index > 0 && rule.has_inverses()),
        };
        let of_inverse = match (config.learning.needs().fields, kernel) {
            (_, None) => (0.0, 0.0),
            (Fields::Dense, _) => (inputs * outputs, (layer.input.positions() * layer.output.positions()) as f64),
            (Fields::Larger(growth), Some(kernel)) => {
                let window = ((kernel + growth) as f64).powi(2);
                (window * layer.input.channels as f64 * outputs, window * layer.output.positions() as f64)
            }
        };
        let features = if index == top && rule.uses(Setting::AuxiliaryUnits) { config.learning.auxiliary_units.unwrap_or(0) } else { 0 };
        let direct = match rule.feedback {
            Feedback::Direct(_) if index < top => outputs * classes,
            Feedback::Input if index == 0 => inputs * classes,
            _ => 0.0,
        };
        let random = direct.max(inputs * features as f64);
        let values = config.data.batch_size as f64 * inputs.max(outputs);
        let what = if index < top { format!("network.layers[{index}]") } else { "the output layer".to_owned() };
        let too_many = |number: f64, of: &str| {
            Exit::Usage.error(format!(
                "{what} ({} on {}) would have {number:.2e} {of}; make it smaller",
                network.describe(index),
                layer.input
            ))
        };
        if weights.max(random) > MOST_VALUES {
            return Err(too_many(weights.max(random), "weights"));
        }
        if places > MOST_PLACES {
            return Err(too_many(places, "places in a window"));
        }
        if values > MOST_VALUES {
            return Err(too_many(values, "activities in a batch"));
        }
        if offsets.max(layer.input.positions() as f64) > MOST_OFFSETS {
            return Err(too_many(offsets.max(layer.input.positions() as f64), "connected positions"));
        }
        if of_inverse.0 > MOST_VALUES {
            return Err(too_many(of_inverse.0, "weights in its inverse"));
        }
        if of_inverse.1 > MOST_OFFSETS {
            return Err(too_many(of_inverse.1, "connected positions in its inverse"));
        }
    }
    Ok(network)
}

fn epoch(config: &Config, facts: &DataFacts) -> Result<Option<Epoch>> {
    let Some(all) = facts.train else { return Ok(None) };
    let (validation, batch) = (config.data.validation, config.data.batch_size);
    let samples = all.saturating_sub(validation);
    if samples < batch {
        let set_apart = if validation > 0 { format!(" beside data.validation = {validation}") } else { String::new() };
        return Err(Exit::Usage.error(format!(
            "data.train = {:?} has {samples} samples{set_apart}, fewer than one batch (data.batch_size = {batch}); make the batch smaller",
            config.data.train.display().to_string()
        )));
    }
    let steps = samples / batch;
    let by_epochs = config.training.epochs.map(|epochs| epochs.saturating_mul(steps as u64));
    let total_steps = [by_epochs, config.training.max_steps].into_iter().flatten().min();
    Ok(Some(Epoch { samples, steps, left_out: samples % batch, total_steps, validation, test: facts.test }))
}
