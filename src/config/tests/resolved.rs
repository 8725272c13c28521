//! The form that a run keeps, comparing two of them, and keys without effect.

use super::*;

#[test]
fn the_resolved_form_loads_again_to_the_same_configuration() {
    let everything = [
        "experiment.seed=7",
        "data.test=data/mnist/test",
        "data.validation=100",
        "data.scaling=standardize",
        "data.augment=[\"random_crop\", \"vertical_flip\"]",
        "data.crop=[24, 20]",
        "data.crop_padding=2",
        "network.output=linear",
        "learning.rule=ao_sdtp",
        "learning.schedule=alternating",
        "learning.auxiliary_units=512",
        "learning.hybrid=0.1",
        "learning.feedback_weights=transposed",
        "learning.inverse_weights=transposed",
        "optimizer.epsilon_form=hat",
        "optimizer.forward.epsilon=1e-4",
        "optimizer.inverse.learning_rate=0.000757",
        "training.max_steps=12345678901",
        "training.checkpoint_every_minutes=2.5",
        "parallel.device=cpu",
        "parallel.exchange=gradients",
        "parallel.kernels=portable",
    ];
    for (text, sets) in [(MINIMAL, &[][..]), (TARGETS, &[]), (TARGETS, &everything)] {
        let config = loaded(text, sets);
        let folder = tempfile::tempdir().unwrap();
        let again = Config::load(&write(folder.path(), "config.toml", &config.to_toml()), &[]).unwrap();
        assert_eq!(again, config, "{}", config.to_toml());
    }
}

#[test]
fn only_what_makes_another_run_is_a_difference() {
    let run = loaded(TARGETS, &[]);
    let free = loaded(
        TARGETS,
        &[
            "training.epochs=99",
            "training.max_steps=1000",
            "training.log_every_steps=1",
            "training.keep_checkpoints=9",
            "parallel.exchange=gradients",
            "parallel.threads_per_rank=2",
            "data.train=/elsewhere",
            "data.test=/elsewhere/test",
        ],
    );
    assert_eq!(run.differences(&free), []);

    let other = loaded(
        TARGETS,
        &[
            "learning.alpha=0.5",
            "data.crop=[9, 9]",
            "experiment.seed=1",
            "network.layers=[{kind = \"dense\", units = 64, nonlinearity = \"relu\"}]",
        ],
    );
    let differences = run.differences(&other);
    let keys: Vec<&str> = differences.iter().map(|difference| difference.key.as_str()).collect();
    assert_eq!(
        keys,
        [
            "data.crop",
            "experiment.seed",
            "learning.alpha",
            "network.layers[0].channels",
            "network.layers[0].kernel",
            "network.layers[0].kind",
            "network.layers[0].nonlinearity",
            "network.layers[0].stride",
            "network.layers[0].units",
            "network.layers[1].kind",
            "network.layers[1].nonlinearity",
            "network.layers[1].units",
        ]
    );
    assert_eq!(differences[0], Difference { key: "data.crop".into(), ours: "absent".into(), theirs: "[9, 9]".into() });
    assert_eq!(differences[2], Difference { key: "learning.alpha".into(), ours: "0.15".into(), theirs: "0.5".into() });
}

