//! The configuration with every default filled in: what the rest of the program sees.
//!
//! The fields are the keys of docs/configuration.md, section by section. A value of this type has been checked on its own (ranges, required keys,
//! combinations of rule and schedule); what needs data or ranks is checked when the plan is made.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Rule;
use crate::rules::Inverses;

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
pub struct Network {
    pub output: Output,
    /// Hidden layers, bottom up; the output layer is added by `output`.
    pub layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// A dense layer of the class count, softmax, cross-entropy.
    Softmax,
    /// A dense layer of the input's size, squared error against the input.
    Linear,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Layer {
    Dense { units: usize },
    Local { kernel: usize, channels: usize, stride: usize },
    Conv { kernel: usize, channels: usize, stride: usize },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Learning {
    pub rule: Rule,
    pub schedule: Schedule,
    /// Step from the penultimate activity to its target, on the per-sample loss (dtp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// Deviation of the noise that inverses are trained with (the target propagation family).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigma: Option<f64>,
    /// Random output features beside the softmax (ao_sdtp).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auxiliary_units: Option<usize>,
    /// Weight of the back-propagated part in hidden targets, 0 to 1.
    pub hybrid: f64,
    /// What fixed feedback weights are at first, and for ever (fa).
    pub feedback_weights: BackwardWeights,
    /// What inverses begin with (the target propagation family).
    pub inverse_weights: BackwardWeights,
    /// Keys of the rule's own.
    #[serde(flatten)]
    pub own: BTreeMap<&'static str, f64>,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Device {
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransportChoice {
    Auto,
    Mpi,
    Nccl,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExchangeChoice {
    Auto,
    Gradients,
    Activities,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    F32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Tf32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelChoice {
    Auto,
    Avx512,
    Avx2,
    Portable,
}
