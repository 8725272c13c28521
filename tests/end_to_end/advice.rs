//! What messages advise is accepted: each is asked for, and what it says is done.

use crate::site::{Job, Outcome, Site};

const SHORT: &str = "[training]\nmax_steps = 2";

/// A command that is refused, for what `words` say.
fn refused(site: &Site, arguments: &[&str], words: &str) -> String {
    let Outcome { code, stderr, .. } = site.run(1, arguments);
    assert!(matches!(code, Some(1 | 2)) && stderr.contains(words), "{arguments:?}: {words:?} in {stderr}");
    stderr
}

/// What stands between `before` and the next `after` of a message.
fn said<'a>(message: &'a str, before: &str, after: &str) -> &'a str {
    let from = message.find(before).unwrap_or_else(|| panic!("{before:?} in {message}")) + before.len();
    message[from..].split(after).next().unwrap().trim_end()
}

fn with<'a>(arguments: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [arguments, more].concat()
}

#[test]
fn keys_and_values_that_are_advised_are_accepted() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", SHORT);
    let dense = "{kind=\"dense\",units=2}";
    let pooled = "network.layers=[{kind=\"conv\",kernel=3,channels=2},{kind=\"max_pool\",kernel=2,stride=2}]";
    let transposed = "learning.inverse_weights=transposed";
    let unread = &format!("network.layers=[{dense},{dense},{{kind=\"dense\",units=2,from=0}}]");
    let shortcut = &format!("network.layers=[{dense},{dense},{{kind=\"dense\",units=2,shortcut=0}}]");
    // What is refused, for what, and what to set instead: each of the last is accepted on top.
    let cases: [(&[&str], &str, &[&str]); 16] = [
        (&["learning.alpah=0.1"], "did you mean `alpha`?", &[]),
        (&["learning.rule=dtpp"], "did you mean \"dtp\"?", &["learning.rule=dtp"]),
        (&["learning.schedule=alternating", "learning.rule=bp"], "use \"parallel\"", &["learning.schedule=parallel"]),
        (
            &["learning.hybrid=0.5", "learning.rule=tp"],
            "use hybrid = 0, or one of dtp, sdtp, ao_sdtp",
            &["learning.hybrid=0", "learning.rule=dtp", "learning.rule=sdtp"],
        ),
        (&["parallel.device=cpu", "parallel.backend=nccl"], "use \"mpi\" or \"auto\"", &["parallel.backend=mpi", "parallel.backend=auto"]),
        (&["parallel.device=cpu", "parallel.wire=bf16"], "use \"f32\"", &["parallel.wire=f32"]),
        (
            &["parallel.kernels=libtorch", "training.diagnostics=true"],
            "use \"auto\", or on GPUs \"cuda\"",
            &["parallel.kernels=auto", "parallel.kernels=cuda"],
        ),
        (&[pooled, transposed], "use \"random\"", &["learning.inverse_weights=random"]),
        (&[shortcut], "leave it out, or use one of the rules bp, fa, dfa", &["network.layers=[]", "learning.rule=wm"]),
        (&[unread, "learning.rule=bp"], "name it as the `from` or `shortcut` of one above", &[shortcut]),
        (
            &["data.augment=[\"random_crop\"]"],
            "data.crop = [height, width], data.crop_padding, or both",
            &["data.crop=[5, 5]", "data.crop_padding=1"],
        ),
        (&["data.augment=[horizontal_flip]"], "[\"a\", \"b\"]", &[]),
        (&["data.crop=[9, 9]"], "choose a smaller crop", &["data.crop=[6, 6]"]),
        (&["data.batch_size=500"], "make the batch smaller", &["data.batch_size=180"]),
        (&["training.epochs"], "for instance training.epochs=10", &[]),
        (&["forward.beta1=0.5"], "belongs in", &[]),
    ];
    for (sets, words, instead) in cases {
        let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
        let check = with(&["check", &config], &sets);
        if sets.last() == Some(&"forward.beta1=0.5") {
            refused(&site, &check, "unknown section");
            continue;
        }
        refused(&site, &check, words);
        for set in instead {
            site.succeed(1, &with(&check, &["--set", set]));
        }
    }
    for set in
        ["learning.alpha=0.1", "training.epochs=10", "optimizer.forward.beta1=0.5", "data.augment=[\"horizontal_flip\", \"vertical_flip\"]"]
    {
        site.succeed(1, &["check", &config, "--set", set]);
    }
    let ranks = ["check", &config, "--ranks", "3"];
    let message = refused(&site, &ranks, "cannot be divided among 3 ranks");
    for size in said(&message, "--set data.batch_size=", ",").split(" or ") {
        site.succeed(1, &with(&ranks, &["--set", &format!("data.batch_size={size}")]));
    }
    let shape = ["check", &config, "--input", "6x6x1"];
    refused(&site, &shape, "--classes is needed");
    site.succeed(1, &with(&shape, &["--classes", "10"]));
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path("endless.toml"), text.replace("max_steps = 2", "")).unwrap();
    refused(&site, &["check", "endless.toml"], "training.epochs is required: how long to train (or training.max_steps");
    for set in ["training.epochs=1", "training.max_steps=1"] {
        site.succeed(1, &["check", "endless.toml", "--set", set]);
    }
    std::fs::create_dir(site.path("configs")).unwrap();
    std::fs::copy(site.path(&config), site.path("configs/fewer.toml")).unwrap();
    let message = refused(&site, &["check", "fewr.toml"], "no such configuration");
    site.succeed(1, &["check", said(&message, "did you mean ", "?")]);
}

