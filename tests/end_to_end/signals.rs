//! Requests to stop, and ranks that are lost.

use std::time::Instant;

use libc::{SIGINT, SIGTERM, SIGUSR1};

use crate::resume::kill_a_rank;
use crate::site::{Job, Outcome, Site, exists, lines, wait_for};

const LONG: &str = "[training]\nmax_steps = 100000000\nlog_every_steps = 100\nkeep_checkpoints = 1";

/// A job that has begun to train.
fn begin(site: &Site, ranks: usize, run: &str) -> Job {
    let config = site.configure("long", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", LONG);
    let job = site.start(ranks, &["train", &config, "--out", run, "--set", "training.checkpoint_every_epochs=0"]);
    wait_for("a line of metrics", || lines(&site.path(run).join("metrics.jsonl")) > 0);
    job
}

fn assert_stopped(site: &Site, run: &str, outcome: &Outcome) {
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert_eq!(outcome.stderr.matches("stopped on request after step").count(), 1, "{outcome:?}");
    let names = site.checkpoint_names(run);
    assert!((2..=3).contains(&names.len()), "step 0, where it stopped, and the best where that is another: {names:?}");
    let step: u64 = names.last().unwrap().parse().unwrap();
    assert!(outcome.stderr.contains(&format!("after step {step} ")), "{outcome:?}");
    // It goes on from there, and ends with the step that it is told to.
    let stop = format!("training.max_steps={}", step + 3);
    site.succeed(1, &["train", "long.toml", "--out", run, "--resume", "--set", &stop, "--set", "training.log_every_steps=1"]);
    assert_eq!(site.checkpoint_names(run).last().unwrap(), &format!("{:08}", step + 3));
}

#[test]
fn one_process_stops_on_each_of_three_signals() {
    let site = Site::new();
    for signal in [SIGUSR1, SIGTERM, SIGINT] {
        let run = format!("run-{signal}");
        let job = begin(&site, 1, &run);
        job.signal(signal);
        assert_stopped(&site, &run, &job.wait());
    }
}

#[test]
fn mpirun_passes_usr1_on() {
    let site = Site::new();
    let job = begin(&site, 2, "run");
    job.signal(SIGUSR1);
    assert_stopped(&site, "run", &job.wait());
}

/// mpirun asks its ranks to end and kills them soon after: what they get to write by then is whole, or is not there.
#[test]
fn mpirun_that_is_told_to_end_leaves_a_run_that_goes_on() {
    for (ranks, signal) in [(2, SIGTERM), (4, SIGTERM), (2, SIGINT)] {
        let site = Site::new();
        let more = "[training]\nepochs = 60\nlog_every_steps = 1\ncheckpoint_every_steps = 3\nkeep_checkpoints = 2";
        let config = site.configure("told", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", more);
        site.succeed(1, &["train", &config, "--out", "whole"]);
        let job = site.start(ranks, &["train", &config, "--out", "run"]);
        wait_for("lines of metrics", || lines(&site.path("run/metrics.jsonl")) > 40);
        let processes = job.ranks();
        job.signal(signal);
        let told = Instant::now();
        let outcome = job.wait();
        assert!(outcome.code != Some(0) && told.elapsed().as_secs() < 15, "{:?}: {outcome:?}", told.elapsed());
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        wait_for("the end of all ranks", || processes.iter().all(|process| !exists(*process)));
        site.succeed(2, &["train", &config, "--out", "run", "--resume"]);
        site.assert_same("whole", "run");
    }
}

#[test]
fn one_rank_with_a_signal_stops_all() {
    let site = Site::new();
    let job = begin(&site, 2, "run");
    let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", job.id())).unwrap();
    let rank: i32 = children.split_whitespace().last().unwrap().parse().unwrap();
    unsafe { libc::kill(rank, SIGTERM) };
    assert_stopped(&site, "run", &job.wait());
}

#[test]
fn a_lost_rank_ends_the_job_within_seconds() {
    let site = Site::new();
    let job = begin(&site, 2, "run");
    let killed = Instant::now();
    kill_a_rank(&job);
    let outcome = job.wait();
    assert_ne!(outcome.code, Some(0));
    assert!(killed.elapsed().as_secs() < 10, "{:?}", killed.elapsed());
}
