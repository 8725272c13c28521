//! Initial parameters: Glorot's bound, a uniform distribution, and draws that have nothing to do with each other.

use crate::support::{Learner, Samples, config};

const LAYERS: &str = r#"network.layers=[{ kind = "local", kernel = 3, channels = 8, stride = 2 }, { kind = "local", kernel = 3, channels = 8, stride = 1 }, { kind = "local", kernel = 3, channels = 8, stride = 1 }, { kind = "dense", units = 40 }, { kind = "dense", units = 40 }]"#;

fn learner(overrides: &[&str]) -> Learner {
    let overrides = [&[LAYERS], overrides].concat();
    Learner::new(&config("flat", &overrides), &Samples::random([9, 9, 8], 10, 11), 2)
}

/// sqrt(6 / (fan_in + fan_out)) of the weights in the networks below.
fn bound(name: &str) -> f64 {
    let fans = match name.trim_start_matches("layers.") {
        name if name.starts_with(['0', '1', '2']) && name.contains("direct") => 5 * 5 * 8 + 10,
        name if name.starts_with(['0', '1', '2']) => 9 * 8 + 9 * 8,
        name if name.starts_with('3') && name.contains("direct") => 40 + 10,
        name if name.starts_with('3') => 200 + 40,
        "4.direct_feedback.weight" => 40 + 10,
        name if name.starts_with('4') => 40 + 40,
        // ao_sdtp's inverse of the output has 9 auxiliary inputs beside 10 classes.
        "5.inverse.weight" => 19 + 40,
        name if name.starts_with('5') => 40 + 10,
        "auxiliary.weight" => 40 + 9,
        name => panic!("{name} is unknown"),
    };
    (6.0 / fans as f64).sqrt()
}

fn weights(learner: &Learner) -> Vec<(String, Vec<f64>)> {
    let mut all = Vec::new();
    for (name, _, _) in learner.tensors() {
        let values: Vec<f64> = learner.read(&name).into_iter().map(f64::from).collect();
        if name.ends_with("bias") {
            assert!(values.iter().all(|value| *value == 0.0), "{name} is zero at first");
        } else {
            all.push((name, values));
        }
    }
    all
}

#[test]
fn gains_multiply_the_draws_of_their_kind_alone() {
    let gains = ["learning.forward_gain=2", "learning.feedback_gain=0.5", "learning.inverse_gain=4"];
    for rule in ["fa", "usf", "dfa", "ao_sdtp", "pepita"].map(|rule| format!("learning.rule={rule}")) {
        let plain = weights(&learner(&[&rule]));
        let gained = weights(&learner(&[&[rule.as_str()], &gains[..]].concat()));
        for ((name, plain), (_, gained)) in plain.iter().zip(&gained) {
            let gain = match name.as_str() {
                name if name.contains("inverse") => 4.0,
                // pepita has a key of its own for what its errors are multiplied with.
                "auxiliary.weight" | "input_feedback.weight" => 1.0,
                name if name.contains("feedback") => 0.5,
                _ => 2.0,
            };
            // Of powers of two to the last bit.
            assert!(plain.iter().zip(gained).all(|(plain, gained)| *gained == gain * plain), "{rule}: {name}");
        }
    }
}

#[test]
fn weights_are_uniform_within_their_bound() {
    for rule in ["fa", "dfa", "ao_sdtp"] {
        for (name, values) in weights(&learner(&[&format!("learning.rule={rule}")])) {
            let (n, bound) = (values.len() as f64, bound(&name));
            let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
            // The largest of n uniform numbers misses the bound by more than 12 / n once in e^12 times.
            assert!(largest <= bound * (1.0 + 1e-6) && largest > bound * (1.0 - 12.0 / n), "{name}: {largest} for {bound}");
            // The largest difference from a uniform cumulative distribution (Kolmogorov and Smirnov): 2.3 / sqrt(n) once in 20,000 times.
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let difference = sorted
                .iter()
                .enumerate()
                .map(|(rank, value)| ((value / bound + 1.0) / 2.0 - (rank as f64 + 0.5) / n).abs())
                .fold(0.0, f64::max);
            assert!(difference < 2.3 / n.sqrt(), "{name}: {difference} from a uniform distribution");
        }
    }
}

/// Pearson's correlation of as many numbers as both have.
fn correlation(a: &[f64], b: &[f64]) -> (f64, f64) {
    let n = a.len().min(b.len());
    let sum = |x: &[f64], y: &[f64]| x[..n].iter().zip(y).map(|(x, y)| x * y).sum::<f64>();
    (sum(a, b) / (sum(a, a) * sum(b, b)).sqrt(), n as f64)
}

