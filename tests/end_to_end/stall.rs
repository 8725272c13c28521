//! Ranks that stop without ending: the others must say who it is, and none may be left.

use std::time::{Duration, Instant};

use crate::site::{Job, Outcome, Site, exists, lines, wait_for};

/// Long, and watched closely.
const WATCHED: &str = "[training]\nmax_steps = 100000000\nlog_every_steps = 50\nkeep_checkpoints = 1\ncheckpoint_every_epochs = 20\n[parallel]\nstall_timeout = 2";

/// A job of `ranks` ranks that has begun to train.
fn begin(site: &Site, ranks: usize) -> (Job, Vec<i32>) {
    begin_with(site, ranks, str::to_owned)
}

/// The same with a configuration that `change` has changed.
fn begin_with(site: &Site, ranks: usize, change: impl Fn(&str) -> String) -> (Job, Vec<i32>) {
    let config = site.configure("watched", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", WATCHED);
    let text = std::fs::read_to_string(site.path(&config)).unwrap();
    std::fs::write(site.path(&config), change(&text)).unwrap();
    let job = site.start(ranks, &["train", &config, "--out", "run"]);
    wait_for("a line of metrics", || lines(&site.path("run/metrics.jsonl")) > 0);
    let processes = job.ranks();
    assert_eq!(processes.len(), ranks);
    (job, processes)
}

/// With layers that computing takes far longer for than anything else in a step.
fn widen(text: &str) -> String {
    text.replace("units = 24", "units = 1500").replace("units = 20", "units = 1500")
}

/// What each rank but `stopped` has to say.
fn assert_named(outcome: &Outcome, ranks: usize, stopped: usize) {
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("stalled (parallel.stall_timeout = 2 s): ")).collect();
    for rank in (0..ranks).filter(|rank| *rank != stopped) {
        let prefix = if rank == 0 { "biodist: stalled".to_owned() } else { format!("biodist: rank {rank} on ") };
        let line = said.iter().find(|line| line.starts_with(&prefix)).unwrap_or_else(|| panic!("rank {rank} is silent: {outcome:?}"));
        let verdict = line.split_once("2 s): ").unwrap().1;
        assert!(verdict.starts_with(&format!("rank {stopped} on ")), "{line}");
        assert!(
            verdict.contains("no sign of life") && verdict.contains("stopped, by SIGSTOP") && verdict.contains("last seen in step "),
            "{line}"
        );
        assert!(verdict.contains("; the others wait in "), "{line}");
        assert_eq!(verdict.matches("rank ").count(), 1, "no other rank is blamed: {line}");
    }
}

#[test]
fn a_stopped_rank_is_named_and_the_job_ends() {
    for (ranks, stopped) in [(2, 1), (2, 0), (4, 2)] {
        let site = Site::new();
        let (job, processes) = begin(&site, ranks);
        unsafe { libc::kill(processes[stopped], libc::SIGSTOP) };
        let since = Instant::now();
        let outcome = job.wait();
        assert!(since.elapsed() < Duration::from_secs(12), "{:?}", since.elapsed());
        assert_named(&outcome, ranks, stopped);
        wait_for("the end of all ranks", || processes.iter().all(|process| !exists(*process)));
    }
}

#[test]
fn a_job_that_was_suspended_as_a_whole_goes_on() {
    let site = Site::new();
    let (job, processes) = begin(&site, 2);
    let signal = |signal| processes.iter().for_each(|process| assert_eq!(unsafe { libc::kill(*process, signal) }, 0));
    signal(libc::SIGSTOP);
    std::thread::sleep(Duration::from_secs(4));
    let before = lines(&site.path("run/metrics.jsonl"));
    signal(libc::SIGCONT);
    wait_for("more metrics", || lines(&site.path("run/metrics.jsonl")) > before + 20);
    job.signal(libc::SIGUSR1);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
}

