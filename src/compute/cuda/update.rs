//! Updates: a map's gradient with the optimiser on it, or the gradient alone, where ranks exchange that.

use anyhow::{Result, ensure};

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::launches::{self, in_fours};
use super::kernels::tables::Grouping;
use super::marks::Work;
use super::tables::Pass;
use crate::compute::cpu::stream_of_weights;
use crate::compute::{Activity, Method, OptimizerStep, Update};
use crate::network::{Magnitude, MapId, Plasticity, Role};
use crate::observe::Doing;

impl From<OptimizerStep> for c::Optimiser {
    fn from(step: OptimizerStep) -> c::Optimiser {
        let OptimizerStep { scale, keep, method } = step;
        match method {
            Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => {
                c::Optimiser { method: 0, scale, keep, beta1, beta2, size, deviation_scale, epsilon }
            }
            Method::Sgd { size, momentum, nesterov } => {
                c::Optimiser { method: if nesterov { 2 } else { 1 }, scale, keep, beta1: momentum, size, ..c::Optimiser::default() }
            }
        }
    }
}

impl CudaBackend {
    /// The factors of an update over the batch of all ranks that they are gathered from.
    fn factors(&self, update: &Update) -> c::Factors {
        let gathers = self.gathers(update.map);
        let of = |activity: Activity| match gathers {
            true => (self.all_values(activity).0, (self.capacity * self.slots[activity.0].each) as i64),
            false => (self.values(activity).0, 0),
        };
        let ((pre, pre_rank), (post, post_rank)) = (of(update.pre), of(update.post));
        let samples = if gathers { self.size * self.batch } else { self.batch } as i32;
        c::Factors { pre, post, pre_rank, post_rank, samples, per_rank: self.batch as i32, ..c::Factors::default() }
    }

    /// Applies an update to the parameters of its map, or keeps its gradient as the one of this number.
    pub fn update(&mut self, update: &Update, stored: Option<usize>) -> Result<()> {
        let maps = self.maps.clone();
        let map = maps.get(update.map);
        self.take_factors(update)?;
        if let Some(number) = stored {
            self.keep_gradients(update.map, number + 1);
        }
        let samples = self.batch * if self.gathers(update.map) { self.size } else { 1 };
        let doing = if map.role == Role::Inverse { Doing::UpdateInverse } else { Doing::UpdateForward };
        let factors = samples * (map.source.units() + map.destination.units());
        // Parameters and moments are read and written, or the gradient is written.
        let changed = 8 * (1 + self.parameters[update.map.0].moments());
        let bytes = if stored.is_some() { 4 } else { changed } * map.parameters() + 4 * factors;
        let work = Work::new(doing, Some(map.layer), samples as f64 * map.connectivity.operations(), bytes as f64);
        self.perform(work, |this, launches| {
            let (view, table) = this.map(update.map, Pass::Update);
            let (grouping, groups, most) = (table.view().grouping, table.groups, table.most);
            let parameters = &this.parameters[update.map.0];
            ensure!(stored.is_some() || parameters.owned.len() == parameters.padded, "gradients of {} are shared", map.weight.name);
            let values = this.at(parameters.values);
            let [first, second] = [parameters.first, parameters.second].map(|place| this.moment_at(place));
            let gradients = stored.map_or(Address::NULL, |number| this.gradients(update.map).offset(4 * number * parameters.padded));
            let (weights, positions) = (4 * parameters.weights, parameters.bias_positions);
            let further = |at: Address| if at == Address::NULL { 0 } else { at.offset(weights).0 };
            let (factors, optimiser) = (this.factors(update), this.optimiser(update.map).0);
            let whole = c::Update {
                map: view,
                factors,
                weights: values.0,
                first: first.0,
                second: second.0,
                gradients: gradients.0,
                optimiser,
                by_source: i32::from(grouping == Grouping::Source),
                groups: groups as i32,
                ..c::Update::default()
            };
            if grouping == Grouping::Block {
                let partial = this.partial(launches::shared_partial(this.precision, most, &whole));
                launches::update_shared(launches, this.precision, most, &c::Update { partial: partial.0, ..whole });
            } else {
                launches::update(launches, this.precision, most, &whole);
            }
            if positions > 0 {
                let bias = c::Bias {
                    factors,
                    bias: further(values),
                    first: further(first),
                    second: further(second),
                    gradients: further(gradients),
                    optimiser,
                    positions: map.destination.positions() as i32,
                    columns: in_fours(map.connectivity.columns) as i32,
                    shared: i32::from(positions == 1 && map.destination.positions() > 1),
                    ..c::Bias::default()
                };
                let partial = this.partial(launches::bias_partial(&bias));
                launches::bias(launches, &c::Bias { partial: partial.0, ..bias });
            }
            Ok(())
        })
    }

