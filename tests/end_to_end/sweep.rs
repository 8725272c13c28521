//! `sweep`: what it finds, and that nothing that interrupts it changes that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::site::{Outcome, Site, lines, wait_for, write_images};

const SHORT: &str = "[training]\nepochs = 3\nlog_every_steps = 5\n[parallel]\nthreads_per_rank = 1";

fn configure(site: &Site) -> String {
    site.configure("dtp", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", SHORT)
}

/// Lines of results.jsonl, by trial.
fn results(site: &Site, sweep: &str) -> BTreeMap<u64, Value> {
    let text = std::fs::read_to_string(site.path(sweep).join("results.jsonl")).unwrap();
    let trials: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = trials.iter().map(|line| line["trial"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
    numbers.into_iter().zip(trials).collect()
}

/// (error, loss) of the best evaluation of a trial within its first `epochs` epochs, from its metrics.
fn score(site: &Site, sweep: &str, trial: u64, steps: u64) -> (f64, f64) {
    let lines = site.metrics(&format!("{sweep}/trials/{trial:03}"));
    let validations = lines.iter().filter(|line| line["split"] == "validation" && line["step"].as_u64().unwrap() <= steps);
    let scores = validations.map(|line| (line["top1_error"].as_f64().unwrap(), line["loss"].as_f64().unwrap()));
    scores.min_by(|a, b| a.partial_cmp(b).unwrap()).unwrap()
}

fn refused(outcome: &Outcome, words: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{outcome:?}");
    assert_eq!(outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).count(), 1, "{outcome:?}");
    assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{words:?}: {outcome:?}");
}

#[test]
fn finds_the_best_of_its_trials_and_tests_it_once() {
    let site = Site::new();
    let config = configure(&site);
    let command = ["sweep", &config, "--out", "sweep", "--trials", "5", "--seed", "3", "--jobs", "2", "--space", "wide"];
    let outcome = site.succeed(1, &command);
    let found = results(&site, "sweep");
    assert_eq!(found.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    for (trial, line) in &found {
        let (error, loss) = score(&site, "sweep", *trial, u64::MAX);
        assert_eq!((line["validation_error"].as_f64(), line["validation_loss"].as_f64()), (Some(error), Some(loss)));
        assert_eq!((line["epochs"].as_u64(), &line["status"], line["values"].as_object().unwrap().len()), (Some(3), &"done".into(), 10));
        let rate = line["values"]["optimizer.inverse.learning_rate"].as_f64().unwrap();
        assert!((1e-5..=1e-2).contains(&rate));
        // The trial was trained with these values, and never saw the test set.
        let written: toml::Table =
            std::fs::read_to_string(site.path(&format!("sweep/trials/{trial:03}/config.toml"))).unwrap().parse().unwrap();
        assert_eq!(written["optimizer"]["inverse"]["learning_rate"].as_float(), Some(rate));
        assert!(written["data"].get("test").is_none());
    }
    let best = *found
        .keys()
        .min_by(|a, b| score(&site, "sweep", **a, u64::MAX).partial_cmp(&score(&site, "sweep", **b, u64::MAX)).unwrap())
        .unwrap();
    let tested: Vec<u64> = found.iter().filter(|(_, line)| line.get("test_error").is_some()).map(|(trial, _)| *trial).collect();
    assert_eq!(tested, [best]);
    assert!(outcome.stdout.contains(&format!("trial {best} of 5: validation error ")), "{outcome:?}");

    // best.toml is a configuration that trains to the very same network.
    site.succeed(1, &["train", "sweep/best.toml", "--out", "again"]);
    let model = |run: &str| std::fs::read(site.path(run).join("checkpoints/00000033/model.safetensors")).unwrap();
    assert!(model("again") == model(&format!("sweep/trials/{best:03}")));
    let named: Value = serde_json::from_slice(&std::fs::read(site.path("again/best.json")).unwrap()).unwrap();
    assert_eq!(named["test"]["top1_error"], found[&best]["test_error"]);

    // Again: nothing to do, and the same to say; another job has no business here.
    let before = std::fs::read(site.path("sweep/results.jsonl")).unwrap();
    let again = site.succeed(1, &command);
    assert!(outcome.stdout.ends_with(again.stdout.trim_start()), "{again:?}");
    assert_eq!(std::fs::read(site.path("sweep/results.jsonl")).unwrap(), before);
    refused(&site.run(1, &[&command[..6], &["--seed", "4"]].concat()), &["another sweep", "seed is 3 there and 4 here"]);
    refused(&site.run(1, &[&command[..], &["--set", "learning.hybrid=0.5"]].concat()), &["learning.hybrid is 0.0 there and 0.5 here"]);
    // The same data may have moved, others may not have come.
    std::fs::rename(site.path("train"), site.path("moved")).unwrap();
    site.succeed(1, &[&command[..], &["--set", "data.train=\"moved\""]].concat());
    write_images(&site.path("train"), 150, 10);
    refused(&site.run(1, &command), &["other data", "data.train's shards"]);
}

#[test]
fn is_the_same_after_being_killed_and_stopped() {
    let site = Site::new();
    let config = configure(&site);
    // The last rung is long enough for the last signal to find it at work.
    let command = |out: &'static str, jobs: &'static str| -> [String; 9] {
        ["sweep", &config, "--out", out, "--rungs", "2:4,8:2,240:1", "--jobs", jobs, "--set=training.log_every_steps=1"].map(str::to_owned)
    };
    let run = |arguments: [String; 9]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        site.start(1, &arguments)
    };
    assert_eq!(run(command("whole", "1")).wait().code, Some(0));
    let progress = || {
        let of = |trial: usize| lines(&site.path(&format!("parts/trials/{trial:03}/metrics.jsonl")));
        (0..4).map(of).sum::<usize>()
    };
    for (round, signal) in [libc::SIGKILL, libc::SIGTERM, libc::SIGKILL, libc::SIGINT, libc::SIGKILL, libc::SIGUSR1].into_iter().enumerate()
    {
        let job = run(command("parts", if round % 2 == 0 { "2" } else { "1" }));
        let before = progress();
        wait_for("a line of metrics", || progress() > before + 7);
        std::thread::sleep(Duration::from_micros(2_900 * round as u64));
        job.signal(signal);
        let outcome = job.wait();
        match signal {
            libc::SIGKILL => assert_eq!(outcome.code, None, "{outcome:?}"),
            _ => assert_eq!(outcome.code, Some(75), "{outcome:?}"),
        }
    }
    let outcome = run(command("parts", "2")).wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let read = |sweep: &str| std::fs::read_to_string(site.path(sweep).join("results.jsonl")).unwrap();
    assert_eq!(read("parts"), read("whole"));
    for trial in 0..4 {
        site.assert_same(&format!("parts/trials/{trial:03}"), &format!("whole/trials/{trial:03}"));
    }
}

#[test]
fn successive_halving_goes_on_with_the_best() {
    let site = Site::new();
    let config = configure(&site);
    let said = site.succeed(1, &["sweep", &config, "--out", "sweep", "--rungs", "0.5:6,3:3,5:1", "--space", "wide", "--seed", "1"]).stdout;
    assert!(said.contains("rung 1 of 3: 6 trials to 0.5 epochs\n"), "{said}");
    let found = results(&site, "sweep");
    let ranked = |of: &[u64], steps: u64| {
        let mut trials = of.to_vec();
        trials.sort_by(|a, b| score(&site, "sweep", *a, steps).partial_cmp(&score(&site, "sweep", *b, steps)).unwrap());
        trials
    };
    // Of an epoch's eleven steps the sixth is nearest to its half.
    let first = ranked(&(0..6).collect::<Vec<_>>(), 6);
    let second = ranked(&first[..3], 33);
    for trial in 0..6 {
        let rung = usize::from(first[..3].contains(&trial)) + usize::from(second[0] == trial);
        let ((epochs, steps), status) = ([(0.5, 6), (3.0, 33), (5.0, 55)][rung], if rung == 2 { "done" } else { "stopped" });
        let line = &found[&trial];
        assert_eq!((line["epochs"].as_f64(), &line["status"]), (Some(epochs), &status.into()), "{line}");
        let run = format!("sweep/trials/{trial:03}");
        assert_eq!(site.metrics(&run).last().unwrap()["step"], steps, "trained no further than its rung");
        // Only of the best can anything still be wanted.
        let last = site.checkpoint_names(&run).pop();
        assert_eq!(last, (rung == 2).then(|| format!("{steps:08}")));
    }
    let loser = format!("sweep/trials/{:03}", second[1]);
    site.succeed(1, &["train", &loser, "--out", "again"]);
    assert_eq!(site.metrics("again").last(), site.metrics(&loser).last());
    let best = std::fs::read_to_string(site.path("sweep/best.toml")).unwrap();
    assert!(best.contains("\nepochs = 5\n") && !best.contains("max_steps"), "{best}");
}

#[test]
fn the_best_of_parts_of_an_epoch_trains_whole_ones() {
    let site = Site::new();
    let config = configure(&site);
    site.succeed(1, &["sweep", &config, "--out", "sweep", "--rungs", "0.5:2"]);
    site.succeed(1, &["train", "sweep/best.toml", "--out", "run", "training.epochs=2"]);
    assert_eq!(site.metrics("run").last().unwrap()["step"], 22);
}

#[test]
fn trials_that_diverge_end_nothing_else() {
    let site = Site::new();
    let config = configure(&site);
    std::fs::write(
        site.path("space.toml"),
        "optimizer.forward.learning_rate = { choice = [0.001, 1e38] }\nlearning.auxiliary_units = { choice = [3] }",
    )
    .unwrap();
    let command = ["sweep", &config, "--out", "sweep", "--trials", "6", "--space", "space.toml"];
    let outcome = site.succeed(1, &command);
    assert!(outcome.stdout.contains("learning.auxiliary_units is not searched: rule \"dtp\" does not use it"), "{outcome:?}");
    let found = results(&site, "sweep");
    let mut diverged = 0;
    for line in found.values() {
        let wild = line["values"]["optimizer.forward.learning_rate"].as_f64().unwrap() > 1.0;
        assert_eq!(line["status"], if wild { "diverged" } else { "done" }, "{line}");
        assert_eq!(line.get("validation_error").is_none(), wild, "{line}");
        diverged += usize::from(wild);
    }
    assert!(diverged > 0 && diverged < 6, "{diverged}");
    assert!(outcome.stdout.contains(&format!("{} trained to the end, {diverged} diverged", 6 - diverged)), "{outcome:?}");
    // Where all diverge there is no best.
    let all = site.run(
        1,
        &["sweep", &config, "--out", "wild", "--trials", "2", "--set", "optimizer.forward.learning_rate=1e38", "--space", "alpha.toml"],
    );
    assert_eq!(all.code, Some(2), "{all:?}");
    std::fs::write(site.path("alpha.toml"), "learning.alpha = { uniform = [0.1, 0.2] }").unwrap();
    let all = site.run(
        1,
        &["sweep", &config, "--out", "wild", "--trials", "2", "--set", "optimizer.forward.learning_rate=1e38", "--space", "alpha.toml"],
    );
    assert!(all.code == Some(1) && all.stderr.contains("no trial was trained to the end"), "{all:?}");
    assert!(!site.path("wild/best.toml").exists());
}

#[test]
fn a_trial_whose_process_is_killed_fails_and_is_tried_again() {
    let site = Site::new();
    let config = configure(&site);
    let command = ["sweep", &config, "--out", "sweep", "--trials", "2", "--set", "training.epochs=200"];
    let job = site.start(1, &command);
    wait_for("a line of metrics", || lines(&site.path("sweep/trials/000/metrics.jsonl")) > 0);
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", job.id())).unwrap();
    let trial: i32 = children.trim().parse().expect("one trial at a time");
    assert_eq!(unsafe { libc::kill(trial, libc::SIGKILL) }, 0);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let found = results(&site, "sweep");
    assert_eq!((&found[&0]["status"], &found[&0]["reason"]), (&"failed".into(), &"killed by signal 9".into()));
    assert_eq!(found[&1]["status"], "done");
    site.succeed(1, &command);
    let found = results(&site, "sweep");
    assert!(found.values().all(|line| line["status"] == "done" && line["epochs"] == 200), "{found:?}");
}

#[test]
fn what_cannot_work_is_refused() {
    let site = Site::new();
    let config = configure(&site);
    let sweep = |more: &[&str]| site.run(1, &[&["sweep", &config, "--out", "sweep"], more].concat());
    refused(&sweep(&["--validation", "0"]), &["data.validation", "--validation N"]);
    refused(&sweep(&["--set", "training.eval_every_epochs=0"]), &["training.eval_every_epochs"]);
    refused(&sweep(&["--rungs", "1:2", "--set", "training.max_steps=5"]), &["training.max_steps", "--rungs"]);
    refused(&sweep(&["--space", "nowhere"]), &["nowhere", "\"paper\"", "\"wide\""]);
    refused(&sweep(&["--set", "learning.aplha=1"]), &["learning.aplha"]);
    refused(&site.run(2, &["sweep", &config, "--out", "sweep"]), &["without mpirun"]);
    refused(&sweep(&["--set", "data.train=\"nowhere\""]), &["data.train", "nowhere", "does not exist"]);
    refused(&sweep(&["--set", "data.test=\"nowhere\""]), &["data.test", "nowhere", "does not exist"]);
    assert!(!site.path("sweep").exists(), "a refused command leaves no folder");
    assert_eq!(sweep(&["--rungs", "5:2,3:1"]).code, Some(2));
    assert_eq!(sweep(&["--rungs", "5:2", "--trials", "3"]).code, Some(2));
    assert_eq!(sweep(&["--trials", "0"]).code, Some(2));
    // What every trial would be refused for ends the sweep, with the reason.
    refused(&sweep(&["--set", "data.batch_size=1000"]), &["trial 0 was refused", "fewer than one batch"]);
    refused(&site.run(1, &["sweep", &config, "--out", "train"]), &["is not empty", "sweep.json"]);
}

#[test]
fn an_autoencoder_is_chosen_by_its_loss() {
    let site = Site::new();
    let config = site.configure("auto", "rule = \"bp\"", SHORT);
    let output = ["--set", "network.output=\"linear\""];
    site.succeed(1, &[&["sweep", &config, "--out", "sweep", "--trials", "3"], &output[..]].concat());
    let found = results(&site, "sweep");
    let loss = |line: &Value| line["validation_loss"].as_f64().unwrap();
    let best = found.values().min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap();
    assert!(found.values().all(|line| line.get("validation_error").is_none() && line.get("test_error").is_none()));
    assert!(best["test_loss"].as_f64().unwrap() > 0.0);
}