#[test]
fn every_map_and_every_seed_has_draws_of_its_own() {
    let all = |overrides: &[&str]| weights(&learner(overrides));
    for rule in ["learning.rule=fa", "learning.rule=dfa", "learning.rule=ao_sdtp"] {
        let drawn = all(&[rule]);
        let other = all(&[rule, "experiment.seed=1"]);
        let high = all(&[rule, "experiment.seed=4294967297"]);
        for (at, (name, values)) in drawn.iter().enumerate() {
            let others = drawn[..at].iter().map(|(other, values)| (other.as_str(), values));
            let seeds = [("seed 1", &other[at].1), ("seed 2^32 + 1", &high[at].1)];
            for (title, others) in others.chain(seeds) {
                let (found, n) = correlation(values, others);
                assert!(found.abs() < 5.0 / n.sqrt(), "{rule}: {name} correlates with {title}: {found}");
            }
            let (found, n) = correlation(values, &values[1..]);
            assert!(found.abs() < 5.0 / n.sqrt(), "{rule}: {name} correlates with itself, shifted: {found}");
            assert!(other[at].1 != high[at].1, "{name}: both words of the seed count");
        }
        assert!(drawn == all(&[rule]), "a seed gives the same numbers again");
        let portable = all(&[rule, "parallel.kernels=portable"]);
        assert!(drawn == portable, "a seed gives the same numbers on any processor");
    }
}

#[test]
fn feedback_weights_may_be_the_initial_weights_transposed() {
    let mut transposed = learner(&["learning.rule=fa", "learning.feedback_weights=transposed"]);
    let random = learner(&["learning.rule=fa"]);
    for layer in 1..6 {
        let (weight, feedback) = (format!("layers.{layer}.weight"), format!("layers.{layer}.feedback.weight"));
        assert!(transposed.read(&feedback) == transposed.read(&weight), "{feedback}");
        assert!(random.read(&feedback) != random.read(&weight) && random.read(&weight) == transposed.read(&weight), "{feedback}");
    }
    // Until the weights have moved that is back-propagation.
    let mut exact = learner(&["learning.rule=bp"]);
    exact.step();
    transposed.step();
    for layer in 0..6 {
        let name = format!("layers.{layer}.weight");
        let (wanted, found) = (exact.first_gradient(&name, 0.9), transposed.first_gradient(&name, 0.9));
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>().sqrt();
        let away = norm(&mut wanted.iter().zip(&found).map(|(wanted, found)| found - wanted)) / norm(&mut wanted.iter().copied());
        assert!(away < 1e-5, "{name}: {away}");
    }
}

#[test]
fn inverses_may_begin_as_the_initial_weights_transposed() {
    inverses_begin_transposed(LAYERS, 25);
    inverses_begin_transposed(&LAYERS.replace("local", "conv"), 1);
}

/// `places` have weights of their own in the layers with kernels.
fn inverses_begin_transposed(layers: &str, places: usize) {
    let transposed = learner(&[layers, "learning.rule=ao_sdtp", "learning.inverse_weights=transposed"]);
    let random = learner(&[layers, "learning.rule=ao_sdtp"]);
    for layer in 1..6 {
        let [weight, inverse] = [format!("layers.{layer}.weight"), format!("layers.{layer}.inverse.weight")];
        let (weights, found, drawn) = (transposed.read(&weight), transposed.read(&inverse), random.read(&inverse));
        assert!(random.read(&weight) == weights && drawn != found, "{inverse}");
        if layer < 3 {
            // [5, 5, 3, 3, 8, 8] and the same, or [3, 3, 8, 8]: places, then kernel and channels, of which the last are the output's and become the first.
            for place in 0..places {
                for ((tap, from), to) in
                    (0..9).flat_map(|tap| (0..8).map(move |from| (tap, from))).flat_map(|at| (0..8).map(move |to| (at, to)))
                {
                    let forward = weights[((place * 9 + tap) * 8 + from) * 8 + to];
                    assert_eq!(found[((place * 8 + to) * 9 + tap) * 8 + from], forward, "{inverse}");
                }
            }
            continue;
        }
        let (outputs, inputs) = [(40, 200), (40, 40), (10, 40)][layer - 3];
        let wide = if layer == 5 { 10 + 9 } else { outputs };
        for (input, output) in (0..inputs).flat_map(|input| (0..wide).map(move |output| (input, output))) {
            let at = input * wide + output;
            let wanted = if output < outputs { weights[output * inputs + input] } else { drawn[at] };
            assert_eq!(found[at], wanted, "{inverse}");
        }
    }
}
