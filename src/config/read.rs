//! A merged table becomes a [`Config`]: defaults, required keys, types and ranges, section by section.

use std::path::PathBuf;

use anyhow::Result;
use serde::Deserialize;

use super::Rule;
use super::schema::*;
use super::section::{DECAY, FINITE, FRACTION, LONGEST_NAME, NOT_NEGATIVE, POSITIVE_SPAN, SPAN, Section, describe};
use super::source::Source;
use super::{Purpose, combinations, keys};
use crate::rules::Setting;

pub(super) fn read(source: &Source, purpose: Purpose) -> Result<Config> {
    keys::refuse_unknown(source)?;
    let config = Config {
        experiment: experiment(source)?,
        data: data(source, purpose)?,
        network: network(source)?,
        learning: learning(source)?,
        optimizer: optimizer(source)?,
        training: training(source, purpose)?,
        parallel: parallel(source)?,
    };
    combinations::check(&config).map_err(|(key, message)| source.error(key, message))?;
    Ok(config)
}

fn experiment(source: &Source) -> Result<Experiment> {
    let section = Section::at(source, "experiment");
    let name = match section.text("name")? {
        Some(name) => name.to_owned(),
        None => match source.path.file_stem() {
            None => "run".to_owned(),
            Some(stem) => stem.to_str().map(str::to_owned).ok_or_else(|| {
                section.missing("name", &format!("the file's name, {stem:?}, is not UTF-8 and cannot be that of the experiment"))
            })?,
        },
    };
    // The name is a folder's: runs/<name>.
    if matches!(name.as_str(), "." | "..") || name.len() > LONGEST_NAME || name.contains(|c: char| c == '/' || c.is_control()) {
        return Err(section.wrong("name", "a name that a folder can have, without `/`, of at most 255 bytes"));
    }
    Ok(Experiment { name, seed: section.whole("seed", 0)?.unwrap_or(0) })
}

fn data(source: &Source, purpose: Purpose) -> Result<Data> {
    let section = Section::at(source, "data");
    let train = match section.text("train")? {
        Some(train) => PathBuf::from(train),
        None if purpose == Purpose::Shapes => PathBuf::new(),
        None => return Err(section.missing("train", "the folder that data-prep wrote")),
    };
    Ok(Data {
        train,
        test: section.text("test")?.map(PathBuf::from),
        validation: section.size("validation", 0)?.unwrap_or(0),
        batch_size: section
            .size("batch_size", 1)?
            .ok_or_else(|| section.missing("batch_size", "the samples of one step, of all ranks together"))?,
        shuffle: section.flag("shuffle")?.unwrap_or(true),
        scaling: section.choice("scaling")?.unwrap_or(Scaling::Unit),
        augment: section.choices("augment")?.unwrap_or_default(),
        crop: section.pair("crop")?,
        crop_padding: section.size("crop_padding", 0)?.unwrap_or(0),
    })
}

fn network(source: &Source) -> Result<Network> {
    let section = Section::at(source, "network");
    let layers = match section.raw("layers") {
        None => Vec::new(),
        Some(value) => {
            let array = value.as_array().ok_or_else(|| section.wrong("layers", "an array of layers, [[network.layers]]"))?;
            array
                .iter()
                .enumerate()
                .map(|(index, value)| {
                    let path = section.key(&format!("layers[{index}]"));
                    match value.as_table() {
                        Some(table) => layer(&Section::element(source, path, table)),
                        None => Err(source.error(&path, format!("expected a layer, found {}", describe(value)))),
                    }
                })
                .collect::<Result<_>>()?
        }
    };
    Ok(Network { output: section.choice("output")?.unwrap_or(Output::Softmax), layers })
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Dense,
    Local,
    Conv,
}

fn layer(section: &Section) -> Result<Layer> {
    let required = |key: &str, what: &str| section.size(key, 1)?.ok_or_else(|| section.missing(key, what));
    let stride = || Ok::<_, anyhow::Error>(section.size("stride", 1)?.unwrap_or(1));
    let kernel = || required("kernel", "the side of the receptive field");
    let channels = || required("channels", "the number of output channels");
    match section.choice("kind")?.ok_or_else(|| section.missing("kind", "\"dense\", \"local\" or \"conv\""))? {
        Kind::Dense => Ok(Layer::Dense { units: required("units", "the layer's width")? }),
        Kind::Local => Ok(Layer::Local { kernel: kernel()?, channels: channels()?, stride: stride()? }),
        Kind::Conv => Ok(Layer::Conv { kernel: kernel()?, channels: channels()?, stride: stride()? }),
    }
}

