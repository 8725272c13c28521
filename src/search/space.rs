//! What is searched: a domain for each of some keys of the configuration.
//!
//! A value depends on the seed, the trial's number and the key alone. So any trial can be made again, in any order, and taking a key out of the
//! space leaves the values of the others as they were.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use biodist_process::files::open_regular;
use serde::Serialize;
use shards::random::{below, philox};
use toml::{Table, Value};

use crate::config::{Config, text, touches};
use crate::exit::Exit;
use crate::key::{Kind, Touches, describe};

/// The values that a key may take, and how likely they are.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// The logarithm is uniform between two numbers above 0.
    LogUniform(f64, f64),
    Uniform(f64, f64),
    /// Each as likely as the others.
    Choice(Vec<Value>),
}

/// A trial's value of each key, in the order of the space.
pub type Values = Vec<(String, Value)>;

#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// "paper", "wide", or the file.
    pub name: String,
    pub domains: Vec<(String, Domain)>,
}

/// Bytes of a file that gives a space.
const MOST_BYTES: u64 = 4 << 20;

/// Combinations of names that are looked at for keys that none of them uses: in a space with more of them no key counts as such.
const MOST_COMBINATIONS: usize = 4096;

/// How a domain is written, for messages.
const FORMS: &str = "{ log_uniform = [a, b] }, { uniform = [a, b] } or { choice = [...] }";

impl Space {
    /// The space of this name, or of this TOML file.
    ///
    /// # Errors
    /// Of usage, naming file and key, where a domain is not one.
    pub fn named(name: &str) -> Result<Space> {
        let domains = match name {
            "paper" => paper(),
            "wide" => wide(),
            file => read(Path::new(file))?,
        };
        Ok(Space { name: name.to_owned(), domains })
    }

    /// Takes out the keys that no trial uses, whatever else is drawn, and those in `typed`, which were given a value on the command line, and
    /// returns them with the reason. `load` makes `base`, with overrides.
    pub fn restrict(
        &mut self,
        base: &Config,
        typed: &BTreeSet<String>,
        load: impl Fn(&[String]) -> Result<Config>,
    ) -> Vec<(String, String)> {
        let unused = |(key, _): &(String, Domain)| Some((key.clone(), base.unused(key)?));
        let mut idle: BTreeMap<String, String> = self.domains.iter().filter_map(unused).collect();
        let combinations = self.combinations(typed);
        if combinations.len() > MOST_COMBINATIONS {
            idle.clear();
        }
        for (names, others) in combinations {
            if idle.is_empty() {
                break;
            }
            // What cannot be trained is refused later.
            let Ok(config) = load(&[others, names.clone()].concat()).or_else(|_| load(&names)) else { continue };
            idle.retain(|key, _| config.unused(key).is_some());
        }
        for key in typed {
            idle.entry(key.clone()).or_insert_with(|| "it was given".to_owned());
        }
        let out = self.domains.extract_if(.., |(key, _)| idle.contains_key(key));
        out.map(|(key, _)| (key.clone(), idle[&key].clone())).collect()
    }

    /// Every combination of values that are names, of keys that are not in `typed`: they decide which other keys are used. With each come
    /// values of the others.
    fn combinations(&self, typed: &BTreeSet<String>) -> impl ExactSizeIterator<Item = (Vec<String>, Vec<String>)> {
        let named = |key: &str| {
            let kind = Config::key(key).map(|key| key.kind);
            matches!(kind, Some(Kind::Flag | Kind::Choice(_) | Kind::Choices(_) | Kind::Layers))
        };
        let free = self.domains.iter().filter(|(key, _)| !typed.contains(key));
        let values = |(key, domain): &(String, Domain)| domain.ends().iter().map(|value| assignment(key, value)).collect();
        let (names, others): (Vec<_>, Vec<_>) = free.partition(|(key, _)| named(key));
        let names: Vec<Vec<String>> = names.into_iter().map(values).collect();
        let others: Vec<String> = others.into_iter().map(values).filter_map(|values: Vec<String>| values.last().cloned()).collect();
        let count = names.iter().fold(1_usize, |count, values| count.saturating_mul(values.len()));
        (0..count).map(move |mut number| {
            let mut digit = |values: &Vec<String>| {
                let value = values[number % values.len()].clone();
                number /= values.len();
                value
            };
            (names.iter().map(&mut digit).collect(), others.clone())
        })
    }

