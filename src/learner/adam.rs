//! Adam (Kingma & Ba) with bias correction, as constants for one step.

use crate::compute::AdamStep;
use crate::config::{Adam, EpsilonForm};

/// Constants of step `t` (from 1), for gradients summed over `global_batch` samples.
///
/// Standard: `w -= lr m_hat / (sqrt(v_hat) + eps)`. Hat (TensorFlow): `w -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps)`.
pub fn step(adam: &Adam, form: EpsilonForm, t: u64, global_batch: usize) -> AdamStep {
    let correction = |beta: f64| 1.0 - beta.powf(t as f64);
    let (first, deviation) = (correction(adam.beta1), correction(adam.beta2).sqrt());
    let (size, deviation_scale) = match form {
        EpsilonForm::Standard => (adam.learning_rate / first, 1.0 / deviation),
        EpsilonForm::Hat => (adam.learning_rate * deviation / first, 1.0),
    };
    AdamStep {
        scale: (1.0 / global_batch as f64) as f32,
        beta1: adam.beta1 as f32,
        beta2: adam.beta2 as f32,
        size: size as f32,
        deviation_scale: deviation_scale as f32,
        // Without epsilon, a parameter that never had a gradient stays: 0 divided by what is left of 0.
        epsilon: (adam.epsilon as f32).max(f32::MIN_POSITIVE),
    }
}
