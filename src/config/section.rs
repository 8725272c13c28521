//! Reading typed values out of a merged configuration, with errors that name the key, what was expected and what was found.
use anyhow::Result;
use biodist_process::quote;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use toml::{Table, Value};

use super::source::{Source, join};

/// The range of a real number, in words and as a test.
pub(super) struct Bound {
    words: &'static str,
    holds: fn(f64) -> bool,
}

pub(super) const FINITE: Bound = Bound { words: "a finite number", holds: f64::is_finite };
pub(super) const NOT_NEGATIVE: Bound = Bound { words: "a finite number, 0 or more", holds: |x| x.is_finite() && x >= 0.0 };
pub(super) const FRACTION: Bound = Bound { words: "a number from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };
pub(super) const DECAY: Bound = Bound { words: "a number from 0 to below 1", holds: |x| (0.0..1.0).contains(&x) };
/// Seconds or minutes; a billion stands for "never" and still fits every clock type.
pub(super) const SPAN: Bound = Bound { words: "a number from 0 to 1e9", holds: |x| (0.0..=1e9).contains(&x) };
pub(super) const POSITIVE_SPAN: Bound = Bound { words: "a number above 0, up to 1e9", holds: |x| x > 0.0 && x <= 1e9 };

/// No product of two sizes leaves 64 bits.
const LARGEST_SIZE: i64 = 1_000_000_000;
const LARGEST_SIDE: usize = 65_535;

/// One table of the configuration, absent or present.
pub(super) struct Section<'a> {
    source: &'a Source,
    path: String,
    table: Option<&'a Table>,
}

impl<'a> Section<'a> {
    /// The section at dotted `path`; one that is not written reads as empty.
    pub(super) fn at(source: &'a Source, path: &str) -> Section<'a> {
        let mut table = Some(&source.table);
        for part in path.split('.') {
            table = table.and_then(|table| table.get(part)).and_then(Value::as_table);
        }
        Section { source, path: path.to_owned(), table }
    }

    /// A table inside an array, under a path such as `network.layers[0]`.
    pub(super) fn element(source: &'a Source, path: String, table: &'a Table) -> Section<'a> {
        Section { source, path, table: Some(table) }
    }

