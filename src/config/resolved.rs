//! The configuration as a run's folder keeps it, and what two runs may differ in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::Value;

use super::schema::Config;
use super::source::usage;
use crate::key::Touches;

/// Every value of a configuration as TOML, by its dotted key; layers are told apart by their place.
pub type Settings = BTreeMap<String, String>;

/// A key in which two configurations differ, with both values as TOML.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub key: String,
    pub ours: String,
    pub theirs: String,
}

impl Config {
    /// The configuration as TOML in which every key is written; it loads again to an equal value.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a configuration holds nothing that TOML cannot express")
    }

    /// The same configuration with paths that mean the same in any working directory.
    ///
    /// # Errors
    /// Of usage, where TOML cannot hold such a path, since the working directory's is not UTF-8.
    pub fn with_absolute_paths(mut self) -> Result<Config> {
        self.data.train = absolute("data.train", &self.data.train)?;
        self.data.test = self.data.test.as_deref().map(|test| absolute("data.test", test)).transpose()?;
        let initial = self.learning.initial.as_deref();
        self.learning.initial = initial.map(|file| absolute("learning.initial", file)).transpose()?;
        Ok(self)
    }

    pub fn settings(&self) -> Settings {
        leaves(self).into_iter().map(|(key, value)| (key, value.to_string())).collect()
    }

    /// Where this configuration asks for another run than that of `other`: what a run may change is left out.
    pub fn differences(&self, other: &Config) -> Vec<Difference> {
        self.differences_in(|touches| !touches.may_change(), &other.settings())
    }

    /// Where the keys that touch what is `compared` differ from [settings](Config::settings) of another.
    pub fn differences_in(&self, compared: fn(Touches) -> bool, theirs: &Settings) -> Vec<Difference> {
        let ours = self.settings();
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).filter(|key| compared(touches(key))).collect();
        let show = |values: &Settings, key: &str| values.get(key).map_or("absent".to_owned(), String::clone);
        keys.into_iter()
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .map(|key| Difference { key: key.clone(), ours: show(&ours, key), theirs: show(theirs, key) })
            .collect()
    }
}

fn absolute(key: &str, path: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(path).context("the working directory cannot be found")?;
    if absolute.to_str().is_none() {
        return Err(usage(format!(
            "{key}: {absolute:?} is not UTF-8, as a configuration must be; rename that folder, or start in another and name the data by a \
             path from the root"
        )));
    }
    Ok(absolute)
}

/// What another value of the key at `path` makes different. Keys of layers and of rules decide what is computed.
pub fn touches(path: &str) -> Touches {
    Config::key(path).map_or(Touches::Result, |key| key.touches)
}

/// Every value by its dotted path; layers are told apart by their place.
fn leaves(config: &Config) -> BTreeMap<String, Value> {
    fn walk(path: String, value: Value, into: &mut BTreeMap<String, Value>) {
        match value {
            Value::Table(table) => table.into_iter().for_each(|(key, value)| walk(super::source::join(&path, &key), value, into)),
            Value::Array(elements) if elements.iter().any(Value::is_table) => {
                elements.into_iter().enumerate().for_each(|(index, value)| walk(format!("{path}[{index}]"), value, into));
            }
            value => {
                into.insert(path, value);
            }
        }
    }
    let mut into = BTreeMap::new();
    let value = Value::try_from(config).expect("a configuration holds nothing that TOML cannot express");
    walk(String::new(), value, &mut into);
    into
}
