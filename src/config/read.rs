//! A merged table becomes a [`Config`]: each value is checked by its key's row, and what is not written is the row's default.

use anyhow::Result;
use toml::{Table, Value};

use super::Purpose;
use super::schema::*;
use super::source::{Source, at, join};
use super::{combinations, unknown};
use crate::key::{Default, FINITE, Key, Kind, describe, one_of};
use crate::rules::is_built_in;

pub(super) fn read(source: &Source, purpose: Purpose) -> Result<Config> {
    // First, so that a misspelt required key is reported as misspelt, not as missing.
    unknown::refuse(source)?;
    let mut values = Table::new();
    for key in Config::keys() {
        let value = match source.value(key.path) {
            Some(value) => Some(checked(source, key.path, &key.kind, value)?),
            None => default(source, key, &values, purpose)?,
        };
        if let Some(value) = value {
            put(&mut values, key.path, value);
        }
    }
    let layers = layers(source, &values)?;
    put(&mut values, "network.layers", layers);
    own_keys(source, &mut values)?;
    let mut config: Config = values.try_into().map_err(|error| source.error("", error))?;
    if config.optimizer.cosine_epochs.is_none() && config.unused("optimizer.cosine_epochs").is_none() {
        config.optimizer.cosine_epochs = config.training.epochs.map(|epochs| epochs as f64);
    }
    if purpose == Purpose::Training && config.training.epochs.is_none() && config.training.max_steps.is_none() {
        let how = "training.epochs is required: how long to train (or training.max_steps, or both: whichever comes first)";
        return Err(source.error("", how));
    }
    combinations::check(&config).map_err(|(key, message)| source.error(key, message))?;
    Ok(config)
}

fn checked(source: &Source, path: &str, kind: &Kind, value: &Value) -> Result<Value> {
    kind.check(value).map_err(|message| source.error(path, message))?;
    Ok(value.clone())
}

/// The value of a key that is not written, after those of `values`.
fn default(source: &Source, key: &Key, values: &Table, purpose: Purpose) -> Result<Option<Value>> {
    Ok(Some(match key.default {
        Default::Absent | Default::Epochs | Default::Is(_) => return Ok(key.default_value()),
        Default::Of { path, .. } => known(values, path).clone(),
        Default::FileName => {
            let name = source.path.file_stem().unwrap_or_else(|| "run".as_ref());
            let not_text =
                || missing(source, key.path, &format!("the file's name, {name:?}, is not UTF-8 and cannot be that of the experiment"));
            checked(source, key.path, &key.kind, &Value::from(name.to_str().ok_or_else(not_text)?))?
        }
        Default::Required if purpose == Purpose::Shapes && key.path == "data.train" => Value::from(""),
        Default::Required => return Err(missing(source, key.path, key.meaning)),
    }))
}

fn missing(source: &Source, path: &str, what: &str) -> anyhow::Error {
    source.error("", format!("{path} is required: {what}"))
}

/// The layers as written, with the defaults of each layer's kind.
fn layers(source: &Source, values: &Table) -> Result<Value> {
    let layers = known(values, "network.layers").as_array().into_iter().flatten();
    layers
        .enumerate()
        .map(|(index, value)| layer(source, values, &format!("network.layers[{index}]"), value))
        .collect::<Result<_>>()
        .map(Value::Array)
}

fn layer(source: &Source, values: &Table, path: &str, written: &Value) -> Result<Value> {
    // An array's element exists somewhere, in one file; a section may be written in several, or in none.
    let missing = |key: &str, what: &str| source.error(path, format!("{key} is required: {what}"));
    let table = written.as_table().ok_or_else(|| source.error(path, format!("expected a layer, found {}", describe(written))))?;
    let kinds: Vec<&str> = Layer::KINDS.iter().map(|(kind, _)| *kind).collect();
    let kind = table.get("kind").ok_or_else(|| missing("kind", "one of \"dense\", \"local\", \"conv\", \"average_pool\", \"max_pool\""))?;
    one_of(&kinds, kind).map_err(|message| source.error(&join(path, "kind"), message))?;
    let mut layer = Table::from_iter([("kind".to_owned(), kind.clone())]);
    let (_, keys) = Layer::KINDS.iter().find(|(name, _)| kind.as_str() == Some(name)).expect("one of the kinds");
    for key in *keys {
        let value = match (table.get(key.path), key.default) {
            (Some(value), _) => Some(checked(source, &join(path, key.path), &key.kind, value)?),
            (None, Default::Absent | Default::Is(_)) => key.default_value(),
            (None, Default::Of { path, .. }) => Some(known(values, path).clone()),
            (None, _) => return Err(missing(key.path, key.meaning)),
        };
        layer.extend(value.map(|value| (key.path.to_owned(), value)));
    }
    Ok(layer.into())
}

/// What the chosen rule needs: numbers under keys of its own, and those of the common keys that it cannot do without.
fn own_keys(source: &Source, values: &mut Table) -> Result<()> {
    let rule: Rule = known(values, "learning.rule").clone().try_into().map_err(|error| source.error("learning.rule", error))?;
    for (key, meaning) in rule.own_keys() {
        let path = join("learning", key);
        let value = source.value(&path).ok_or_else(|| missing(source, &path, meaning))?;
        let value = checked(source, &path, &Kind::Number(FINITE), value)?;
        put(values, &path, value);
    }
    let fixed = known(values, "learning.inverses").as_str() == Some("fixed");
    let needed = |path: &&str| source.value(path).is_none() && !(fixed && *path == "learning.sigma");
    if let Some(path) = rule.required_keys().find(needed) {
        let meaning = Config::key(path).map_or("", |key| key.meaning);
        let rule = rule.name();
        let others = if is_built_in(rule) { format!("; biodist configs {rule} lists configurations that have it") } else { String::new() };
        return Err(source.error("", format!("{path} is required by {rule}: {meaning}{others}")));
    }
    Ok(())
}

/// The value of the key at `path`, which is required or has a default, and was put there before.
fn known<'a>(values: &'a Table, path: &str) -> &'a Value {
    at(values, path).expect("its row gives it a value")
}

/// Puts `value` at dotted `path`, in tables made on the way.
fn put(values: &mut Table, path: &str, value: Value) {
    let (sections, name) = path.rsplit_once('.').unwrap_or(("", path));
    let table = sections.split('.').fold(values, |table, section| {
        let inner = table.entry(section).or_insert_with(|| Table::new().into());
        inner.as_table_mut().expect("a section holds keys")
    });
    table.insert(name.to_owned(), value);
}
