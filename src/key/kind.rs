//! Which values a key takes: in words, and as a check whose refusal says what was expected and what was found.

use std::fmt;

use biodist_process::quote;
use serde::de::DeserializeOwned;
use serde::de::value::StrDeserializer;
use toml::Value;

/// The range of a real number, in words and as a test.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    words: &'static str,
    holds: fn(f64) -> bool,
}

impl Bound {
    fn takes(&self, value: &Value) -> bool {
        number(value).is_some_and(|number| (self.holds)(number) && (self.holds)(f64::from(number as f32)))
    }

    /// Whether `value` holds, and what float32 makes of it does not.
    fn is_lost(&self, value: &Value) -> bool {
        number(value).is_some_and(self.holds) && !self.takes(value)
    }
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or(value.as_integer().map(|number| number as f64))
}

pub const FINITE: Bound = Bound { words: "a finite number", holds: f64::is_finite };
pub const NOT_NEGATIVE: Bound = Bound { words: "a finite number, 0 or more", holds: |x| x.is_finite() && x >= 0.0 };
pub const POSITIVE: Bound = Bound { words: "a finite number above 0", holds: |x| x.is_finite() && x > 0.0 };
pub const FRACTION: Bound = Bound { words: "a number from 0 to 1", holds: |x| (0.0..=1.0).contains(&x) };
pub const DECAY: Bound = Bound { words: "a number from 0 to below 1", holds: |x| (0.0..1.0).contains(&x) };
/// Seconds or minutes; a billion stands for "never" and still fits every clock type.
pub const SPAN: Bound = Bound { words: "a number from 0 to 1e9", holds: |x| (0.0..=1e9).contains(&x) };
pub const POSITIVE_SPAN: Bound = Bound { words: "a number above 0, up to 1e9", holds: |x| x > 0.0 && x <= 1e9 };

/// No product of two sizes leaves 64 bits.
const LARGEST_SIZE: usize = 1_000_000_000;
const LARGEST_SIDE: usize = 65_535;
/// Bytes of a file's or a folder's name.
const LONGEST_NAME: usize = 255;
/// Characters of a value that a message shows.
const SHOWN: usize = 80;

/// The names of a choice.
type Names = fn() -> &'static [&'static str];

/// What values a key takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Flag,
    Text,
    /// Text that names a folder.
    FolderName,
    /// A whole number of at least this much, without an upper limit of its own: seeds, steps, intervals.
    Whole(u64),
    /// A whole number that counts things in memory, of at least this much.
    Size(usize),
    /// A whole number of which more than this much can only be a slip.
    Count(usize),
    Number(Bound),
    /// A number, or an array of them.
    Numbers(Bound),
    /// The height and width of an image.
    Pair,
    Choice(Names),
    Choices(Names),
    Layers,
}

impl Kind {
    /// The values in words.
    pub fn words(&self) -> String {
        match self {
            Kind::Flag => "true or false".to_owned(),
            Kind::Text => "text in quotes".to_owned(),
            Kind::FolderName => format!("a name that a folder can have, without `/`, of at most {LONGEST_NAME} bytes"),
            Kind::Whole(least) => format!("a whole number, {least} or more"),
            Kind::Size(least) => format!("a whole number from {least} to {LARGEST_SIZE}"),
            Kind::Count(most) => format!("a whole number from 0 to {most}"),
            Kind::Number(bound) => bound.words.to_owned(),
            Kind::Numbers(bound) => format!("{}, or an array of such", bound.words),
            Kind::Pair => format!("two whole numbers from 1 to {LARGEST_SIDE}, [height, width]"),
            Kind::Choice(names) => format!("one of {}", quoted(names())),
            Kind::Choices(names) => format!("an array of names, any of {}", quoted(names())),
            Kind::Layers => "an array of layers, [[network.layers]]".to_owned(),
        }
    }

    /// Refuses `value` where it is none of the kind, with what was expected and found.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let size = |least, most| as_size(value, least, most).is_some();
        let holds = match self {
            Kind::Flag => value.is_bool(),
            Kind::Text => value.as_str().is_some_and(|text| !text.is_empty()),
            Kind::FolderName => value.as_str().is_some_and(is_folder_name),
            Kind::Whole(least) => value.as_integer().and_then(|number| u64::try_from(number).ok()).is_some_and(|number| number >= *least),
            Kind::Size(least) => size(*least, LARGEST_SIZE),
            Kind::Count(most) => size(0, *most),
            Kind::Number(bound) => bound.takes(value),
            Kind::Numbers(bound) => {
                value.as_array().map_or_else(|| bound.takes(value), |array| array.iter().all(|value| bound.takes(value)))
            }
            Kind::Pair => {
                value.as_array().is_some_and(|sides| sides.len() == 2 && sides.iter().all(|side| as_size(side, 1, LARGEST_SIDE).is_some()))
            }
            Kind::Choice(names) => return one_of(names(), value),
            Kind::Choices(names) => match value.as_array() {
                Some(array) => return array.iter().try_for_each(|value| one_of(names(), value)),
                None => false,
            },
            Kind::Layers => value.is_array(),
        };
        if holds {
            return Ok(());
        }
        let rounded = match self {
            Kind::Number(bound) | Kind::Numbers(bound) => {
                value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice).iter().any(|value| bound.is_lost(value))
            }
            _ => false,
        };
        let as_float32 = if rounded { " as float32" } else { "" };
        Err(format!("expected {}{as_float32}, found {}", self.words(), describe(value)))
    }
}

/// Refuses `value` where it is none of `names`.
pub fn one_of(names: &[&str], value: &Value) -> Result<(), String> {
    let name = value.as_str().unwrap_or_default();
    if names.contains(&name) {
        return Ok(());
    }
    let hint = nearest(name, names).map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
    Err(format!("expected one of {}, found {}{hint}", quoted(names), describe(value)))
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

fn is_folder_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= LONGEST_NAME && !name.contains(|c: char| c == '/' || c.is_control())
}

/// `value` as a whole number within limits.
fn as_size(value: &Value, least: usize, most: usize) -> Option<usize> {
    let number = usize::try_from(value.as_integer()?).ok()?;
    (least..=most).contains(&number).then_some(number)
}

/// The names that `T` has, an enum without fields: taken from serde's complaint about a name that it has not.
pub fn names_of<T: DeserializeOwned>() -> &'static [&'static str] {
    match T::deserialize(StrDeserializer::<Unknown>::new("")) {
        Err(Unknown(names)) => names,
        Ok(_) => &[],
    }
}

#[derive(Debug)]
struct Unknown(&'static [&'static str]);

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

impl std::error::Error for Unknown {}

impl serde::de::Error for Unknown {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Unknown(&[])
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Unknown(expected)
    }
}

/// The name of `names` most like `typed`, where one is near enough to have been meant.
pub fn nearest<'a>(typed: &str, names: &[&'a str]) -> Option<&'a str> {
    // Nothing that long is like any, and the comparison takes time and memory by its square.
    let typed = Some(typed).filter(|typed| typed.len() <= LONGEST_NAME)?;
    let (distance, name) = names.iter().map(|&name| (strsim::damerau_levenshtein(typed, name), name)).min_by_key(|pair| pair.0)?;
    (distance * 5 <= name.len().max(typed.len()) * 2).then_some(name)
}

/// A value as an error message shows it.
pub fn describe(value: &Value) -> String {
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