#[test]
fn commands_that_are_advised_are_accepted() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"ao_sdtp\"\nsigma = 0.2\nauxiliary_units = 3", SHORT);
    site.succeed(1, &["train", &config, "--out", "run"]);
    refused(&site, &["check", "."], ".: a folder without config.toml, so neither a configuration nor a run");
    site.succeed(1, &["check", "run"]);

    let vary = ["train", &config, "--out", "many", "--vary"];
    let example = site.run(1, &with(&vary, &["learning.auxiliary_units"]));
    let example = said(&example.stderr, "for instance ", "\n").to_owned();
    site.succeed(1, &with(&vary, &[&example]));
    refused(&site, &with(&vary, &["learning.sigma=0.1,0.10"]), "name it once");
    site.succeed(1, &with(&vary, &["learning.sigma=0.1"]));

    let sweep = ["sweep", &config, "--out", "sweep", "--trials", "2"];
    refused(&site, &with(&sweep, &["--set", "data.validation=0"]), "--validation N");
    refused(&site, &with(&sweep, &["--set", "training.eval_every_epochs=0"]), "set it to 1 or more");
    refused(&site, &["sweep", &config, "--out", "sweep", "--rungs", "1:2"], "leave one of the two out");
    refused(&site, &["sweep", &config, "--out", "run", "--trials", "2"], "choose another");
    site.succeed(1, &with(&sweep, &["--validation", "20", "--set", "training.eval_every_epochs=1", "--set", "training.max_steps=11"]));
    let other = refused(&site, &sweep, "holds another sweep");
    assert!(other.contains("repeat its command line to go on with it, delete it, or choose another --out"), "{other}");
    let again = with(&sweep, &["--validation", "20", "--set", "training.eval_every_epochs=1", "--set", "training.max_steps=11"]);
    site.succeed(1, &again);

    // Without a damaged line its trial is trained again.
    let results = site.path("sweep/results.jsonl");
    let whole = std::fs::read_to_string(&results).unwrap();
    let (first, rest) = whole.split_once('\n').unwrap();
    std::fs::write(&results, format!("{}\n{rest}", &first[..first.len() / 2])).unwrap();
    refused(&site, &again, "results.jsonl:1 is damaged");
    std::fs::write(&results, rest).unwrap();
    site.succeed(1, &again);
    assert_eq!(std::fs::read_to_string(&results).unwrap(), whole);
    std::fs::remove_dir_all(site.path("sweep")).unwrap();
    site.succeed(1, &with(&sweep, &["--set", "training.max_steps=11"]));

    // A damaged run can be left out of a report.
    let metrics = site.path("many/sigma_0.1/metrics.jsonl");
    std::fs::write(&metrics, "{\n").unwrap();
    refused(&site, &["report", "many", "run", "--out", "report"], "leave the run out");
    site.succeed(1, &["report", "run", "--out", "report"]);
}

