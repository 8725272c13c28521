//! Feedback alignment (Lillicrap et al. 2016; section 2.1): back-propagation through fixed random weights B of the same sparsity,
//! `delta_l = (B_{l+1}^T delta_{l+1}) * s_l'(a_l)`, so that no synapse needs to know another's weight.

use std::sync::Arc;

use super::{Definition, Feedback, Forward, Inverses, Phase, Rule, Step};
use crate::compute::{Activity, Backend};
use crate::network::{MapId, Maps, Network};

pub const FA: Definition = Definition {
    name: "fa",
    inverses: Inverses::None,
    feedback: Feedback::Layered,
    settings: &[],
    convolutions: true,
    build: |_, forward, network, maps, backend| Ok(Box::new(FeedbackAlignment::new(forward, network, maps, backend))),
};

pub struct FeedbackAlignment {
    forward: Forward,
    /// Error of each hidden layer, from the lowest, and the feedback that yields it from the layer above.
    hidden: Vec<(Activity, MapId)>,
}

impl FeedbackAlignment {
    pub fn new(forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> FeedbackAlignment {
        let hidden = (1..network.depth())
            .map(|l| (backend.activity(network.shape(l)), maps.feedback[l].expect("every layer but the first has feedback")))
            .collect();
        FeedbackAlignment { forward, hidden }
    }
}

impl Rule for FeedbackAlignment {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.run(step.backend());
        let mut above = forward.error;
        step.update(forward.update(forward.depth() - 1, above));
        for (layer, &(delta, feedback)) in self.hidden.iter().enumerate().rev() {
            let backend = step.backend();
            backend.apply(feedback, &[(above, delta)]);
            backend.through_nonlinearity(delta, forward.h[layer + 1]);
            step.update(forward.update(layer, delta));
            above = delta;
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