#[test]
fn evaluation_counts_as_progress_and_a_stop_in_it_is_told() {
    let site = Site::new();
    crate::site::write_images(&site.path("test"), 800_000, 10);
    let (job, processes) = begin_with(&site, 2, |text| {
        // Without validation no checkpoint comes between the last step of an epoch and its evaluation, which takes many seconds anywhere.
        widen(text).replace("validation = 20", "validation = 0").replace("log_every_steps = 50", "log_every_steps = 1")
    });
    // All of the first epoch's steps.
    wait_for("an evaluation", || lines(&site.path("run/metrics.jsonl")) >= 12);
    // Longer than ranks may stand still.
    std::thread::sleep(Duration::from_millis(2500));
    unsafe { libc::kill(processes[1], libc::SIGSTOP) };
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    assert!(outcome.stderr.contains("stopped, by SIGSTOP"), "{outcome:?}");
    // In one of its operations, or between two.
    assert!(["(evaluation)", ", evaluation. "].iter().any(|place| outcome.stderr.contains(place)), "{outcome:?}");
}

#[test]
fn short_runs_end_well_under_a_short_limit() {
    let site = Site::new();
    let config = site.configure("short", "rule = \"bp\"", "[training]\nepochs = 2\n[parallel]\nstall_timeout = 0.5");
    for ranks in [1, 2] {
        let outcome = site.succeed(ranks, &["train", &config, "--out", &format!("run-{ranks}")]);
        assert!(!outcome.stderr.contains("stall"), "{outcome:?}");
    }
}

/// How a job ends whose rank 1 is held at a random moment, and lives. None where nothing may be traced.
fn end_with_rank_1_held() -> Option<Outcome> {
    let site = Site::new();
    let (job, processes) = begin_with(&site, 2, |text| {
        // Hardly a moment is spent on data, and none on checkpoints, which may take longer.
        widen(text)
            .replace("checkpoint_every_epochs = 20", "checkpoint_every_epochs = 0")
            .replace("[training]", "[training]\neval_every_epochs = 0")
    });
    let process = processes[1];
    // A debugger that stops the main thread alone; the rank's watchdog goes on.
    let (attached, told) = std::sync::mpsc::channel();
    let debugger = std::thread::spawn(move || unsafe {
        let none = std::ptr::null_mut::<libc::c_void>();
        let result = libc::ptrace(libc::PTRACE_ATTACH, process, none, none);
        attached.send(result == 0).unwrap();
        let mut status = 0;
        // Its end, too, is told to the debugger first.
        while result == 0
            && libc::waitpid(process, &mut status, libc::__WALL) == process
            && !libc::WIFEXITED(status)
            && !libc::WIFSIGNALED(status)
        {}
    });
    if !told.recv().unwrap() {
        eprintln!("skipped: nothing may be traced here");
        return None;
    }
    let outcome = job.wait();
    debugger.join().unwrap();
    assert_eq!(outcome.code, Some(76), "{outcome:?}");
    Some(outcome)
}

#[test]
fn a_rank_that_lives_and_does_not_move_is_named() {
    // In an exchange that both ranks have begun nobody can tell which of them is held, and in its wait for data a rank has a minute.
    let untold = |outcome: &Outcome| {
        let verdicts = ["2 s): all ranks wait in one exchange", ", waiting for data; the others wait in "];
        verdicts.iter().any(|verdict| outcome.stderr.contains(verdict))
    };
    let mut attempts = 0;
    let outcome = loop {
        attempts += 1;
        let Some(outcome) = end_with_rank_1_held() else { return };
        if attempts == 4 || !untold(&outcome) {
            break outcome;
        }
    };
    for prefix in ["biodist: stalled", "biodist: rank 1 on "] {
        let line = outcome.stderr.lines().find(|line| line.starts_with(prefix)).unwrap_or_else(|| panic!("{prefix}: {outcome:?}"));
        let verdict = line.split_once("2 s): ").unwrap().1;
        assert!(verdict.starts_with("rank 1 on ") && verdict.contains("has made no progress for 2."), "{line}");
    }
}
