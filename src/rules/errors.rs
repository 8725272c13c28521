//! Errors of hidden activities on their way down, for the rules that lead them from layer to layer.
//!
//! An activity's error is the sum of what comes back from the layers that read it. In most networks that is one layer; a shortcut brings the
//! error of the pre-activation that it leads to as it is.

use super::{Forward, Step};
use crate::compute::{Activity, Backend};
use crate::network::{MapId, Network};

/// The errors of h_1 to h_{L-1}, and what they are made of.
pub struct Errors {
    hidden: Vec<Hidden>,
    /// Error of the output.
    top: Activity,
}

struct Hidden {
    /// Of the pre-activation.
    delta: Activity,
    /// Of what the weights yield, which is another where that is normalised.
    of_weights: Activity,
    /// Layers that read the activity through weights or pools.
    readers: Vec<usize>,
    /// Layers that it is added to.
    shortcuts: Vec<usize>,
    /// What comes back from a second reader.
    more: Option<Activity>,
}

impl Errors {
    pub fn new(forward: &Forward, network: &Network, backend: &mut dyn Backend) -> Errors {
        let hidden = |l: usize| {
            let readers: Vec<usize> = network.readers(l).collect();
            let delta = backend.activity(network.shape(l));
            let more = (readers.len() > 1).then(|| backend.activity(network.shape(l)));
            let of_weights = forward.weights_error(l - 1, delta);
            Hidden { delta, of_weights, more, readers, shortcuts: network.shortcuts(l).collect() }
        };
        Errors { hidden: (1..network.depth()).map(hidden).collect(), top: forward.error }
    }

    /// Hidden layers (from 0), from the highest: the order in which errors can be collected.
    pub fn downwards(&self) -> impl Iterator<Item = usize> + use<> {
        (0..self.hidden.len()).rev()
    }

    /// Error of what the weights of layer `layer` (from 0) yield: the postsynaptic factor of their gradient, once it was collected.
    pub fn of(&self, layer: usize) -> Activity {
        self.hidden.get(layer).map_or(self.top, |hidden| hidden.of_weights)
    }

    /// Layers that read what layer `layer` gives.
    pub fn readers(&self, layer: usize) -> &[usize] {
        &self.hidden[layer].readers
    }

    /// `delta_l = (sum of back(delta_k)) * s_l'(a_l)` over the readers k of layer `layer`, which are done, and from there to [`Errors::of`] it:
    /// `back(k)` is the map, `true` for its transpose, that leads the error of what the weights of k yield back through k. Collective where l
    /// is normalised.
    pub fn collect(&self, step: &mut dyn Step, forward: &Forward, layer: usize, back: impl Fn(usize) -> (MapId, bool)) -> Activity {
        let backend = step.backend();
        let Hidden { delta, readers, shortcuts, more, .. } = &self.hidden[layer];
        if let ([reader], []) = (&readers[..], &shortcuts[..]) {
            backend.lead_back(back(*reader), self.of(*reader), *delta, forward.h[layer + 1]);
            return forward.error_of_weights(step, layer, *delta);
        }
        let back = |backend: &mut dyn Backend, reader: usize, to: Activity| match back(reader) {
            (map, true) => backend.apply_transposed(map, self.of(reader), to),
            (map, false) => backend.apply(map, &[(self.of(reader), to)]),
        };
        for (place, &reader) in readers.iter().enumerate() {
            match more {
                Some(more) if place > 0 => {
                    back(backend, reader, *more);
                    backend.add(*delta, *more, *delta);
                }
                _ => back(backend, reader, *delta),
            }
        }
        for (place, &above) in shortcuts.iter().enumerate() {
            let above = self.hidden[above].delta;
            if readers.is_empty() && place == 0 {
                backend.step_along(above, 0.0, above, *delta);
            } else {
                backend.add(*delta, above, *delta);
            }
        }
        backend.through_nonlinearity(*delta, forward.h[layer + 1]);
        forward.error_of_weights(step, layer, *delta)
    }
}
