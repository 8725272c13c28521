//! A run's folder: whose it is, and what it says about its run.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use data_prep::files::write_atomically;
use serde_json::{Value, json};

use super::best;
use super::checkpoint::{Checkpoints, State};
use super::schedule::Schedule;
use super::{metrics, records};
use crate::config::Config;
use crate::exit::Exit;
use crate::versions;

pub const CONFIG: &str = "config.toml";
pub const RUN: &str = "run.json";

/// A folder that a run has, or will have. On rank 0.
pub struct RunFolder {
    path: PathBuf,
    lock: Option<File>,
}

impl RunFolder {
    /// Looks at `path` without changing it, and finds the checkpoint to go on from.
    ///
    /// Fails where it holds a run and `resume` was not asked for, or holds a run of another configuration than `config`.
    pub fn find(path: &Path, resume: bool, config: &Config) -> Result<(RunFolder, Option<State>)> {
        let mut folder = RunFolder { path: path.to_owned(), lock: None };
        if !path.exists() {
            return Ok((folder, None));
        }
        if !path.is_dir() {
            return Err(Exit::Usage.error(format!("--out {}: this is a file; a run needs a folder", path.display())));
        }
        folder.lock()?;
        let written = path.join(CONFIG);
        let holds_run =
            [&written, &path.join(RUN), &path.join(records::FILE_NAME), &path.join("checkpoints")].iter().any(|path| path.exists());
        if !holds_run {
            return Ok((folder, None));
        }
        if !resume {
            return Err(
                Exit::Usage.error(format!("{} holds a run already; go on with it by --resume, or choose another --out", path.display()))
            );
        }
        if written.exists() {
            folder.compare(&written, config)?;
        }
        let state = Checkpoints::of(path).newest()?;
        Ok((folder, state))
    }

    /// Whether nothing is left to do for a run of `config` that has come to `state`.
    pub fn is_over(&self, config: &Config, state: &State) -> Result<bool> {
        let schedule = Schedule::new(config, state.steps_per_epoch as usize);
        if state.step < schedule.last_step() {
            return Ok(false);
        }
        for (split, present) in [("validation", config.data.validation > 0), ("test", config.data.test.is_some())] {
            if present && schedule.evaluates(state.step) && !metrics::has_evaluation(&self.path, split, state.step)? {
                return Ok(false);
            }
        }
        best::is_current(&Checkpoints::of(&self.path))
    }

    fn compare(&self, written: &Path, config: &Config) -> Result<()> {
        let differences = config.differences(&Config::load(written, &[])?);
        if differences.is_empty() {
            return Ok(());
        }
        let list: Vec<String> = differences.iter().map(|d| format!("{} is {} there and {} here", d.key, d.theirs, d.ours)).collect();
        Err(Exit::Usage.error(format!(
            "{} holds a run of another configuration: {}; train with {} to go on with it, or choose another --out",
            self.path.display(),
            list.join(", "),
            written.display()
        )))
    }

    /// Two runs in one folder would write each other's files.
    fn lock(&mut self) -> Result<()> {
        let Ok(folder) = File::open(&self.path) else { return Ok(()) };
        match folder.try_lock() {
            Err(TryLockError::WouldBlock) => {
                Err(Exit::Failed
                    .error(format!("another process is training in {}; wait for it, or choose another --out", self.path.display())))
            }
            // A file system without locks has none to respect.
            Err(TryLockError::Error(_)) => Ok(()),
            Ok(()) => {
                self.lock = Some(folder);
                Ok(())
            }
        }
    }

    /// Makes the folder, and writes what the run is and how it was started this time.
    pub fn begin(&mut self, config: &Config, about: Value) -> Result<()> {
        std::fs::create_dir_all(&self.path).with_context(|| format!("{} cannot be created", self.path.display()))?;
        if self.lock.is_none() {
            self.lock()?;
        }
        Checkpoints::of(&self.path).remove_unfinished()?;
        write_atomically(&self.path.join(CONFIG), config.to_toml().as_bytes())?;
        let mut about = about;
        let earlier = std::fs::read(self.path.join(RUN)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        if let Some(Value::Object(mut earlier)) = earlier {
            let mut starts = earlier.shift_remove("earlier").and_then(|list| list.as_array().cloned()).unwrap_or_default();
            starts.push(Value::Object(earlier));
            about["earlier"] = starts.into();
        }
        let text = serde_json::to_string_pretty(&about).expect("text and numbers are JSON");
        write_atomically(&self.path.join(RUN), (text + "\n").as_bytes())
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// What `run.json` says, but for the run's own facts.
pub fn about() -> Value {
    let command: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    json!({
        "command": command,
        "commit": versions::COMMIT,
        "versions": { "biodist": versions::CRATE, "libtorch": versions::LIBTORCH, "mpi": versions::mpi() },
        "started_unix_seconds": started,
    })
}
