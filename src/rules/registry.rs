//! The rules that there are: those of this crate, and those that another one has added.

use std::sync::OnceLock;

use super::definition::Definition;
use super::{AO_SDTP, BP, BRSF, DFA, DKP, DRTP, DTP, FA, FRSF, KP, L_DRL, PEPITA, SDTP, TP, USF, WM};

/// Those of the paper, then those that came after it.
const BUILT_IN: [&Definition; 16] =
    [&BP, &FA, &DFA, &TP, &DTP, &SDTP, &AO_SDTP, &KP, &USF, &FRSF, &BRSF, &WM, &DKP, &DRTP, &PEPITA, &L_DRL];

/// Those of another crate.
static ADDED: OnceLock<&'static [&'static Definition]> = OnceLock::new();
/// Those that runs were trained by, and this program has not.
static FOREIGN: OnceLock<Vec<&'static Definition>> = OnceLock::new();

/// Makes `rules` known beside those that are built in. Once in a process, before any configuration is read.
///
/// # Panics
/// Where rules were added before, or two have the same name.
pub fn add(rules: &'static [&'static Definition]) {
    ADDED.set(rules).expect("rules are added once");
    let names: std::collections::BTreeSet<_> = all().map(|rule| rule.name).collect();
    assert_eq!(names.len(), all().count(), "two rules have the same name");
}

/// Makes rules known that a report shows, and only other programs can train; once in a process.
pub fn add_foreign(rules: Vec<Definition>) {
    let rules: Vec<&'static Definition> = rules.into_iter().map(|rule| &*Box::leak(Box::new(rule))).collect();
    FOREIGN.set(rules).expect("a program makes one report");
}

/// Whether the rule of this name comes with the project.
pub fn is_built_in(name: &str) -> bool {
    BUILT_IN.iter().any(|rule| rule.name == name)
}

/// The keys that some rule has for itself.
pub fn own_keys() -> impl Iterator<Item = &'static str> {
    all().flat_map(|rule| rule.own_keys()).map(|(key, _)| key)
}

/// Every rule that `learning.rule` may name.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    let foreign = FOREIGN.get().map(Vec::as_slice).unwrap_or_default();
    BUILT_IN.into_iter().chain(ADDED.get().copied().unwrap_or_default().iter().copied()).chain(foreign.iter().copied())
}
