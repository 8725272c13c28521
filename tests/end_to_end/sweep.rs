//! `sweep`: what it finds, and that nothing that interrupts it changes that.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::site::{Outcome, Site, lines, refused, wait_for, write_images};

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
    refused(&site.run(1, &[&command[..6], &["--seed", "4"]].concat()), 2, &["another sweep", "seed is 3 there and 4 here"]);
    refused(&site.run(1, &[&command[..], &["--set", "learning.hybrid=0.5"]].concat()), 2, &["learning.hybrid is 0.0 there and 0.5 here"]);
    // The same data may have moved, others may not have come.
    std::fs::rename(site.path("train"), site.path("moved")).unwrap();
    site.succeed(1, &[&command[..], &["--set", "data.train=\"moved\""]].concat());
    write_images(&site.path("train"), 150, 10);
    refused(&site.run(1, &command), 2, &["other data", "data.train's shards"]);
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
    // Every rung's trials follow the curve of the configuration, whose length is typed for it here.
    let cosine = ["training.epochs=4", "optimizer.learning_rate_schedule=cosine"];
    let curved = site.succeed(1, &[&["sweep", &config, "--out", "curved", "--rungs", "1:2,2:1"][..], &cosine].concat());
    assert!(!curved.stderr.contains("changes nothing") && curved.stderr.contains("optimizer.cosine_epochs = 4 is after"), "{curved:?}");
    for trial in 0..2 {
        let written = std::fs::read_to_string(site.path(&format!("curved/trials/{trial:03}/config.toml"))).unwrap();
        assert!(written.contains("\ncosine_epochs = 4.0\n"), "{written}");
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

/// Each draw trains by its own method, whichever the configuration has.
#[test]
fn methods_and_what_only_one_of_them_uses_are_searched_together() {
    let site = Site::new();
    let config = configure(&site);
    std::fs::write(
        site.path("space.toml"),
        "[optimizer.forward]\nmethod = { choice = [\"adam\", \"sgd\"] }\nmomentum = { choice = [0.0, 0.9] }\n",
    )
    .unwrap();
    let outcome = site.succeed(1, &["sweep", &config, "--out", "sweep", "--trials", "16", "--space", "space.toml"]);
    assert!(!outcome.stdout.contains("is not searched") && !outcome.stderr.contains("changes nothing"), "{outcome:?}");
    // What a draw does not use is shown with no value.
    let rows = outcome.stdout.split("the best:\n").nth(1).unwrap().lines().skip(1).take(5);
    for cells in rows.map(|row| row.split_whitespace().collect::<Vec<_>>()) {
        assert_eq!(cells[4] == "adam", cells[5] == "-", "{outcome:?}");
    }
    assert!(outcome.stdout.lines().filter(|line| line.contains("method adam")).all(|line| !line.contains("momentum")), "{outcome:?}");
    let mut reached = BTreeMap::new();
    for (trial, line) in results(&site, "sweep") {
        assert_eq!(line["status"], "done", "{line}");
        // It begins again as it began, so that need not be kept.
        let kept = site.checkpoint_names(&format!("sweep/trials/{trial:03}"));
        assert!(!kept.contains(&"00000000".to_owned()), "{kept:?}");
        let text = |key: &str| line["values"][key].to_string();
        let [method, momentum] = ["method", "momentum"].map(|key| text(&format!("optimizer.forward.{key}")));
        let used = if method.contains("adam") { "none".to_owned() } else { momentum };
        let loss = site.metrics(&format!("sweep/trials/{trial:03}")).last().unwrap()["loss"].to_string();
        assert_eq!(*reached.entry((method, used)).or_insert_with(|| loss.clone()), loss, "alike where what is used is");
    }
    let losses: std::collections::BTreeSet<&String> = reached.values().collect();
    assert_eq!((reached.len(), losses.len()), (3, 3), "{reached:?}");
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
    // The others are trained, and the best of them is chosen.
    refused(&outcome, 1, &["1 of 2 trials failed: trial 0: killed by signal 9; the same command tries it again"]);
    assert!(outcome.stdout.contains("2 trials: 1 trained to the end, 1 failed") && site.path("sweep/best.toml").exists(), "{outcome:?}");
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
    refused(&sweep(&["--validation", "0"]), 2, &["data.validation", "--validation N"]);
    refused(&sweep(&["--set", "training.eval_every_epochs=0"]), 2, &["training.eval_every_epochs"]);
    refused(&sweep(&["--rungs", "1:2", "--set", "training.max_steps=5"]), 2, &["training.max_steps", "--rungs"]);
    refused(&sweep(&["--space", "nowhere"]), 2, &["nowhere", "\"paper\"", "\"wide\""]);
    refused(&sweep(&["--set", "learning.aplha=1"]), 2, &["learning.aplha"]);
    refused(&site.run(2, &["sweep", &config, "--out", "sweep"]), 2, &["without mpirun"]);
    refused(&sweep(&["--set", "data.train=\"nowhere\""]), 2, &["data.train", "nowhere", "does not exist"]);
    refused(&sweep(&["--set", "data.test=\"nowhere\""]), 2, &["data.test", "nowhere", "does not exist"]);
    assert!(!site.path("sweep").exists(), "a refused command leaves no folder");
    assert_eq!(sweep(&["--rungs", "5:2,3:1"]).code, Some(2));
    assert_eq!(sweep(&["--rungs", "5:2", "--trials", "3"]).code, Some(2));
    assert_eq!(sweep(&["--trials", "0"]).code, Some(2));
    // What every trial would be refused for ends the sweep, with the reason.
    refused(&sweep(&["--set", "data.batch_size=1000"]), 2, &["trial 0 was refused", "fewer than one batch"]);
    refused(&site.run(1, &["sweep", &config, "--out", "train"]), 2, &["is not empty", "sweep.json"]);
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

/// The command line `arguments` with what a message advises instead of the keys or options of the same names.
fn advised<'a>(arguments: &[&'a str], message: &'a str) -> Vec<&'a str> {
    let words = message.rsplit_once("; ").unwrap().1.split(" trains ").next().unwrap().split(" ends ").next().unwrap();
    let words: Vec<&str> = words.split(' ').collect();
    match words[..] {
        ["--rungs", rungs] => {
            let at = arguments.iter().position(|argument| *argument == "--rungs").unwrap();
            [&arguments[..at], &["--rungs", rungs], &arguments[at + 2..]].concat()
        }
        _ => [arguments, &words].concat(),
    }
}

/// The first epoch trains the inverses alone: whatever is drawn, the forward model is after it what it was before.
#[test]
fn trials_that_alternate_are_not_compared_before_the_forward_model_has_learnt() {
    let site = Site::new();
    let config = site.configure("turns", "rule = \"dtp\"\nschedule = \"alternating\"\nalpha = 0.1\nsigma = 0.2", SHORT);
    let warnings = |outcome: &Outcome| -> Vec<String> {
        outcome.stderr.lines().filter_map(|line| line.strip_prefix("biodist: warn: ")).map(str::to_owned).collect()
    };
    for (out, more) in [
        ("halving", &["--rungs", "0.2:4,1:2,2:1"][..]),
        ("plain", &["--trials", "4", "training.epochs=1"]),
        ("steps", &["--trials", "4", "training.max_steps=11"]),
    ] {
        let command = [&["sweep", &config, "--out", out], more].concat();
        let outcome = site.run(1, &command);
        refused(&outcome, 2, &["learning.schedule", "the first epoch trains the inverses alone", "trains both models"]);
        assert!(!site.path(out).exists());
        let mended = site.succeed(1, &advised(&command, outcome.stderr.lines().find(|line| line.contains("; ")).unwrap()));
        assert!(warnings(&mended).is_empty(), "{mended:?}");
        let losses: Vec<Value> = results(&site, out).values().map(|line| line["rungs"][0]["validation_loss"].clone()).collect();
        assert!(losses.len() == 4 && losses[1..].iter().all(|loss| *loss != losses[0]), "{losses:?}");
    }
    let odd = ["sweep", &config, "--out", "odd", "--rungs", "2:3,3:1", "training.epochs=9"];
    let said = warnings(&site.succeed(1, &odd));
    assert!(said[0].starts_with("training.epochs was given and changes nothing: --rungs says"), "{said:?}");
    assert!(said[1].starts_with("rung 2 ends in epoch 3") && said[1].contains("after epoch 2; --rungs 2:3,4:1 ends"), "{said:?}");
    let line = results(&site, "odd").into_values().find(|line| line["status"] == "done").unwrap();
    assert_eq!(line["rungs"][0]["validation_error"], line["rungs"][1]["validation_error"]);
    let said = warnings(&site.succeed(1, &["sweep", &config, "--out", "three", "--trials", "1"]));
    assert!(said.len() == 1 && said[0].contains("; training.epochs=4 ends with the forward model"), "{said:?}");
}

#[test]
fn a_key_that_is_given_is_not_searched() {
    let site = Site::new();
    let config = configure(&site);
    let given = "optimizer.forward.learning_rate=0.02";
    let sweep = |out: &'static str, more: &[&str]| site.run(1, &[&["sweep", &config, "--out", out, "--trials", "2"], more].concat());
    let outcome = sweep("given", &[given]);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("optimizer.forward.learning_rate is not searched: it was given\n"), "{outcome:?}");
    assert_eq!(sweep("searched", &[]).code, Some(0));
    let (given_there, searched) = (results(&site, "given"), results(&site, "searched"));
    let key = "optimizer.forward.learning_rate";
    for trial in 0..2 {
        let written = std::fs::read_to_string(site.path(&format!("given/trials/{trial:03}/config.toml"))).unwrap();
        let written: toml::Table = written.parse().unwrap();
        assert_eq!(written["optimizer"]["forward"]["learning_rate"].as_float(), Some(0.02));
        // The others are drawn as they were.
        let mut values = searched[&trial]["values"].as_object().unwrap().clone();
        assert!(values.shift_remove(key).is_some());
        assert_eq!(given_there[&trial]["values"].as_object(), Some(&values));
    }
    // A search of that key goes on without it alone.
    refused(&sweep("given", &[]), 2, &["another sweep", "space.optimizer.forward.learning_rate.log_uniform is absent there"]);
    let outcome = sweep("searched", &[given]);
    refused(&outcome, 2, &["another sweep", "(without optimizer.forward.learning_rate, which is searched there)"]);
    assert_eq!(sweep("searched", &[]).code, Some(0));
    std::fs::write(site.path("alpha.toml"), "learning.alpha = { uniform = [0.1, 0.2] }").unwrap();
    refused(&sweep("none", &["--space", "alpha.toml", "learning.alpha=0.1"]), 2, &["no key of it is left to search"]);
}

