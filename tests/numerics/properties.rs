//! What follows from the rules' formulas, whatever the parameters.

use biodist::compute::{Batch, Measure};

use crate::support::{Learner, Samples, config, distance, kernels};

const BETA1: f64 = 0.9;
const DENSE: &str = r#"network.layers=[{ kind = "dense", units = 60 }, { kind = "dense", units = 33 }, { kind = "dense", units = 20 }]"#;
const LOCAL: &str = r#"network.layers=[{ kind = "local", kernel = 4, channels = 6, stride = 2 }, { kind = "local", kernel = 3, channels = 18, stride = 1 }, { kind = "local", kernel = 2, channels = 5, stride = 3 }]"#;
const CONV: &str = r#"network.layers=[{ kind = "conv", kernel = 4, channels = 6, stride = 2 }, { kind = "conv", kernel = 3, channels = 18, stride = 1 }, { kind = "dense", units = 15 }]"#;
const MIXED: &str = r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 2 }, { kind = "local", kernel = 2, channels = 6, stride = 1 }, { kind = "dense", units = 40 }, { kind = "dense", units = 15 }]"#;
const SHALLOW: &str = r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 2 }]"#;

fn samples() -> Samples {
    Samples::random([9, 7, 3], 10, 11)
}

/// After the first step under `rule`, on parameters that are those of `like` where both have them, and what `prepare` makes of them.
fn stepped(rule: &[&str], layers: &str, kernels: &str, like: Option<&Learner>, prepare: impl Fn(&mut Learner)) -> Learner {
    let kernels = format!("parallel.kernels={kernels}");
    let overrides: Vec<&str> = rule.iter().copied().chain([layers, &kernels]).collect();
    let mut learner = Learner::new(&config("flat", &overrides), &samples(), 2);
    for (name, _, _) in like.iter().flat_map(|like| like.tensors()) {
        if learner.tensors().iter().any(|tensor| tensor.0 == name) {
            learner.write(&name, &like.expect("there are tensors").read(&name));
        }
    }
    prepare(&mut learner);
    learner.step();
    learner
}

#[test]
fn dtp_with_backpropagated_targets_doubles_the_gradient_of_hidden_layers() {
    let dtp = ["learning.rule=dtp", "learning.hybrid=1", "learning.alpha=1"];
    for isa in kernels() {
        for layers in [DENSE, LOCAL, MIXED] {
            let bp = stepped(&["learning.rule=bp"], layers, isa, None, |_| {});
            let initial = Learner::new(&config("flat", &[layers]), &samples(), 1);
            let dtp = stepped(&dtp, layers, isa, Some(&initial), |_| {});
            let top = format!("layers.{}.", dtp.engine.maps().forward.len() - 1);
            for (name, _, _) in bp.tensors() {
                let factor = if name.starts_with(&top) { 1.0 } else { 2.0 };
                let expected: Vec<f64> = bp.first_gradient(&name, BETA1).iter().map(|gradient| factor * gradient).collect();
                let found = distance(&dtp.first_gradient(&name, BETA1), &expected);
                assert!(found < 1e-5, "{isa}, {layers}: {name}: {found:.1e} from {factor} times back-propagation's gradient");
            }
        }
    }
}

#[test]
fn the_first_target_goes_a_part_of_the_way() {
    const AUXILIARY: &str = "learning.auxiliary_units=13";
    for (rule, layers) in [("sdtp", DENSE), ("sdtp", LOCAL), ("ao_sdtp", MIXED)] {
        let rule = format!("learning.rule={rule}");
        for isa in kernels() {
            let whole = stepped(&[&rule, AUXILIARY], layers, isa, None, |_| {});
            let quarter = stepped(&[&rule, AUXILIARY, "learning.target_step=0.25"], layers, isa, None, |_| {});
            let top = whole.engine.maps().forward.len() - 1;
            let mut compared = 0;
            for (name, _, _) in whole.tensors() {
                let (below, inverse) = (name.starts_with(&format!("layers.{}.", top - 1)), name.contains("inverse"));
                // The penultimate layer learns from h - t alone; the output and inverses do not see the target.
                let factor = if below && !inverse { 0.25 } else { 1.0 };
                if !(below || inverse || name.starts_with(&format!("layers.{top}."))) || name.contains("auxiliary") {
                    continue;
                }
                compared += usize::from(factor < 1.0);
                let expected: Vec<f64> = whole.first_gradient(&name, BETA1).iter().map(|gradient| factor * gradient).collect();
                let found = distance(&quarter.first_gradient(&name, BETA1), &expected);
                assert!(found < 1e-5, "{isa}, {rule}, {layers}: {name}: {found:.1e} from {factor} times the gradient");
            }
            assert_eq!(compared, 2, "weight and bias of the penultimate layer");
        }
    }
}

