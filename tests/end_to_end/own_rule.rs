//! The rule of docs/own_rules.md, in its own program: what the page promises.

use std::path::{Path, PathBuf};

use crate::site::{Outcome, Site};

/// The program that `cargo test` makes of examples/target_projection.rs.
fn program() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_biodist")).with_file_name("examples").join("target_projection")
}

fn succeed(site: &Site, ranks: usize, arguments: &[&str]) -> Outcome {
    let outcome = site.run_of(&program(), ranks, arguments);
    assert_eq!(outcome.code, Some(0), "{arguments:?} on {ranks} ranks: {outcome:?}");
    outcome
}

/// With nothing of the target it is direct feedback alignment, from the same initial weights, bit for bit; with all of it, it is direct random
/// target projection, for `(p - 1) - p` is -1 in float32 too, and learns with the same bits on any number of ranks.
#[test]
fn it_trains_and_meets_a_built_in_rule_at_each_end() {
    let site = Site::new();
    let epochs = "epsilon = 1e-6\n[training]\nepochs = 90\neval_every_epochs = 30";
    let config = site.configure("own", "rule = \"target_projection\"\ntarget_share = 1.0", epochs);
    for rule in ["dfa", "drtp"] {
        let built_in = site.configure(rule, &format!("rule = \"{rule}\""), epochs);
        site.succeed(1, &["train", &built_in, "--out", rule]);
    }
    succeed(&site, 1, &["train", &config, "--out", "error", "--set", "learning.target_share=0"]);
    succeed(&site, 1, &["train", &config, "--out", "target"]);
    succeed(&site, 2, &["train", &config, "--out", "target2"]);
    // The rules' names stand in the files' headers, which come first, after their own length.
    let values = |bytes: &[u8]| bytes[8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize..].to_vec();
    let models = |run| {
        let files = site.checkpoints(run).into_iter().filter(|(path, _)| path.ends_with("model.safetensors"));
        files.map(|(path, bytes)| (path, values(&bytes))).collect::<Vec<_>>()
    };
    assert!(models("error").len() > 1 && models("error") == models("dfa"), "at 0 it is dfa");
    assert!(models("target") == models("drtp"), "at 1 it is drtp");
    site.assert_same("target", "target2");
    let errors: Vec<f64> =
        site.metrics("target").iter().filter(|line| line["split"] == "test").filter_map(|line| line["top1_error"].as_f64()).collect();
    assert!(errors[errors.len() - 1] < 0.45, "chance is 0.9, and it reached {errors:?}");
}

/// Every command knows the rule, its key and its name, and errors speak of them.
#[test]
fn commands_know_it() {
    let site = Site::new();
    let config = site.configure("own", "rule = \"target_projection\"\ntarget_share = 0.5", "[training]\nepochs = 1");
    assert!(succeed(&site, 1, &["check", &config]).stdout.contains("target_projection"));
    let bench = ["bench", "step", &config, "--input", "6x6x1", "--classes", "10", "--steps", "2", "--set", "learning.target_share=1"];
    succeed(&site, 1, &bench);
    succeed(&site, 1, &["train", &config, "--out", "run"]);
    // And the program that has not the rule shows its runs beside others', with the name of the program that has it.
    let plain = site.configure("plain", "rule = \"bp\"", "[training]\nepochs = 1");
    site.succeed(1, &["train", &plain, "--out", "plain"]);
    // Below the program's own version and commit.
    let report = || std::fs::read_to_string(site.path("report/report.md")).unwrap().split_once("## Results").unwrap().1.to_owned();
    succeed(&site, 1, &["report", "run", "plain"]);
    let own = report();
    assert!(own.contains("| TARGET-PROJECTION, by target\\_projection"), "{own}");
    site.succeed(1, &["report", "run", "plain"]);
    assert_eq!(report(), own);

    let without = site.configure("without", "rule = \"target_projection\"", "[training]\nepochs = 1");
    let refused = |set: &[&str], config: &str, expected: &[&str]| {
        let outcome = site.run_of(&program(), 1, &[&["train", config][..], set].concat());
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(expected.iter().all(|part| outcome.stderr.contains(part)), "{} lacks {expected:?}", outcome.stderr);
    };
    refused(&[], &without, &["learning.target_share is required: 0 sends"]);
    refused(&["--set", "learning.target_shar=1"], &config, &["learning.target_shar", "did you mean `target_share`?"]);
    refused(&["--set", "learning.rule=target_projector"], &config, &["did you mean \"target_projection\"?"]);
    // To another rule the key means nothing, and `check` says so; to the program without the rule it is unknown.
    let check = succeed(&site, 1, &["check", &config, "--set", "learning.rule=dfa"]);
    assert!(check.stdout.contains("learning.target_share") && check.stdout.contains("rule \"dfa\" does not use it"), "{}", check.stdout);
    let outcome = site.run(1, &["train", &config, "--out", "elsewhere"]);
    assert!(outcome.code == Some(2) && outcome.stderr.contains("target_share"), "{outcome:?}");
}

/// What the page shows is what was compiled.
#[test]
fn the_page_shows_the_program() {
    let page = include_str!("../../docs/own_rules.md");
    let program = include_str!("../../examples/target_projection.rs");
    let blocks: Vec<&str> = page.split("```rust\n").skip(1).map(|block| block.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 3);
    for block in blocks {
        assert!(program.contains(block), "not in the program:\n{block}");
    }
}
