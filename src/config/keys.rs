//! The keys that a configuration may have, and the refusal of all others.

use anyhow::Result;
use toml::{Table, Value};

use super::section::{describe, nearest};
use super::source::{Source, join};
use crate::rules;

const ADAM: &[&str] = &["learning_rate", "beta1", "beta2", "epsilon"];

/// Every section by dotted path, with its keys.
const SECTIONS: &[(&str, &[&str])] = &[
    ("experiment", &["name", "seed"]),
    ("data", &["train", "test", "validation", "batch_size", "shuffle", "scaling", "augment", "crop", "crop_padding"]),
    ("network", &["output", "layers"]),
    ("learning", &["rule", "schedule", "alpha", "sigma", "auxiliary_units", "hybrid", "feedback_weights", "inverse_weights"]),
    ("optimizer", &["epsilon_form"]),
    ("optimizer.forward", ADAM),
    ("optimizer.inverse", ADAM),
    (
        "training",
        &[
            "epochs",
            "max_steps",
            "eval_every_epochs",
            "checkpoint_every_epochs",
            "checkpoint_every_steps",
            "checkpoint_every_minutes",
            "keep_checkpoints",
            "log_every_steps",
            "diagnostics",
        ],
    ),
    (
        "parallel",
        &[
            "device",
            "backend",
            "exchange",
            "overlap",
            "wire",
            "threads_per_rank",
            "precision",
            "stall_timeout",
            "verify_every_steps",
            "kernels",
        ],
    ),
];

/// The keys of a layer, by its kind.
const LAYERS: &[(&str, &[&str])] = &[
    ("dense", &["kind", "units"]),
    ("local", &["kind", "kernel", "channels", "stride"]),
    ("conv", &["kind", "kernel", "channels", "stride"]),
];

/// Refuses the first key of `source` that means nothing, before any value is read: a misspelt required key is then
/// reported as misspelt, not as missing.
pub(super) fn refuse_unknown(source: &Source) -> Result<()> {
    check(source, "", &source.table)?;
    let layers = source.table.get("network").and_then(|network| network.get("layers")).and_then(Value::as_array);
    for (index, layer) in layers.into_iter().flatten().enumerate() {
        check_layer(source, index, layer)?;
    }
    Ok(())
}

fn check(source: &Source, path: &str, table: &Table) -> Result<()> {
    let keys = SECTIONS.iter().find(|section| section.0 == path).map_or(&[][..], |section| section.1);
    let children: Vec<&str> = SECTIONS.iter().filter_map(|section| child_of(path, section.0)).collect();
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
    let Some((kind, keys)) = table.get("kind").and_then(Value::as_str).and_then(|kind| LAYERS.iter().find(|layer| layer.0 == kind)) else {
        return Ok(());
    };
    match table.keys().find(|key| !keys.contains(&key.as_str())) {
        Some(key) => Err(source.error(&join(&path, key), format!("{} (the layer is of kind \"{kind}\")", unknown(&path, key, keys)))),
        None => Ok(()),
    }
}

/// `path`'s part in a direct child section's name: "forward" for "optimizer" and "optimizer.forward".
fn child_of<'a>(path: &str, section: &'a str) -> Option<&'a str> {
    let name = if path.is_empty() { section } else { section.strip_prefix(path)?.strip_prefix('.')? };
    (!name.contains('.')).then_some(name)
}

fn unknown(path: &str, key: &str, valid: &[&str]) -> String {
    let what = if path.is_empty() { "unknown section" } else { "unknown key" };
    let elsewhere = || SECTIONS.iter().find(|section| section.1.contains(&key)).map(|section| section.0);
    if let Some(near) = nearest(key, valid) {
        format!("{what}; did you mean `{near}`?")
    } else if let Some(section) = elsewhere() {
        format!("{what} here; `{key}` belongs in [{section}]")
    } else {
        format!("{what}; known here: {}", valid.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page names every key, and no other.
    #[test]
    fn the_page_has_every_key() {
        let page = include_str!("../../docs/configuration.md");
        let named: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let keys = SECTIONS.iter().flat_map(|(section, keys)| keys.iter().map(move |key| format!("{section}.{key}")));
        let mut keys: Vec<String> = keys.collect();
        let mut named: Vec<String> = named.into_iter().map(str::to_owned).collect();
        keys.sort();
        named.sort();
        assert_eq!(named, keys);
        assert!(LAYERS.iter().flat_map(|(_, keys)| *keys).all(|key| page.contains(key)));
    }
}