#[test]
fn feedback_that_equals_the_weights_is_backprop() {
    // Layers that read the same one are led back through in another order than they are read.
    let joined = r#"network.layers=[{ kind = "conv", kernel = 2, channels = 4 }, { kind = "dense", units = 12, from = 0 }, { kind = "max_pool", kernel = 2, stride = 2, from = 0 }, { kind = "dense", units = 12, from = 2, shortcut = 1 }]"#;
    let mirror = ["learning.rule=wm", "learning.sigma=0.5", "optimizer.feedback.learning_rate=1e-30"];
    for layers in [DENSE, LOCAL, CONV, MIXED, joined] {
        let bp = stepped(&["learning.rule=bp"], layers, "auto", None, |_| {});
        let initial = Learner::new(&config("flat", &[layers]), &samples(), 1);
        for rule in [&["learning.rule=fa"][..], &mirror] {
            same_gradients(&bp, &stepped(rule, layers, "auto", Some(&initial), set_feedback), layers);
        }
    }
}

/// Feedback of every layer becomes the layer's weights, which are in the same order.
fn set_feedback(learner: &mut Learner) {
    for (name, _, _) in learner.tensors() {
        if let Some(layer) = name.strip_suffix("feedback.weight") {
            let weights = learner.read(&format!("{layer}weight"));
            learner.write(&name, &weights);
        }
    }
}

/// Layers' weights less their feedback, by the feedback's name.
fn differences(learner: &Learner) -> Vec<(String, Vec<f64>)> {
    let names = learner.tensors().into_iter().filter_map(|(name, ..)| Some((name.strip_suffix("feedback.weight")?.to_owned(), name)));
    let pair = |(layer, name): (String, String)| {
        let pairs = learner.read(&format!("{layer}weight")).into_iter().zip(learner.read(&name));
        (name, pairs.map(|(w, b)| f64::from(w) - f64::from(b)).collect())
    };
    names.map(pair).collect()
}

#[test]
fn kolen_pollack_begun_with_the_weights_is_backprop_to_the_end() {
    for layers in [DENSE, LOCAL, MIXED, CONV] {
        for isa in kernels() {
            let kernels = format!("parallel.kernels={isa}");
            let run = |rule: &str, more: &str| {
                let rule = format!("learning.rule={rule}");
                let mut learner = Learner::new(&config("flat", &[&rule, layers, &kernels, more]), &samples(), 2);
                learner.steps(12);
                learner
            };
            let (bp, kp) = (run("bp", "training.max_steps=12"), run("kp", "learning.feedback_weights=transposed"));
            for (name, ..) in bp.tensors() {
                let of = |learner: &Learner| learner.read(&name).into_iter().map(f64::from).collect::<Vec<f64>>();
                let found = distance(&of(&kp), &of(&bp));
                assert!(found < 1e-4, "{isa}, {layers}: {name} is {found:.1e} from back-propagation's");
            }
            assert!(differences(&kp).iter().all(|(_, apart)| apart.iter().all(|apart| apart.abs() < 1e-6)), "{isa}, {layers}");
        }
    }
}

#[test]
fn what_weights_and_feedback_of_kolen_pollack_differ_in_decays_and_nothing_else() {
    // Under Adam as under SGD: gradients are the same numbers, so the steps are.
    let sgd = "optimizer.forward={ method = \"sgd\", learning_rate = 0.01, momentum = 0.9, weight_decay = 2.0 }";
    let adam = "optimizer.forward={ learning_rate = 0.01, weight_decay = 2.0 }";
    for (optimizer, decay) in [(sgd, 0.98f64), (adam, 0.98), ("optimizer.forward.learning_rate=0.01", 1.0)] {
        for layers in [DENSE, LOCAL, MIXED, CONV] {
            let mut learner = Learner::new(&config("flat", &["learning.rule=kp", layers, optimizer]), &samples(), 2);
            let before = differences(&learner);
            learner.steps(10);
            let kept = decay.powi(10);
            for ((name, before), (_, after)) in before.iter().zip(&differences(&learner)) {
                let expected: Vec<f64> = before.iter().map(|difference| kept * difference).collect();
                let found = distance(after, &expected);
                assert!(found < 1e-4, "{layers}, {optimizer}: {name}: {found:.1e} from {kept:.3} of what it was");
            }
        }
    }
}

