//! The files of a configuration: the one that is given, and those that it includes.
//!
//! Each is read once, wherever it is included: what comes later wins, so of several places of a file the last decides. A configuration is a
//! few kilobytes; what is beyond all reason, or would never come to an end, is refused.

use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use biodist_process::files::open_regular;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::source::{Origin, join, usage};
use super::text;

/// Files of a configuration, and their bytes in all.
const MOST_FILES: usize = 256;
const MOST_BYTES: u64 = 4 << 20;

/// A file as it was written, without its includes, and where each of its keys stands.
pub(super) struct File {
    pub(super) table: Table,
    pub(super) origins: HashMap<String, Origin>,
}

/// The file at `path` and all that it includes, the last to win at the end.
pub(super) fn read(path: &Path) -> Result<Vec<File>> {
    let mut files = Files::default();
    files.add(path)?;
    files.found.reverse();
    Ok(files.found)
}

#[derive(Default)]
struct Files {
    /// Files that were begun, each with the folder that its includes are relative to: links may give it several.
    seen: HashSet<(PathBuf, PathBuf)>,
    /// Those that are being read, from the outermost.
    open: Vec<PathBuf>,
    bytes: u64,
    /// The first to win is the first.
    found: Vec<File>,
}

impl Files {
    fn add(&mut self, path: &Path) -> Result<()> {
        let file = open_regular(path).map_err(|error| usage(format!("{}: cannot read it: {error}{}", path.display(), advice(&error))))?;
        let real = |path: &Path| path.canonicalize().map_err(|error| usage(format!("{}: cannot resolve it: {error}", path.display())));
        let identity = real(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        if self.open.contains(&identity) {
            let circle: Vec<_> = self.open.iter().chain([&identity]).map(|path| path.display().to_string()).collect();
            return Err(usage(format!("{}: include goes round in a circle: {}", path.display(), circle.join(" -> "))));
        }
        let base = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        if !self.seen.insert((identity.clone(), real(base)?)) {
            return Ok(());
        }
        if self.seen.len() > MOST_FILES {
            return Err(usage(format!(
                "{}: include: this is one more than the {MOST_FILES} files that a configuration may have",
                path.display()
            )));
        }
        let text = self.text(path, file)?;
        let lines = Lines::of(&text);
        let (spanned, mut table) =
            text::table(&text).map_err(|wrong| usage(format!("{}:{}: {}", path.display(), lines.at(wrong.at), wrong.what)))?;
        let includes = take_includes(path, &mut table)?;
        let mut origins = HashMap::new();
        record(&mut origins, &Rc::from(path), &lines, "", &spanned);
        self.found.push(File { table, origins });

        self.open.push(identity);
        for name in includes.iter().rev() {
            let included = folder.join(name);
            if !included.try_exists().unwrap_or(true) {
                let (path, included) = (path.display(), included.display());
                return Err(usage(format!("{path}: include: no file {included} (names are relative to the including file)")));
            }
            self.add(&included)?;
        }
        self.open.pop();
        Ok(())
    }

    fn text(&mut self, path: &Path, file: std::fs::File) -> Result<String> {
        let (left, mut bytes) = (MOST_BYTES - self.bytes, Vec::new());
        let read = file.take(left + 1).read_to_end(&mut bytes);
        read.map_err(|error| usage(format!("{}: cannot read it: {error}", path.display())))?;
        if bytes.len() as u64 > left {
            let most = MOST_BYTES >> 20;
            return Err(usage(format!("{}: too large: a configuration has at most {most} MiB, with all that it includes", path.display())));
        }
        self.bytes += bytes.len() as u64;
        String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            usage(format!("{}: not valid TOML: byte {at} begins no character of UTF-8", path.display()))
        })
    }
}

/// What to do where something that is no file was given.
fn advice(error: &std::io::Error) -> &'static str {
    if error.kind() == ErrorKind::InvalidInput { "; every rank reads the configuration for itself: write it into a file" } else { "" }
}

/// Where a text's lines end.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line that holds the byte at `offset`, counted from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}

fn record(origins: &mut HashMap<String, Origin>, file: &Rc<Path>, lines: &Lines, prefix: &str, table: &DeTable) {
    for (key, value) in table {
        let path = join(prefix, key.get_ref());
        origins.insert(path.clone(), Origin::File { path: file.clone(), line: lines.at(key.span().start) });
        match value.get_ref() {
            DeValue::Table(inner) => record(origins, file, lines, &path, inner),
            DeValue::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    if let DeValue::Table(inner) = element.get_ref() {
                        record(origins, file, lines, &format!("{path}[{index}]"), inner);
                    }
                }
            }
            _ => {}
        }
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
