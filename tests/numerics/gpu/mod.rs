//! The backend for GPUs, on a stand-in for one: streams and graphs, ranks, and what goes wrong. Its float64 cases are those of `reference`.

mod failures;
mod parameters;
mod ranks;
mod self_test;
pub mod stand_in;
mod steps;

use std::rc::Rc;

use biodist::config::Config;

use self::stand_in::{Early, StandIn};
use crate::support::{Learner, Samples, config};

/// Two local layers under a dense one, on images of three channels.
const LAYERS: &str = r#"network.layers=[{ kind = "local", kernel = 3, channels = 5, stride = 2 }, { kind = "local", kernel = 2, channels = 6, stride = 1 }, { kind = "dense", units = 18 }]"#;

/// Normalised layers, of few and of many positions; one whose slope comes from its argument, and that a shortcut leads to.
const NORMALIZED: &str = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 5, normalization = "batch" }, { kind = "conv", kernel = 3, channels = 5, normalization = "batch", shortcut = 0, nonlinearity = "gelu" }, { kind = "dense", units = 18, normalization = "batch", nonlinearity = "gelu" }]"#;

fn samples() -> Samples {
    Samples::random([7, 6, 3], 10, 24)
}

fn configured(overrides: &[&str]) -> Config {
    let overrides: Vec<&str> = [LAYERS, "data.batch_size=8", "optimizer.epsilon_form=hat"].iter().chain(overrides).copied().collect();
    config("flat", &overrides)
}

fn learner(config: &Config, early: Early) -> (Learner, Rc<StandIn>) {
    let gpu = Rc::new(StandIn::new(early));
    (Learner::on_stand_in(config, &samples(), gpu.clone()), gpu)
}
