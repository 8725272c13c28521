//! Where target propagation's variants differ: the target of the penultimate activity, and the goal of an inverse.
//!
//! * tp: `t_{L-1} = g_L(y)`; below it targets are inverses alone, without the difference.
//! * dtp: `t_{L-1} = h_{L-1} - alpha dLoss/dh_{L-1}`: one step of gradient at the top, and no g_L. The inverse's goal keeps the noise.
//! * sdtp (Algorithm 1): `t_{L-1} = h_{L-1} - g_L(h_L) + g_L(y)`, without any gradient.
//! * ao_sdtp (equation 3): the same, with fixed random features z of h_{L-1} beside the output on both sides.

use std::sync::Arc;

use crate::compute::{Activity, Backend, Nonlinearity};
use crate::network::{MapId, Maps, Network, Shape};

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

impl GradientStep {
    pub fn new(network: &Network, maps: &Arc<Maps>, alpha: f32, backend: &mut dyn Backend) -> GradientStep {
        let depth = network.depth();
        let gradient = backend.activity(network.shape(depth - 1));
        GradientStep { output_map: maps.forward[depth - 1], alpha, gradient }
    }

    /// `target = h - alpha W_L^T error`.
    pub fn target(&self, backend: &mut dyn Backend, h: Activity, error: Activity, target: Activity) {
        backend.apply_transposed(self.output_map, error, self.gradient);
        backend.step_along(h, -self.alpha, self.gradient, target);
    }
}

/// The top of tp, sdtp and ao_sdtp: an inverse of the output layer, given the composite top activity.
pub struct Inverted {
    /// Whether the inverse of what the network said is taken off (all but tp).
    pub difference: bool,
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

impl Inverted {
    pub fn new(network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend, difference: bool) -> Inverted {
        let output = network.shape(network.depth());
        let mut make = |shape: Shape| backend.activity(shape);
        let wanted = make(output);
        let corrupted = (make(output), make(output));
        let auxiliary = maps.auxiliary.map(|map| {
            let features = maps.get(map).destination;
            let top = Shape::flat(output.channels + features.channels);
            Auxiliary {
                map,
                z: make(features),
                corrupted_z: make(features),
                of_output: make(top),
                of_wanted: make(top),
                of_corrupted: make(top),
            }
        });
        Inverted { difference, wanted, corrupted, auxiliary }
    }

    /// Where the output layer puts the pre-activation of the corrupted penultimate activity.
    pub fn corrupted_pre_activation(&self) -> Activity {
        self.corrupted.0
    }

    /// Where the top activity, clean, is after a step: the output, or the composite that holds it.
    pub fn top_activity(&self, output: Activity) -> Activity {
        self.auxiliary.as_ref().map_or(output, |auxiliary| auxiliary.of_output)
    }

    /// The top activity of the corrupted copy `noisy` of h_{L-1}.
    pub fn of_corrupted(&self, backend: &mut dyn Backend, noisy: Activity) -> Activity {
        let (pre_activation, output) = self.corrupted;
        backend.output(pre_activation, output);
        match &self.auxiliary {
            None => output,
            Some(auxiliary) => {
                backend.apply(auxiliary.map, &[(noisy, auxiliary.corrupted_z)], Nonlinearity::Tanh);
                backend.concatenate(output, auxiliary.corrupted_z, auxiliary.of_corrupted);
                auxiliary.of_corrupted
            }
        }
    }

    /// The top activities (of the output, as wanted), given h_{L-1} and the output h_L.
    pub fn of_output_and_wanted(&self, backend: &mut dyn Backend, h: Activity, output: Activity) -> (Activity, Activity) {
        backend.wanted_output(self.wanted);
        match &self.auxiliary {
            None => (output, self.wanted),
            Some(auxiliary) => {
                backend.apply(auxiliary.map, &[(h, auxiliary.z)], Nonlinearity::Tanh);
                backend.concatenate(output, auxiliary.z, auxiliary.of_output);
                backend.concatenate(self.wanted, auxiliary.z, auxiliary.of_wanted);
                (auxiliary.of_output, auxiliary.of_wanted)
            }
        }
    }
}
