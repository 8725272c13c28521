//! The signals that ask a program for its end, and which of them it was told to ignore.

use libc::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU, SIGXFSZ, c_int};

/// Requests to stop: of batch systems and people, of a limit on time, of the terminal, and of a terminal that is closed.
const REQUESTS: [c_int; 6] = [SIGUSR1, SIGUSR2, SIGXCPU, SIGTERM, SIGINT, SIGHUP];

/// Has a file that grows beyond the limit on sizes (`ulimit -f`) be an error of its writing, which says so, and not the process's death.
pub fn survive_limit_on_files() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(SIGXFSZ, libc::SIG_IGN) };
}

/// The requests to listen to: those that this process's parent did not have it ignore, as `nohup` does of SIGHUP and a shell of a
/// background job's SIGINT. To SIGUSR1 always: it is nobody's but ours, and a script that ignores it to outlive it itself does not mean
/// that training is to end without a checkpoint.
pub fn requests() -> Vec<c_int> {
    REQUESTS.into_iter().filter(|signal| *signal == SIGUSR1 || !is_ignored(*signal)).collect()
}

fn is_ignored(signal: c_int) -> bool {
    // SAFETY: nothing is changed where the new action is null, and zeros are a valid action.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_stays_so() {
        // Signals that no other test has an eye on; what these tests were started with may be ignored already.
        assert!(!is_ignored(libc::SIGWINCH));
        // SAFETY: both dispositions are the system's own.
        unsafe { libc::signal(libc::SIGWINCH, libc::SIG_IGN) };
        assert!(is_ignored(libc::SIGWINCH));
        // SAFETY: the same.
        unsafe { libc::signal(libc::SIGWINCH, libc::SIG_DFL) };
        assert!(requests().contains(&SIGUSR1));
    }
}
