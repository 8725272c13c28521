//! What a configuration says of learning: `[learning]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Needs, Phase, Plasticity, RuleChoice};
use crate::key::Default::{Absent, Is, Required};
use crate::key::{DECAY, FRACTION, Kind, NOT_NEGATIVE, POSITIVE, names_of, settings};
use crate::network::{Fields, Gains};

settings! {
    /// How a network learns.
    pub struct Learning in "learning" {
        rule: RuleChoice, Kind::Choice(names_of::<RuleChoice>), Required, Result,
            "one of these, or one of [your own](own_rules.md)";
        schedule: Schedule, Kind::Choice(names_of::<Schedule>), Is("\"parallel\""), Result,
            "\"parallel\": forward model and inverses learn in every step; \"alternating\": in turns of an epoch, inverses first, and as \"parallel\" where these are fixed";
        alpha: Option<f64>, Kind::Number(NOT_NEGATIVE), Absent, Result,
            "step from the penultimate activity towards a lower loss, which is its target";
        sigma: Option<ByLayer>, Kind::Numbers(NOT_NEGATIVE), Absent, Result,
            "deviation of the noise that inverses learn under, or that wm shows to layers; an array has one for each inverse, or mirror, from the \
             lowest";
        target_step: f64, Kind::Number(NOT_NEGATIVE), Is("1.0"), Result,
            "s in the first target of sdtp and ao_sdtp, `h + s (g(y) - g(h_L))`, 1 in the paper; of l_drl, whose first target is that of the output: how \
             much of the error it takes away; 0 as a control";
        inverse_iterations: usize, Kind::Size(1), Is("1"), Result,
            "times that inverses learn from a batch, each time under other noise; the last time is the forward model's too";
        inverses: InverseChoice, Kind::Choice(names_of::<InverseChoice>), Is("\"trained\""), Result,
            "\"fixed\": inverses stay as they began, so that there is no noise to pass through, and less to compute";
        auxiliary_units: Option<usize>, Kind::Size(1), Absent, Result,
            "random output features beside the classes";
        hybrid: f64, Kind::Number(FRACTION), Is("0.0"), Result,
            "part of back-propagation in hidden targets";
        modulation: f64, Kind::Number(POSITIVE), Is("0.005"), Result,
            "of pepita: what the output's error, brought back to the input, is multiplied with before it is added; 0.05 in its authors' program";
        inverse_regularizer: f64, Kind::Number(NOT_NEGATIVE), Is("0.0"), Result,
            "what part of the losses of hidden layers' inverses the layers learn to make small, beside their own";
        label_smoothing: f64, Kind::Number(DECAY), Is("0.0"), Result,
            "part of a label that is spread over all classes, in errors and targets; the loss that is measured has the label itself";
        feedback_weights: BackwardWeights, Kind::Choice(names_of::<BackwardWeights>), Is("\"random\""), Result,
            "what the feedback of fa, kp and wm, and the magnitudes of frsf, begin with: \"random\": drawn on their own; \"transposed\": each layer's initial weights, transposed";
        inverse_weights: BackwardWeights, Kind::Choice(names_of::<BackwardWeights>), Is("\"random\""), Result,
            "what inverses begin with: \"random\": drawn on their own; \"transposed\": each layer's initial weights, transposed";
        forward_gain: f64, Kind::Number(NOT_NEGATIVE), Is("1.0"), Result,
            "what multiplies the initial weights of layers, which are Glorot's at 1; 1.414 gives He's to relu layers of equal fans";
        feedback_gain: f64, Kind::Number(NOT_NEGATIVE), Is("1.0"), Result,
            "the same of feedback weights that are drawn, and of usf's magnitudes; pepita's projection has modulation for it";
        inverse_gain: f64, Kind::Number(NOT_NEGATIVE), Is("1.0"), Result,
            "the same of inverses that are drawn";
        inverse_fields: InverseFields, Kind::Choice(names_of::<InverseFields>), Is("\"own\""), Result,
            "what inverses of local layers read: \"own\": what their layer's kernel joins, \"dense\": all units of the layer";
        inverse_growth: usize, Kind::Count(MOST_GROWTH), Is("0"), Result,
            "by how much the sides of \"own\" fields are larger than their layer's kernel";
        initial: Option<PathBuf>, Kind::Text, Absent, Course,
            "a safetensors file of [parameters](reading_runs.md) to begin with, any of them by their names; the others are drawn";
    }
    plus {
        /// Keys of the rule's own.
        #[serde(flatten)]
        own: BTreeMap<String, f64>
    }
}

/// A number for all layers that it is about, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ByLayer {
    All(f64),
    /// From the lowest.
    Each(Vec<f64>),
}

impl ByLayer {
    /// Of the layer that is the `index`th, from 0; there is one for each, which reading a configuration makes sure of.
    pub fn at(&self, index: usize) -> f64 {
        match self {
            ByLayer::All(value) => *value,
            ByLayer::Each(values) => values[index],
        }
    }

    /// The largest.
    pub fn most(&self) -> f64 {
        match self {
            ByLayer::All(value) => *value,
            ByLayer::Each(values) => values.iter().copied().fold(0.0, f64::max),
        }
    }
}

/// Positions; more can only be a slip.
const MOST_GROWTH: usize = 256;

impl Learning {
    /// The deviation of the noise that inverses learn under; none where they are fixed.
    ///
    /// # Errors
    /// Where it is not given.
    pub fn noise(&self) -> Result<Option<&ByLayer>> {
        match self.inverses {
            InverseChoice::Fixed => Ok(None),
            InverseChoice::Trained => {
                self.sigma.as_ref().with_context(|| format!("learning.sigma is needed by {}", self.rule.name())).map(Some)
            }
        }
    }

    /// The maps that the rule needs as it is set.
    pub fn needs(&self) -> Needs {
        let fields = match self.inverse_fields {
            InverseFields::Own => Fields::Larger(self.inverse_growth),
            InverseFields::Dense => Fields::Dense,
        };
        let inverse_plasticity = if self.inverses == InverseChoice::Fixed { Plasticity::Fixed } else { Plasticity::Trained };
        let gains = Gains { forward: self.forward_gain, inverse: self.inverse_gain, feedback: self.feedback_gain };
        Needs { inverse_plasticity, fields, gains, ..self.rule.needs(self.auxiliary_units) }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InverseChoice {
    Trained,
    Fixed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InverseFields {
    /// The layer's own, or larger ones about the same positions.
    Own,
    Dense,
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

impl Schedule {
    /// What learns in turn.
    pub fn phases(self) -> &'static [Phase] {
        match self {
            Schedule::Parallel => &[Phase::Both],
            Schedule::Alternating => &[Phase::Inverse, Phase::Forward],
        }
    }
}
