//! Updates: a map's gradient with the optimiser on it, or the gradient alone, where ranks exchange that.

use anyhow::{Result, ensure};

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::launches::{self, in_fours};
use super::kernels::tables::Grouping;
use super::marks::Work;
use super::parameters::Parameters;
use super::tables::Pass;
use crate::compute::cpu::stream_of_weights;
use crate::compute::profile;
use crate::compute::{Activity, Method, OptimizerStep, Update};
use crate::network::{Magnitude, MapId, Plasticity};
use crate::observe::Doing;

impl From<OptimizerStep> for c::Optimizer {
    fn from(step: OptimizerStep) -> c::Optimizer {
        let OptimizerStep { scale, keep, method } = step;
        match method {
            Method::Adam { beta1, beta2, size, deviation_scale, epsilon } => {
                c::Optimizer { method: 0, scale, keep, beta1, beta2, size, deviation_scale, epsilon }
            }
            Method::Sgd { size, momentum, nesterov } => {
                c::Optimizer { method: if nesterov { 2 } else { 1 }, scale, keep, beta1: momentum, size, ..c::Optimizer::default() }
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

    /// Applies an update to the parameters of its map, or keeps its gradient as the one of this number: where ranks gather its factors, of
    /// the parameters that this rank owns.
    pub fn update(&mut self, update: &Update, stored: Option<usize>) -> Result<()> {
        self.make(update, stored, self.gathers(update.map))
    }

    /// Keeps the gradient of an update, all of it.
    pub fn keep_whole(&mut self, update: &Update) -> Result<()> {
        self.make(update, Some(0), false)
    }

    fn make(&mut self, update: &Update, stored: Option<usize>, owned: bool) -> Result<()> {
        let maps = self.maps.clone();
        let map = maps.get(update.map);
        self.take_factors(update)?;
        if let Some(number) = stored {
            self.keep_gradients(update.map, number + 1);
        }
        let samples = self.batch * if self.gathers(update.map) { self.size } else { 1 };
        let doing = profile::update(map.role);
        let factors = samples * (map.source.units() + map.destination.units());
        let parameters = &self.parameters[update.map.0];
        // Parameters and moments are read and written, or the gradient is written.
        let changed = 8 * (1 + parameters.moments());
        let bytes = (if stored.is_some() { 4 } else { changed } * map.parameters()) as f64;
        let share = if owned { parameters.owned() as f64 / parameters.padded as f64 } else { 1.0 };
        let operations = share * samples as f64 * map.connectivity.operations();
        self.perform(Work::new(doing, Some(map.layer), operations, share * bytes + 4.0 * factors as f64), |this, launches| {
            let (view, table) = this.map(update.map, Pass::Update);
            let (grouping, groups, most, share) = (table.view().grouping, table.groups, table.most, table.share.clone().filter(|_| owned));
            let parameters = &this.parameters[update.map.0];
            let mine = owned || parameters.owned() == parameters.padded;
            ensure!(stored.is_some() || mine, "gradients of {} are shared", map.weight.name);
            let values = this.at(parameters.values);
            let gradients = stored.map_or(Address::NULL, |number| this.gradients(update.map).offset(4 * number * parameters.padded));
            let further = |at: Address| if at == Address::NULL { 0 } else { at.offset(4 * parameters.weights).0 };
            let positions = parameters.bias_positions;
            let (factors, optimizer) = (this.factors(update), this.optimizer(update.map).0);
            let [first, second] = this.moments(parameters, 0, true);
            let whole = c::Update {
                map: view,
                factors,
                weights: values.0,
                first,
                second,
                gradients: gradients.0,
                optimizer,
                by_source: i32::from(grouping == Grouping::Source),
                groups: groups as i32,
                ..c::Update::default()
            };
            let biases = &parameters.pieces[1];
            let biases = if owned { biases.own() } else { 0..biases.used.len() };
            let [first, second] = this.moments(parameters, 1, true);
            let bias = c::Bias {
                factors,
                bias: further(values),
                first,
                second,
                gradients: further(gradients),
                optimizer,
                begin: biases.start as i64,
                end: biases.end as i64,
                positions: map.destination.positions() as i32,
                columns: in_fours(map.connectivity.columns) as i32,
                shared: i32::from(positions == 1 && map.destination.positions() > 1),
                ..c::Bias::default()
            };
            // A rank may own no weight that has a link.
            let nothing = share.as_ref().is_some_and(|share| share.elements.is_empty());
            if grouping == Grouping::Block && !nothing {
                let partial = this.partial(launches::shared_partial(this.precision, most, &whole));
                launches::update_shared(launches, this.precision, most, share.as_ref(), &c::Update { partial: partial.0, ..whole });
            } else if !nothing {
                launches::update(launches, this.precision, most, share.as_ref(), &whole);
            }
            if !biases.is_empty() {
                let partial = this.partial(launches::bias_partial(&bias));
                launches::bias(launches, &c::Bias { partial: partial.0, ..bias });
            }
            Ok(())
        })
    }

    /// The optimiser on this rank's part of a map, from the sum of so many gradients that were kept.
    pub fn optimize(&mut self, id: MapId, gradients: usize) -> Result<()> {
        self.perform(self.work_of_optimizer(id, self.parameters[id.0].owned()), |this, launches| {
            let parameters = &this.parameters[id.0];
            let (sums, optimizer) = (this.gradients(id), this.optimizer(id).0);
            for (piece, (own, _)) in parameters.parts().into_iter().enumerate().filter(|(_, (own, _))| !own.is_empty()) {
                let [first, second] = this.moments(parameters, piece, false);
                launches::optimize(
                    launches,
                    &c::Optimize {
                        sums: sums.offset(4 * own.start).0,
                        stride: parameters.padded as i64,
                        weights: this.at(parameters.values).offset(4 * own.start).0,
                        first,
                        second,
                        optimizer,
                        count: own.len() as i64,
                        parts: gradients as i32,
                        scaled: 1,
                        ..c::Optimize::default()
                    },
                );
            }
            Ok(())
        })
    }

    /// Adds so many gradients of a map that were kept to the first of them.
    pub fn add_gradients(&mut self, id: MapId, gradients: usize) -> Result<()> {
        let padded = self.parameters[id.0].padded;
        self.perform(self.work_of_optimizer(id, padded), |this, launches| {
            let (first, optimizer) = (this.gradients(id).0, this.optimizer(id).0);
            let (count, stride, parts) = (padded as i64, padded as i64, gradients as i32);
            let rest = c::Optimize { count, stride, parts, scaled: 1, ..c::Optimize::default() };
            launches::optimize(launches, &c::Optimize { sums: first, gradients: first, optimizer, ..rest });
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

    /// Where this rank's moments of a piece are, 0 for none; or where those of the piece's first element would be, were they there too.
    fn moments(&self, parameters: &Parameters, piece: usize, of_first: bool) -> [u64; 2] {
        let (own, at) = &parameters.parts()[piece];
        let before = if of_first { own.start - parameters.pieces[piece].used.start } else { 0 };
        [parameters.first, parameters.second].map(|place| match place.bytes {
            0 => 0,
            _ => self.at(place).offset(4 * at.start).0.wrapping_sub(4 * before as u64),
        })
    }

    fn work_of_optimizer(&self, id: MapId, floats: usize) -> Work {
        let map = self.maps.get(id);
        let doing = profile::update(map.role);
        let each = 4 + 8 * (1 + self.parameters[id.0].moments());
        Work::new(doing, Some(map.layer), 0.0, (each * floats) as f64)
    }
}
