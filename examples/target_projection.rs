//! A rule of one's own, in a program that is `biodist` and knows it: docs/own_rules.md goes through it.
//!
//! Direct feedback alignment sends the output's error down, which must wait for the output. Direct random target projection (Frenkel,
//! Lefebvre & Bol 2021) sends the target alone. This rule is between the two: hidden layers get `B_l (error - target_share * p)`, with the
//! error `p - y`; at 0 it is direct feedback alignment, at 1 what comes down is `-B_l y`, which no activity above has touched.

use std::process::ExitCode;
use std::sync::Arc;

use biodist::compute::{Activity, Backend};
use biodist::network::{MapId, Maps, Network};
use biodist::rules::{Definition, Feedback, Forward, Inverses, Phase, Plasticity, Rule, Setting, Step};

const TARGET_SHARE: Setting = Setting::Own { key: "target_share", meaning: "0 sends the output's error down, 1 the target alone" };

const TARGET_PROJECTION: Definition = Definition {
    name: "target_projection",
    inverses: Inverses::None,
    feedback: Feedback::Direct(Plasticity::Fixed),
    settings: &[TARGET_SHARE],
    residual: true,
    build: |learning, forward, network, maps, backend| {
        let target_share = learning.own["target_share"] as f32;
        Ok(Box::new(TargetProjection::new(target_share, forward, network, maps, backend)))
    },
};

struct TargetProjection {
    target_share: f32,
    forward: Forward,
    /// What comes down: as many units as the output.
    sent: Activity,
    /// Hidden layers with weights, from the lowest: the error, and the random weights that yield it.
    hidden: Vec<(usize, Activity, MapId)>,
}

impl TargetProjection {
    fn new(target_share: f32, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> TargetProjection {
        let sent = backend.activity(network.shape(network.depth()));
        let feedback = maps.feedback.iter().enumerate().filter_map(|(layer, map)| Some((layer, (*map)?)));
        let hidden = feedback.map(|(layer, map)| (layer, backend.activity(network.shape(layer + 1)), map)).collect();
        TargetProjection { target_share, forward, sent, hidden }
    }
}

impl Rule for TargetProjection {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.train(step);
        let top = forward.depth() - 1;
        step.update(forward.update(top, forward.error));
        step.backend().step_along(forward.error, -self.target_share, forward.h[top + 1], self.sent);
        for &(layer, delta, feedback) in &self.hidden {
            let backend = step.backend();
            backend.apply(feedback, &[(self.sent, delta)]);
            backend.through_nonlinearity(delta, forward.h[layer + 1]);
            let error = forward.error_of_weights(step, layer, delta);
            step.update(forward.update(layer, error));
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}

fn main() -> ExitCode {
    biodist::cli::main(&[&TARGET_PROJECTION])
}
