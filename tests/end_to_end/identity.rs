//! Results are of the data and the run that they claim to be of.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::site::{Job, Site, images, lines, refused, wait_for, write_samples};

const STANDARDIZED: &str = "rule = \"bp\"";
const SHORT: &str = "[training]\nepochs = 2\nlog_every_steps = 5";

/// Writes data of the site's shape whose pixels are a quarter as bright.
fn write_dark(site: &Site, name: &str, samples: usize) {
    let dark = images(samples, 10).into_iter().map(|(label, pixels)| (label, pixels.into_iter().map(|pixel| pixel / 4).collect()));
    write_samples(&site.path(name), [6, 6, 1], 10, &dark.collect::<Vec<_>>());
}

fn rename(site: &Site, from: &str, to: &str) {
    std::fs::rename(site.path(from), site.path(to)).unwrap();
}

fn result(site: &Site, ranks: usize, arguments: &[&str]) -> Value {
    let outcome = site.succeed(ranks, &[&["eval", "run", "--json"], arguments].concat());
    serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn a_checkpoint_knows_the_scale_of_its_training_data() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("batch_size", "scaling = \"standardize\"\nbatch_size")).unwrap();
    site.succeed(1, &["train", &config, "--out", "run"]);
    let recorded = site.metrics("run").into_iter().rfind(|line| line["split"] == "test").unwrap();
    // Whatever lies at data.train now, and if nothing does.
    rename(&site, "train", "away");
    for ranks in [1, 2] {
        let found = result(&site, ranks, &[]);
        assert_eq!((&found["loss"], &found["top1_error"]), (&recorded["loss"], &recorded["top1_error"]));
    }
    write_dark(&site, "train", 200);
    assert_eq!(result(&site, 1, &[])["loss"], recorded["loss"]);
    assert_eq!(result(&site, 1, &["--set", "data.train=away"])["loss"], recorded["loss"]);
    for ranks in [1, 2] {
        refused(&site.run(ranks, &["eval", "run", "--set", "data.train=train"]), 2, &["data.train holds other data", "and was"]);
    }
    // What was trained with is no matter of taste.
    refused(&site.run(1, &["eval", "run", "--set", "data.scaling=unit"]), 2, &["data.scaling is \"standardize\" there and \"unit\" here"]);
}

#[test]
fn a_test_set_is_known_by_what_it_holds() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let before = result(&site, 1, &[]);
    rename(&site, "test", "away");
    write_dark(&site, "test", 53);
    for ranks in [1, 2] {
        refused(&site.run(ranks, &["eval", "run"]), 2, &["data.test holds other data", "and was", "--set data.test=DIR"]);
    }
    // As advised: by name other data are allowed, and said to be others.
    let other = result(&site, 1, &["--set", "data.test=test"]);
    assert_ne!((&other["loss"], &other["data"]), (&before["loss"], &before["data"]));
    assert!(site.succeed(1, &["eval", "run", "--set", "data.test=test"]).stdout.contains("another test set than the run's own"));
    assert_eq!(result(&site, 2, &["--set", "data.test=away"])["loss"], before["loss"]);

    let longer = ["train", config.as_str(), "--out", "run", "--resume", "--set", "training.epochs=3"];
    for ranks in [1, 2] {
        refused(&site.run(ranks, &longer), 2, &["data.test holds other data", "one curve of two test sets"]);
    }
    // Not even after a while without one.
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("test = \"test\"", "")).unwrap();
    site.succeed(1, &longer);
    std::fs::write(site.path(&config), &text).unwrap();
    let longer = [&longer[..], &["--set", "training.epochs=4"]].concat();
    refused(&site.run(1, &longer), 2, &["one curve of two test sets"]);
    site.succeed(2, &[&longer[..], &["--set", "data.test=away"]].concat());
}

