//! Requests to stop, and ranks that are lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::time::Instant;

use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use crate::resume::kill_a_rank;
use crate::site::{Job, Outcome, PATIENCE, Site, exists, lines, wait_for};

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
fn one_process_stops_on_each_request() {
    let site = Site::new();
    for signal in [SIGUSR1, SIGTERM, SIGINT, SIGHUP] {
        let run = format!("run-{signal}");
        let job = begin(&site, 1, &run);
        job.signal(signal);
        assert_stopped(&site, &run, &job.wait());
    }
}

/// As under nohup, and in the background of a script.
#[test]
fn what_it_was_started_to_ignore_stops_nothing() {
    let site = Site::new();
    let config = site.configure("long", "rule = \"bp\"", LONG);
    let mut command = site.command(1, &["train", &config, "--out", "run"]);
    let ignore = || {
        [SIGHUP, SIGINT, SIGUSR1].iter().for_each(|signal| unsafe {
            libc::signal(*signal, libc::SIG_IGN);
        });
        Ok(())
    };
    unsafe { command.pre_exec(ignore) };
    let job = Job::start(command, None);
    let metrics = site.path("run/metrics.jsonl");
    wait_for("metrics", || lines(&metrics) > 0);
    job.signal(SIGHUP);
    job.signal(SIGINT);
    let before = lines(&metrics);
    wait_for("more metrics", || lines(&metrics) > before + 3);
    // Which nobody sends but to ask for this.
    job.signal(SIGUSR1);
    assert_stopped(&site, "run", &job.wait());
}

/// A job whose output goes where the test has it.
fn with_output(site: &Site, out: Stdio, err: Stdio) -> Child {
    let config = site.configure("talkative", "rule = \"bp\"", &LONG.replace("log_every_steps = 100", "log_every_steps = 1"));
    let mut command = site.command(1, &["train", &config, "--out", "run", "--set", "training.checkpoint_every_epochs=0"]);
    command.stdout(out).stderr(err).spawn().unwrap()
}

fn code(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(Instant::now() < deadline || child.kill().is_err(), "the job does not end");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Both ends of a pipe that is full, so that whoever writes to it waits for its reader.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    unsafe {
        assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
        libc::fcntl(ends[1], libc::F_SETFL, libc::O_NONBLOCK);
        let mut writer = std::mem::ManuallyDrop::new(std::fs::File::from_raw_fd(ends[1]));
        while writer.write(&[b'\n'; 4096]).is_ok() {}
        libc::fcntl(ends[1], libc::F_SETFL, 0);
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}

/// A terminal that shows nothing any more, as after Ctrl-S: the side of it that programs have, and the other.
fn full_terminal() -> (OwnedFd, OwnedFd) {
    let (mut outside, mut inside) = (0, 0);
    unsafe {
        let none = std::ptr::null_mut::<libc::c_char>();
        assert_eq!(libc::openpty(&mut outside, &mut inside, none, std::ptr::null(), std::ptr::null()), 0);
        libc::fcntl(inside, libc::F_SETFL, libc::O_NONBLOCK);
        let mut writer = std::mem::ManuallyDrop::new(std::fs::File::from_raw_fd(inside));
        while writer.write(&[b'x'; 4096]).is_ok() {}
        libc::fcntl(inside, libc::F_SETFL, 0);
        (OwnedFd::from_raw_fd(outside), OwnedFd::from_raw_fd(inside))
    }
}

#[test]
fn output_that_nobody_reads_holds_up_neither_training_nor_its_end() {
    // At the same time: each waits for a reader at its end, as long as it does for any.
    std::thread::scope(|scope| {
        for (unread_out, unread_err, terminal) in [(true, false, false), (false, true, false), (true, true, true)] {
            scope.spawn(move || ends_unread(unread_out, unread_err, terminal));
        }
    });
}

fn ends_unread(unread_out: bool, unread_err: bool, terminal: bool) {
    let site = Site::new();
    let (reader, writer) = if terminal { full_terminal() } else { full_pipe() };
    let stream = |unread| if unread { Stdio::from(writer.try_clone().unwrap()) } else { Stdio::null() };
    let child = with_output(&site, stream(unread_out), stream(unread_err));
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 50);
    unsafe { libc::kill(child.id().cast_signed(), SIGTERM) };
    assert_eq!(code(child), Some(75), "{unread_out} {unread_err} {terminal}");
    assert!(site.checkpoint_names("run").last().unwrap() > &"00000000".to_owned());
    drop(reader);
}

/// As of `biodist train CONFIG | head -1`.
#[test]
fn a_reader_that_leaves_ends_nothing() {
    let site = Site::new();
    let mut child = with_output(&site, Stdio::piped(), Stdio::null());
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("run "), "{first}");
    let before = lines(&site.path("run/metrics.jsonl"));
    wait_for("more metrics", || lines(&site.path("run/metrics.jsonl")) > before + 50);
    unsafe { libc::kill(child.id().cast_signed(), SIGTERM) };
    assert_eq!(code(child), Some(75));
}

/// A reader that is slow, not gone, misses nothing.
#[test]
fn what_is_read_late_is_whole() {
    let site = Site::new();
    let (reader, writer) = full_pipe();
    let waiting = unsafe {
        let mut bytes = 0;
        assert_eq!(libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &mut bytes), 0);
        bytes as usize
    };
    let child = with_output(&site, Stdio::from(writer), Stdio::null());
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 400);
    let mut text = String::new();
    let mut file = std::fs::File::from(reader);
    let reading = std::thread::spawn(move || {
        file.read_to_string(&mut text).unwrap();
        text
    });
    unsafe { libc::kill(child.id().cast_signed(), SIGTERM) };
    assert_eq!(code(child), Some(75));
    let text = reading.join().unwrap();
    let tested = text[waiting..].lines().filter_map(|line| line.strip_prefix("epoch ")?.split_once(": test error"));
    let epochs: Vec<u64> = tested.map(|(at, _)| at.split(',').next().unwrap().parse().unwrap()).collect();
    assert!(epochs.len() > 20 && epochs.iter().copied().eq(1..=epochs.len() as u64), "{epochs:?}");
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
    let site = Site::new();
    let more = "[training]\nepochs = 60\nlog_every_steps = 1\ncheckpoint_every_steps = 3\nkeep_checkpoints = 2";
    let config = site.configure("told", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", more);
    site.succeed(1, &["train", &config, "--out", "whole"]);
    for (ranks, signal) in [(2, SIGTERM), (4, SIGTERM), (2, SIGINT)] {
        let run = format!("run-{ranks}-{signal}");
        let job = site.start(ranks, &["train", &config, "--out", &run]);
        wait_for("lines of metrics", || lines(&site.path(&run).join("metrics.jsonl")) > 40);
        let processes = job.ranks();
        job.signal(signal);
        let told = Instant::now();
        let outcome = job.wait();
        assert!(outcome.code != Some(0) && told.elapsed().as_secs() < 15, "{:?}: {outcome:?}", told.elapsed());
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        wait_for("the end of all ranks", || processes.iter().all(|process| !exists(*process)));
        site.succeed(2, &["train", &config, "--out", &run, "--resume"]);
        site.assert_same("whole", &run);
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
