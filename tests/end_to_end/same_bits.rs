//! One configuration, one result: whatever the number of ranks and threads. Whole runs under mpirun; `numerics::meetings` has every rule.

use crate::site::Site;

/// Ranks and threads of each.
const LAYOUTS: [(usize, usize); 3] = [(1, 2), (2, 1), (4, 1)];

fn compare(learning: &str, more: &str) {
    let site = Site::new();
    let config = site.configure("same", learning, more);
    site.succeed(1, &["train", &config, "--out", "alone", "--set", "parallel.threads_per_rank=1"]);
    for (ranks, threads) in LAYOUTS {
        let (run, threads) = (format!("{ranks}x{threads}"), format!("parallel.threads_per_rank={threads}"));
        site.succeed(ranks, &["train", &config, "--out", &run, "--set", &threads]);
        site.assert_same("alone", &run);
    }
    assert_eq!(site.checkpoint_names("alone"), ["00000000", "00000022", "00000033"]);
    let last = &site.metrics("alone")[site.metrics("alone").len() - 1];
    assert_eq!((last["split"].as_str(), last["step"].as_u64(), last["epoch"].as_u64()), (Some("test"), Some(33), Some(3)));
}

const THREE_EPOCHS: &str = "[training]\nepochs = 3\nlog_every_steps = 4";

#[test]
fn difference_target_propagation_with_noise_and_hybrid_targets() {
    compare("rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2\nhybrid = 0.3", THREE_EPOCHS);
}

#[test]
fn auxiliary_outputs_with_an_alternating_schedule() {
    compare("rule = \"ao_sdtp\"\nschedule = \"alternating\"\nsigma = 0.2\nauxiliary_units = 13", THREE_EPOCHS);
}

const SGD: &str = "[training]\nepochs = 3\nlog_every_steps = 4\n[optimizer]\nlearning_rate_schedule = \"cosine\"\ncosine_epochs = 3\n\
                   warmup_epochs = 0.5\n[optimizer.feedback]\nmethod = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.1";

#[test]
fn feedback_that_learns() {
    compare("rule = \"kp\"", SGD);
}

#[test]
fn what_a_rule_keeps_beside_the_layers_is_resumed() {
    compare("rule = \"wm\"\nsigma = 0.5", SGD);
    for rule in ["wm", "brsf", "pepita"] {
        let site = Site::new();
        let learning = format!("rule = \"{rule}\"{}", if rule == "wm" { "\nsigma = 0.5" } else { "" });
        let config = site.configure("resumed", &learning, if rule == "wm" { SGD } else { THREE_EPOCHS });
        site.succeed(2, &["train", &config, "--out", "whole"]);
        site.succeed(2, &["train", &config, "--out", "parts", "--set", "training.max_steps=17"]);
        site.succeed(1, &["train", &config, "--out", "parts", "--resume"]);
        let last = |run: &str, file: &str| site.checkpoints(run)[&std::path::Path::new("00000033").join(file)].clone();
        for file in ["model.safetensors", "optimizer.safetensors"] {
            assert!(last("whole", file) == last("parts", file), "{rule}: {file}");
        }
    }
}

#[test]
fn convolutional_layers() {
    let site = Site::new();
    for rule in ["fa", "dfa", "pepita"] {
        let config = site.configure(rule, &format!("rule = \"{rule}\""), THREE_EPOCHS);
        let residual = if rule == "pepita" { "" } else { ", normalization=\"batch\", shortcut=0" };
        let conv = &format!(
            "network.layers=[{{kind=\"conv\", kernel=3, channels=5}}, {{kind=\"conv\", kernel=3, channels=5{residual}}}, \
             {{kind=\"max_pool\", kernel=2, stride=2}}, {{kind=\"dense\", units=16, nonlinearity=\"gelu\"}}]"
        );
        for ranks in [1, 2, 4] {
            site.succeed(ranks, &["train", &config, "--out", &format!("{rule}{ranks}"), "--set", conv]);
        }
        site.assert_same(&format!("{rule}1"), &format!("{rule}2"));
        site.assert_same(&format!("{rule}1"), &format!("{rule}4"));
        // Layers without parameters are in no checkpoint, and nobody misses them.
        let resume = ["train", &config, "--out", &format!("{rule}2"), "--resume", "--set", conv, "--set", "training.epochs=4"];
        site.succeed(1, &resume);
        assert!(site.succeed(1, &["eval", &format!("{rule}2")]).stdout.contains("checkpoint 44"));
    }
}

