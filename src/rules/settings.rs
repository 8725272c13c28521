//! What a configuration says of learning: `[learning]`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::RuleChoice;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learning {
    pub rule: RuleChoice,
    pub schedule: Schedule,
    /// Step from the penultimate activity to its target, on the per-sample loss (dtp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Deviation of the noise that inverses are trained with (the target propagation family).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Random output features beside the softmax (ao_sdtp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auxiliary_units: Option<usize>,
    /// Weight of the back-propagated part in hidden targets, 0 to 1.
    pub hybrid: f64,
    /// What fixed feedback weights are at first, and for ever (fa).
    pub feedback_weights: BackwardWeights,
    /// What inverses begin with (the target propagation family).
    pub inverse_weights: BackwardWeights,
    /// Keys of the rule's own.
    #[serde(flatten)]
    pub own: BTreeMap<&'static str, f64>,
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
