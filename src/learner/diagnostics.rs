//! How a rule's step compares with back-propagation's, as numbers (`training.diagnostics`).
//!
//! Gradients are made by the very kernels that train, of all ranks' samples, each rank its part of the parameters. Sums are in float64 and in
//! one order, that of parameters and of samples, so the numbers have the same bits on any number of ranks where training has.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::compute::cpu::{Arena, CpuBackend};
use crate::compute::{Activity, Backend, Update};
use crate::exchange::{Exchange, Transport};
use crate::rules::Comparison;

/// The diagnostics of one forward layer. Absent is what has no meaning there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct LayerDiagnostics {
    /// Between the rule's gradient of weights and biases and that of back-propagation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub angle_degrees: Option<f64>,
    /// Norm of the rule's gradient over the norm of back-propagation's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub norm_ratio: Option<f64>,
    /// Between the layer's weights and the feedback weights that stand for them on the way back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback_angle_degrees: Option<f64>,
    /// Of the layer's inverse: `||g(f(h)) - h||^2 / ||h||^2`, both summed over the samples; without noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstruction_error: Option<f64>,
    /// How different the targets of different samples are, in terms of how different their activities are: root of the mean squared distance
    /// between two targets over the same of activities. 1 where targets are as diverse, 0 where all samples have the same target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_diversity: Option<f64>,
}

/// A device, with the exchange among ranks, on which a rule and back-propagation have learned from a batch.
pub trait Compared {
    fn backend(&self) -> &dyn Backend;

    /// Inner products of two gradients of a map, over all ranks' samples: of one with the other, and of each with itself. Collective.
    fn products(&mut self, updates: [Update; 2]) -> Result<[f64; 3]>;
}

/// Measures `comparisons` of a batch of which every rank has as many samples. Collective.
pub fn measure(
    device: &mut dyn Compared,
    transport: &dyn Transport,
    samples: usize,
    comparisons: &[Comparison],
) -> Result<Vec<LayerDiagnostics>> {
    let mut one = |comparison: &Comparison| -> Result<LayerDiagnostics> {
        let inner = comparison.updates.map(|updates| device.products(updates)).transpose()?;
        let of = |activity: Activity| -> Result<Values> { Ok((device.backend().read_activity(activity)?, samples)) };
        let both = |(one, other): (Activity, Activity)| -> Result<_> { Ok((of(one)?, of(other)?)) };
        let (inverted, targets) = (comparison.reconstruction.map(both).transpose()?, comparison.target.map(both).transpose()?);
        Ok(LayerDiagnostics {
            angle_degrees: inner.and_then(angle),
            norm_ratio: inner.and_then(|[_, rule, backprop]| finite((rule / backprop).sqrt())),
            reconstruction_error: inverted.and_then(|(result, original)| reconstruction_error(transport, &result, &original)),
            // Of parameters, which the engine reads.
            feedback_angle_degrees: None,
            target_diversity: targets
                .and_then(|(target, activity)| finite((variance(transport, &target) / variance(transport, &activity)).sqrt())),
        })
    };
    comparisons.iter().map(&mut one).collect()
}

/// In degrees, from the [products] of two vectors; none where one of them is 0.
pub fn angle([product, ours, theirs]: [f64; 3]) -> Option<f64> {
    // This root of equals is exact: a vector makes no angle with itself.
    finite(product / (ours * theirs).sqrt()).map(|cosine| cosine.clamp(-1.0, 1.0).acos().to_degrees())
}

