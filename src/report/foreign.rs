//! Rules of other programs: a report shows their runs, though it could not train them.
//!
//! A configuration is read by what is known of its rule. Of one that only another program has, a run tells the name and the keys, which
//! is enough to read it: so before runs are read, such rules are made known by these.

use std::path::PathBuf;

use anyhow::bail;
use biodist_process::files::read_regular;
use toml::{Table, Value};

use super::history::find_or_add;
use crate::config::Config;
use crate::network::{Feedback, Inverses};
use crate::rules::{self, Definition, Setting};
use crate::training::CONFIG;

/// Makes known the rules of the runs in `folders` that are not.
pub fn make_known(folders: &[PathBuf]) {
    let mut found: Vec<(String, Vec<Setting>)> = Vec::new();
    for learning in folders.iter().filter_map(|folder| learning(&folder.join(CONFIG))) {
        let Some(name) = learning.get("rule").and_then(Value::as_str) else { continue };
        if rules::definitions().any(|rule| rule.name == name) {
            continue;
        }
        let settings: Vec<Setting> = learning.iter().filter_map(|(key, value)| setting(key, value)).collect();
        let (_, known) = find_or_add(&mut found, |(known, _)| known == name, || (name.to_owned(), settings.clone()));
        // Of a program that has changed meanwhile, what all its runs have.
        known.retain(|setting| settings.contains(setting));
    }
    let definitions = found.into_iter().map(|(name, settings)| Definition {
        name: name.leak(),
        inverses: Inverses::None,
        feedback: Feedback::None,
        settings: settings.leak(),
        residual: true,
        build: |_, _, _, _, _| bail!("only the program that has this rule can train it"),
    });
    rules::add_foreign(definitions.collect());
}

fn learning(path: &std::path::Path) -> Option<Table> {
    let text = String::from_utf8(read_regular(path).ok()?).ok()?;
    text.parse::<Table>().ok()?.remove("learning")?.as_table().cloned()
}

/// What a key of `[learning]` says that its rule uses; none of what every configuration has.
fn setting(key: &str, value: &Value) -> Option<Setting> {
    Some(match key {
        "alpha" => Setting::Alpha,
        "sigma" => Setting::Sigma,
        "auxiliary_units" => Setting::AuxiliaryUnits,
        key if Config::key(&format!("learning.{key}")).is_none() && value.as_float().is_some() => {
            Setting::Own { key: key.to_owned().leak(), meaning: "" }
        }
        _ => return None,
    })
}
