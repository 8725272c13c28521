//! What is refused, and in which words.

use super::*;
use crate::rules::{Setting, definitions};

#[test]
fn bad_values_are_named_with_what_was_expected_and_found() {
    let cases: &[(&str, &[&str])] = &[
        ("lerning.rule=bp", &["lerning", "unknown section", "did you mean `learning`?"]),
        ("learning.alpah=1", &["learning.alpah", "unknown key", "did you mean `alpha`?"]),
        ("training.seed=1", &["training.seed", "belongs in [experiment]"]),
        ("data.zzz=1", &["data.zzz", "known here: train, test"]),
        ("optimizer.foward.beta1=0", &["optimizer.foward", "did you mean `forward`?"]),
        ("optimizer.forward.lr=1", &["optimizer.forward.lr", "known here: learning_rate"]),
        ("network.layers=[{kind = \"dense\", unit = 3}]", &["network.layers[0].unit", "did you mean `units`?"]),
        ("network.layers=[{kind = \"dense\", units = 3, kernel = 3}]", &["network.layers[0].kernel", "kind \"dense\""]),
        ("network.layers=[{kind = \"dens\", units = 3}]", &["network.layers[0].kind", "did you mean \"dense\"?"]),
        ("network.layers=[{units = 3}]", &["network.layers[0]: kind is required"]),
        ("network.layers=[{kind = \"dense\"}]", &["network.layers[0]: units is required"]),
        ("network.layers=[{kind = \"local\", kernel = 3}]", &["network.layers[0]: channels is required"]),
        ("network.layers=[3]", &["network.layers[0]", "found 3"]),
        ("network.layers=3", &["network.layers", "an array of layers", "found 3"]),
        ("network.layers=[{kind = \"dense\", units = 0}]", &["network.layers[0].units", "found 0"]),
        ("network.layers=[{kind = \"local\", kernel = 0, channels = 1}]", &["kernel", "found 0"]),
        ("network.layers=[{kind = \"local\", kernel = 1, channels = 0}]", &["channels", "found 0"]),
        ("network.layers=[{kind = \"local\", kernel = 1, channels = 1, stride = 0}]", &["stride", "found 0"]),
        ("network.layers=[{kind = \"max_pool\", kernel = 2}]", &["network.layers[0]: stride is required"]),
        ("network.layers=[{kind = \"max_pool\", kernel = 2, stride = 2, nonlinearity = \"relu\"}]", &["nonlinearity", "kind \"max_pool\""]),
        ("network.nonlinearity=reluu", &["network.nonlinearity", "did you mean \"relu\"?"]),
        (
            "network.layers=[{kind = \"dense\", units = 3, nonlinearity = \"sigmoid\"}]",
            &["network.layers[0].nonlinearity", "\"leaky_relu\"", "found the text \"sigmoid\""],
        ),
        ("network.layers=[{kind = \"dense\", units = 2000000000}]", &["units", "from 1 to 1000000000"]),
        ("learning.rule=bpp", &["learning.rule", "\"ao_sdtp\"", "found the text \"bpp\"", "did you mean \"bp\"?"]),
        ("learning.rule=3", &["learning.rule", "expected one of \"bp\"", "found 3"]),
        ("learning.schedule=alternate", &["did you mean \"alternating\"?"]),
        ("learning.sigma=-0.1", &["learning.sigma", "0 or more", "found -0.1"]),
        ("learning.sigma=inf", &["learning.sigma", "finite", "found inf"]),
        ("learning.sigma=[0.1, -0.2]", &["learning.sigma", "or an array of such", "found the array [0.1, -0.2]"]),
        ("learning.sigma=\"0.1\"", &["learning.sigma", "found the text \"0.1\""]),
        ("learning.alpha=nan", &["learning.alpha", "finite", "found nan"]),
        ("learning.alpha=1e39", &["learning.alpha", "a finite number, 0 or more as float32, found 1000000000"]),
        ("optimizer.forward.beta1=0.99999999", &["optimizer.forward.beta1", "to below 1 as float32, found 0.99999999"]),
        ("learning.hybrid=1.5", &["learning.hybrid", "from 0 to 1", "found 1.5"]),
        ("learning.auxiliary_units=0", &["learning.auxiliary_units", "found 0"]),
        ("learning.target_step=-0.1", &["learning.target_step", "0 or more"]),
        ("data.batch_size=0", &["data.batch_size", "from 1", "found 0"]),
        ("data.batch_size=12.5", &["data.batch_size", "whole number", "found 12.5"]),
        ("data.batch_size=12a", &["data.batch_size", "found the text \"12a\""]),
        ("data.validation=-1", &["data.validation", "found -1"]),
        ("data.train=3", &["data.train", "text in quotes", "found 3"]),
        ("data.train=\"\"", &["data.train", "text in quotes", "found the text \"\""]),
        ("data.shuffle=1", &["data.shuffle", "true or false", "found 1"]),
        ("data.scaling=units", &["data.scaling", "did you mean \"unit\"?"]),
        ("data.augment=horizontal_flip", &["data.augment", "an array of names"]),
        ("data.augment=[\"flip\"]", &["data.augment", "\"vertical_flip\"", "found the text \"flip\""]),
        ("data.crop=[28]", &["data.crop", "[height, width]", "found the array [28]"]),
        ("data.crop=[70000, 70000]", &["data.crop", "to 65535"]),
        ("data.crop=[1000000, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000, 1000000]", &["1000000, 100000..."]),
        ("data.crop=[28, 0]", &["data.crop", "found the array [28, 0]"]),
        ("experiment.seed=-1", &["experiment.seed", "found -1"]),
        ("experiment.name=a/b", &["experiment.name", "without `/`"]),
        ("optimizer.forward.learning_rate=-1", &["optimizer.forward.learning_rate", "0 or more"]),
        ("optimizer.forward.beta1=1", &["optimizer.forward.beta1", "below 1", "found 1"]),
        ("optimizer.inverse.beta2=-0.1", &["optimizer.inverse.beta2", "found -0.1"]),
        ("optimizer.forward.epsilon=inf", &["optimizer.forward.epsilon", "finite"]),
        ("learning.alpha=-0.1", &["learning.alpha", "0 or more"]),
        ("optimizer.epsilon_form=hatt", &["optimizer.epsilon_form", "did you mean \"hat\"?"]),
        ("optimizer.forward=3", &["optimizer.forward", "expected a section", "found 3"]),
        ("training=3", &["training", "expected a section", "found 3"]),
        ("training.epochs=1.5", &["training.epochs", "whole number", "found 1.5"]),
        ("training.epochs=2024-01-01", &["training.epochs", "found the date 2024-01-01"]),
        ("training.keep_checkpoints=0", &["training.keep_checkpoints", "found 0"]),
        ("training.log_every_steps=0", &["training.log_every_steps", "found 0"]),
        ("training.checkpoint_every_minutes=-1", &["training.checkpoint_every_minutes", "found -1"]),
        ("parallel.device=gpu", &["parallel.device", "\"cuda\"", "found the text \"gpu\""]),
        ("parallel.kernels=avx", &["parallel.kernels", "did you mean \"avx2\"?"]),
        ("parallel.stall_timeout=0", &["parallel.stall_timeout", "above 0", "found 0"]),
        ("parallel.threads_per_rank=-2", &["parallel.threads_per_rank", "found -2"]),
        ("parallel.precision=f16", &["parallel.precision", "\"bf16\""]),
        ("learning.rule", &["expected key=value"]),
        ("learning.rule=", &["no value after `=`"]),
        ("learning..rule=bp", &["`learning..rule` is not a key"]),
        ("=bp", &["is not a key"]),
        ("data.augment=[horizontal_flip]", &["not valid TOML", "needs quotes"]),
        ("include=[\"a.toml\"]", &["include belongs in a file"]),
    ];
    for (set, expected) in cases {
        let message = refused(MINIMAL, &[set]);
        assert!(message.starts_with(set), "{message}");
        assert!(message.contains(set) || message.contains("typed.toml"), "{message}");
        for part in *expected {
            assert!(message.contains(part), "{set}: {message:?} lacks {part:?}");
        }
    }
}

