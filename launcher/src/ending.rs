//! What the end of one start means: who failed, whether a restart can help, and on which hosts.

use std::time::Duration;

use biodist_process::exit::Exit;
use biodist_process::last_word::LastWord;

/// Codes that biodist ends with, which mpirun passes on.
pub const USAGE: i32 = Exit::Usage as i32;
pub const STOPPED: i32 = Exit::Stopped as i32;
const STALLED: i32 = Exit::Stalled as i32;
pub const NOT_FINITE: i32 = Exit::NotFinite as i32;
const FAILED: i32 = Exit::Failed as i32;

/// Codes by which mpirun, or a shell, tells the signal that ended a process.
const SIGNALS: std::ops::RangeInclusive<i32> = 129..=192;

/// How mpirun ended, and what it said about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// mpirun's exit code, 128 + N where signal N ended it; what caused it, once that is [settled](Ending::settle).
    pub code: i32,
    pub lasted: Duration,
    /// Somebody asked the launcher to stop while it ran.
    pub stop_requested: bool,
    /// The rank that says why, or that mpirun holds responsible.
    pub rank: Option<usize>,
    /// Its host.
    pub host: Option<String>,
    /// The signal that killed it; mpirun itself where there is no rank.
    pub signal: Option<i32>,
    /// Hosts that mpirun lost its connection to.
    pub lost_hosts: Vec<String>,
    /// The code that mpirun has of a rank.
    pub reported: Option<i32>,
    /// What a rank says itself, the first that does.
    pub word: Option<LastWord>,
    /// Why nothing was started, where a person has to mend that.
    pub hindrance: Option<&'static str>,
}

/// What a shell ends with that finds no such program, or may not execute it.
const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// Parts of lines that mpirun, ssh, or a host's shell writes where starting again cannot help, and what that means. The first that is found
/// counts.
const HINDRANCES: [(&str, &str); 13] = [
    ("\"plm_rsh_agent\" was set to a path", NO_AGENT),
    ("locate a usable \"srun\"", "srun is not on the PATH: load your cluster's module for Slurm"),
    ("Permission denied (", "a host refuses the login; ssh must reach every host without a password"),
    ("Host key verification failed", "a host's key is not known; log in to every host once by ssh"),
    ("orted: command not found", NO_DAEMON),
    ("orted: not found", NO_DAEMON),
    ("as it could not access", "the program cannot be executed; --program names what is started"),
    ("could not find an executable", "the program is not there; --program names what is started"),
    ("bad interpreter", "the program's first line names an interpreter that is not there; --program names what is started"),
    ("The specified application failed to start", "the program cannot be executed; --program names what is started"),
    ("to change to working directory", "a host does not have the working folder"),
    ("not enough slots available", "Open MPI counts fewer slots than ranks were asked for; ask for fewer with --ranks"),
    ("mpirun does not support recursive calls", "mpirun takes itself for a rank of another job; start biodist-launch outside of it"),
];
const NO_AGENT: &str =
    "the program that reaches other hosts is not here; install ssh (Debian: openssh-client), or name another in OMPI_MCA_plm_rsh_agent";
const NO_DAEMON: &str = "a host has no Open MPI on the PATH of ssh; install it there, or set PATH where every login does";

const NO_MEMORY: &str =
    "a rank got no memory that it asked for; raise its limit (`ulimit -v`), or start fewer ranks on a host with --ranks";

