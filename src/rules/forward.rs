//! The forward pass, which every rule begins with and evaluation consists of.

use std::sync::Arc;

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
        let sources = network.layers.iter().map(|layer| layer.source).collect();
        let [pre_activation, error] = [(); 2].map(|()| backend.activity(top));
        Forward { h, pre_activation, error, maps: maps.forward.clone(), sources, shortcuts }
    }

    pub fn depth(&self) -> usize {
        self.maps.len()
    }

    /// `h_l = s_l(W_l h_{l-1} + b_l)` up to the output, its error, and the measures. A shortcut's activity is added before s_l.
    pub fn run(&self, backend: &mut dyn Backend) {
        for (layer, map) in self.maps.iter().enumerate() {
            match self.shortcuts[layer] {
                None => backend.apply(*map, &[(self.source(layer), self.destination(layer))]),
                Some((below, sum)) => {
                    backend.apply(*map, &[(self.source(layer), sum)]);
                    backend.add(sum, self.h[below], self.destination(layer));
                }
            }
        }
        self.finish(backend);
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
