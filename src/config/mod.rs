//! From a TOML file as typed to a configuration in which everything is present and checked.
//!
//! [`Config::load`] is the way in. What needs the data or the number of ranks is checked later, when the plan is made.

mod combinations;
mod files;
pub mod find;
mod read;
mod resolved;
mod schema;
mod source;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod unknown;

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::key::{Default, Key};
pub use resolved::{Difference, Settings, touches};
pub use schema::*;

/// What a configuration is loaded for, which decides what it must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Training: data and a length (`training.epochs` or `training.max_steps`) are required.
    Training,
    /// Looking at shapes or timing steps on random data: neither is; an absent `data.train` is an empty path.
    Shapes,
}

/// A key that was written and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unused {
    pub key: String,
    pub reason: String,
    /// Whether it was written on the command line.
    #[serde(skip)]
    pub typed: bool,
}

/// A key that a file gives the value of the one that it follows where it is not written, which a command line changes: a run's own
/// configuration writes every key out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeftBehind {
    pub key: &'static str,
    pub followed: &'static str,
}

impl fmt::Display for LeftBehind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeftBehind { key, followed } = self;
        write!(f, "{key} stays what the configuration writes, and does not follow {followed}; give it too where it shall")
    }
}

/// A configuration together with what was noticed while it was read.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// Keys that were written and that change nothing.
    pub unused: Vec<Unused>,
    pub left_behind: Vec<LeftBehind>,
    /// Keys that were written on the command line.
    pub typed: BTreeSet<String>,
}

impl Loaded {
    /// Reads `path` (looked for in `configs/` too), its includes, and `overrides` of the form `key=value`.
    ///
    /// Every error is one of [`crate::exit::Exit::Usage`] that names the file, the key, and what to do.
    pub fn read(path: &Path, overrides: &[String], purpose: Purpose) -> Result<Loaded> {
        let source = source::Source::read(&find::find(path)?, overrides)?;
        let config = read::read(&source, purpose)?;
        let left_behind = |key: &Key| {
            let Default::Of { path: followed, .. } = key.default else { return None };
            let (before, after) = (source.value_of_files(followed)?, source.value(followed)?);
            let left = before != after && source.value(key.path) == Some(before) && !source.typed(key.path);
            (left && config.unused(key.path).is_none()).then_some(LeftBehind { key: key.path, followed })
        };
        let left_behind = Config::keys().filter_map(left_behind).collect();
        let written = source.given();
        let typed = written.iter().filter(|key| source.typed(key)).cloned().collect();
        let unused = written.into_iter().filter_map(|key| {
            let reason = config.unused(&key)?;
            Some(Unused { reason, typed: source.typed(&key), key })
        });
        Ok(Loaded { unused: unused.collect(), left_behind, config, typed })
    }

    /// The same with data paths that mean the same in any working directory.
    pub fn with_absolute_paths(mut self) -> Result<Loaded> {
        self.config = self.config.with_absolute_paths()?;
        Ok(self)
    }
}

impl Config {
    /// The configuration at `path` for training, with `overrides` of the form `key=value`; see [`Loaded::read`].
    pub fn load(path: &Path, overrides: &[String]) -> Result<Config> {
        Loaded::read(path, overrides, Purpose::Training).map(|loaded| loaded.config)
    }
}
