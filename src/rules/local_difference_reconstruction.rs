//! Difference target propagation whose inverses learn to pull back differences as gradients would (Ernoult et al. 2022, L-DRL).
//!
//! An inverse learns from noise on both of its sides, `xi, zeta ~ N(0, sigma_l^2)`: with `u = f_l(h_{l-1} + xi)`, `r = g_l(h_l)` and
//! `d = g_l(h_l + zeta) - r`, its loss is `-2 xi . (g_l(u) - r) + || d ||^2`. Where that is least, its Jacobian is the transposed one of f_l,
//! and targets `t_{l-1} = h_{l-1} + g_l(t_l) - g_l(h_l)` are steps of gradient. The first is `t_L = a_L - s (p - y)`, with
//! s = `learning.target_step`: the output layer is linear here, and its inverse is given `a_L`.
//!
//! The loss's gradient is a sum of three products of factors, so that an inverse has three updates a step. Their mean is along the gradient
//! for many samples, or many steps: `learning.inverse_iterations`.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::{Definition, Feedback, Forward, Inverses, Inverted, Learning, Phase, Rule, Setting, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const L_DRL: Definition = Definition {
    name: "l_drl",
    inverses: Inverses::HiddenAndOutput,
    feedback: Feedback::None,
    settings: &[Setting::Sigma, Setting::TargetStep],
    residual: false,
    build: |learning, forward, network, maps, backend| {
        Ok(Box::new(LocalDifferenceReconstruction::new(learning, forward, network, maps, backend)?))
    },
};

pub struct LocalDifferenceReconstruction {
    forward: Forward,
    /// How far the first target goes.
    target_step: f32,
    /// The target of a_L, and its distance from there.
    top_target: Activity,
    top_error: Activity,
    /// t_l for hidden l, at l - 1.
    targets: Vec<Activity>,
    /// `(h_l - t_l) * s_l'(a_l)` of hidden layers, at l - 1.
    errors: Vec<Activity>,
    /// Of each layer but the first, from the lowest.
    inverses: Vec<Inverse>,
}

/// What belongs to `g` of layer index i, from what is above it to h_i.
struct Inverse {
    map: MapId,
    /// h_{i+1}, or a_L.
    above: Activity,
    /// g of it, and of its target.
    of_activity: Activity,
    of_target: Activity,
    /// Where it is trained.
    training: Option<Training>,
}

struct Training {
    /// Deviation of both noises.
    sigma: f32,
    /// Zero: what noise is added to.
    silence: Activity,
    /// h_i with xi, and what the layer makes of it.
    below_noisy: Activity,
    u: Activity,
    /// h_{i+1} with zeta.
    above_noisy: Activity,
    of_u: Activity,
    of_noisy: Activity,
    /// d, and twice xi.
    difference: Activity,
    twice_noise: Activity,
    /// Postsynaptic errors, which go with u, h_{i+1} with noise, and h_{i+1}.
    errors: [Activity; 3],
}

impl LocalDifferenceReconstruction {
    fn new(
        learning: &Learning,
        forward: Forward,
        network: &Network,
        maps: &Arc<Maps>,
        backend: &mut dyn Backend,
    ) -> Result<LocalDifferenceReconstruction> {
        let noise = learning.noise()?;
        let depth = network.depth();
        let output = network.shape(depth);
        let (top_target, top_error) = (backend.activity(output), backend.activity(output));
        let mut hidden = || (1..depth).map(|l| backend.activity(network.shape(l))).collect();
        let (targets, errors) = (hidden(), hidden());
        let mut inverses = Vec::with_capacity(depth - 1);
        for index in 1..depth {
            let Some(map) = maps.inverse[index] else { bail!("layer {index} has no inverse") };
            let top = index + 1 == depth;
            let [below, above] = [network.shape(index), network.shape(index + 1)];
            let s = network.nonlinearity(index);
            let (of_activity, of_target) = (backend.activity_of(below, s), backend.activity_of(below, s));
            let training = noise.map(|sigma| Training {
                sigma: sigma.at(index - 1) as f32,
                of_u: backend.activity_of(below, s),
                of_noisy: backend.activity_of(below, s),
                silence: backend.activity(below),
                below_noisy: backend.activity(below),
                u: backend.activity_of(above, network.nonlinearity(index + 1)),
                above_noisy: backend.activity(above),
                difference: backend.activity(below),
                twice_noise: backend.activity(below),
                errors: [(); 3].map(|()| backend.activity(below)),
            });
            let above = if top { forward.pre_activation } else { forward.h[index + 1] };
            inverses.push(Inverse { map, above, of_activity, of_target, training });
        }
        let target_step = learning.target_step as f32;
        Ok(LocalDifferenceReconstruction { forward, target_step, top_target, top_error, targets, errors, inverses })
    }

