//! Back-propagation: `delta_l = (W_{l+1}^T delta_{l+1}) * s_l'(a_l)`. The control against which the others are measured.

use super::{Definition, Errors, Feedback, Forward, Inverses, Phase, Rule, Step};
use crate::compute::Backend;
use crate::network::Network;

pub const BP: Definition = Definition {
    name: "bp",
    inverses: Inverses::None,
    feedback: Feedback::None,
    settings: &[],
    residual: true,
    build: |_, forward, network, _, backend| Ok(Box::new(Backprop::new(forward, network, backend))),
};

pub struct Backprop {
    forward: Forward,
    errors: Errors,
}

impl Backprop {
    pub fn new(forward: Forward, network: &Network, backend: &mut dyn Backend) -> Backprop {
        let errors = Errors::new(&forward, network, backend);
        Backprop { forward, errors }
    }
}

impl Rule for Backprop {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.train(step);
        step.update(forward.update(forward.depth() - 1, forward.error));
        for layer in self.errors.downwards() {
            let delta = self.errors.collect(step, forward, layer, |reader| (forward.maps[reader], true));
            step.update(forward.update(layer, delta));
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
