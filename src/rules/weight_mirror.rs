//! Weight mirror (Akrout et al. 2019): errors return by feedback B as in feedback alignment, and B learns the transposed weights from noise that
//! each layer is shown by itself: with `xi ~ N(0, sigma^2)` in the place of h_{l-1} and `y = f_l(xi)`,
//! `B_l <- (1 - eta lambda) B_l + eta <y xi^T>`, whose mean is along W_l^T. No weight is sent anywhere.
//!
//! The update is an SGD step on the factors y and -xi: `[optimizer.feedback]` gives its rate and its decay, without which B grows for ever.
//! The noise is that of the batch's samples, so more of them make a better mirror.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::{ByLayer, Definition, Errors, Feedback, Forward, Inverses, Phase, Plasticity, Rule, Setting, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{Layer, MapId, Maps, Network};

pub const WM: Definition = Definition {
    name: "wm",
    inverses: Inverses::None,
    feedback: Feedback::Layered(Plasticity::Trained),
    settings: &[Setting::Sigma],
    residual: true,
    build: |learning, forward, network, maps, backend| {
        let sigma = learning.sigma.as_ref().context("learning.sigma is needed by wm")?;
        Ok(Box::new(WeightMirror::new(sigma, forward, network, maps, backend)?))
    },
};

pub struct WeightMirror {
    forward: Forward,
    errors: Errors,
    /// Of each layer but the first, from the lowest.
    mirrors: Vec<Mirror>,
}

/// What belongs to a layer.
struct Mirror {
    feedback: MapId,
    /// Not for pools, which have nothing to learn, and keep which unit of a window the images made win.
    lesson: Option<Lesson>,
}

#[derive(Clone, Copy)]
struct Lesson {
    /// Deviation of the noise.
    sigma: f32,
    /// Zero: what the noise is added to.
    silence: Activity,
    noise: Activity,
    /// The noise below zero.
    opposite: Activity,
    /// What the layer makes of the noise.
    response: Activity,
}

impl WeightMirror {
    fn new(sigma: &ByLayer, forward: Forward, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<WeightMirror> {
        let mut lessons = 0;
        let mut mirror = |index: usize| {
            let Layer { input, output, .. } = network.layers[index];
            let feedback = maps.feedback[index].context("every layer but the first has feedback")?;
            let lesson = maps.get(forward.maps[index]).pool.is_none().then(|| {
                lessons += 1;
                let [silence, noise, opposite] = [(); 3].map(|()| backend.activity(input));
                let response = backend.activity_of(output, network.nonlinearity(index + 1));
                Lesson { sigma: sigma.at(lessons - 1) as f32, silence, noise, opposite, response }
            });
            Ok(Mirror { feedback, lesson })
        };
        let mirrors = (1..network.depth()).map(&mut mirror).collect::<Result<_>>()?;
        let errors = Errors::new(&forward, network, backend);
        Ok(WeightMirror { forward, errors, mirrors })
    }

    /// Shows layer `index` noise, and lets its feedback learn from the answer.
    fn reflect(&self, step: &mut dyn Step, index: usize, mirror: &Mirror) {
        let Some(Lesson { sigma, silence, noise, opposite, response }) = mirror.lesson else { return };
        let backend = step.backend();
        backend.add_noise(silence, noise, sigma, index);
        backend.add_noise(silence, opposite, -sigma, index);
        backend.apply(self.forward.maps[index], &[(noise, response)]);
        step.update(Update { map: mirror.feedback, pre: response, post: opposite });
    }
}

impl Rule for WeightMirror {
    fn learn(&self, step: &mut dyn Step, _phase: Phase) {
        let forward = &self.forward;
        forward.train(step);
        step.update(forward.update(forward.depth() - 1, forward.error));
        for (below, mirror) in self.mirrors.iter().enumerate().rev() {
            let feedback = |reader: usize| (self.mirrors[reader - 1].feedback, false);
            let delta = self.errors.collect(step, forward, below, feedback);
            step.update(forward.update(below, delta));
            self.reflect(step, below + 1, mirror);
        }
    }

    fn forward(&self) -> &Forward {
        &self.forward
    }
}
