//! What a configuration says of learning: `[learning]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::RuleChoice;
use crate::key::Default::{Absent, Is, Required};
use crate::key::{FRACTION, Kind, NOT_NEGATIVE, POSITIVE, names_of, settings};

settings! {
    /// How a network learns.
    pub struct Learning in "learning" {
        rule: RuleChoice, Kind::Choice(names_of::<RuleChoice>), Required, Result,
            "one of these, or one of [your own](own_rules.md)";
        schedule: Schedule, Kind::Choice(names_of::<Schedule>), Is("\"parallel\""), Result,
            "\"parallel\": forward model and inverses learn in every step; \"alternating\": in turns of an epoch, inverses first";
        alpha: Option<f64>, Kind::Number(NOT_NEGATIVE), Absent, Result,
            "step from the penultimate activity towards a lower loss, which is its target";
        sigma: Option<f64>, Kind::Number(NOT_NEGATIVE), Absent, Result,
            "deviation of the noise that inverses learn under";
        target_step: f64, Kind::Number(POSITIVE), Is("1.0"), Result,
            "of sdtp and ao_sdtp: how much of the way to the inverse of what is wanted the first target goes; 1 in the paper";
        auxiliary_units: Option<usize>, Kind::Size(1), Absent, Result,
            "random output features beside the classes";
        hybrid: f64, Kind::Number(FRACTION), Is("0.0"), Result,
            "part of back-propagation in hidden targets";
        feedback_weights: BackwardWeights, Kind::Choice(names_of::<BackwardWeights>), Is("\"random\""), Result,
            "of fa, fixed: \"random\": drawn on their own; \"transposed\": each layer's initial weights, transposed";
        inverse_weights: BackwardWeights, Kind::Choice(names_of::<BackwardWeights>), Is("\"random\""), Result,
            "what inverses begin with: \"random\": drawn on their own; \"transposed\": each layer's initial weights, transposed";
        initial: Option<PathBuf>, Kind::Text, Absent, Course,
            "a safetensors file of [parameters](reading_runs.md) to begin with, any of them by their names; the others are drawn";
    }
    plus {
        /// Keys of the rule's own.
        #[serde(flatten)]
        own: BTreeMap<String, f64>
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackwardWeights {
    /// Draws of their own.
    Random,
    /// The layer's initial weights, transposed.
    Transposed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schedule {
    Parallel,
    Alternating,
}
