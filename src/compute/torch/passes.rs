//! Passes over a map's links: products with its weights, and pools, both up and back.

use anyhow::Result;
use tch::Tensor;

use super::{TorchBackend, through};
use crate::compute::profile;
use crate::compute::{Activity, Nonlinearity};
use crate::network::{MapId, Pool, Role};
use crate::observe::span;

impl TorchBackend {
    pub(super) fn timed_pass(&mut self, map: MapId, jobs: &[(Activity, Activity)], transposed: bool) {
        let spec = self.maps.get(map);
        let doing = profile::pass(spec.role, transposed);
        let _span = span(doing, Some(spec.layer));
        let samples = jobs.len() * self.batch;
        let operations = samples as f64 * spec.connectivity.operations();
        let activities = samples * (spec.source.units() + spec.destination.units());
        let bytes = 4.0 * (spec.connectivity.weights() + activities) as f64;
        self.attempt(doing, operations, bytes, |this| this.pass(map, jobs, transposed));
    }

    /// One pass over a map's weights for all jobs.
    fn pass(&mut self, id: MapId, jobs: &[(Activity, Activity)], transposed: bool) -> Result<()> {
        let (map, windows, parameters) = (self.maps.get(id), &self.windows[id.0], &self.parameters[id.0]);
        if let Some(pool) = map.pool {
            let (layer, back) = (map.layer, transposed || map.role == Role::Feedback);
            return jobs.iter().try_for_each(|job| self.pool_pass(layer, pool, *job, back));
        }
        let sources: Vec<&Tensor> = jobs.iter().map(|(source, _)| self.values(*source)).collect();
        let joined;
        let x = match sources[..] {
            [one] => one,
            _ => {
                joined = Tensor::f_cat(&sources, 1)?;
                &joined
            }
        };
        let weights = parameters.weights(&parameters.values, windows)?;
        let products = self.products.of_passes(map.role);
        let batch = x.size()[1];
        let mut y = if windows.reads != transposed {
            let y = products.product(&windows.rows(&windows.collect(x)?)?, &weights)?;
            y.f_view([windows.count, batch, windows.outer])?
        } else {
            let z = products.product(&windows.rows(x)?, &weights.f_transpose(1, 2)?)?;
            windows.spread(&z.f_view([windows.count, batch, windows.offsets * windows.inner])?)?
        };
        if let (false, Some(bias)) = (transposed, parameters.biases(&parameters.values, map)?) {
            let _ = y.f_add_(&bias)?;
        }
        let nonlinearity = if transposed { Nonlinearity::Identity } else { self.slots[jobs[0].1.0].nonlinearity };
        let sums = (nonlinearity == Nonlinearity::Gelu).then(|| y.shallow_clone());
        let y = through(nonlinearity, y)?;
        let each = self.batch as i64;
        for (job, (_, destination)) in jobs.iter().enumerate() {
            let of_job = |all: &Tensor| all.f_narrow(1, job as i64 * each, each)?.f_contiguous();
            let slot = &mut self.slots[destination.0];
            slot.values = of_job(&y)?;
            if let Some(sums) = &sums {
                slot.pre_activation = of_job(sums)?;
            }
        }
        Ok(())
    }

    /// Layer `layer`'s pool of an activity, or the way back of an error.
    fn pool_pass(&mut self, layer: usize, pool: Pool, (source, destination): (Activity, Activity), back: bool) -> Result<()> {
        let windows = &self.windows[self.maps.forward[layer].0];
        let source = self.values(source);
        self.slots[destination.0].values = if back {
            windows.unpooled(source, self.winners.get(&layer))?
        } else {
            let (values, winners) = windows.pooled(pool, source)?;
            self.winners.extend(winners.map(|winners| (layer, winners)));
            values
        };
        Ok(())
    }
}
