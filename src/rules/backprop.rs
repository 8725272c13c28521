//! Back-propagation: `delta_l = (W_{l+1}^T delta_{l+1}) * s_l'(a_l)`. The control against which the others are measured.

use std::sync::Arc;

use super::{Definition, Feedback, Forward, Inverses, Phase, Rule, Step};
use crate::compute::{Activity, Backend};
use crate::network::{Maps, Network};

pub const BP: Definition = Definition {
    name: "bp",
    inverses: Inverses::None,
    feedback: Feedback::None,
    settings: &[],
    convolutions: true,
    build: |_, forward, network, maps, backend| Ok(Box::new(Backprop::new(forward, network, maps, backend))),
};

pub struct Backprop {
    forward: Forward,
    /// Error of each hidden layer, from the lowest.
    delta: Vec<Activity>,
}

impl Backprop {
    pub fn new(forward: Forward, network: &Network, _maps: &Arc<Maps>, backend: &mut dyn Backend) -> Backprop {
        let delta = (1..network.depth()).map(|l| backend.activity(network.shape(l))).collect();
        Backprop { forward, delta }
    }
}

impl Rule for Backprop {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.run(step.backend());
        let mut above = forward.error;
        step.update(forward.update(forward.depth() - 1, above));
        for layer in (0..self.delta.len()).rev() {
            let delta = self.delta[layer];
            let backend = step.backend();
            backend.apply_transposed(forward.maps[layer + 1], above, delta);
            backend.through_nonlinearity(delta, forward.h[layer + 1]);
            step.update(forward.update(layer, delta));
            above = delta;
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
