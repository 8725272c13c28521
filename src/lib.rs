//! Training with biologically motivated learning rules, data-parallel, on CPUs and GPUs.
//!
//! Most people use the program, `biodist`; the library is what it is made of, and what a program with a learning rule of its own links
//! (docs/own_rules.md). A network is described by a [`network::Spec`], and its layers by the links between positions:
//!
//! ```
//! use biodist::network::{LayerSpec, Maps, Network, Nonlinearity, Output, Spec};
//! use biodist::rules::RuleChoice;
//!
//! let nonlinearity = Nonlinearity::Tanh;
//! let layers = [256, 128].map(|units| LayerSpec::dense(units, nonlinearity)).to_vec();
//! let spec = Spec { output: Output::Softmax, nonlinearity, layers };
//! let network = Network::new([28, 28, 1], 10, &spec)?;
//! assert_eq!(network.depth(), 3);
//!
//! // Forward maps, and the inverses of both layers above the first: 10 to 128 and 128 to 256 units.
//! let maps = Maps::new(&network, &RuleChoice::SDTP.needs(None));
//! let inverses = maps.all.iter().filter(|map| map.weight.name.contains("inverse"));
//! assert_eq!(inverses.map(|map| map.parameters()).sum::<usize>(), 11 * 128 + 129 * 256);
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! The folders lie on floors, and imports point down (docs/development.md):
//!
//! * [`network`]: shapes, layers, maps; [`compute`]: the arithmetic on a device; [`exchange`]: how ranks share an update;
//! * [`rules`]: which activities meet which errors; [`config`]: from TOML to checked settings; [`data`]: from shards to batches;
//! * [`learner`]: one rank's steps; [`training`]: the loop round them, checkpoints, metrics;
//! * [`plan`]: what a run will take; [`agreement`]: that ranks were given the same;
//! * [`search`], [`report`], [`commands`], [`cli`]: what a person asks for;
//! * [`observe`] and [`watch`]: what ranks are doing, and who ends a job that no longer moves.

#![deny(clippy::undocumented_unsafe_blocks)]

pub use biodist_process::exit;

pub mod agreement;
pub mod cli;
pub mod commands;
pub mod compute;
pub mod config;
pub mod cpus;
pub mod data;
pub mod exchange;
pub mod host;
pub mod job;
pub mod key;
pub mod learner;
pub mod network;
pub mod observe;
pub mod plan;
pub mod report;
pub mod rules;
pub mod search;
pub mod text;
pub mod training;
pub mod versions;
pub mod watch;
