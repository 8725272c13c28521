//! Direct feedback alignment (Nøkland 2016; section 2.1): the output's error goes to every hidden layer through weights of its own,
//! `delta_l = (B_l delta_L) * s_l'(a_l)`. The paper could not run it on ImageNet for the size of B.
//!
//! Two rules differ from `dfa` in one thing each:
//! * `dkp`, direct Kolen-Pollack (Webster, Choi & Ahn 2020): B_l learns from `h_l delta_L^T`, as if it stood for the transposed product of all
//!   weights above.
//! * `drtp`, direct random target projection (Frenkel, Lefebvre & Bol 2021): what goes down is not the error `p - y` but its part that is
//!   known beforehand, `delta_l = -(B_l y) * s_l'(a_l)`, so that no layer waits for those above.

use std::sync::Arc;

use anyhow::Result;

use super::definition::Build;
use super::{Definition, Feedback, Forward, Inverses, Learning, Phase, Plasticity, Rule, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const DFA: Definition = family("dfa", Plasticity::Fixed, of_error);
pub const DKP: Definition = family("dkp", Plasticity::Trained, of_error);
pub const DRTP: Definition = family("drtp", Plasticity::Fixed, |_, forward, network, maps, backend| {
    let output = network.shape(network.depth());
    let sent = Sent::Wanted([backend.activity(output), backend.activity(output)]);
    Ok(Box::new(DirectFeedbackAlignment::new(sent, forward, network, maps, backend)))
});

const fn family(name: &'static str, plasticity: Plasticity, build: Build) -> Definition {
    let feedback = Feedback::Direct(plasticity);
    Definition { name, inverses: Inverses::None, feedback, settings: &[], residual: true, build }
}

fn of_error(_: &Learning, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<Box<dyn Rule>> {
    Ok(Box::new(DirectFeedbackAlignment::new(Sent::Error, forward, network, maps, backend)))
}

/// What goes to the hidden layers.
enum Sent {
    Error,
    /// What the output should be, and the same below zero.
    Wanted([Activity; 2]),
}

pub struct DirectFeedbackAlignment {
    forward: Forward,
    sent: Sent,
    /// Hidden layers with weights, from the lowest: the error, and the feedback that yields it from the output.
    hidden: Vec<(usize, Activity, MapId)>,
    /// Whether the feedback learns.
    trained: bool,
}

impl DirectFeedbackAlignment {
    fn new(sent: Sent, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> DirectFeedbackAlignment {
        let feedback = maps.feedback.iter().enumerate().filter_map(|(layer, map)| Some((layer, (*map)?)));
        let hidden: Vec<(usize, Activity, MapId)> =
            feedback.map(|(layer, map)| (layer, backend.activity(network.shape(layer + 1)), map)).collect();
        let trained = hidden.iter().any(|(_, _, feedback)| maps.get(*feedback).trained());
        DirectFeedbackAlignment { forward, sent, hidden, trained }
    }
}

impl Rule for DirectFeedbackAlignment {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.train(step);
        step.update(forward.update(forward.depth() - 1, forward.error));
        let sent = match self.sent {
            Sent::Error => forward.error,
            Sent::Wanted([wanted, negative]) => {
                step.backend().wanted_output(wanted);
                step.backend().step_along(wanted, -2.0, wanted, negative);
                negative
            }
        };
        for &(layer, delta, feedback) in &self.hidden {
            let h = forward.h[layer + 1];
            let backend = step.backend();
            backend.lead_back((feedback, false), sent, delta, h);
            let error = forward.error_of_weights(step, layer, delta);
            step.update(forward.update(layer, error));
            if self.trained {
                step.update(Update { map: feedback, pre: sent, post: h });
            }
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
