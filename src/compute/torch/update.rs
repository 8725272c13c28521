//! Updates: the gradient of a map from its factors, and the optimiser on it.

use std::ops::Range;

use anyhow::Result;
use tch::{Kind, Tensor};

use super::TorchBackend;
use crate::compute::profile;
use crate::compute::{OptimizerStep, Update};
use crate::network::{Bias, MapId};
use crate::observe::Doing;

impl TorchBackend {
    /// The gradient of a map, summed over the samples of its factors, laid out as [`TorchBackend::flat`].
    ///
    /// `pre` and `post` are [positions, samples, channels].
    pub fn gradient(&mut self, id: MapId, pre: &Tensor, post: &Tensor) -> Result<Tensor> {
        let (phase, operations, bytes) = self.cost_of_update(id, pre.size()[1] as usize);
        self.timed(phase, operations, bytes, |this| {
            let (map, windows, parameters) = (this.maps.get(id), &this.windows[id.0], &this.parameters[id.0]);
            let flat = parameters.values.f_empty_like()?;
            let used = map.parameters() as i64;
            let _ = flat.f_narrow(0, used, parameters.padded() as i64 - used)?.f_zero_()?;
            let (inner, outer) = if windows.reads { (pre, post) } else { (post, pre) };
            let (inner, outer) = (windows.rows(&windows.collect(inner)?)?, windows.rows(outer)?);
            this.products.product_into(&parameters.weights(&flat, windows)?, &inner.f_transpose(1, 2)?, &outer)?;
            if let Some(mut bias) = parameters.biases(&flat, map)? {
                let dimensions: &[i64] = if map.bias == Bias::PerChannel { &[0, 1] } else { &[1] };
                bias.f_copy_(&post.f_sum_dim_intlist(dimensions, true, Kind::Float)?)?;
            }
            Ok(flat)
        })
    }

    /// The optimiser on elements `range` of a map's [`TorchBackend::flat`] from their gradients, all owned by this rank.
    pub fn optimize(&mut self, id: MapId, range: Range<usize>, gradients: &Tensor, step: &OptimizerStep) -> Result<()> {
        let (phase, ..) = self.cost_of_update(id, 0);
        // Gradients are read; parameters and moments are read and written.
        let bytes = ((4 + 8 * (1 + step.method.moments())) * range.len()) as f64;
        self.timed(phase, 0.0, bytes, |this| this.kernels.optimize(&mut this.parameters[id.0], range, gradients, step))
    }

    fn cost_of_update(&self, id: MapId, samples: usize) -> (Doing, f64, f64) {
        let map = self.maps.get(id);
        let factors = samples * (map.source.units() + map.destination.units());
        (profile::update(map.role), samples as f64 * map.connectivity.operations(), 4.0 * (factors + map.parameters()) as f64)
    }

    /// The factors of an update, checked against its map.
    pub fn factors(&self, update: &Update) -> Result<(Tensor, Tensor)> {
        let map = self.maps.get(update.map);
        map.check_factors(self.slots[update.pre.0].shape, self.slots[update.post.0].shape)?;
        Ok((self.values(update.pre).shallow_clone(), self.values(update.post).shallow_clone()))
    }
}
