//! Configurations as people write them.

mod errors;
mod files;
mod resolved;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::config::*;

const MINIMAL: &str = r#"
[data]
train = "data/mnist/train"
batch_size = 128
[learning]
rule = "bp"
[optimizer.forward]
learning_rate = 1e-3
[training]
epochs = 3
"#;

fn dense(units: usize) -> Layer {
    Layer::dense(units, Nonlinearity::Tanh)
}

const TARGETS: &str = r#"
[data]
train = "data/mnist/train"
batch_size = 128
[[network.layers]]
kind = "local"
kernel = 3
channels = 32
stride = 2
[[network.layers]]
kind = "dense"
units = 64
[learning]
rule = "dtp"
alpha = 0.15
sigma = 0.2
[optimizer.forward]
learning_rate = 1e-3
beta2 = 0.95
[training]
epochs = 3
"#;

/// Without decay.
fn adam(learning_rate: f64, beta1: f64, beta2: f64, epsilon: f64) -> ParameterGroup {
    let (method, momentum, nesterov, weight_decay) = (OptimizerMethod::Adam, 0.0, false, 0.0);
    let learning_rate = ByLayer::All(learning_rate);
    ParameterGroup { learning_rate, method, beta1, beta2, epsilon, momentum, nesterov, weight_decay }
}

fn write(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, text).unwrap();
    path
}

fn load(text: &str, overrides: &[&str]) -> Result<Config> {
    let folder = tempfile::tempdir().unwrap();
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&write(folder.path(), "typed.toml", text), &overrides)
}

fn loaded(text: &str, overrides: &[&str]) -> Config {
    load(text, overrides).unwrap_or_else(|error| panic!("{overrides:?}: {error}"))
}

fn refused(text: &str, overrides: &[&str]) -> String {
    let error = load(text, overrides).expect_err(&format!("{overrides:?} must be refused"));
    assert_eq!(crate::exit::Exit::of(&error), crate::exit::Exit::Usage);
    let text = error.to_string();
    assert!(!text.contains('\n'), "one line: {text}");
    text
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = loaded(MINIMAL, &[]);
    assert_eq!(config.experiment, Experiment { name: "typed".into(), seed: 0 });
    let data = Data {
        train: "data/mnist/train".into(),
        test: None,
        validation: 0,
        batch_size: 128,
        shuffle: true,
        scaling: Scaling::Unit,
        augment: vec![],
        crop: None,
        crop_padding: 0,
    };
    assert_eq!(config.data, data);
    assert_eq!(config.network, Network { output: Output::Softmax, nonlinearity: Nonlinearity::Tanh, layers: vec![] });
    let learning = Learning {
        rule: Rule::BP,
        schedule: Schedule::Parallel,
        alpha: None,
        sigma: None,
        target_step: 1.0,
        inverse_iterations: 1,
        inverses: InverseChoice::Trained,
        label_smoothing: 0.0,
        auxiliary_units: None,
        hybrid: 0.0,
        modulation: 0.005,
        inverse_regularizer: 0.0,
        feedback_weights: BackwardWeights::Random,
        inverse_weights: BackwardWeights::Random,
        forward_gain: 1.0,
        feedback_gain: 1.0,
        inverse_gain: 1.0,
        inverse_fields: InverseFields::Own,
        inverse_growth: 0,
        initial: None,
        own: BTreeMap::new(),
    };
    assert_eq!(config.learning, learning);
    let plain = adam(1e-3, 0.9, 0.999, 1e-8);
    let optimizer = Optimizer {
        epsilon_form: EpsilonForm::Standard,
        learning_rate_schedule: LearningRateSchedule::Constant,
        warmup_epochs: 0.0,
        step_epochs: 30,
        step_factor: 0.1,
        cosine_epochs: None,
        forward: plain.clone(),
        inverse: plain.clone(),
        feedback: plain,
    };
    assert_eq!(config.optimizer, optimizer);
    let training = Training {
        epochs: Some(3),
        max_steps: None,
        eval_every_epochs: 1,
        eval_every_steps: 0,
        checkpoint_every_epochs: 1,
        checkpoint_every_steps: 0,
        checkpoint_every_minutes: 0.0,
        keep_checkpoints: 2,
        log_every_steps: 50,
        diagnostics: false,
    };
    assert_eq!(config.training, training);
    let parallel = Parallel {
        device: Device::Auto,
        backend: TransportChoice::Auto,
        exchange: ExchangeChoice::Auto,
        overlap: true,
        wire: Wire::F32,
        threads_per_rank: 0,
        precision: Precision::F32,
        stall_timeout: 300.0,
        verify_every_steps: 0,
        kernels: KernelChoice::Auto,
    };
    assert_eq!(config.parallel, parallel);
}

#[test]
fn overrides_take_toml_values_and_bare_text() {
    let config = loaded(
        MINIMAL,
        &[
            "data.train=elsewhere/a=b",
            "data.test = \"quoted\"",
            "data.shuffle=false",
            "data.augment=[\"horizontal_flip\", \"random_crop\"]",
            "data.crop=[28, 24]",
            "learning.rule=fa",
            "training.epochs=7",
            "training.epochs=8",
            "optimizer.forward.learning_rate=1",
            "optimizer.inverse={learning_rate = 0.5, beta1 = 0.0}",
            "network.layers=[{kind = \"local\", kernel = 5, channels = 2}, {kind = \"dense\", units = 10}]",
        ],
    );
    assert_eq!(config.data.train, Path::new("elsewhere/a=b"));
    assert_eq!(config.data.test.as_deref(), Some(Path::new("quoted")));
    assert!(!config.data.shuffle);
    assert_eq!(config.data.augment, [Augment::HorizontalFlip, Augment::RandomCrop]);
    assert_eq!(config.data.crop, Some([28, 24]));
    assert_eq!(config.learning.rule, Rule::FA);
    assert_eq!(config.training.epochs, Some(8), "the last one wins");
    assert_eq!(config.optimizer.forward.learning_rate, ByLayer::All(1.0));
    assert_eq!(config.optimizer.inverse, adam(0.5, 0.0, 0.999, 1e-8));
    assert_eq!(config.network.layers, [Layer::local(5, 2, 1, Nonlinearity::Tanh), dense(10)]);
}

