//! Interrupted anywhere and continued anyhow, a run ends as if it had never been interrupted.

use std::time::Duration;

use crate::site::{Site, lines, refused, wait_for};

/// An alternating run of 44 steps: an epoch has 11, so most checkpoints lie within an epoch, and inverse epochs are interrupted too.
const ALTERNATING: &str = "rule = \"sdtp\"\nschedule = \"alternating\"\nsigma = 0.2";

#[test]
fn in_the_middle_of_an_epoch_on_another_number_of_ranks() {
    let site = Site::new();
    let more = "[training]\nepochs = 4\nlog_every_steps = 4\ncheckpoint_every_steps = 5\nkeep_checkpoints = 100";
    let config = site.configure("turns", ALTERNATING, more);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    // Inverse epochs are 0..11 and 22..33; 6 and 29 are within them, 17 is within a forward one.
    for (stop, ranks) in [("6", 2), ("17", 1), ("29", 2), ("44", 1)] {
        let stop = format!("training.max_steps={stop}");
        site.succeed(ranks, &["train", &config, "--out", "parts", "--resume", "--set", &stop]);
    }
    let (whole, parts) = (site.checkpoints("whole"), site.checkpoints("parts"));
    for (file, bytes) in &whole {
        assert!(parts.get(file) == Some(bytes), "{} differs", file.display());
    }
    // The ends in between were evaluated, which the whole run had no reason to be.
    let lines: Vec<_> = site.metrics("parts").into_iter().filter(|line| ![6, 17, 29].contains(&line["step"].as_u64().unwrap())).collect();
    assert_eq!(lines, site.metrics("whole"));
}

/// The end of the cosine is the run's first length, where no key says otherwise; a run keeps what it began with.
#[test]
fn with_more_epochs_and_the_cosine_that_it_began_with() {
    let site = Site::new();
    let config = site.configure("cosine", "rule = \"bp\"", "[training]\nepochs = 2");
    let cosine = "optimizer.learning_rate_schedule=cosine";
    let begun = site.succeed(1, &["train", &config, cosine, "--out", "run"]);
    assert!(!begun.stderr.contains("cosine_epochs"), "it ends with the run: {begun:?}");
    let written: toml::Table = std::fs::read_to_string(site.path("run/config.toml")).unwrap().parse().unwrap();
    assert_eq!(written["optimizer"]["cosine_epochs"].as_float(), Some(2.0));
    let longer = site.run(1, &["train", &config, cosine, "--out", "run", "--resume", "training.epochs=4"]);
    refused(&longer, 2, &["optimizer.cosine_epochs", "2.0", "4.0"]);
    let said = site.succeed(1, &["train", "run", "--resume", "training.epochs=4"]).stderr;
    assert!(said.contains("optimizer.cosine_epochs = 2 is before the run ends") && said.contains("(training.epochs = 4)"), "{said}");
    site.succeed(1, &["train", &config, cosine, "--out", "whole", "optimizer.cosine_epochs=2", "training.epochs=4"]);
    assert_eq!(site.metrics("run").last(), site.metrics("whole").last());
}

#[test]
fn between_evaluations_within_an_epoch() {
    let site = Site::new();
    let config = site.configure("turns", ALTERNATING, "[training]\nepochs = 2\nlog_every_steps = 4\ndiagnostics = true");
    site.succeed(1, &["train", &config, "--out", "plain"]);
    let often = ["train", &config, "training.eval_every_steps=5", "training.eval_every_epochs=0"];
    site.succeed(2, &[&often[..], &["--out", "whole"]].concat());
    for steps in ["training.max_steps=7", "training.max_steps=22"] {
        site.succeed(1, &[&often[..], &["--out", "parts", "--resume", steps]].concat());
    }
    let of = |run: &str, split: &str| -> Vec<_> { site.metrics(run).into_iter().filter(|line| line["split"] == split).collect() };
    let whole = of("whole", "test");
    let steps: Vec<u64> = whole.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(steps, [0, 5, 10, 15, 20, 22]);
    // The first is of parameters as they were drawn.
    assert_eq!((&whole[0]["epoch"], &whole[1]["epoch"], &whole[5]["epoch"]), (&0.into(), &1.into(), &2.into()));
    assert!(of("whole", "validation").iter().all(|line| line["diagnostics"]["layers.0"]["angle_degrees"].is_number()));
    let parts: Vec<_> = of("parts", "test").into_iter().filter(|line| line["step"] != 7).collect();
    assert_eq!((&parts, parts.last()), (&whole, of("plain", "test").last()));
    assert_eq!((of("whole", "train"), of("parts", "train")), (of("plain", "train"), of("plain", "train")));
}

