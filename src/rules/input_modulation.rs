//! Error-driven input modulation, PEPITA (Dellaferrera & Kreiman 2022): no error travels down. The input is shown once more with the output's
//! error added to it, through fixed random weights F, and each layer learns from what that changes in it:
//!
//! * first pass: `h_l = s_l(W_l h_{l-1} + b_l)` from `h_0 = x`, and the output's error e;
//! * second pass: `h'_l = s_l(W_l h'_{l-1} + b_l)` from `h'_0 = x + c F e`, with c = `learning.modulation`;
//! * a hidden layer learns from `(h_l - h'_l) h'_{l-1}^T`, the output layer from `e h'_{L-1}^T`. There is no slope in either.
//!
//! The authors' program draws F from `U(-0.05 a, 0.05 a)` with `a = sqrt(6 / units of the input)`, and learns by SGD. Here F is drawn from
//! `U(-a, a)`, and the factor is c: Adam makes up for its size, and the second pass had better stay near the first, whose output it trains.
//! Their networks have no biases; ours learn from the same postsynaptic factors.
//! They also have dropout, which is not part of the rule. What the rule makes of shortcuts and normalised layers nobody has said.
//!
//! The modulated input needs no operation of its own: it is an activity of the input's shape, laid out as all others, which the lowest map
//! reads as well as it reads the input. Where a backend lays the input out in another way, the sum is its affair ([`Backend::step_along`]): on
//! a CPU the rows of the input are not padded, and on a GPU, under this rule, the input lies as any activity does.

use std::sync::Arc;

use anyhow::Result;

use super::definition::Setting;
use super::{Definition, Feedback, Forward, Inverses, Learning, Phase, Rule, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const PEPITA: Definition = Definition {
    name: "pepita",
    inverses: Inverses::None,
    feedback: Feedback::Input,
    settings: &[Setting::Modulation],
    residual: false,
    build,
};

fn build(learning: &Learning, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<Box<dyn Rule>> {
    let hidden = (1..network.depth()).map(|l| Hidden {
        modulated: backend.activity_of(network.shape(l), network.nonlinearity(l)),
        difference: maps.get(forward.maps[l - 1]).pool.is_none().then(|| backend.activity(network.shape(l))),
    });
    let hidden = hidden.collect();
    let feedback = maps.feedback[0].expect("the input has feedback");
    let modulated_input = backend.activity(network.input);
    Ok(Box::new(InputModulation { forward, modulation: learning.modulation as f32, feedback, modulated_input, hidden }))
}

struct Hidden {
    /// h' of the second pass.
    modulated: Activity,
    /// `h - h'`, but of pools, which have nothing to learn.
    difference: Option<Activity>,
}

struct InputModulation {
    forward: Forward,
    modulation: f32,
    feedback: MapId,
    modulated_input: Activity,
    /// From the lowest.
    hidden: Vec<Hidden>,
}

impl Rule for InputModulation {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        let backend = step.backend();
        forward.run(backend);
        let mut below = self.modulated_input;
        backend.apply(self.feedback, &[(forward.error, below)]);
        backend.step_along(forward.h[0], self.modulation, below, below);
        for (layer, hidden) in self.hidden.iter().enumerate() {
            let backend = step.backend();
            backend.apply(forward.maps[layer], &[(below, hidden.modulated)]);
            if let Some(difference) = hidden.difference {
                backend.step_along(forward.h[layer + 1], -1.0, hidden.modulated, difference);
                step.update(Update { map: forward.maps[layer], pre: below, post: difference });
            }
            below = hidden.modulated;
        }
        let top = forward.depth() - 1;
        step.update(Update { map: forward.maps[top], pre: below, post: forward.error });
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
