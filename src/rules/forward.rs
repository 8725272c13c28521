//! The forward pass, which every rule begins with and evaluation consists of.

use std::sync::Arc;

use super::Step;
use super::normalization::Normalization;
use crate::compute::{Activity, Backend, Update};
use crate::network::{Layer, MapId, Maps, Network};

/// Activities h_0 (the input) to h_L, the output's pre-activation a_L, and its error.
#[derive(Clone)]
pub struct Forward {
    /// h_0 to h_L; h_L is softmax(a_L), or a_L.
    pub h: Vec<Activity>,
    pub pre_activation: Activity,
    /// `dLoss/da_L` of each sample: `p - y`, or `2 (h_L - x)`.
    pub error: Activity,
    /// By layer.
    pub maps: Vec<MapId>,
    /// By layer: the activity that it reads.
    sources: Vec<usize>,
    /// By layer: the activity that is added to what the weights yield, and where that is put.
    shortcuts: Vec<Option<(usize, Activity)>>,
    normalizations: Vec<Option<Normalization>>,
}

impl Forward {
    pub fn new(network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Forward {
        let depth = network.depth();
        let top = network.shape(depth);
        let mut h = vec![backend.input()];
        h.extend((1..depth).map(|l| backend.activity_of(network.shape(l), network.nonlinearity(l))));
        h.push(backend.activity(top));
        let shortcut = |layer: &Layer| layer.shortcut.map(|below| (below, backend.activity(layer.output)));
        let shortcuts = network.layers.iter().map(shortcut).collect();
        let normalization = |(maps, layer): (&Option<[MapId; 2]>, &Layer)| maps.map(|maps| Normalization::new(maps, layer, backend));
        let normalizations = maps.normalization.iter().zip(&network.layers).map(normalization).collect();
        let sources = network.layers.iter().map(|layer| layer.source).collect();
        let [pre_activation, error] = [(); 2].map(|()| backend.activity(top));
        Forward { h, pre_activation, error, maps: maps.forward.clone(), sources, shortcuts, normalizations }
    }

    /// The same pass for another rule on the same batch, whose errors of normalised layers have places of their own.
    pub fn with_own_errors(&self, backend: &mut dyn Backend) -> Forward {
        let own = |layer: &Option<Normalization>| layer.as_ref().map(|layer| layer.with_own_errors(backend));
        Forward { normalizations: self.normalizations.iter().map(own).collect(), ..self.clone() }
    }

    pub fn depth(&self) -> usize {
        self.maps.len()
    }

    /// `h_l = s_l(W_l h_{l-1} + b_l)` up to the output, its error, and the measures. A shortcut's activity is added before s_l. Normalised
    /// layers take their running statistics: this is for evaluations, and for rules that train no such layers.
    pub fn run(&self, backend: &mut dyn Backend) {
        for layer in 0..self.depth() {
            self.pass(backend, layer);
            if let Some(normalization) = &self.normalizations[layer] {
                normalization.evaluate(backend, self.before_shortcut(layer));
            }
            self.end(backend, layer);
        }
        self.finish(backend);
    }

    /// The same for a step of training, in which normalised layers take the statistics of the global batch. Collective.
    pub fn train(&self, step: &mut dyn Step) {
        for layer in 0..self.depth() {
            self.pass(step.backend(), layer);
            if let Some(normalization) = &self.normalizations[layer] {
                normalization.train(step, self.before_shortcut(layer));
            }
            self.end(step.backend(), layer);
        }
        self.finish(step.backend());
    }

    /// What the weights of layer `layer` yield.
    fn pass(&self, backend: &mut dyn Backend, layer: usize) {
        let destination = self.normalizations[layer].as_ref().map_or_else(|| self.before_shortcut(layer), Normalization::sums);
        backend.apply(self.maps[layer], &[(self.source(layer), destination)]);
    }

    /// Where that goes, or what is made of it.
    fn before_shortcut(&self, layer: usize) -> Activity {
        self.shortcuts[layer].map_or_else(|| self.destination(layer), |(_, sum)| sum)
    }

    fn end(&self, backend: &mut dyn Backend, layer: usize) {
        if let Some((below, sum)) = self.shortcuts[layer] {
            backend.add(sum, self.h[below], self.destination(layer));
        }
    }

    /// Where [`Forward::error_of_weights`] puts its result.
    pub fn weights_error(&self, layer: usize, delta: Activity) -> Activity {
        self.normalizations[layer].as_ref().map_or(delta, Normalization::error)
    }

    /// From the error of the pre-activation of hidden layer `layer` to that of what its weights yield. Collective where it is normalised.
    pub fn error_of_weights(&self, step: &mut dyn Step, layer: usize, delta: Activity) -> Activity {
        self.normalizations[layer].as_ref().map_or(delta, |normalization| normalization.through(step, delta))
    }

    /// The activity that layer `layer` (from 0) reads.
    pub fn source(&self, layer: usize) -> Activity {
        self.h[self.sources[layer]]
    }

    /// Where layer `layer` (from 0) puts its result.
    pub fn destination(&self, layer: usize) -> Activity {
        if layer + 1 == self.depth() { self.pre_activation } else { self.h[layer + 1] }
    }

    /// Output and error, once the pre-activation is there.
    pub fn finish(&self, backend: &mut dyn Backend) {
        backend.output_and_error(self.pre_activation, self.h[self.depth()], self.error);
    }

    /// The update of forward layer `layer` (from 0) with postsynaptic error `post`.
    pub fn update(&self, layer: usize, post: Activity) -> Update {
        Update { map: self.maps[layer], pre: self.source(layer), post }
    }
}