#[test]
fn keys_that_change_nothing_are_named() {
    const DENSE: &str = "network.layers=[{kind = \"dense\", units = 8}]";
    const LOCAL: &str = "network.layers=[{kind = \"local\", kernel = 3, channels = 8}, {kind = \"local\", kernel = 3, channels = 8}]";
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &[]),
        (&["learning.rule=bp"], &["learning.alpha", "learning.sigma"]),
        (&["learning.rule=fa", "learning.feedback_weights=transposed"], &["learning.alpha", "learning.sigma"]),
        (&["learning.feedback_weights=random"], &["learning.feedback_weights"]),
        (&["learning.rule=frsf", "learning.feedback_weights=transposed"], &["learning.alpha", "learning.sigma"]),
        (
            &["learning.rule=usf", "learning.feedback_weights=transposed"],
            &["learning.alpha", "learning.feedback_weights", "learning.sigma"],
        ),
        (&["learning.rule=brsf", "learning.feedback_weights=random"], &["learning.alpha", "learning.feedback_weights", "learning.sigma"]),
        (&["learning.inverse_weights=transposed"], &[]),
        (&["learning.rule=dfa", "learning.inverse_weights=transposed"], &["learning.alpha", "learning.inverse_weights", "learning.sigma"]),
        (&["learning.rule=sdtp"], &["learning.alpha"]),
        (&["learning.target_step=0.1"], &["learning.target_step"]),
        (&["learning.rule=sdtp", "learning.target_step=0.1"], &["learning.alpha"]),
        (&["learning.modulation=0.1"], &["learning.modulation"]),
        (&["learning.rule=pepita", "learning.modulation=0.1"], &["learning.alpha", "learning.sigma"]),
        (&["learning.rule=tp", "learning.auxiliary_units=3"], &["learning.alpha", "learning.auxiliary_units"]),
        (&["learning.rule=ao_sdtp", "learning.auxiliary_units=3", "learning.hybrid=0.1"], &["learning.alpha"]),
        (&["learning.inverse_fields=dense", "learning.inverse_growth=2"], &["learning.inverse_fields", "learning.inverse_growth"]),
        (&[LOCAL, "learning.inverse_growth=2"], &[]),
        (&[LOCAL, "learning.inverse_fields=dense", "learning.inverse_growth=2"], &["learning.inverse_growth"]),
        (&["learning.hybrid=0.1"], &[]),
        (&["learning.inverse_regularizer=0.1"], &[]),
        (&["learning.inverse_regularizer=0.1", "learning.inverses=fixed"], &["learning.inverse_regularizer", "learning.sigma"]),
        (&[DENSE, "learning.rule=sdtp", "learning.inverse_regularizer=0.1"], &["learning.alpha", "learning.inverse_regularizer"]),
        (&[DENSE, "learning.hybrid=0.1"], &["learning.hybrid", "learning.sigma"]),
        (&[DENSE, "learning.rule=sdtp"], &["learning.alpha"]),
        (
            &["learning.rule=fa", "learning.schedule=parallel", "learning.hybrid=0.1", "optimizer.inverse.beta1=0.5"],
            &["learning.alpha", "learning.hybrid", "learning.schedule", "learning.sigma", "optimizer.inverse.beta1"],
        ),
        (&["learning.inverse_gain=0.5", "learning.feedback_gain=0.5"], &["learning.feedback_gain"]),
        (&["learning.inverse_gain=0.5", "learning.inverse_weights=transposed"], &["learning.inverse_gain"]),
        (&["learning.rule=dfa", "learning.feedback_gain=0.5"], &["learning.alpha", "learning.sigma"]),
        (
            &["learning.rule=kp", "learning.feedback_gain=0.5", "learning.feedback_weights=transposed"],
            &["learning.alpha", "learning.feedback_gain", "learning.sigma"],
        ),
        (&["training.eval_every_epochs=2"], &["training.eval_every_epochs"]),
        (&["training.eval_every_epochs=2", "data.test=a"], &[]),
        (&["network.nonlinearity=relu"], &[]),
        (
            &["network.nonlinearity=relu", "network.layers=[{kind = \"dense\", units = 8, nonlinearity = \"tanh\"}]"],
            &["learning.sigma", "network.nonlinearity"],
        ),
        (&["optimizer.forward.learning_rate=1e-4", "optimizer.forward.weight_decay=1e-4"], &["optimizer.forward.weight_decay"]),
        (&["optimizer.forward.learning_rate=1e-4", "optimizer.forward.weight_decay=1e-3"], &[]),
        (&["data.crop_padding=2"], &["data.crop_padding"]),
        (&["data.crop_padding=2", "data.augment=[\"random_crop\"]"], &[]),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), "typed.toml", TARGETS);
    for (sets, expected) in cases {
        let sets: Vec<String> = sets.iter().map(|text| text.to_string()).collect();
        let mut keys: Vec<String> =
            Loaded::read(&path, &sets, Purpose::Training).unwrap().unused.into_iter().map(|unused| unused.key).collect();
        keys.sort();
        assert_eq!(keys, *expected, "{sets:?}");
    }
}

#[test]
fn data_paths_become_absolute() {
    let config = loaded(MINIMAL, &["data.test=/there"]).with_absolute_paths().unwrap();
    assert_eq!(config.data.train, std::env::current_dir().unwrap().join("data/mnist/train"));
    assert_eq!(config.data.test, Some("/there".into()));
}

#[test]
fn what_follows_another_key_no_longer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/beyond/mnist_fc_kp.toml");
    let rate = ["optimizer.forward.learning_rate=0.002".to_owned()];
    let read = |path: &Path, more: &[&str]| {
        let set: Vec<String> = rate.iter().cloned().chain(more.iter().map(|set| set.to_string())).collect();
        Loaded::read(path, &set, Purpose::Training).unwrap()
    };
    let of_feedback = |loaded: &Loaded| loaded.config.optimizer.feedback.learning_rate.most();
    let free = read(&shipped, &[]);
    assert_eq!((of_feedback(&free), &free.left_behind[..]), (0.002, &[][..]));
    // As a run's folder has it.
    let written = folder.path().join("config.toml");
    std::fs::write(&written, Config::load(&shipped, &[]).unwrap().to_toml()).unwrap();
    let bound = read(&written, &[]);
    let expected = LeftBehind { key: "optimizer.feedback.learning_rate", followed: "optimizer.forward.learning_rate" };
    assert_eq!((of_feedback(&bound), &bound.left_behind[..]), (0.0005, &[expected][..]));
    assert!(read(&written, &["optimizer.feedback.learning_rate=0.002"]).left_behind.is_empty());
}