#[test]
fn feedback_of_sign_symmetry_has_the_signs_of_the_weights_and_magnitudes_of_its_own() {
    for layers in [DENSE, LOCAL, MIXED, CONV] {
        for rule in ["usf", "frsf", "brsf"] {
            let rule_key = format!("learning.rule={rule}");
            let mut learner = Learner::new(&config("flat", &[&rule_key, layers, "optimizer.forward.learning_rate=0.05"]), &samples(), 2);
            let magnitudes = |learner: &Learner| -> Vec<(String, Vec<f32>)> {
                let feedback = learner.tensors().into_iter().filter(|tensor| tensor.0.ends_with("feedback.weight"));
                feedback.map(|(name, ..)| (name.clone(), learner.read(&name).into_iter().map(f32::abs).collect())).collect()
            };
            let first = magnitudes(&learner);
            for _ in 0..3 {
                for (name, feedback) in magnitudes(&learner) {
                    let weights = learner.read(&name.replace("feedback.", ""));
                    assert!(weights.iter().zip(learner.read(&name)).all(|(w, b)| w.signum() == b.signum()), "{rule}: {name}");
                    assert!(rule != "usf" || feedback.iter().all(|size| *size == feedback[0]), "{name}");
                }
                learner.step();
            }
            assert_eq!(magnitudes(&learner) == first, rule != "brsf", "{rule}, {layers}");
        }
    }
}

#[test]
fn sign_symmetry_with_the_magnitudes_of_the_weights_is_backprop() {
    for layers in [DENSE, LOCAL, MIXED, CONV] {
        let bp = stepped(&["learning.rule=bp"], layers, "auto", None, |_| {});
        let initial = Learner::new(&config("flat", &[layers]), &samples(), 1);
        let frsf = stepped(&["learning.rule=frsf"], layers, "auto", Some(&initial), set_feedback);
        same_gradients(&bp, &frsf, layers);
    }
}

#[test]
fn direct_kolen_pollack_begun_with_the_output_weights_is_backprop_on_one_hidden_layer() {
    let run = |rule: &str, prepare: &dyn Fn(&mut Learner)| {
        let rule = format!("learning.rule={rule}");
        let mut learner = Learner::new(&config("flat", &[&rule, SHALLOW]), &samples(), 2);
        prepare(&mut learner);
        learner.steps(10);
        learner.read("layers.0.weight").into_iter().map(f64::from).collect::<Vec<f64>>()
    };
    let bp = run("bp", &|_| {});
    let found = distance(&run("dkp", &direct_from_output), &bp);
    assert!(found < 1e-5, "{found:.1e}");
    let fixed = distance(&run("dfa", &direct_from_output), &bp);
    assert!(fixed > 1e-3, "a fixed one goes another way: {fixed:.1e}");
}

/// [classes, hidden units] becomes [hidden units, classes].
fn direct_from_output(learner: &mut Learner) {
    let weights = learner.read("layers.1.weight");
    let hidden = weights.len() / 10;
    let transposed: Vec<f32> = (0..weights.len()).map(|at| weights[at % 10 * hidden + at / 10]).collect();
    learner.write("layers.0.direct_feedback.weight", &transposed);
}

#[test]
fn a_weight_mirror_turns_feedback_towards_the_weights() {
    // Noise that small is in the linear part of tanh: feedback becomes a multiple of the weights.
    let feedback = "optimizer.feedback={ method = \"sgd\", learning_rate = 2.0, weight_decay = 0.01 }";
    for layers in [DENSE, LOCAL, CONV] {
        let overrides = ["learning.rule=wm", "learning.sigma=0.3", "optimizer.forward.learning_rate=1e-30", feedback, layers];
        let mut learner = Learner::new(&config("flat", &overrides), &samples(), 2);
        let cosines = |learner: &Learner| -> Vec<f64> {
            let names = learner.tensors().into_iter().map(|tensor| tensor.0).filter(|name| name.ends_with("feedback.weight"));
            let cosine = |name: String| {
                let pairs: Vec<_> = learner.read(&name.replace("feedback.", "")).into_iter().zip(learner.read(&name)).collect();
                let sum = |f: &dyn Fn(f64, f64) -> f64| pairs.iter().map(|(w, b)| f(f64::from(*w), f64::from(*b))).sum::<f64>();
                sum(&|w, b| w * b) / (sum(&|w, _| w * w) * sum(&|_, b| b * b)).sqrt()
            };
            names.map(cosine).collect()
        };
        let before = cosines(&learner);
        learner.steps(300);
        let after = cosines(&learner);
        assert!(
            before.iter().all(|cosine| cosine.abs() < 0.3) && after.iter().all(|cosine| *cosine > 0.7),
            "{layers}: {before:?}, {after:?}"
        );
    }
}