#[test]
fn what_does_not_fit_a_run_is_said_and_can_be_mended() {
    let site = Site::new();
    let turns = site.configure("turns", "rule = \"sdtp\"\nsigma = 0.2\nschedule = \"alternating\"", "[training]\nepochs = 2");
    let short = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 11");
    let cosine = "optimizer.learning_rate_schedule=cosine";
    let cases: [(&str, &[&str], &str); 7] = [
        (&short, &["training.epochs=3"], "training.max_steps=33"),
        (&turns, &["training.max_steps=40"], "training.epochs=4"),
        (&turns, &["training.epochs=3"], "training.epochs=4"),
        (&turns, &[cosine, "optimizer.cosine_epochs=1"], "optimizer.cosine_epochs=2"),
        (&turns, &[cosine, "optimizer.cosine_epochs=60"], "optimizer.cosine_epochs=2"),
        (
            &turns,
            &[cosine, "optimizer.cosine_epochs=60", "optimizer.warmup_epochs=2"],
            "optimizer.warmup_epochs=0 optimizer.cosine_epochs=2",
        ),
        (&turns, &["optimizer.learning_rate_schedule=step"], "optimizer.step_epochs=1"),
    ];
    for (number, (config, sets, instead)) in cases.into_iter().enumerate() {
        let planned = site.succeed(1, &with(&["check", config], sets)).stdout;
        let doubt = said(&planned, "\ndoubt      ", "\n");
        assert!(doubt.contains(&format!("; {instead} ")) && !said(&planned, doubt, "").contains("doubt "), "{planned}");
        let out = format!("run-{number}");
        let trained = site.succeed(1, &with(&["train", config, "--out", &out], sets));
        assert!(trained.stderr.lines().any(|line| line == format!("biodist: warn: {doubt}")), "{doubt}: {trained:?}");
        let instead: Vec<&str> = instead.split(' ').collect();
        let planned = site.succeed(1, &with(&with(&["check", config], sets), &instead)).stdout;
        assert!(!planned.contains("\ndoubt"), "{planned}");
    }
    // Of many runs once, whoever trains them; and of one that is over.
    for jobs in [&[][..], &["--jobs", "2"]] {
        let out = format!("all-{}", jobs.len());
        let outcome = site.succeed(1, &with(&["train", &short, "--out", &out, "--seeds", "0-2", "training.epochs=3"], jobs));
        assert_eq!(outcome.stderr.matches("training.max_steps = 11 ends the run earlier").count(), 1, "{outcome:?}");
    }
    let over = ["train", "run-0", "--resume", "training.epochs=3"];
    let outcome = site.succeed(1, &over);
    assert!(outcome.stdout.contains("run-0 is finished"), "{outcome:?}");
    site.succeed(1, &with(&over, &[said(&outcome.stderr, "ends the run earlier; ", " trains")]));
    assert_eq!(site.metrics("run-0").last().unwrap()["step"], 33);
}

#[test]
fn messages_are_one_line_that_a_terminal_can_show() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let message = refused(&site, &["check", &config, "--set", "learning.rule=\u{1b}[31mred\nsecond"], "learning.rule");
    assert!(message.lines().count() == 1 && message.contains("\\u{1b}[31mred") && !message.contains('\u{1b}'), "{message:?}");
    std::fs::write(site.path("odd.toml"), "\"\\u001B[2J\\u009b\" = 1\n").unwrap();
    let message = refused(&site, &["check", "odd.toml"], "\\u{1b}[2J\\u{9b}");
    assert!(message.lines().count() == 1 && !message.contains(['\u{1b}', '\u{9b}']), "{message:?}");
    for path in ["\u{1b}[31m.toml", "a\nb.toml"] {
        let message = refused(&site, &["check", path], "no such configuration");
        assert!(message.lines().count() == 1 && !message.contains('\u{1b}'), "{message:?}");
    }
    std::fs::write(site.path("long.toml"), format!("[data]\ntrain = \"{}\"\nbatch_size = \"x\"\n", "y".repeat(3 << 20))).unwrap();
    assert!(refused(&site, &["check", "long.toml"], "data.batch_size").len() < 5000);
    let long = format!("data.train={}", "y".repeat(100_000));
    assert!(refused(&site, &["check", &config, "--set", &long], "data.train").len() < 5000);
}

/// As they are typed into a shell, whatever folders are called.
#[test]
fn commands_that_are_advised_are_quoted() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", SHORT);
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_biodist")).parent().unwrap().display();
    let typed = |command: &str| {
        let script = format!("PATH={programs}:$PATH; {command}");
        let outcome = Job::start(site.command_of(std::path::Path::new("sh"), 1, &["-c", &script]), None).wait();
        assert_eq!(outcome.code, Some(0), "{command}: {outcome:?}");
    };
    let out = "it's a (run); $HOME";
    let outcome = site.succeed(1, &["train", &config, "--out", out]);
    typed(&format!("biodist report{}", said(&outcome.stdout, "; biodist report", " shows it")));
    let message = refused(&site, &["check", &config, "--input", "6x6x1", "--classes", "3", "data.crop=[5, 5]"], "--set");
    typed(&format!("biodist check {config} --input 6x6x1 --classes 3 --set {}", said(&message, "or --set ", "\n")));
    assert!(said(&message, "or --set ", "\n").starts_with('\''), "brackets name files: {message}");
    // A report shows commands as they were typed.
    site.succeed(1, &["report", out, "--out", "report"]);
    let page = std::fs::read_to_string(site.path("report/report.html")).unwrap();
    assert!(page.contains(r#"--out 'it'\''s a (run); $HOME'"#), "{page}");
}
