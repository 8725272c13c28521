//! How a run is named, found, followed, and gone on with.

use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};

use crate::site::Site;

/// The one configuration of `site`, whose runs take some steps.
fn configured() -> (Site, String) {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 2\nlog_every_steps = 4");
    (site, config)
}

#[test]
fn a_run_goes_on_by_its_folder() {
    let (site, config) = configured();
    let begun = site.succeed(1, &["train", &config, "--out", "runs/a", "--resume"]);
    assert!(begun.stdout.contains("nothing to resume in runs/a: the run begins"), "{begun:?}");
    let more = site.succeed(2, &["train", "runs/a", "training.epochs=3", "--resume"]);
    assert!(more.stdout.contains("runs/a, from step 22 on") && !site.path("runs/short").exists(), "{more:?}");
    assert_eq!(site.checkpoint_names("runs/a").last().unwrap(), "00000033");
    // What changes nothing is said, whatever the command.
    let evaluated = site.succeed(1, &["eval", "runs/a", "learning.alpha=0.5"]);
    assert!(evaluated.stderr.contains("learning.alpha was given and changes nothing"), "{evaluated:?}");
    // Without that another one begins, which is said.
    let another = ["train", "runs/a", "training.epochs=4"];
    let begun = site.succeed(1, &another);
    let hint = "a run like that in runs/a begins in runs/short; the same command with --resume goes on with that one";
    assert!(begun.stdout.starts_with(hint), "{begun:?}");
    assert_eq!(site.checkpoint_names("runs/short").last().unwrap(), "00000044");
    let more = site.succeed(1, &[&another[..], &["--resume"]].concat());
    assert!(more.stdout.contains("runs/a, from step 33 on") && !more.stdout.contains("a run like that"), "{more:?}");
    let refused = site.run(1, &["train", "runs", "--resume"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("runs: a folder without config.toml"), "{refused:?}");
}

#[test]
fn keys_are_given_with_and_without_an_option() {
    let (site, _) = configured();
    site.succeed(1, &["train", "short", "training.max_steps=7", "--out", "a", "--set", "training.max_steps=5", "experiment.seed=3"]);
    let config = std::fs::read_to_string(site.path("a/config.toml")).unwrap();
    assert!(config.contains("max_steps = 7") && config.contains("seed = 3"), "{config}");
    let refused = site.run(1, &["train", "short", "other.toml"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("expected key=value, for instance training.epochs=10"), "{refused:?}");
    // A message repeats what was typed.
    let refused = site.run(1, &["train", "short", "learning.alhpa=0.1"]);
    assert!(refused.stderr.starts_with("biodist: learning.alhpa=0.1: learning.alhpa: unknown key; did you mean"), "{refused:?}");
    let one = site.succeed(1, &["train", "short", "training.max_steps=1", "--out", "one"]);
    assert!(one.stdout.contains(" 1 step\n") && one.stdout.contains("done: one, 1 step in "), "{one:?}");
    let planned = site.succeed(1, &["check", "short", "training.max_steps=5", "--json"]);
    let planned: serde_json::Value = serde_json::from_str(planned.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(planned["epoch"]["total_steps"], 5, "{planned}");
}

#[test]
fn configurations_and_keys_can_be_asked_for() {
    let (site, _) = configured();
    let shown = site.succeed(2, &["configs", "mnist", "dtp"]);
    let names: Vec<&str> = shown.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let expected = ["mnist_autoencoder_dtp", "mnist_fc5_dtp_alternating", "mnist_fc5_dtp_parallel", "mnist_fc_dtp_alternating"];
    assert_eq!(names[..4], expected, "{shown:?}");
    assert!(shown.stdout.contains("Table 1(a): MNIST, fully connected, DTP, parallel"), "{shown:?}");
    // What a message advises works.
    let refused = site.run(1, &["train", "mnist_dtp"]);
    assert!(refused.code == Some(2) && refused.stderr.contains("biodist configs mnist_dtp shows 7 that it may mean"), "{refused:?}");
    assert_eq!(site.succeed(1, &["configs", "mnist_dtp"]).stdout, shown.stdout);
    let elsewhere = site.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let program = elsewhere.join("biodist");
    std::fs::copy(env!("CARGO_BIN_EXE_biodist"), &program).unwrap();
    let nothing = site.run_of(&program, 1, &["configs"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("no configurations were found in configs, "), "{nothing:?}");
    assert!(nothing.stderr.contains("elsewhere/../share/biodist/configs"), "{nothing:?}");
    let nothing = site.run(1, &["configs", "nonsense"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("biodist configs shows all"), "{nothing:?}");
    let keys = site.succeed(1, &["keys", "padding"]);
    assert!(keys.stdout.starts_with("data.crop_padding   0") && keys.stdout.lines().count() == 2, "{keys:?}");
    let nothing = site.run(1, &["keys", "alhpa"]);
    assert!(nothing.code == Some(2) && nothing.stderr.contains("did you mean alpha?"), "{nothing:?}");
}

#[test]
fn what_is_said_of_a_run_is_short_and_ends_with_its_result() {
    let (site, config) = configured();
    // Epochs without an evaluation have a line of their own.
    let said = site.succeed(1, &["train", &config, "--out", "a", "training.eval_every_epochs=2", "training.epochs=4"]).stdout;
    let lines: Vec<&str> = said.lines().collect();
    let at = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!((at(" 25 %  step 11  loss "), at(" 75 %  step 33  loss "), at("epoch 2, step 22: test error ")), (1, 1, 1), "{said}");
    assert!(lines.iter().filter(|line| line.contains("step")).all(|line| line.chars().count() <= 100), "{said}");
    let last = lines.last().unwrap();
    assert!(
        last.starts_with("done: a, 44 steps in ") && last.contains(", test error ") && last.ends_with("; biodist report a shows it"),
        "{last}"
    );
    let error = site.metrics("a").iter().rev().find(|line| line["split"] == "test").unwrap()["top1_error"].as_f64().unwrap();
    assert!(last.contains(&format!("test error {:.2} %", 100.0 * error)), "{last}");
    site.succeed(1, &["report", "a", "--out", "pages"]);
}

/// What a terminal of 100 columns is given by a job of one process, which must end well.
fn on_a_terminal(site: &Site, arguments: &[&str]) -> String {
    let (mut outside, mut inside) = (0, 0);
    let size = libc::winsize { ws_row: 40, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: both descriptors are filled in, and are nobody else's.
    let (outside, inside) = unsafe {
        assert_eq!(libc::openpty(&mut outside, &mut inside, std::ptr::null_mut(), std::ptr::null(), &size), 0);
        (OwnedFd::from_raw_fd(outside), OwnedFd::from_raw_fd(inside))
    };
    let mut command = site.command(1, arguments);
    command.stdout(inside.try_clone().unwrap()).stderr(inside);
    let mut child = command.spawn().unwrap();
    drop(command);
    // A terminal whose last program has ended reports an error, after all that was written.
    let mut written = Vec::new();
    let _ = std::fs::File::from(outside).read_to_end(&mut written);
    assert!(child.wait().unwrap().success());
    String::from_utf8_lossy(&written).into_owned()
}

#[test]
fn a_bar_leaves_the_last_line_alone() {
    let (site, config) = configured();
    let said = on_a_terminal(&site, &["train", &config, "--out", "a"]);
    assert!(said.contains(" % ") && said.contains("step 22/22"), "there is a bar: {said:?}");
    let last = said.lines().rev().find(|line| !line.is_empty()).unwrap();
    // What stands on the line is what comes after it was last cleared.
    let shown = last.rsplit("\u{1b}[2K").next().unwrap().trim_start_matches('\r');
    assert!(shown.starts_with("done: a, 22 steps in "), "{last:?}");
}
