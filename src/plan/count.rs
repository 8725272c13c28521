//! What a step of a rule costs, found by letting the rule itself run on a backend that counts instead of computing.
//!
//! A new rule is thereby planned as soon as it is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;

use crate::compute::cpu::{input_stride, row_stride, simd::LANES};
use crate::compute::cuda::kernels::launches::in_fours;
use crate::compute::{Activity, Backend, Batch, Buffer, Measure, Nonlinearity, Normalized, Normalizes, Part, Update};
use crate::config::{Config, Wire};
use crate::exchange::Sharing;
use crate::network::{MapId, Maps, Network, Shape};
use crate::rules::{self, Collected, Diagnosis, Phase, Rule};

/// Cost of one step on one rank.
#[derive(Clone, Debug, PartialEq)]
pub struct StepCost {
    pub phase: Phase,
    /// Floating-point operations of the products with weights: forward, backward, inverse.
    pub passes: f64,
    /// Floating-point operations of the gradients of this rank's samples.
    pub gradients: f64,
    /// Bytes of the factors of this rank's samples that other ranks' updates need.
    pub factor_bytes: u64,
    /// Bytes of the parameters that the step changes.
    pub changed_bytes: u64,
    /// Bytes that a rank on a GPU receives, where maps are shared one by one.
    pub between_gpus: u64,
}

/// A rule on `samples` samples a step.
pub(super) struct Counted {
    counter: Counter,
    rule: Box<dyn Rule>,
}

impl Counted {
    pub(super) fn new(config: &Config, network: &Network, maps: &Arc<Maps>, samples: usize) -> Result<Counted> {
        let mut counter = Counter { maps: maps.clone(), samples, slots: Vec::new(), operations: 0.0 };
        counter.slot(network.input, input_stride(network));
        for map in maps.max_pools() {
            counter.activity(map.destination);
        }
        let rule = rules::build(&config.learning, network, maps, &mut counter)?;
        if config.training.diagnostics {
            Diagnosis::new(&*rule, network, maps, &mut counter);
        }
        Ok(Counted { counter, rule })
    }

    /// Bytes of all activities, targets and errors.
    pub(super) fn activity_bytes(&self) -> u64 {
        self.counter.slots.iter().map(|slot| 4 * slot.stored.next_multiple_of(LANES) as u64).sum()
    }

    /// By map: its updates in a step, where they are several.
    pub(super) fn several(&mut self, phases: &[Phase]) -> BTreeMap<usize, u64> {
        let mut several = BTreeMap::new();
        for phase in phases {
            let mut step = Collected::on(&mut self.counter);
            self.rule.learn(&mut step, *phase);
            let of_maps = Update::by_map(&step.updates).filter(|of_map| of_map.len() > 1);
            several.extend(of_maps.map(|of_map| (of_map[0].map.0, of_map.len() as u64)));
        }
        several
    }

    /// Bytes of all of them on each of `ranks` GPUs, with the other ranks' factors of maps that are shared so, and the pixels that a batch
    /// comes as.
    pub(super) fn activity_bytes_on_gpu(&mut self, phases: &[Phase], sharing: &[Sharing], ranks: usize, wire: Wire) -> u64 {
        let mut gathered = BTreeSet::new();
        for phase in phases {
            let mut step = Collected::on(&mut self.counter);
            self.rule.learn(&mut step, *phase);
            gathered.extend(step.gathered.iter().filter(|_| ranks > 1).map(|activity| activity.0));
            let by_activities = step.updates.iter().filter(|update| sharing[update.map.0] == Sharing::Activities);
            gathered.extend(by_activities.flat_map(|update| [update.pre.0, update.post.0]));
        }
        let slots = self.counter.slots.iter().enumerate();
        let of = |(index, slot): (usize, &Slot)| match gathered.contains(&index) {
            // What travels rounded has a place of its own.
            true if wire == Wire::Bf16 => ranks * slot.on_gpu * 3 / 2,
            true => ranks * slot.on_gpu,
            false => slot.on_gpu,
        };
        4 * (self.counter.slots[0].values + slots.map(of).sum::<usize>()) as u64
    }

    /// What a step costs in which inverses learn `iterations` times. `sharing` is that of each map on `ranks` GPUs.
    pub(super) fn step(&mut self, phase: Phase, iterations: usize, sharing: &[Sharing], ranks: usize) -> StepCost {
        let last = self.update(phase, sharing, ranks);
        if !phase.trains_inverse() || iterations == 1 {
            return last;
        }
        let before = self.update(Phase::Inverse, sharing, ranks);
        let times = iterations as u64 - 1;
        StepCost {
            phase,
            passes: last.passes + times as f64 * before.passes,
            gradients: last.gradients + times as f64 * before.gradients,
            factor_bytes: last.factor_bytes + times * before.factor_bytes,
            changed_bytes: last.changed_bytes + times * before.changed_bytes,
            between_gpus: last.between_gpus + times * before.between_gpus,
        }
    }

