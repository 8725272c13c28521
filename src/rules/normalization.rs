//! Batch normalisation (Ioffe & Szegedy 2015) of what a layer's weights yield, with statistics of the global batch.
//!
//! A backend adds up each sample by itself; ranks gather these sums, which are added up in one order, in float64, so the bits do not depend on
//! ranks. Evaluations take running statistics, which learn too: by SGD on their distance from the batch's, so that they are saved, shared
//! and resumed as all parameters are. Gradients pass through the statistics of the batch.

use super::Step;
use crate::compute::{Activity, Backend, Normalized, Update};
use crate::network::{Layer, MapId};

#[derive(Clone)]
pub struct Normalization(Normalized);

impl Normalization {
    pub fn new(maps: [MapId; 2], layer: &Layer, backend: &mut dyn Backend) -> Normalization {
        Normalization(Normalized::new(maps, layer.output, backend))
    }

    /// The same for another rule: see [`Normalized::with_own_errors`].
    pub fn with_own_errors(&self, backend: &mut dyn Backend) -> Normalization {
        Normalization(self.0.with_own_errors(backend))
    }

    /// Where the layer's weights put their result.
    pub fn sums(&self) -> Activity {
        self.0.sums
    }

    /// Where [`Normalization::through`] puts its result.
    pub fn error(&self) -> Activity {
        self.0.error
    }

    /// Normalises the batch by running statistics.
    pub fn evaluate(&self, backend: &mut dyn Backend, destination: Activity) {
        backend.normalize_by_running(&self.0, destination);
    }

    /// Normalises the batch by its own statistics, of which the running ones learn. Collective.
    pub fn train(&self, step: &mut dyn Step, destination: Activity) {
        let layer = &self.0;
        step.backend().sum_moments(layer);
        let all = step.gather(layer.moments);
        step.backend().normalize(layer, &all, destination);
        step.update(Update { map: layer.statistics, pre: layer.one, post: layer.drift });
    }

    /// From the error of y to that of what the weights yield, through the statistics: the scale and the shift learn. Collective.
    pub fn through(&self, step: &mut dyn Step, delta: Activity) -> Activity {
        let layer = &self.0;
        step.backend().sum_products(layer, delta);
        step.update(Update { map: layer.affine, pre: layer.one, post: layer.products });
        let all = step.gather(layer.products);
        step.backend().through_normalization(layer, delta, &all);
        layer.error
    }
}
