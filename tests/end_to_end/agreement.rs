//! Ranks that were not given the same do not train together.

use crate::site::{Outcome, Site, images, write_samples};

fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("the ranks were not given the same")).collect();
    assert_eq!(said.len(), 1, "said once: {outcome:?}");
    parts.iter().for_each(|part| assert!(said[0].contains(part), "{part} in {outcome:?}"));
}

/// A site with other copies of its data: `train-copy` and `test-copy` are equal, `train-order`, `train-dark`, `test-dark` are not.
fn site() -> Site {
    let site = Site::new();
    let dark = |samples: Vec<(usize, Vec<u8>)>| -> Vec<_> {
        samples.into_iter().map(|(label, pixels)| (label, pixels.into_iter().map(|pixel| pixel / 2).collect())).collect()
    };
    let write = |name: &str, samples: &[(usize, Vec<u8>)]| write_samples(&site.path(name), [6, 6, 1], 10, samples);
    let (train, test) = (images(200, 10), images(53, 10));
    write("train-copy", &train);
    write("test-copy", &test);
    write("train-order", &train.iter().rev().cloned().collect::<Vec<_>>());
    write("train-dark", &dark(train));
    write("test-dark", &dark(test));
    site
}

#[test]
fn what_a_rank_was_given_differs() {
    let site = site();
    let config = site.configure("net", "rule = \"bp\"", "[training]\nepochs = 1");
    let train = |more: &[&str]| {
        let own = ["train", config.as_str(), "--out", "run"];
        site.run_each(&[&own, &[&own[..], more].concat()])
    };
    for (set, parts) in [
        ("data.train=train-order", ["data.train", "checksum of its shards"]),
        ("data.train=train-dark", ["data.train", "checksum of its shards"]),
        ("data.test=test-dark", ["data.test", "checksum of its shards"]),
        ("optimizer.forward.learning_rate=0.01", ["optimizer.forward.learning_rate is 0.001 on rank 0", "and 0.01 on rank 1"]),
        ("experiment.seed=7", ["experiment.seed is 0 on rank 0", "and 7 on rank 1"]),
        ("training.log_every_steps=3", ["training.log_every_steps is 50 on rank 0", "and 3 on rank 1"]),
        ("training.epochs=2", ["training.epochs is 1 on rank 0", "and 2 on rank 1"]),
        ("data.validation=30", ["data.validation is 20 on rank 0", "and 30 on rank 1"]),
        ("parallel.kernels=portable", ["parallel.kernels is \"auto\" on rank 0", "and \"portable\" on rank 1"]),
    ] {
        refused(&train(&["--set", set]), &parts);
    }
    refused(&train(&["--resume"]), &["--resume is false on rank 0", "true on rank 1"]);
    refused(&train(&["--trace", "trace.json"]), &["--trace is absent on rank 0", "given on rank 1"]);
    refused(&train(&["--seeds", "1,2"]), &["--seeds and --vary is absent on rank 0", "experiment.seed=1,2 on rank 1"]);
    assert!(!site.path("run").exists(), "nothing was begun");
}

#[test]
fn one_of_four_ranks_differs_and_other_commands_compare_too() {
    let site = site();
    let config = site.configure("net", "rule = \"bp\"", "[training]\nepochs = 1");
    let train = ["train", config.as_str(), "--out", "run"];
    let seed: Vec<&str> = [&train[..], &["--set", "experiment.seed=7"]].concat();
    refused(&site.run_each(&[&train, &train, &train, &seed]), &["experiment.seed", "on rank 3"]);
    refused(&site.run_each(&[&train, &["check", &config]]), &["the command is train on rank 0", "check on rank 1"]);

    // Equal copies elsewhere, another name, other threads: the same bits as one rank.
    site.succeed(1, &["train", &config, "--out", "alone"]);
    std::fs::copy(site.path(&config), site.path("renamed.toml")).unwrap();
    let copies = ["train", "renamed.toml", "--out", "run", "--set", "data.train=train-copy", "--set", "data.test=test-copy"];
    let outcome = site.run_each(&[&train, &[&copies[..], &["--set", "parallel.threads_per_rank=1"]].concat()]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    site.assert_same("alone", "run");

    let eval = ["eval", "run"];
    refused(&site.run_each(&[&eval, &["eval", "run", "--set", "data.test=test-dark"]]), &["data.test", "checksum of its shards"]);
    let bench = ["bench", "step", config.as_str(), "--input", "6x6x1", "--classes", "10", "--steps", "2"];
    let larger: Vec<&str> = [&bench[..], &["--set", "data.batch_size=32"]].concat();
    refused(&site.run_each(&[&bench, &larger]), &["data.batch_size is 16 on rank 0", "32 on rank 1"]);
}