    pub(super) fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }

    pub(super) fn raw(&self, key: &str) -> Option<&'a Value> {
        self.table?.get(key)
    }

    pub(super) fn wrong(&self, key: &str, expected: &str) -> anyhow::Error {
        let found = self.raw(key).map_or("nothing".to_owned(), describe);
        self.source.error(&self.key(key), format!("expected {expected}, found {found}"))
    }

    pub(super) fn missing(&self, key: &str, what: &str) -> anyhow::Error {
        // An array's element exists somewhere, in one file; a section may be written in several, or in none.
        if self.path.ends_with(']') {
            return self.source.error(&self.path, format!("{key} is required: {what}"));
        }
        self.source.error("", format!("{} is required: {what}", self.key(key)))
    }

    pub(super) fn number(&self, key: &str, bound: &Bound) -> Result<Option<f64>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let number = match value {
            Value::Float(number) => *number,
            Value::Integer(number) => *number as f64,
            _ => return Err(self.wrong(key, bound.words)),
        };
        if (bound.holds)(number) { Ok(Some(number)) } else { Err(self.wrong(key, bound.words)) }
    }

    /// A whole number of at least `least` without an upper limit of its own: seeds, steps, intervals.
    pub(super) fn whole(&self, key: &str, least: u64) -> Result<Option<u64>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        match value.as_integer().and_then(|number| u64::try_from(number).ok()) {
            Some(number) if number >= least => Ok(Some(number)),
            _ => Err(self.wrong(key, &format!("a whole number, {least} or more"))),
        }
    }

    /// A whole number that counts things in memory.
    pub(super) fn size(&self, key: &str, least: usize) -> Result<Option<usize>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        as_size(value, least).map(Some).ok_or_else(|| self.wrong(key, &format!("a whole number from {least} to {LARGEST_SIZE}")))
    }

    /// A number of which more than `most` can only be a slip.
    pub(super) fn count(&self, key: &str, most: usize) -> Result<Option<usize>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let count = as_size(value, 0).filter(|count| *count <= most);
        count.map(Some).ok_or_else(|| self.wrong(key, &format!("a whole number from 0 to {most}")))
    }

    /// The height and width of an image.
    pub(super) fn pair(&self, key: &str) -> Result<Option<[usize; 2]>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let sizes: Option<Vec<usize>> = value.as_array().and_then(|array| array.iter().map(|value| as_size(value, 1)).collect());
        match sizes.as_deref() {
            Some(&[height, width]) if height.max(width) <= LARGEST_SIDE => Ok(Some([height, width])),
            _ => Err(self.wrong(key, &format!("two whole numbers from 1 to {LARGEST_SIDE}, [height, width]"))),
        }
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        match self.raw(key) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "text in quotes")),
        }
    }

    /// One of the names of `T`, an enum without fields.
    pub(super) fn choice<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        self.raw(key).map(|value| self.chosen(key, value)).transpose()
    }

    pub(super) fn choices<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Vec<T>>> {
        let Some(value) = self.raw(key) else { return Ok(None) };
        let Some(array) = value.as_array() else { return Err(self.wrong(key, "an array of names, such as [\"horizontal_flip\"]")) };
        array.iter().map(|value| self.chosen(key, value)).collect::<Result<_>>().map(Some)
    }

    fn chosen<T: DeserializeOwned>(&self, key: &str, value: &Value) -> Result<T> {
        let name = value.as_str().unwrap_or_default();
        T::deserialize(StrDeserializer::<UnknownName>::new(name)).map_err(|unknown| {
            let hint = nearest(name, unknown.0).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
            let names: Vec<_> = unknown.0.iter().map(|name| format!("\"{name}\"")).collect();
            let found = describe(value);
            self.source.error(&self.key(key), format!("expected one of {}, found {found}{hint}", names.join(", ")))
        })
    }
}

fn as_size(value: &Value, least: usize) -> Option<usize> {
    let number = value.as_integer().filter(|&number| number <= LARGEST_SIZE)?;
    usize::try_from(number).ok().filter(|&number| number >= least)
}

/// The names that an enum has, taken from serde's complaint about a name that it has not.
#[derive(Debug)]
struct UnknownName(&'static [&'static str]);

impl std::fmt::Display for UnknownName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for UnknownName {}

impl serde::de::Error for UnknownName {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        UnknownName(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        UnknownName(expected)
    }
}

/// Bytes of a file's or a folder's name.
pub(super) const LONGEST_NAME: usize = 255;

/// The name of `names` most like `typed`, where one is near enough to have been meant.
pub(super) fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    // Nothing that long is like any, and the comparison takes time and memory by its square.
    let typed = Some(typed).filter(|typed| typed.len() <= LONGEST_NAME)?;
    let (distance, name) = names.iter().map(|&name| (strsim::damerau_levenshtein(typed, name), name)).min_by_key(|pair| pair.0)?;
    (distance * 5 <= name.len().max(typed.len()) * 2).then_some(name)
}

/// Characters of a value that a message shows.
const SHOWN: usize = 80;

/// A value as an error message shows it.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => {
            let (end, more) = text.char_indices().nth(SHOWN).map_or((text.len(), ""), |(end, _)| (end, "..."));
            format!("the text {:?}{more}", &text[..end])
        }
        Value::Integer(number) => format!("{number}"),
        Value::Float(_) | Value::Boolean(_) => format!("{value}"),
        Value::Datetime(date) => format!("the date {date}"),
        Value::Array(elements) if elements.iter().any(|element| element.is_table() || element.is_array()) => {
            format!("an array of {} tables or arrays", elements.len())
        }
        Value::Array(_) => quote::part(&format!("the array {value}").replace('\n', " "), SHOWN),
        Value::Table(_) => "a table".to_owned(),
    }
}
