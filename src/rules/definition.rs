//! What the rest of the program needs to know of a rule.
//!
//! Configurations, checkpoints, plans and reports read a [`Definition`]; none of them knows the rules one by one. So a rule may come from
//! another crate, whose `main` hands its definitions to [`crate::cli::main`]: every command then knows them.

use std::sync::{Arc, OnceLock};

use anyhow::Result;

use super::{Forward, Rule, backprop, direct_feedback_alignment, feedback_alignment, target_propagation};
use crate::compute::Backend;
use crate::config::Learning;
use crate::network::{Maps, Network};

/// A rule's name, what it needs, and how it is built.
#[derive(Debug)]
pub struct Definition {
    /// As `learning.rule` names it. The report shows it in capitals, with hyphens for underscores.
    pub name: &'static str,
    /// The layers that get a trained inverse.
    pub inverses: Inverses,
    /// The fixed random weights that errors return by.
    pub feedback: Feedback,
    /// Keys of `[learning]` that mean something to it, beside `rule`, and `schedule` where inverses are trained.
    pub settings: &'static [Setting],
    /// Whether it trains layers that share weights among positions; their gradients are the forward pass's alone.
    pub convolutions: bool,
    pub build: Build,
}

/// Makes the rule, with the activities it needs, on a forward pass that is there already. Errors are the user's to read.
pub type Build = fn(&Learning, Forward, &Network, &Arc<Maps>, &mut dyn Backend) -> Result<Box<dyn Rule>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inverses {
    None,
    /// Of hidden layers but the first, which has only the input below it.
    Hidden,
    /// Of the output layer too.
    HiddenAndOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feedback {
    None,
    /// `feedback` of each layer but the first: from its output to its input, with the layer's own sparsity.
    Layered,
    /// `direct_feedback` of each hidden layer: from the network's output to the layer's.
    Direct,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `learning.alpha`, required.
    Alpha,
    /// `learning.sigma`, required.
    Sigma,
    /// `learning.auxiliary_units`, required: fixed random features of the penultimate activity beside the output.
    AuxiliaryUnits,
    /// `learning.hybrid`, 0 where absent.
    Hybrid,
    /// A number under a key of the rule's own, required. `meaning` ends the sentence "learning.KEY is required: ...".
    Own { key: &'static str, meaning: &'static str },
}

impl Definition {
    pub fn uses(&self, setting: Setting) -> bool {
        self.settings.contains(&setting)
    }

    /// Its own keys, and what they mean.
    pub fn own_keys(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.settings.iter().filter_map(|setting| match setting {
            Setting::Own { key, meaning } => Some((*key, *meaning)),
            _ => None,
        })
    }
}

const BUILT_IN: [&Definition; 7] = [
    &backprop::BP,
    &feedback_alignment::FA,
    &direct_feedback_alignment::DFA,
    &target_propagation::TP,
    &target_propagation::DTP,
    &target_propagation::SDTP,
    &target_propagation::AO_SDTP,
];

/// Those of another crate.
static ADDED: OnceLock<&'static [&'static Definition]> = OnceLock::new();

/// Makes `rules` known beside those that are built in. Once in a process, before any configuration is read.
///
/// # Panics
/// Where rules were added before, or two have the same name.
pub fn add(rules: &'static [&'static Definition]) {
    ADDED.set(rules).expect("rules are added once");
    let names: std::collections::BTreeSet<_> = all().map(|rule| rule.name).collect();
    assert_eq!(names.len(), all().count(), "two rules have the same name");
}

/// The keys that some rule has for itself.
pub fn own_keys() -> impl Iterator<Item = &'static str> {
    all().flat_map(|rule| rule.own_keys()).map(|(key, _)| key)
}

/// Every rule that `learning.rule` may name.
pub fn all() -> impl Iterator<Item = &'static Definition> {
    BUILT_IN.into_iter().chain(ADDED.get().copied().unwrap_or_default().iter().copied())
}
