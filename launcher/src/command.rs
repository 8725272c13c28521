//! What the launcher has to know about biodist's own command line: enough to resume a training run, and to learn its batch size.

use std::ffi::OsString;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use biodist_process::exit::Exit;
use biodist_process::start::as_no_rank;

use crate::ending::USAGE;
use crate::question::{Failure, Question};

/// The option that has `biodist train` print the batch size and nothing else.
const PRINT_BATCH_SIZE: &str = "--print-batch-size";
/// Containers take their time to start a program.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn is_training(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|subcommand| subcommand == "train")
}

/// The command that goes on where this one ended.
pub fn resumed(arguments: &[OsString]) -> Vec<OsString> {
    let mut resumed = arguments.to_vec();
    if is_training(arguments) && !arguments.iter().any(|argument| argument == "--resume") {
        resumed.push("--resume".into());
    }
    resumed
}

/// The global batch size of a `train` command, which biodist itself tells of the same words.
///
/// # Errors
/// A configuration that biodist refuses, with its reason.
pub fn batch_size(program: &[OsString], arguments: &[OsString]) -> Result<usize> {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(arguments).arg(PRINT_BATCH_SIZE);
    let said = answer(&mut command).map_err(|reason| anyhow!("cannot learn the batch size: {reason}"))?;
    said.trim().parse().with_context(|| format!("cannot learn the batch size: {PRINT_BATCH_SIZE} has printed '{}'", said.trim()))
}

/// Asks biodist for its help on a subcommand: one that it does not know is refused. Where it is not here to be asked it may be elsewhere.
///
/// # Errors
/// A subcommand that biodist does not know, in its words.
pub fn refuse_unknown(program: &[OsString], arguments: &[OsString]) -> Result<()> {
    let mut help = Command::new(&program[0]);
    help.args(&program[1..]).arg(&arguments[0]).arg("--help");
    let Err(failure) = answer(&mut help) else { return Ok(()) };
    if failure.code != Some(USAGE) {
        return Ok(());
    }
    // What comes first; behind an empty line are hints.
    let hints = failure.said.split("\n\n").take(2).map(str::trim).collect::<Vec<_>>().join("; ");
    Err(Exit::Usage.error(hints.trim_start_matches("error: ")))
}

/// What biodist prints as a process alone.
fn answer(command: &mut Command) -> Result<String, Failure> {
    let program = as_no_rank(command).get_program().to_string_lossy().into_owned();
    let question = Question::ask(command);
    let question = question.map_err(|error| Failure { code: None, said: format!("{program} cannot be started: {error}") })?;
    question.answer(Instant::now() + PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn a_training_run_is_resumed_once() {
        assert_eq!(resumed(&words("train a.toml --out x")), words("train a.toml --out x --resume"));
        assert_eq!(resumed(&words("train --resume a.toml")), words("train --resume a.toml"));
        assert_eq!(resumed(&words("eval runs/a")), words("eval runs/a"));
    }

    #[test]
    fn the_program_is_asked_for_the_batch_size() {
        let folder = tempfile::tempdir().unwrap();
        let program = |text: &str| {
            let path = folder.path().join("biodist");
            std::fs::write(&path, format!("{text}\n")).unwrap();
            // Read and not executed: the file may still be open for writing in a process that another test is starting.
            let program = [OsString::from("sh"), path.into_os_string()];
            batch_size(&program, &words("train a.toml --set b=256")).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(program(r#"[ "$*" = "train a.toml --set b=256 --print-batch-size" ] && echo 256"#), Ok(256));
        assert!(program("echo 'a.toml: no such configuration' >&2; exit 2").unwrap_err().contains("a.toml: no such"));
        assert!(program("echo text").unwrap_err().contains("has printed 'text'"));
    }

    #[test]
    fn a_subcommand_that_is_none_is_refused_where_the_program_says_so() {
        let refused = |script: &str| {
            let program = ["sh", "-c", script, "biodist"].map(OsString::from);
            refuse_unknown(&program, &words("trian a.toml")).err().map(|error| (Exit::of(&error), error.to_string()))
        };
        let clap = "printf \"error: no subcommand '$1'\\n\\n  tip: 'train'\\n\\nUsage: biodist\\n\" >&2; exit 2";
        assert_eq!(refused(clap), Some((Exit::Usage, "no subcommand 'trian'; tip: 'train'".to_owned())));
        assert_eq!(refused("[ \"$*\" = 'trian --help' ]"), None);
        assert_eq!(refused("exit 127"), None);
        assert!(refuse_unknown(&["/no/such/biodist".into()], &words("trian")).is_ok());
    }
}