#[test]
fn inverses_of_local_differences_become_transposes() {
    // Where all is affine the loss is sigma^2 || V - W^T ||^2 on average, and a step of SGD goes the share 2 rate sigma^2 of the way.
    const SHARE: f64 = 0.01;
    let inverse = format!("optimizer.inverse={{ method = \"sgd\", learning_rate = {} }}", SHARE / 2.0);
    // Above the lowest layer: blocks of weights, rows and columns of each, and how many units a weight's two ends meet in all.
    let dense = (DENSE, [(1, 33, 60, 93), (1, 20, 33, 53), (1, 10, 20, 30)]);
    let local = (LOCAL, [(20, 3 * 3 * 6, 18, 3 * 3 * (6 + 18)), (4, 2 * 2 * 18, 5, 2 * 2 * 18 + 5), (1, 10, 20, 30)]);
    for (layers, inverses) in [dense, local] {
        let fixed = ["network.nonlinearity=identity", "learning.rule=l_drl", "learning.sigma=1", "optimizer.forward.learning_rate=1e-30"];
        let overrides = [&fixed[..], &[&inverse, "learning.inverse_iterations=4", layers]].concat();
        let mut learner = Learner::new(&config("flat", &overrides), &samples(), 1);
        let name = |index: usize, what: &str| format!("layers.{}.{what}weight", index + 1);
        let of = |learner: &Learner| [0, 1, 2].map(|index| learner.read(&name(index, "inverse.")));
        let before = of(&learner);
        learner.steps(200);
        for (index, (after, (blocks, rows, columns, met))) in of(&learner).iter().zip(inverses).enumerate() {
            let weights = learner.read(&name(index, ""));
            assert_eq!(weights.len(), blocks * rows * columns);
            let apart = |inverse: &[f32]| {
                // Weights that read padding have nothing to learn.
                let learned = (0..weights.len()).filter(|at| after[*at] != before[index][*at]);
                let pair = |at: usize| {
                    let (block, row, column) = (at / (rows * columns), at % rows, at / rows % columns);
                    (f64::from(inverse[at]), f64::from(weights[(block * rows + row) * columns + column]))
                };
                let (inverse, transposed): (Vec<f64>, Vec<f64>) = learned.map(pair).unzip();
                assert!(2 * inverse.len() > weights.len(), "{layers}: inverse {index} did not learn");
                distance(&inverse, &transposed)
            };
            // Each step's mean over 11 samples is off by met / 11 of || W ||^2, of which about SHARE / 2 stays. A quarter is for chance.
            let expected = (SHARE / 2.0 * met as f64 / 11.0).sqrt();
            let (first, last) = (apart(&before[index]), apart(after));
            assert!(first > 1.0 && last < 1.25 * expected, "{layers}, inverse {index}: {first:.3}, then {last:.3} for {expected:.3}");
        }
    }
}

#[test]
fn fixed_inverses_do_what_inverses_of_no_learning_rate_do() {
    for layers in [DENSE, LOCAL, MIXED] {
        for rule in ["tp", "dtp", "sdtp", "ao_sdtp"] {
            let rule = format!("learning.rule={rule}");
            let run = |more: &str| {
                let mut learner = Learner::new(&config("flat", &[&rule, layers, more]), &samples(), 2);
                learner.steps(4);
                learner
            };
            let (fixed, still) = (run("learning.inverses=fixed"), run("optimizer.inverse.learning_rate=0"));
            let read = |learner: &Learner| learner.tensors().iter().map(|(name, ..)| learner.read(name)).collect::<Vec<_>>();
            assert!(read(&fixed) == read(&still), "{rule}, {layers}");
            assert!(
                fixed.tensors().iter().all(|(name, map, _)| fixed.trained(*map) != name.contains("inverse") || name.contains("auxiliary"))
            );
        }
    }
}

#[test]
fn direct_feedback_that_equals_the_output_weights_is_backprop_on_one_hidden_layer() {
    let bp = stepped(&["learning.rule=bp"], SHALLOW, "auto", None, |_| {});
    let initial = Learner::new(&config("flat", &[SHALLOW]), &samples(), 1);
    let dfa = stepped(&["learning.rule=dfa"], SHALLOW, "auto", Some(&initial), direct_from_output);
    same_gradients(&bp, &dfa, SHALLOW);
}

