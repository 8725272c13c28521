//! Where target propagation's variants differ: the target of the penultimate activity, and the goal of an inverse.
//!
//! * tp: `t_{L-1} = g_L(y)`; below it targets are inverses alone, without the difference.
//! * dtp: `t_{L-1} = h_{L-1} - alpha dLoss/dh_{L-1}`: one step of gradient at the top, and no g_L. The inverse's goal keeps the noise.
//! * sdtp (Algorithm 1): `t_{L-1} = h_{L-1} - s (g_L(h_L) - g_L(y))`, without any gradient; s is 1 in the paper.
//! * ao_sdtp (equation 3): the same, with fixed random features z of h_{L-1} beside the output on both sides.

use std::sync::Arc;

use crate::compute::{Activity, Backend, Nonlinearity};
use crate::network::{MapId, Maps, Network, Shape};

/// The first target, and the questions that tell the variants apart. Those about the output layer's inverse are asked where there
/// is one: never of dtp.
pub enum TopTarget {
    GradientStep(GradientStep),
    Inverted(Inverted),
}

/// dtp's top: a gradient through the output layer.
pub struct GradientStep {
    output_map: MapId,
    alpha: f32,
    gradient: Activity,
}

/// The top of tp, sdtp and ao_sdtp: an inverse of the output layer, given the composite top activity.
pub struct Inverted {
    /// s; none where targets are inverses alone.
    step: Option<f32>,
    wanted: Activity,
    /// Pre-activation and output of the corrupted penultimate activity.
    corrupted: (Activity, Activity),
    auxiliary: Option<Auxiliary>,
}

/// Random features of the penultimate activity and of its corrupted copy, and the composite top activities [o, z].
struct Auxiliary {
    map: MapId,
    z: Activity,
    corrupted_z: Activity,
    of_output: Activity,
    of_wanted: Activity,
    of_corrupted: Activity,
}

impl TopTarget {
    pub fn gradient_step(network: &Network, maps: &Arc<Maps>, alpha: f32, backend: &mut dyn Backend) -> TopTarget {
        let depth = network.depth();
        let gradient = backend.activity(network.shape(depth - 1));
        TopTarget::GradientStep(GradientStep { output_map: maps.forward[depth - 1], alpha, gradient })
    }

    /// `step` is the share of the difference that the first target takes; none for tp, which has no difference.
    pub fn inverted(network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend, step: Option<f32>) -> TopTarget {
        let output = network.shape(network.depth());
        let wanted = backend.activity(output);
        let corrupted = (backend.activity(output), backend.activity(output));
        let auxiliary = maps.auxiliary.map(|map| {
            let features = maps.get(map).destination;
            let top = Shape::flat(output.channels + features.channels);
            Auxiliary {
                map,
                z: backend.activity_of(features, Nonlinearity::Tanh),
                corrupted_z: backend.activity_of(features, Nonlinearity::Tanh),
                of_output: backend.activity(top),
                of_wanted: backend.activity(top),
                of_corrupted: backend.activity(top),
            }
        });
        TopTarget::Inverted(Inverted { step, wanted, corrupted, auxiliary })
    }

    /// `t_{L-1} = h_{L-1} - alpha W_L^T error`, where the first target is a step of gradient; elsewhere it comes down through g_L.
    pub fn first_target(&self, backend: &mut dyn Backend, h: Activity, error: Activity, target: Activity) {
        if let TopTarget::GradientStep(top) = self {
            backend.apply_transposed(top.output_map, error, top.gradient);
            backend.step_along(h, -top.alpha, top.gradient, target);
        }
    }

    /// Whether a target is its activity plus a difference of inverses, or an inverse alone.
    pub fn difference(&self) -> bool {
        match self {
            TopTarget::GradientStep(_) => true,
            TopTarget::Inverted(top) => top.step.is_some(),
        }
    }

    /// The share of the difference of the output layer's inverses that the first target takes.
    pub fn step(&self) -> f32 {
        self.output().step.unwrap_or(1.0)
    }

    /// What an inverse should make of the corrupted activity above: the clean activity below, or in dtp the noisy one.
    pub fn goal(&self, clean: Activity, noisy: Activity) -> Activity {
        match self {
            TopTarget::GradientStep(_) => noisy,
            TopTarget::Inverted(_) => clean,
        }
    }

    /// Where the output layer puts the pre-activation of the corrupted penultimate activity.
    pub fn corrupted_pre_activation(&self) -> Activity {
        self.output().corrupted.0
    }

    /// The top activity of the corrupted copy `noisy` of h_{L-1}.
    pub fn corrupted(&self, backend: &mut dyn Backend, noisy: Activity) -> Activity {
        let Inverted { corrupted: (pre_activation, output), auxiliary, .. } = self.output();
        backend.output(*pre_activation, *output);
        match auxiliary {
            None => *output,
            Some(auxiliary) => {
                backend.apply(auxiliary.map, &[(noisy, auxiliary.corrupted_z)]);
                backend.concatenate(*output, auxiliary.corrupted_z, auxiliary.of_corrupted);
                auxiliary.of_corrupted
            }
        }
    }

    /// The top activities (of the output, as wanted), given h_{L-1} and the output h_L.
    pub fn activity_and_wanted(&self, backend: &mut dyn Backend, h: Activity, output: Activity) -> (Activity, Activity) {
        let Inverted { wanted, auxiliary, .. } = self.output();
        backend.wanted_output(*wanted);
        match auxiliary {
            None => (output, *wanted),
            Some(auxiliary) => {
                backend.apply(auxiliary.map, &[(h, auxiliary.z)]);
                backend.concatenate(output, auxiliary.z, auxiliary.of_output);
                backend.concatenate(*wanted, auxiliary.z, auxiliary.of_wanted);
                (auxiliary.of_output, auxiliary.of_wanted)
            }
        }
    }

    /// Where the top activity, clean, is after a step: the output, or the composite that holds it.
    pub fn activity(&self, output: Activity) -> Activity {
        self.output().auxiliary.as_ref().map_or(output, |auxiliary| auxiliary.of_output)
    }

    fn output(&self) -> &Inverted {
        match self {
            TopTarget::Inverted(top) => top,
            TopTarget::GradientStep(_) => unreachable!("there is no inverse of the output layer"),
        }
    }
}
