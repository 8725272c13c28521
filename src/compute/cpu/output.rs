//! The output layer's nonlinearity, loss, error, and error rates: a few numbers a sample, in plain code.

/// Writes softmax of `logits` to `p` and returns the logarithm of its denominator and the largest logit.
pub fn softmax(logits: &[f32], p: &mut [f32]) -> (f64, f32) {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for (p, x) in p.iter_mut().zip(logits) {
        *p = (x - largest).exp();
        sum += f64::from(*p);
    }
    let scale = (1.0 / sum) as f32;
    for p in &mut *p {
        *p *= scale;
    }
    (sum.ln(), largest)
}

/// Loss and error rates of one sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub loss: f32,
    pub top1_error: f32,
    pub top5_error: f32,
}

/// Cross-entropy against `label`: `p` becomes the softmax, `error` `p - y`, where y has the part `smoothing` of the label spread over all
/// classes. The loss is that of the label itself.
pub fn cross_entropy(logits: &[f32], label: usize, smoothing: f32, p: &mut [f32], error: &mut [f32]) -> Sample {
    let (log_sum, largest) = softmax(logits, p);
    let elsewhere = smoothing / logits.len() as f32;
    for (error, p) in error.iter_mut().zip(&*p) {
        *error = p - elsewhere;
    }
    error[label] -= 1.0 - smoothing;
    let own = logits[label];
    // Equal logits rank by class, as an argmax that takes the first does; nothing ranks behind a NaN.
    let ahead = logits.iter().enumerate().filter(|&(class, x)| *x > own || (*x == own && class < label)).count();
    let ahead = if own.is_nan() { logits.len() } else { ahead };
    Sample {
        loss: (log_sum - f64::from(own - largest)) as f32,
        top1_error: f32::from(u8::from(ahead >= 1)),
        top5_error: f32::from(u8::from(ahead >= 5)),
    }
}

/// Squared error of a linear output against `wanted`: `error` becomes `2 (h - x)`.
pub fn squared_error(h: &[f32], wanted: &[f32], error: &mut [f32]) -> Sample {
    let mut loss = 0.0f64;
    for ((error, h), x) in error.iter_mut().zip(h).zip(wanted) {
        let difference = h - x;
        *error = 2.0 * difference;
        loss += f64::from(difference) * f64::from(difference);
    }
    Sample { loss: loss as f32, top1_error: 0.0, top5_error: 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_agrees_with_the_formula_in_float64() {
        let logits = [1.5f32, -0.25, 3.0, 88.0, -90.0, 3.0];
        for label in 0..logits.len() {
            let (mut p, mut error) = ([0.0; 6], [0.0; 6]);
            let sample = cross_entropy(&logits, label, 0.0, &mut p, &mut error);
            let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
            let loss = sum.ln() - f64::from(logits[label]);
            assert!((f64::from(sample.loss) - loss).abs() < 1e-5 * loss.max(1.0), "{} for {loss}", sample.loss);
            for class in 0..6 {
                let exact = f64::from(logits[class]).exp() / sum;
                let wanted = exact - if class == label { 1.0 } else { 0.0 };
                assert!((f64::from(error[class]) - wanted).abs() < 1e-6 && (f64::from(p[class]) - exact).abs() < 1e-6);
            }
            let rank = [3, 4, 1, 0, 5, 2][label];
            assert_eq!((sample.top1_error, sample.top5_error), (f32::from(rank >= 1), f32::from(rank >= 5)), "label {label}");
        }
    }

    #[test]
    fn a_number_that_is_not_one_is_never_right() {
        let sample = cross_entropy(&[f32::NAN; 3], 0, 0.0, &mut [0.0; 3], &mut [0.0; 3]);
        assert!(sample.loss.is_nan() && sample.top1_error == 1.0);
    }
}
