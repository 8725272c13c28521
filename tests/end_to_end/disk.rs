//! Folders that cannot be written, a full disk and a read-only mount, and data that one rank alone loses. Skipped where nothing may be
//! mounted.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::launcher::launcher;
use crate::site::{Job, Site, allow_mpirun, exists, lines, prepare, wait_for};

/// A file system of its own, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Mount> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(at.to_owned()));
        }
        eprintln!("skipped: nothing may be mounted here");
        None
    }

    fn resize(&self, size: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,size={size}")]).arg(&self.0).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// A limit on the sizes of files is as a full disk, and no signal that ends everything without a word.
#[test]
fn a_limit_on_the_size_of_files_is_told() {
    let site = Site::new();
    let config = site.configure("limited", "rule = \"bp\"", "[training]\nmax_steps = 4");
    let mut train = std::process::Command::new("bash");
    train.args(["-c", "ulimit -f 4; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_biodist"), "train", &config, "--out", "run"]);
    let outcome = train.current_dir(site.path("")).output().unwrap();
    let said = String::from_utf8_lossy(&outcome.stderr);
    assert!(outcome.status.code() == Some(1) && said.contains("File too large"), "{outcome:?}");
    assert!(said.contains("checkpoint 0 cannot be written; --resume begins the run anew"), "{outcome:?}");
    site.succeed(1, &["train", &config, "--out", "run", "--resume"]);
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_whole() {
    let site = Site::new();
    // A checkpoint takes about 28 kB in 4 kB pages: step 0 fits, and then one or two more.
    let Some(mount) = Mount::tmpfs(&site.path("small"), "size=96k") else { return };
    let more = "[training]\nmax_steps = 60\ncheckpoint_every_steps = 5\nkeep_checkpoints = 100";
    let config = site.configure("full", "rule = \"bp\"", more);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    for (run, ranks) in [("small/alone", 1), ("small/two", 2)] {
        let outcome = site.run(ranks, &["train", &config, "--out", run]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        let warned = |stderr: &str| stderr.contains("kB free, and up to 103 checkpoints of 19.2 kB are to come");
        assert!(said.len() == 2 && warned(said[0]) && said[1].contains("No space left on device"), "{outcome:?}");
        let left = site.checkpoint_names(run);
        assert!(!left.is_empty() && !site.path(run).join("checkpoint.partial").exists(), "{left:?}");
        // What is there is whole.
        for name in &left {
            site.succeed(
                1,
                &["eval", run, "--checkpoint", name.trim_start_matches('0').get(..).filter(|step| !step.is_empty()).unwrap_or("0")],
            );
        }
        // With room it goes on, as if nothing had been.
        mount.resize("10m");
        let outcome = site.succeed(ranks, &["train", &config, "--out", run, "--resume"]);
        assert!(!warned(&outcome.stderr), "{outcome:?}");
        site.assert_same(run, "whole");
        std::fs::remove_dir_all(site.path(run)).unwrap();
        mount.resize("96k");
    }
    // As the warning says.
    mount.resize("200k");
    let outcome = site.succeed(1, &["train", &config, "--out", "small/few", "--set", "training.keep_checkpoints=1"]);
    assert!(!outcome.stderr.contains("free"), "{outcome:?}");
}

#[test]
fn a_full_disk_at_the_beginning_of_a_run() {
    let site = Site::new();
    let Some(mount) = Mount::tmpfs(&site.path("small"), "size=8k") else { return };
    let config = site.configure("full", "rule = \"bp\"", "[training]\nmax_steps = 2");
    // run.json finds no room, or config.toml after it.
    for filled in [8192, 4096] {
        std::fs::write(site.path("small/filler"), vec![1; filled]).unwrap();
        let outcome = site.run(1, &["train", &config, "--out", "small/run"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        assert!(said.len() == 1 && said[0].contains("No space left on device"), "{outcome:?}");
        assert!(
            said[0].contains("the same command with --resume begins it") && !said[0].contains("run the same command again"),
            "{said:?}"
        );
        mount.resize("10m");
        site.succeed(2, &["train", &config, "--out", "small/run", "--resume"]);
        std::fs::remove_dir_all(site.path("small/run")).unwrap();
        mount.resize("8k");
    }
}

/// A job of two ranks, of which rank 1 has mounts of its own, made by `script` in the site's folder. None where that is not allowed.
fn with_mounts_of_rank_1(site: &Site, script: &str, arguments: &[&str]) -> Option<Job> {
    if !Command::new("unshare").args(["--mount", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nothing may be mounted here");
        return None;
    }
    let program = env!("CARGO_BIN_EXE_biodist");
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "-n", "1", program]).args(arguments);
    command
        .args([":", "-n", "1", "unshare", "--mount", "sh", "-e", "-c", &format!("{script}; exec \"$@\""), "sh", program])
        .args(arguments);
    command.current_dir(site.path(""));
    prepare(&mut command);
    allow_mpirun(&mut command);
    Some(Job::start(command, None))
}

#[test]
fn rank_0_alone_writes() {
    let site = Site::new();
    let config = site.configure("two", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", "[training]\nepochs = 2\nlog_every_steps = 4");
    site.succeed(2, &["train", &config, "--out", "whole"]);
    std::fs::create_dir(site.path("place")).unwrap();
    // What is full, or sealed, for rank 1 alone keeps nothing from being written: checkpoints, metrics, events, and the trace of both.
    let script = "mount --bind place place; mount -o remount,bind,ro place; ! touch place/file 2>/dev/null";
    let arguments = ["train", &config, "--out", "place/run", "--trace", "place/trace.json"];
    let Some(job) = with_mounts_of_rank_1(&site, script, &arguments) else { return };
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    site.assert_same("whole", "place/run");
    assert!(std::fs::read_to_string(site.path("place/trace.json")).unwrap().contains("rank 1 on "));
}

#[test]
fn data_that_rank_1_alone_loses_is_its_error_and_ends_all() {
    let site = Site::new();
    let config = site.configure("long", "rule = \"bp\"", "[training]\nmax_steps = 100000000\nlog_every_steps = 100");
    std::fs::create_dir(site.path("copy")).unwrap();
    for entry in std::fs::read_dir(site.path("train")).unwrap().map(|entry| entry.unwrap()) {
        std::fs::copy(entry.path(), site.path("copy").join(entry.file_name())).unwrap();
    }
    let Some(job) = with_mounts_of_rank_1(&site, "mount --bind copy train", &["train", &config, "--out", "run"]) else { return };
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 0);
    let ranks = job.ranks();
    assert_eq!(ranks.len(), 2);
    // Its loading threads find it out.
    std::fs::OpenOptions::new().write(true).open(site.path("copy/00000.shard")).unwrap().set_len(100).unwrap();
    let lost = Instant::now();
    let outcome = job.wait();
    assert!(lost.elapsed() < Duration::from_secs(12), "{:?}", lost.elapsed());
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
    assert!(said.len() == 1 && said[0].starts_with("biodist: rank 1 on ") && said[0].contains("00000.shard"), "{outcome:?}");
    wait_for("the end of all ranks", || ranks.iter().all(|rank| !exists(*rank)));
}

#[test]
fn logs_that_do_not_fit_are_told_and_training_goes_on() {
    let site = Site::new();
    let Some(_mount) = Mount::tmpfs(&site.path("logs"), "size=8k") else { return };
    // Two lines for each epoch of eleven steps.
    let config = site.configure("talks", "rule = \"bp\"", "[training]\nepochs = 100\ncheckpoint_every_epochs = 0");
    let outcome = launcher(&site, &["--ranks", "2", "train", &config, "--out", "run"]).wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("the logs are not whole: cannot write ") && outcome.stderr.contains("No space left"), "{outcome:?}");
    assert!(outcome.stdout.contains("done: run, 1100 steps"), "{outcome:?}");
}

#[test]
fn a_read_only_folder_is_one_clear_error() {
    let site = Site::new();
    let Some(_mount) = Mount::tmpfs(&site.path("sealed"), "ro") else { return };
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 3");
    for ranks in [1, 2] {
        let outcome = site.run(ranks, &["train", &config, "--out", "sealed/run"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        assert!(said.len() == 1 && said[0].contains("sealed/run") && said[0].contains("Read-only file system"), "{outcome:?}");
    }
}
