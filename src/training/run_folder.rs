//! A run's folder: whose it is, and what it says about its run.

use std::fs::{File, Metadata};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use biodist_process::files::{self, read_if_there, read_regular, write_atomically};
use serde_json::{Map, Value, json};

use super::checkpoint::Checkpoints;
use super::schedule::Schedule;
use super::state::State;
use super::{best, checkpoint, identity, metrics, records};
use crate::config::Config;
use crate::exit::Exit;
use crate::versions;

pub use crate::config::find::OF_RUN as CONFIG;
pub const RUN: &str = "run.json";
/// Key of `run.json`: steps done when a loss, or a parameter, was not finite, which ended the run. Going on begins a `run.json` without it.
pub const DIVERGED: &str = "diverged_at_step";

/// Key of `run.json`: what it said at each earlier start of the run.
const EARLIER: &str = "earlier";

/// What a run writes into its folder.
const OWN: [&str; 5] = [CONFIG, RUN, records::FILE_NAME, best::FILE_NAME, checkpoint::FOLDER];

/// Whether `path` is the folder of a run of this program's: a `config.toml` alone may be anybody's.
pub fn holds_run(path: &Path) -> bool {
    let about = read_regular(&path.join(RUN)).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    about.is_some_and(|about| about["versions"]["biodist"].is_string())
        || Checkpoints::of(path).newest_state().is_ok_and(|state| state.is_some())
}

/// Records in the folder of a run that it diverged at `step`: what it measured before looks like a run in progress otherwise.
pub fn record_divergence(run: &Path, step: u64) -> Result<()> {
    let mut about = read_about(run)?.unwrap_or_default();
    about.insert(DIVERGED.to_owned(), step.into());
    write_about(run, &about.into())
}

/// What `run.json` says; none where it is not there.
fn read_about(run: &Path) -> Result<Option<Map<String, Value>>> {
    let path = run.join(RUN);
    let Some(bytes) = read_if_there(&path).with_context(|| format!("{} cannot be read", path.display()))? else { return Ok(None) };
    let read = || -> Result<Map<String, Value>> {
        let about: Map<String, Value> = serde_json::from_slice(&bytes)?;
        ensure!(about.get(EARLIER).is_none_or(Value::is_array), "what it has under {EARLIER:?} is no list");
        Ok(about)
    };
    let damaged = || format!("{} is damaged; mend it, or move it away to go on without what it says of earlier starts", path.display());
    read().with_context(damaged).map(Some)
}

fn write_about(run: &Path, about: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(about).expect("text and numbers are JSON");
    write_atomically(&run.join(RUN), (text + "\n").as_bytes())
}

/// A folder that a run has, or will have. On rank 0.
pub struct RunFolder {
    path: PathBuf,
    /// Open from the first look on, where it is there, and locked where the file system has locks. The run is this folder, wherever it is
    /// moved, and not what is at its path later.
    folder: Option<File>,
}

impl RunFolder {
    /// Looks at `path` without changing it, and finds the checkpoint to go on from.
    ///
    /// Fails where it holds a run and `resume` was not asked for, or holds a run of another configuration than `config`.
    pub fn find(path: &Path, resume: bool, config: &Config) -> Result<(RunFolder, Option<State>)> {
        let mut folder = RunFolder { path: path.to_owned(), folder: None };
        if !path.try_exists().with_context(|| format!("--out {} cannot be looked at", path.display()))? {
            return Ok((folder, None));
        }
        if !path.is_dir() {
            return Err(Exit::Usage.error(format!("--out {}: this is a file; a run needs a folder", path.display())));
        }
        folder.lock()?;
        if !folder.holds_run()? {
            return Ok((folder, None));
        }
        if !resume {
            return Err(
                Exit::Usage.error(format!("{} holds a run already; go on with it by --resume, or choose another --out", path.display()))
            );
        }
        // Before anything is loaded.
        read_about(path)?;
        let written = path.join(CONFIG);
        let missing = !written.try_exists().unwrap_or(true);
        if !missing {
            folder.compare(&written, config)?;
        }
        let state = Checkpoints::of(path).newest()?;
        if let Some(state) = &state {
            if missing && state.identity.is_none() {
                return Err(Exit::Usage.error(format!(
                    "{} is missing, so nothing says which run the checkpoints beside it are of; put it back, or choose another --out",
                    written.display()
                )));
            }
            state.refuse_another_run(path, config, missing, &[])?;
        }
        Ok((folder, state))
    }