    /// Refuses keys that trials cannot differ in, and values that `load` (a configuration with overrides) refuses.
    pub fn check(&self, load: impl Fn(&[String]) -> Result<Config>) -> Result<()> {
        for (key, domain) in &self.domains {
            let wrong = |what: &str| Exit::Usage.error(format!("--space {}: {key}: {what}", self.name));
            // The seed decides what chance does, and the split what trials are compared on.
            if touches(key) != Touches::Result || matches!(key.as_str(), "experiment.seed" | "data.validation") {
                return Err(wrong("trials are compared with each other, so they all have the same; set it in the configuration"));
            }
            for value in domain.ends() {
                let text = assignment(key, &value);
                load(std::slice::from_ref(&text)).map_err(|error| {
                    let error = error.to_string();
                    wrong(error.strip_prefix(&format!("{text}: {key}: ")).unwrap_or(&error))
                })?;
            }
        }
        if self.domains.is_empty() {
            return Err(Exit::Usage.error(format!(
                "--space {}: no key of it is left to search: this configuration uses none, but for those that were given",
                self.name
            )));
        }
        Ok(())
    }

    /// The values of trial `trial`.
    pub fn draw(&self, seed: u64, trial: usize) -> Values {
        let draw = |(key, domain): &(String, Domain)| {
            let counter = [trial as u32, crc32fast::hash(key.as_bytes()), 0, u32::from_le_bytes(*b"swep")];
            (key.clone(), domain.at(philox(seed, counter)))
        };
        self.domains.iter().map(draw).collect()
    }
}

/// `key=value` as `--set` takes it.
pub fn assignment(key: &str, value: &Value) -> String {
    format!("{key}={value}")
}

impl Domain {
    fn at(&self, words: [u32; 4]) -> Value {
        let unit = ((u64::from(words[0]) << 21) ^ (u64::from(words[1]) >> 11)) as f64 / (1u64 << 53) as f64;
        match self {
            Domain::LogUniform(low, high) => rounded((low.ln() + unit * (high.ln() - low.ln())).exp(), *low, *high),
            Domain::Uniform(low, high) => rounded(low + unit * (high - low), *low, *high),
            Domain::Choice(values) => values[below(words[2], values.len())].clone(),
        }
    }

    /// Values that stand for all: if the configuration takes these, it takes what lies between.
    fn ends(&self) -> Vec<Value> {
        match self {
            Domain::LogUniform(low, high) | Domain::Uniform(low, high) => vec![Value::Float(*low), Value::Float(*high)],
            Domain::Choice(values) => values.clone(),
        }
    }

    /// Whether the domain holds `value`.
    pub fn contains(&self, value: &Value) -> bool {
        match (self, value) {
            (Domain::LogUniform(low, high) | Domain::Uniform(low, high), Value::Float(value)) => (low..=high).contains(&value),
            (Domain::Choice(values), value) => values.contains(value),
            _ => false,
        }
    }
}

/// Six figures: a person reads them, and logarithms of different libraries agree on them.
fn rounded(value: f64, low: f64, high: f64) -> Value {
    let value: f64 = format!("{value:.5e}").parse().expect("a number that was just written");
    Value::Float(value.clamp(low, high))
}

fn adam(model: &str, rate: Domain, beta1: &[f64], beta2: &[f64], epsilon: &[f64]) -> Vec<(String, Domain)> {
    let choice = |values: &[f64]| Domain::Choice(values.iter().copied().map(Value::Float).collect());
    [("learning_rate", rate), ("beta1", choice(beta1)), ("beta2", choice(beta2)), ("epsilon", choice(epsilon))]
        .map(|(key, domain)| (format!("optimizer.{model}.{key}"), domain))
        .into()
}

