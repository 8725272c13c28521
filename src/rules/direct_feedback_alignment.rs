//! Direct feedback alignment (Nøkland 2016; section 2.1): the output's error goes to every hidden layer through fixed random weights of
//! its own, `delta_l = (B_l delta_L) * s_l'(a_l)`. The paper could not run it on ImageNet for the size of B.

use std::sync::Arc;

use super::{Definition, Feedback, Forward, Inverses, Phase, Rule, Step};
use crate::compute::{Activity, Backend};
use crate::network::{MapId, Maps, Network};

pub const DFA: Definition = Definition {
    name: "dfa",
    inverses: Inverses::None,
    feedback: Feedback::Direct,
    settings: &[],
    convolutions: true,
    build: |_, forward, network, maps, backend| Ok(Box::new(DirectFeedbackAlignment::new(forward, network, maps, backend))),
};

pub struct DirectFeedbackAlignment {
    forward: Forward,
    /// Error of each hidden layer, from the lowest, and the feedback that yields it from the output.
    hidden: Vec<(Activity, MapId)>,
}

impl DirectFeedbackAlignment {
    pub fn new(forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> DirectFeedbackAlignment {
        let hidden = (1..network.depth())
            .map(|l| (backend.activity(network.shape(l)), maps.feedback[l - 1].expect("every hidden layer has feedback")))
            .collect();
        DirectFeedbackAlignment { forward, hidden }
    }
}

impl Rule for DirectFeedbackAlignment {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.run(step.backend());
        step.update(forward.update(forward.depth() - 1, forward.error));
        for (layer, &(delta, feedback)) in self.hidden.iter().enumerate() {
            let backend = step.backend();
            backend.apply(feedback, &[(forward.error, delta)]);
            backend.through_nonlinearity(delta, forward.h[layer + 1]);
            step.update(forward.update(layer, delta));
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
