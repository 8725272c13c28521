//! Photographs: frames that differ, random crops, mirroring and standardisation on the way into locally connected layers.

use std::time::Duration;

use shards::format::Encoding;
use shards::{DatasetWriter, Description, PixelSums};

use crate::resume::kill_while_training;
use crate::site::{Site, lines, wait_for};

/// Colour pictures of frames from 9 x 9 to 12 x 13; which half is bright, and in which channel, tells the class.
fn write_photos(site: &Site, name: &str, samples: usize) {
    let class_names = ["left", "right", "upper"].map(str::to_owned).to_vec();
    let description = Description { channels: 3, class_names, encoding: Encoding::Raw, made_by: "a test".into() };
    let writer = DatasetWriter::begin(&site.path(name), description).unwrap();
    let shards = (0..2).map(|number| {
        let mut shard = writer.shard(number).unwrap();
        for sample in (number..samples).step_by(2) {
            let (height, width, label) = (9 + sample % 4, 9 + sample % 5, sample % 3);
            let bright = |y: usize, x: usize| [2 * x < width, 2 * x >= width, 2 * y < height][label];
            let pixel = |at: usize| {
                let (y, x, channel) = (at / 3 / width, at / 3 % width, at % 3);
                (at * 37 % 64 + sample * 5 % 32 + if bright(y, x) && channel == label { 150 } else { 0 }) as u8
            };
            let pixels: Vec<u8> = (0..height * width * 3).map(pixel).collect();
            shard.add(&pixels, (height as u32, width as u32), label as u32, &PixelSums::of(&pixels, 3)).unwrap();
        }
        shard.finish().unwrap()
    });
    let shards = shards.collect();
    writer.finish(shards).unwrap();
}

fn configure(site: &Site) -> String {
    write_photos(site, "photos", 120);
    write_photos(site, "more_photos", 30);
    let text = "
        [data]
        train = \"photos\"
        test = \"more_photos\"
        batch_size = 16
        scaling = \"standardize\"
        augment = [\"random_crop\", \"horizontal_flip\", \"vertical_flip\"]
        crop = [8, 8]
        crop_padding = 1
        [[network.layers]]
        kind = \"local\"
        kernel = 3
        channels = 6
        stride = 2
        [[network.layers]]
        kind = \"local\"
        kernel = 2
        channels = 5
        [learning]
        rule = \"dtp\"
        alpha = 0.1
        sigma = 0.1
        [optimizer.forward]
        learning_rate = 0.003
        [training]
        epochs = 120
        log_every_steps = 5
        eval_every_epochs = 5
        checkpoint_every_steps = 18
        checkpoint_every_epochs = 3
        keep_checkpoints = 100";
    std::fs::write(site.path("photos.toml"), text).unwrap();
    "photos.toml".to_owned()
}

#[test]
fn killed_and_resumed_on_other_ranks_they_give_the_same_bits() {
    let site = Site::new();
    let config = configure(&site);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    for (kill, ranks) in [2, 1, 2].into_iter().enumerate() {
        kill_while_training(&site, ranks, &config, "killed", Duration::from_micros(2_300 * kill as u64));
    }
    site.succeed(2, &["train", &config, "--out", "killed", "--resume"]);
    site.assert_same("whole", "killed");
    // Chance is two thirds.
    let last = site.metrics("whole").into_iter().rfind(|line| line["split"] == "test").unwrap();
    assert!(last["top1_error"].as_f64().unwrap() < 0.2, "{last}");
}

#[test]
fn a_shard_that_changes_under_a_running_job_ends_it_with_its_name() {
    for ranks in [1, 2] {
        let site = Site::new();
        let config = configure(&site);
        let job = site.start(ranks, &["train", &config, "--out", "run", "--set", "training.epochs=1000000"]);
        let metrics = site.path("run").join("metrics.jsonl");
        wait_for("a line of metrics", || lines(&metrics) > 0);
        let shard = std::fs::OpenOptions::new().write(true).open(site.path("photos/00001.shard")).unwrap();
        shard.set_len(100).unwrap();
        let outcome = job.wait();
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        assert!(outcome.stderr.contains("00001.shard"), "{outcome:?}");
        assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("Bus error"), "{outcome:?}");
    }
}
