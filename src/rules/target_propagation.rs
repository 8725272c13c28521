//! The target propagation family (section 2.1, Algorithm 1, and 5.6).
//!
//! [`TargetPropagation::learn`] reads as Algorithm 1 does, in its four steps:
//! 1. activities go up, once clean and once corrupted;
//! 2. the top gives the first target, and targets come down through the inverses `g_l(y) = s_{l-1}(V_l y + c_l)`;
//! 3. each inverse learns from `|| g_l(f_l(h_{l-1} + noise)) - goal ||^2`;
//! 4. each layer learns from `|| f_l(h_{l-1}) - t_l ||^2`, the output from the task's loss; where that is asked for (5.6), a hidden layer learns
//!    to be invertible too, from a part of its inverse's loss.
//!
//! Steps 2 to 4 of a layer follow one another before the next layer down, since one reading of an inverse's weights serves them all: g of
//! activity, target and corrupted copy are one pass. What the variants do differently is asked of `top_target`.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::definition::Build;
use super::top_target::TopTarget;
use super::{Definition, Feedback, Forward, Inverses, Inverted, Learning, Phase, Rule, Setting, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

pub const TP: Definition =
    family("tp", Inverses::HiddenAndOutput, &[Setting::Sigma, Setting::InverseRegularizer], |learning, forward, network, maps, backend| {
        let top = TopTarget::inverted(network, maps, backend, None);
        TargetPropagation::of(learning, forward, network, maps, top, backend)
    });

pub const DTP: Definition = family(
    "dtp",
    Inverses::Hidden,
    &[Setting::Alpha, Setting::Sigma, Setting::Hybrid, Setting::InverseRegularizer],
    |learning, forward, network, maps, backend| {
        let alpha = learning.alpha.context("learning.alpha is needed by dtp")? as f32;
        let top = TopTarget::gradient_step(network, maps, alpha, backend);
        TargetPropagation::of(learning, forward, network, maps, top, backend)
    },
);

pub const SDTP: Definition = family(
    "sdtp",
    Inverses::HiddenAndOutput,
    &[Setting::Sigma, Setting::TargetStep, Setting::Hybrid, Setting::InverseRegularizer],
    simplified,
);

pub const AO_SDTP: Definition = family(
    "ao_sdtp",
    Inverses::HiddenAndOutput,
    &[Setting::Sigma, Setting::TargetStep, Setting::AuxiliaryUnits, Setting::Hybrid, Setting::InverseRegularizer],
    simplified,
);

const fn family(name: &'static str, inverses: Inverses, settings: &'static [Setting], build: Build) -> Definition {
    Definition { name, inverses, feedback: Feedback::None, settings, residual: false, build }
}

/// sdtp, and ao_sdtp, whose maps have the random features.
fn simplified(
    learning: &Learning,
    forward: Forward,
    network: &Network,
    maps: &Arc<Maps>,
    backend: &mut dyn Backend,
) -> Result<Box<dyn Rule>> {
    let top = TopTarget::inverted(network, maps, backend, Some(learning.target_step as f32));
    TargetPropagation::of(learning, forward, network, maps, top, backend)
}

pub struct TargetPropagation {
    forward: Forward,
    top: TopTarget,
    hybrid: f32,
    /// What part of an inverse's loss its layer learns from.
    regularizer: f32,
    /// t_l for hidden l, at l - 1.
    targets: Vec<Activity>,
    /// Postsynaptic errors of hidden forward layers, at l - 1.
    errors: Vec<Activity>,
    /// By layer: the inverse that leads down from it.
    inverses: Vec<Option<Inverse>>,
}

/// What belongs to `g` of layer index i, from h_{i+1} to h_i.
struct Inverse {
    map: MapId,
    /// g of activity and target.
    of_activity: Activity,
    of_target: Activity,
    /// Where it is trained.
    training: Option<Training>,
    /// Hybrid targets: the back-propagated change, and the error it comes from.
    back: Option<(Activity, Activity)>,
}

/// What an inverse learns by.
struct Training {
    /// Deviation of the noise.
    sigma: f32,
    /// `h_i` with noise, and what the layer makes of it (the top's is elsewhere).
    noisy: Activity,
    corrupted: Activity,
    /// g of the corrupted activity, and its error.
    reconstruction: Activity,
    error: Activity,
    /// Where the layer learns from it too: the gradient of the inverse's loss by the layer's pre-activation, and the part that it learns from.
    gradient: Option<(Activity, Activity)>,
}

impl Training {
    /// Whether the layer learns from the inverse's loss in this phase.
    fn regularizes(&self, phase: Phase) -> bool {
        self.gradient.is_some() && phase.trains_forward()
    }
}

impl Inverse {
    /// How it is trained, where the phase needs its reconstructions.
    fn training(&self, phase: Phase) -> Option<&Training> {
        self.training.as_ref().filter(|training| phase.trains_inverse() || training.regularizes(phase))
    }
}

impl TargetPropagation {
    fn of(
        learning: &Learning,
        forward: Forward,
        network: &Network,
        maps: &Arc<Maps>,
        top: TopTarget,
        backend: &mut dyn Backend,
    ) -> Result<Box<dyn Rule>> {
        let noise = learning.noise()?;
        let (hybrid, regularizer) = (learning.hybrid as f32, learning.inverse_regularizer as f32);
        let depth = network.depth();
        // Under tp an inverse's value is itself a target.
        let targets = (1..depth).map(|l| backend.activity_of(network.shape(l), network.nonlinearity(l))).collect();
        let errors = (1..depth).map(|l| backend.activity(network.shape(l))).collect();
        let inverses = maps.inverse.iter().enumerate().map(|(index, map)| {
            map.map(|map| {
                let (below, s) = (network.shape(index), network.nonlinearity(index));
                let above = network.shape(index + 1);
                let regularized = regularizer != 0.0 && index + 1 < depth;
                Inverse {
                    map,
                    of_activity: backend.activity_of(below, s),
                    of_target: backend.activity_of(below, s),
                    training: noise.map(|sigma| Training {
                        // The lowest layer has no inverse.
                        sigma: sigma.at(index - 1) as f32,
                        noisy: backend.activity(below),
                        corrupted: backend.activity_of(above, network.nonlinearity(index + 1)),
                        reconstruction: backend.activity_of(below, s),
                        error: backend.activity(below),
                        gradient: regularized.then(|| (backend.activity(above), backend.activity(above))),
                    }),
                    back: (hybrid != 0.0 && index + 1 < depth).then(|| (backend.activity(below), backend.activity(above))),
                }
            })
        });
        let inverses = inverses.collect();
        Ok(Box::new(TargetPropagation { forward, top, hybrid, regularizer, targets, errors, inverses }))
    }

    fn target(&self, l: usize) -> Activity {
        self.targets[l - 1]
    }

    /// Step 1: clean and, where an inverse trains, corrupted activities, layer by layer.
    fn propagate_activity(&self, backend: &mut dyn Backend, phase: Phase, iteration: usize) {
        let forward = &self.forward;
        for (layer, map) in forward.maps.iter().enumerate() {
            let clean = (forward.h[layer], forward.destination(layer));
            match self.inverses[layer].as_ref().and_then(|inverse| inverse.training(phase)) {
                Some(training) => {
                    backend.add_noise(forward.h[layer], training.noisy, training.sigma, layer + iteration * forward.depth());
                    let corrupted = self.top_of(layer).map_or(training.corrupted, TopTarget::corrupted_pre_activation);
                    // What won in the windows of a pool is last what won in the clean activity.
                    backend.apply(*map, &[(training.noisy, corrupted), clean]);
                }
                None => backend.apply(*map, &[clean]),
            }
        }
        forward.finish(backend);
    }

    /// The inverse of layer `layer`, once on all that steps 2 and 3 need of it. Returns how it is trained, and on which corrupted activity
    /// above, where it is.
    fn propagate_down<'a>(
        &self,
        backend: &mut dyn Backend,
        layer: usize,
        inverse: &'a Inverse,
        phase: Phase,
    ) -> Option<(&'a Training, Activity)> {
        let (h, above) = (self.forward.h[layer], self.forward.h[layer + 1]);
        let mut jobs = Vec::with_capacity(3);
        if phase.trains_forward() {
            let (activity, wanted) = match self.top_of(layer) {
                Some(top) => top.activity_and_wanted(backend, h, above),
                None => (above, self.target(layer + 1)),
            };
            if self.top.difference() {
                jobs.extend([(wanted, inverse.of_target), (activity, inverse.of_activity)]);
            } else {
                // The inverse of the target is the target.
                jobs.push((wanted, self.target(layer)));
            }
        }
        let training = inverse.training(phase).map(|training| {
            let corrupted = self.top_of(layer).map_or(training.corrupted, |top| top.corrupted(backend, training.noisy));
            jobs.push((corrupted, training.reconstruction));
            (training, corrupted)
        });
        backend.apply(inverse.map, &jobs);
        training
    }

    /// Step 2: `t_l = h_l - g(h_{l+1}) + g(t_{l+1})`, with back-propagation mixed in where the target is a hybrid (5.6), and at the top a
    /// share of the difference where that is asked for; and the distance of h_l to it, of which step 4 makes an update. The target that has
    /// no inverse above it is there already.
    fn compute_target(&self, backend: &mut dyn Backend, layer: usize) {
        let (forward, error) = (&self.forward, self.errors[layer - 1]);
        let Some(inverse) = self.inverses[layer].as_ref().filter(|_| self.top.difference()) else {
            return backend.error_through_nonlinearity(forward.h[layer], self.target(layer), error, false);
        };
        let back = inverse.back.map(|(change, error)| {
            backend.difference_through_nonlinearity(self.target(layer + 1), forward.h[layer + 1], error);
            backend.apply_transposed(forward.maps[layer], error, change);
            (self.hybrid, change)
        });
        let share = match (self.top_of(layer), back) {
            (Some(top), _) => top.step(),
            (None, Some((hybrid, _))) => 1.0 - hybrid,
            (None, None) => 1.0,
        };
        let inverted = [inverse.of_activity, inverse.of_target];
        backend.difference_target(forward.h[layer], inverted, share, back, self.target(layer), Some(error));
    }

    /// Step 3: the inverse's update from its reconstruction of the goal.
    fn train_inverse(&self, step: &mut dyn Step, layer: usize, map: MapId, training: &Training, corrupted: Activity, phase: Phase) {
        let goal = self.top.goal(self.forward.h[layer], training.noisy);
        step.backend().error_through_nonlinearity(training.reconstruction, goal, training.error, phase.trains_inverse());
        if phase.trains_inverse() {
            step.update(Update { map, pre: corrupted, post: training.error });
        }
        if let Some((gradient, part)) = training.gradient.filter(|_| phase.trains_forward()) {
            let (backend, forward) = (step.backend(), &self.forward);
            backend.lead_back((map, true), training.error, gradient, corrupted);
            backend.step_along(gradient, self.regularizer - 1.0, gradient, part);
            // Its updates follow one another, and so the first has waited.
            step.update(forward.update(layer, self.errors[layer]));
            step.update(Update { map: forward.maps[layer], pre: training.noisy, post: part });
        }
    }

    /// Step 4: the update of the layer below h_l from its distance to the target.
    fn train_forward(&self, step: &mut dyn Step, l: usize, phase: Phase) {
        let (forward, error) = (&self.forward, self.errors[l - 1]);
        let training = self.inverses[l - 1].as_ref().and_then(|inverse| inverse.training.as_ref());
        if !training.is_some_and(|training| training.regularizes(phase)) {
            step.update(forward.update(l - 1, error));
        }
    }

    /// The top target, where `layer` is the output layer and has an inverse.
    fn top_of(&self, layer: usize) -> Option<&TopTarget> {
        (layer + 1 == self.forward.depth()).then_some(&self.top)
    }
}

