//! Variants of a rule: what makes a run another method than the one that the paper gives its name to.

use super::paper::AUXILIARY_UNITS;
use crate::config::{BackwardWeights, Config, InverseFields};

/// A key without the section that goes without saying, and a value.
pub type Setting = (String, String);

pub const AUXILIARY: &str = "auxiliary_units";

/// Settings of `config`, among those that its rule uses, that are a variant of the rule: hybrid targets, a regulariser, another number of
/// auxiliary outputs, feedback weights or inverses that are not drawn by Glorot's formula, inverses with other fields.
pub fn variant(config: &Config) -> Vec<Setting> {
    let learning = &config.learning;
    let used = |key: &str| config.unused(key).is_none();
    let mut settings = Vec::new();
    if learning.hybrid != 0.0 && used("learning.hybrid") {
        settings.push(("hybrid".to_owned(), shown(&learning.hybrid.to_string())));
    }
    if learning.inverse_regularizer != 0.0 && used("learning.inverse_regularizer") {
        settings.push(("inverse_regularizer".to_owned(), shown(&learning.inverse_regularizer.to_string())));
    }
    if let Some(units) = learning.auxiliary_units.filter(|units| *units != AUXILIARY_UNITS && used("learning.auxiliary_units")) {
        settings.push((AUXILIARY.to_owned(), units.to_string()));
    }
    for (key, weights) in [("feedback_weights", learning.feedback_weights), ("inverse_weights", learning.inverse_weights)] {
        if weights == BackwardWeights::Transposed && used(&format!("learning.{key}")) {
            settings.push((key.to_owned(), "transposed".to_owned()));
        }
    }
    settings.extend(config.gains().map(|(name, gain)| (name.to_owned(), shown(&gain.to_string()))));
    if learning.inverse_fields == InverseFields::Dense && used("learning.inverse_fields") {
        settings.push(("inverse_fields".to_owned(), "dense".to_owned()));
    }
    if learning.inverse_growth > 0 && used("learning.inverse_growth") {
        settings.push(("inverse_growth".to_owned(), learning.inverse_growth.to_string()));
    }
    settings
}

/// A value of TOML as a person writes it.
pub fn shown(value: &str) -> String {
    match value.parse::<f64>() {
        Ok(number) if number != 0.0 && !(1e-5..1e6).contains(&number.abs()) => format!("{number:e}"),
        Ok(number) => number.to_string(),
        Err(_) if value == "absent" => "none".to_owned(),
        Err(_) => value.replace('"', ""),
    }
}