#[test]
fn a_cosine_falls_over_the_epochs_of_the_run() {
    let cosine = "optimizer.learning_rate_schedule=cosine";
    let of = |sets: &[&str]| loaded(MINIMAL, sets).optimizer.cosine_epochs;
    assert_eq!(of(&[cosine]), Some(3.0));
    assert_eq!(of(&[cosine, "training.epochs=8", "training.max_steps=5"]), Some(8.0));
    assert_eq!(of(&[cosine, "training.epochs=8", "optimizer.cosine_epochs=5"]), Some(5.0));
    assert_eq!(of(&["training.epochs=8"]), None, "runs without one are what they were");
    // What a run writes is the number, which another length leaves.
    let written = loaded(MINIMAL, &[cosine]).to_toml();
    assert_eq!(loaded(&written, &["training.epochs=8"]).optimizer.cosine_epochs, Some(3.0));
    let steps = MINIMAL.replace("epochs = 3", "max_steps = 3");
    assert!(refused(&steps, &[cosine]).contains("optimizer.cosine_epochs: a \"cosine\" schedule needs the epochs to its end"));
}

#[test]
fn layers_take_the_networks_nonlinearity_or_have_their_own() {
    let layers = r#"network.layers=[{kind = "dense", units = 5}, {kind = "dense", units = 4, nonlinearity = "gelu"}]"#;
    let of = |sets: &[&str]| -> Vec<Nonlinearity> {
        loaded(MINIMAL, &[sets, &[layers]].concat()).network.layers.iter().map(Layer::nonlinearity).collect()
    };
    assert_eq!(of(&[]), [Nonlinearity::Tanh, Nonlinearity::Gelu]);
    assert_eq!(of(&["network.nonlinearity=relu"]), [Nonlinearity::Relu, Nonlinearity::Gelu]);
    let described: Vec<String> = loaded(MINIMAL, &[layers]).network.layers.iter().map(Layer::describe).collect();
    assert_eq!(described, ["dense 5", "dense 4, gelu"]);
}

#[test]
fn the_inverse_optimizer_takes_the_forward_ones_values_key_by_key() {
    let config = loaded(TARGETS, &["optimizer.inverse.learning_rate=0.25"]);
    assert_eq!(config.optimizer.inverse, adam(0.25, 0.9, 0.95, 1e-8));
}

#[test]
fn includes_come_first_and_their_order_counts() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "shared/base.toml", MINIMAL);
    write(
        folder.path(),
        "shared/deep/long.toml",
        "include = [\"../seed.toml\"]\n[training]\nepochs = 500\n[optimizer.forward]\nbeta1 = 0.5\n",
    );
    write(folder.path(), "shared/seed.toml", "[experiment]\nseed = 9\n");
    let main = write(
        folder.path(),
        "top.toml",
        "include = [\"shared/base.toml\", \"shared/deep/long.toml\", \"shared/seed.toml\"]\n[data]\nbatch_size = 64\n[optimizer.forward]\nbeta2 = 0.5",
    );
    let config = Config::load(&main, &[]).unwrap();
    assert_eq!(config.experiment, Experiment { name: "top".into(), seed: 9 });
    assert_eq!(config.training.epochs, Some(500), "a later include wins");
    assert_eq!(config.data.batch_size, 64, "the including file wins");
    assert_eq!(config.optimizer.forward, adam(1e-3, 0.5, 0.5, 1e-8));

    write(folder.path(), "shared/seed.toml", "[experiment]\nsead = 9\n");
    let message = Config::load(&main, &[]).unwrap_err().to_string();
    assert!(message.contains("shared/seed.toml:2: experiment.sead"), "the included file is named: {message}");

    write(folder.path(), "shared/seed.toml", "include = [\"../top.toml\"]\n");
    let message = Config::load(&main, &[]).unwrap_err().to_string();
    assert!(message.contains("round in a circle") && message.contains("seed.toml ->"), "{message}");
}

#[test]
fn layers_given_again_replace_the_included_ones() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "base.toml", TARGETS);
    let main = write(folder.path(), "top.toml", "include = [\"base.toml\"]\n[[network.layers]]\nkind = \"dense\"\nunits = 5\n");
    assert_eq!(Config::load(&main, &[]).unwrap().network.layers, [dense(5)]);
}

#[test]
fn shapes_need_neither_data_nor_a_length() {
    let text = MINIMAL.replace("epochs = 3", "").replace("train = \"data/mnist/train\"", "");
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "typed.toml", &text);
    let config = Loaded::read(&path, &[], Purpose::Shapes).unwrap().config;
    assert_eq!((config.data.train, config.training.epochs), (PathBuf::new(), None));
    assert!(Loaded::read(&path, &[], Purpose::Training).is_err());
}
