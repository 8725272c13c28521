//! Programs that the launcher asks something, and does not wait for without end: on a host that does not answer, of a Slurm that is down.

use std::fmt;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use biodist_process::threads;

/// Why there is no answer.
#[derive(Debug)]
pub struct Failure {
    /// The exit code, where the program ended with one.
    pub code: Option<i32>,
    /// All that it has said about it, or what is to be said instead.
    pub said: String,
}

impl fmt::Display for Failure {
    /// The last line, which is the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.said.lines().last().unwrap_or_default().trim())
    }
}

/// How often a program is looked at.
const GLANCE: Duration = Duration::from_millis(20);

/// A program that has been asked.
pub struct Question {
    child: Child,
    out: Receiver<Vec<u8>>,
    err: Receiver<Vec<u8>>,
}

impl Question {
    /// Starts `command` out of reach of a terminal's Ctrl-C, which is the launcher's to act upon: a question that it ended would look like
    /// a lost host.
    pub fn ask(command: &mut Command) -> std::io::Result<Question> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).spawn()?;
        let (out, err) = (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
        let heard = heard(out).and_then(|out| Ok((out, heard(err)?)));
        let (out, err) = heard.inspect_err(|_| end(&mut child))?;
        Ok(Question { child, out, err })
    }

    /// What it prints, or why it fails. What it has started itself may keep the pipes open, and is not waited for either.
    pub fn answer(mut self, until: Instant) -> Result<String, Failure> {
        let failure = |code, said: &str| Failure { code, said: said.trim().to_owned() };
        let no_answer = || failure(None, "it does not answer in time");
        let said = |stream: &Receiver<Vec<u8>>| stream.recv_timeout(until.saturating_duration_since(Instant::now()).max(GLANCE));
        let status = loop {
            match self.child.try_wait().map_err(|error| failure(None, &error.to_string()))? {
                Some(status) => break status,
                None if Instant::now() < until => std::thread::sleep(GLANCE),
                None => {
                    end(&mut self.child);
                    return Err(no_answer());
                }
            }
        };
        if status.success() {
            return said(&self.out).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|_| no_answer());
        }
        let said = said(&self.err).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        Err(failure(status.code(), if said.trim().is_empty() { status.to_string() } else { said.into_owned() }.as_str()))
    }
}

/// All of `stream`, read while the program runs: it may be more than a pipe holds.
fn heard(mut stream: impl Read + Send + 'static) -> std::io::Result<Receiver<Vec<u8>>> {
    let (sender, receiver) = channel();
    threads::spawn("heard", move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    })?;
    Ok(receiver)
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(script: &str, patience: Duration) -> Result<String, Failure> {
        let question = Question::ask(Command::new("sh").args(["-c", script])).unwrap();
        question.answer(Instant::now() + patience)
    }

    #[test]
    fn an_answer_may_be_long_and_a_failure_has_a_reason() {
        let long = Duration::from_secs(60);
        assert_eq!(answer("seq 100000", long).unwrap().lines().count(), 100_000);
        let failure = answer("echo warning >&2; echo no route >&2; exit 3", long).unwrap_err();
        assert_eq!((failure.code, failure.to_string().as_str(), failure.said.as_str()), (Some(3), "no route", "warning\nno route"));
        assert!(answer("exit 3", long).unwrap_err().to_string().contains('3'));
    }

    #[test]
    fn what_does_not_answer_is_not_waited_for() {
        let started = Instant::now();
        for silent in ["exec sleep 60", "sleep 60 & exit 0", "sleep 60 & exit 3"] {
            let error = answer(silent, Duration::from_millis(100)).unwrap_err().to_string();
            assert!(error.contains(if silent.ends_with('3') { "exit status: 3" } else { "does not answer" }), "{silent}: {error}");
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    }
}
