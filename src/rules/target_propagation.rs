//! The target propagation family (section 2.1, Algorithm 1, and 5.6).
//!
//! Activities go up, once clean and once corrupted; targets come down through the inverses `g_l(y) = tanh(V_l y + c_l)`. Each layer then
//! has losses of its own: `|| f_l(h_{l-1}) - t_l ||^2` for the forward model, `|| g_l(f_l(h_{l-1} + noise)) - goal ||^2` for the inverse. The variants'
//! differences are in `top_target`. A pass over a layer's weights serves all that need them: f on clean and corrupted
//! activity, g on activity, target, and corrupted copy.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::definition::Build;
use super::top_target::{self, GradientStep, TopTarget};
use super::{Definition, Feedback, Forward, Inverses, Inverted, Phase, Rule, Setting, Step};
use crate::compute::{Activity, Backend, Nonlinearity, Update};
use crate::config::Learning;
use crate::network::{MapId, Maps, Network};

pub const TP: Definition = family("tp", Inverses::HiddenAndOutput, &[Setting::Sigma], |learning, forward, network, maps, backend| {
    let top = TopTarget::Inverted(top_target::Inverted::new(network, maps, backend, false));
    TargetPropagation::of(learning, forward, network, maps, top, backend)
});

pub const DTP: Definition =
    family("dtp", Inverses::Hidden, &[Setting::Alpha, Setting::Sigma, Setting::Hybrid], |learning, forward, network, maps, backend| {
        let alpha = learning.alpha.context("learning.alpha is needed by dtp")? as f32;
        let top = TopTarget::GradientStep(GradientStep::new(network, maps, alpha, backend));
        TargetPropagation::of(learning, forward, network, maps, top, backend)
    });

pub const SDTP: Definition = family("sdtp", Inverses::HiddenAndOutput, &[Setting::Sigma, Setting::Hybrid], simplified);

pub const AO_SDTP: Definition =
    family("ao_sdtp", Inverses::HiddenAndOutput, &[Setting::Sigma, Setting::AuxiliaryUnits, Setting::Hybrid], simplified);

const fn family(name: &'static str, inverses: Inverses, settings: &'static [Setting], build: Build) -> Definition {
    Definition { name, inverses, feedback: Feedback::None, settings, convolutions: false, build }
}

/// sdtp, and ao_sdtp, whose maps have the random features.
fn simplified(
    learning: &Learning,
    forward: Forward,
    network: &Network,
    maps: &Arc<Maps>,
    backend: &mut dyn Backend,
) -> Result<Box<dyn Rule>> {
    let top = TopTarget::Inverted(top_target::Inverted::new(network, maps, backend, true));
    TargetPropagation::of(learning, forward, network, maps, top, backend)
}