impl Ending {
    /// Takes note of one line of mpirun's own messages. Open MPI 4 words them so:
    /// `mpirun noticed that process rank 1 with PID 0 on node a exited on signal 9 (Killed).`,
    /// `Process name: [[21673,1],1]` and `Exit code:    76`, `MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD` and
    /// `with errorcode 77.`, and for a lost host `Remote daemon: [[21102,0],2] on node b`.
    pub fn note(&mut self, line: &str) {
        let found = HINDRANCES.iter().find(|(words, _)| line.contains(words)).map(|(_, meaning)| *meaning);
        self.hindrance = self.hindrance.or(found);
        let after = |text: &str| line.split_once(text).map(|(_, rest)| rest);
        if let Some(rank) = after("noticed that process rank ") {
            self.rank = self.rank.or(leading_number(rank));
            self.host = after(" on node ").and_then(|rest| rest.split_whitespace().next()).map(str::to_owned);
            self.signal = after(" exited on signal ").and_then(leading_number).and_then(|signal| signal.try_into().ok());
        } else if let Some(rank) = after("MPI_ABORT was invoked on rank ") {
            self.rank = self.rank.or(leading_number(rank));
        } else if let Some(name) = after("Process name: [[") {
            self.rank = self.rank.or_else(|| leading_number(name.split_once("],")?.1));
        } else if let Some(host) = after("Remote daemon:").and_then(|rest| rest.split_once(" on node ")).map(|(_, host)| host.trim()) {
            self.lost_hosts.push(host.to_owned());
        } else if let Some(code) = after("with errorcode ").or_else(|| after("Exit code:")) {
            self.reported = self.reported.or_else(|| leading_number(code.trim())?.try_into().ok());
        }
    }

    /// Takes note of a line of the rank that is held responsible. Rust's runtime aborts a process that gets no memory, with these words.
    pub fn note_of_rank(&mut self, line: &str) {
        if self.signal == Some(libc::SIGABRT) && line.starts_with("memory allocation of ") {
            self.hindrance = Some(NO_MEMORY);
            self.code = FAILED;
        }
    }

    /// Takes note of a rank's last word. Those after the first are of ranks that it took along.
    pub fn hear(&mut self, word: &LastWord) {
        self.word.get_or_insert_with(|| word.clone());
    }

    /// Puts the cause in the place of its consequences. An mpirun that waits for a lost host has to be killed, and itself kills the ranks
    /// that do not end: what a rank ended with says more than such signals, and a lost host is a stall that nobody was left to report.
    pub fn settle(&mut self) {
        let lost = (!self.lost_hosts.is_empty()).then_some(STALLED);
        if let Some(word) = self.word.as_ref().filter(|_| self.code != 0) {
            (self.code, self.rank, self.host, self.signal) = (word.code, Some(word.rank), Some(word.host.clone()), None);
        } else if let Some(cause) = self.reported.or(lost).filter(|_| self.code >= 128) {
            (self.code, self.signal) = (cause, None);
        }
        // A rank ends so before there is one.
        match self.code {
            NOT_FOUND => self.hindrance = self.hindrance.or(Some("the program, or something that it needs, was not found")),
            NOT_EXECUTABLE => self.hindrance = self.hindrance.or(Some("the program cannot be executed")),
            // mpirun's own numbers are no signals'.
            _ if self.hindrance.is_some() => self.code = FAILED,
            _ => {}
        }
    }

    /// Whether the same command can succeed when it is started again from the last checkpoint.
    pub fn is_worth_a_restart(&self) -> bool {
        !self.stop_requested && !matches!(self.code, 0 | USAGE | STOPPED | NOT_FINITE)
    }

    /// A process that says itself that it failed, at once, will most likely do so again.
    pub fn failed_at_once(&self) -> bool {
        let mpirun_itself = self.rank.is_none() && !SIGNALS.contains(&self.code);
        (self.code == FAILED || mpirun_itself)
            && self.signal.is_none()
            && self.lost_hosts.is_empty()
            && self.lasted < Duration::from_secs(60)
    }

    /// The code that the launcher ends with. A run that is told to stop before it can handle the signal has lost nothing: it was stopped.
    pub fn exit_code(&self) -> u8 {
        let before_training = [128 + libc::SIGUSR1, 128 + libc::SIGTERM].contains(&self.code);
        let code = if self.stop_requested && before_training { STOPPED } else { self.code };
        u8::try_from(code).unwrap_or(1)
    }

