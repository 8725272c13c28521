//! How the programs start others: as no ranks of a job that is not theirs, not to outlive who started them, and mpirun so that it works.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use libc::{c_int, pid_t};

use crate::ranks;

/// Open MPI refuses to work for root, whom containers often have, without these.
pub const MPIRUN_FOR_ROOT: [(&str, &str); 2] = [("OMPI_ALLOW_RUN_AS_ROOT", "1"), ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")];
/// Open MPI 4 puts the topology that its ranks share next to the stack of a process now and then, and crashes. The ranks here do not
/// need it: they are not bound.
pub const MPIRUN_PARAMETER: (&str, &str) = ("rtc_hwloc_vmhole", "none");
/// What the variables begin with that set such parameters.
pub const MPIRUN_PREFIX: &str = "OMPI_MCA_";

/// Whether this process works for root.
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() == 0 }
}

/// Leaves out what tells this process that it is a rank: it is nothing for the other, and would keep an mpirun from starting a job.
pub fn as_no_rank(command: &mut Command) -> &mut Command {
    for name in ranks::variables() {
        command.env_remove(name);
    }
    command
}

/// The kernel sends the process `signal` when the thread that starts it ends, and so when this process dies, however it dies.
pub fn end_with_parent(command: &mut Command, signal: c_int) -> &mut Command {
    end_with(command, signal, std::process::id().cast_signed())
}

fn end_with(command: &mut Command, signal: c_int, parent: pid_t) -> &mut Command {
    let prepare = move || {
        // SAFETY: takes numbers, and may be called between fork and exec.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // It may have died before it could be watched: nobody would send the signal.
        // SAFETY: it has no preconditions, and may be called between fork and exec.
        if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
    };
    // SAFETY: between fork and exec only prctl and getppid are called, and errors are numbers.
    unsafe { command.pre_exec(prepare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_started_for_a_parent_that_is_gone() {
        assert!(end_with_parent(&mut Command::new("true"), libc::SIGKILL).status().unwrap().success());
        let error = end_with(&mut Command::new("true"), libc::SIGKILL, 1 << 30).status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
