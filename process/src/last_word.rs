//! What a rank says last to the launcher above it: with which code it ends, and why.
//!
//! mpirun passes on one exit code of several, or a signal's where it had to kill, and says in prose which rank it holds responsible. So a rank
//! that ends a job writes one line of JSON after its message. It goes to stderr, which alone reaches the launcher from any host; the
//! launcher takes it out again. Without a launcher nothing is written.

use serde::{Deserialize, Serialize};

use crate::exit::Exit;
use crate::{host, ranks};

/// Marks every process of one launch, so that what mpirun leaves behind can be found on any host, and ranks know that a launcher listens.
pub const LAUNCH: &str = "BIODIST_LAUNCH";

/// What the line begins with.
const MARK: &str = "biodist-ended ";

/// Why a rank ends its job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastWord {
    /// The exit code.
    pub code: i32,
    pub rank: usize,
    pub host: String,
    pub cause: String,
}

impl LastWord {
    /// The line for a launcher, to be written behind the last message and with it at once; empty where there is none that listens. What a
    /// rank starts is no rank, and says nothing.
    pub fn line(exit: Exit, rank: usize, cause: &str) -> String {
        if std::env::var_os(LAUNCH).is_none() || ranks::variables().is_empty() {
            return String::new();
        }
        LastWord { code: exit as i32, rank, host: host::name(), cause: cause.to_owned() }.to_line()
    }

    fn to_line(&self) -> String {
        format!("{MARK}{}\n", serde_json::to_string(self).expect("numbers and text are JSON"))
    }

    /// Takes a line of a rank's apart: what is for people, and the word. Of a word that was cut short, as when the rank is killed over it,
    /// nothing is left; what another thread has written before it or behind it does not matter.
    pub fn take(line: &[u8]) -> (&[u8], Option<LastWord>) {
        let Some(at) = line.windows(MARK.len()).position(|bytes| bytes == MARK.as_bytes()) else { return (line, None) };
        let mut words = serde_json::Deserializer::from_slice(&line[at + MARK.len()..]).into_iter();
        (&line[..at], words.next().and_then(Result::ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_read_as_it_was_written() {
        let word = LastWord { code: 76, rank: 3, host: "n 1".to_owned(), cause: "\"a\": é\nb".to_owned() };
        let line = word.to_line();
        assert_eq!((line.lines().count(), line.ends_with('\n')), (1, true));
        let taken = |text: &str| {
            let (rest, word) = LastWord::take(text.trim_end_matches('\n').as_bytes());
            (String::from_utf8(rest.to_vec()).unwrap(), word)
        };
        assert_eq!(taken(&line), (String::new(), Some(word.clone())));
        assert_eq!(taken(&format!("step 5{}biodist: warning", line.trim_end())), ("step 5".to_owned(), Some(word)));
        assert_eq!(taken(&line[..line.len() - 5]), (String::new(), None));
        assert_eq!(taken("biodist: it has ended {}"), ("biodist: it has ended {}".to_owned(), None));
    }

    #[test]
    fn without_a_launcher_nothing_is_written() {
        assert_eq!(LastWord::line(Exit::Failed, 0, "cause"), "");
    }
}