#[test]
fn after_being_killed_at_any_moment() {
    let site = Site::new();
    // Far more epochs than the kills let it train.
    let more = "[training]\nepochs = 200\nlog_every_steps = 10\neval_every_epochs = 7\n\
                checkpoint_every_steps = 24\ncheckpoint_every_epochs = 3\nkeep_checkpoints = 3";
    for (name, learning) in [("turns", ALTERNATING), ("both", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2")] {
        let config = site.configure(name, learning, more);
        let (whole, killed) = (format!("{name}-whole"), format!("{name}-killed"));
        site.succeed(1, &["train", &config, "--out", &whole]);
        for (kill, ranks) in [1, 2, 1, 2].into_iter().enumerate() {
            kill_while_training(&site, ranks, &config, &killed, Duration::from_micros(3_700 * kill as u64));
        }
        site.succeed(2, &["train", &config, "--out", &killed, "--resume"]);
        site.assert_same(&whole, &killed);
    }
}

/// Starts or resumes `run` and kills it, or one of its ranks, `delay` after some more lines of metrics, between which it has written a
/// checkpoint: somewhere in a step, a checkpoint, or an evaluation.
pub fn kill_while_training(site: &Site, ranks: usize, config: &str, run: &str, delay: Duration) {
    let metrics = site.path(run).join("metrics.jsonl");
    let job = site.start(ranks, &["train", config, "--out", run, "--resume"]);
    let before = lines(&metrics);
    wait_for("lines of metrics", || lines(&metrics) > before + 3 || !job.runs());
    std::thread::sleep(delay);
    if ranks == 1 {
        job.signal(libc::SIGKILL)
    } else {
        kill_a_rank(&job)
    }
    let outcome = job.wait();
    assert_ne!(outcome.code, Some(0), "killed before it ended: {outcome:?}");
}

/// Kills one of the ranks that mpirun has started.
pub fn kill_a_rank(job: &crate::site::Job) {
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", job.id())).unwrap();
    let rank: i32 = children.split_whitespace().last().expect("mpirun has ranks").parse().unwrap();
    unsafe { libc::kill(rank, libc::SIGKILL) };
}

#[test]
fn a_finished_run_ends_at_once_and_a_longer_one_goes_on() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 2\nlog_every_steps = 4");
    // Nothing is there yet: --resume starts.
    site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
    let finished = (site.metrics("run"), site.checkpoints("run"));
    let again = site.succeed(2, &["train", &config, "--out", "run", "--resume"]);
    assert!(again.stdout.contains("is finished"), "{again:?}");
    assert_eq!((site.metrics("run"), site.checkpoints("run")), finished);

    let longer = ["train", &config, "--out", "run", "--resume", "--set", "training.epochs=3", "--set", "parallel.threads_per_rank=1"];
    site.succeed(1, &longer);
    site.succeed(1, &["train", &config, "--out", "whole", "--set", "training.epochs=3"]);
    // Including the lines of training: the partial one at the first end, step 22, is gone.
    site.assert_same("run", "whole");
    assert!(
        site.metrics("run").iter().all(|line| line["split"] != "train" || line["step"].as_u64().unwrap() % 4 == 0 || line["step"] == 33)
    );
    assert!(std::fs::read_to_string(site.path("run/config.toml")).unwrap().contains("epochs = 3"));
    let about: serde_json::Value = serde_json::from_slice(&std::fs::read(site.path("run/run.json")).unwrap()).unwrap();
    assert_eq!((about["world_size"].as_u64(), about["earlier"].as_array().unwrap().len()), (Some(1), 1));
    for key in ["command", "commit", "versions", "hosts", "kernels"] {
        assert!(!about[key].is_null(), "{key}");
    }
}

