//! How a rule's step compares with back-propagation's, as numbers (`training.diagnostics`).
//!
//! Gradients are made by the very kernels that train, of all ranks' samples, each rank its part of the parameters. Sums are in float64 and in
//! one order, that of parameters and of samples, so the numbers have the same bits on any number of ranks where training has.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::compute::Activity;
use crate::compute::cpu::{Arena, CpuBackend};
use crate::exchange::{Exchange, Transport, UpdateExchange};
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
    /// Of the layer's inverse: `||g(f(h)) - h||^2 / ||h||^2`, both summed over the samples; without noise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstruction_error: Option<f64>,
    /// How different the targets of different samples are, in terms of how different their activities are: root of the mean squared distance
    /// between two targets over the same of activities. 1 where targets are as diverse, 0 where all samples have the same target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_diversity: Option<f64>,
}

/// Measures `comparisons` of the backend's batch, of which every rank has its part. Collective.
pub fn measure(backend: &mut CpuBackend, exchange: &mut Exchange, comparisons: &[Option<Comparison>]) -> Result<Vec<LayerDiagnostics>> {
    let transport = exchange.transport().clone();
    let transport = &*transport;
    let mut one = |comparison: &Comparison| {
        let [product, rule, backprop] = products(backend, exchange, transport, comparison)?;
        // This root of equals is exact: a gradient makes no angle with itself.
        let cosine = finite(product / (rule * backprop).sqrt());
        Ok(LayerDiagnostics {
            angle_degrees: cosine.map(|cosine| cosine.clamp(-1.0, 1.0).acos().to_degrees()),
            norm_ratio: finite((rule / backprop).sqrt()),
            reconstruction_error: comparison
                .reconstruction
                .and_then(|(result, original)| reconstruction_error(backend, transport, result, original)),
            target_diversity: comparison.target.and_then(|(target, activity)| {
                finite((variance(backend, transport, target) / variance(backend, transport, activity)).sqrt())
            }),
        })
    };
    comparisons.iter().map(|layer| layer.as_ref().map_or(Ok(LayerDiagnostics::default()), &mut one)).collect()
}

/// None of 0/0, and of what has overflowed.
fn finite(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

/// Inner products of two gradients of a map: of one with the other, and of each with itself.
fn products(backend: &mut CpuBackend, exchange: &mut Exchange, transport: &dyn Transport, comparison: &Comparison) -> Result<[f64; 3]> {
    // Mapped for one layer at a time: memory is taken where a gradient is written, and given back after the layer.
    let mut arena = |update| -> Result<Arena> {
        let arena = Arena::new(backend.parameters.first.len()).context("not enough memory for the gradients that are compared")?;
        exchange.gradients(backend, &[update], &arena)?;
        Ok(arena)
    };
    let gradients = [arena(comparison.rule)?, arena(comparison.backprop)?];
    let map = comparison.rule.map;
    let own = exchange.part(map, transport.rank());
    // By item, whose extent does not depend on the ranks.
    let longest = (0..transport.size()).map(|rank| exchange.part(map, rank).len()).max().unwrap_or(0);
    let sums: Vec<[AtomicU64; 3]> = (0..longest).map(|_| Default::default()).collect();
    let backend = &*backend;
    backend.pool.run(own.len(), |index| {
        let range = backend.item_elements(map, own.start + index..own.start + index + 1);
        // SAFETY: both arenas hold as many elements as the parameters, and were written before.
        let [ours, theirs] = [0, 1].map(|at| unsafe { std::slice::from_raw_parts(gradients[at].at(range.start), range.len()) });
        let mut item = [0.0f64; 3];
        for (ours, theirs) in ours.iter().zip(theirs) {
            let (ours, theirs) = (f64::from(*ours), f64::from(*theirs));
            item[0] += ours * theirs;
            item[1] += ours * ours;
            item[2] += theirs * theirs;
        }
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

/// What one position of an activity holds for all samples of this rank, `[sample][stride]`.
fn position(backend: &CpuBackend, activity: Activity, position: usize) -> &[f32] {
    let len = backend.batch() * backend.place(activity).stride;
    // SAFETY: an activity holds `len` elements for each position, and the backend is borrowed.
    unsafe { std::slice::from_raw_parts(backend.values_of(activity).add(position * len), len) }
}

fn reconstruction_error(backend: &CpuBackend, transport: &dyn Transport, result: Activity, original: Activity) -> Option<f64> {
    let (shape, strides) = (backend.place(original).shape, [result, original].map(|activity| backend.place(activity).stride));
    // Of each sample, squared distance and squared norm.
    let mut sums = vec![[0.0f64; 2]; backend.batch()];
    for at in 0..shape.positions() {
        let rows = position(backend, result, at).chunks(strides[0]).zip(position(backend, original, at).chunks(strides[1]));
        for (sums, (result, original)) in sums.iter_mut().zip(rows) {
            for (result, original) in result.iter().zip(original).take(shape.channels) {
                let (result, original) = (f64::from(*result), f64::from(*original));
                sums[0] += (result - original).powi(2);
                sums[1] += original.powi(2);
            }
        }
    }
    let own: Vec<u64> = sums.iter().flatten().map(|sum| sum.to_bits()).collect();
    let all = transport.all_gather_words(&own);
    let total = |which: usize| all.chunks_exact(2).map(|sample| f64::from_bits(sample[which])).sum::<f64>();
    finite(total(0) / total(1))
}

/// Of an activity over the samples of all ranks, summed over units: half the mean squared distance between two samples.
fn variance(backend: &CpuBackend, transport: &dyn Transport, activity: Activity) -> f64 {
    let slot = backend.place(activity);
    let mut all = vec![0.0f32; transport.size() * backend.batch() * slot.stride];
    let mut total = 0.0;
    for at in 0..slot.shape.positions() {
        // Ranks hold the samples in the order of the global batch.
        transport.all_gather(position(backend, activity, at), &mut all);
        for channel in 0..slot.shape.channels {
            let values = || all.chunks_exact(slot.stride).map(|sample| f64::from(sample[channel]));
            let samples = values().len() as f64;
            let mean = values().sum::<f64>() / samples;
            total += values().map(|value| (value - mean).powi(2)).sum::<f64>() / samples;
        }
    }
    total
}