    /// The three updates of the inverse of layer `index`, whose value of the activity is there.
    fn train_inverse(&self, step: &mut dyn Step, index: usize, inverse: &Inverse, training: &Training) {
        let (h, depth) = (self.forward.h[index], self.forward.depth());
        // Both noises of a layer and iteration have numbers of their own.
        let first = 2 * depth * step.iteration();
        let (xi, zeta) = (first + index, first + depth + index);
        let Training { sigma, silence, difference, twice_noise, errors: [of_u, of_noisy, of_activity], .. } = *training;
        let backend = step.backend();
        backend.add_noise(h, training.below_noisy, sigma, xi);
        backend.apply(self.forward.maps[index], &[(training.below_noisy, training.u)]);
        backend.add_noise(inverse.above, training.above_noisy, sigma, zeta);
        backend.apply(inverse.map, &[(training.u, training.of_u), (training.above_noisy, training.of_noisy)]);

        backend.add_noise(silence, of_u, -2.0 * sigma, xi);
        backend.through_nonlinearity(of_u, training.of_u);
        backend.step_along(training.of_noisy, -1.0, inverse.of_activity, difference);
        backend.step_along(difference, 1.0, difference, of_noisy);
        backend.add_noise(silence, twice_noise, 2.0 * sigma, xi);
        backend.step_along(twice_noise, -1.0, of_noisy, of_activity);
        backend.through_nonlinearity(of_noisy, training.of_noisy);
        backend.through_nonlinearity(of_activity, inverse.of_activity);
        // What is measured is how far the inverse is from one; the error that comes with it goes nowhere.
        backend.error_through_nonlinearity(inverse.of_activity, h, difference, true);
        for (pre, post) in [(training.u, of_u), (training.above_noisy, of_noisy), (inverse.above, of_activity)] {
            step.update(Update { map: inverse.map, pre, post });
        }
    }

    /// The target of h_i from that of what is above, and the update of the layer below.
    fn train_forward(&self, step: &mut dyn Step, index: usize, inverse: &Inverse) {
        let (forward, target, error) = (&self.forward, self.targets[index - 1], self.errors[index - 1]);
        let h = forward.h[index];
        let backend = step.backend();
        backend.difference_target(h, [inverse.of_activity, inverse.of_target], 1.0, None, target, None);
        backend.step_along(h, -1.0, target, error);
        backend.through_nonlinearity(error, h);
        step.update(forward.update(index - 1, error));
    }
}

impl Rule for LocalDifferenceReconstruction {
    fn learn(&self, step: &mut dyn Step, phase: Phase) {
        let forward = &self.forward;
        forward.run(step.backend());
        if phase.trains_forward() {
            let backend = step.backend();
            backend.step_along(forward.error, self.target_step - 1.0, forward.error, self.top_error);
            backend.step_along(forward.pre_activation, -1.0, self.top_error, self.top_target);
            step.update(forward.update(forward.depth() - 1, self.top_error));
        }
        let mut above = self.top_target;
        for (below, inverse) in self.inverses.iter().enumerate().rev() {
            let index = below + 1;
            let of_target = phase.trains_forward().then_some((above, inverse.of_target));
            let jobs: Vec<_> = [(inverse.above, inverse.of_activity)].into_iter().chain(of_target).collect();
            step.backend().apply(inverse.map, &jobs);
            if let Some(training) = inverse.training.as_ref().filter(|_| phase.trains_inverse()) {
                self.train_inverse(step, index, inverse, training);
            }
            if phase.trains_forward() {
                self.train_forward(step, index, inverse);
            }
            above = self.targets[below];
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }

    fn targets(&self) -> &[Activity] {
        &self.targets
    }

    fn inverted(&self) -> Vec<Inverted> {
        let of = |(below, inverse): (usize, &Inverse)| {
            let (layer, map, from) = (below + 1, inverse.map, inverse.above);
            Inverted { layer, map, from, original: self.forward.h[layer] }
        };
        self.inverses.iter().enumerate().map(of).collect()
    }
}
