//! The CPU backend: our own kernels on one thread pool.
//!
//! Everything that a step touches is allocated before the first one. A dense layer is the case of one position, so every map goes through
//! the same nests (`apply`, `update`) round one tile routine (`tile`).

// Tiles of registers are walked by index: an iterator per register would hide which is which.
#![allow(clippy::needless_range_loop)]

// The kernels. What they need is said at `simd::Kernel` and at their types, and whoever runs one says why it is so: of each line within
// there is nothing to add.
#[allow(clippy::undocumented_unsafe_blocks)]
mod apply;
#[allow(clippy::undocumented_unsafe_blocks)]
mod channels;
#[allow(clippy::undocumented_unsafe_blocks)]
mod chunk;
#[allow(clippy::undocumented_unsafe_blocks)]
mod elementary;
#[allow(clippy::undocumented_unsafe_blocks)]
mod elementwise;
mod input;
mod memory;
#[allow(clippy::undocumented_unsafe_blocks)]
mod noise;
#[allow(clippy::undocumented_unsafe_blocks)]
mod nonlinearity;
mod normalization;
mod operations;
mod output;
mod parameters;
pub mod pool;
#[allow(clippy::undocumented_unsafe_blocks)]
mod pooling;
#[allow(clippy::undocumented_unsafe_blocks)]
pub mod simd;
#[allow(clippy::undocumented_unsafe_blocks)]
mod tile;
#[allow(clippy::undocumented_unsafe_blocks)]
mod update;

use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::compute::profile::Profile;
use crate::compute::{Activity, Backend, Measure, OptimizerStep, Update};
use crate::network::{MapId, Maps, Network, Nonlinearity, Output, Role, Shape};
use crate::observe::{Doing, span};
use elementwise::Values;
pub use memory::{Arena, ParameterSpan, row_stride};
pub use noise::{Place, normals, stream_of_weights, uniforms};
pub use parameters::{Parameters, Sizes, spans};
use pool::Pool;
use simd::Isa;
pub use update::{Factors, Use};

/// Where an activity lies in the arena of activities.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub shape: Shape,
    /// Elements between samples.
    pub stride: usize,
    /// First element in the arena.
    pub start: usize,
    /// What maps that lead here end with.
    nonlinearity: Nonlinearity,
    /// First element of the pre-activations, where slopes come from them; else `start`.
    pre_activation: usize,
}

/// Elements between samples of the input. It is no vector operand, but of a pool: without padding, three channels take three floats.
pub fn input_stride(network: &Network) -> usize {
    let channels = network.input.channels;
    if network.layers[0].connectivity().weighted { channels } else { row_stride(channels) }
}

/// Activities that go through a map together: g on an activity, its target, and a corrupted copy.
const MOST_JOBS: usize = 3;

/// Our kernels, the parameters of all maps, and the activities of one rank.
pub struct CpuBackend {
    pub isa: Isa,
    pub pool: Pool,
    pub maps: Arc<Maps>,
    pub parameters: Parameters,
    pub profile: Profile,
    output: Output,
    label_smoothing: f32,
    seed: u64,
    slots: Vec<Slot>,
    /// Elements that the slots need so far.
    activity_elements: usize,
    activities: Option<Arena>,
    /// Samples that an activity has room for.
    capacity: usize,
    batch: usize,
    first: usize,
    step: u64,
    labels: Vec<u32>,
    measures: [Vec<f32>; Measure::COUNT],
    factors: Vec<Factors>,
    /// By layer: which place of each window won in the last pass up through a max pool.
    winners: Vec<Option<Activity>>,
}

/// What a CPU backend is made from.
pub struct Setup {
    pub isa: Isa,
    pub threads: usize,
    pub seed: u64,
    /// Largest number of samples in a batch of this rank.
    pub capacity: usize,
    /// Part of a label that is spread over all classes.
    pub label_smoothing: f32,
}