#[test]
fn summed_gradients_agree_but_for_rounding() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 50\nlog_every_steps = 1\n[parallel]\nexchange = \"gradients\"\nverify_every_steps = 3";
    let config = site.configure("summed", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", more);
    site.succeed(1, &["train", &config, "--out", "alone"]);
    site.succeed(2, &["train", &config, "--out", "two"]);
    site.succeed(2, &["train", &config, "--out", "blocking", "--set", "parallel.overlap=false"]);
    site.assert_same("two", "blocking");
    let (alone, two) = (site.metrics("alone"), site.metrics("two"));
    assert_eq!(alone.len(), two.len());
    let mut losses = 0;
    for (ours, theirs) in alone.iter().zip(&two) {
        assert_eq!((&ours["split"], &ours["step"]), (&theirs["split"], &theirs["step"]));
        for key in ["loss", "inverse_loss"] {
            if let (Some(ours), Some(theirs)) = (ours[key].as_f64(), theirs[key].as_f64()) {
                assert!((ours - theirs).abs() <= 1e-5 * ours.max(1.0), "{key}: {ours} and {theirs}");
                losses += 1;
            }
        }
    }
    assert!(losses >= 100, "{losses}");
}

#[test]
fn a_resumed_run_of_gradients_has_its_moments_on_every_rank() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 20\nlog_every_steps = 1\n[parallel]\nexchange = \"gradients\"";
    let config = site.configure("summed", "rule = \"bp\"", more);
    site.succeed(2, &["train", &config, "--out", "whole"]);
    site.succeed(2, &["train", &config, "--out", "parts", "--set", "training.max_steps=7"]);
    site.succeed(2, &["train", &config, "--out", "parts", "--resume"]);
    let last = |run: &str| site.checkpoints(run)[std::path::Path::new("00000020/model.safetensors")].clone();
    assert!(last("whole") == last("parts"));
}

#[test]
fn evaluation_is_the_same_on_any_number_of_ranks() {
    let site = Site::new();
    let config = site.configure("same", "rule = \"bp\"", "[training]\nepochs = 1");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let evaluate = |ranks: usize| -> serde_json::Value {
        let stdout = site.succeed(ranks, &["eval", "run", "--json"]).stdout;
        let mut value: serde_json::Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
        value.as_object_mut().unwrap().shift_remove("seconds");
        value
    };
    let alone = evaluate(1);
    assert_eq!((alone["samples"].as_u64(), alone["checkpoint"].as_u64()), (Some(53), Some(11)));
    let errors = alone["top1_errors"].as_u64().unwrap();
    assert_eq!(alone["top1_error"].as_f64().unwrap(), errors as f64 / 53.0);
    let line = site.metrics("run").into_iter().find(|line| line["split"] == "test").unwrap();
    assert_eq!((&line["loss"], &line["top1_error"]), (&alone["loss"], &alone["top1_error"]));
    // 53 samples on 3 ranks: parts of different length, and a batch that 3 does not divide.
    for ranks in [2, 3] {
        assert_eq!(evaluate(ranks), alone, "{ranks} ranks");
    }
    let first = site.succeed(1, &["eval", "run", "--checkpoint", "0"]).stdout;
    assert!(first.contains("checkpoint 0") && first.contains("53 test samples"), "{first}");
}