    /// Whether it is known without mpirun's messages why the job has ended.
    pub fn is_understood(&self) -> bool {
        self.code != 0 && (self.stop_requested || self.rank.is_some() || !self.lost_hosts.is_empty())
    }

    /// One clause for the report.
    pub fn describe(&self) -> String {
        let who = match (self.rank, &self.host) {
            (Some(rank), Some(host)) => format!("rank {rank} on {host}"),
            (Some(rank), None) => format!("rank {rank}"),
            (None, _) => "mpirun".to_owned(),
        };
        if let Some(hindrance) = self.hindrance
            && !self.stop_requested
        {
            return format!("{hindrance} (code {})", self.code);
        }
        match self.code {
            _ if !self.lost_hosts.is_empty() => {
                format!("the connection to {} was lost (code {})", self.lost_hosts.join(" and "), self.code)
            }
            0 => "done".to_owned(),
            STOPPED => "stopped on request, checkpoint written".to_owned(),
            _ if self.stop_requested => "stopped on request".to_owned(),
            STALLED => match &self.word {
                Some(word) => format!("stalled (code {STALLED}): {}", word.cause),
                None => format!("{who} reported a stall or replicas that differ (code {STALLED})"),
            },
            NOT_FINITE => format!("{who} met a loss that is not finite (code {NOT_FINITE})"),
            USAGE => format!("{who} refused the command line or the configuration (code {USAGE})"),
            code => match self.signal {
                Some(signal) => format!("{who} was killed by signal {signal}"),
                // mpirun does not always get to say which one it was.
                None if self.rank.is_none() && SIGNALS.contains(&code) => format!("a rank was killed by signal {}", code - 128),
                None => format!("{who} failed (code {code})"),
            },
        }
    }
}

