//! Gradients of the kernels against finite differences of losses in float64, on images that are not square.

use biodist::config::Config;

use crate::naive::{Naive, Parameters};
use crate::support::{Learner, Random, Samples, config};

/// Networks that have more inputs than a chunk of weight rows, more outputs than a strip of panels, channels that fill no vector and
/// channels that fill more than one.
const DENSE: &str = r#"network.layers=[{ kind = "dense", units = 100 }, { kind = "dense", units = 50 }]"#;
const LOCAL: &str = r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 2 }, { kind = "local", kernel = 2, channels = 18, stride = 1 }, { kind = "local", kernel = 4, channels = 3, stride = 3 }, { kind = "dense", units = 18 }]"#;
const CONV: &str = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5, stride = 2 }, { kind = "conv", kernel = 2, channels = 18, stride = 1 }, { kind = "conv", kernel = 4, channels = 3, stride = 3 }, { kind = "dense", units = 18 }]"#;
const POOLED: &str = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5, stride = 1 }, { kind = "max_pool", kernel = 3, stride = 2 }, { kind = "local", kernel = 2, channels = 18, stride = 1, nonlinearity = "relu" }, { kind = "average_pool", kernel = 2, stride = 2 }, { kind = "dense", units = 18 }]"#;
const POOL_FIRST: &str = r#"network.layers=[{ kind = "average_pool", kernel = 2, stride = 1 }, { kind = "max_pool", kernel = 2, stride = 1 }, { kind = "conv", kernel = 3, channels = 17, stride = 1 }, { kind = "average_pool", kernel = 10, stride = 10 }]"#;
/// Layers that are read by several, by a shortcut alone, and by both; a slope that comes from the sum with a shortcut.
const RESIDUAL: &str = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5, stride = 1 }, { kind = "conv", kernel = 3, channels = 5, stride = 1 }, { kind = "conv", kernel = 2, channels = 5, shortcut = 0, nonlinearity = "gelu" }, { kind = "conv", kernel = 1, channels = 6, stride = 2, nonlinearity = "leaky_relu" }, { kind = "local", kernel = 3, channels = 6, stride = 2, from = 2 }, { kind = "max_pool", kernel = 2, stride = 1, from = 4 }, { kind = "conv", kernel = 3, channels = 6, shortcut = 3 }, { kind = "dense", units = 18 }, { kind = "dense", units = 18, shortcut = 7, nonlinearity = "relu" }]"#;
const WIDE: [usize; 3] = [7, 10, 3];

const BETA1: f64 = 0.9;

/// Parameters of all tensors, with biases that are not zero.
fn parameters(learner: &mut Learner) -> Parameters {
    let mut random = Random::new(99);
    let mut parameters = Parameters::new();
    for (name, _, _) in learner.tensors() {
        let mut values = learner.read(&name);
        if name.ends_with("bias") {
            values.iter_mut().for_each(|value| *value = 0.2 * random.next() - 0.1);
            learner.write(&name, &values);
        }
        parameters.insert(name, values.into_iter().map(f64::from).collect());
    }
    parameters
}

/// Compares `gradient` of tensor `name` with central differences of `loss` at some of its elements.
fn check(name: &str, gradient: &[f64], parameters: &mut Parameters, mut loss: impl FnMut(&Parameters) -> f64) {
    // Short, for kinks of maxima and of relu are near somewhere.
    const STEP: f64 = 1e-7;
    let scale = gradient.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    assert!(scale > 0.0, "{name} has no gradient");
    let mut random = Random::new(gradient.len() as u64);
    for _ in 0..20.min(gradient.len()) {
        let at = random.below(gradient.len());
        let value = parameters[name][at];
        let mut shifted = |by: f64| {
            parameters.get_mut(name).expect("the tensor exists")[at] = value + by;
            loss(parameters)
        };
        let expected = (shifted(STEP) - shifted(-STEP)) / (2.0 * STEP);
        shifted(0.0);
        assert!(
            (gradient[at] - expected).abs() < 1e-5 * scale,
            "{name}[{at}]: gradient {}, difference quotient {expected}, largest gradient {scale}",
            gradient[at]
        );
    }
}