fn learning(source: &Source) -> Result<Learning> {
    let section = Section::at(source, "learning");
    let names = || Rule::names().iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let rule: Rule = section.choice("rule")?.ok_or_else(|| section.missing("rule", &format!("one of {}", names())))?;
    let own = rule.own_keys().map(|(key, meaning)| {
        let value = section.number(key, &FINITE)?.ok_or_else(|| section.missing(key, meaning))?;
        Ok((key, value))
    });
    let learning = Learning {
        rule,
        schedule: section.choice("schedule")?.unwrap_or(Schedule::Parallel),
        alpha: section.number("alpha", &NOT_NEGATIVE)?,
        sigma: section.number("sigma", &NOT_NEGATIVE)?,
        auxiliary_units: section.size("auxiliary_units", 1)?,
        hybrid: section.number("hybrid", &FRACTION)?.unwrap_or(0.0),
        feedback_weights: section.choice("feedback_weights")?.unwrap_or(BackwardWeights::Random),
        inverse_weights: section.choice("inverse_weights")?.unwrap_or(BackwardWeights::Random),
        own: own.collect::<Result<_>>()?,
    };
    let name = rule.name();
    if rule.uses(Setting::Alpha) && learning.alpha.is_none() {
        return Err(section.missing("alpha", &format!("{name} steps from the penultimate activity to its target by it")));
    }
    if rule.uses(Setting::Sigma) && learning.sigma.is_none() {
        return Err(section.missing("sigma", &format!("{name} trains its inverses with noise of this deviation")));
    }
    if rule.uses(Setting::AuxiliaryUnits) && learning.auxiliary_units.is_none() {
        return Err(section.missing("auxiliary_units", &format!("{name} has this many random features beside its output")));
    }
    Ok(learning)
}

fn optimizer(source: &Source) -> Result<Optimizer> {
    let section = Section::at(source, "optimizer");
    let forward = Section::at(source, "optimizer.forward");
    if forward.raw("learning_rate").is_none() {
        return Err(forward.missing("learning_rate", "the step size of Adam"));
    }
    let forward = adam(&forward, Adam { learning_rate: 0.0, beta1: 0.9, beta2: 0.999, epsilon: 1e-8 })?;
    Ok(Optimizer {
        epsilon_form: section.choice("epsilon_form")?.unwrap_or(EpsilonForm::Standard),
        forward,
        inverse: adam(&Section::at(source, "optimizer.inverse"), forward)?,
    })
}

fn adam(section: &Section, default: Adam) -> Result<Adam> {
    Ok(Adam {
        learning_rate: section.number("learning_rate", &NOT_NEGATIVE)?.unwrap_or(default.learning_rate),
        beta1: section.number("beta1", &DECAY)?.unwrap_or(default.beta1),
        beta2: section.number("beta2", &DECAY)?.unwrap_or(default.beta2),
        epsilon: section.number("epsilon", &NOT_NEGATIVE)?.unwrap_or(default.epsilon),
    })
}

fn training(source: &Source, purpose: Purpose) -> Result<Training> {
    let section = Section::at(source, "training");
    let (epochs, max_steps) = (section.whole("epochs", 0)?, section.whole("max_steps", 0)?);
    if epochs.is_none() && max_steps.is_none() && purpose == Purpose::Training {
        return Err(section.missing("epochs", "how long to train (or training.max_steps, or both: whichever comes first)"));
    }
    Ok(Training {
        epochs,
        max_steps,
        eval_every_epochs: section.whole("eval_every_epochs", 0)?.unwrap_or(1),
        checkpoint_every_epochs: section.whole("checkpoint_every_epochs", 0)?.unwrap_or(1),
        checkpoint_every_steps: section.whole("checkpoint_every_steps", 0)?.unwrap_or(0),
        checkpoint_every_minutes: section.number("checkpoint_every_minutes", &SPAN)?.unwrap_or(0.0),
        keep_checkpoints: section.size("keep_checkpoints", 1)?.unwrap_or(2),
        log_every_steps: section.whole("log_every_steps", 1)?.unwrap_or(50),
        diagnostics: section.flag("diagnostics")?.unwrap_or(false),
    })
}

fn parallel(source: &Source) -> Result<Parallel> {
    let section = Section::at(source, "parallel");
    Ok(Parallel {
        device: section.choice("device")?.unwrap_or(Device::Auto),
        backend: section.choice("backend")?.unwrap_or(TransportChoice::Auto),
        exchange: section.choice("exchange")?.unwrap_or(ExchangeChoice::Auto),
        overlap: section.flag("overlap")?.unwrap_or(true),
        wire: section.choice("wire")?.unwrap_or(Wire::F32),
        threads_per_rank: section.count("threads_per_rank", 1024)?.unwrap_or(0),
        precision: section.choice("precision")?.unwrap_or(Precision::F32),
        stall_timeout: section.number("stall_timeout", &POSITIVE_SPAN)?.unwrap_or(300.0),
        verify_every_steps: section.whole("verify_every_steps", 0)?.unwrap_or(0),
        kernels: section.choice("kernels")?.unwrap_or(KernelChoice::Auto),
    })
}
