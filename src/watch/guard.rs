//! The end of the daemon that started the ranks, where it outlives them.
//!
//! Open MPI's daemon on a lost host waits for mpirun to acknowledge that its ranks have ended, and mpirun for a daemon that it cannot reach:
//! each for a quarter of an hour, which is what the system's TCP takes to give up. Nothing outside can end a daemon on a host that the
//! network does not reach, so the last thing that a rank does after a stall is to leave a small process behind, which does.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use biodist_process::ancestors::{self, Process};
use biodist_process::ranks;

/// Seconds that the daemon has to end by itself. mpirun needs a few to end ranks that were stopped, and `biodist-launch`, which looks
/// after its own mpirun, a few more.
const PATIENCE: u32 = 12;
/// Lets process $1, which began at time $2, end by itself for $3 seconds, then ends it and its children: what mpirun reaches a lost host
/// with would wait for it as long. The number may be another's by then, the time is not.
const SCRIPT: &str = r#"
daemon=$1 began=$2
ends_within() {
    for second in $(seq "$1"); do
        [ "$(cut -d ' ' -f 22 "/proc/$daemon/stat" 2>/dev/null)" = "$began" ] || return 0
        sleep 1
    done
    return 1
}
ends_within "$3" && exit
children=$(cat "/proc/$daemon/task/"*/children 2>/dev/null)
kill -TERM "$daemon"
ends_within 3 || kill -KILL "$daemon"
[ -z "$children" ] || kill -KILL $children 2>/dev/null
"#;

/// Leaves a process behind that ends the daemon above this rank. Nothing where there is none: a process started without mpirun.
pub fn leave() {
    if let Some(daemon) = daemon_above(std::process::id()) {
        // Where it cannot be started the daemon stays, and the job ends all the same.
        let _ = guard(&daemon, PATIENCE).spawn();
    }
}

/// The nearest of the process's ancestors that is Open MPI's; programs that start containers may be between them.
fn daemon_above(process: u32) -> Option<Process> {
    ancestors::line(process).skip(1).find(|ancestor| ranks::is_open_mpis(&ancestor.name))
}

/// In a process group of its own, as the daemon ends the groups of its ranks, and without their pipes, whose end it waits for.
fn guard(daemon: &Process, patience: u32) -> Command {
    let mut command = Command::new("/bin/sh");
    let numbers = [daemon.id.to_string(), daemon.began.to_string(), patience.to_string()];
    command.args(["-c", SCRIPT, "guard"]).args(numbers).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Without what marks the processes of a launch: it is none of those that the launcher has to end.
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    command
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Child;
    use std::time::{Duration, Instant};

    use super::*;

    /// A shell under the name of Open MPI's daemon, and the process that it has started.
    fn daemon(script: &str) -> (Child, u32) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("orted");
        // A copy, still open for writing in a process that another test forks, could not be run.
        std::os::unix::fs::symlink("/bin/sh", &path).unwrap();
        let mut child = Command::new(&path).args(["-c", script]).spawn().unwrap();
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Ok(rank) = std::fs::read_to_string(&children).unwrap_or_default().trim().parse() {
                return (child, rank);
            }
            assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it starts nothing");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_daemon_that_outlives_its_ranks_is_ended() {
        for (script, signal) in [("sleep 60; true", libc::SIGTERM), ("trap '' TERM; sleep 60; sleep 60", libc::SIGKILL)] {
            let (mut child, rank) = daemon(script);
            let found = daemon_above(rank).unwrap();
            assert_eq!(found.id, child.id());
            let mut guard = guard(&found, 1).spawn().unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(signal), "{script}");
            guard.wait().unwrap();
            // Of a process that has ended there is nothing, or, until somebody asks for it, no command line.
            let deadline = Instant::now() + Duration::from_secs(10);
            while std::fs::read(format!("/proc/{rank}/cmdline")).is_ok_and(|words| !words.is_empty()) {
                assert!(Instant::now() < deadline, "{script}: its child is left");
            }
        }
    }

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let (mut child, rank) = daemon("sleep 60; true");
        let found = daemon_above(rank).unwrap();
        let mut earlier = found;
        earlier.began -= 1;
        guard(&earlier, 1).status().unwrap();
        assert_eq!(child.try_wait().unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        // SAFETY: kill only takes numbers.
        unsafe { libc::kill(rank.cast_signed(), libc::SIGKILL) };
    }

    #[test]
    fn without_mpirun_there_is_no_daemon() {
        assert_eq!(daemon_above(1), None);
    }
}
