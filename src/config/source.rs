//! Configuration text: a file, the files that it includes, and `--set` on top, merged into one table.
//!
//! Every key remembers where it came from, so that an error found later can name the file and line to edit.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::exit::Exit;

/// Where a key was written.
#[derive(Clone, Debug)]
enum Origin {
    File { path: Rc<Path>, line: usize },
    Override(Rc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Override(text) => write!(f, "--set {text}"),
        }
    }
}

/// A merged configuration and the origin of each of its keys, by dotted path.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) table: Table,
    origins: HashMap<String, Origin>,
}

impl Source {
    /// Reads `path` with its includes, then applies `overrides` (`key=value`) in order.
    pub(super) fn read(path: &Path, overrides: &[String]) -> Result<Source> {
        let mut source = Source { path: path.to_path_buf(), table: Table::new(), origins: HashMap::new() };
        source.add_file(path, &mut Vec::new())?;
        for text in overrides {
            source.add_override(text)?;
        }
        Ok(source)
    }

    /// An error about `key` (a dotted path; empty for the whole file), led by where it was written.
    pub(super) fn error(&self, key: &str, message: impl fmt::Display) -> anyhow::Error {
        match self.origin(key) {
            Some(origin) => usage(format!("{origin}: {key}: {message}")),
            None if key.is_empty() => usage(format!("{}: {message}", self.path.display())),
            None => usage(format!("{}: {key}: {message}", self.path.display())),
        }
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

    fn add_file(&mut self, path: &Path, open: &mut Vec<PathBuf>) -> Result<()> {
        let text = std::fs::read_to_string(path).map_err(|error| usage(format!("{}: cannot read it: {error}", path.display())))?;
        let identity = path.canonicalize().map_err(|error| usage(format!("{}: cannot resolve it: {error}", path.display())))?;
        if open.contains(&identity) {
            let circle: Vec<_> = open.iter().chain([&identity]).map(|path| path.display().to_string()).collect();
            return Err(usage(format!("{}: include goes round in a circle: {}", path.display(), circle.join(" -> "))));
        }
        let spanned = DeTable::parse(&text).map_err(|error| syntax(path, &text, &error))?;
        let mut table: Table = text.parse().map_err(|error| syntax(path, &text, &error))?;

        open.push(identity);
        let directory = path.parent().unwrap_or(Path::new(""));
        for name in take_includes(path, &mut table)? {
            let included = directory.join(&name);
            if !included.is_file() {
                return Err(usage(format!(
                    "{}: include: no file {} (names are relative to the including file)",
                    path.display(),
                    included.display()
                )));
            }
            self.add_file(&included, open)?;
        }
        open.pop();

        self.record(&Rc::from(path), &text, "", spanned.get_ref());
        merge(&mut self.table, table);
        Ok(())
    }

    fn record(&mut self, file: &Rc<Path>, text: &str, prefix: &str, table: &DeTable) {
        for (key, value) in table {
            let path = join(prefix, key.get_ref());
            self.origins.insert(path.clone(), Origin::File { path: file.clone(), line: line_of(text, key.span().start) });
            match value.get_ref() {
                DeValue::Table(inner) => self.record(file, text, &path, inner),
                DeValue::Array(elements) => {
                    for (index, element) in elements.iter().enumerate() {
                        if let DeValue::Table(inner) = element.get_ref() {
                            self.record(file, text, &format!("{path}[{index}]"), inner);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Origins of a replaced array's elements would point into the file that was overruled.
    fn forget_elements(&mut self, path: &str) {
        let elements = format!("{path}[");
        self.origins.retain(|key, _| !key.starts_with(&elements));
    }

    fn add_override(&mut self, text: &str) -> Result<()> {
        let Some((key, value)) = text.split_once('=') else {
            return Err(usage(format!("--set {text}: expected key=value, for instance --set training.epochs=10")));
        };
        let key = key.trim();
        let parts: Vec<&str> = key.split('.').collect();
        if parts.iter().any(|part| part.is_empty() || part.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-')) {
            return Err(usage(format!(
                "--set {text}: `{key}` is not a key; keys are written section.key, for instance optimizer.forward.beta1"
            )));
        }
        let value = override_value(text, value.trim())?;
        let origin = Origin::Override(Rc::from(text));
        if parts == ["include"] {
            return Err(usage(format!("--set {text}: include belongs in a file")));
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
fn override_value(whole: &str, text: &str) -> Result<Value> {
    match text.parse::<Value>() {
        Ok(value) => Ok(value),
        Err(_) if text.is_empty() => Err(usage(format!("--set {whole}: no value after `=`"))),
        Err(error) if text.starts_with(['[', '{', '"', '\'']) => {
            Err(usage(format!("--set {whole}: not a TOML value: {} (text inside an array needs quotes: [\"a\", \"b\"])", error.message())))
        }
        Err(_) => Ok(Value::String(text.to_owned())),
    }
}

fn take_includes(path: &Path, table: &mut Table) -> Result<Vec<String>> {
    let expected =
        || usage(format!("{}: include: expected an array of file names, such as include = [\"shared/mnist.toml\"]", path.display()));
    match table.remove("include") {
        None => Ok(Vec::new()),
        Some(Value::Array(names)) => names.into_iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(expected)).collect(),
        Some(_) => Err(expected()),
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

pub(super) fn join(prefix: &str, key: &str) -> String {
    if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error.span().map_or(1, |span| line_of(text, span.start));
    usage(format!("{}:{line}: not valid TOML: {}", path.display(), error.message()))
}

pub(super) fn usage(message: String) -> anyhow::Error {
    Exit::Usage.error(message)
}