#[test]
fn a_search_can_be_made_larger() {
    let site = Site::new();
    let config = configure(&site);
    let sweep = |out: &'static str, trials: &str| site.run(1, &["sweep", &config, "--out", out, "--trials", trials, "--seed", "3"]);
    assert_eq!(sweep("whole", "5").code, Some(0));
    // The best of the five is among the last, so that the choice changes.
    let text = std::fs::read_to_string(site.path("whole/best.toml")).unwrap();
    let best: u64 = text.split("trial ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(best > 0);
    assert_eq!(sweep("grown", &best.to_string()).code, Some(0));
    let grown = sweep("grown", "5");
    assert_eq!(grown.code, Some(0), "{grown:?}");
    let again: Vec<&str> = grown.stdout.lines().filter(|line| line.contains(" of 5  ")).collect();
    assert_eq!(again.len(), 5 - best as usize, "what is finished stays: {grown:?}");
    let read = |out: &str, file: &str| std::fs::read_to_string(site.path(out).join(file)).unwrap();
    assert_eq!(read("grown", "results.jsonl"), read("whole", "results.jsonl"));
    assert_eq!(read("grown", "best.toml").replace("grown", "whole"), text);
    refused(&sweep("grown", "4"), 2, &["another sweep", "--trials is 5 there and 4 here, and can only be raised"]);
    // An older program did not know every key of today's.
    let file = site.path("grown/sweep.json");
    let today = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, today.replace("      \"label_smoothing\": 0.0,\n", "")).unwrap();
    assert!(std::fs::read_to_string(&file).unwrap().len() < today.len());
    assert_eq!(sweep("grown", "5").code, Some(0));
    let smoothed = site.run(1, &["sweep", &config, "--out", "grown", "--trials", "5", "--seed", "3", "learning.label_smoothing=0.1"]);
    refused(&smoothed, 2, &["another sweep", "label_smoothing is absent there and 0.1 here"]);
    // With rungs others might have gone on.
    let rungs = |rungs: &str| site.run(1, &["sweep", &config, "--out", "rungs", "--rungs", rungs]);
    assert_eq!(rungs("1:2,2:1").code, Some(0));
    refused(&rungs("1:3,2:1"), 2, &["another sweep", "rungs is "]);
}