/// None of 0/0, and of what has overflowed.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Inner products of gradients that are made on a CPU, each rank its part: see [`Compared::products`].
pub fn products_on_cpu(
    backend: &mut CpuBackend,
    exchange: &mut Exchange,
    transport: &dyn Transport,
    updates: [Update; 2],
) -> Result<[f64; 3]> {
    // Mapped for one layer at a time: memory is taken where a gradient is written, and given back after the layer.
    let mut arena = |update| -> Result<Arena> {
        let arena = Arena::new(backend.parameters.first.len()).context("not enough memory for the gradients that are compared")?;
        exchange.gradients(backend, &[update], &arena)?;
        Ok(arena)
    };
    let [rule, backprop] = updates;
    let gradients = [arena(rule)?, arena(backprop)?];
    let map = rule.map;
    let own = exchange.part(map, transport.rank());
    // By item, whose extent does not depend on the ranks.
    let longest = (0..transport.size()).map(|rank| exchange.part(map, rank).len()).max().unwrap_or(0);
    let sums: Vec<[AtomicU64; 3]> = (0..longest).map(|_| Default::default()).collect();
    let backend = &*backend;
    backend.pool.run(own.len(), |index| {
        let range = backend.item_elements(map, own.start + index..own.start + index + 1);
        // SAFETY: both arenas hold as many elements as the parameters, and were written before.
        let [ours, theirs] = [0, 1].map(|at| unsafe { std::slice::from_raw_parts(gradients[at].at(range.start), range.len()) });
        let item = products(ours, theirs);
        for (sum, value) in sums[index].iter().zip(item) {
            sum.store(value.to_bits(), Relaxed);
        }
    });
    let own: Vec<u64> = sums.iter().flatten().map(|sum| sum.load(Relaxed)).collect();
    let all = transport.all_gather_words(&own);
    let mut total = [0.0; 3];
    for (rank, items) in all.chunks(own.len().max(1)).enumerate() {
        for item in items.chunks_exact(3).take(exchange.part(map, rank).len()) {
            for (total, bits) in total.iter_mut().zip(item) {
                *total += f64::from_bits(*bits);
            }
        }
    }
    Ok(total)
}

/// Inner products of two vectors: of one with the other, and of each with itself.
pub fn products(ours: &[f32], theirs: &[f32]) -> [f64; 3] {
    let mut products = [0.0f64; 3];
    for (ours, theirs) in ours.iter().zip(theirs) {
        let (ours, theirs) = (f64::from(*ours), f64::from(*theirs));
        products[0] += ours * theirs;
        products[1] += ours * ours;
        products[2] += theirs * theirs;
    }
    products
}

/// An activity's values, [sample][unit], and its samples.
type Values = (Vec<f32>, usize);

fn reconstruction_error(transport: &dyn Transport, (result, samples): &Values, (original, _): &Values) -> Option<f64> {
    // Of each sample, squared distance and squared norm.
    let mut sums = vec![[0.0f64; 2]; *samples];
    let units = original.len() / samples;
    for (sums, (result, original)) in sums.iter_mut().zip(result.chunks(units).zip(original.chunks(units))) {
        for (result, original) in result.iter().zip(original) {
            let (result, original) = (f64::from(*result), f64::from(*original));
            sums[0] += (result - original).powi(2);
            sums[1] += original.powi(2);
        }
    }
    let own: Vec<u64> = sums.iter().flatten().map(|sum| sum.to_bits()).collect();
    let all = transport.all_gather_words(&own);
    let total = |which: usize| all.chunks_exact(2).map(|sample| f64::from_bits(sample[which])).sum::<f64>();
    finite(total(0) / total(1))
}

/// Of an activity over the samples of all ranks, summed over units: half the mean squared distance between two samples.
fn variance(transport: &dyn Transport, (values, samples): &Values) -> f64 {
    // Units that ranks bring together at a time.
    const PIECE: usize = 1024;
    let units = values.len() / samples;
    let mut total = 0.0;
    for first in (0..units).step_by(PIECE) {
        let wide = PIECE.min(units - first);
        let own: Vec<f32> = values.chunks(units).flat_map(|sample| &sample[first..first + wide]).copied().collect();
        // Ranks hold the samples in the order of the global batch.
        let all = transport.all_of(&own);
        for unit in 0..wide {
            let values = || all.chunks_exact(wide).map(|sample| f64::from(sample[unit]));
            let samples = values().len() as f64;
            let mean = values().sum::<f64>() / samples;
            total += values().map(|value| (value - mean).powi(2)).sum::<f64>() / samples;
        }
    }
    total
}
