//! The optimisers' constants for one step: Adam (Kingma & Ba) with bias correction, and SGD with momentum, both with decoupled weight decay
//! (Loshchilov & Hutter): the decay is a part of the learning rate, and does not pass through moments.

use crate::compute::{Method, OptimizerStep};
use crate::config::{EpsilonForm, Optimizer, OptimizerMethod, ParameterGroup};
use crate::network::{Map, Maps, Role};

/// The learning rate of each map as it is written: its group's, or of one for each of the group's maps its own.
pub fn rates(optimizer: &Optimizer, maps: &Maps) -> Vec<f64> {
    let rate = |at: usize| {
        let role = match maps.all[at].role {
            Role::Normalization => Role::Forward,
            role => role,
        };
        // Of the layers below, and of a layer as its weights.
        let learns = |map: &&Map| map.trained() && map.role == role && map.layer < maps.all[at].layer;
        let place = maps.all.iter().filter(learns).count();
        // What does not learn may have no place.
        if maps.all[at].trained() { optimizer.group(maps.all[at].role).learning_rate.at(place) } else { 0.0 }
    };
    (0..maps.all.len()).map(rate).collect()
}

/// How running statistics follow those of a batch, which is the way of a gradient that is their distance: as PyTorch's, by a tenth.
pub fn statistics(global_batch: usize) -> OptimizerStep {
    let method = Method::Sgd { size: 0.1, momentum: 0.0, nesterov: false };
    OptimizerStep { scale: (1.0 / global_batch as f64) as f32, keep: 1.0, method }
}

/// Constants of step `t` (from 1) of a map of `group`, for gradients summed over `global_batch` samples.
///
/// Adam, standard: `w -= lr m_hat / (sqrt(v_hat) + eps)`. Hat (TensorFlow): `w -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)`.
pub fn step(group: &ParameterGroup, form: EpsilonForm, t: u64, learning_rate: f64, global_batch: usize) -> OptimizerStep {
    let method = match group.method {
        OptimizerMethod::Sgd => Method::Sgd { size: learning_rate as f32, momentum: group.momentum as f32, nesterov: group.nesterov },
        OptimizerMethod::Adam => {
            let correction = |beta: f64| 1.0 - beta.powf(t as f64);
            let (first, deviation) = (correction(group.beta1), correction(group.beta2).sqrt());
            let (size, deviation_scale) = match form {
                EpsilonForm::Standard => (learning_rate / first, 1.0 / deviation),
                EpsilonForm::Hat => (learning_rate * deviation / first, 1.0),
            };
            Method::Adam {
                beta1: group.beta1 as f32,
                beta2: group.beta2 as f32,
                size: size as f32,
                deviation_scale: deviation_scale as f32,
                // Without epsilon, a parameter that never had a gradient stays: 0 divided by what is left of 0.
                epsilon: (group.epsilon as f32).max(f32::MIN_POSITIVE),
            }
        }
    };
    OptimizerStep { scale: (1.0 / global_batch as f64) as f32, keep: (1.0 - learning_rate * group.weight_decay) as f32, method }
}