#[test]
fn errors_name_the_file_and_line() {
    let cases = [
        (
            MINIMAL.replace("epochs = 3", "epochs = \"3\""),
            "typed.toml:10: training.epochs: expected a whole number, 0 or more, found the text \"3\"",
        ),
        (MINIMAL.replace("rule =", "rul ="), "typed.toml:6: learning.rul: unknown key; did you mean `rule`?"),
        (TARGETS.replace("units = 64", "units = 6.5"), "typed.toml:12: network.layers[1].units: expected a whole number"),
        (TARGETS.replace("units = 64", "width = 64"), "typed.toml:12: network.layers[1].width: unknown key"),
        (MINIMAL.replace("epochs = 3", "epochs = "), "typed.toml:10: not valid TOML"),
        (format!("{MINIMAL}epochs = 4\n"), "typed.toml:11: not valid TOML: duplicate key"),
        (String::from("include = \"a.toml\""), "typed.toml: include: expected an array of file names"),
        (String::from("include = [\"absent.toml\"]"), "absent.toml (names are relative to the including file)"),
    ];
    for (text, expected) in cases {
        let message = refused(&text, &[]);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let message = refused(TARGETS, &["network.layers=[{kind = \"dens\", units = 3}]"]);
    assert!(message.starts_with("network.layers="), "the file's layers are gone: {message}");
}

#[test]
fn required_keys_are_asked_for_by_name() {
    let cases = [
        (MINIMAL, "train = \"data/mnist/train\"", "data.train is required"),
        (MINIMAL, "batch_size = 128", "data.batch_size is required"),
        (MINIMAL, "rule = \"bp\"", "learning.rule is required"),
        (MINIMAL, "learning_rate = 1e-3", "optimizer.forward.learning_rate is required"),
        (MINIMAL, "epochs = 3", "training.epochs is required: how long to train (or training.max_steps"),
        (TARGETS, "alpha = 0.15", "learning.alpha is required by dtp: step from"),
        (TARGETS, "sigma = 0.2", "learning.sigma is required by dtp: deviation of"),
    ];
    for (text, line, expected) in cases {
        let message = refused(&text.replace(line, ""), &[]);
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
    let configurations = crate::config::find::all();
    for rule in definitions().filter(|rule| rule.uses(Setting::Sigma) && !rule.uses(Setting::Alpha)).map(|rule| rule.name) {
        let message = refused(MINIMAL, &[&format!("learning.rule={rule}")]);
        assert!(message.contains(&format!("learning.sigma is required by {rule}")), "{message}");
        assert!(message.ends_with(&format!("; biodist configs {rule} lists configurations that have it")), "{message}");
        assert!(configurations.keys().any(|name| name.contains(rule)), "{rule}");
    }
    let message = refused(TARGETS, &["learning.rule=ao_sdtp"]);
    assert!(message.contains("learning.auxiliary_units is required"), "{message}");
    loaded(&TARGETS.replace("alpha = 0.15", ""), &["learning.rule=sdtp"]);
    loaded(&MINIMAL.replace("epochs = 3", "max_steps = 0"), &[]);
}

#[test]
fn combinations_without_meaning_are_refused() {
    const DENSE: &str = "network.layers=[{kind = \"dense\", units = 8}]";
    const POOL: &str = "network.layers=[{kind = \"max_pool\", kernel = 2, stride = 2}]";
    const MIRRORED: &str = "network.layers=[{kind = \"conv\", kernel = 3, channels = 8}, \
                            {kind = \"max_pool\", kernel = 2, stride = 2}, {kind = \"dense\", units = 8}]";
    const SHORTCUT: &str =
        "network.layers=[{kind = \"dense\", units = 8}, {kind = \"dense\", units = 8}, {kind = \"dense\", units = 8, shortcut = 0}]";
    const CONV: &str = "network.layers=[{kind = \"conv\", kernel = 3, channels = 8}]";
    const LOCAL: &str = "network.layers=[{kind = \"local\", kernel = 3, channels = 8}, {kind = \"local\", kernel = 3, channels = 8}]";
    const TRANSPOSED: &str = "learning.inverse_weights=transposed";
    const FIELDS: &str = "learning.inverse_weights: \"transposed\" weights have the fields of their layers; use \"random\", or";
    let cases: &[(&[&str], Option<&str>)] = &[
        (
            &["optimizer.forward.learning_rate=[0.1, 0.2]"],
            Some("one for each layer with weights, from the lowest, of which there are 3; found 2 numbers"),
        ),
        // The inverse's is the forward model's where it is not written.
        (
            &["optimizer.forward.learning_rate=[0.1, 0.2, 0.3]"],
            Some(
                "optimizer.inverse.learning_rate: expected a number, or one for each inverse, from the lowest, of which there are 1; found 3",
            ),
        ),
        (&["optimizer.forward.learning_rate=[0.1, 0.2, 0.3]", "optimizer.inverse.learning_rate=[0.1]"], None),
        (&["optimizer.forward.learning_rate=[0.1, 0.2, 0.3]", "learning.rule=bp"], None),
        (&["learning.sigma=[0.1]"], None),
        (
            &["learning.sigma=[0.1, 0.2]"],
            Some("one for each layer that has noise below it, from the lowest, of which dtp has 1 here; found 2 numbers"),
        ),
        (&["learning.rule=sdtp", "learning.sigma=[0.1, 0.2]"], None),
        (&["learning.rule=bp", "learning.sigma=[0.1, 0.2, 0.3]"], None),
        // A pool has no mirror, and the output layer has one.
        (&["learning.rule=wm", MIRRORED, "learning.sigma=[0.1, 0.2]"], None),
        (&["learning.rule=wm", MIRRORED, "learning.sigma=[0.1, 0.2, 0.3]"], Some("of which wm has 2 here; found 3 numbers")),
        (&["learning.inverse_iterations=10922"], None),
        (&["learning.inverse_iterations=10923"], Some("learning.inverse_iterations: expected 10922 or fewer")),
        (&["learning.rule=bp", "learning.inverse_iterations=10923"], None),
        (&[LOCAL, TRANSPOSED, "learning.inverse_fields=dense"], Some(FIELDS)),
        (&[LOCAL, TRANSPOSED, "learning.inverse_growth=2"], Some(FIELDS)),
        (&[LOCAL, TRANSPOSED], None),
        (&[TRANSPOSED, "learning.inverse_fields=dense"], None),
        (&["learning.rule=tp", "learning.hybrid=0.5"], Some("learning.hybrid: tp has no difference")),
        (&["learning.rule=tp", "learning.hybrid=0"], None),
        (&["learning.hybrid=0.5"], None),
        (&["learning.rule=sdtp", "learning.target_step=0"], None),
        (&["learning.schedule=alternating"], None),
        (
            &["learning.schedule=alternating", DENSE],
            Some("learning.schedule: nothing to alternate with: dtp has no inverse in a network of 1 "),
        ),
        (&["learning.schedule=alternating", DENSE, "learning.rule=sdtp"], None),
        (&["learning.schedule=alternating", DENSE, "learning.rule=tp"], None),
        (&["learning.schedule=alternating", "network.layers=[]", "learning.rule=sdtp"], Some("sdtp has no inverse in a network of 0 ")),
        (&["learning.schedule=alternating", "learning.rule=bp"], Some("bp trains no inverses")),
        (&["learning.schedule=alternating", "learning.rule=fa"], Some("fa trains no inverses")),
        (&["learning.schedule=alternating", "learning.rule=dfa"], Some("dfa trains no inverses")),
        (&["network.layers=[]"], None),
        (
            &["network.layers=[{kind = \"dense\", units = 8}, {kind = \"local\", kernel = 3, channels = 8}]"],
            Some("network.layers: layer 1 (local) stands above layer 0 (dense)"),
        ),
        (
            &["learning.rule=bp", "network.layers=[{kind = \"dense\", units = 8}, {kind = \"conv\", kernel = 3, channels = 8}]"],
            Some("network.layers: layer 1 (conv) stands above layer 0 (dense)"),
        ),
        (
            &["learning.rule=wm", CONV, "optimizer.feedback.nesterov=true", "optimizer.feedback.method=sgd"],
            Some("optimizer.feedback.momentum: "),
        ),
        (&["optimizer.learning_rate_schedule=cosine"], None),
        (&["optimizer.learning_rate_schedule=cosine", "training.epochs=0"], Some("optimizer.cosine_epochs: a \"cosine\" schedule needs")),
        (&["optimizer.learning_rate_schedule=cosine", "optimizer.warmup_epochs=3"], Some("optimizer.cosine_epochs")),
        (
            &["optimizer.learning_rate_schedule=cosine", "optimizer.cosine_epochs=2", "optimizer.warmup_epochs=2"],
            Some("optimizer.cosine_epochs"),
        ),
        (&["learning.inverses=fixed", "learning.schedule=alternating"], None),
        (&["learning.inverses=fixed", "learning.schedule=alternating", DENSE], Some("dtp has no inverse in a network of 1 ")),
        (&[CONV], None),
        (&[POOL], None),
        (&[MIRRORED, "learning.rule=sdtp"], None),
        (
            &[MIRRORED, "learning.rule=sdtp", "learning.inverse_weights=transposed"],
            Some("learning.inverse_weights: layer 1 is max_pool, which has no weights for its inverse to begin with; use \"random\""),
        ),
        (
            &["network.layers=[{kind = \"dense\", units = 8}, {kind = \"average_pool\", kernel = 2, stride = 2}]"],
            Some("network.layers: layer 1 (average_pool) stands above layer 0 (dense)"),
        ),
        (&[CONV, "learning.rule=bp"], None),
        (&[SHORTCUT, "learning.rule=wm"], None),
        (&[SHORTCUT, "learning.rule=pepita"], Some("layer 2 has the key shortcut, which rule \"pepita\" cannot train")),
        (&["learning.rule=pepita", "learning.modulation=0"], Some("learning.modulation")),
        (
            &["parallel.device=cuda", "parallel.kernels=avx2"],
            Some("parallel.kernels: these are kernels of the CPU, and parallel.device is \"cuda\""),
        ),
        (
            &["learning.rule=pepita", "parallel.precision=tf32", "parallel.device=cuda"],
            Some("parallel.precision: pepita learns from the difference of two passes"),
        ),
        (
            &[SHORTCUT],
            Some("network.layers: layer 2 has the key shortcut, which rule \"dtp\" cannot train; leave it out, or use one of the rules bp"),
        ),
        (
            &["network.layers=[{kind = \"dense\", units = 8}, {kind = \"dense\", units = 8, from = 1}]", "learning.rule=bp"],
            Some("network.layers: layer 1 (dense) has from = 1, which is no layer below it; name one that stands below"),
        ),
        (
            &["network.layers=[{kind = \"dense\", units = 8}, {kind = \"dense\", units = 9}, {kind = \"dense\", units = 8, from = 0}]"],
            Some("network.layers: no layer reads layer 1 (dense); leave it out, or name it"),
        ),
        (&[CONV, "learning.rule=fa"], None),
        (&[CONV, "learning.rule=dfa"], None),
        (&["data.augment=[\"random_crop\"]"], Some("random_crop needs data.crop")),
        (&["data.augment=[\"random_crop\"]", "data.crop_padding=2"], None),
        (&["data.augment=[\"random_crop\"]", "data.crop=[20, 20]"], None),
        (&["data.augment=[\"random_crop\", \"random_resized_crop\"]", "data.crop=[20, 20]"], Some("exclude each other")),
        (&["data.augment=[\"vertical_flip\", \"vertical_flip\"]"], Some("named twice")),
        (&["parallel.device=cpu", "parallel.wire=bf16"], Some("parallel.wire: \"bf16\" is for what GPUs exchange")),
        (
            &["parallel.kernels=libtorch", "training.diagnostics=true"],
            Some("training.diagnostics: diagnostics are measured by this program's own kernels"),
        ),
        (
            &["learning.inverse_regularizer=0.1", "training.diagnostics=true"],
            Some("training.diagnostics: they compare one update of each layer"),
        ),
        (&["learning.inverse_regularizer=0.1", "learning.rule=bp", "training.diagnostics=true"], None),
        (&["parallel.device=cpu", "training.diagnostics=true"], None),
        (&["parallel.kernels=cuda", "training.diagnostics=true"], None),
        (&["parallel.device=cpu", "parallel.backend=nccl"], Some("parallel.backend: \"nccl\" joins GPUs")),
    ];
    for (sets, expected) in cases {
        match expected {
            Some(expected) => {
                let message = refused(TARGETS, sets);
                assert!(message.contains(expected), "{message:?} lacks {expected:?}");
            }
            None => drop(loaded(TARGETS, sets)),
        }
    }
}