#[test]
fn an_evaluation_that_was_cut_is_made_up_for() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 2");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let whole = site.metrics("run");
    let path = site.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    let cut = text.lines().last().unwrap().len() / 2;
    std::fs::write(&path, &text[..text.len() - cut]).unwrap();
    site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
    assert_eq!(site.metrics("run"), whole);
}

#[test]
fn a_run_of_another_configuration_is_refused_by_name() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", "[training]\nmax_steps = 5");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let refused = site.run(1, &["train", &config, "--out", "run"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("holds a run already"), "{refused:?}");
    let other = site.run(2, &["train", &config, "--out", "run", "--resume", "--set", "learning.sigma=0.3"]);
    assert_eq!(other.code, Some(2), "{other:?}");
    assert_eq!(other.stderr.matches("learning.sigma is 0.2 there and 0.3 here").count(), 1, "{other:?}");
}

#[test]
fn other_data_of_as_many_batches_are_refused() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 5");
    site.succeed(1, &["train", &config, "--out", "run"]);
    std::fs::rename(site.path("train"), site.path("kept")).unwrap();
    crate::site::write_images(&site.path("train"), 199, 10);
    let longer = ["train", &config, "--out", "run", "--resume", "--set", "training.max_steps=7"];
    let refused = site.run(2, &longer);
    assert!(refused.code == Some(2) && refused.stderr.contains("data.train holds other data"), "{refused:?}");
    std::fs::remove_dir_all(site.path("train")).unwrap();
    std::fs::rename(site.path("kept"), site.path("train")).unwrap();
    site.succeed(1, &longer);
}

#[test]
fn damaged_checkpoints_are_named_and_passed_over() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 20\ncheckpoint_every_steps = 5\nlog_every_steps = 4";
    let config = site.configure("short", "rule = \"bp\"", more);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    site.succeed(1, &["train", &config, "--out", "run", "--set", "training.max_steps=15"]);
    assert_eq!(site.checkpoint_names("run"), ["00000000", "00000011", "00000015"]);
    let model = site.path("run/checkpoints/00000015/model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&model, bytes).unwrap();

    let asked = site.run(1, &["eval", "run", "--checkpoint", "15"]);
    assert!(asked.code == Some(1) && asked.stderr.contains("model.safetensors is damaged"), "{asked:?}");
    let newest = site.succeed(1, &["eval", "run", "--json"]);
    assert!(newest.stdout.contains("\"checkpoint\":11") && newest.stderr.contains("00000015/model.safetensors is damaged"), "{newest:?}");
    let absent = site.run(1, &["eval", "run", "--checkpoint", "3"]);
    assert!(absent.code == Some(2) && absent.stderr.contains("there are: 0, 11, 15"), "{absent:?}");

    site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
    assert!(
        site.checkpoints("run")[std::path::Path::new("00000020/state.json")]
            == site.checkpoints("whole")[std::path::Path::new("00000020/state.json")]
    );
    assert!(site.path("run/damaged-00000015").exists());
}

#[test]
fn two_processes_do_not_train_in_one_folder() {
    let site = Site::new();
    let config = site.configure("long", "rule = \"bp\"", "[training]\nmax_steps = 100000000\nlog_every_steps = 1000");
    let job = site.start(1, &["train", &config, "--out", "run"]);
    wait_for("a line of metrics", || lines(&site.path("run/metrics.jsonl")) > 0);
    let second = site.run(1, &["train", &config, "--out", "run", "--resume"]);
    assert!(second.code == Some(1) && second.stderr.contains("another process is training"), "{second:?}");
    drop(job);
}

