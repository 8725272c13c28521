//! Parameters that a run begins with, from a file: `learning.initial`.
//!
//! Any of a network's parameters, by their names in checkpoints; the others are drawn. What the file holds belongs to the run, and not where
//! it lies: ranks compare its content before the first step, and checkpoints keep a checksum of it. A run that goes on has no need of the
//! file, but refuses another one.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};

use super::checkpoint::{Tensor, load, model_tensors};
use super::state::State;
use super::tensor_file::{Entry, TensorFile};
use crate::config::Config;
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::learner::Engine;
use crate::network::Maps;

const KEY: &str = "learning.initial";
/// Names that an error message lists.
const LISTED: usize = 6;

/// A file whose tensors are this network's, and finite.
pub struct Initial {
    path: PathBuf,
    tensors: Vec<Tensor>,
    /// Checksum of names, shapes and values.
    pub fingerprint: String,
}

impl Initial {
    /// The file that `config` names, for a network of `maps`; none where it names none.
    ///
    /// # Errors
    /// Of usage: a file that cannot be read, or that holds something else than parameters of this network.
    pub fn open(config: &Config, maps: &Maps) -> Result<Option<Initial>> {
        let Some(path) = &config.learning.initial else { return Ok(None) };
        Initial::of(path, maps).map(Some).map_err(|error| Exit::Usage.error(format!("{KEY}: {error:#}")))
    }

    fn of(path: &Path, maps: &Maps) -> Result<Initial> {
        let mut file = TensorFile::open_any(path)?;
        let mut tensors = model_tensors(maps);
        let entries: Vec<Entry> = tensors.iter().map(|tensor| tensor.entry.clone()).collect();
        file.refuse_others(&entries).map_err(|error| anyhow!("{error}; {}", known(&entries)))?;
        tensors.retain(|tensor| file.holds(&tensor.entry));
        ensure!(!tensors.is_empty(), "{} holds no parameters; {}", path.display(), known(&entries));
        let mut hasher = crc32fast::Hasher::new();
        for Tensor { entry, .. } in &tensors {
            let values = file.read(entry)?;
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                bail!("{} of {} holds {value}; nothing can be trained from there", entry.name, path.display());
            }
            hasher.update(format!("{} {:?}", entry.name, entry.shape).as_bytes());
            hasher.update(bytemuck::cast_slice(&values));
        }
        Ok(Initial { path: path.to_owned(), tensors, fingerprint: format!("{:08x}", hasher.finalize()) })
    }

    /// Puts the parameters in their places on all ranks. Collective.
    pub fn write(&self, engine: &mut Engine, transport: &dyn Transport) -> Result<()> {
        load(&self.path, &self.tensors, engine, transport)
    }
}

fn known(entries: &[Entry]) -> String {
    let names: Vec<&str> = entries.iter().take(LISTED).map(|entry| entry.name.as_str()).collect();
    let more = if entries.len() > LISTED { format!(" and {} more", entries.len() - LISTED) } else { String::new() };
    format!("this network has {}{more}", names.join(", "))
}

impl State {
    /// Refuses to go on with the run from other parameters than it began with. The file may be gone: what became of it is in the checkpoint.
    pub fn refuse_other_initial(&self, config: &Config, maps: &Maps) -> Result<()> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let then = identity.initial.as_deref();
        if then.is_some() && config.learning.initial.as_ref().is_some_and(|path| !path.exists()) {
            return Ok(());
        }
        let now = Initial::open(config, maps)?.map(|initial| initial.fingerprint);
        if now.as_deref() == then {
            return Ok(());
        }
        let (then, now) = (then.unwrap_or("absent"), now.as_deref().unwrap_or("absent"));
        Err(Exit::Usage.error(format!(
            "{KEY} (by the checksum of its parameters) was {then} when the run began, and is {now}; give it what it held, or begin a new run"
        )))
    }
}