    /// What belongs to one update of the parameters.
    fn update(&mut self, phase: Phase, sharing: &[Sharing], ranks: usize) -> StepCost {
        self.counter.operations = 0.0;
        let mut step = Collected::on(&mut self.counter);
        self.rule.learn(&mut step, phase);
        let mut updates = step.updates;
        updates.retain(|update| self.counter.maps.get(update.map).pool.is_none());
        let by = |way: Sharing| updates.iter().filter(move |update| sharing[update.map.0] == way);
        let factors_of = |update: &Update| [update.pre.0, update.post.0];
        let factors: BTreeSet<usize> = updates.iter().flat_map(factors_of).collect();
        let gathered: BTreeSet<usize> = by(Sharing::Activities).flat_map(factors_of).collect();
        let maps = &self.counter.maps;
        let trained = |update: &Update| maps.get(update.map);
        let of_others = ranks as u64 - 1;
        // Of several updates of a map one gradient is made.
        let changed: BTreeSet<MapId> = updates.iter().map(|update| update.map).collect();
        let bytes = |map: &MapId| 4 * maps.get(*map).parameters() as u64;
        // Parts of parameters: new ones, and where ranks exchange gradients the others' of this rank's part before.
        let times = |map: &MapId| match sharing[map.0] {
            Sharing::None => 0,
            Sharing::Activities => 1,
            Sharing::Gradients => 2,
        };
        let parts: u64 = changed.iter().map(|map| times(map) * bytes(map)).sum();
        StepCost {
            phase,
            passes: self.counter.operations,
            gradients: updates.iter().map(|update| self.counter.samples as f64 * trained(update).connectivity.operations()).sum(),
            factor_bytes: factors.into_iter().map(|slot| 4 * self.counter.slots[slot].stored as u64).sum(),
            changed_bytes: changed.iter().map(bytes).sum(),
            between_gpus: gathered.into_iter().map(|slot| 4 * of_others * self.counter.slots[slot].values as u64).sum::<u64>()
                + parts * of_others / ranks as u64,
        }
    }
}

struct Counter {
    maps: Arc<Maps>,
    samples: usize,
    /// Each activity.
    slots: Vec<Slot>,
    operations: f64,
}

/// Sizes of an activity.
struct Slot {
    /// Elements in memory, on a CPU, in whole rows; and on a GPU.
    stored: usize,
    on_gpu: usize,
    values: usize,
}

impl Counter {
    fn slot(&mut self, shape: Shape, stride: usize) -> Activity {
        let stored = shape.positions() * self.samples * stride;
        let on_gpu = shape.positions() * self.samples * in_fours(shape.channels);
        self.slots.push(Slot { stored, on_gpu, values: self.samples * shape.units() });
        Activity(self.slots.len() - 1)
    }

    fn product(&mut self, map: MapId, jobs: usize) {
        self.operations += (jobs * self.samples) as f64 * self.maps.get(map).connectivity.operations();
    }
}

/// Products count; elementwise work, which is small beside them, does not.
impl Backend for Counter {
    fn activity_of(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        if !nonlinearity.slope_follows_from_value() {
            self.slot(shape, row_stride(shape.channels));
        }
        self.slot(shape, row_stride(shape.channels))
    }

    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]) {
        self.product(map, jobs.len());
    }

    fn apply_transposed(&mut self, map: MapId, _: Activity, _: Activity) {
        self.product(map, 1);
    }

    fn wanted_output(&mut self, _: Activity) {}

    fn output_and_error(&mut self, _: Activity, _: Activity, _: Activity) {}

    fn output(&mut self, _: Activity, _: Activity) {}

    fn add_noise(&mut self, _: Activity, _: Activity, _: f32, _: usize) {}

    fn error_through_nonlinearity(&mut self, _: Activity, _: Activity, _: Activity, _: bool) {}

    fn through_nonlinearity(&mut self, _: Activity, _: Activity) {}

    fn difference_through_nonlinearity(&mut self, _: Activity, _: Activity, _: Activity) {}

    fn add(&mut self, _: Activity, _: Activity, _: Activity) {}

    fn step_along(&mut self, _: Activity, _: f32, _: Activity, _: Activity) {}

    fn difference_target(&mut self, _: Activity, _: [Activity; 2], _: f32, _: Option<(f32, Activity)>, _: Activity, _: Option<Activity>) {}

    fn concatenate(&mut self, _: Activity, _: Activity, _: Activity) {}

    fn begin(&mut self, _: &Batch) -> Result<()> {
        Ok(())
    }

    fn measure(&self, _: Measure) -> &[f32] {
        &[]
    }

    fn read_activity(&self, _: Activity) -> Result<Vec<f32>> {
        Ok(Vec::new())
    }

    fn read_parameter(&self, _: MapId, _: Part, _: Buffer) -> Vec<f32> {
        Vec::new()
    }

    fn write_parameter(&mut self, _: MapId, _: Part, _: Buffer, _: &[f32]) -> Result<()> {
        Ok(())
    }
}

impl Normalizes for Counter {
    fn normalize_by_running(&mut self, _: &Normalized, _: Activity) {}

    fn sum_moments(&mut self, _: &Normalized) {}

    fn normalize(&mut self, _: &Normalized, _: &[f32], _: Activity) {}

    fn sum_products(&mut self, _: &Normalized, _: Activity) {}

    fn through_normalization(&mut self, _: &Normalized, _: Activity, _: &[f32]) {}
}
