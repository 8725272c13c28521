//! Settings that are fine one by one and mean nothing together, and settings that the chosen rule does not use.

use super::Rule;
use super::schema::*;
use crate::network::{Fields, LayerOptions, Magnitude};
use crate::rules::{Definition, Feedback, Plasticity, Setting, definitions, own_keys};

/// Refuses what cannot be trained: the key to change, and why.
pub(super) fn check(config: &Config) -> Result<(), (&'static str, String)> {
    let rule = config.learning.rule;
    let name = rule.name();
    layers(&config.network, rule)?;
    if config.learning.schedule == Schedule::Alternating && !config.has_inverses() {
        let why = if rule.has_inverses() {
            format!("{name} has no inverse in a network of {} hidden layers", config.network.layers.len())
        } else {
            format!("{name} trains no inverses")
        };
        return Err(("learning.schedule", format!("nothing to alternate with: {why}; use \"parallel\"")));
    }
    if rule.has_inverses() && !rule.uses(Setting::Hybrid) && config.learning.hybrid > 0.0 {
        let able = able(|rule| rule.uses(Setting::Hybrid));
        return Err(("learning.hybrid", format!("{name} has no difference of inverses to mix with; use hybrid = 0, or one of {able}")));
    }
    let learns = |what: &str| format!("expected a number, or one for each {what}, from the lowest");
    let layers = &config.network.layers;
    let weighted = |layer: &&Layer| !matches!(layer, Layer::AveragePool { .. } | Layer::MaxPool { .. });
    let hidden = layers.iter().filter(weighted).count();
    let with_feedback = match rule.feedback {
        Feedback::Layered(_) => layers.iter().skip(1).filter(weighted).count() + 1,
        _ => hidden,
    };
    for (key, group, what, count) in [
        ("optimizer.forward.learning_rate", &config.optimizer.forward, "layer with weights", hidden + 1),
        ("optimizer.inverse.learning_rate", &config.optimizer.inverse, "inverse", config.inverses()),
        ("optimizer.feedback.learning_rate", &config.optimizer.feedback, "layer with feedback", with_feedback),
    ] {
        if let ByLayer::Each(values) = &group.learning_rate
            && config.unused(key).is_none()
            && values.len() != count
        {
            return Err((key, format!("{}, of which there are {count}; found {} numbers", learns(what), values.len())));
        }
    }
    // What learns under noise leads down from a layer: an inverse, or wm's feedback.
    let noisy = if rule.has_inverses() { config.inverses() } else { with_feedback };
    if let Some(ByLayer::Each(values)) = &config.learning.sigma
        && rule.uses(Setting::Sigma)
        && noisy > 0
        && values.len() != noisy
    {
        let what = learns("layer that has noise below it");
        return Err(("learning.sigma", format!("{what}, of which {name} has {noisy} here; found {} numbers", values.len())));
    }
    // The numbers of noises are below 2^16; l_drl has two of a layer.
    let (iterations, most) = (config.inverse_iterations(), (1 << 15) / (config.network.layers.len() + 1));
    if iterations > most {
        return Err((
            "learning.inverse_iterations",
            format!("expected {most} or fewer, after which noise repeats itself in a network this deep; found {iterations}"),
        ));
    }
    if config.learning.inverse_weights == BackwardWeights::Transposed && config.widens_inverses() {
        let why =
            "\"transposed\" weights have the fields of their layers; use \"random\", or inverse_fields = \"own\" and inverse_growth = 0";
        return Err(("learning.inverse_weights", why.to_owned()));
    }
    if config.learning.inverse_weights == BackwardWeights::Transposed
        && config.has_inverses()
        && let Some((index, pool)) = layers.iter().enumerate().skip(1).find(|(_, layer)| !weighted(layer))
    {
        let why = format!("layer {index} is {}, which has no weights for its inverse to begin with; use \"random\"", pool.kind());
        return Err(("learning.inverse_weights", why));
    }
    crops(&config.data)?;
    let Optimizer { learning_rate_schedule, cosine_epochs, warmup_epochs, .. } = &config.optimizer;
    if *learning_rate_schedule == LearningRateSchedule::Cosine && !cosine_epochs.is_some_and(|end| end > *warmup_epochs) {
        let why = "a \"cosine\" schedule needs the epochs to its end, more than optimizer.warmup_epochs; they are training.epochs where that is \
                   given and this is not";
        return Err(("optimizer.cosine_epochs", why.to_owned()));
    }
    for (key, group) in config.optimizer.groups() {
        if group.method == OptimizerMethod::Sgd && group.nesterov && group.momentum == 0.0 {
            return Err((key, "Nesterov's look ahead is along a momentum, which is 0; give one, 0.9 for example".to_owned()));
        }
    }
    if config.learning.rule.uses(Setting::Modulation) && config.parallel.precision != Precision::F32 {
        let rule = config.learning.rule.name();
        let why =
            format!("{rule} learns from the difference of two passes, which can be smaller than what such products lose; use \"f32\"");
        return Err(("parallel.precision", why));
    }
    if config.training.diagnostics && config.learning.inverse_regularizer != 0.0 && config.unused("learning.inverse_regularizer").is_none()
    {
        let why = "they compare one update of each layer, and learning.inverse_regularizer makes it two; set one of them to its default";
        return Err(("training.diagnostics", why.to_owned()));
    }
    if config.parallel.device == Device::Cpu && config.parallel.backend == TransportChoice::Nccl {
        return Err(("parallel.backend", "\"nccl\" joins GPUs, and parallel.device is \"cpu\"; use \"mpi\" or \"auto\"".to_owned()));
    }
    if config.parallel.device == Device::Cpu && config.parallel.wire == Wire::Bf16 {
        return Err(("parallel.wire", "\"bf16\" is for what GPUs exchange, and parallel.device is \"cpu\"; use \"f32\"".to_owned()));
    }
    if config.parallel.device == Device::Cuda && config.parallel.kernels.of_cpu() {
        let why = "these are kernels of the CPU, and parallel.device is \"cuda\"; use \"auto\" for those of GPUs";
        return Err(("parallel.kernels", why.to_owned()));
    }
    if config.parallel.kernels == KernelChoice::Libtorch && config.training.diagnostics {
        return Err((
            "training.diagnostics",
            "diagnostics are measured by this program's own kernels, and parallel.kernels is \"libtorch\"; use \"auto\", or on GPUs \"cuda\""
                .to_owned(),
        ));
    }
    Ok(())
}

