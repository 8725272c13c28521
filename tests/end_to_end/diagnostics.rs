//! Diagnostics in evaluations: the same on any number of ranks, and no trace of them in what is trained.

use serde_json::Value;

use crate::site::{Site, write_samples};

const ON: &str = "training.diagnostics=true";

fn diagnostics(site: &Site, run: &str, split: &str) -> Vec<Value> {
    let lines = site.metrics(run).into_iter().filter(|line| line["split"] == split);
    lines.map(|mut line| line["diagnostics"].take()).collect()
}

#[test]
fn are_the_same_on_any_ranks_and_leave_no_trace() {
    let site = Site::new();
    for (name, learning) in [
        ("dtp", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2"),
        ("turns", "rule = \"ao_sdtp\"\nschedule = \"alternating\"\nsigma = 0.2\nauxiliary_units = 5"),
    ] {
        let config = site.configure(name, learning, "[training]\nepochs = 3\nlog_every_steps = 4");
        let train = |ranks: usize, run: &str, more: &[&str]| {
            let run = format!("{name}-{run}");
            site.succeed(ranks, &[&["train", &config, "--out", &run], more].concat());
            run
        };
        let plain = train(1, "plain", &[]);
        let alone = train(1, "alone", &["--set", ON]);
        let two = train(2, "two", &["--set", ON, "--set", "parallel.threads_per_rank=1"]);
        site.assert_same(&alone, &two);
        assert!(site.checkpoints(&plain) == site.checkpoints(&alone), "checkpoints have the same bits with and without");
        let found = diagnostics(&site, &alone, "validation");
        assert!(found.len() == 3 && found[0] != found[2], "{found:?}");
        let last = &found[2];
        assert_eq!(last.as_object().unwrap().keys().collect::<Vec<_>>(), ["layers.0", "layers.1", "layers.2"]);
        for layer in 0..3 {
            let value = |key: &str| last[format!("layers.{layer}")].get(key).map(|value| value.as_f64().unwrap());
            let angle = value("angle_degrees").unwrap();
            assert!(if layer == 2 { angle == 0.0 } else { angle > 0.0 && angle < 180.0 }, "{last}");
            assert_eq!(value("reconstruction_error").is_some(), layer == 1 || layer == 2 && name == "turns", "{last}");
            assert_eq!(value("target_diversity").is_some(), layer < 2, "{last}");
        }
        assert!(diagnostics(&site, &alone, "test").iter().all(Value::is_null), "one evaluation of a step is enough");
        // Gradients that are summed in another order agree but for rounding.
        let summed = train(2, "summed", &["--set", ON, "--set", "parallel.exchange=\"gradients\"", "--set", "training.max_steps=11"]);
        let first = |run: &str| diagnostics(&site, run, "validation")[0]["layers.0"]["angle_degrees"].as_f64().unwrap();
        assert!((first(&summed) - first(&alone)).abs() < 1e-2, "{} {}", first(&summed), first(&alone));
    }
}

#[test]
fn are_measured_on_training_samples_where_validation_has_too_few() {
    let site = Site::new();
    let config = site.configure("few", "rule = \"fa\"", "[training]\nepochs = 1\ndiagnostics = true");
    site.succeed(1, &["train", &config, "--out", "few", "--set", "data.validation=15"]);
    assert!(diagnostics(&site, "few", "validation")[0]["layers.0"]["angle_degrees"].as_f64().unwrap() > 0.0);
    // Without validation they go with the test set's line; without that either, they do nothing, and `check` says so.
    site.succeed(1, &["train", &config, "--out", "none", "--set", "data.validation=0"]);
    assert!(diagnostics(&site, "none", "test")[0]["layers.0"]["norm_ratio"].as_f64().unwrap() > 0.0);
    let check = site.succeed(1, &["check", &config, "--set", "training.eval_every_epochs=0"]);
    assert!(check.stdout.contains("training.diagnostics") || check.stderr.contains("training.diagnostics"), "{check:?}");
}

/// Where samples are stored class by class, the first of them would be of one class alone.
#[test]
fn are_measured_on_samples_of_all_classes() {
    let site = Site::new();
    let image = |place: usize| (0..36).map(|at| (place * 37 + at * (place / 20 + 3)) as u8).collect::<Vec<u8>>();
    let by_class: Vec<(usize, Vec<u8>)> = (0..200).map(|place| (place / 20, image(place))).collect();
    let picked: Vec<_> = (0..16).map(|number| by_class[number * 200 / 16].clone()).collect();
    write_samples(&site.path("by_class"), [6, 6, 1], 10, &by_class);
    write_samples(&site.path("picked"), [6, 6, 1], 10, &picked);
    // Parameters that hardly move are the initial ones, whatever was trained on.
    let config = site.configure("still", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", "[training]\nmax_steps = 1\ndiagnostics = true");
    let found = ["by_class", "picked"].map(|data| {
        let (train, still) = (format!("data.train={data}"), "optimizer.forward.learning_rate=1e-30");
        site.succeed(1, &["train", &config, "--out", &format!("on_{data}"), "--set", &train, "--set", still, "--set", "data.validation=0"]);
        diagnostics(&site, &format!("on_{data}"), "test")
    });
    assert!(found[0][0]["layers.0"]["target_diversity"].as_f64().unwrap() > 0.0);
    assert_eq!(found[0], found[1]);
}
