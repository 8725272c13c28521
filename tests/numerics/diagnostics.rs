//! Diagnostics: against gradients that training itself leaves in Adam's moments, against float64, and without a trace in what is trained.

use biodist::compute::Batch;
use biodist::config::{Config, Output};
use biodist::learner::LayerDiagnostics;
use biodist::rules::definitions;

use crate::naive::{Naive, Parameters};
use crate::support::{Learner, Samples, config, distance, kernels, norm};

const ON: &str = "training.diagnostics=true";
const BETA1: f64 = 0.9;

fn samples(name: &str) -> Samples {
    let shape = if name.starts_with("dense") || name == "flat" { [23, 1, 1] } else { [7, 9, 3] };
    Samples::random(shape, 7, 11)
}

/// On the CPU's kernels, and on those for GPUs.
fn on_both(config: &Config, samples: &Samples) -> [(&'static str, Learner); 2] {
    [("cpu", Learner::new(config, samples, 2)), ("cuda", Learner::on_own_gpu(config, samples))]
}

/// Of the first batch, at the learner's step.
fn diagnose(learner: &mut Learner) -> Vec<LayerDiagnostics> {
    let count = learner.samples.labels.len();
    let samples = learner.samples.clone();
    let batch = Batch { pixels: (&samples.pixels).into(), labels: &samples.labels, samples: count, first: 0, step: learner.step };
    learner.engine.diagnose(&batch).expect("diagnostics can be measured")
}

#[test]
fn backprop_is_what_it_is_compared_with() {
    for network in ["dense", "local", "conv", "pools", "residual", "normalized", "dense_autoencoder"] {
        let plain = config(network, &[ON]);
        let of_cpu = |kernels: &'static str| {
            (kernels, Learner::new(&config(network, &[ON, &format!("parallel.kernels=\"{kernels}\"")]), &samples(network), 2))
        };
        let of_gpu = ("cuda", Learner::on_own_gpu(&plain, &samples(network)));
        for (kernels, mut learner) in kernels().into_iter().map(of_cpu).chain([of_gpu]) {
            let (config, layers) = (&plain, diagnose(&mut learner));
            let same = LayerDiagnostics { angle_degrees: Some(0.0), norm_ratio: Some(1.0), ..Default::default() };
            let pool = |layer: usize| config.network.layers.get(layer).is_some_and(|layer| layer.kind().ends_with("_pool"));
            for (layer, found) in layers.iter().enumerate() {
                // Without a gradient there is nothing to compare.
                assert_eq!(*found, if pool(layer) { LayerDiagnostics::default() } else { same }, "{network}, {kernels}, layer {layer}");
            }
            assert_eq!(layers.len(), config.network.layers.len() + 1);
        }
    }
}

#[test]
fn feedback_makes_the_angle_that_its_weights_make() {
    for network in ["dense", "local", "conv"] {
        let samples = samples(network);
        for rule in ["fa", "kp", "usf", "dfa", "dtp"] {
            for (device, mut learner) in
                on_both(&config(network, &[&format!("learning.rule={rule}"), "training.diagnostics=true"]), &samples)
            {
                let of_layer = |layer: usize| format!("layers.{layer}.weight");
                let depth = learner.engine.maps().forward.len();
                let begun: Vec<Vec<f32>> = (0..depth).map(|layer| learner.read(&of_layer(layer))).collect();
                learner.steps(2);
                let layers = diagnose(&mut learner);
                for (layer, found) in layers.iter().enumerate() {
                    let feedback = format!("layers.{layer}.feedback.weight");
                    let has = learner.tensors().iter().any(|(name, ..)| *name == feedback);
                    assert_eq!(found.feedback_angle_degrees.is_some(), has, "{device}, {network}, {rule}, layer {layer}");
                    let Some(angle) = found.feedback_angle_degrees else { continue };
                    // What reads padding alone stays as it was drawn: all weights of a place in a window of the local layers.
                    let now = learner.read(&of_layer(layer));
                    let of_place = if network == "local" { [0, 5 * 6, 6 * 3, now.len(), now.len()][layer] } else { now.len() };
                    let places = now.chunks(of_place).zip(begun[layer].chunks(of_place));
                    let linked: Vec<bool> = places.flat_map(|(now, then)| vec![now != then; now.len()]).collect();
                    let [weights, feedback] = [of_layer(layer), feedback].map(|name| {
                        let values = learner.read(&name).into_iter().zip(&linked).filter(|(_, linked)| **linked);
                        let values: Vec<f64> = values.map(|(value, _)| f64::from(value)).collect();
                        let norm = values.iter().map(|value| value * value).sum::<f64>().sqrt();
                        values.into_iter().map(move |value| value / norm).collect::<Vec<f64>>()
                    });
                    // By the chord between the two directions.
                    let chord = distance(&weights, &feedback);
                    let expected = 2.0 * (chord / 2.0).asin().to_degrees();
                    assert!((angle - expected).abs() < 1e-4, "{device}, {network}, {rule}, layer {layer}: {angle}, {expected}");
                }
            }
        }
    }
}