fn layers(network: &Network, rule: Rule) -> Result<(), (&'static str, String)> {
    if let Some(why) = network.misplaced() {
        return Err(("network.layers", why));
    }
    for (index, layer) in network.layers.iter().enumerate() {
        let LayerOptions { from, shortcut, normalization } = layer.options();
        if let Some(key) = from.map(|_| "from").or(shortcut.map(|_| "shortcut")).or(normalization.map(|_| "normalization"))
            && !rule.residual
        {
            let why = format!("layer {index} has the key {key}, which rule \"{}\" cannot train", rule.name());
            return Err(("network.layers", format!("{why}; leave it out, or use one of the rules {}", able(|rule| rule.residual))));
        }
    }
    Ok(())
}

/// The rules of which `holds`, in words.
fn able(holds: impl Fn(&Definition) -> bool) -> String {
    definitions().filter(|rule| holds(rule)).map(|rule| rule.name).collect::<Vec<_>>().join(", ")
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

    /// Gains of initial weights that have an effect and are not Glorot's, by the names of their keys.
    pub fn gains(&self) -> impl Iterator<Item = (&'static str, f64)> {
        let Learning { forward_gain, feedback_gain, inverse_gain, .. } = self.learning;
        let all = [("forward_gain", forward_gain), ("feedback_gain", feedback_gain), ("inverse_gain", inverse_gain)];
        all.into_iter().filter(|(name, gain)| *gain != 1.0 && self.unused(&format!("learning.{name}")).is_none())
    }

    /// Whether inverses read more than their layers' kernels join.
    fn widens_inverses(&self) -> bool {
        self.learning.needs().fields != Fields::Larger(0) && self.unused("learning.inverse_fields").is_none()
    }
}

/// Half the distance from 1 to the float32 below it.
const LEAST_DECAY: f64 = f32::EPSILON as f64 / 4.0;