/// What it says of earlier starts has no other place.
#[test]
fn a_damaged_run_json_is_named_and_left_as_it_is() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 5");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let file = site.path("run/run.json");
    let whole = std::fs::read_to_string(&file).unwrap();
    let longer = ["train", &config, "--out", "run", "--resume", "training.max_steps=7"];
    for damaged in [&whole[..whole.len() / 2], &whole.replacen('{', "{\"earlier\": 3,", 1), "[]"] {
        std::fs::write(&file, damaged).unwrap();
        refused(&site.run(1, &longer), 1, &["run/run.json is damaged", "move it away"]);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged);
    }
    std::fs::rename(&file, site.path("away")).unwrap();
    site.succeed(1, &longer);
}

#[test]
fn checkpoints_that_cannot_be_read_are_not_passed_over() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 15\ncheckpoint_every_steps = 5");
    site.succeed(1, &["train", &config, "--out", "run"]);
    let longer = ["train", &config, "--out", "run", "--resume", "training.max_steps=20"];
    for file in ["state.json", "model.safetensors"] {
        let path = site.path("run/checkpoints/00000015").join(file);
        std::fs::rename(&path, site.path("kept")).unwrap();
        // As little as a missing permission does this say that the file is damaged.
        std::os::unix::fs::symlink(file, &path).unwrap();
        for command in [&["eval", "run"][..], &longer] {
            let words = [&format!("00000015/{file} cannot be read"), "Too many levels of symbolic links", "move run/checkpoints/00000015"];
            refused(&site.run(1, command), 1, &words);
        }
        std::fs::rename(site.path("kept"), &path).unwrap();
    }
    assert!(!site.path("run/damaged-00000015").exists());
    site.succeed(1, &longer);
}

#[test]
fn metrics_that_are_removed_or_replaced_are_not_lost() {
    let site = Site::new();
    let config = site.configure("long", "rule = \"bp\"", "[training]\nmax_steps = 100000000\nlog_every_steps = 100");
    let metrics = site.path("run/metrics.jsonl");
    let job = site.start(1, &["train", &config, "--out", "run"]);
    wait_for("lines of metrics", || lines(&metrics) > 20);
    std::fs::remove_file(&metrics).unwrap();
    wait_for("the lines again", || lines(&metrics) > 22);
    job.signal(libc::SIGTERM);
    let outcome = job.wait();
    assert!(outcome.code == Some(75) && outcome.stderr.contains("run/metrics.jsonl was removed while"), "{outcome:?}");
    let steps = |lines: &[serde_json::Value]| -> Vec<u64> {
        lines.iter().filter(|line| line["split"] == "train").map(|line| line["step"].as_u64().unwrap()).collect()
    };
    let kept = steps(&site.metrics("run"));
    assert!((1..).zip(&kept).all(|(number, step)| *step == 100 * number), "{kept:?}");

    let job = site.start(1, &["train", &config, "--out", "run", "--resume"]);
    let before = lines(&metrics);
    wait_for("lines of metrics", || lines(&metrics) > before + 2);
    let edited = std::fs::read_to_string(&metrics).unwrap();
    std::fs::write(site.path("edited"), &edited).unwrap();
    std::fs::rename(site.path("edited"), &metrics).unwrap();
    wait_for("lines after those", || lines(&metrics) > edited.lines().count() + 2);
    job.signal(libc::SIGTERM);
    let outcome = job.wait();
    assert!(outcome.code == Some(75) && outcome.stderr.contains("run/metrics.jsonl was replaced while"), "{outcome:?}");
    assert!(std::fs::read_to_string(&metrics).unwrap().starts_with(&edited));
    let last = site.metrics("run").last().unwrap()["step"].as_u64().unwrap();
    site.succeed(1, &["train", &config, "--out", "run", "--resume", &format!("training.max_steps={}", last + 1000)]);
}
