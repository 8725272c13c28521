//! Several seeds, or several values of a key, by one command.

use crate::site::{Site, children, lines, wait_for};

#[test]
fn seeds_are_trained_one_after_another_and_summed_up() {
    let site = Site::new();
    let config = site.configure("seeds", "rule = \"sdtp\"\nsigma = 0.2", "[training]\nepochs = 2\nlog_every_steps = 4");
    site.succeed(1, &["train", &config, "--out", "alone", "--set", "experiment.seed=7"]);
    let outcome = site.succeed(2, &["train", &config, "--out", "all", "--seeds", "0,7"]);
    site.assert_same("alone", "all/seed_7");
    let errors: Vec<f64> = ["all/seed_0", "all/seed_7"]
        .iter()
        .map(|run| site.metrics(run).iter().rev().find(|line| line["split"] == "test").unwrap()["top1_error"].as_f64().unwrap())
        .collect();
    assert_ne!(errors[0], errors[1]);
    let mean = (errors[0] + errors[1]) / 2.0;
    let deviation = (errors[0] - errors[1]).abs() / 2f64.sqrt();
    let row = |name: &str| {
        let line = outcome.stdout.lines().rev().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    for (name, expected) in [("0 ", errors[0]), ("7 ", errors[1]), ("mean", mean), ("deviation", deviation)] {
        assert!((row(name) - 100.0 * expected).abs() <= 0.00501, "{name} {expected}: {}", outcome.stdout);
    }
    // Resuming trains the one that is new.
    let more = site.succeed(1, &["train", &config, "--out", "all", "--seeds", "0,3,7", "--resume"]);
    assert_eq!(more.stdout.matches("is finished").count(), 2, "{more:?}");
    assert_eq!(site.checkpoint_names("all/seed_3").last().unwrap(), "00000022");
    // Without --resume the folders that are there are refused, before anything is trained.
    let refused = site.run(1, &["train", &config, "--out", "all", "--seeds", "9,3"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("seed_3 holds a run already"), "{refused:?}");
    assert!(!site.path("all/seed_9").exists());
    let twice = site.run(1, &["train", &config, "--out", "all", "--seeds", "9,9"]);
    assert!(twice.code == Some(2) && twice.stderr.contains("9 is named twice"), "{twice:?}");
}

#[test]
fn values_of_a_key_are_trained_one_after_another() {
    let site = Site::new();
    let config = site.configure("size", "rule = \"ao_sdtp\"\nsigma = 0.2\nauxiliary_units = 3", "[training]\nepochs = 2");
    let outcome = site.succeed(2, &["train", &config, "--out", "all", "--vary", "learning.auxiliary_units=2,9"]);
    site.succeed(1, &["train", &config, "--out", "alone", "--set", "learning.auxiliary_units=9"]);
    site.assert_same("alone", "all/auxiliary_units_9");
    let error = site.metrics("alone").iter().rev().find(|line| line["split"] == "test").unwrap()["top1_error"].as_f64().unwrap();
    let shown = outcome.stdout.lines().rev().find(|line| line.starts_with("9 ")).unwrap();
    assert_eq!(shown.split_whitespace().nth(1).unwrap(), format!("{:.2}", 100.0 * error), "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("mean"), "of other values there is no mean: {}", outcome.stdout);
    for (vary, expected) in [
        ("learning.auxiliary_unit=2", "auxiliary_unit"),
        ("learning.auxiliary_units=2,", "no value before or after one of the commas"),
        ("learning.sigma=[0.1,0.2", "a bracket or a quote has no other"),
        ("learning.auxiliary_units=2,0", "auxiliary_units"),
        ("learning.auxiliary_units=2, 2", "2 is named twice"),
        ("learning.sigma=0.10,0.2,0.1", "0.10 and 0.1 are the same; name it once"),
        ("learning.hybrid=1,0,1.0", "1 and 1.0 are the same"),
        ("learning.alpha=0.1,0.2", "would make no difference: rule \"ao_sdtp\" does not use it"),
        ("data.crop_padding=0,1", "images are padded for random_crop alone"),
    ] {
        let refused = site.run(1, &["train", &config, "--out", "none", "--vary", vary]);
        assert!(refused.code == Some(2) && refused.stderr.contains(expected), "{vary}: {refused:?}");
    }
    assert!(!site.path("none").exists());
}

#[test]
fn arrays_are_values_and_seeds_have_ranges() {
    let site = Site::new();
    let config = site.configure("sdtp", "rule = \"sdtp\"\nsigma = 0.2", "[training]\nmax_steps = 11");
    let study = ["train", &config, "--vary", "learning.sigma=[0.1, 0.2],0.3", "--seeds", "5,0-1"];
    let outcome = site.succeed(1, &[&study[..], &["--out", "all"]].concat());
    site.succeed(1, &["train", &config, "--out", "alone", "learning.sigma=[0.1,0.2]", "experiment.seed=1"]);
    site.assert_same("alone", "all/sigma_0.1_0.2/seed_1");
    assert!([0, 1, 5].iter().all(|seed| site.path(&format!("all/sigma_0.3/seed_{seed}")).is_dir()));
    assert!(outcome.stdout.lines().any(|line| line.starts_with("[0.1, 0.2]   3")), "{outcome:?}");
    for (seeds, words) in [("0-4-5", "for instance 0,1,2 or 0-4"), ("x", "0-4"), ("4-0", "0-4"), ("0,0-1", "0 is named twice")] {
        let refused = site.run(1, &["train", &config, "--out", "none", "--seeds", seeds]);
        assert!(refused.code == Some(2) && refused.stderr.contains(words), "{seeds}: {refused:?}");
    }
}

/// A loss that only an evaluation finds to be infinite leaves no errors behind that a mean could take.
#[test]
fn a_run_that_its_last_step_ruins_is_no_result() {
    let site = Site::new();
    let config = site.configure("ruined", "rule = \"bp\"", "method = \"sgd\"\n[training]\nmax_steps = 1");
    for (run, ranks) in [("alone", 1), ("two", 2)] {
        let train = ["train", &config, "--out", run, "optimizer.forward.learning_rate=1e25", "network.nonlinearity=relu"];
        let outcome = site.run(ranks, &train);
        assert!(outcome.code == Some(77) && outcome.stderr.contains("the loss on the validation set after step 1 is"), "{outcome:?}");
        assert!(site.metrics(run).iter().all(|line| line["split"] == "train"), "{outcome:?}");
        let about = std::fs::read_to_string(site.path(run).join("run.json")).unwrap();
        assert!(about.contains("\"diverged_at_step\": 1"), "{about}");
        assert_eq!(site.run(ranks, &[&train[..], &["--resume"]].concat()).code, Some(77));
    }
}

/// A control: of no step nothing is learnt.
#[test]
fn targets_may_stay_where_activities_are() {
    let site = Site::new();
    let config = site.configure("still", "rule = \"l_drl\"\nsigma = 0.2", "[training]\nepochs = 2\nlog_every_steps = 4");
    site.succeed(1, &["train", &config, "--out", "run", "--vary", "learning.target_step=0,1"]);
    for (run, same) in [("run/target_step_0", true), ("run/target_step_1", false)] {
        let lines = site.metrics(run);
        let of = |split: &str, measure: &str| -> Vec<f64> {
            lines.iter().filter(|line| line["split"] == split).map(|line| line[measure].as_f64().unwrap()).collect()
        };
        let [tested, inverse] = [of("test", "loss"), of("train", "inverse_loss")];
        assert!(tested.len() == 2 && (tested[0] == tested[1]) == same, "{run}: {tested:?}");
        assert!(inverse.first() != inverse.last(), "inverses learn");
    }
}

/// Fixed inverses leave nothing to alternate with, and are the control of a study of trained ones.
#[test]
fn an_alternating_configuration_is_trained_with_fixed_inverses_too() {
    let site = Site::new();
    let config = site.configure("turns", "rule = \"sdtp\"\nschedule = \"alternating\"\nsigma = 0.2", "[training]\nepochs = 2");
    let study = ["train", &config, "--out", "both", "--vary", "learning.inverses=trained,fixed", "--seeds", "0,1"];
    let said = site.succeed(1, &study).stderr;
    assert_eq!(said.matches("every epoch trains the forward model, as under \"parallel\"").count(), 1, "{said}");
    site.succeed(1, &["train", &config, "--out", "parallel", "learning.inverses=fixed", "learning.schedule=parallel", "experiment.seed=1"]);
    let [fixed, parallel] = ["both/inverses_fixed/seed_1", "parallel"].map(|run| {
        let mut tensors = site.checkpoints(run);
        tensors.retain(|file, _| file.extension().is_some_and(|extension| extension == "safetensors"));
        (site.metrics(run), tensors)
    });
    assert!(!parallel.1.is_empty() && fixed == parallel, "the same bits");
    let first = site.metrics("both/inverses_trained/seed_1");
    assert_ne!(first, fixed.0);
    assert!(site.succeed(1, &["check", &config, "learning.inverses=fixed"]).stdout.contains("turns: sdtp, on images"));
    site.succeed(1, &["bench", "step", &config, "learning.inverses=fixed", "--input", "8x8x1", "--classes", "3", "--steps", "1"]);
}

/// What one value does to its run is a result of the study, and no reason to train the others no more.
#[test]
fn runs_that_diverge_leave_the_others_and_the_table() {
    let site = Site::new();
    let config = site.configure("wild", "rule = \"bp\"", "method = \"sgd\"\n[training]\nmax_steps = 60");
    let study = ["train", &config, "--vary", "optimizer.forward.learning_rate=1e-3,1e36,1e-2"];
    for (out, jobs) in [("one", &[][..]), ("two", &["--jobs", "2"])] {
        let outcome = site.run(1, &[&study[..], &["--out", out], jobs].concat());
        assert_eq!(outcome.code, Some(77), "{outcome:?}");
        let last = outcome.stderr.lines().rfind(|line| line.starts_with("biodist: ")).unwrap();
        assert_eq!(last, format!("biodist: 1 of 3 runs came to no result: {out}/learning_rate_1e36 diverged"));
        let row = |value: &str| {
            let line = outcome.stdout.lines().rfind(|line| line.starts_with(&format!("{value} "))).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(row("1e36"), "diverged");
        for value in ["1e-3", "1e-2"] {
            let lines = site.metrics(&format!("{out}/learning_rate_{value}"));
            let error = lines.iter().rfind(|line| line["split"] == "test").unwrap()["top1_error"].as_f64().unwrap();
            assert_eq!((row(value), &lines.last().unwrap()["step"]), (format!("{:.2}", 100.0 * error), &60.into()));
        }
    }
    let seeds = ["train", &config, "--out", "seeds", "--seeds", "0-1", "optimizer.forward.learning_rate=1e36"];
    let outcome = site.run(1, &seeds);
    assert!(outcome.code == Some(77) && outcome.stderr.contains("2 of 2 runs came to no result"), "{outcome:?}");
    // Ranks cannot call a step off together.
    let outcome = site.run(2, &[&study[..], &["--out", "ranks"]].concat());
    assert!(outcome.code == Some(77) && !site.path("ranks/learning_rate_1e-2").exists(), "{outcome:?}");
}

#[test]
fn every_combination_is_trained_several_at_a_time_and_in_parts() {
    let site = Site::new();
    let config = site.configure("grid", "rule = \"bp\"\nsigma = 0.2", "[training]\nepochs = 1");
    let study = ["train", &config, "--vary", "learning.rule=bp,fa", "--seeds", "0,1"];
    let outcome = site.succeed(1, &[&study[..], &["--out", "all", "--jobs", "2"]].concat());
    site.succeed(1, &["train", &config, "--out", "alone", "learning.rule=fa", "experiment.seed=1"]);
    site.assert_same("alone", "all/rule_fa/seed_1");
    let of = |rule: &str| {
        let errors = [0, 1].map(|seed| {
            let lines = site.metrics(&format!("all/rule_{rule}/seed_{seed}"));
            lines.iter().rev().find(|line| line["split"] == "test").unwrap()["top1_error"].as_f64().unwrap()
        });
        let (mean, deviation) = ((errors[0] + errors[1]) / 2.0, (errors[0] - errors[1]).abs() / 2f64.sqrt());
        format!("{:.2} ± {:.2} %", 100.0 * mean, 100.0 * deviation)
    };
    for rule in ["bp", "fa"] {
        let row = outcome.stdout.lines().find(|line| line.starts_with(&format!("{rule} "))).unwrap();
        assert!(row.contains(&of(rule)), "{row}: {}", of(rule));
    }
    // Parts that end apart are the same runs.
    for part in ["0/2", "1/2"] {
        site.succeed(1, &[&study[..], &["--out", "parts", "--array", part]].concat());
        assert!(!site.path(&format!("parts/rule_bp/seed_{}", if part == "0/2" { 1 } else { 2 })).exists());
    }
    site.assert_same("alone", "parts/rule_fa/seed_1");
    // What fails leaves the others as they are, and is named; what is finished stays.
    std::fs::remove_dir_all(site.path("all/rule_fa/seed_0")).unwrap();
    std::fs::write(site.path("all/rule_fa/seed_0"), "").unwrap();
    let refused = site.run(1, &[&study[..], &["--out", "all", "--jobs", "2", "--resume"]].concat());
    assert!(refused.code == Some(2) && refused.stderr.contains("rule_fa/seed_0: this is a file"), "{refused:?}");
    std::fs::remove_file(site.path("all/rule_fa/seed_0")).unwrap();
    let more = site.succeed(1, &[&study[..], &["--out", "all", "--jobs", "2", "--resume"]].concat());
    assert_eq!(more.stdout.matches(" is done").count(), 4, "{more:?}");
    for (more, expected) in [
        (&["--vary", "experiment.seed=5"][..], "experiment.seed: it is varied twice"),
        (
            &["--vary", "learning.sigma=0.1,0.2"],
            "learning.sigma: its values would make no difference with learning.rule=bp, experiment.seed=0",
        ),
        (&["--array", "2/2"], "write I/N"),
    ] {
        let refused = site.run(1, &[&study[..], more, &["--out", "none"]].concat());
        assert!(refused.code == Some(2) && refused.stderr.contains(expected), "{refused:?}");
    }
    let refused = site.run(2, &[&study[..], &["--out", "none", "--jobs", "2"]].concat());
    assert!(refused.code == Some(2) && refused.stderr.contains("start it without mpirun"), "{refused:?}");
    let refused = site.run(1, &["train", &config, "--jobs", "2"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("name them with --vary or --seeds"), "{refused:?}");
    assert!(!site.path("none").exists());
}

/// A process that does nothing but wait for others is not taken for one that is stuck, after ten minutes: nobody watches it.
#[test]
fn a_process_that_waits_for_its_runs_is_not_watched() {
    let site = Site::new();
    let config = site.configure("long", "rule = \"bp\"", "[training]\nmax_steps = 100000000");
    let watched = |process: i32| {
        let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap().map(|entry| entry.unwrap().path());
        threads.filter_map(|thread| std::fs::read_to_string(thread.join("comm")).ok()).any(|name| name.trim() == "watchdog")
    };
    let job = site.start(1, &["train", &config, "--out", "all", "--seeds", "0,1", "--jobs", "2"]);
    let metrics = |seed: u64| site.path(&format!("all/seed_{seed}/metrics.jsonl"));
    wait_for("metrics", || [0, 1].iter().all(|seed| lines(&metrics(*seed)) > 0));
    assert!(!watched(job.id()));
    assert!(children(job.id()).len() == 2 && children(job.id()).into_iter().all(watched), "those that train are");
    job.signal(libc::SIGUSR1);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert!([0, 1].iter().all(|seed| site.checkpoint_names(&format!("all/seed_{seed}")).len() > 1));
}

#[test]
fn keys_that_were_typed_in_vain_are_named() {
    let site = Site::new();
    let config = site.configure("keys", "rule = \"bp\"\nsigma = 0.2", "[training]\nmax_steps = 1");
    let warnings = |arguments: &[&str]| -> Vec<String> {
        let outcome = site.succeed(if arguments.contains(&"--vary") { 1 } else { 2 }, arguments);
        outcome.stderr.lines().filter_map(|line| line.strip_prefix("biodist: warn: ")).map(str::to_owned).collect()
    };
    let alpha = ["--set", "learning.alpha=0.1"];
    // What the file says is for `check` to name.
    let expected = ["learning.alpha was given and changes nothing: rule \"bp\" does not use it"];
    assert_eq!(warnings(&[&["train", &config, "--out", "one"], &alpha[..]].concat()), expected);
    assert!(warnings(&["train", &config, "--out", "two", "--set", "training.log_every_steps=1"]).is_empty());
    // One of several runs uses it.
    assert!(warnings(&[&["train", &config, "--out", "rules", "--vary", "learning.rule=bp,dtp"], &alpha[..]].concat()).is_empty());
    assert_eq!(warnings(&[&["train", &config, "--out", "seeds", "--seeds", "1,2"], &alpha[..]].concat()), expected);
    let sweep = ["sweep", &config, "--out", "sweep", "--trials", "2"];
    let outcome = site.succeed(1, &[&sweep, &alpha[..]].concat());
    assert!(outcome.stderr.contains(expected[0]), "{outcome:?}");
    assert!(outcome.stdout.contains("learning.sigma is not searched: rule \"bp\" does not use it"), "{outcome:?}");
}
