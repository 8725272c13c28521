//! The launcher with a real mpirun. A shell script stands in for biodist: it counts steps, keeps the last in a file, and fails as told.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::{Folder, launcher, run, text, wait_for};

#[test]
fn a_killed_rank_leads_to_a_restart_from_the_last_checkpoint() {
    let folder = Folder::new();
    let fail = r#"[ "$rank$step" != 14 ] || kill -9 $$"#;
    let (code, said) = run(folder.command(&["--ranks", "2", "train", "a.toml"]).env("FAIL", fail));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("was killed by signal 9"), "{said}");
    assert!(said.contains("restart 1 of 3") && said.contains("done, after 1 restart"), "{said}");
    let log = folder.log(1);
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines[0], "rank 1 of 2 from step 0: train a.toml");
    assert!(lines[1].starts_with("rank 1 of 2 from step ") && lines[1].ends_with(": train a.toml --resume"), "{log}");
    assert_eq!(lines[2..], ["rank 1 done"]);
}

#[test]
fn restarts_have_an_end() {
    let folder = Folder::new();
    let arguments = ["--ranks", "1", "--max-restarts", "1", "train", "a.toml", "--resume"];
    fs::write(folder.path("stand-in"), "#!/bin/sh\necho reason >&2\nsleep 1\nkill -9 $$\n").unwrap();
    let (code, said) = run(&mut folder.command(&arguments));
    assert_eq!(code, Some(137), "{said}");
    assert!(said.contains("after 1 restart; not started again: --max-restarts is 1"), "{said}");
    assert!(said.contains("last lines of rank 0:\n    reason\n"), "{said}");
    assert!(said.contains("train a.toml --resume\n"), "how to go on: {said}");
}

#[test]
fn what_cannot_be_cured_is_not_started_again() {
    let folder = Folder::new();
    for (exit, subcommand, starts) in [(2, "train", 1), (75, "train", 1), (77, "train", 1), (1, "train", 2), (1, "eval", 1)] {
        fs::write(folder.path("stand-in"), format!("#!/bin/sh\necho start >> starts\nexit {exit}\n")).unwrap();
        let (code, said) = run(&mut folder.command(&["--ranks", "1", subcommand, "x"]));
        assert_eq!(code, Some(exit), "{said}");
        assert_eq!(fs::read_to_string(folder.path("starts")).unwrap().lines().count(), starts, "exit {exit}: {said}");
        fs::remove_file(folder.path("starts")).unwrap();
    }
}

/// A rank's word, its end, and what the others do about it, as far as mpirun lets them.
#[test]
fn what_a_rank_says_last_counts_and_is_not_shown() {
    let folder = Folder::new();
    let word = |code: i32| format!(r#"{{\"code\":{code},\"rank\":1,\"host\":\"h2\",\"cause\":\"rank 0 is late\"}}"#);
    let script = |code: i32, cut: usize| {
        let word = &word(code)[..word(code).len() - cut];
        let of_1 = format!("echo 'biodist: reason' >&2; echo \"biodist-ended {word}\" >&2; sleep 0.3; kill -9 $$");
        format!("#!/bin/sh\n[ \"$OMPI_COMM_WORLD_RANK\" = 0 ] || {{ {of_1}; }}\nsleep 60\n")
    };
    for (code, cut, exit, described) in [
        (77, 0, 77, "rank 1 on h2 met a loss that is not finite (code 77)\n"),
        (2, 0, 2, "rank 1 on h2 refused the command line or the configuration (code 2)\n"),
        (76, 0, 76, "stalled (code 76): rank 0 is late; not started again: --max-restarts is 0\n"),
        (76, 9, 137, "was killed by signal 9; not started again"),
    ] {
        fs::write(folder.path("stand-in"), script(code, cut)).unwrap();
        let (ended, said) = run(&mut folder.command(&["--ranks", "2", "--max-restarts", "0", "train", "a.toml"]));
        assert_eq!(ended, Some(exit), "{said}");
        assert!(said.contains("[rank 1] biodist: reason\n") && said.contains(described), "{said}");
        assert_eq!(said.matches("reason").count(), if cut > 0 { 2 } else { 1 }, "repeated where nothing else explains it: {said}");
        assert!(!said.contains("biodist-ended") && !said.contains("mpirun noticed"), "{said}");
    }
}

#[test]
fn what_mpirun_says_is_shown_where_it_alone_knows() {
    let folder = Folder::new();
    let (code, said) = run(folder.command(&["--ranks", "1", "train", "a.toml"]).env("OMPI_MCA_rmaps", "none-of-these"));
    assert!(code != Some(0) && said.contains("none-of-these"), "{said}");
}

#[test]
fn a_signal_asks_every_rank_for_a_checkpoint() {
    for signal in [libc::SIGUSR1, libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        let folder = Folder::new();
        let launcher = folder.command(&["--ranks", "2", "train", "a.toml"]).env("STEPS", "10000").spawn().unwrap();
        ["step", "ready-0", "ready-1"].iter().for_each(|name| wait_for(&folder.path(name)));
        // SAFETY: the number is that of a child that nobody has waited for.
        unsafe { libc::kill(launcher.id().cast_signed(), signal) };
        let output = launcher.wait_with_output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(75), "signal {signal}: {said}");
        assert!(said.contains("stopped on request, checkpoint written"), "{said}");
        for rank in 0..2 {
            let log = folder.log(rank);
            assert!(log.contains(&format!("checkpoint of rank {rank}")), "{log}");
        }
    }
}

