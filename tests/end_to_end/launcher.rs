//! `biodist-launch` with the real program: whatever is killed, the run ends as if nothing had been.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::site::{Job, Site, children, lines, prepare, wait_for, write_samples};

/// The launcher that was built beside the program.
pub fn launcher(site: &Site, arguments: &[&str]) -> Job {
    let path = Path::new(env!("CARGO_BIN_EXE_biodist")).with_file_name("biodist-launch");
    assert!(path.exists(), "{} is not built: cargo build --release --workspace", path.display());
    let mut command = Command::new(path);
    command.args(arguments).current_dir(site.path(""));
    prepare(&mut command);
    Job::start(command, None)
}

#[test]
fn a_refusal_is_said_once_and_without_what_mpirun_makes_of_it() {
    let site = Site::new();
    let config = site.configure("config", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", "[training]\nepochs = 1");
    let wrong = ["train", &config, "--set", "learning.alhpa=1"];
    let alone = site.run(2, &wrong);
    assert_eq!((alone.code, alone.stderr.contains("biodist-ended")), (Some(2), false), "{alone:?}");
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (arguments, refused) in [(&wrong[..], "unknown key"), (&["train", &config, "--sett", "a=b"], "unexpected argument '--sett'")] {
        let outcome = launcher(&site, &[&["--ranks", "2"], arguments].concat()).wait();
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert_eq!(outcome.stderr.matches(refused).count(), 1, "{outcome:?}");
        let report = format!("biodist-launch: rank 0 on {} refused the command line or the configuration (code 2)\n", host.trim());
        assert!(outcome.stderr.contains(&report), "{outcome:?}");
        assert!(!["MPI_ABORT", "mpirun", "ORTE", "biodist-ended"].iter().any(|words| outcome.stderr.contains(words)), "{outcome:?}");
    }
}

#[test]
fn a_request_to_stop_shows_no_messages_of_mpiruns() {
    let site = Site::new();
    let more = "[training]\nmax_steps = 100000000\nlog_every_steps = 20\neval_every_epochs = 0";
    let config = site.configure("endless", "rule = \"bp\"", more);
    let job = launcher(&site, &["--ranks", "2", "train", &config, "--out", "run"]);
    wait_for("metrics", || lines(&site.path("run/metrics.jsonl")) > 0);
    job.signal(libc::SIGINT);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(75), "{outcome:?}");
    assert!(!outcome.stderr.contains("----") && !outcome.stderr.contains("mpirun"), "{outcome:?}");
    assert!(outcome.stderr.contains("biodist-launch: stopped on request, checkpoint written\n"), "{outcome:?}");
}

#[test]
fn the_launcher_can_ask_for_the_batch_size() {
    let site = Site::new();
    let config = site.configure("config", "rule = \"bp\"", "[training]\nepochs = 1");
    let more = ["--seeds", "0,1", "--out", "runs/a", "--trace", "t.json", "--set", "data.batch_size=8", "--print-batch-size"];
    assert_eq!(site.succeed(1, &[&["train", &config], &more[..]].concat()).stdout, "8\n");
    assert!(!site.path("runs").exists() && !site.path("t.json").exists());
}

#[test]
fn ranks_killed_at_any_moment_change_nothing() {
    at_once(&[(2, 3), (4, 1)]);
}

#[test]
#[ignore = "make test-cluster"]
fn ranks_killed_twenty_times_change_nothing() {
    at_once(&[(2, 10), (2, 10), (4, 3)]);
}

/// [`kill_ranks`] of each at the same time: a kill takes about four seconds, in most of which Open MPI waits for the other ranks' ends, and
/// the launcher pauses.
fn at_once(jobs: &[(usize, usize)]) {
    std::thread::scope(|scope| {
        for (job, (ranks, kills)) in (0..).zip(jobs.iter().copied()) {
            scope.spawn(move || kill_ranks(job, ranks, kills));
        }
    });
}