pub struct TargetPropagation {
    forward: Forward,
    top: TopTarget,
    sigma: f32,
    hybrid: f32,
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
    /// `h_i` with noise, and what the layer makes of it (the top's is elsewhere).
    noisy: Activity,
    corrupted: Activity,
    /// g of activity, target, and corrupted activity.
    of_activity: Activity,
    of_target: Activity,
    reconstruction: Activity,
    error: Activity,
    /// Hybrid targets: the back-propagated change, and the error it comes from.
    back: Option<(Activity, Activity)>,
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
        let sigma = learning.sigma.context("learning.sigma is needed by this rule")? as f32;
        let hybrid = learning.hybrid as f32;
        let depth = network.depth();
        let mut hidden = || (1..depth).map(|l| backend.activity(network.shape(l))).collect::<Vec<_>>();
        let (targets, errors) = (hidden(), hidden());
        let inverses = maps.inverse.iter().enumerate().map(|(index, map)| {
            let mut make = |l: usize| backend.activity(network.shape(l));
            map.map(|map| Inverse {
                map,
                noisy: make(index),
                corrupted: make(index + 1),
                of_activity: make(index),
                of_target: make(index),
                reconstruction: make(index),
                error: make(index),
                back: (hybrid != 0.0 && index + 1 < depth).then(|| (make(index), make(index + 1))),
            })
        });
        let inverses = inverses.collect();
        Ok(Box::new(TargetPropagation { forward, top, sigma, hybrid, targets, errors, inverses }))
    }

    fn target(&self, l: usize) -> Activity {
        self.targets[l - 1]
    }

    /// Clean and, where an inverse trains, corrupted activities, layer by layer.
    fn upward(&self, backend: &mut dyn Backend, phase: Phase) {
        let forward = &self.forward;
        for (layer, map) in forward.maps.iter().enumerate() {
            let (to, nonlinearity) = forward.destination(layer);
            let clean = (forward.h[layer], to);
            match &self.inverses[layer] {
                Some(inverse) if phase.trains_inverse() => {
                    backend.add_noise(forward.h[layer], inverse.noisy, self.sigma, layer);
                    let corrupted = (inverse.noisy, self.corrupted_destination(layer, inverse));
                    backend.apply(*map, &[clean, corrupted], nonlinearity);
                }
                _ => backend.apply(*map, &[clean], nonlinearity),
            }
        }
        forward.finish(backend);
    }

    fn corrupted_destination(&self, layer: usize, inverse: &Inverse) -> Activity {
        match &self.top {
            TopTarget::Inverted(top) if layer + 1 == self.forward.depth() => top.corrupted_pre_activation(),
            _ => inverse.corrupted,
        }
    }

    /// All that goes down through the inverse of layer index `layer`: the target of h_layer and the inverse's own error. Returns the
    /// inverse's update, where it trains.
    fn downward(&self, backend: &mut dyn Backend, layer: usize, inverse: &Inverse, phase: Phase) -> Option<Update> {
        let mut update = None;
        let forward = &self.forward;
        let at_top = layer + 1 == forward.depth();
        let mut jobs = Vec::with_capacity(3);
        let mut difference = true;
        if let (true, TopTarget::Inverted(top)) = (phase.trains_forward(), &self.top) {
            difference = top.difference;
        }
        if phase.trains_forward() {
            let (activity, wanted) = match &self.top {
                TopTarget::Inverted(top) if at_top => top.of_output_and_wanted(backend, forward.h[layer], forward.h[layer + 1]),
                _ => (forward.h[layer + 1], self.target(layer + 1)),
            };
            // Without the difference an inverse of the target is the target.
            jobs.push((wanted, if difference { inverse.of_target } else { self.target(layer) }));
            if difference {
                jobs.push((activity, inverse.of_activity));
            }
        }
        if phase.trains_inverse() {
            let corrupted = match &self.top {
                TopTarget::Inverted(top) if at_top => top.of_corrupted(backend, inverse.noisy),
                _ => inverse.corrupted,
            };
            jobs.push((corrupted, inverse.reconstruction));
            update = Some(Update { map: inverse.map, pre: corrupted, post: inverse.error });
        }
        backend.apply(inverse.map, &jobs, Nonlinearity::Tanh);
        if phase.trains_forward() && difference {
            let h = forward.h[layer];
            let back = inverse.back.map(|(change, error)| {
                backend.difference_through_tanh(self.target(layer + 1), forward.h[layer + 1], error);
                backend.apply_transposed(forward.maps[layer], error, change);
                (self.hybrid, change)
            });
            backend.difference_target(h, inverse.of_activity, inverse.of_target, back, self.target(layer));
        }
        if phase.trains_inverse() {
            let goal = match self.top {
                TopTarget::GradientStep(_) => inverse.noisy,
                TopTarget::Inverted(_) => forward.h[layer],
            };
            backend.error_through_tanh(inverse.reconstruction, goal, inverse.error, true);
        }
        update
    }
}

impl Rule for TargetPropagation {
    fn learn(&self, step: &mut dyn Step, phase: Phase) {
        let forward = &self.forward;
        let depth = forward.depth();
        self.upward(step.backend(), phase);
        if phase.trains_forward() {
            step.update(forward.update(depth - 1, forward.error));
        }
        if let (TopTarget::GradientStep(top), true) = (&self.top, phase.trains_forward() && depth > 1) {
            top.target(step.backend(), forward.h[depth - 1], forward.error, self.target(depth - 1));
        }
        for layer in (1..depth).rev() {
            let inverse = self.inverses[layer].as_ref();
            if let Some(update) = inverse.and_then(|inverse| self.downward(step.backend(), layer, inverse, phase)) {
                step.update(update);
            }
            if phase.trains_forward() {
                let error = self.errors[layer - 1];
                step.backend().error_through_tanh(forward.h[layer], self.target(layer), error, false);
                step.update(forward.update(layer - 1, error));
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
            let from = match &self.top {
                TopTarget::Inverted(top) if layer + 1 == forward.depth() => top.top_activity(forward.h[layer + 1]),
                _ => forward.h[layer + 1],
            };
            Some(Inverted { layer, map, from, original: forward.h[layer] })
        };
        self.inverses.iter().enumerate().filter_map(of).collect()
    }
}