#[test]
fn a_checkpoint_knows_its_run() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    site.succeed(1, &["train", &config, "--out", "a"]);
    let seven = ["train", config.as_str(), "--set", "experiment.seed=7", "--set", "training.epochs=3", "--resume", "--out"];
    // Another run's checkpoints, in a run's folder or in one without its configuration.
    site.succeed(1, &["train", &config, "--set", "experiment.seed=7", "--out", "b", "--set", "training.epochs=1"]);
    std::fs::remove_dir_all(site.path("b/checkpoints")).unwrap();
    rename(&site, "a/checkpoints", "b/checkpoints");
    refused(&site.run(1, &[&seven[..], &["b"]].concat()), 2, &["checkpoint 22", "experiment.seed is 0 there and 7 here"]);
    refused(&site.run(1, &["eval", "b"]), 2, &["experiment.seed is 0 there and 7 here"]);
    std::fs::remove_file(site.path("b/config.toml")).unwrap();
    refused(&site.run(2, &[&seven[..], &["b"]].concat()), 2, &["experiment.seed is 0 there and 7 here"]);
    // The run's own configuration goes on.
    let own = ["train", config.as_str(), "--set", "training.epochs=3", "--resume", "--out", "b"];
    site.succeed(1, &own);
    assert_eq!(site.checkpoint_names("b").last().unwrap(), "00000033");
}

#[test]
fn only_a_runs_own_files_are_written_over() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    std::fs::create_dir(site.path("mine")).unwrap();
    for name in ["config.toml", "metrics.jsonl", "run.json", "best.json", "checkpoints"] {
        let path = site.path("mine").join(name);
        std::fs::write(&path, "{\"mine\": true}\n").unwrap();
        for resume in [&[][..], &["--resume"]] {
            let outcome = site.run(1, &[&["train", config.as_str(), "--out", "mine"], resume].concat());
            refused(&outcome, 2, &[&format!("mine/{name} is there already"), "another --out"]);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"mine\": true}\n");
        assert_eq!(std::fs::read_dir(site.path("mine")).unwrap().count(), 1, "nothing else was made");
        std::fs::remove_file(&path).unwrap();
    }
    std::fs::write(site.path("mine/notes.txt"), "hello").unwrap();
    site.succeed(1, &["train", &config, "--out", "mine"]);
    // A run goes on where its own configuration lies.
    let again = site.succeed(2, &["train", "mine/config.toml", "--resume", "--set", "training.epochs=3"]);
    assert!(again.stdout.contains("from step 22 on"), "{again:?}");
    let mut within = site.command(1, &["train", "config.toml", "--resume", "--set", "training.epochs=4"]);
    let outcome = Job::start(
        {
            within.current_dir(site.path("mine"));
            within
        },
        None,
    )
    .wait();
    assert!(outcome.code == Some(0) && outcome.stdout.contains("from step 33 on"), "{outcome:?}");
    assert!(!site.path("runs").exists() && !site.path("mine/runs").exists());
    assert_eq!(site.checkpoint_names("mine").last().unwrap(), "00000044");
}

