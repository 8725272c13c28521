//! The backend on libtorch's tensors against the CPU's kernels: the same initial parameters, noise and batches must lead to the same
//! parameters and measures. On the CPU everywhere, and on a GPU where there is one.

use std::sync::Arc;

use biodist::compute::device::Device;
use biodist::compute::{Batch, Measure};
use biodist::exchange::Single;
use biodist::exit::Exit;
use biodist::learner::Engine;
use biodist::network::Network;

use crate::support::{Learner, Random, Samples, config, devices, distance};

const RULES: [&str; 7] = ["bp", "fa", "dfa", "tp", "dtp", "sdtp", "ao_sdtp"];

/// Of the distance that a tensor travels in three steps.
const TOLERANCE: f64 = 1e-4;

/// The changes of all trained tensors in three steps, and the measures of every sample on the way.
struct Outcome {
    changes: Vec<(String, Vec<f64>)>,
    measures: Vec<f32>,
}

fn outcome(mut learner: Learner) -> Outcome {
    let trained: Vec<String> = learner.tensors().into_iter().filter(|tensor| learner.trained(tensor.1)).map(|tensor| tensor.0).collect();
    let before: Vec<Vec<f32>> = trained.iter().map(|name| learner.read(name)).collect();
    let mut measures = Vec::new();
    for _ in 0..3 {
        learner.step();
        for measure in [Measure::Loss, Measure::InverseLoss, Measure::Top1Error, Measure::Top5Error] {
            measures.extend_from_slice(learner.engine.measure(measure));
        }
    }
    let change = |(name, before): (String, Vec<f32>)| {
        let change = learner.read(&name).iter().zip(before).map(|(after, before)| f64::from(*after) - f64::from(before)).collect();
        (name, change)
    };
    Outcome { changes: trained.into_iter().zip(before).map(change).collect(), measures }
}

fn near(title: &str, ours: &Outcome, wanted: &Outcome, tolerance: f64) {
    for ((name, ours), (_, wanted)) in ours.changes.iter().zip(&wanted.changes) {
        let found = distance(ours, wanted);
        assert!(found < tolerance, "{title}: {name} is {found:.1e} of the distance travelled away");
    }
    assert_eq!(ours.measures.len(), wanted.measures.len(), "{title}");
    for (ours, wanted) in ours.measures.iter().zip(&wanted.measures) {
        assert!(f64::from((ours - wanted).abs()) < tolerance * f64::from(wanted.abs().max(1.0)), "{title}: measured {ours} for {wanted}");
    }
}

fn compare(shape: [usize; 3], overrides: &[&str], batch: usize) {
    let own = format!("data.batch_size={batch}");
    let overrides: Vec<&str> = overrides.iter().copied().chain([own.as_str()]).collect();
    let (config, samples) = (config("flat", &overrides), Samples::random(shape, 10, 2 * batch));
    let wanted = outcome(Learner::new(&config, &samples, 1));
    for (device, learner) in Learner::on_tensors(&config, &samples) {
        let title = format!("{shape:?}, {overrides:?} on {device:?}");
        near(&title, &outcome(learner), &wanted, TOLERANCE);
    }
}

#[test]
fn initial_parameters_are_the_cpus() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 2 }, { kind = "dense", units = 18 }]"#;
    for rule in RULES {
        let (config, samples) = (config("flat", &[layers, &format!("learning.rule={rule}")]), Samples::random([7, 6, 2], 10, 11));
        let cpu = Learner::new(&config, &samples, 1);
        for (device, tensors) in Learner::on_tensors(&config, &samples) {
            for (name, ..) in cpu.tensors() {
                assert_eq!(cpu.read(&name), tensors.read(&name), "{rule}: {name} on {device:?}");
            }
        }
    }
}

