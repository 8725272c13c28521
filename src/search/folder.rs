//! A sweep's folder: whose it is, and where its trials are.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use data_prep::files::{PARTIAL, write_atomically};
use serde_json::{Map, Value, json};

use super::rungs::Rungs;
use super::space::Space;
use crate::config::Config;
use crate::exit::Exit;
use crate::versions;

const JOB: &str = "sweep.json";
const VERSION: u32 = 1;

pub struct SweepFolder {
    path: PathBuf,
    /// Held as long as the sweep runs: two in one folder would write each other's files.
    _lock: Option<File>,
}

impl SweepFolder {
    /// Takes the folder at `path` for this job: a new one, or one where the same job has stopped.
    ///
    /// # Errors
    /// Of usage, where the folder holds another job (naming what differs) or anything else.
    pub fn open(path: &Path, config: &Config, space: &Space, seed: u64, rungs: &Rungs) -> Result<SweepFolder> {
        if path.exists() && !path.is_dir() {
            return Err(Exit::Usage.error(format!("--out {}: this is a file; a sweep needs a folder", path.display())));
        }
        std::fs::create_dir_all(path).with_context(|| format!("{} cannot be created", path.display()))?;
        let lock = lock(path)?;
        let job = job(config, space, seed, rungs);
        let file = path.join(JOB);
        if file.exists() {
            let bytes = std::fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            let there: Value = serde_json::from_slice(&bytes).map_err(|error| anyhow!("{} is damaged: {error}", file.display()))?;
            refuse_another(path, &there, &job)?;
        } else {
            let entries = std::fs::read_dir(path).with_context(|| format!("{} cannot be read", path.display()))?;
            let own = format!("{JOB}.{PARTIAL}");
            if entries.flatten().any(|entry| entry.file_name() != own.as_str()) {
                return Err(Exit::Usage.error(format!(
                    "--out {}: the folder is not empty and holds no sweep (it would have a {JOB}); choose another",
                    path.display()
                )));
            }
            let text = serde_json::to_string_pretty(&job).expect("text and numbers are JSON");
            write_atomically(&file, (text + "\n").as_bytes())?;
        }
        Ok(SweepFolder { path: path.to_owned(), _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The run's folder of a trial.
    pub fn trial(&self, trial: usize) -> PathBuf {
        self.path.join("trials").join(format!("{trial:03}"))
    }
}

fn lock(path: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(Exit::Failed.error(format!("another sweep is running in {}; wait for it, or choose another --out", path.display())))
        }
        // A file system without locks has none to respect.
        Err(TryLockError::Error(_)) => Ok(None),
        Ok(()) => Ok(Some(folder)),
    }
}

fn job(config: &Config, space: &Space, seed: u64, rungs: &Rungs) -> Value {
    let domains: Map<String, Value> = space.domains.iter().map(|(key, domain)| (key.clone(), json!(domain))).collect();
    json!({
        "version": VERSION,
        "biodist": versions::CRATE,
        "commit": versions::COMMIT,
        "space_name": space.name,
        "space": domains,
        "seed": seed,
        "rungs": rungs,
        "configuration": config,
    })
}

/// Whether a key of sweep.json may differ from what the sweep began with: it changes no trial's result, or is no part of the job.
fn may_change(key: &str) -> bool {
    matches!(key, "biodist" | "commit" | "space_name" | "configuration.data.train" | "configuration.data.test")
        || key.starts_with("configuration.parallel.")
        || key.starts_with("configuration.training.checkpoint_")
        || matches!(
            key,
            "configuration.training.keep_checkpoints" | "configuration.training.log_every_steps" | "configuration.training.diagnostics"
        )
}

fn refuse_another(path: &Path, there: &Value, here: &Value) -> Result<()> {
    let (theirs, ours) = (leaves(there), leaves(here));
    let keys: std::collections::BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let show = |values: &BTreeMap<String, Value>, key: &str| values.get(key).map_or("absent".to_owned(), Value::to_string);
    let different: Vec<String> = keys
        .into_iter()
        .filter(|key| !may_change(key) && theirs.get(*key) != ours.get(*key))
        .map(|key| format!("{} is {} there and {} here", key.trim_start_matches("configuration."), show(&theirs, key), show(&ours, key)))
        .collect();
    if different.is_empty() {
        return Ok(());
    }
    let more = if different.len() > 3 { format!(" and {} more", different.len() - 3) } else { String::new() };
    let list = different[..different.len().min(3)].join(", ");
    Err(Exit::Usage.error(format!(
        "{} holds another sweep: {list}{more}; repeat its command line to go on with it, delete it, or choose another --out",
        path.display()
    )))
}

/// Every value that is no object, by its dotted path.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                fields
                    .iter()
                    .for_each(|(key, value)| walk(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, into));
            }
            value => {
                into.insert(path.to_owned(), value.clone());
            }
        }
    }
    let mut into = BTreeMap::new();
    walk("", value, &mut into);
    into
}
