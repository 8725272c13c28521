//! What a checkpoint holds beside its tensors: a JSON file that knows damage, in the others and in itself.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use biodist_process::files::read_regular;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::identity::Identity;
use super::tally::Tallied;
use super::tensor_file::Fingerprint;
use crate::learner::OptimizerSteps;

/// What a run knows beside its parameters and moments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub version: u32,
    /// Steps done.
    pub step: u64,
    /// Epochs done, and batches of the next one.
    pub epoch: u64,
    pub batch: u64,
    pub steps_per_epoch: u64,
    /// Of the training set's shards. Absent where the checkpoint is older than this entry.
    #[serde(default)]
    pub data: Option<String>,
    /// What the next step trains: "both", "inverse" or "forward".
    pub phase: String,
    pub optimizer_steps: OptimizerSteps,
    pub seed: u64,
    /// Absent where the checkpoint is older than this entry.
    #[serde(default)]
    pub identity: Option<Identity>,
    /// Of all parameters, as the ranks compare it.
    pub parameter_checksum: String,
    pub metrics: Tallied,
    pub biodist: String,
    pub files: BTreeMap<String, Fingerprint>,
}

impl State {
    pub const VERSION: u32 = 1;

    /// JSON whose last key is the CRC-32 of the compact form of all before it.
    pub fn bytes(&self) -> Vec<u8> {
        let mut value = serde_json::to_value(self).expect("a state is JSON");
        let crc32 = checksum(&value);
        value["crc32"] = crc32.into();
        let mut bytes = serde_json::to_vec_pretty(&value).expect("a state is JSON");
        bytes.push(b'\n');
        bytes
    }

    pub fn read(path: &Path) -> Result<State> {
        let text = read_regular(path).with_context(|| format!("{} cannot be read", path.display()))?;
        State::parse(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    fn parse(text: &[u8]) -> Result<State> {
        let mut value: Value = serde_json::from_slice(text)?;
        let fields = value.as_object_mut().ok_or_else(|| anyhow!("it is no JSON object"))?;
        if let Some(version) = fields.get("version").and_then(Value::as_u64)
            && version != u64::from(State::VERSION)
        {
            bail!("it has version {version}, and this program knows version {}", State::VERSION);
        }
        let Some(crc32) = fields.shift_remove("crc32") else { bail!("it has no checksum") };
        ensure!(crc32 == checksum(&value), "its checksum is not the one that was written");
        Ok(serde_json::from_value(value)?)
    }
}

fn checksum(value: &Value) -> String {
    format!("{:08x}", crc32fast::hash(value.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: u64) -> State {
        State {
            version: State::VERSION,
            step,
            epoch: 1,
            batch: 2,
            steps_per_epoch: 10,
            data: Some("0a1b2c3d".to_owned()),
            phase: "inverse".into(),
            optimizer_steps: OptimizerSteps { forward: 3, inverse: 9 },
            seed: u64::MAX,
            identity: None,
            parameter_checksum: "00ff".into(),
            metrics: Tallied::default(),
            biodist: "0".into(),
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn a_state_survives_and_a_changed_digit_does_not() {
        let bytes = state(12).bytes();
        assert_eq!(State::parse(&bytes).unwrap(), state(12));
        let text = String::from_utf8(bytes).unwrap();
        for (from, to) in [("\"inverse\": 9", "\"inverse\": 8"), ("\"step\": 12", "\"step\": 13"), ("\"version\": 1", "\"version\": 2")] {
            assert!(text.contains(from), "{text}");
            assert!(State::parse(text.replace(from, to).as_bytes()).is_err(), "{from}");
        }
        assert!(State::parse(&text.as_bytes()[..text.len() / 2]).is_err());
    }
}