#[test]
fn hybrid_targets_give_twice_the_gradient() {
    for network in ["dense", "local", "dense_autoencoder", "strides"] {
        let settings = [ON, "learning.rule=\"dtp\"", "learning.hybrid=1", "learning.alpha=1"];
        for (device, mut learner) in on_both(&config(network, &settings), &samples(network)) {
            let layers = diagnose(&mut learner);
            let (top, hidden) = layers.split_last().unwrap();
            for (layer, found) in hidden.iter().enumerate() {
                assert!(found.angle_degrees.unwrap() < 0.01, "{device}, {network}, layer {layer}: {found:?}");
                assert!((found.norm_ratio.unwrap() - 2.0).abs() < 1e-4, "{device}, {network}, layer {layer}: {found:?}");
            }
            assert_eq!((top.angle_degrees, top.norm_ratio, top.target_diversity), (Some(0.0), Some(1.0), None), "{device}, {network}");
        }
    }
}

/// Weights and biases of a layer, as one vector.
fn gradient(learner: &Learner, layer: usize) -> Vec<f64> {
    let name = |part: &str| format!("layers.{layer}.{part}");
    let own = learner.tensors().into_iter().filter(|(tensor, ..)| ["weight", "bias"].map(name).contains(tensor));
    own.flat_map(|(tensor, ..)| learner.first_gradient(&tensor, BETA1)).collect()
}

#[test]
fn angles_and_ratios_are_those_of_the_gradients_that_train() {
    for network in ["dense", "local", "normalized"] {
        let samples = samples(network);
        let mut backprop = Learner::new(&config(network, &[]), &samples, 2);
        backprop.step();
        for definition in definitions().filter(|rule| rule.name != "bp" && (network != "normalized" || rule.residual)) {
            let rule = definition.name;
            let mut learner = Learner::new(&config(network, &[ON, &format!("learning.rule=\"{rule}\"")]), &samples, 2);
            let layers = diagnose(&mut learner);
            learner.step();
            let mut largest = 0.0f64;
            for (layer, found) in layers.iter().enumerate() {
                let (ours, theirs) = (gradient(&learner, layer), gradient(&backprop, layer));
                let (our_norm, their_norm) = (norm(ours.iter().copied()), norm(theirs.iter().copied()));
                // By the law of cosines, from the distance of the two directions.
                let directions = |values: &[f64], norm: f64| values.iter().map(|value| value / norm).collect::<Vec<_>>();
                let apart = distance(&directions(&ours, our_norm), &directions(&theirs, their_norm));
                let angle = 2.0 * (apart / 2.0).asin().to_degrees();
                assert!((found.angle_degrees.unwrap() - angle).abs() < 1e-3, "{network}, {rule}, layer {layer}: {found:?}, {angle}");
                assert!(
                    (found.norm_ratio.unwrap() * their_norm / our_norm - 1.0).abs() < 1e-5,
                    "{network}, {rule}, layer {layer}: {found:?}"
                );
                largest = largest.max(angle);
            }
            assert!(largest > 5.0, "{network}, {rule}: all angles are near 0");
        }
    }
}

#[test]
fn reconstruction_errors_and_target_diversity_are_those_of_float64() {
    for (network, rule) in [
        ("dense", "dtp"),
        ("dense", "sdtp"),
        ("dense", "ao_sdtp"),
        ("dense", "l_drl"),
        ("local", "dtp"),
        ("local", "sdtp"),
        ("local", "l_drl"),
        ("conv", "sdtp"),
        ("pools", "dtp"),
        ("pools", "l_drl"),
        ("dense_autoencoder", "sdtp"),
    ] {
        let samples = samples(network);
        let config = config(network, &[ON, &format!("learning.rule=\"{rule}\"")]);
        for (device, learner) in on_both(&config, &samples) {
            errors_and_diversity(network, rule, device, &samples, &config, learner);
        }
    }
}

