//! Passes over a map's links: products with its weights, and pools, both up and back.

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::launches::{self, in_fours};
use super::marks::Work;
use super::operations::code;
use super::tables::Pass;
use crate::compute::profile;
use crate::compute::{Activity, Backend, Nonlinearity};
use crate::network::{Map, MapId, Pool as Pooling, Role};

impl CudaBackend {
    /// A layer's pool of an activity, or the way back of an error.
    fn pool_pass(&mut self, map: &Map, pool: Pooling, (source, destination): (Activity, Activity), back: bool) {
        let (doing, forward) = (profile::pass(map.role, back && map.role != Role::Feedback), self.maps.forward[map.layer]);
        let bytes = 4 * self.batch * (map.source.units() + map.destination.units());
        self.attempt(Work::new(doing, Some(map.layer), 0.0, bytes as f64), |this, launches| {
            this.read_plainly(source);
            // Where each destination's links start, which an average is divided by on its way back.
            let windows = this.map(forward, Pass::Forward).0.starts;
            let (view, table) = this.map(forward, if back { Pass::Transposed } else { Pass::Forward });
            let (starts, links, positions) = (view.starts, view.links, table.groups as i32);
            let winners = this.winners[map.layer].map_or(0, |winners| this.values(winners).0);
            let (samples, pitch) = (this.batch as i32, this.slots[destination.0].pitch as i32);
            let [source, destination] = [source, destination].map(|activity| this.values(activity).0);
            let (largest, back) = (i32::from(pool == Pooling::Max), i32::from(back));
            let rest = c::Pool { positions, samples, pitch, largest, back, ..c::Pool::default() };
            launches::pool(launches, &c::Pool { starts, links, windows, source, destination, winners, ..rest });
            Ok(())
        });
    }

    /// One pass over a map's weights for all jobs; the result of one alone may be multiplied by the slope where `y` is.
    pub(super) fn pass(&mut self, id: MapId, jobs: &[(Activity, Activity)], transposed: bool, y: Option<Activity>) {
        let maps = self.maps.clone();
        let map = maps.get(id);
        if let Some(pool) = map.pool {
            jobs.iter().for_each(|job| self.pool_pass(map, pool, *job, transposed || map.role == Role::Feedback));
            return y.into_iter().for_each(|y| self.through_nonlinearity(jobs[0].1, y));
        }
        let samples = jobs.len() * self.batch;
        let operations = samples as f64 * map.connectivity.operations();
        let (from, to) = if transposed { (map.destination, map.source) } else { (map.source, map.destination) };
        let activities = samples * (from.units() + to.units() * (1 + usize::from(y.is_some())));
        let bytes = 4.0 * (map.connectivity.weights() + activities) as f64;
        let work = Work::new(profile::pass(map.role, transposed), Some(map.layer), operations, bytes);
        self.attempt(work, |this, launches| {
            for (source, destination) in jobs {
                let fits = this.holds(*source, from) && this.holds(*destination, to);
                assert!(fits, "the activities of a pass do not fit {}", map.weight.name);
                if transposed || id != maps.forward[0] {
                    this.read_plainly(*source);
                }
            }
            let pass = if transposed { Pass::Transposed } else { Pass::Forward };
            let (view, table) = this.map(id, pass);
            let (positions, most) = (table.groups, table.most);
            let parameters = &this.parameters[id.0];
            let mut of_jobs = [c::Job::default(); 3];
            let nonlinearity = if transposed { Nonlinearity::Identity } else { this.slots[jobs[0].1.0].nonlinearity };
            for (job, (source, destination)) in of_jobs.iter_mut().zip(jobs) {
                let same = transposed || this.slots[destination.0].nonlinearity == nonlinearity;
                assert!(same, "{}: one nonlinearity at a time", map.weight.name);
                let kept = this.slots[destination.0].pre_activation.filter(|_| !transposed);
                let [source, destination] = [source, destination].map(|activity| this.values(*activity).0);
                *job = c::Job { source, destination, kept: kept.map_or(0, |kept| this.values(kept).0) };
            }
            let (slope, argument) = this.slope(y);
            let weights = this.at(parameters.values);
            let bias = if transposed || parameters.bias_positions == 0 { Address::NULL } else { weights.offset(4 * parameters.weights) };
            let apply = c::Apply {
                map: view,
                job: of_jobs,
                weights: weights.0,
                bias: bias.0,
                y: y.map_or(0, |y| this.values(y).0),
                argument,
                partial: 0,
                bias_stride: if parameters.bias_positions > 1 { in_fours(map.connectivity.columns) as i32 } else { 0 },
                samples: this.batch as i32,
                jobs: jobs.len() as i32,
                nonlinearity: if y.is_some() { slope } else { code(nonlinearity) },
                positions: positions as i32,
                ..c::Apply::default()
            };
            let precision = this.precision.of_passes(map.role);
            let partial = this.partial(launches::apply_partial(precision, transposed, most, &apply));
            launches::apply(launches, precision, transposed, most, &c::Apply { partial: partial.0, ..apply });
            Ok(())
        });
    }
}
