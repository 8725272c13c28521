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

use super::{Definition, Errors, Feedback, Forward, Inverses, Learning, Magnitude, Phase, Plasticity, Rule, Step};
use crate::compute::{Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const FA: Definition = family("fa", Plasticity::Fixed);
pub const KP: Definition = family("kp", Plasticity::Trained);
pub const USF: Definition = family("usf", Plasticity::Signs(Magnitude::Uniform));
pub const FRSF: Definition = family("frsf", Plasticity::Signs(Magnitude::Fixed));
pub const BRSF: Definition = family("brsf", Plasticity::Signs(Magnitude::Redrawn));

const fn family(name: &'static str, plasticity: Plasticity) -> Definition {
    let feedback = Feedback::Layered(plasticity);
    Definition { name, inverses: Inverses::None, feedback, settings: &[], residual: true, build }
}

fn build(_: &Learning, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<Box<dyn Rule>> {
    Ok(Box::new(FeedbackAlignment::new(forward, network, maps, backend)))
}

pub struct FeedbackAlignment {
    forward: Forward,
    errors: Errors,
    /// By layer: in the place of its transpose.
    feedback: Vec<Option<MapId>>,
    /// Whether the feedback learns.
    trained: bool,
}

impl FeedbackAlignment {
    pub fn new(forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> FeedbackAlignment {
        let errors = Errors::new(&forward, network, backend);
        let trained = maps.feedback.iter().flatten().any(|feedback| maps.get(*feedback).trained());
        FeedbackAlignment { forward, errors, feedback: maps.feedback.clone(), trained }
    }
}

impl Rule for FeedbackAlignment {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.train(step);
        let feedback = |reader: usize| self.feedback[reader].expect("every layer but the first has feedback");
        step.update(forward.update(forward.depth() - 1, forward.error));
        for layer in self.errors.downwards() {
            if self.trained {
                for &reader in self.errors.readers(layer) {
                    // The reader's factors, the other way round.
                    step.update(Update { map: feedback(reader), pre: self.errors.of(reader), post: forward.h[layer + 1] });
                }
            }
            let delta = self.errors.collect(step, forward, layer, |reader| (feedback(reader), false));
            step.update(forward.update(layer, delta));
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
