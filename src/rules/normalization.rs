//! Batch normalisation (Ioffe & Szegedy 2015) of what a layer's weights yield, with statistics of the global batch.
//!
//! Each channel of `a` becomes `y = scale x + shift` with `x = (a - mean) / sqrt(variance + 1e-5)`, mean and variance being those of all
//! positions and samples of all ranks. A rank adds up each sample by itself; ranks gather these sums and add them up in the order of samples,
//! in float64, so the bits do not depend on ranks. Evaluations take running statistics, which learn too: by SGD on their distance from the
//! batch's, so that they are saved, shared and resumed as all parameters are. Gradients pass through the statistics of the batch.

use std::cell::RefCell;

use super::Step;
use crate::compute::{Activity, Backend, Buffer, Part, Update};
use crate::network::{Layer, MapId, Shape};

/// What keeps a channel that is the same everywhere from being divided by 0.
const EPSILON: f64 = 1e-5;

#[derive(Clone)]
pub struct Normalization {
    /// Scale and shift of each channel, then its running mean and variance: one vector each.
    affine: MapId,
    statistics: MapId,
    channels: usize,
    positions: usize,
    /// What the weights yield.
    sums: Activity,
    /// 1: the presynaptic factor of both maps.
    one: Activity,
    /// Of each sample, over its positions: sums of squares and values on the way up, of products with x and values of the error on the way down.
    moments: Activity,
    products: Activity,
    /// Running statistics less the batch's.
    drift: Activity,
    /// Error of `sums`.
    error: Activity,
    /// Mean and `1 / sqrt(variance + 1e-5)` that x was made by, and the scale.
    made_by: RefCell<[Vec<f32>; 3]>,
}

impl Normalization {
    pub fn new([affine, statistics]: [MapId; 2], layer: &Layer, backend: &mut dyn Backend) -> Normalization {
        let Shape { channels, .. } = layer.output;
        let [sums, error] = [(); 2].map(|()| backend.activity(layer.output));
        let [moments, products, drift] = [(); 3].map(|()| backend.activity(Shape::flat(2 * channels)));
        let one = backend.activity(Shape::flat(1));
        let positions = layer.output.positions();
        Normalization { affine, statistics, channels, positions, sums, one, moments, products, drift, error, made_by: RefCell::default() }
    }

    /// Where the layer's weights put their result.
    pub fn sums(&self) -> Activity {
        self.sums
    }

    /// Where [`Normalization::through`] puts its result.
    pub fn error(&self) -> Activity {
        self.error
    }

    /// Normalises the batch by running statistics.
    pub fn evaluate(&self, backend: &mut dyn Backend, destination: Activity) {
        let [mean, variance] = halves(&backend.read_parameter(self.statistics, Part::Weight, Buffer::Weights));
        self.normalize(backend, &mean, &variance, destination);
    }

    /// Normalises the batch by its own statistics, of which the running ones learn. Collective.
    pub fn train(&self, step: &mut dyn Step, destination: Activity) {
        let backend = step.backend();
        let [mean, variance] = halves(&backend.read_parameter(self.statistics, Part::Weight, Buffer::Weights));
        backend.fill(self.one, &[1.0]);
        // Round the running mean, so that little is lost where squares are taken from each other.
        backend.channel_sums(self.sums, &mean, None, self.moments);
        let ([squares, values], count) = self.totals(step, self.moments);
        let means = values.iter().zip(&mean).map(|(sum, mean)| (f64::from(*mean) + sum / count) as f32).collect::<Vec<_>>();
        let variances = squares.iter().zip(&values).map(|(squares, sum)| (squares / count - (sum / count).powi(2)).max(0.0));
        let variances: Vec<f32> = variances.map(|variance| variance as f32).collect();
        let unbiased = (count / (count - 1.0).max(1.0)) as f32;
        let drifts = mean.iter().zip(&means).map(|(running, own)| running - own);
        let drifts = drifts.chain(variance.iter().zip(&variances).map(|(running, own)| running - own * unbiased));
        let backend = step.backend();
        backend.fill(self.drift, &drifts.collect::<Vec<_>>());
        self.normalize(backend, &means, &variances, destination);
        step.update(Update { map: self.statistics, pre: self.one, post: self.drift });
    }

    fn normalize(&self, backend: &mut dyn Backend, mean: &[f32], variance: &[f32], destination: Activity) {
        let inverse = |variance: &f32| (1.0 / (f64::from(*variance) + EPSILON).sqrt()) as f32;
        let inverses: Vec<f32> = variance.iter().map(inverse).collect();
        let [scale, shift] = halves(&backend.read_parameter(self.affine, Part::Weight, Buffer::Weights));
        backend.map_channels(self.sums, mean, &products(&scale, &inverses), &shift, destination);
        self.made_by.replace([mean.to_vec(), inverses, scale]);
    }

    /// From the error of y to that of what the weights yield, through the statistics: the scale and the shift learn. Collective.
    pub fn through(&self, step: &mut dyn Step, delta: Activity) -> Activity {
        let made_by = self.made_by.borrow();
        let [mean, inverses, scale] = &*made_by;
        step.backend().channel_sums(delta, &vec![0.0; self.channels], Some((self.sums, [mean, inverses])), self.products);
        step.update(Update { map: self.affine, pre: self.one, post: self.products });
        let (totals, count) = self.totals(step, self.products);
        let [with_x, alone] = totals.map(|sums| sums.iter().map(|sum| (sum / count) as f32).collect::<Vec<_>>());
        let of_channels = [&products(scale, inverses)[..], &alone, mean, &products(&with_x, inverses)];
        step.backend().through_channels(delta, self.sums, of_channels, self.error);
        self.error
    }

    /// Both vectors of `part` summed over the samples of all ranks, and how many numbers of a channel that is.
    fn totals(&self, step: &mut dyn Step, part: Activity) -> ([Vec<f64>; 2], f64) {
        let all = step.gather(part);
        let mut totals = vec![0.0; 2 * self.channels];
        for sample in all.chunks_exact(2 * self.channels) {
            totals.iter_mut().zip(sample).for_each(|(total, value)| *total += f64::from(*value));
        }
        let second = totals.split_off(self.channels);
        ([totals, second], (all.len() / (2 * self.channels) * self.positions) as f64)
    }
}

/// The two vectors of a map.
fn halves(values: &[f32]) -> [Vec<f32>; 2] {
    let (first, second) = values.split_at(values.len() / 2);
    [first.to_vec(), second.to_vec()]
}

fn products(a: &[f32], b: &[f32]) -> Vec<f32> {
    a.iter().zip(b).map(|(a, b)| a * b).collect()
}