fn errors_and_diversity(network: &str, rule: &str, device: &str, samples: &Samples, config: &Config, mut learner: Learner) {
    let tolerance = if device == "cpu" { 1e-5 } else { 1e-4 };
    let layers = diagnose(&mut learner);
    let mut naive = Naive::new(samples.shape, samples.classes, &config.network);
    naive.auxiliary = rule == "ao_sdtp";
    // To l_drl the output is what softmax is made of.
    naive.inverts_softmax &= rule != "l_drl";
    let parameters: Parameters = learner
        .tensors()
        .into_iter()
        .map(|(name, _, _)| (name.clone(), learner.read(&name).into_iter().map(f64::from).collect()))
        .collect();
    let units = samples.units();
    let activities: Vec<Vec<Vec<f64>>> = samples
        .pixels
        .chunks(units)
        .map(|pixels| naive.activities(&parameters, &pixels.iter().map(|pixel| f64::from(*pixel)).collect::<Vec<_>>()))
        .collect();
    for (layer, found) in layers.iter().enumerate() {
        let has_inverse = layer > 0 && (rule != "dtp" || layer + 1 < naive.depth());
        let expected = has_inverse.then(|| {
            let distance: f64 = activities.iter().map(|h| naive.inverse_loss(&parameters, h, layer)).sum();
            distance / activities.iter().flat_map(|h| &h[layer]).map(|h| h * h).sum::<f64>()
        });
        let close = match (found.reconstruction_error, expected) {
            (Some(found), Some(expected)) => (found / expected - 1.0).abs() < tolerance,
            (found, expected) => found == expected,
        };
        assert!(close, "{device}, {network}, {rule}, layer {layer}: {found:?}, {expected:?}");
        assert_eq!(found.target_diversity.is_some(), layer + 1 < naive.depth(), "{network}, {rule}, layer {layer}");
    }
    if rule == "dtp" && config.network.output == Output::Softmax {
        let expected = top_target_diversity(&activities, &parameters, samples, config.learning.alpha.unwrap());
        let found = layers[naive.depth() - 2].target_diversity.unwrap();
        assert!((found / expected - 1.0).abs() < tolerance, "{device}, {network}: {found}, {expected}");
    }
}

/// Of the targets `h - alpha W^T (p - y)` and the activities h of the layer below the output: by all pairs of samples.
fn top_target_diversity(activities: &[Vec<Vec<f64>>], parameters: &Parameters, samples: &Samples, alpha: f64) -> f64 {
    let depth = activities[0].len() - 1;
    let weight = &parameters[&format!("layers.{}.weight", depth - 1)];
    let target = |(h, label): (&Vec<Vec<f64>>, &u32)| {
        let sum: f64 = h[depth].iter().map(|a| a.exp()).sum();
        let error: Vec<f64> = h[depth].iter().enumerate().map(|(unit, a)| a.exp() / sum - f64::from(unit as u32 == *label)).collect();
        let below = &h[depth - 1];
        let back = |unit: usize| error.iter().enumerate().map(|(out, error)| weight[out * below.len() + unit] * error).sum::<f64>();
        below.iter().enumerate().map(|(unit, h)| h - alpha * back(unit)).collect::<Vec<f64>>()
    };
    let targets: Vec<Vec<f64>> = activities.iter().zip(&samples.labels).map(target).collect();
    let hidden: Vec<Vec<f64>> = activities.iter().map(|h| h[depth - 1].clone()).collect();
    let pairs = |vectors: &[Vec<f64>]| {
        let squared = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        vectors.iter().flat_map(|a| vectors.iter().map(move |b| squared(a, b))).sum::<f64>()
    };
    (pairs(&targets) / pairs(&hidden)).sqrt()
}

#[test]
fn nothing_that_trains_is_disturbed() {
    for (network, rule) in [("dense", "ao_sdtp"), ("local", "dtp"), ("dense", "fa")] {
        let rule = format!("learning.rule=\"{rule}\"");
        let samples = samples(network);
        let plain = on_both(&config(network, &[&rule]), &samples).map(|(_, mut learner)| learner.bits_after(4));
        for ((device, mut learner), plain) in on_both(&config(network, &[&rule, ON]), &samples).into_iter().zip(plain) {
            let mut bits = Vec::new();
            for _ in 0..4 {
                let first = diagnose(&mut learner);
                assert_eq!(first, diagnose(&mut learner), "twice the same");
                bits.extend(learner.step().map(f64::to_bits));
            }
            bits.push(learner.engine.checksum());
            assert_eq!(bits, plain, "{device}, {network}, {rule}");
        }
    }
}