#[test]
fn a_run_is_its_folder_and_not_its_path() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, "[training]\nepochs = 100000\nlog_every_steps = 50\ncheckpoint_every_steps = 200");
    let start = |ranks: usize, run: &str, more: &[&str]| {
        let job = site.start(ranks, &[&["train", config.as_str(), "--out", run], more].concat());
        wait_for("lines of metrics", || lines(&site.path(run).join("metrics.jsonl")) > 5 || !job.runs());
        job
    };
    // Removed, between two files that it writes, and another run begun in its path: the other is let alone.
    let never = ["--set", "training.checkpoint_every_steps=0", "--set", "training.checkpoint_every_epochs=0"];
    let job = start(2, "removed", &[&never[..], &["--set", "training.eval_every_epochs=0"]].concat());
    std::fs::remove_dir_all(site.path("removed")).unwrap();
    site.succeed(1, &["train", &config, "--out", "removed", "--set", "training.epochs=2", "--set", "experiment.seed=7"]);
    refused(&job.wait(), 1, &["removed", "was removed while the run in it trained"]);
    let other = ["train", config.as_str(), "--out", "removed", "--resume", "--set", "experiment.seed=7", "--set", "training.epochs=2"];
    assert!(site.succeed(1, &other).stdout.contains("is finished"));

    // Moved: it goes on, and ends where it is.
    let job = start(1, "before", &[]);
    rename(&site, "before", "after");
    wait_for("more lines", || lines(&site.path("after/metrics.jsonl")) > 20);
    job.signal(libc::SIGTERM);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert!(outcome.stderr.contains("before was moved to"), "{outcome:?}");
    assert!(!site.path("before").exists());
    let last: u64 = site.checkpoint_names("after").last().unwrap().parse().unwrap();
    let more = format!("training.max_steps={}", last + 1);
    let again = site.succeed(1, &["train", &config, "--out", "after", "--resume", "--set", &more]);
    assert!(again.stdout.contains(&format!("from step {last} on")), "{again:?}");
}

#[test]
fn parameters_that_are_not_finite_are_no_result() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let folder = site.path("run/checkpoints/00000022");
    for value in [f32::NAN, f32::INFINITY] {
        // The last number of the file, with the checksums that a program which wrote it would have given it.
        let mut model = std::fs::read(folder.join("model.safetensors")).unwrap();
        let at = model.len() - 4;
        model[at..].copy_from_slice(&value.to_le_bytes());
        std::fs::write(folder.join("model.safetensors"), &model).unwrap();
        let mut state: Value = serde_json::from_slice(&std::fs::read(folder.join("state.json")).unwrap()).unwrap();
        state["files"]["model.safetensors"]["crc32"] = crc32fast::hash(&model).into();
        state.as_object_mut().unwrap().shift_remove("crc32");
        let crc32 = format!("{:08x}", crc32fast::hash(state.to_string().as_bytes()));
        state["crc32"] = crc32.into();
        std::fs::write(folder.join("state.json"), state.to_string()).unwrap();
        for ranks in [1, 2] {
            refused(&site.run(ranks, &["eval", "run"]), 77, &["model.safetensors holds", "--checkpoint STEP"]);
            let longer = ["train", config.as_str(), "--out", "run", "--resume", "--set", "training.epochs=3"];
            refused(&site.run(ranks, &longer), 77, &["model.safetensors holds"]);
        }
    }
    // As advised.
    site.succeed(1, &["eval", "run", "--checkpoint", "11"]);
}

#[test]
fn a_pipe_in_a_files_place_ends_at_once() {
    let site = Site::new();
    let config = site.configure("net", STANDARDIZED, SHORT);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let mut steps = 22;
    for name in ["model.safetensors", "state.json"] {
        let path = site.path(&format!("run/checkpoints/{steps:08}/{name}"));
        make_pipe(&path);
        refused(&site.run(1, &["eval", "run", "--checkpoint", &steps.to_string()]), 1, &[name, "this is a named pipe, not a file"]);
        // Training passes over a checkpoint that cannot be read, as over a damaged one.
        steps += 11;
        let epochs = format!("training.epochs={}", steps / 11);
        let outcome = site.succeed(1, &["train", &config, "--out", "run", "--resume", "--set", &epochs]);
        assert!(outcome.stderr.contains("passed over") && outcome.stderr.contains("this is a named pipe, not a file"), "{outcome:?}");
    }
    make_pipe(&site.path("run/metrics.jsonl"));
    let longer = ["train", config.as_str(), "--out", "run", "--resume", "--set", "training.epochs=5"];
    refused(&site.run(1, &longer), 1, &["metrics.jsonl", "this is a named pipe, not a file"]);
}

/// Puts a named pipe in the place of a file.
fn make_pipe(path: &Path) {
    std::fs::remove_file(path).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}