fn targets(alpha: f64, sigma: f64) -> [(String, Domain); 2] {
    [("learning.alpha".to_owned(), Domain::Uniform(0.01, alpha)), ("learning.sigma".to_owned(), Domain::Uniform(0.01, sigma))]
}

/// Table 4. It gives ranges and no distributions: learning rates are drawn by their logarithm, alpha and sigma as they are.
fn paper() -> Vec<(String, Domain)> {
    let model = |model| adam(model, Domain::LogUniform(1e-5, 3e-4), &[0.9], &[0.99, 0.999], &[1e-4, 1e-6, 1e-8]);
    [model("forward"), model("inverse"), targets(0.2, 0.3).into()].concat()
}

/// Table 4 widened until it holds every value of Table 5 as printed, the best that the paper found, a part of which lies outside.
fn wide() -> Vec<(String, Domain)> {
    let model = |model| adam(model, Domain::LogUniform(1e-5, 1e-2), &[0.9, 0.99], &[0.95, 0.99, 0.999], &[1e-3, 1e-4, 1e-6, 1e-8]);
    [model("forward"), model("inverse"), targets(0.4, 0.4).into()].concat()
}

fn read(path: &Path) -> Result<Vec<(String, Domain)>> {
    let unread = |error: &dyn Display| {
        Exit::Usage.error(format!("--space {}: neither \"paper\" nor \"wide\" nor a file that can be read: {error}", path.display()))
    };
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(|error| unread(&error))?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unread(&error))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(unread(&format_args!("it has more than {} MiB", MOST_BYTES >> 20)));
    }
    let text = String::from_utf8(bytes).map_err(|_| unread(&"it is not text in UTF-8"))?;
    let (_, table) = text::table(&text).map_err(|wrong| Exit::Usage.error(format!("{}: {}", path.display(), wrong.what)))?;
    let mut domains = Vec::new();
    walk("", &table, &mut domains).map_err(|error| Exit::Usage.error(format!("{}: {error:#}", path.display())))?;
    Ok(domains)
}

fn walk(prefix: &str, table: &Table, into: &mut Vec<(String, Domain)>) -> Result<()> {
    for (key, value) in table {
        let key = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        let Value::Table(inner) = value else { anyhow::bail!("{key}: expected a domain, {FORMS}, found {}", describe(value)) };
        match domain(inner).with_context(|| key.clone())? {
            Some(domain) => into.push((key, domain)),
            None => walk(&key, inner, into)?,
        }
    }
    Ok(())
}

/// None where `table` is a section of the configuration.
fn domain(table: &Table) -> Result<Option<Domain>> {
    let (1, Some((kind, value))) = (table.len(), table.iter().next()) else { return Ok(None) };
    let pair = || {
        let numbers: Option<Vec<f64>> = value.as_array().and_then(|array| array.iter().map(number).collect());
        let ordered = |pair: &&[f64]| pair.len() == 2 && pair[0] < pair[1] && pair.iter().all(|number| number.is_finite());
        numbers.as_deref().filter(ordered).map(|pair| (pair[0], pair[1]))
    };
    let wrong = |expected: &str| anyhow::anyhow!("{kind}: expected {expected}, found {}", describe(value));
    Ok(Some(match kind.as_str() {
        "log_uniform" => {
            let (low, high) = pair().filter(|pair| pair.0 > 0.0).ok_or_else(|| wrong("two numbers above 0 in ascending order, [a, b]"))?;
            Domain::LogUniform(low, high)
        }
        "uniform" => {
            let (low, high) = pair().ok_or_else(|| wrong("two numbers in ascending order, [a, b]"))?;
            Domain::Uniform(low, high)
        }
        "choice" => {
            let values = value.as_array().filter(|values| !values.is_empty());
            Domain::Choice(values.ok_or_else(|| wrong("an array of values"))?.clone())
        }
        _ => return Ok(None),
    }))
}

fn number(value: &Value) -> Option<f64> {
    value.as_float().or_else(|| value.as_integer().map(|number| number as f64))
}

#[cfg(test)]
mod tests;