#[test]
fn every_rule_does_the_same_on_dense_networks() {
    let layers = r#"network.layers=[{ kind = "dense", units = 33 }, { kind = "dense", units = 16 }, { kind = "dense", units = 40 }]"#;
    for rule in RULES {
        compare([5, 4, 3], &[layers, &format!("learning.rule={rule}"), "optimizer.epsilon_form=hat"], 9);
        compare([5, 4, 1], &[layers, &format!("learning.rule={rule}"), "network.output=linear"], 4);
    }
    compare([5, 4, 3], &["learning.rule=bp"], 3);
}

#[test]
fn every_rule_does_the_same_on_spatial_networks() {
    let mut random = Random::new(3);
    for (index, rule) in RULES.into_iter().cycle().take(14).enumerate() {
        let mut layer = |kind: &str| {
            let (kernel, stride, channels) = (1 + random.below(5), 1 + random.below(3), 1 + random.below(20));
            format!(r#"{{ kind = "{kind}", kernel = {kernel}, channels = {channels}, stride = {stride} }}"#)
        };
        let shape = [5 + index % 5, 9 - index % 4, 1 + index % 4];
        let local = format!(r#"network.layers=[{}, {}, {{ kind = "dense", units = 12 }}]"#, layer("local"), layer("local"));
        compare(shape, &[&local, &format!("learning.rule={rule}")], 2 + index);
        let conv = format!("network.layers=[{}, {}]", layer("conv"), layer("conv"));
        compare(shape, &[&conv], 2 + index);
    }
}

#[test]
fn hybrid_targets_and_alternating_schedules_do_the_same() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 6, stride = 2 }, { kind = "local", kernel = 2, channels = 5, stride = 1 }, { kind = "dense", units = 20 }]"#;
    for rule in ["dtp", "sdtp", "ao_sdtp"] {
        let rule = format!("learning.rule={rule}");
        compare([8, 7, 3], &[layers, &rule, "learning.hybrid=0.4"], 6);
        compare([8, 7, 3], &[layers, &rule, "learning.schedule=alternating"], 6);
    }
}

#[test]
fn weights_in_the_padding_stay_without_epsilon() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 4, channels = 6, stride = 2 }]"#;
    let (config, samples) = (config("flat", &[layers, "optimizer.forward.epsilon=0"]), Samples::random([5, 5, 2], 10, 22));
    let on_tensors = Learner::on_tensors(&config, &samples).into_iter().map(|(_, learner)| learner);
    for learner in [Learner::new(&config, &samples, 1)].into_iter().chain(on_tensors) {
        let device = learner.engine.device();
        let changed = outcome(learner).changes;
        let weights = &changed[0].1;
        assert!(weights.iter().all(|change| change.is_finite()), "on {device}");
        assert!(weights.contains(&0.0) && weights.iter().any(|change| *change != 0.0), "on {device}");
    }
}

#[test]
fn evaluation_takes_smaller_batches() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 6, stride = 2 }]"#;
    let (config, samples) = (config("flat", &[layers, "learning.rule=dtp"]), Samples::random([6, 6, 2], 10, 11));
    let measured = |mut learner: Learner| {
        learner.step();
        let pixels = (&samples.pixels[..5 * samples.units()]).into();
        let batch = Batch { pixels, labels: &samples.labels[..5], samples: 5, first: 0, step: 0 };
        learner.engine.evaluate(&batch).expect("evaluation succeeds");
        let measures = learner.engine.measure(Measure::Loss).to_vec();
        learner.step();
        (measures, learner.engine.measure(Measure::Loss).len())
    };
    let (wanted, all) = measured(Learner::new(&config, &samples, 1));
    assert_eq!((wanted.len(), all), (5, 11));
    for (device, learner) in Learner::on_tensors(&config, &samples) {
        let (ours, all) = measured(learner);
        assert_eq!((ours.len(), all), (5, 11));
        assert!(ours.iter().zip(&wanted).all(|(ours, wanted)| (ours - wanted).abs() < 1e-4), "on {device:?}: {ours:?} for {wanted:?}");
    }
}