fn leading_number(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(code: i32, lines: &[&str]) -> Ending {
        ending_after(code, lines, &[])
    }

    fn word(code: i32, rank: usize, cause: &str) -> LastWord {
        LastWord { code, rank, host: format!("h{rank}"), cause: cause.to_owned() }
    }

    /// After what mpirun said, and what ranks did.
    fn ending_after(code: i32, lines: &[&str], heard: &[LastWord]) -> Ending {
        let mut ending = Ending { code, lasted: Duration::from_secs(1), ..Ending::default() };
        lines.iter().for_each(|line| ending.note(line));
        heard.iter().for_each(|word| ending.hear(word));
        ending.settle();
        ending
    }

    // The lines are Open MPI 4.1.4's.
    #[test]
    fn a_killed_rank() {
        let ending = ending(137, &["mpirun noticed that process rank 12 with PID 0 on node vm exited on signal 9 (Killed)."]);
        assert_eq!((ending.rank, ending.host.as_deref(), ending.signal), (Some(12), Some("vm"), Some(9)));
        assert_eq!(ending.describe(), "rank 12 on vm was killed by signal 9");
        assert!(ending.is_worth_a_restart() && !ending.failed_at_once());
        assert_eq!(ending.exit_code(), 137);
        assert_eq!(self::ending(137, &[]).describe(), "a rank was killed by signal 9");
    }

    #[test]
    fn a_stop_that_ranks_have_told_of_is_one_whatever_mpirun_ends_with() {
        let mut ending = Ending { code: 1, stop_requested: true, ..Ending::default() };
        ending.hear(&word(75, 0, "stopped on request after step 9 of 10, checkpoint written"));
        ending.settle();
        assert_eq!((ending.exit_code(), ending.describe().as_str()), (75, "stopped on request, checkpoint written"));
    }

    #[test]
    fn a_rank_with_an_exit_code() {
        let lines = ["  Process name: [[21673,1],3]", "  Exit code:    76"];
        assert_eq!(ending(76, &lines).describe(), "rank 3 reported a stall or replicas that differ (code 76)");
        let aborted = ending(77, &["MPI_ABORT was invoked on rank 5 in communicator MPI_COMM_WORLD", "with errorcode 77."]);
        assert_eq!(aborted.describe(), "rank 5 met a loss that is not finite (code 77)");
        assert_eq!(ending(9, &["ORTE was unable to reliably start one or more daemons."]).describe(), "mpirun failed (code 9)");
        assert!(ending(76, &lines).is_worth_a_restart());
        for code in [0, 2, 75, 77] {
            assert!(!ending(code, &lines).is_worth_a_restart(), "{code}");
        }
        assert!(ending(1, &lines).failed_at_once());
        assert!(!Ending { lasted: Duration::from_secs(3600), ..ending(1, &lines) }.failed_at_once());
    }

    #[test]
    fn a_lost_host() {
        let lines = [
            "ORTE has lost communication with a remote daemon.",
            "  HNP daemon   : [[21102,0],0] on node vm",
            "  Remote daemon: [[21102,0],2] on node 10.77.0.2",
        ];
        let ending = ending(205, &lines);
        assert_eq!(ending.lost_hosts, ["10.77.0.2"]);
        assert_eq!(ending.describe(), "the connection to 10.77.0.2 was lost (code 76)");
        assert!(ending.is_worth_a_restart() && ending.exit_code() == 76);
    }

    #[test]
    fn what_a_rank_ended_with_counts_and_not_the_signals_that_follow() {
        let stall = word(76, 1, "rank 0 on h1 has given no sign of life for 5.1 s (stopped); last seen in step 9, barrier");
        let killed =
            ending_after(137, &["Primary job  terminated normally, but 1 process returned"], &[stall.clone(), word(76, 2, "late")]);
        assert_eq!((killed.exit_code(), killed.rank, killed.host.as_deref()), (76, Some(1), Some("h1")));
        assert_eq!(
            killed.describe(),
            "stalled (code 76): rank 0 on h1 has given no sign of life for 5.1 s (stopped); last seen in step 9, barrier"
        );
        let aborted = ["MPI_ABORT was invoked on rank 5 in communicator MPI_COMM_WORLD", "with errorcode 77."];
        assert_eq!(ending(137, &aborted).exit_code(), 77);
        assert_eq!(ending(143, &["  Process name: [[21673,1],3]", "  Exit code:    2"]).exit_code(), 2);
        let stopped = ending_after(137, &[], &[word(75, 0, "stopped on request after step 9 of 20, checkpoint written")]);
        assert!(stopped.exit_code() == 75 && !stopped.is_worth_a_restart());
        // The first word stands, also against mpirun's; where all have ended well it was about something else.
        assert_eq!(
            ending_after(1, &aborted, &[word(2, 0, "alpha"), stall.clone()]).describe(),
            "rank 0 on h0 refused the command line or the configuration (code 2)"
        );
        assert_eq!(ending_after(0, &[], &[stall]).exit_code(), 0);
    }

    #[test]
    fn mpiruns_messages_are_for_ends_that_nothing_else_explains() {
        assert!(ending_after(2, &[], &[word(2, 0, "alpha")]).is_understood());
        assert!(ending(137, &["mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed)."]).is_understood());
        assert!(Ending { stop_requested: true, ..ending(75, &[]) }.is_understood());
        assert!(!ending(1, &["ORTE was unable to reliably start one or more daemons."]).is_understood());
        assert!(!ending(1, &["There are not enough slots available in the system"]).is_understood());
        assert!(!ending(0, &["A high-performance transport is missing"]).is_understood());
    }

    #[test]
    fn a_stop_on_request() {
        let stopped = |code| Ending { stop_requested: true, ..ending(code, &[]) };
        assert!(!stopped(1).is_worth_a_restart());
        assert_eq!(stopped(75).exit_code(), 75);
        assert_eq!(stopped(138).exit_code(), 75, "SIGUSR1 before the ranks handle it");
        assert_eq!(stopped(137).exit_code(), 137, "killed after all: the checkpoint may be missing");
        assert_eq!(stopped(0).describe(), "done");
    }
}