    /// The optimiser on this rank's part of a map, from the sum of so many gradients that were kept.
    pub fn optimise(&mut self, id: MapId, gradients: usize) -> Result<()> {
        let owned = self.parameters[id.0].owned.clone();
        self.perform(self.work_of_optimiser(id, owned.len()), |this, launches| {
            let parameters = &this.parameters[id.0];
            launches::optimise(
                launches,
                &c::Optimise {
                    sums: this.part_of_gradient(id).0,
                    stride: parameters.padded as i64,
                    weights: this.at(parameters.values).offset(4 * owned.start).0,
                    first: this.moment_at(parameters.first).0,
                    second: this.moment_at(parameters.second).0,
                    optimiser: this.optimiser(id).0,
                    count: owned.len() as i64,
                    parts: gradients as i32,
                    scaled: 1,
                    ..c::Optimise::default()
                },
            );
            Ok(())
        })
    }

    /// Adds so many gradients of a map that were kept to the first of them.
    pub fn add_gradients(&mut self, id: MapId, gradients: usize) -> Result<()> {
        let padded = self.parameters[id.0].padded;
        self.perform(self.work_of_optimiser(id, padded), |this, launches| {
            let (first, optimiser) = (this.gradients(id).0, this.optimiser(id).0);
            let (count, stride, parts) = (padded as i64, padded as i64, gradients as i32);
            let rest = c::Optimise { count, stride, parts, scaled: 1, ..c::Optimise::default() };
            launches::optimise(launches, &c::Optimise { sums: first, gradients: first, optimiser, ..rest });
            Ok(())
        })
    }

    /// Gives weights that follow the signs of their layer's these signs; `draw` is the number of steps before. Stands in no graph, since
    /// these have no numbers that change between the updates and the next batch.
    pub fn follow_signs(&mut self, draw: u64) -> Result<()> {
        let maps = self.maps.clone();
        for (index, map) in maps.all.iter().enumerate() {
            let Plasticity::Signs(magnitude) = map.plasticity else { continue };
            let work = Work::new(Doing::UpdateForward, Some(map.layer), 0.0, (12 * map.parameters()) as f64);
            self.perform_apart(work, |this, launches| {
                let [weights, layer] = [MapId(index), maps.forward[map.layer]].map(|map| this.parameters_at(map).0);
                let [blocks, rows, columns] =
                    [map.connectivity.blocks, map.connectivity.rows, map.connectivity.columns].map(|size| size as i32);
                let signs = c::Signs {
                    weights,
                    layer,
                    blocks,
                    rows,
                    columns,
                    equal: if magnitude == Magnitude::Uniform { map.deviation() as f32 } else { 0.0 },
                    bound: if magnitude == Magnitude::Redrawn { map.bound() as f32 } else { 0.0 },
                    key_low: this.seed as u32,
                    key_high: (this.seed >> 32) as u32,
                    draw: draw as u32,
                    stream: stream_of_weights(index, draw),
                    padding: 0,
                };
                launches::signs(launches, &signs);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn work_of_optimiser(&self, id: MapId, floats: usize) -> Work {
        let map = self.maps.get(id);
        let doing = if map.role == Role::Inverse { Doing::UpdateInverse } else { Doing::UpdateForward };
        let each = 4 + 8 * (1 + self.parameters[id.0].moments());
        Work::new(doing, Some(map.layer), 0.0, (each * floats) as f64)
    }
}
