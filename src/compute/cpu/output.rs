//! The output layer's nonlinearity, loss, error, and error rates: a few numbers a sample, in plain code.

use super::elementwise::Values;
use super::{CpuBackend, Slot};
use crate::compute::{Activity, Backend, Measure};
use crate::network::Output;
use crate::observe::Doing;

impl CpuBackend {
    pub(super) fn give_wanted_output(&self, destination: Activity) {
        let (to, input) = (self.place(destination), self.place(self.input()));
        let (values, from) = (self.values(destination), self.values(self.input()));
        for sample in 0..self.batch {
            // SAFETY: the values are this slot's, and the backend is borrowed by this alone.
            let row = unsafe { self.dense_row(values, to, sample) };
            match self.output {
                Output::Softmax => {
                    row.fill(self.label_smoothing / row.len() as f32);
                    row[self.labels[sample] as usize] += 1.0 - self.label_smoothing;
                }
                Output::Linear => {
                    for (position, channels) in row.chunks_exact_mut(input.shape.channels).enumerate() {
                        let at = (position * self.batch + sample) * input.stride;
                        // SAFETY: the input has so many channels at each position of a sample.
                        channels.copy_from_slice(unsafe { std::slice::from_raw_parts(from.at(at), input.shape.channels) });
                    }
                }
            }
        }
    }

    pub(super) fn give_output_and_error(&mut self, pre_activation: Activity, output: Activity, error: Activity) {
        let slot = self.place(pre_activation);
        let (logits, p, delta) = (self.values(pre_activation), self.values(output), self.values(error));
        let [loss, top1, top5] = [Measure::Loss, Measure::Top1Error, Measure::Top5Error].map(|measure| self.measured(measure));
        self.timed((Doing::Output, None), 0.0, 12 * self.elements(pre_activation), |this| {
            if this.output == Output::Linear {
                // The error's own memory holds the wanted output until it is read.
                this.give_wanted_output(error);
            }
            this.by_sample(pre_activation, |samples| {
                for sample in samples.begin..samples.end {
                    // SAFETY: three activities of one shape, and this thread alone has the sample.
                    let [logits, p, delta] = [logits, p, delta].map(|values| unsafe { this.dense_row(values, slot, sample) });
                    let measured = match this.output {
                        Output::Softmax => cross_entropy(logits, this.labels[sample] as usize, this.label_smoothing, p, delta),
                        Output::Linear => {
                            p.copy_from_slice(logits);
                            let wanted = delta.to_vec();
                            squared_error(logits, &wanted, delta)
                        }
                    };
                    // SAFETY: measures have an element a sample.
                    unsafe {
                        *loss.at(sample) = measured.loss;
                        *top1.at(sample) = measured.top1_error;
                        *top5.at(sample) = measured.top5_error;
                    }
                }
            });
        });
    }

    pub(super) fn give_output(&mut self, pre_activation: Activity, output: Activity) {
        let slot = self.place(pre_activation);
        let (logits, p) = (self.values(pre_activation), self.values(output));
        self.timed((Doing::Output, None), 0.0, 8 * self.elements(pre_activation), |this| {
            this.by_sample(pre_activation, |samples| {
                for sample in samples.begin..samples.end {
                    // SAFETY: two activities of one shape, and this thread alone has the sample.
                    let [logits, p] = [logits, p].map(|values| unsafe { this.dense_row(values, slot, sample) });
                    match this.output {
                        Output::Softmax => drop(softmax(logits, p)),
                        Output::Linear => p.copy_from_slice(logits),
                    }
                }
            });
        });
    }

    /// Sample `sample` of a dense activity.
    ///
    /// # Safety
    /// `values` are those of `slot`, and nobody else has this row as long as this is used.
    pub(super) unsafe fn dense_row<'a>(&self, values: Values, slot: Slot, sample: usize) -> &'a mut [f32] {
        debug_assert_eq!(slot.shape.positions(), 1);
        // SAFETY: the caller promises that the values are the slot's and that nobody else has the row.
        unsafe { std::slice::from_raw_parts_mut(values.at(sample * slot.stride), slot.shape.channels) }
    }
}

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
fn squared_error(h: &[f32], wanted: &[f32], error: &mut [f32]) -> Sample {
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