impl CpuBackend {
    /// A backend for `maps` of `network`, whose parameters lie in `parameters`. Activities are made next, then [`CpuBackend::allocate`].
    ///
    /// # Errors
    /// Threads that the system has not to give.
    pub fn new(network: &Network, maps: Arc<Maps>, parameters: Parameters, setup: &Setup) -> Result<CpuBackend> {
        let mut backend = CpuBackend {
            isa: setup.isa,
            pool: Pool::new(setup.threads)?,
            maps,
            parameters,
            profile: Profile::default(),
            output: network.output,
            label_smoothing: setup.label_smoothing,
            seed: setup.seed,
            slots: Vec::new(),
            activity_elements: 0,
            activities: None,
            capacity: setup.capacity,
            batch: setup.capacity,
            first: 0,
            step: 0,
            labels: Vec::new(),
            measures: [const { Vec::new() }; Measure::COUNT],
            factors: Vec::new(),
            winners: vec![None; network.depth()],
        };
        backend.measures = [(); Measure::COUNT].map(|()| vec![0.0; setup.capacity]);
        backend.slot(network.input, input_stride(network), Nonlinearity::Identity);
        let maps = backend.maps.clone();
        for map in maps.max_pools() {
            backend.winners[map.layer] = Some(backend.activity(map.destination));
        }
        Ok(backend)
    }

    fn slot(&mut self, shape: Shape, stride: usize, nonlinearity: Nonlinearity) -> Activity {
        assert!(self.activities.is_none(), "activities are made before memory is");
        let start = self.activity_elements;
        let elements = (shape.positions() * self.capacity * stride).next_multiple_of(simd::LANES);
        let pre_activation = if nonlinearity.slope_follows_from_value() { start } else { start + elements };
        self.slots.push(Slot { shape, stride, start, nonlinearity, pre_activation });
        self.activity_elements = pre_activation + elements;
        Activity(self.slots.len() - 1)
    }

    /// Elements of the arena that the activities made so far need.
    pub fn activity_elements(&self) -> usize {
        self.activity_elements
    }

    /// Gives the activities their memory: `arena` has at least [`CpuBackend::activity_elements`] elements.
    pub fn allocate(&mut self, arena: Arena) {
        assert!(arena.len() >= self.activity_elements);
        self.activities = Some(arena);
    }

    /// Initial parameters, from the seed.
    pub fn initialize(&mut self) {
        self.parameters.initialize(&self.maps, self.seed, self.isa, &self.pool);
    }

    /// Gives weights that follow the signs of their layer's these signs: this rank's part, of as many as share the parameters. `draw` is the
    /// number of steps before.
    pub fn follow_signs(&self, draw: u64, part: (usize, usize)) {
        for index in 0..self.maps.all.len() {
            self.parameters.follow_signs(&self.maps, MapId(index), draw, self.seed, self.isa, &self.pool, part);
        }
    }

    pub fn place(&self, activity: Activity) -> Slot {
        self.slots[activity.0]
    }

