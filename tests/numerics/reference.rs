//! Every rule, schedule, epsilon form and layer kind against a float64 reference: parameters after several steps, and the losses on the way.
//!
//! The expected values are in `tests/data`; its README says how they were made.

use std::collections::HashMap;

use biodist::compute::{Buffer, Part};
use biodist::config::Config;
use safetensors::SafeTensors;

use crate::support::{Learner, Samples, config, data, kernels};
use crate::threads::on_ranks;

/// A row of a table of cases: its name in the data, and what it changes in the network's configuration.
type Case = (&'static str, &'static [&'static str]);

const RULES: [Case; 7] = [
    ("bp", &[]),
    ("fa", &["learning.rule=fa"]),
    ("dfa", &["learning.rule=dfa"]),
    ("tp", &["learning.rule=tp"]),
    ("dtp", &["learning.rule=dtp"]),
    ("sdtp", &["learning.rule=sdtp"]),
    ("ao_sdtp", &["learning.rule=ao_sdtp"]),
];

/// Epochs of two steps in turn, and the epsilon form of the paper's runs.
const ALTERNATING: [Case; 4] = [
    ("tp_alternating", &["learning.rule=tp", "learning.schedule=alternating", "optimizer.epsilon_form=hat"]),
    ("dtp_alternating", &["learning.rule=dtp", "learning.schedule=alternating", "optimizer.epsilon_form=hat"]),
    ("sdtp_alternating", &["learning.rule=sdtp", "learning.schedule=alternating", "optimizer.epsilon_form=hat"]),
    ("ao_sdtp_alternating", &["learning.rule=ao_sdtp", "learning.schedule=alternating", "optimizer.epsilon_form=hat"]),
];

const HYBRID: [Case; 3] = [
    ("dtp_hybrid", &["learning.rule=dtp", "learning.hybrid=0.4"]),
    ("sdtp_hybrid", &["learning.rule=sdtp", "learning.hybrid=0.4"]),
    ("ao_sdtp_hybrid", &["learning.rule=ao_sdtp", "learning.hybrid=0.4"]),
];

/// From the lowest layer, or inverse; dtp has one inverse less.
const BY_LAYER: [Case; 3] = [
    (
        "sdtp_rates_by_layer",
        &[
            "learning.rule=sdtp",
            "optimizer.forward.learning_rate=[0.003, 0.001, 0.006, 0.002]",
            "optimizer.inverse.learning_rate=[0.002, 0.0005, 0.004]",
        ],
    ),
    ("dtp_noise_by_layer", &["learning.rule=dtp", "learning.sigma=[0.05, 0.3]"]),
    ("sdtp_noise_by_layer", &["learning.rule=sdtp", "learning.sigma=[0.05, 0.3, 0.1]"]),
];

/// Layers that learn to be invertible.
const REGULARIZED: [Case; 3] = [
    ("dtp_regularized", &["learning.rule=dtp", "learning.inverse_regularizer=0.5"]),
    ("sdtp_regularized", &["learning.rule=sdtp", "learning.inverse_regularizer=0.5"]),
    (
        "sdtp_regularized_alternating",
        &["learning.rule=sdtp", "learning.inverse_regularizer=0.5", "learning.schedule=alternating", "optimizer.epsilon_form=hat"],
    ),
];

/// Inverses that read more than their layers' kernels join.
const INVERSES: [Case; 4] = [
    ("dtp_dense_inverses", &["learning.rule=dtp", "learning.inverse_fields=dense"]),
    ("sdtp_dense_inverses", &["learning.rule=sdtp", "learning.inverse_fields=dense"]),
    ("dtp_larger_inverses", &["learning.rule=dtp", "learning.inverse_growth=2"]),
    ("sdtp_larger_inverses", &["learning.rule=sdtp", "learning.inverse_growth=2"]),
];

const DECAY: &str = "optimizer.forward.weight_decay=0.5";

/// Rules that came after the paper.
const LATER: [Case; 8] = [
    ("kp", &["learning.rule=kp", DECAY]),
    ("usf", &["learning.rule=usf"]),
    ("frsf", &["learning.rule=frsf"]),
    ("brsf", &["learning.rule=brsf"]),
    ("dkp", &["learning.rule=dkp", DECAY]),
    ("drtp", &["learning.rule=drtp"]),
    // More than the default, under which differences of two passes are so small that float32 leaves few digits of them.
    ("pepita", &["learning.rule=pepita", "learning.modulation=0.5"]),
    ("wm", &["learning.rule=wm", "learning.sigma=1", "optimizer.feedback={ method = \"sgd\", learning_rate = 0.2, weight_decay = 0.5 }"]),
];

/// With inverses.
const LOCAL_DIFFERENCES: [Case; 2] = [
    ("l_drl", &["learning.rule=l_drl", "learning.target_step=0.7"]),
    ("l_drl_iterated", &["learning.rule=l_drl", "learning.target_step=0.7", "learning.inverse_iterations=3"]),
];

const SGD: &str = "optimizer.forward={ method = \"sgd\", learning_rate = 0.05, momentum = 0.9 }";

const OPTIMIZERS: [Case; 4] = [
    ("bp_decay", &[DECAY]),
    ("bp_momentum", &[SGD]),
    ("bp_nesterov", &[SGD, "optimizer.forward.nesterov=true", DECAY]),
    ("bp_smooth", &["learning.label_smoothing=0.1"]),
];

/// Of dense networks, whose wanted output is a target, or goes down itself.
const SMOOTH: [Case; 3] = [
    ("sdtp_smooth", &["learning.rule=sdtp", "learning.label_smoothing=0.1"]),
    ("l_drl_smooth", &["learning.rule=l_drl", "learning.target_step=0.7", "learning.label_smoothing=0.1"]),
    ("drtp_smooth", &["learning.rule=drtp", "learning.label_smoothing=0.1"]),
];

const BP_HAT: Case = ("bp_hat", &["optimizer.epsilon_form=hat"]);

/// Of the distance that a tensor travels. Float32 itself leaves about 1e-5.
const TOLERANCE: f64 = 1e-4;

/// The same of kernels for GPUs, whose products are three of tf32: a bias of one network, whose gradient nearly vanishes, leaves 2e-4.
const TOLERANCE_OF_THREE: f64 = 4e-4;

/// A network with its samples, initial parameters, and expected results.
struct Stored {
    network: &'static str,
    /// Shape and bytes, by name.
    tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Stored {
    fn open(network: &'static str) -> Stored {
        let path = data(&format!("{network}.safetensors"));
        let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tensors = SafeTensors::deserialize(&bytes).expect("the data is whole").tensors();
        let tensors = tensors.into_iter().map(|(name, view)| (name, (view.shape().to_vec(), view.data().to_vec())));
        Stored { network, tensors: tensors.collect() }
    }

    /// Values of `N` bytes each.
    fn values<T, const N: usize>(&self, name: &str, from: fn([u8; N]) -> T) -> Vec<T> {
        let (_, bytes) = self.tensors.get(name).unwrap_or_else(|| panic!("{}: no tensor {name}", self.network));
        bytes.chunks_exact(N).map(|bytes| from(bytes.try_into().expect("a chunk is whole"))).collect()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.values(name, f32::from_le_bytes)
    }

    fn doubles(&self, name: &str) -> Vec<f64> {
        self.values(name, f64::from_le_bytes)
    }

    fn samples(&self) -> Samples {
        let shape = &self.tensors["x"].0;
        let labels = self.values("y", u32::from_le_bytes);
        Samples { shape: [shape[1], shape[2], shape[3]], classes: 7, pixels: self.floats("x"), labels }
    }

    /// The initial value of parameter `name`: where a case or a rule has a shape of its own, one of its own.
    fn initial(&self, case: &str, rule: &str, name: &str) -> Vec<f32> {
        let own = [case, rule].map(|of| format!("initial/{of}/{name}"));
        let own = own.iter().find(|own| self.tensors.contains_key(*own));
        own.map_or_else(|| self.floats(&format!("initial/{name}")), |own| self.floats(own))
    }

    fn check_all<'a>(&self, cases: impl IntoIterator<Item = &'a Case>) {
        cases.into_iter().for_each(|(name, overrides)| self.check(name, overrides));
    }

    /// Runs case `name` with every variant of the kernels and one and two threads, with a rank for each sample, and on tensors, and compares.
    fn check(&self, name: &str, overrides: &[impl AsRef<str>]) {
        let overrides: Vec<&str> = overrides.iter().map(AsRef::as_ref).collect();
        // Of the kernels that are chosen where nothing is said.
        let mut best = None;
        for isa in kernels() {
            let kernels = format!("parallel.kernels={isa}");
            let overrides: Vec<&str> = overrides.iter().copied().chain([kernels.as_str()]).collect();
            let config = config(self.network, &overrides);
            let mut checksum = None;
            for threads in [1, 2] {
                let title = format!("{} {name}, {isa}, {threads} threads", self.network);
                let bits = self.run(name, &title, &config, Learner::new(&config, &self.samples(), threads));
                assert_eq!(*checksum.get_or_insert(bits), bits, "{title}: other bits than with one thread");
            }
            let alike = *best.get_or_insert(checksum) == checksum || isa == "portable";
            assert!(alike, "{} {name}: {isa} gives other bits than its sibling", self.network);
        }
        self.check_on_ranks(name, &overrides, best.flatten());
        let config = config(self.network, &overrides);
        for (device, learner) in Learner::on_tensors(&config, &self.samples()) {
            let title = format!("{} {name}, tensors on {device:?}", self.network);
            self.run(name, &title, &config, learner);
        }
        let title = format!("{} {name}, kernels for GPUs", self.network);
        let learner = Learner::on_own_gpu(&config, &self.samples());
        self.run_within(TOLERANCE_OF_THREE, name, &title, &config, learner);
    }

    /// The case with a rank for each of the batch's 11 samples, which must have the bits of one rank where factors travel.
    fn check_on_ranks(&self, name: &str, overrides: &[&str], alone: Option<u64>) {
        let config = config(self.network, &[overrides, &["parallel.exchange=activities"]].concat());
        let title = format!("{} {name}, a rank a sample", self.network);
        let checksums = on_ranks(11, |transport| self.run(name, &title, &config, Learner::of_rank(&config, &self.samples(), 1, transport)));
        assert!(checksums.into_iter().all(|found| Some(found) == alone), "{title}: other bits than on one rank");
    }

    /// Trains `learner` on case `name` and compares. Returns the checksum of its parameters.
    fn run(&self, name: &str, title: &str, config: &Config, learner: Learner) -> u64 {
        self.run_within(TOLERANCE, name, title, config, learner)
    }

    fn run_within(&self, tolerated: f64, name: &str, title: &str, config: &Config, mut learner: Learner) -> u64 {
        let losses = self.doubles(&format!("{name}/loss"));
        let inverse_losses = self.doubles(&format!("{name}/inverse_loss"));
        let rule = config.learning.rule.name();
        for (tensor, map, part) in learner.tensors() {
            let values = self.initial(name, rule, &tensor);
            learner.engine.write(map, part, Buffer::Weights, &values).unwrap_or_else(|error| panic!("{title}: {tensor}: {error:#}"));
        }
        for (step, (loss, inverse_loss)) in losses.iter().zip(&inverse_losses).enumerate() {
            let [ours, ours_inverse] = learner.step();
            assert!((ours - loss).abs() <= 1e-5 * loss.max(1.0), "{title}: loss {ours} for {loss} at step {step}");
            let tolerance = 1e-5 * inverse_loss.max(1.0);
            assert!((ours_inverse - inverse_loss).abs() <= tolerance, "{title}: inverse loss {ours_inverse} for {inverse_loss}");
        }
        self.compare(tolerated, name, title, rule, &learner);
        learner.engine.checksum()
    }

    /// Every tensor of `learner` against the expected change since the beginning.
    fn compare(&self, tolerated: f64, name: &str, title: &str, rule: &str, learner: &Learner) {
        for (tensor, map, part) in learner.tensors() {
            let initial = self.initial(name, rule, &tensor);
            let values = learner.engine.read(map, part, Buffer::Weights);
            let expected = format!("{name}/{tensor}");
            if !self.tensors.contains_key(&expected) {
                assert!(!learner.trained(map), "{title}: {tensor} is trained");
                assert_eq!(values, initial, "{title}: {tensor} is fixed");
                continue;
            }
            let change = self.floats(&expected);
            if change.iter().all(|change| *change == 0.0) {
                // Biases of l_drl's linear inverses, whose three gradients cancel each other but for rounding.
                let moved = values.iter().zip(&initial).map(|(value, initial)| (value - initial).abs()).fold(0.0, f32::max);
                assert!(moved < 1e-6, "{title}: {tensor} moved by {moved:.1e}");
                continue;
            }
            let mut transferred = 0.0;
            let mut missed = 0.0;
            for ((value, initial), change) in values.iter().zip(&initial).zip(&change) {
                if *change == 0.0 && part == Part::Weight {
                    assert_eq!(value.to_bits(), initial.to_bits(), "{title}: {tensor}: a weight in the padding moved");
                }
                transferred += f64::from(*change).powi(2);
                missed += (f64::from(*value) - f64::from(*initial) - f64::from(*change)).powi(2);
            }
            let relative = (missed / transferred).sqrt();
            assert!(relative < tolerated, "{title}: {tensor} is {relative:.1e} of the distance travelled away from where it should be");
        }
    }
}

#[test]
fn dense_networks_agree_with_the_reference() {
    let stored = Stored::open("dense");
    stored.check_all(
        RULES
            .iter()
            .chain(&ALTERNATING)
            .chain(&HYBRID)
            .chain(&BY_LAYER)
            .chain(&REGULARIZED[1..])
            .chain(&LOCAL_DIFFERENCES)
            .chain(&LATER)
            .chain(&OPTIMIZERS)
            .chain(&SMOOTH)
            .chain([&BP_HAT]),
    );
    stored.check("dtp_small_epsilon", &["learning.rule=dtp", "optimizer.forward.epsilon=1e-8", "optimizer.inverse.epsilon=1e-8"]);
}

#[test]
fn networks_of_one_hidden_layer_or_none_agree_with_the_reference() {
    let stored = Stored::open("shallow");
    stored.check_all(&RULES);
    let stored = Stored::open("flat");
    stored.check_all([&RULES[0], &RULES[4]]);
}

#[test]
fn autoencoders_agree_with_the_reference() {
    let stored = Stored::open("dense_autoencoder");
    stored.check_all(RULES.iter().chain([&ALTERNATING[2]]));
    let stored = Stored::open("local_autoencoder");
    stored.check_all([&RULES[0], &RULES[4], &RULES[5]]);
}

#[test]
fn local_networks_agree_with_the_reference() {
    let stored = Stored::open("local");
    stored.check_all(
        RULES
            .iter()
            .chain(&ALTERNATING)
            .chain(&HYBRID)
            .chain(&INVERSES)
            .chain(&REGULARIZED)
            .chain(&LOCAL_DIFFERENCES)
            .chain(&LATER)
            .chain(&OPTIMIZERS),
    );
    let stored = Stored::open("strides");
    stored.check("dtp", &["learning.rule=dtp", "learning.hybrid=0.4"]);
    stored.check("ao_sdtp", &["learning.rule=ao_sdtp"]);
}

#[test]
fn every_nonlinearity_agrees_with_the_reference() {
    let stored = Stored::open("nonlinear");
    for nonlinearity in ["relu", "leaky_relu", "gelu", "identity"] {
        for (rule, _) in RULES {
            let sets = [format!("network.nonlinearity={nonlinearity}"), format!("learning.rule={rule}")];
            stored.check(&format!("{rule}_{nonlinearity}"), &sets);
        }
    }
    // Each layer with one of its own.
    let layers = r#"network.layers=[
        { kind = "local", kernel = 3, channels = 3, stride = 2, nonlinearity = "leaky_relu" },
        { kind = "dense", units = 17, nonlinearity = "gelu" },
        { kind = "dense", units = 9, nonlinearity = "relu" },
    ]"#;
    for (rule, hybrid) in [("bp", 0.0), ("fa", 0.0), ("dtp", 0.4), ("ao_sdtp", 0.0)] {
        let sets = [layers.to_owned(), format!("learning.rule={rule}"), format!("learning.hybrid={hybrid}")];
        stored.check(&format!("{rule}_mixed"), &sets);
    }
}

/// Beside the rules themselves, what inverses of convolutions and pools must do.
fn inverses_of_windows() -> impl Iterator<Item = &'static Case> {
    ALTERNATING[2..3].iter().chain(&HYBRID[..2]).chain(&REGULARIZED[..2]).chain(&INVERSES[2..]).chain(&LOCAL_DIFFERENCES)
}

#[test]
fn convolutions_agree_with_the_reference() {
    let stored = Stored::open("conv");
    let cases = RULES.iter().chain(inverses_of_windows()).chain([&INVERSES[1]]);
    stored.check_all(cases.chain(&LATER).chain(&OPTIMIZERS).chain([&BP_HAT]));
}

fn named(names: &[&str]) -> impl Iterator<Item = &'static Case> {
    RULES.iter().chain(&LATER).filter(|case| names.contains(&case.0))
}

#[test]
fn pools_agree_with_the_reference() {
    let later = named(&["kp", "brsf", "wm", "dkp", "drtp", "pepita"]);
    Stored::open("pools").check_all(RULES.iter().chain(inverses_of_windows()).chain([&INVERSES[0]]).chain(later));
}

#[test]
fn shortcuts_agree_with_the_reference() {
    Stored::open("residual").check_all(named(&["bp", "dfa", "usf"]));
}

/// With the shortcuts of `residual`.
#[test]
fn normalized_layers_agree_with_the_reference() {
    Stored::open("normalized").check_all(named(&["bp", "fa", "dfa", "kp", "frsf", "brsf", "wm", "dkp", "drtp"]));
}
