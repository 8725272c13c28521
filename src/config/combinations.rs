//! Settings that are fine one by one and mean nothing together, and settings that the chosen rule does not use.

use super::Rule;
use super::schema::*;
use crate::network::Fields;
use crate::rules::{Feedback, Setting, definitions, own_keys};

/// Refuses what cannot be trained: the key to change, and why.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let rule = config.learning.rule;
    let name = rule.name();
    layers(&config.network.layers, rule)?;
    if config.learning.schedule == Schedule::Alternating && !config.has_inverses() {
        let why = if rule.trains_inverses() {
            format!("{name} has no inverse in a network of {} hidden layers", config.network.layers.len())
        } else {
            format!("{name} trains no inverses")
        };
        return Err(("learning.schedule", format!("nothing to alternate with: {why}; use \"parallel\"")));
    }
    if rule.trains_inverses() && !rule.uses(Setting::Hybrid) && config.learning.hybrid > 0.0 {
        let able: Vec<&str> = definitions().filter(|rule| rule.uses(Setting::Hybrid)).map(|rule| rule.name).collect();
        return Err((
            "learning.hybrid",
            format!("{name} has no difference of inverses to mix with; use hybrid = 0, or one of {}", able.join(", ")),
        ));
    }
    let inverses = config.inverses();
    if let Some(ByLayer::Each(values)) = &config.learning.sigma
        && inverses > 0
        && values.len() != inverses
    {
        let what = "expected a number, or one for each inverse, from the lowest";
        return Err(("learning.sigma", format!("{what}, of which {name} has {inverses} here; found {} numbers", values.len())));
    }
    if config.learning.inverse_weights == BackwardWeights::Transposed && config.widens_inverses() {
        let why =
            "\"transposed\" weights have the fields of their layers; use \"random\", or inverse_fields = \"own\" and inverse_growth = 0";
        return Err(("learning.inverse_weights", why.to_owned()));
    }
    crops(&config.data)?;
    if config.parallel.device == Device::Cpu && config.parallel.backend == TransportChoice::Nccl {
        return Err(("parallel.backend", "\"nccl\" joins GPUs, and parallel.device is \"cpu\"; use \"mpi\" or \"auto\"".to_owned()));
    }
    if config.parallel.device == Device::Cpu && config.parallel.wire == Wire::Bf16 {
        return Err(("parallel.wire", "\"bf16\" is for what GPUs exchange, and parallel.device is \"cpu\"; use \"f32\"".to_owned()));
    }
    if config.parallel.device == Device::Cuda && config.training.diagnostics {
        return Err((
            "training.diagnostics",
            "diagnostics are measured on the CPU alone, and parallel.device is \"cuda\"; use \"cpu\"".to_owned(),
        ));
    }
    Ok(())
}

fn layers(layers: &[Layer], rule: Rule) -> Result<(), (&'static str, String)> {
    let mut dense = None;
    for (index, layer) in layers.iter().enumerate() {
        let kind = match layer {
            Layer::Dense { .. } => {
                dense.get_or_insert(index);
                continue;
            }
            Layer::Local { .. } => "local",
            Layer::Conv { .. } => "conv",
        };
        if let Some(below) = dense {
            return Err((
                "network.layers",
                format!("layer {index} ({kind}) stands above layer {below} (dense), which leaves no image to read; put dense layers last"),
            ));
        }
        if kind == "conv" && !rule.convolutions {
            return Err((
                "network.layers",
                format!("layer {index} is conv, which rule \"{}\" cannot train; use kind = \"local\", or rule \"bp\"", rule.name()),
            ));
        }
    }
    Ok(())
}

fn crops(data: &Data) -> Result<(), (&'static str, String)> {
    let asked = |augment| data.augment.contains(&augment);
    if let Some(twice) =
        data.augment.iter().enumerate().find_map(|(index, augment)| data.augment[..index].contains(augment).then_some(augment))
    {
        return Err(("data.augment", format!("{twice:?} is named twice")));
    }
    if asked(Augment::RandomCrop) && asked(Augment::RandomResizedCrop) {
        return Err(("data.augment", "random_crop and random_resized_crop exclude each other".to_owned()));
    }
    if asked(Augment::RandomCrop) && data.crop.is_none() && data.crop_padding == 0 {
        return Err(("data.augment", "random_crop needs data.crop = [height, width], data.crop_padding, or both".to_owned()));
    }
    Ok(())
}

impl Config {
    /// Why `key` changes nothing under this configuration; None where it does.
    pub fn unused(&self, key: &str) -> Option<String> {
        reason(self, key)
    }

    /// Whether inverses read more than their layers' kernels join.
    pub fn widens_inverses(&self) -> bool {
        self.learning.needs().fields != Fields::Larger(0) && self.unused("learning.inverse_fields").is_none()
    }
}

fn reason(config: &Config, key: &str) -> Option<String> {
    let rule = config.learning.rule;
    let hidden = config.network.layers.len();
    let by_rule = |used: bool| (!used).then(|| format!("rule \"{}\" does not use it", rule.name()));
    let by_inverses = || {
        by_rule(rule.trains_inverses()).or_else(|| {
            (!config.has_inverses()).then(|| format!("\"{}\" has no inverse in a network of {hidden} hidden layers", rule.name()))
        })
    };
    let no_fields = || {
        let local = config.network.layers.iter().skip(1).any(|layer| !matches!(layer, Layer::Dense { .. }));
        (!local).then(|| "no layer with an inverse is local".to_owned())
    };
    match key {
        "learning.alpha" => {
            by_rule(rule.uses(Setting::Alpha)).or_else(|| (hidden == 0).then(|| "the network has no hidden layer".to_owned()))
        }
        "learning.target_step" => by_rule(rule.uses(Setting::TargetStep)).or_else(by_inverses),
        "learning.auxiliary_units" => by_rule(rule.uses(Setting::AuxiliaryUnits)).or_else(by_inverses),
        "learning.sigma" | "learning.schedule" | "learning.inverse_weights" => by_inverses(),
        "learning.inverse_fields" => by_inverses().or_else(no_fields),
        "learning.inverse_growth" => by_inverses().or_else(no_fields).or_else(|| {
            (config.learning.inverse_fields == InverseFields::Dense).then(|| "learning.inverse_fields is \"dense\"".to_owned())
        }),
        "learning.hybrid" => by_rule(rule.uses(Setting::Hybrid))
            .or_else(|| (hidden < 2).then(|| "hybrid targets begin below the penultimate layer, and there is none".to_owned())),
        "learning.feedback_weights" => by_rule(rule.feedback == Feedback::Layered),
        _ if key.starts_with("optimizer.inverse.") => by_inverses(),
        "data.crop_padding" => {
            (!config.data.augment.contains(&Augment::RandomCrop)).then(|| "images are padded for random_crop alone".to_owned())
        }
        "training.eval_every_epochs" => {
            (config.data.test.is_none() && config.data.validation == 0).then(|| "neither data.test nor data.validation is set".to_owned())
        }
        "training.diagnostics" if config.training.diagnostics => {
            let evaluated = config.training.eval_every_epochs > 0 && (config.data.test.is_some() || config.data.validation > 0);
            (!evaluated).then(|| "diagnostics are part of evaluations, and there are none".to_owned())
        }
        _ => {
            let own = key.strip_prefix("learning.").filter(|key| own_keys().any(|own| own == *key))?;
            by_rule(rule.own_keys().any(|(key, _)| key == own))
        }
    }
}