fn doubles(samples: &Samples, sample: usize) -> Vec<f64> {
    let units = samples.units();
    samples.pixels[sample * units..(sample + 1) * units].iter().map(|pixel| f64::from(*pixel)).collect()
}

fn first_step(config: &Config, samples: &Samples) -> (Learner, Parameters) {
    let mut learner = Learner::new(config, samples, 2);
    let parameters = parameters(&mut learner);
    learner.step();
    (learner, parameters)
}

#[test]
fn backprop_gives_the_gradient_of_the_loss() {
    let cases = [
        ("dense", [23, 23, 1], vec![DENSE]),
        ("local", WIDE, vec![LOCAL]),
        ("conv", WIDE, vec![CONV]),
        ("local autoencoder", WIDE, vec![LOCAL, "network.output=linear"]),
        ("conv autoencoder", WIDE, vec![CONV, "network.output=linear"]),
        ("pools", WIDE, vec![POOLED]),
        ("a pool below, and one of the whole image", WIDE, vec![POOL_FIRST]),
        ("shortcuts", WIDE, vec![RESIDUAL]),
        ("relu", WIDE, vec![CONV, "network.nonlinearity=relu"]),
        ("leaky_relu", WIDE, vec![LOCAL, "network.nonlinearity=leaky_relu"]),
        ("gelu", WIDE, vec![CONV, "network.nonlinearity=gelu"]),
        ("identity", WIDE, vec![LOCAL, "network.nonlinearity=identity"]),
    ];
    for (title, shape, overrides) in cases {
        let config = config("flat", &overrides);
        let samples = Samples::random(shape, 10, 11);
        let naive = Naive::new(shape, 10, &config.network);
        let (learner, mut parameters) = first_step(&config, &samples);
        let inputs: Vec<_> = (0..11).map(|sample| doubles(&samples, sample)).collect();
        let loss = |parameters: &Parameters| {
            let losses = inputs.iter().zip(&samples.labels).map(|(x, label)| naive.loss(parameters, x, *label as usize));
            losses.sum::<f64>() / 11.0
        };
        for (name, _, _) in learner.tensors() {
            check(&name, &learner.first_gradient(&name, BETA1), &mut parameters, loss);
        }
        println!("{title}: {} tensors", learner.tensors().len());
    }
}

#[test]
fn inverses_follow_the_gradient_of_their_loss() {
    let cases = [
        ([23, 23, 1], DENSE, "network.output=softmax"),
        (WIDE, LOCAL, "network.output=softmax"),
        (WIDE, LOCAL, "network.output=linear"),
        (WIDE, LOCAL, "network.nonlinearity=leaky_relu"),
        (WIDE, LOCAL, "network.nonlinearity=gelu"),
    ];
    for (shape, layers, more) in cases {
        let overrides = ["learning.rule=ao_sdtp", "learning.sigma=0", "optimizer.inverse.beta1=0.9", layers, more];
        let config = config("flat", &overrides);
        let samples = Samples::random(shape, 10, 11);
        let mut naive = Naive::new(shape, 10, &config.network);
        naive.auxiliary = true;
        let (learner, mut parameters) = first_step(&config, &samples);
        let activities: Vec<_> = (0..11).map(|sample| naive.activities(&parameters, &doubles(&samples, sample))).collect();
        for layer in 1..naive.depth() {
            for part in ["weight", "bias"] {
                let name = format!("layers.{layer}.inverse.{part}");
                check(&name, &learner.first_gradient(&name, BETA1), &mut parameters, |parameters| {
                    activities.iter().map(|h| naive.inverse_loss(parameters, h, layer)).sum::<f64>() / 11.0
                });
            }
        }
    }
}