#[test]
fn bf16_products_stay_near_float32() {
    let spatial = r#"network.layers=[{ kind = "local", kernel = 3, channels = 16, stride = 2 }, { kind = "dense", units = 30 }]"#;
    let shared = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 16, stride = 2 }, { kind = "dense", units = 30 }]"#;
    let devices = devices();
    for (layers, rule) in RULES.map(|rule| (spatial, rule)).into_iter().chain([(shared, "bp")]) {
        let exact = rounded(&[layers], rule, "f32", Device::Cpu);
        for device in &devices {
            let ours = rounded(&[layers], rule, "bf16", *device);
            for ((name, ours), (_, exact)) in ours.changes.iter().zip(&exact.changes) {
                let found = distance(ours, exact);
                assert!(found < 0.1 && found > 1e-4, "{rule}: {name} with bf16 products is {found:.1e} away, on {device:?}");
            }
        }
    }
}

/// An activity and its target are as near each other here as they are in a network that has learnt.
#[test]
fn differences_of_inverses_outlive_bf16_products() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 16, stride = 2 }, { kind = "dense", units = 30 }, { kind = "dense", units = 20 }]"#;
    for (rule, step) in [("dtp", "alpha"), ("sdtp", "target_step"), ("ao_sdtp", "target_step"), ("l_drl", "target_step")] {
        let step = format!("learning.{step}=0.0001");
        let exact = rounded(&[layers, &step], rule, "f32", Device::Cpu);
        for device in devices() {
            let ours = rounded(&[layers, &step], rule, "bf16", device);
            for ((name, ours), (_, exact)) in ours.changes.iter().zip(&exact.changes) {
                let found = distance(ours, exact);
                assert!(found < 0.1, "{rule}: {name} with bf16 products is {found:.1e} away, on {device:?}");
            }
        }
    }
}

/// Of tf32, which rounds factors to ten bits, a quarter of bf16's error and less is allowed.
#[test]
fn tf32_products_stay_near_float32() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 16, stride = 2 }, { kind = "dense", units = 64 }]"#;
    for rule in RULES {
        for device in devices().into_iter().filter(|device| device.is_cuda()) {
            // The switch is the process's: float32 before and after shows that it goes back.
            let [before, ours, after] = ["f32", "tf32", "f32"].map(|precision| rounded(&[layers], rule, precision, device));
            let mut farthest = 0.0f64;
            for (((name, ours), (_, before)), (_, after)) in ours.changes.iter().zip(&before.changes).zip(&after.changes) {
                let found = distance(ours, before);
                assert!(found < 0.025, "{rule}: {name} with tf32 products is {found:.1e} away, on {device:?}");
                assert!(before == after, "{rule}: {name} has other bits when it is done again in float32, on {device:?}");
                farthest = farthest.max(found);
            }
            // Which products are worth it is cuBLAS's choice.
            assert!(farthest > 1e-6, "{rule}: nothing was rounded to tf32, on {device:?}");
        }
    }
}

fn rounded(overrides: &[&str], rule: &str, precision: &str, device: Device) -> Outcome {
    let (rule, precision) = (format!("learning.rule={rule}"), format!("parallel.precision={precision}"));
    let config = config("flat", &[overrides, &[&rule, &precision, "data.batch_size=16", "optimizer.epsilon_form=hat"]].concat());
    outcome(Learner::on(&config, &Samples::random([8, 8, 3], 10, 32), device))
}

#[test]
fn diagnostics_are_refused() {
    let config = config("dense", &["training.diagnostics=true"]);
    let network = Network::new([23, 1, 1], 7, &config.network).unwrap();
    let error = Engine::on_tensors(&config, &network, Arc::new(Single), Device::Cpu).err().unwrap();
    assert_eq!(Exit::of(&error), Exit::Usage);
    assert!(error.to_string().contains("training.diagnostics"), "{error}");
}