#[test]
fn an_input_modulated_through_orthogonal_layers_is_backprop() {
    // Each layer hands up what the one above hands back: the lowest passes its first 15 inputs on, the second rotates them.
    const UNITS: usize = 15;
    const MODULATION: f64 = 1e-3;
    let layers = r#"network.layers=[{ kind = "dense", units = 15, nonlinearity = "identity" }, { kind = "dense", units = 15, nonlinearity = "identity" }]"#;
    let inputs = samples().units();
    let picked = |rows: usize, columns: usize, from: &dyn Fn(usize) -> usize| -> Vec<f32> {
        (0..rows * columns).map(|at| if at % columns == from(at / columns) { 1.0 } else { 0.0 }).collect()
    };
    let prepare = |learner: &mut Learner| {
        learner.write("layers.0.weight", &picked(UNITS, inputs, &|unit| unit));
        learner.write("layers.1.weight", &picked(UNITS, UNITS, &|unit| (unit + 1) % UNITS));
        if learner.tensors().iter().any(|tensor| tensor.0 == "input_feedback.weight") {
            let top = learner.read("layers.2.weight");
            // Less than nothing: what the second pass adds is what the layers learn to take away.
            let back = |input: usize, class: usize| if input < UNITS { -top[class * UNITS + (input + UNITS - 1) % UNITS] } else { 0.0 };
            let feedback: Vec<f32> = (0..inputs * 10).map(|at| back(at / 10, at % 10)).collect();
            learner.write("input_feedback.weight", &feedback);
        }
    };
    for isa in kernels() {
        let bp = stepped(&["learning.rule=bp"], layers, isa, None, prepare);
        let initial = Learner::new(&config("flat", &[layers]), &samples(), 1);
        let modulation = format!("learning.modulation={MODULATION}");
        let pepita = stepped(&["learning.rule=pepita", &modulation], layers, isa, Some(&initial), prepare);
        for (name, ..) in bp.tensors() {
            let factor = if name.starts_with("layers.2.") { 1.0 } else { MODULATION };
            let expected: Vec<f64> = bp.first_gradient(&name, BETA1).iter().map(|gradient| factor * gradient).collect();
            let found = distance(&pepita.first_gradient(&name, BETA1), &expected);
            assert!(found < 5.0 * MODULATION, "{isa}: {name}: {found:.1e} from {factor} times back-propagation's gradient");
        }
    }
}

fn same_gradients(expected: &Learner, found: &Learner, title: &str) {
    for (name, _, _) in expected.tensors() {
        let distance = distance(&found.first_gradient(&name, BETA1), &expected.first_gradient(&name, BETA1));
        assert!(distance < 1e-5, "{title}: {name}: {distance:.1e} from back-propagation's gradient");
    }
}

#[test]
fn a_maximum_does_not_hide_what_is_not_a_number() {
    let layers =
        r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 1 }, { kind = "max_pool", kernel = 2, stride = 2 }]"#;
    for isa in kernels() {
        let kernels = format!("parallel.kernels={isa}");
        // The last position of a window, then the first.
        for position in [1 + 7, 0] {
            let mut learner = Learner::new(&config("flat", &[layers, &kernels]), &samples(), 1);
            let mut biases = learner.read("layers.0.bias");
            biases[position * 5] = f32::NAN;
            learner.write("layers.0.bias", &biases);
            let samples = samples();
            let batch = Batch { pixels: (&samples.pixels).into(), labels: &samples.labels, samples: 11, first: 0, step: 0 };
            learner.engine.evaluate(&batch).unwrap();
            assert!(learner.engine.measure(Measure::Loss).iter().all(|loss| loss.is_nan()), "{isa}, position {position}");
        }
    }
}

#[test]
fn noise_differs_from_step_to_step() {
    // With equal samples at every step and learning rates next to nothing, noise alone can change the inverse loss.
    let overrides = ["learning.rule=sdtp", "optimizer.forward.learning_rate=1e-30", "optimizer.inverse.learning_rate=1e-30", DENSE];
    let mut learner = Learner::new(&config("flat", &overrides), &samples(), 1);
    let losses: Vec<f64> = learner.steps(4).into_iter().map(|[_, inverse_loss]| inverse_loss).collect();
    for (step, loss) in losses.iter().enumerate() {
        assert!(losses[..step].iter().all(|earlier| earlier != loss), "{losses:?}");
    }
    let silent = [&overrides[..], &["learning.sigma=0"]].concat();
    let losses: Vec<f64> = Learner::new(&config("flat", &silent), &samples(), 1).steps(3).into_iter().map(|loss| loss[1]).collect();
    assert!(losses.iter().all(|loss| *loss == losses[0]), "{losses:?}");
}