fn reason(config: &Config, key: &str) -> Option<String> {
    let rule = config.learning.rule;
    let hidden = config.network.layers.len();
    let by_rule = |used: bool| (!used).then(|| format!("rule \"{}\" does not use it", rule.name()));
    let by_inverses = || {
        by_rule(rule.has_inverses()).or_else(|| {
            (!config.has_inverses()).then(|| format!("\"{}\" has no inverse in a network of {hidden} hidden layers", rule.name()))
        })
    };
    let by_training = || {
        let fixed = config.learning.inverses == InverseChoice::Fixed;
        by_inverses().or_else(|| fixed.then(|| "learning.inverses is \"fixed\"".to_owned()))
    };
    let by_schedule = |schedule, name: &str| {
        (config.optimizer.learning_rate_schedule != schedule).then(|| format!("optimizer.learning_rate_schedule is not \"{name}\""))
    };
    let by_method = |group: &ParameterGroup| {
        let (used, other) = match key.rsplit('.').next().unwrap_or(key) {
            "beta1" | "beta2" | "epsilon" => (group.method == OptimizerMethod::Adam, "sgd"),
            "momentum" | "nesterov" => (group.method == OptimizerMethod::Sgd, "adam"),
            "weight_decay" if group.weight_decay > 0.0 && group.learning_rate.most() * group.weight_decay < LEAST_DECAY => {
                return Some("what it takes in a step, learning rate times decay, is less than float32 can take from 1".to_owned());
            }
            _ => (true, ""),
        };
        (!used).then(|| format!("method \"{other}\" does not use it"))
    };
    let by_draw = |key: &str, weights: BackwardWeights| {
        (weights == BackwardWeights::Transposed).then(|| format!("learning.{key} is \"transposed\", and nothing is drawn"))
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
        "learning.inverses" | "learning.inverse_weights" => by_inverses(),
        "learning.inverse_gain" => by_inverses().or_else(|| by_draw("inverse_weights", config.learning.inverse_weights)),
        "learning.feedback_gain" => by_rule(matches!(rule.feedback, Feedback::Layered(_) | Feedback::Direct(_))).or_else(|| {
            let weights = reason(config, "learning.feedback_weights").is_none().then_some(config.learning.feedback_weights);
            by_draw("feedback_weights", weights.unwrap_or(BackwardWeights::Random))
        }),
        "learning.inverse_fields" => by_inverses().or_else(no_fields),
        "learning.inverse_growth" => by_inverses().or_else(no_fields).or_else(|| {
            (config.learning.inverse_fields == InverseFields::Dense).then(|| "learning.inverse_fields is \"dense\"".to_owned())
        }),
        "learning.sigma" if rule.uses(Setting::Sigma) && !rule.has_inverses() => None,
        "learning.sigma" | "learning.schedule" | "learning.inverse_iterations" => by_training(),
        "learning.label_smoothing" => (config.network.output == Output::Linear).then(|| "a linear output has no labels".to_owned()),
        "learning.hybrid" => by_rule(rule.uses(Setting::Hybrid))
            .or_else(|| (hidden < 2).then(|| "hybrid targets begin below the penultimate layer, and there is none".to_owned())),
        "learning.modulation" => by_rule(rule.uses(Setting::Modulation)),
        "learning.inverse_regularizer" => by_rule(rule.uses(Setting::InverseRegularizer))
            .or_else(by_training)
            .or_else(|| (hidden < 2).then(|| "no hidden layer has an inverse".to_owned())),
        "learning.feedback_weights" => {
            let kept = [Plasticity::Fixed, Plasticity::Trained, Plasticity::Signs(Magnitude::Fixed)];
            by_rule(kept.iter().any(|kept| rule.feedback == Feedback::Layered(*kept)))
        }
        "optimizer.step_epochs" | "optimizer.step_factor" => by_schedule(LearningRateSchedule::Step, "step"),
        "optimizer.cosine_epochs" => by_schedule(LearningRateSchedule::Cosine, "cosine"),
        _ if key.starts_with("optimizer.inverse.") => by_training().or_else(|| by_method(&config.optimizer.inverse)),
        _ if key.starts_with("optimizer.feedback.") => {
            let trained = matches!(rule.feedback, Feedback::Layered(Plasticity::Trained) | Feedback::Direct(Plasticity::Trained));
            by_rule(trained).or_else(|| by_method(&config.optimizer.feedback))
        }
        _ if key.starts_with("optimizer.forward.") => by_method(&config.optimizer.forward),
        "network.nonlinearity" => {
            let followed = config.network.layers.iter().any(|layer| layer.nonlinearity() == config.network.nonlinearity);
            (!followed).then(|| "no hidden layer goes by it".to_owned())
        }
        "data.crop_padding" => {
            (!config.data.augment.contains(&Augment::RandomCrop)).then(|| "images are padded for random_crop alone".to_owned())
        }
        "training.eval_every_epochs" | "training.eval_every_steps" => {
            (config.data.test.is_none() && config.data.validation == 0).then(|| "neither data.test nor data.validation is set".to_owned())
        }
        "training.diagnostics" if config.training.diagnostics => {
            let Training { eval_every_epochs, eval_every_steps, .. } = config.training;
            let evaluated = eval_every_epochs + eval_every_steps > 0 && (config.data.test.is_some() || config.data.validation > 0);
            (!evaluated).then(|| "diagnostics are part of evaluations, and there are none".to_owned())
        }
        _ => {
            let own = key.strip_prefix("learning.").filter(|key| own_keys().any(|own| own == *key))?;
            by_rule(rule.own_keys().any(|(key, _)| key == own))
        }
    }
}
