//! Configuration text: a file, the files that it includes, and `--set` on top, merged into one table.
//!
//! Every key remembers where it came from, so that an error found later can name the file and line to edit.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use biodist_process::quote;
use toml::{Table, Value};

use super::files::{self, File};
use super::text;
use crate::exit::Exit;

/// Characters of an override that a message shows.
const SHOWN: usize = 200;
/// Parts of a key; the longest of the configuration's has three.
const MOST_PARTS: usize = 8;

/// Where a key was written.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    File { path: Rc<Path>, line: usize },
    Override(Rc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Override(text) => write!(f, "{}", quote::part(text, SHOWN)),
        }
    }
}

/// A merged configuration and the origin of each of its keys, by dotted path.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) table: Table,
    /// The same without what the command line says.
    files: Table,
    origins: HashMap<String, Origin>,
}

impl Source {
    /// Reads `path` with its includes, then applies `overrides` (`key=value`) in order.
    pub(super) fn read(path: &Path, overrides: &[String]) -> Result<Source> {
        let mut source = Source { path: path.to_path_buf(), table: Table::new(), files: Table::new(), origins: HashMap::new() };
        for File { table, origins } in files::read(path)? {
            source.origins.extend(origins);
            merge(&mut source.table, table);
        }
        source.files = source.table.clone();
        for text in overrides {
            source.add_override(text)?;
        }
        Ok(source)
    }

    /// An error about `key` (a dotted path; empty for the whole file), led by where it was written.
    pub(super) fn error(&self, key: &str, message: impl fmt::Display) -> anyhow::Error {
        let shown = quote::part(key, SHOWN);
        match self.origin(key) {
            Some(origin) => usage(format!("{origin}: {shown}: {message}")),
            None if key.is_empty() => usage(format!("{}: {message}", self.path.display())),
            None => usage(format!("{}: {shown}: {message}", self.path.display())),
        }
    }

    /// The value at dotted `path`, where one is written.
    pub(super) fn value(&self, path: &str) -> Option<&Value> {
        at(&self.table, path)
    }

    /// The value that the files write at dotted `path`, where one does.
    pub(super) fn value_of_files(&self, path: &str) -> Option<&Value> {
        at(&self.files, path)
    }

    /// Whether `key`, which was written, was written on the command line.
    pub(super) fn typed(&self, key: &str) -> bool {
        matches!(self.origin(key), Some(Origin::Override(_)))
    }

    /// Every leaf key that was written, as dotted paths.
    pub(super) fn given(&self) -> Vec<String> {
        fn walk(prefix: &str, table: &Table, into: &mut Vec<String>) {
            for (key, value) in table {
                let path = join(prefix, key);
                match value {
                    Value::Table(inner) => walk(&path, inner, into),
                    _ => into.push(path),
                }
            }
        }
        let mut keys = Vec::new();
        walk("", &self.table, &mut keys);
        keys
    }

    /// The origin of `key`, or of the nearest enclosing key: an array's elements have none of their own.
    fn origin(&self, key: &str) -> Option<&Origin> {
        let mut key = key;
        loop {
            if let Some(origin) = self.origins.get(key) {
                return Some(origin);
            }
            key = &key[..key.rfind(['.', '['])?];
        }
    }

    /// Origins of a replaced array's elements would point into the file that was overruled.
    fn forget_elements(&mut self, path: &str) {
        let elements = format!("{path}[");
        self.origins.retain(|key, _| !key.starts_with(&elements));
    }

    fn add_override(&mut self, text: &str) -> Result<()> {
        let origin = Origin::Override(Rc::from(text));
        let Some((key, value)) = text.split_once('=') else {
            return Err(usage(format!("{origin}: expected key=value, for instance training.epochs=10")));
        };
        let key = key.trim();
        let parts: Vec<&str> = key.split('.').collect();
        let unlike = |part: &&str| part.is_empty() || part.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
        if parts.len() > MOST_PARTS || parts.iter().any(unlike) {
            return Err(usage(format!(
                "{origin}: `{}` is not a key; keys are written section.key, for instance optimizer.forward.beta1",
                quote::part(key, SHOWN)
            )));
        }
        let value = override_value(&origin, value.trim())?;
        if parts == ["include"] {
            return Err(usage(format!("{origin}: include belongs in a file")));
        }

        self.forget_elements(key);
        for end in 1..=parts.len() {
            let path = parts[..end].join(".");
            if end == parts.len() || !self.origins.contains_key(&path) {
                self.origins.insert(path, origin.clone());
            }
        }
        if let Value::Table(inner) = &value {
            self.record_override(key, inner, &origin);
        }
        let (last, sections) = parts.split_last().expect("split yields at least one part");
        let mut nested = Table::new();
        nested.insert(last.to_string(), value);
        for section in sections.iter().rev() {
            nested = Table::from_iter([(section.to_string(), Value::Table(nested))]);
        }
        merge(&mut self.table, nested);
        Ok(())
    }

    fn record_override(&mut self, prefix: &str, table: &Table, origin: &Origin) {
        for (key, value) in table {
            let path = join(prefix, key);
            if let Value::Table(inner) = value {
                self.record_override(&path, inner, origin);
            }
            self.origins.insert(path, origin.clone());
        }
    }
}

/// A TOML value, or the text itself where it is none: `--set learning.rule=bp` needs no quotes.
fn override_value(origin: &Origin, text: &str) -> Result<Value> {
    match text::value(text) {
        Ok(value) => Ok(value),
        Err(_) if text.is_empty() => Err(usage(format!("{origin}: no value after `=`"))),
        Err(wrong) if text.starts_with(['[', '{', '"', '\'']) => {
            Err(usage(format!("{origin}: {} (text inside an array needs quotes: [\"a\", \"b\"])", wrong.what)))
        }
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

/// Puts `over` on `base`: tables are joined key by key, anything else is replaced.
fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// The value at dotted `path` of `table`.
pub(super) fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
    rest.split('.').filter(|part| !part.is_empty()).try_fold(table.get(first)?, |value, part| value.get(part))
}

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

pub(super) fn usage(message: String) -> anyhow::Error {
    Exit::Usage.error(message)
}
