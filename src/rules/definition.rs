//! What the rest of the program needs to know of a rule.
//!
//! Configurations, checkpoints, plans and reports read a [`Definition`]; none of them knows the rules one by one. So a rule may come from
//! another crate, whose `main` hands its definitions to [`crate::cli::main`]: every command then knows them.

use std::sync::Arc;

use anyhow::Result;

use super::{Forward, Learning, Rule};
use crate::compute::Backend;
use crate::network::{Feedback, Inverses, Maps, Needs, Network};

/// A rule's name, what it needs, and how it is built.
#[derive(Debug)]
pub struct Definition {
    /// As `learning.rule` names it. The report shows it in capitals, with hyphens for underscores.
    pub name: &'static str,
    /// The layers that get a trained inverse.
    pub inverses: Inverses,
    /// The weights that errors return by, and how they change.
    pub feedback: Feedback,
    /// Keys of `[learning]` that mean something to it, beside `rule`, and `schedule` where inverses are trained.
    pub settings: &'static [Setting],
    /// Whether it trains what residual networks are made of: the keys `from`, `shortcut` and `normalization` of layers.
    pub residual: bool,
    pub build: Build,
}

/// Makes the rule, with the activities it needs, on a forward pass that is there already. Errors are the user's to read.
pub type Build = fn(&Learning, Forward, &Network, &Arc<Maps>, &mut dyn Backend) -> Result<Box<dyn Rule>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `learning.alpha`, required.
    Alpha,
    /// `learning.sigma`, required.
    Sigma,
    /// `learning.target_step`, 1 where absent.
    TargetStep,
    /// `learning.auxiliary_units`, required: fixed random features of the penultimate activity beside the output.
    AuxiliaryUnits,
    /// `learning.hybrid`, 0 where absent.
    Hybrid,
    /// `learning.modulation`, 0.005 where absent.
    Modulation,
    /// `learning.inverse_regularizer`, 0 where absent.
    InverseRegularizer,
    /// A number under a key of the rule's own, required. `meaning` ends the sentence "learning.KEY is required: ...".
    Own { key: &'static str, meaning: &'static str },
}

impl Definition {
    pub fn uses(&self, setting: Setting) -> bool {
        self.settings.contains(&setting)
    }

    /// The maps that it needs, with inverses that are trained and have their layers' own fields; `auxiliary_units` counts where it has
    /// random features beside the output.
    pub fn needs(&self, auxiliary_units: Option<usize>) -> Needs {
        let features = if self.uses(Setting::AuxiliaryUnits) { auxiliary_units.unwrap_or(0) } else { 0 };
        Needs { inverses: self.inverses, feedback: self.feedback, auxiliary_units: features, ..Needs::NONE }
    }

    /// Those of the common keys that it cannot do without, by their paths.
    pub fn required_keys(&self) -> impl Iterator<Item = &'static str> {
        self.settings.iter().filter_map(|setting| match setting {
            Setting::Alpha => Some("learning.alpha"),
            Setting::Sigma => Some("learning.sigma"),
            Setting::AuxiliaryUnits => Some("learning.auxiliary_units"),
            Setting::TargetStep | Setting::Hybrid | Setting::Modulation | Setting::InverseRegularizer | Setting::Own { .. } => None,
        })
    }

    /// Its own keys, and what they mean.
    pub fn own_keys(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.settings.iter().filter_map(|setting| match setting {
            Setting::Own { key, meaning } => Some((*key, *meaning)),
            _ => None,
        })
    }
}
