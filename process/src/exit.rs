//! How a command ends: the exit codes of docs/configuration.md, carried through `anyhow` so that any depth of the program can choose one.
//!
//! An error without a code ends with 1. `main` alone turns errors into exit codes, of which the launcher makes restarts.

use std::fmt;

/// Exit codes other than success; `mpirun` passes a rank's code on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Stopped on request, checkpoint written.
    Stopped = 75,
    /// A rank made no progress, or the replicas differ.
    Stalled = 76,
    /// The loss is not finite.
    NotFinite = 77,
}

/// An error message together with the exit code that it leads to.
#[derive(Debug)]
pub struct Ended {
    pub exit: Exit,
    pub message: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Ended {}

impl Exit {
    /// An error with this code and `message`.
    pub fn error(self, message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Ended { exit: self, message: message.into() })
    }

    /// The code that `error` asks for: the outermost [`Ended`] in its chain, else [`Exit::Failed`].
    pub fn of(error: &anyhow::Error) -> Exit {
        error.chain().find_map(|cause| cause.downcast_ref::<Ended>()).map_or(Exit::Failed, |ended| ended.exit)
    }
}
