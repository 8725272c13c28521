//! The refusal of keys that no row is for.

use anyhow::Result;
use toml::{Table, Value};

use super::schema::{Config, Layer};
use super::source::{Source, join};
use crate::key::{Key, describe, nearest};
use crate::rules;

/// Refuses the first key of `source` that means nothing.
pub(super) fn refuse(source: &Source) -> Result<()> {
    check(source, "", &source.table)?;
    let layers = source.value("network.layers").and_then(Value::as_array);
    for (index, layer) in layers.into_iter().flatten().enumerate() {
        check_layer(source, index, layer)?;
    }
    Ok(())
}

fn check(source: &Source, path: &str, table: &Table) -> Result<()> {
    let keys: Vec<&str> = Config::keys().filter(|key| key.section() == path).map(Key::name).collect();
    let mut children: Vec<&str> = Config::keys().filter_map(|key| child_of(path, key.section())).collect();
    children.dedup();
    // Whichever rule is chosen: a key that it does not use changes nothing, and `check` says so.
    let own: Vec<&str> = if path == "learning" { rules::own_keys().collect() } else { vec![] };
    for (key, value) in table {
        let full = join(path, key);
        if children.contains(&key.as_str()) {
            match value {
                Value::Table(inner) => check(source, &full, inner)?,
                other => return Err(source.error(&full, format!("expected a section, [{full}], found {}", describe(other)))),
            }
        } else if !keys.contains(&key.as_str()) && !own.contains(&key.as_str()) {
            let valid: Vec<&str> = keys.iter().chain(&own).chain(&children).copied().collect();
            return Err(source.error(&full, unknown(path, key, &valid)));
        }
    }
    Ok(())
}

fn check_layer(source: &Source, index: usize, layer: &Value) -> Result<()> {
    let path = format!("network.layers[{index}]");
    let Value::Table(table) = layer else {
        return Err(source.error(&path, format!("expected a table such as {{ kind = \"dense\", units = 256 }}, found {}", describe(layer))));
    };
    // A kind that is missing or wrong is reported when the layer is read.
    let kind = table.get("kind").and_then(Value::as_str);
    let Some((kind, keys)) = Layer::KINDS.iter().find(|(name, _)| kind == Some(name)) else { return Ok(()) };
    let valid: Vec<&str> = ["kind"].into_iter().chain(keys.iter().map(|key| key.path)).collect();
    match table.keys().find(|key| !valid.contains(&key.as_str())) {
        Some(key) => Err(source.error(&join(&path, key), format!("{} (the layer is of kind \"{kind}\")", unknown(&path, key, &valid)))),
        None => Ok(()),
    }
}

/// The part of `section` right below `path`: "forward" for "optimizer" and "optimizer.forward".
fn child_of<'a>(path: &str, section: &'a str) -> Option<&'a str> {
    let name = if path.is_empty() { section } else { section.strip_prefix(path)?.strip_prefix('.')? };
    name.split('.').next()
}

fn unknown(path: &str, key: &str, valid: &[&str]) -> String {
    let what = if path.is_empty() { "unknown section" } else { "unknown key" };
    if let Some(near) = nearest(key, valid) {
        format!("{what}; did you mean `{near}`?")
    } else if let Some(elsewhere) = Config::keys().find(|known| known.name() == key) {
        format!("{what} here; `{key}` belongs in [{}]", elsewhere.section())
    } else {
        format!("{what}; known here: {}", valid.join(", "))
    }
}
