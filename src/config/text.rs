//! TOML as tables and values. Keys such as a.b.c, each in a table of the one before, may make them deeper than the stack is, which the
//! parser does not notice: depth is looked at before anything walks through it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

/// Tables and arrays within each other; a configuration's go five deep.
const DEEPEST: usize = 32;

/// What is wrong with a text, and at which byte.
pub(crate) struct Wrong {
    pub(crate) at: usize,
    pub(crate) what: String,
}

impl Wrong {
    fn new(error: &toml::de::Error) -> Wrong {
        Wrong { at: error.span().map_or(0, |span| span.start), what: format!("not valid TOML: {}", error.message()) }
    }

    fn deep(span: Range<usize>) -> Wrong {
        Wrong { at: span.start, what: format!("tables within tables, more than {DEEPEST} deep") }
    }
}

/// A text as a table, and the same with the place of everything in it.
pub(crate) fn table(text: &str) -> Result<(DeTable<'_>, Table), Wrong> {
    let spanned = DeTable::parse(text).map_err(|error| Wrong::new(&error))?.into_inner();
    if let Some(span) = too_deep(spanned.iter().map(|(key, value)| (value.get_ref(), key.span()))) {
        // To drop it would walk through it.
        std::mem::forget(spanned);
        return Err(Wrong::deep(span));
    }
    let table = text.parse().map_err(|error| Wrong::new(&error))?;
    Ok((spanned, table))
}

/// A text as a value.
pub(crate) fn value(text: &str) -> Result<Value, Wrong> {
    let spanned = DeValue::parse(text).map_err(|error| Wrong::new(&error))?;
    if let Some(span) = too_deep([(spanned.get_ref(), spanned.span())].into_iter()) {
        std::mem::forget(spanned);
        return Err(Wrong::deep(span));
    }
    text.parse().map_err(|error| Wrong::new(&error))
}

/// Where values are too deep: the place of one of the outermost.
fn too_deep<'a>(values: impl Iterator<Item = (&'a DeValue<'a>, Range<usize>)>) -> Option<Range<usize>> {
    for (value, span) in values {
        let mut left = vec![(value, 1)];
        while let Some((value, depth)) = left.pop() {
            if depth > DEEPEST {
                return Some(span);
            }
            match value {
                DeValue::Table(inner) => left.extend(inner.values().map(|value| (value.get_ref(), depth + 1))),
                DeValue::Array(elements) => left.extend(elements.iter().map(|value| (value.get_ref(), depth + 1))),
                _ => {}
            }
        }
    }
    None
}