/// Kills a random one of so many ranks at a random moment, `kills` times in one launch, and compares the run with an unbroken one.
fn kill_ranks(job: u64, ranks: usize, kills: usize) {
    let seed = std::env::var("BIODIST_TEST_SEED").map_or(u64::from(std::process::id()), |seed| seed.parse().unwrap());
    println!("the same kills again: BIODIST_TEST_SEED={seed}");
    let mut state = seed + job;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let site = Site::new();
    let more = format!(
        "[training]\nepochs = {}\nlog_every_steps = 10\neval_every_epochs = 20\ncheckpoint_every_steps = 30\nkeep_checkpoints = 2",
        180 + 40 * kills
    );
    let config = site.configure("killed", "rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2", &more);
    site.succeed(1, &["train", &config, "--out", "whole"]);

    let restarts = kills.to_string();
    let job = launcher(&site, &["--ranks", &ranks.to_string(), "--max-restarts", &restarts, "train", &config, "--out", "killed"]);
    let metrics = site.path("killed/metrics.jsonl");
    let attempt = |number: usize| {
        let launch = std::fs::read_dir(site.path("logs")).ok()?.next()?.ok()?.path();
        Some(launch.join(format!("attempt-{number}")))
    };
    let mut longest = Duration::ZERO;
    for kill in 1..=kills {
        // Not its output, which may come seconds later than its lines of metrics.
        let begun = || attempt(kill).is_some_and(|folder| folder.exists()) && children_of_children(job.id()).len() == ranks;
        wait_for("an attempt", begun);
        let before = lines(&metrics);
        wait_for("a line of metrics", || lines(&metrics) > before);
        // In whatever the rank does by then: a step, a checkpoint, an evaluation.
        std::thread::sleep(Duration::from_micros(random(16_000)));
        let processes: Vec<i32> = children_of_children(job.id());
        assert_eq!(processes.len(), ranks, "kill {kill}: the run has not ended yet");
        unsafe { libc::kill(processes[random(ranks as u64) as usize], libc::SIGKILL) };
        let killed = Instant::now();
        wait_for("the next attempt", || attempt(kill + 1).is_some_and(|folder| folder.exists()));
        // The launcher's pause is part of it.
        longest = longest.max(killed.elapsed());
        assert!(killed.elapsed() < Duration::from_secs(10), "kill {kill}: {:?}", killed.elapsed());
    }
    let outcome = job.wait();
    println!("the next start came after {longest:?} at most");
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stderr.matches("was killed by signal 9").count(), kills, "{outcome:?}");
    site.assert_same("whole", "killed");
}

/// The ranks, which are mpirun's children, which is the launcher's.
fn children_of_children(process: i32) -> Vec<i32> {
    std::fs::read_dir(format!("/proc/{process}/task"))
        .unwrap()
        .filter_map(|task| task.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .flat_map(|task| std::fs::read_to_string(format!("/proc/{process}/task/{task}/children")))
        .flat_map(|text| text.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<i32>>())
        .flat_map(children)
        .collect()
}

#[test]
fn data_that_vanishes_under_way_is_one_clear_error() {
    let site = Site::new();
    // Large images, all of whose pixels are looked at: the shard is cut while one of them is being read, after its length was compared.
    let [height, width] = [1000, 1000];
    let large: Vec<_> = (0..8).map(|sample| (sample % 2, vec![40 * sample as u8; height * width])).collect();
    write_samples(&site.path("large"), [height, width, 1], 2, &large);
    let text = "
        [data]
        train = \"large\"
        batch_size = 4
        augment = [\"random_resized_crop\"]
        crop = [6, 6]
        [learning]
        rule = \"bp\"
        [optimizer.forward]
        learning_rate = 0.001
        [training]
        max_steps = 100000000
        checkpoint_every_epochs = 0
        log_every_steps = 10";
    std::fs::write(site.path("large.toml"), text).unwrap();
    let small = site.configure("small", "rule = \"bp\"", "[training]\nmax_steps = 100000000\nlog_every_steps = 100");
    for (config, data) in [("large.toml", "large"), (small.as_str(), "train")] {
        for ranks in [1, 2] {
            let shard = site.path(data).join("00000.shard");
            let whole = std::fs::read(&shard).unwrap();
            let run = format!("{data}-{ranks}");
            let job = site.start(ranks, &["train", config, "--out", &run]);
            wait_for("metrics", || lines(&site.path(&run).join("metrics.jsonl")) > 0);
            std::fs::OpenOptions::new().write(true).open(&shard).unwrap().set_len(100).unwrap();
            let outcome = job.wait();
            assert_eq!(outcome.code, Some(1), "{outcome:?}");
            assert!(outcome.stderr.contains("00000.shard"), "{outcome:?}");
            assert!(!outcome.stderr.contains("panicked") && !outcome.stderr.contains("Bus error"), "{outcome:?}");
            std::fs::write(&shard, whole).unwrap();
        }
    }
}
