//! What cannot work is refused with one message that says why, the exit code that belongs to it, and no run's folder left behind.

use crate::site::{Site, refused, write_images};

const SHORT: &str = "[training]\nmax_steps = 3";

#[test]
fn configurations_and_shapes() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let train = |ranks: usize, set: &str| site.run(ranks, &["train", &config, "--out", "run", "--set", set]);
    refused(&train(1, "training.epoch=3"), 2, &["training.epoch", "epochs"]);
    refused(&train(2, "data.batch_size=15"), 2, &["data.batch_size = 15", "2 ranks"]);
    refused(&train(1, "data.batch_size=500"), 2, &["data.batch_size = 500", "180"]);
    refused(&train(1, "data.train=\"nowhere\""), 2, &["nowhere", "does not exist"]);
    for ranks in [1, 2] {
        refused(&train(ranks, "network.layers=[{kind=\"dense\",units=1000000000}]"), 2, &["GB of memory", "smaller layers"]);
    }
    refused(&train(1, "parallel.threads_per_rank=100000"), 2, &["threads_per_rank", "0 to 1024"]);
    refused(&site.run(2, &["train", "absent.toml"]), 2, &["absent.toml"]);
    refused(&site.run(1, &["eval", "absent"]), 2, &["absent", "no run"]);
    assert!(!site.path("run").exists(), "a refused command leaves no folder");
    let usage = site.run(1, &["train"]);
    assert_eq!(usage.code, Some(2), "{usage:?}");
}

#[test]
fn data_that_is_not_whole() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let train = |ranks: usize| site.run(ranks, &["train", &config, "--out", "run"]);
    let shard = site.path("train/00000.shard");
    let whole = std::fs::read(&shard).unwrap();
    std::fs::remove_file(&shard).unwrap();
    refused(&train(2), 1, &["00000.shard", "missing"]);
    std::fs::write(&shard, &whole[..whole.len() / 2]).unwrap();
    refused(&train(1), 1, &["00000.shard"]);
    std::fs::write(&shard, b"something else").unwrap();
    refused(&train(1), 1, &["00000.shard"]);
    let mut altered = whole.clone();
    // A pixel of the first image.
    altered[70] ^= 4;
    std::fs::write(&shard, &altered).unwrap();
    refused(&train(2), 1, &["00000.shard is altered"]);
    std::fs::write(&shard, &whole).unwrap();
    // A test set with a class that the training set lacks.
    write_images(&site.path("test-of-twelve"), 40, 12);
    refused(
        &site.run(1, &["train", &config, "--out", "run", "--set", "data.test=\"test-of-twelve\""]),
        2,
        &["test-of-twelve", "10 classes"],
    );
    assert!(!site.path("run").exists());
    site.succeed(1, &["train", &config, "--out", "run"]);
}

#[test]
fn checkpoints_of_another_network() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let written = site.path("run/config.toml");
    let text = std::fs::read_to_string(&written).unwrap();
    assert!(text.contains("units = 20"), "{text}");
    std::fs::write(&written, text.replace("units = 20", "units = 21")).unwrap();
    for ranks in [1, 2] {
        refused(&site.run(ranks, &["eval", "run"]), 2, &["another configuration", "network.layers[1].units is 20 there and 21 here"]);
    }
}

#[test]
fn a_loss_that_is_not_finite() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 500\ncheckpoint_every_steps = 1\nkeep_checkpoints = 1000\nlog_every_steps = 1";
    let config = site.configure("wild", "rule = \"bp\"", more);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("learning_rate = 0.001", "learning_rate = 1e38")).unwrap();
    for ranks in [1, 2] {
        let run = format!("run-{ranks}");
        let outcome = site.run(ranks, &["train", &config, "--out", &run]);
        refused(&outcome, 77, &["layers.", "finite"]);
        // Whatever ended it, every checkpoint that is left can be gone on from.
        for name in site.checkpoint_names(&run) {
            let bytes = std::fs::read(site.path(&run).join("checkpoints").join(name).join("model.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
            for (_, view) in tensors.tensors() {
                assert!(view.data().chunks_exact(4).all(|value| f32::from_le_bytes(value.try_into().unwrap()).is_finite()));
            }
        }
        let again = site.run(ranks, &["train", &config, "--out", &run, "--resume"]);
        refused(&again, 77, &["finite"]);
        assert!(again.stdout.contains("from step "), "{again:?}");
    }
}

#[test]
fn a_loss_that_is_not_finite_names_rule_and_layer() {
    let site = Site::new();
    let config = site.configure("wild", "rule = \"bp\"", "[training]\nmax_steps = 500");
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("learning_rate = 0.001", "learning_rate = 1e38")).unwrap();
    refused(&site.run(2, &["train", &config, "--out", "run"]), 77, &["loss is", "at step", "under bp", "layer "]);
    assert_eq!(site.checkpoint_names("run"), ["00000000"]);
}

#[test]
fn a_closed_output_stops_nothing() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 3\nlog_every_steps = 1");
    let mut command = site.command(1, &["train", &config, "--out", "run"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(site.checkpoint_names("run").last().unwrap(), "00000033");
}
