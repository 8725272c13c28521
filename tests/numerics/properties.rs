//! What follows from the rules' formulas, whatever the parameters.

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
    for layers in [DENSE, LOCAL, CONV, MIXED] {
        let bp = stepped(&["learning.rule=bp"], layers, "auto", None, |_| {});
        let initial = Learner::new(&config("flat", &[layers]), &samples(), 1);
        let fa = stepped(&["learning.rule=fa"], layers, "auto", Some(&initial), |learner| {
            for (name, _, _) in learner.tensors() {
                if let Some(layer) = name.strip_suffix("feedback.weight") {
                    let weights = learner.read(&format!("{layer}weight"));
                    learner.write(&name, &weights);
                }
            }
        });
        same_gradients(&bp, &fa, layers);
    }
}

#[test]
fn direct_feedback_that_equals_the_output_weights_is_backprop_on_one_hidden_layer() {
    let bp = stepped(&["learning.rule=bp"], SHALLOW, "auto", None, |_| {});
    let initial = Learner::new(&config("flat", &[SHALLOW]), &samples(), 1);
    let dfa = stepped(&["learning.rule=dfa"], SHALLOW, "auto", Some(&initial), |learner| {
        // [classes, hidden units] becomes [hidden units, classes].
        let weights = learner.read("layers.1.weight");
        let hidden = weights.len() / 10;
        let transposed: Vec<f32> = (0..weights.len()).map(|at| weights[at % 10 * hidden + at / 10]).collect();
        learner.write("layers.0.direct_feedback.weight", &transposed);
    });
    same_gradients(&bp, &dfa, SHALLOW);
}

fn same_gradients(expected: &Learner, found: &Learner, title: &str) {
    for (name, _, _) in expected.tensors() {
        let distance = distance(&found.first_gradient(&name, BETA1), &expected.first_gradient(&name, BETA1));
        assert!(distance < 1e-5, "{title}: {name}: {distance:.1e} from back-propagation's gradient");
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
