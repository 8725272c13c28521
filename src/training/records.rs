//! Reading `metrics.jsonl` back.
use std::path::Path;

use anyhow::{Context, Result};
use biodist_process::files::read_regular;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub const FILE_NAME: &str = "metrics.jsonl";

/// What an evaluation measured: means over its samples. Absent is what has no meaning (errors of an autoencoder) or was not finite.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top1_error: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top5_error: Option<f64>,
}

/// An evaluation's line.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Evaluated {
    pub split: String,
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    #[serde(flatten)]
    pub measured: Measured,
}

/// The evaluations that the run in `run` has recorded, in their order; none where there is no file yet.
pub fn evaluations(run: &Path) -> Result<Vec<Evaluated>> {
    let lines = read(run)?;
    // A line that a crash cut is no line.
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).filter(|line: &Evaluated| line.split != "train").collect())
}

/// Epochs that the run has begun, by its last whole line; 0 where there is none.
pub fn epochs(run: &Path) -> Result<u64> {
    let lines = read(run)?;
    let values = lines.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(values.filter_map(|line| line.get("epoch")?.as_u64()).next().unwrap_or(0))
}

/// The file as text; empty where there is none.
pub(super) fn read(run: &Path) -> Result<String> {
    let path = run.join(FILE_NAME);
    match read_regular(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        // A line that a crash cut may end within a character.
        bytes => Ok(String::from_utf8_lossy(&bytes.with_context(|| format!("{} cannot be read", path.display()))?).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evaluations_are_told_from_training_and_from_cut_lines() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!((evaluations(run.path()).unwrap(), epochs(run.path()).unwrap()), (Vec::new(), 0));
        let text = "{\"split\":\"train\",\"step\":9,\"epoch\":1,\"loss\":2.5}\n\
                    {\"split\":\"validation\",\"step\":10,\"epoch\":1,\"loss\":0.1,\"top1_error\":0.30000000000000004,\"samples\":10}\n\
                    {\"split\":\"test\",\"step\":20,\"epoch\":2,\"loss\":null}\n\
                    {\"split\":\"test\",\"step\":30,\"epo";
        std::fs::write(run.path().join(FILE_NAME), text).unwrap();
        let lines = evaluations(run.path()).unwrap();
        assert_eq!(lines.len(), 2);
        // To the last bit, as it was written.
        let measured = Measured { loss: Some(0.1), top1_error: Some(0.1 + 0.2), top5_error: None };
        assert_eq!(lines[0], Evaluated { split: "validation".into(), step: 10, epoch: 1, measured });
        assert_eq!((lines[1].step, lines[1].measured.loss), (20, None));
        assert_eq!(epochs(run.path()).unwrap(), 2);
    }
}