    /// Samples of the current batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    fn values(&self, activity: Activity) -> Values {
        let arena = self.activities.as_ref().expect("memory is allocated before the first step");
        Values(arena.at(self.slots[activity.0].start))
    }

    /// Where [`Slot::pre_activation`] says.
    fn pre_activations(&self, activity: Activity) -> Values {
        let arena = self.activities.as_ref().expect("memory is allocated before the first step");
        Values(arena.at(self.slots[activity.0].pre_activation))
    }

    /// Elements of `activity` that the current batch uses.
    fn elements(&self, activity: Activity) -> usize {
        let slot = self.slots[activity.0];
        slot.shape.positions() * self.batch * slot.stride
    }

    /// Rows of the measure; written by the operations that measure.
    fn measured(&mut self, measure: Measure) -> Values {
        Values(self.measures[measure as usize].as_mut_ptr())
    }

    /// Number of items that a map's update has: the unit in which ranks own parameters.
    pub fn update_items(&self, map: MapId) -> usize {
        update::items(&self.parameters.spans[map.0])
    }

    /// How long item `item` of a map takes, beside others, where the global batch has so many samples.
    pub fn item_work(&self, map: MapId, item: usize, samples: usize) -> u64 {
        update::work(&self.maps.get(map).connectivity, &self.parameters.spans[map.0], item, samples)
    }

    /// Elements of the arenas that items `items` of a map cover.
    pub fn item_elements(&self, map: MapId, items: std::ops::Range<usize>) -> std::ops::Range<usize> {
        let span = &self.parameters.spans[map.0];
        let at = |item: usize| if item == update::items(span) { span.end } else { update::item_start(span, item) };
        at(items.start)..at(items.end)
    }

    /// For each map, makes the gradient of the items that `owned` names from the factors of all its updates and of all ranks, and uses it.
    /// Updates of one map follow one another.
    ///
    /// `bases` are the ranks' arenas of activities, in the order of the global batch; every rank has the batch of this one.
    pub fn update(
        &mut self,
        updates: &[Update],
        bases: &[*mut f32],
        owned: impl Fn(MapId) -> std::ops::Range<usize>,
        purpose: impl Fn(MapId) -> Use,
    ) -> Result<()> {
        let started = std::time::Instant::now();
        let _span = span(Doing::UpdateForward, None);
        let mut factors = std::mem::take(&mut self.factors);
        factors.clear();
        for update in updates {
            let (pre, post) = (self.place(update.pre).start, self.place(update.post).start);
            // Addresses alone, in the activities of each rank.
            factors.extend(bases.iter().map(|base| Factors { pre: base.wrapping_add(pre), post: base.wrapping_add(post) }));
        }
        let mut passes = Vec::with_capacity(updates.len());
        let mut units = Vec::new();
        let (mut operations, mut bytes) = ([0.0; 2], [0.0; 2]);
        let mut rest = &factors[..];
        for (index, of_map) in Update::by_map(updates).enumerate() {
            let update = of_map[0];
            let map = self.maps.get(update.map);
            let (pre, post) = (self.place(update.pre), self.place(update.post));
            for own in of_map.iter().map(|update| [self.place(update.pre), self.place(update.post)]) {
                map.check_factors(own[0].shape, own[1].shape)?;
                ensure!(own.map(|factor| factor.stride) == [pre.stride, post.stride], "factors of {} lie differently", map.weight.name);
            }
            let own;
            (own, rest) = rest.split_at(of_map.len() * bases.len());
            passes.push(update::Update {
                connectivity: &map.connectivity,
                span: self.parameters.spans[update.map.0],
                factors: own,
                batch: self.batch,
                pre_stride: pre.stride,
                post_stride: post.stride,
                purpose: purpose(update.map),
            });
            let items = owned(update.map);
            let share = items.len() as f64 / self.update_items(update.map).max(1) as f64;
            let kind = usize::from(map.role == Role::Inverse);
            let global = own.len() * self.batch;
            operations[kind] += share * global as f64 * map.connectivity.operations();
            bytes[kind] += share * update::bytes(&map.connectivity, global, &passes[index].purpose);
            // A few items in a row: memory streams, and threads still share the work evenly.
            let group = items.len().div_ceil(8 * self.pool.threads()).clamp(1, 16);
            units.extend(items.clone().step_by(group).map(|begin| (index, begin, (begin + group).min(items.end))));
        }
        let isa = self.isa;
        self.pool.run(units.len(), |unit| {
            let (index, begin, end) = units[unit];
            // SAFETY: the factors were seen to fit, the rest is the map's own, and an item's parameters are its alone.
            unsafe { isa.run(update::Items { update: &passes[index], items: begin..end }) };
        });
        drop(passes);
        self.factors = factors;
        let seconds = started.elapsed().as_secs_f64();
        // One pass over both models: its time is shared out by arithmetic.
        for (kind, doing) in [Doing::UpdateForward, Doing::UpdateInverse].into_iter().enumerate() {
            let share = operations[kind] / (operations[0] + operations[1]).max(1.0);
            self.profile.add(doing, share * seconds, operations[kind], bytes[kind]);
        }
        Ok(())
    }

    /// The optimiser on elements `range` of the arenas. Their gradient is the sum of `parts`, in that order, each of which begins at its address.
    ///
    /// # Safety
    /// Each part must hold as many elements as the range, a multiple of [`simd::LANES`].
    pub unsafe fn optimize(&self, parts: &[*const f32], range: std::ops::Range<usize>, step: OptimizerStep) {
        let _span = span(Doing::UpdateForward, None);
        let parts: Vec<Values> = parts.iter().map(|part| Values(part.cast_mut())).collect();
        let at = [&self.parameters.weights, &self.parameters.first, &self.parameters.second].map(|arena| Values(arena.at(range.start)));
        let isa = self.isa;
        let vectors = range.len() / simd::LANES;
        self.pool.run_ranges(vectors, (vectors / 256).min(4 * self.pool.threads()), |some| {
            let [weights, first, second] = at.map(|values| values.at(0));
            let (begin, end) = (some.start * simd::LANES, some.end * simd::LANES);
            let kernel = update::OptimizeRange { begin, end, parts: &parts, weights, first, second, step };
            // SAFETY: the caller's parts and the three arenas hold the range, of which this thread alone has these
            // vectors.
            unsafe { isa.run(kernel) };
        });
    }
}