/// mpirun drops what comes before it has started its ranks, so once is not enough.
#[test]
fn a_signal_before_the_ranks_are_there_is_not_lost() {
    let folder = Folder::new();
    let launcher = folder.command(&["--ranks", "2", "train", "a.toml"]).env("STEPS", "10000").spawn().unwrap();
    wait_for(&folder.path("logs"));
    let asked = Instant::now();
    // SAFETY: the number is that of a child that nobody has waited for.
    unsafe { libc::kill(launcher.id().cast_signed(), libc::SIGTERM) };
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(75), "{}", text(&output.stderr));
    assert!(asked.elapsed() < Duration::from_secs(20), "{:?}", asked.elapsed());
}

#[test]
fn a_program_that_is_not_there_is_not_tried() {
    let folder = Folder::new();
    let mut command = launcher();
    command.current_dir(folder.0.path()).args(["--program", "no-such-program", "--ranks", "1", "train", "a.toml"]);
    let (code, said) = run(&mut command);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no-such-program is not there; --program names what is started") && !said.contains("restart"), "{said}");
}

#[test]
fn ranks_that_do_not_end_when_asked_are_ended() {
    let folder = Folder::new();
    fs::write(folder.path("stand-in"), "#!/bin/sh\ntrap '' USR1\ntouch step\nexec sleep 600\n").unwrap();
    let launcher = folder.command(&["--ranks", "1", "--grace", "1", "train", "a.toml"]).spawn().unwrap();
    wait_for(&folder.path("step"));
    let started = Instant::now();
    // SAFETY: the number is that of a child that nobody has waited for.
    unsafe { libc::kill(launcher.id().cast_signed(), libc::SIGTERM) };
    let output = launcher.wait_with_output().unwrap();
    assert!(!output.status.success() && started.elapsed() < Duration::from_secs(15), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stopped on request\n"), "{}", text(&output.stderr));
}

#[test]
fn the_hosts_that_remain_go_on_with_the_largest_number_of_ranks_that_divides_the_batch() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "alpha slots=5\nbeta slots=3\n").unwrap();
    // The daemon that Open MPI has on beta is killed, and beta is not there any more.
    let fail = r#"if [ "$rank$step" = 72 ]; then touch gone-beta; kill -9 $PPID; sleep 600; fi"#;
    let mut command = folder.command(&["--hosts", "hosts.txt", "--ranks", "8", "train", "a.toml", "--set", "training.epochs=1"]);
    let (code, said) = run(command.env("FAIL", fail).env("OMPI_MCA_plm_rsh_agent", folder.script("agent")));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("beta is lost: no route to beta"), "{said}");
    // 12 samples a batch on at most 5 slots: 4 ranks.
    assert!(said.contains("4 ranks on alpha (4)"), "{said}");
    assert!(folder.log(3).contains("rank 3 of 4 from step ") && !folder.log(4).contains("of 4"), "{said}");
}

#[test]
fn a_host_that_does_not_answer_is_named_before_anything_is_started() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "alpha\nbeta\n").unwrap();
    fs::write(folder.path("gone-beta"), "").unwrap();
    let mut command = folder.command(&["--hosts", "hosts.txt", "train", "a.toml"]);
    let (code, said) = run(command.env("OMPI_MCA_plm_rsh_agent", folder.script("agent")));
    assert_eq!(code, Some(1));
    assert_eq!(said, "biodist-launch: cannot start on every host\n  beta: no route to beta\n");
    assert!(!folder.path("logs").exists());
}

#[test]
fn a_dry_run_prints_the_command_and_does_nothing() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "node1 slots=4 # GPUs\nnode2 slots=4\n").unwrap();
    let (code, said) = run(&mut folder.command(&["--hosts", "hosts.txt", "--dry-run", "train", "a b.toml"]));
    assert_eq!(code, Some(0));
    assert!(said.contains("mpirun --host node1:4,node2:4 -n 8 ") && said.ends_with("/stand-in train 'a b.toml'\n"), "{said}");
    assert!(!folder.path("logs").exists() && !folder.path("step").exists());
}

#[test]
fn a_wrong_command_line_ends_with_2() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "node1 slots=four\n").unwrap();
    for (arguments, expected) in [
        (&["--hosts", "hosts.txt", "train", "x"][..], "hosts.txt:1: slots is 'four'"),
        (&["--ranks", "0", "train", "x"], "--ranks is 0"),
        (&["biodist", "train", "x"], "leave the word biodist out"),
        (&["--rank", "2", "train", "x"], "--ranks"),
        (&[], "Usage"),
    ] {
        let (code, said) = run(&mut folder.command(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
}

/// As Rust's runtime ends a process that gets no memory.
#[test]
fn a_rank_without_memory_is_not_started_again() {
    let folder = Folder::new();
    let fail = "ulimit -c 0; [ $rank = 0 ] || { echo 'memory allocation of 4096 bytes failed' >&2; kill -ABRT $$; sleep 5; }";
    let (code, said) = run(folder.command(&["--ranks", "2", "train", "a.toml"]).env("FAIL", fail));
    assert!(code == Some(1) && said.contains("a rank got no memory that it asked for; raise its limit (`ulimit -v`)"), "{said}");
    assert!(said.contains("not started again: that has to be mended first") && !said.contains("restart 1"), "{said}");
    assert!(said.contains("[rank 1] memory allocation of 4096 bytes failed"), "{said}");
    assert!(said.contains("to go on from the last complete checkpoint: "), "{said}");
}
