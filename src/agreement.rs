//! All ranks do the same job.
//!
//! Each rank reads its command line, its configuration and its data by itself, often from a disk of its own. A rank that was given other data
//! or another learning rate would take part without a word, and one with another log interval would wait for ever. So before the first step
//! every rank compares what it was given with what rank 0 was given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;

use crate::config::{Config, touches};
use crate::data::DataSet;
use crate::exchange::{self, Transport};
use crate::exit::Exit;
use crate::key::Touches;

/// What a rank was given: values by what they are of, in the words of an error message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(BTreeMap<String, String>);

/// Whether a key's value changes nothing that ranks do together: rank 0 alone names a run, and files are compared by what they hold.
fn of_one_rank(key: &str) -> bool {
    touches(key) == Touches::Place || ["learning.initial", "parallel.threads_per_rank"].contains(&key)
}

/// Differences that an error message lists.
const LISTED: usize = 4;

impl Facts {
    pub fn with(mut self, what: impl Into<String>, value: impl Into<String>) -> Facts {
        self.0.insert(what.into(), value.into());
        self
    }

    /// With the keys of `config` that all ranks must have alike.
    pub fn with_config(mut self, config: &Config) -> Facts {
        let settings = config.settings().into_iter().filter(|(key, _)| !of_one_rank(key));
        self.0.extend(settings);
        let given = |path: &Option<PathBuf>| if path.is_some() { "given" } else { ABSENT };
        self.with("data.test", given(&config.data.test)).with("learning.initial", given(&config.learning.initial))
    }

    /// With what `data`, the value of `key`, hold.
    pub fn with_data(self, key: &str, data: &DataSet) -> Facts {
        let trained = data.trained();
        let names = crc32fast::hash(trained.class_names.join("\0").as_bytes());
        self.with(format!("the content of {key} (checksum of its shards)"), data.fingerprint())
            .with(format!("the number of samples of {key}"), data.len().to_string())
            .with(
                "the classes of data.train (their number, checksum of their names)",
                format!("{}, {names:08x}", trained.class_names.len()),
            )
            .with("the scale of data.train (mean, deviation)", format!("{:?}, {:?}", trained.statistics.mean, trained.statistics.deviation))
            .with("the input's shape", format!("{:?}", trained.input))
    }
}

/// Compares what the ranks were given. Collective.
///
/// # Errors
/// Of usage, on all ranks alike, where they differ: names the ranks, what differs, and both values.
pub fn agree(own: &Facts, transport: &dyn Transport) -> Result<()> {
    if transport.size() == 1 {
        return Ok(());
    }
    let mut first = encode(&own.0);
    transport.broadcast(&mut first);
    let apart = differences(&decode(&first), &own.0);
    let all: Vec<BTreeMap<String, String>> = exchange::gather_bytes(&encode(&apart), transport).iter().map(|bytes| decode(bytes)).collect();
    if all.iter().all(BTreeMap::is_empty) {
        return Ok(());
    }
    Err(Exit::Usage.error(describe(&decode(&first), &all, &exchange::host_names(transport))))
}

const ABSENT: &str = "absent";

/// Every value of `own` that is not `first`'s.
fn differences(first: &BTreeMap<String, String>, own: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let value = |of: &BTreeMap<String, String>, what: &str| of.get(what).map_or(ABSENT, String::as_str).to_owned();
    let differs = |what: &&String| first.get(*what) != own.get(*what);
    first.keys().chain(own.keys()).filter(differs).map(|what| (what.clone(), value(own, what))).collect()
}

/// The message of an error: `apart` holds, by rank, what is not rank 0's.
fn describe(first: &BTreeMap<String, String>, apart: &[BTreeMap<String, String>], hosts: &[String]) -> String {
    // Ranks with the same other value are named together.
    let mut groups: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
    for (rank, differences) in apart.iter().enumerate() {
        differences.iter().for_each(|(what, value)| groups.entry((what, value)).or_default().push(rank));
    }
    let list: Vec<String> = groups
        .iter()
        .take(LISTED)
        .map(|((what, value), ranks)| {
            let theirs = first.get(*what).map_or(ABSENT, String::as_str);
            let noun = if ranks.len() == 1 { "rank" } else { "ranks" };
            let mut names: Vec<String> = ranks.iter().take(8).map(|rank| format!("{rank} (on {})", hosts[*rank])).collect();
            if ranks.len() > names.len() {
                names.push(format!("{} more", ranks.len() - names.len()));
            }
            format!("{what} is {theirs} on rank 0 (on {}) and {value} on {noun} {}", hosts[0], names.join(", "))
        })
        .collect();
    let more = if groups.len() > LISTED { format!("; and {} more", groups.len() - LISTED) } else { String::new() };
    format!("the ranks were not given the same: {}{more}; give all ranks the same program, configuration and data", list.join("; "))
}

fn encode(facts: &BTreeMap<String, String>) -> Vec<u8> {
    serde_json::to_vec(facts).expect("texts are JSON")
}

fn decode(bytes: &[u8]) -> BTreeMap<String, String> {
    serde_json::from_slice(bytes).expect("a rank sends texts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_with_the_same_other_value_are_named_together() {
        let facts = |rate: &str, seed: &str| Facts::default().with("rate", rate).with("seed", seed).0;
        let first = facts("0.1", "0");
        let own = [first.clone(), facts("0.2", "0"), facts("0.2", "0"), facts("0.1", "7")];
        let apart: Vec<_> = own.iter().map(|own| differences(&first, own)).collect();
        assert!(apart[0].is_empty());
        let hosts = ["a", "a", "b", "b"].map(str::to_owned);
        let said = describe(&first, &apart, &hosts);
        assert!(said.contains("rate is 0.1 on rank 0 (on a) and 0.2 on ranks 1 (on a), 2 (on b)"), "{said}");
        assert!(said.contains("seed is 0 on rank 0 (on a) and 7 on rank 3 (on b)"), "{said}");
    }

    #[test]
    fn what_one_side_lacks_is_a_difference() {
        let (with, without) = (Facts::default().with("alpha", "1").0, Facts::default().0);
        assert_eq!(differences(&with, &without), Facts::default().with("alpha", "absent").0);
        assert_eq!(differences(&without, &with), Facts::default().with("alpha", "1").0);
    }
}
