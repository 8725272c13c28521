//! The launcher in surroundings that are not as they should be: readers that do not read, variables and files that others left, programs
//! that are missing. What its messages advise is done here, and works.

mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use common::{Folder, run, text, wait_for};

fn signal(process: &Child, signal: i32) {
    // SAFETY: the number is that of a child that nobody has waited for.
    unsafe { libc::kill(process.id().cast_signed(), signal) };
}

/// The exit code of a process that ends before long.
fn code(mut process: Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        if Instant::now() >= deadline {
            process.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The command that a message ends with, after `before`, as a shell in the folder runs it.
fn advised(folder: &Folder, said: &str, before: &str) -> Command {
    let line = said.split_once(before).unwrap_or_else(|| panic!("{before}: {said}")).1.lines().next().unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", line]).current_dir(folder.0.path());
    command
}

fn step(folder: &Folder) -> u64 {
    fs::read_to_string(folder.path("step")).ok().and_then(|step| step.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn output_that_nobody_reads_holds_up_no_request() {
    let folder = Folder::new();
    // Far more than pipes hold, by every rank.
    let fail = "printf '%04000d\\n' $step; printf '%04000d\\n' $step >&2";
    let mut command = folder.command(&["--ranks", "2", "train", "a.toml"]);
    let mut launcher = command.env("STEPS", "100000").env("FAIL", fail).spawn().unwrap();
    wait_for(&folder.path("step"));
    let deadline = Instant::now() + Duration::from_secs(60);
    while step(&folder) < 80 {
        assert!(Instant::now() < deadline, "the ranks wait for their reader");
        std::thread::sleep(Duration::from_millis(10));
    }
    let (out, err) = (launcher.stdout.take(), launcher.stderr.take());
    signal(&launcher, libc::SIGTERM);
    assert_eq!(code(launcher), Some(75));
    drop((out, err));
    for rank in 0..2 {
        assert!(folder.log(rank).contains(&format!("\ncheckpoint of rank {rank}\n")));
    }
}

#[test]
fn a_reader_that_leaves_ends_nothing() {
    let folder = Folder::new();
    let mut launcher = folder.command(&["--ranks", "1", "train", "a.toml"]).env("STEPS", "20").spawn().unwrap();
    let mut first = String::new();
    BufReader::new(launcher.stdout.take().unwrap()).read_line(&mut first).unwrap();
    drop(launcher.stderr.take());
    assert_eq!((first.as_str(), code(launcher)), ("rank 0 of 1 from step 0: train a.toml\n", Some(0)));
    assert_eq!(step(&folder), 20);
}

#[test]
fn what_it_was_started_to_ignore_stops_nothing() {
    let folder = Folder::new();
    let mut command = folder.command(&["--ranks", "1", "train", "a.toml"]);
    command.env("STEPS", "10000");
    let ignore = || {
        for signal in [libc::SIGHUP, libc::SIGINT] {
            // SAFETY: the disposition is the system's own.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec only signal is called, which may be.
    let launcher = unsafe { command.pre_exec(ignore) }.spawn().unwrap();
    wait_for(&folder.path("ready-0"));
    signal(&launcher, libc::SIGHUP);
    signal(&launcher, libc::SIGINT);
    let before = step(&folder);
    let deadline = Instant::now() + Duration::from_secs(60);
    while step(&folder) < before + 30 {
        assert!(Instant::now() < deadline, "it has stopped");
        std::thread::sleep(Duration::from_millis(10));
    }
    signal(&launcher, libc::SIGTERM);
    assert_eq!(code(launcher), Some(75));
}

/// A PATH with nothing but these programs of this machine.
fn path_of(folder: &Folder, programs: &[&str]) -> PathBuf {
    let path = folder.path("bin");
    fs::create_dir(&path).unwrap();
    let all = std::env::var_os("PATH").unwrap();
    for program in programs {
        let found = std::env::split_paths(&all).map(|folder| folder.join(program)).find(|path| path.is_file());
        symlink(found.unwrap_or_else(|| panic!("{program} is not on the PATH")), path.join(program)).unwrap();
    }
    path
}

#[test]
fn what_a_person_has_to_mend_is_said_once_and_not_tried_again() {
    let folder = Folder::new();
    let path = path_of(&folder, &["sh", "env", "grep", "ls", "wc", "mpirun", "orted"]);
    // Both are this machine, but Open MPI knows one of them alone as such.
    fs::write(folder.path("hosts.txt"), "127.0.0.1 slots=1\n127.0.0.2 slots=1\n").unwrap();
    fs::write(folder.path("far.txt"), "127.0.0.1 slots=1\n192.0.2.1 slots=1\n").unwrap();
    fs::write(folder.path("text"), "").unwrap();
    let without_ssh = |hosts| {
        let mut command = folder.command(&["--hosts", hosts, "train", "x"]);
        command.env("PATH", &path);
        command
    };
    let of = |program: &str| {
        let mut command = common::launcher();
        command.current_dir(folder.0.path()).args(["--program", program, "--ranks", "1", "train", "x"]);
        command
    };
    fs::write(folder.path("no-interpreter"), "#!/no/interpreter\n").unwrap();
    fs::set_permissions(folder.path("no-interpreter"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (mut command, starts, exit, named) in [
        (without_ssh("hosts.txt"), 1, 1, "install ssh"),
        (without_ssh("far.txt"), 0, 1, "192.0.2.1: ssh is not here to reach it; install ssh"),
        (of("sh -c 'exec no-such-program'"), 1, 127, "was not found (code 127)"),
        (of("sh -c ./text"), 1, 126, "the program cannot be executed (code 126)"),
        (of("./no-interpreter"), 1, 1, "interpreter that is not there; --program names what is started"),
        (of("./text"), 0, 2, "./text cannot be executed; --program names what is started"),
        (of("./bin"), 0, 2, "./bin cannot be executed; --program names what is started"),
    ] {
        let (code, said) = run(&mut command);
        assert_eq!((code, said.matches("; logs in ").count()), (Some(exit), starts), "{named}: {said}");
        assert!(said.contains(named) && !said.contains("restart "), "{named}: {said}");
    }
    // As they advise.
    let (code, said) = run(folder.command(&["--hosts", "hosts.txt", "train", "x"]).env("OMPI_MCA_plm_rsh_agent", folder.script("agent")));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_job_of_slurms_without_nodes_leaves_the_hosts_to_the_user() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "\u{feff}localhost slots=2 \r\n").unwrap();
    let in_job = |arguments: &[&str]| {
        let mut command = folder.command(arguments);
        command.env("SLURM_JOB_ID", "7").env("SLURM_JOBID", "7");
        command
    };
    let (code, said) = run(&mut in_job(&["--ranks", "2", "train", "a.toml"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("give the hosts with --hosts, or unset SLURM_JOB_ID"), "{said}");
    let (code, said) = run(&mut in_job(&["--hosts", "hosts.txt", "train", "a.toml"]));
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.log(1).starts_with("rank 1 of 2 "), "{said}");
    let (code, said) = run(in_job(&["--ranks", "2", "train", "a.toml"]).env_remove("SLURM_JOB_ID"));
    assert_eq!(code, Some(0), "{said}");
    // One that has ended, whose nodes are still in the environment.
    let mut command = in_job(&["--hosts", "hosts.txt", "train", "a.toml"]);
    command.env("SLURM_JOB_NODELIST", "n[1-2]").env("SLURM_NODELIST", "n[1-2]").env("SLURM_TASKS_PER_NODE", "1(x2)");
    let (code, said) = run(&mut command);
    assert_eq!(code, Some(2), "{said}");
    assert!(
        said.contains("localhost is not a node of this Slurm job, which has n1, n2; where that job has ended, unset SLURM_JOB_ID"),
        "{said}"
    );
    let (code, said) = run(command.env_remove("SLURM_JOB_ID"));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_host_file_that_is_a_pipe_is_refused_and_not_waited_for() {
    let folder = Folder::new();
    let name = CString::new(folder.path("pipe").to_str().unwrap()).unwrap();
    // SAFETY: the name is a C string.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let mut launcher = folder.command(&["--hosts", "pipe", "train", "a.toml"]).spawn().unwrap();
    let mut said = String::new();
    let mut err = launcher.stderr.take().unwrap();
    assert_eq!(code(launcher), Some(2));
    err.read_to_string(&mut said).unwrap();
    assert_eq!(said, "biodist-launch: cannot read the host file pipe: this is a named pipe, not a file; write the hosts into a file\n");
}

/// The environment of a rank of a job that has ended.
fn left_over() -> Vec<(String, String)> {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["-n", "1", "env"]).env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let all = text(&mpirun.output().unwrap().stdout);
    let named = all.lines().filter_map(|line| line.split_once('='));
    let of_a_rank = named.filter(|(name, _)| name.starts_with("OMPI_") || name.starts_with("PMIX_"));
    of_a_rank.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn what_is_left_over_of_another_job_keeps_nobody_from_starting() {
    let variables = left_over();
    assert!(variables.iter().any(|(name, _)| name == "OMPI_UNIVERSE_SIZE"), "{variables:?}");
    let folder = Folder::new();
    let (code, said) = run(folder.command(&["--ranks", "2", "train", "a.toml"]).envs(variables.clone()));
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.log(1).starts_with("rank 1 of 2 "), "{said}");
    // Nor is the command that a dry run prints.
    let (code, said) = run(folder.command(&["--ranks", "2", "--dry-run", "train", "a.toml"]).envs(variables.clone()));
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = run(advised(&folder, &format!("\n{said}"), "\n").envs(variables));
    assert_eq!((code, said.matches("rank 1 of 2 from step 0").count()), (Some(0), 1), "{said}");
}

#[test]
fn of_several_copies_one_speaks() {
    let folder = Folder::new();
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--oversubscribe", "-n", "3", env!("CARGO_BIN_EXE_biodist-launch")]);
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1").current_dir(folder.0.path());
    let (code, said) = run(mpirun.args(["train", "a.toml"]));
    assert_eq!((code, said.matches("was started several times by mpirun").count()), (Some(2), 1), "{said}");
}

#[test]
fn the_command_that_a_report_gives_goes_on() {
    let folder = Folder::new();
    let fail = r#"[ "$step" != 4 ] || kill -9 $$"#;
    let (code, said) =
        run(folder.command(&["--ranks", "1", "--max-restarts", "0", "train", "a.toml", "--out", "my run"]).env("FAIL", fail));
    assert_eq!(code, Some(137), "{said}");
    let (code, again) = run(&mut advised(&folder, &said, "to go on from the last complete checkpoint: "));
    assert_eq!(code, Some(0), "{again}");
    assert!(again.contains("rank 0 of 1 from step 4: train a.toml --out my run --resume"), "{again}");
}

#[test]
fn fewer_ranks_or_more_slots_are_what_helps_where_there_are_too_few() {
    let folder = Folder::new();
    fs::write(folder.path("hosts.txt"), "localhost slots=1\n").unwrap();
    let (code, said) = run(&mut folder.command(&["--hosts", "hosts.txt", "--ranks", "2", "train", "a.toml"]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("ask for fewer ranks or give the hosts more slots"), "{said}");
    assert_eq!(run(&mut folder.command(&["--hosts", "hosts.txt", "--ranks", "1", "train", "a.toml"])).0, Some(0));
    fs::write(folder.path("hosts.txt"), "localhost slots=2\n").unwrap();
    assert_eq!(run(&mut folder.command(&["--hosts", "hosts.txt", "--ranks", "2", "train", "a.toml"])).0, Some(0));
}

#[test]
fn shared_memory_of_jobs_that_were_killed_is_removed_at_the_next_start() {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    // SAFETY: geteuid has no preconditions.
    let user = unsafe { libc::geteuid() };
    let segment = |rank: u32| {
        let path = PathBuf::from(format!("/dev/shm/vader_segment.{}.{user}.{:x}.{rank}", host.trim(), std::process::id()));
        let file = File::create(&path).unwrap();
        file.set_len(4096).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        path
    };
    let (abandoned, used) = (segment(0), segment(1));
    let new = segment(2);
    File::options().write(true).open(&new).unwrap().set_modified(SystemTime::now()).unwrap();
    let _user = File::open(&used).unwrap();
    let folder = Folder::new();
    let (code, said) = run(&mut folder.command(&["--ranks", "1", "train", "a.toml"]));
    let there = [&abandoned, &used, &new].map(|path: &PathBuf| Path::exists(path));
    [&abandoned, &used, &new].iter().for_each(|path| drop(fs::remove_file(path)));
    assert_eq!((code, there), (Some(0), [false, true, true]), "{said}");
}

#[test]
fn a_folder_without_room_for_open_mpis_files_is_told() {
    let folder = Folder::new();
    let start = |temporary: &Path| run(folder.command(&["--ranks", "2", "train", "a.toml"]).env("TMPDIR", temporary));
    let (code, said) = start(Path::new("/dev/null"));
    let told = "/dev/null, where Open MPI keeps its files, does not take 16 MiB; free some space there, or set TMPDIR to another folder";
    assert_eq!((code, said), (Some(2), format!("biodist-launch: {told}\n")));
    let (code, said) = start(folder.0.path());
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn threads_that_cannot_be_had_are_told() {
    let folder = Folder::new();
    let program = folder.path("biodist-launch");
    // By another process: one that another test starts would hold the copy open for writing.
    assert!(Command::new("cp").arg(env!("CARGO_BIN_EXE_biodist-launch")).arg(&program).status().unwrap().success());
    fs::set_permissions(folder.0.path(), fs::Permissions::from_mode(0o777)).unwrap();
    // From none on, so that it lacks each of its threads once. Root has no limit: as a user who has no other process.
    for limit in 1..10 {
        let command = folder.command(&["--ranks", "1", "train", "a.toml"]);
        let mut limited = Command::new(&program);
        limited.args(command.get_args()).current_dir(folder.0.path()).env("HOME", folder.0.path());
        let refuse = move || {
            let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
            // SAFETY: between fork and exec only system calls are made, on numbers that live here.
            unsafe {
                libc::setrlimit(libc::RLIMIT_NPROC, &limit);
                if libc::geteuid() == 0 {
                    libc::setuid(54_321);
                }
            }
            Ok(())
        };
        // SAFETY: as it says there.
        unsafe { limited.pre_exec(refuse) };
        let mut launcher = limited.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut err = launcher.stderr.take().unwrap();
        let code = code(launcher);
        let mut said = String::new();
        err.read_to_string(&mut said).unwrap();
        assert!(!said.contains("panicked"), "{said}");
        assert!(limit > 1 || code == Some(1) && said.starts_with("biodist-launch: no thread can be started: "), "{code:?} {said}");
    }
}