impl Rule for TargetPropagation {
    fn learn(&self, step: &mut dyn Step, phase: Phase) {
        let forward = &self.forward;
        let depth = forward.depth();
        let iteration = step.iteration();
        self.propagate_activity(step.backend(), phase, iteration);
        if phase.trains_forward() {
            step.update(forward.update(depth - 1, forward.error));
        }
        if phase.trains_forward() && depth > 1 {
            self.top.first_target(step.backend(), forward.h[depth - 1], forward.error, self.target(depth - 1));
        }
        for layer in (1..depth).rev() {
            let training = self.inverses[layer].as_ref().and_then(|inverse| {
                let training = self.propagate_down(step.backend(), layer, inverse, phase);
                training.map(|(training, corrupted)| (inverse.map, training, corrupted))
            });
            if phase.trains_forward() {
                self.compute_target(step.backend(), layer);
            }
            if let Some((map, training, corrupted)) = training {
                self.train_inverse(step, layer, map, training, corrupted, phase);
            }
            if phase.trains_forward() {
                self.train_forward(step, layer, phase);
            }
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }

    fn targets(&self) -> &[Activity] {
        &self.targets
    }

    fn inverted(&self) -> Vec<Inverted> {
        let forward = &self.forward;
        let of = |(layer, inverse): (usize, &Option<Inverse>)| {
            let map = inverse.as_ref()?.map;
            let above = forward.h[layer + 1];
            let from = self.top_of(layer).map_or(above, |top| top.activity(above));
            Some(Inverted { layer, map, from, original: forward.h[layer] })
        };
        self.inverses.iter().enumerate().filter_map(of).collect()
    }
}
