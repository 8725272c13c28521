//! What the launcher has to know about biodist's own command line: enough to resume a training run, and to learn its batch size.

use std::ffi::{OsStr, OsString};
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use biodist_process::ranks;

/// Options of `biodist train` that are followed by a value.
const WITH_VALUE: [&str; 5] = ["--set", "--out", "--trace", "--seeds", "--vary"];

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

/// The global batch size of a `train` command, as biodist itself resolves the configuration.
///
/// # Errors
/// A configuration that `program check` refuses, with its reason.
pub fn batch_size(program: &[OsString], arguments: &[OsString]) -> Result<usize> {
    let mut command = Command::new(&program[0]);
    command.args(&program[1..]).args(check_of(arguments));
    for name in ranks::variables() {
        command.env_remove(name);
    }
    let output = command.output().with_context(|| format!("cannot start {} to learn the batch size", program[0].to_string_lossy()))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        return Err(anyhow!("cannot learn the batch size: {}", reason.trim()));
    }
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).context("biodist check --json did not print JSON")?;
    let size = plan.pointer("/config/data/batch_size").and_then(serde_json::Value::as_u64).and_then(|size| size.try_into().ok());
    size.context("biodist check --json did not print config.data.batch_size")
}

/// The `check` of the configuration that a `train` command names, with its overrides.
fn check_of(train: &[OsString]) -> Vec<OsString> {
    let mut check = vec![OsString::from("check")];
    let mut words = train.iter().skip(1);
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        if WITH_VALUE.contains(&text.as_ref()) {
            let value = words.next().map(OsString::as_os_str).unwrap_or(OsStr::new(""));
            if text == "--set" {
                check.extend([word.clone(), value.to_owned()]);
            }
        } else if text.starts_with("--set=") || !text.starts_with('-') {
            check.push(word.clone());
        }
    }
    check.push("--json".into());
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn values_of_options_are_not_taken_for_the_configuration() {
        let train =
            words("train --seeds 0,1 --out runs/a --vary learning.sigma=0.1,0.2 --trace t.json a.toml --set data.batch_size=8 --resume");
        assert_eq!(check_of(&train), words("check a.toml --set data.batch_size=8 --json"));
    }

    #[test]
    fn a_training_run_is_resumed_once() {
        assert_eq!(resumed(&words("train a.toml --out x")), words("train a.toml --out x --resume"));
        assert_eq!(resumed(&words("train --resume a.toml")), words("train --resume a.toml"));
        assert_eq!(resumed(&words("eval runs/a")), words("eval runs/a"));
    }

    #[test]
    fn the_configuration_and_its_overrides_are_checked() {
        let train = words("train --out runs/a --set a=1 a.toml --resume --set=b=2 --trace t.json");
        assert_eq!(check_of(&train), words("check --set a=1 a.toml --set=b=2 --json"));
    }

    #[test]
    fn the_batch_size_is_read_from_the_plan() {
        let folder = tempfile::tempdir().unwrap();
        let program = |text: &str| {
            let path = folder.path().join("biodist");
            std::fs::write(&path, format!("{text}\n")).unwrap();
            // Read and not executed: the file may still be open for writing in a process that another test is starting.
            let program = [OsString::from("sh"), path.into_os_string()];
            batch_size(&program, &words("train a.toml")).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(program(r#"echo '{"config": {"data": {"batch_size": 256}}, "ranks": 1}'"#), Ok(256));
        assert!(program("echo 'a.toml: no such configuration' >&2; exit 2").unwrap_err().contains("a.toml: no such"));
        assert!(program("echo '{}'").unwrap_err().contains("config.data.batch_size"));
        assert!(program("echo text").unwrap_err().contains("JSON"));
    }
}
