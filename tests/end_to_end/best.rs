//! The checkpoint that did best on the validation set: kept, named, taken by `eval`, and the same after interruptions.

use serde_json::Value;

use crate::site::{Site, lines, refused, wait_for};

/// So large a learning rate that validation gets worse again, and far more evaluations than checkpoints kept.
const WILD: &str = "beta1 = 0.5\n[training]\nepochs = 30\ncheckpoint_every_epochs = 7\nkeep_checkpoints = 1\nlog_every_steps = 10";

fn configure(site: &Site) -> String {
    let config = site.configure("wild", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", WILD);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), text.replace("learning_rate = 0.001", "learning_rate = 0.05")).unwrap();
    config
}

fn best(site: &Site, run: &str) -> Value {
    serde_json::from_slice(&std::fs::read(site.path(run).join("best.json")).unwrap()).unwrap()
}

/// The best line of validation by what metrics say, found in another way than the program's.
fn expected(site: &Site, run: &str) -> Value {
    let mut lines: Vec<Value> = site.metrics(run).into_iter().filter(|line| line["split"] == "validation").collect();
    // Stable: of equals, the earliest stays first.
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    lines.sort_by(|a, b| number(a, "loss").total_cmp(&number(b, "loss")));
    lines.sort_by(|a, b| number(a, "top1_error").total_cmp(&number(b, "top1_error")));
    lines.swap_remove(0)
}

#[test]
fn a_damaged_line_of_metrics_takes_no_checkpoint_away() {
    let site = Site::new();
    let config = configure(&site);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let step = best(&site, "run")["step"].as_u64().unwrap();
    let file = site.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let of_best = format!("{{\"split\":\"validation\",\"step\":{step},");
    let line = 1 + text.lines().position(|line| line.starts_with(&of_best)).unwrap();
    let damaged = text.replace(&of_best, &of_best.replace("\"step\":", "\"step\";"));
    std::fs::write(&file, &damaged).unwrap();
    let before = (best(&site, "run"), site.checkpoint_names("run"));
    let outcome = site.run(1, &["train", "run", "--resume", "training.epochs=31"]);
    refused(&outcome, 1, &[&format!("line {line} of "), "run/metrics.jsonl is damaged; mend it, or take it out"]);
    assert_eq!((best(&site, "run"), site.checkpoint_names("run")), before);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), damaged);
    std::fs::write(&file, text).unwrap();
    site.succeed(1, &["train", "run", "--resume", "training.epochs=31"]);
}

#[test]
fn is_kept_and_named_and_evaluated() {
    let site = Site::new();
    let config = configure(&site);
    for ranks in [1, 2] {
        let run = format!("run-{ranks}");
        site.succeed(ranks, &["train", &config, "--out", &run]);
        let (named, line) = (best(&site, &run), expected(&site, &run));
        let step = line["step"].as_u64().unwrap();
        assert_ne!(step, 330, "the last is the best: this tests nothing");
        assert_eq!((named["step"].as_u64(), &named["epoch"]), (Some(step), &line["epoch"]));
        for key in ["loss", "top1_error", "top5_error"] {
            assert_eq!(named["validation"][key], line[key]);
        }
        // Step 0, the best, and the one that is kept: none that were the best before.
        assert_eq!(site.checkpoint_names(&run), ["00000000", &format!("{step:08}"), "00000330"]);
        let evaluate = |checkpoint: &str| -> Value {
            let outcome = site.succeed(1, &["eval", &run, "--checkpoint", checkpoint, "--json"]);
            serde_json::from_str(outcome.stdout.lines().last().unwrap()).unwrap()
        };
        let evaluated = evaluate("best");
        assert_eq!((&evaluated["checkpoint"], &evaluated["loss"]), (&named["step"], &named["test"]["loss"]));
        assert_eq!(evaluate("last")["checkpoint"], 330);
    }
    site.assert_same("run-1", "run-2");
    assert_eq!(best(&site, "run-1"), best(&site, "run-2"));
}

#[test]
fn is_the_same_after_being_killed() {
    let site = Site::new();
    let config = configure(&site);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    let metrics = site.path("killed/metrics.jsonl");
    for _ in 0..5 {
        let job = site.start(1, &["train", &config, "--out", "killed", "--resume"]);
        let before = lines(&metrics);
        wait_for("some lines of metrics", || lines(&metrics) > before + 3 || !job.runs());
        job.signal(libc::SIGKILL);
        job.wait();
    }
    site.succeed(1, &["train", &config, "--out", "killed", "--resume"]);
    site.assert_same("whole", "killed");
    assert_eq!(best(&site, "whole"), best(&site, "killed"));
}

#[test]
fn is_put_right_where_the_file_or_the_checkpoint_is_lost() {
    let site = Site::new();
    let config = configure(&site);
    site.succeed(1, &["train", &config, "--out", "run"]);
    let whole = best(&site, "run");
    // The last evaluation is made up for, and the file with it.
    let path = site.path("run/metrics.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.len() - 9]).unwrap();
    for damage in ["", "{\"step\": 7"] {
        std::fs::write(site.path("run/best.json"), damage).unwrap();
        let refused = site.run(1, &["eval", "run", "--checkpoint", "best"]);
        assert!(refused.code == Some(1) && refused.stderr.contains("best.json is damaged"), "{refused:?}");
        site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
        assert_eq!(best(&site, "run"), whole);
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), text.lines().count());
    }
    // Without validation there is nothing to choose by.
    site.succeed(1, &["train", &config, "--out", "plain", "--set", "data.validation=0", "--set", "training.epochs=2"]);
    assert!(!site.path("plain/best.json").exists());
    let refused = site.run(1, &["eval", "plain", "--checkpoint", "best"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("data.validation"), "{refused:?}");
    let refused = site.run(1, &["eval", "plain", "--checkpoint", "first"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("\"best\""), "{refused:?}");
}