    /// Whether a run is there; an error where something else is that a run would write over.
    fn holds_run(&self) -> Result<bool> {
        if holds_run(&self.path) {
            return Ok(true);
        }
        match OWN.iter().map(|name| self.path.join(name)).find(|path| path.symlink_metadata().is_ok()) {
            None => Ok(false),
            Some(there) => Err(Exit::Usage.error(format!(
                "{} is there already, and biodist did not write it: choose another --out, or move it away",
                there.display()
            ))),
        }
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
        Err(Exit::Usage.error(format!(
            "{} holds a run of another configuration: {}; train with {} to go on with it, or choose another --out",
            self.path.display(),
            identity::list(&differences),
            written.display()
        )))
    }

    /// Opens the folder and locks it: two runs in one folder would write each other's files.
    fn lock(&mut self) -> Result<()> {
        let folder = File::open(&self.path).with_context(|| format!("{} cannot be opened", self.path.display()))?;
        if !files::lock(&folder) {
            return Err(
                Exit::Failed.error(format!("another process is training in {}; wait for it, or choose another --out", self.path.display()))
            );
        }
        self.folder = Some(folder);
        Ok(())
    }

    /// Makes the folder, and writes what the run is and how it was started this time.
    pub fn begin(&mut self, config: &Config, about: Value) -> Result<()> {
        if self.folder.is_none() {
            std::fs::create_dir_all(&self.path).with_context(|| format!("{} cannot be created", self.path.display()))?;
            self.lock()?;
            // Since the first look another process may have been here, and have ended.
            if self.holds_run()? {
                return Err(Exit::Failed.error(format!(
                    "another process has begun a run in {} meanwhile; go on with it by --resume, or choose another --out",
                    self.path.display()
                )));
            }
        }
        self.follow()?;
        self.write_beginning(config, about)
            .with_context(|| format!("the run in {} cannot begin; the same command with --resume begins it", self.path.display()))
    }

    fn write_beginning(&self, config: &Config, about: Value) -> Result<()> {
        Checkpoints::of(&self.path).remove_unfinished()?;
        let mut about = about;
        if let Some(mut before) = read_about(&self.path)? {
            let mut starts = before.shift_remove(EARLIER).and_then(|list| list.as_array().cloned()).unwrap_or_default();
            starts.push(before.into());
            about[EARLIER] = starts.into();
        }
        // First what makes the folder a run's: whatever ends the process here, --resume goes on.
        write_about(&self.path, &about)?;
        write_atomically(&self.path.join(CONFIG), config.to_toml().as_bytes())
    }

    /// Goes where the folder has been moved, if it was; whether it was.
    ///
    /// # Errors
    /// Where it has been removed.
    pub fn follow(&mut self) -> Result<bool> {
        let Some(folder) = &self.folder else { return Ok(false) };
        if leads_to(&self.path, folder) {
            return Ok(false);
        }
        let now = std::fs::read_link(format!("/proc/self/fd/{}", folder.as_raw_fd())).unwrap_or_default();
        if !leads_to(&now, folder) {
            return Err(Exit::Failed.error(format!(
                "{} was removed while the run in it trained: what was in it is lost, and the run ends here",
                self.path.display()
            )));
        }
        log::warn!("{} was moved to {} while the run in it trains, and goes on there", self.path.display(), now.display());
        self.path = now;
        Ok(true)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether `path` is still the name of what is open.
pub(super) fn leads_to(path: &Path, open: &File) -> bool {
    let identity = |of: Metadata| (of.dev(), of.ino());
    path.metadata().is_ok_and(|there| open.metadata().is_ok_and(|own| identity(there) == identity(own)))
}

/// What `run.json` says, but for the run's own facts.
pub fn about() -> Value {
    let command: Vec<String> = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned()).collect();
    // What a report calls a run of a rule that it does not know.
    let program = std::env::current_exe().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let started = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    json!({
        "program": program,
        "command": command,
        "commit": versions::COMMIT,
        "versions": { "biodist": versions::CRATE, "libtorch": versions::LIBTORCH, "mpi": versions::mpi() },
        "started_unix_seconds": started,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn going_on_takes_a_divergence_back() {
        let run = tempfile::tempdir().unwrap();
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/mnist_fc_bp.toml");
        let config = Config::load(&shipped, &[]).unwrap();
        let told = || -> Value { serde_json::from_slice(&std::fs::read(run.path().join(RUN)).unwrap()).unwrap() };
        let begin = || {
            let (mut folder, _) = RunFolder::find(run.path(), true, &config).unwrap();
            folder.begin(&config, about()).unwrap();
        };
        begin();
        let before = told();
        record_divergence(run.path(), 903).unwrap();
        assert_eq!(told()[DIVERGED], 903);
        assert_eq!(told()["versions"], before["versions"], "the rest stays");
        begin();
        assert_eq!((&told()[DIVERGED], &told()["earlier"][0][DIVERGED]), (&Value::Null, &json!(903)));
    }
}
