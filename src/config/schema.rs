//! The configuration with every default filled in: what the rest of the program sees.
//!
//! The fields are the keys of docs/configuration.md, section by section. A value of this type has been checked on its own (ranges, required keys,
//! combinations of rule and schedule); what needs data or ranks is checked when the plan is made. Settings that a lower part of the program
//! works by are defined there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use crate::compute::settings::{DeviceChoice as Device, KernelChoice, Precision};
use crate::exchange::settings::Settings;
pub use crate::exchange::settings::{ExchangeChoice, TransportChoice, Wire};
use crate::network::Inverses;
pub use crate::network::{LayerSpec as Layer, Output, Spec as Network};
pub use crate::rules::{BackwardWeights, Learning, RuleChoice as Rule, Schedule};

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    pub experiment: Experiment,
    pub data: Data,
    pub network: Network,
    pub learning: Learning,
    pub optimizer: Optimizer,
    pub training: Training,
    pub parallel: Parallel,
}

impl Config {
    /// Whether this network has an inverse to train under its rule: dtp takes the penultimate target from the gradient, so its
    /// inverses begin one layer lower.
    pub fn has_inverses(&self) -> bool {
        match self.learning.rule.inverses {
            Inverses::None => false,
            Inverses::Hidden => self.network.layers.len() >= 2,
            Inverses::HiddenAndOutput => !self.network.layers.is_empty(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Experiment {
    pub name: String,
    pub seed: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Data {
    pub train: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<PathBuf>,
    /// Samples set apart from the training set, chosen by the seed.
    pub validation: usize,
    /// Samples per step, of all ranks together.
    pub batch_size: usize,
    pub shuffle: bool,
    pub scaling: Scaling,
    pub augment: Vec<Augment>,
    /// Height and width after cropping; absent: the stored image as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crop: Option<[usize; 2]>,
    pub crop_padding: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scaling {
    /// x / 255.
    Unit,
    /// Per channel, with the training set's mean and population deviation.
    Standardize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    HorizontalFlip,
    VerticalFlip,
    RandomCrop,
    RandomResizedCrop,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Optimizer {
    pub epsilon_form: EpsilonForm,
    pub forward: Adam,
    pub inverse: Adam,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonForm {
    /// `m_hat / (sqrt(v_hat) + epsilon)`.
    Standard,
    /// `sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)`, TensorFlow's form.
    Hat,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Adam {
    pub learning_rate: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub epsilon: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Training {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epochs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Intervals of 0 mean never.
    pub eval_every_epochs: u64,
    pub checkpoint_every_epochs: u64,
    pub checkpoint_every_steps: u64,
    pub checkpoint_every_minutes: f64,
    pub keep_checkpoints: usize,
    pub log_every_steps: u64,
    /// Whether evaluations compare the rule with back-propagation, layer by layer.
    pub diagnostics: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Parallel {
    pub device: Device,
    pub backend: TransportChoice,
    pub exchange: ExchangeChoice,
    /// Whether what ranks exchange travels while they compute.
    pub overlap: bool,
    /// What tensors are rounded to on their way between ranks.
    pub wire: Wire,
    pub threads_per_rank: usize,
    pub precision: Precision,
    /// Seconds without progress after which the job is ended.
    pub stall_timeout: f64,
    pub verify_every_steps: u64,
    pub kernels: KernelChoice,
}

impl Parallel {
    /// What the exchange between devices works by.
    pub fn exchange(&self) -> Settings {
        Settings { backend: self.backend, overlap: self.overlap, wire: self.wire, stall_timeout: self.stall_timeout }
    }
}
