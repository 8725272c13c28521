//! Feedback alignment (Lillicrap et al. 2016; section 2.1): back-propagation through weights B of the same sparsity,
//! `delta_l = (B_{l+1}^T delta_{l+1}) * s_l'(a_l)`, so that no synapse needs to know another's weight.
//!
//! What B does in the meantime tells the rules of this family apart:
//! * `fa`: nothing.
//! * `kp` (Kolen & Pollack 1994; Akrout et al. 2019): it learns by the very product of activities that the layer learns by, and both decay.
//!   What they differ in at first shrinks as `(1 - eta lambda)^t`, with learning rate eta and weight decay lambda.
//! * `usf`, `frsf`, `brsf` (Liao, Leibo & Poggio 2016): its signs are those of the layer's weights; its magnitudes are all one, drawn
//!   once, or drawn for each batch.

use std::sync::Arc;

use anyhow::Result;

use super::{Definition, Feedback, Forward, Inverses, Learning, Magnitude, Phase, Plasticity, Rule, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const FA: Definition = family("fa", Plasticity::Fixed);
pub const KP: Definition = family("kp", Plasticity::Trained);
pub const USF: Definition = family("usf", Plasticity::Signs(Magnitude::Uniform));
pub const FRSF: Definition = family("frsf", Plasticity::Signs(Magnitude::Fixed));
pub const BRSF: Definition = family("brsf", Plasticity::Signs(Magnitude::Redrawn));

const fn family(name: &'static str, plasticity: Plasticity) -> Definition {
    let feedback = Feedback::Layered(plasticity);
    Definition { name, inverses: Inverses::None, feedback, settings: &[], convolutions: true, build }
}

fn build(_: &Learning, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<Box<dyn Rule>> {
    Ok(Box::new(FeedbackAlignment::new(forward, network, maps, backend)))
}

pub struct FeedbackAlignment {
    forward: Forward,
    /// Error of each hidden layer, from the lowest, and the feedback that yields it from the layer above.
    hidden: Vec<(Activity, MapId)>,
    /// Whether the feedback learns.
    trained: bool,
}

impl FeedbackAlignment {
    pub fn new(forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> FeedbackAlignment {
        let hidden: Vec<(Activity, MapId)> = (1..network.depth())
            .map(|l| (backend.activity(network.shape(l)), maps.feedback[l].expect("every layer but the first has feedback")))
            .collect();
        let trained = hidden.iter().any(|(_, feedback)| maps.get(*feedback).trained());
        FeedbackAlignment { forward, hidden, trained }
    }
}

impl Rule for FeedbackAlignment {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.run(step.backend());
        let mut above = forward.error;
        step.update(forward.update(forward.depth() - 1, above));
        for (layer, &(delta, feedback)) in self.hidden.iter().enumerate().rev() {
            let h = forward.h[layer + 1];
            if self.trained {
                // The factors of the layer above, the other way round.
                step.update(Update { map: feedback, pre: above, post: h });
            }
            let backend = step.backend();
            backend.apply(feedback, &[(above, delta)]);
            backend.through_nonlinearity(delta, h);
            step.update(forward.update(layer, delta));
            above = delta;
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
