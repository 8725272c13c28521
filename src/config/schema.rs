//! The configuration with every default filled in: what the rest of the program sees.
//!
//! Each field is declared together with the row of its key ([`crate::key`]). A value of this type has been checked on its own (ranges, required keys,
//! combinations of rule and schedule); what needs data or ranks is checked when the plan is made. Settings that a lower part of the program
//! works by are defined there.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::compute::Buffer;
pub use crate::compute::settings::{DeviceChoice as Device, KernelChoice, Precision};
use crate::exchange::settings::Settings;
pub use crate::exchange::settings::{ExchangeChoice, TransportChoice, Wire};
use crate::exit::Exit;
use crate::key::Default::{Absent, Epochs, FileName, Is, Of, Required};
use crate::key::{DECAY, FRACTION, Key, Kind, NOT_NEGATIVE, POSITIVE_SPAN, SPAN, names_of, settings};
use crate::network::{Inverses, Role};
pub use crate::network::{LayerSpec as Layer, Nonlinearity, Output, Spec as Network};
pub use crate::rules::{BackwardWeights, ByLayer, InverseChoice, InverseFields, Learning, RuleChoice as Rule, Schedule};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// A row for each key that there is, but for those of a rule's own.
    pub fn keys() -> impl Iterator<Item = &'static Key> {
        let learning = [Experiment::KEYS, Data::KEYS, Network::KEYS, Learning::KEYS];
        let machine = [Optimizer::KEYS, ParameterGroup::KEYS, INVERSE, FEEDBACK, Training::KEYS, Parallel::KEYS];
        learning.into_iter().chain(machine).flatten()
    }

    /// The row of the key at `path`.
    pub fn key(path: &str) -> Option<&'static Key> {
        Config::keys().find(|key| key.path == path)
    }

    /// Whether this network has an inverse to train under its rule.
    pub fn trains_inverses(&self) -> bool {
        self.has_inverses() && self.learning.inverses == InverseChoice::Trained
    }

    /// The schedule in force: where nothing is trained in the inverses' epochs, every epoch trains the forward model.
    pub fn schedule(&self) -> Schedule {
        if self.trains_inverses() { self.learning.schedule } else { Schedule::Parallel }
    }

    /// Times that inverses learn from a batch.
    pub fn inverse_iterations(&self) -> usize {
        if self.trains_inverses() { self.learning.inverse_iterations } else { 1 }
    }

    /// How many inverses this network has under its rule: dtp takes the penultimate target from the gradient, so its inverses begin one
    /// layer lower.
    pub fn inverses(&self) -> usize {
        let hidden = self.network.layers.len();
        match self.learning.rule.inverses {
            Inverses::None => 0,
            Inverses::Hidden => hidden.saturating_sub(1),
            Inverses::HiddenAndOutput => hidden,
        }
    }

    /// Whether this network has inverses under its rule, trained or fixed.
    pub fn has_inverses(&self) -> bool {
        self.inverses() > 0
    }
}

settings! {
    /// What a run is called, and what its chance depends on.
    pub struct Experiment in "experiment" {
        name: String, Kind::FolderName, FileName, Place,
            "of the run; `runs/NAME` is its folder unless `--out` says otherwise";
        seed: u64, Kind::Whole(0), Is("0"), Result,
            "of initial weights, order of samples, augmentation, noise, and the validation split";
    }
}

settings! {
    /// What is learnt from.
    pub struct Data in "data" {
        train: PathBuf, Kind::Text, Required, Place,
            "a folder that `data-prep` made";
        test: Option<PathBuf>, Kind::Text, Absent, Place,
            "another one; without it nothing is evaluated on a test set";
        validation: usize, Kind::Size(0), Is("0"), Result,
            "samples of the training set, chosen by the seed, that are set apart to choose by: `best.json` names the checkpoint that does \
             best on them";
        batch_size: usize, Kind::Size(1), Required, Result,
            "samples of a step, of all ranks together; a multiple of their number";
        shuffle: bool, Kind::Flag, Is("true"), Result,
            "a new order each epoch";
        scaling: Scaling, Kind::Choice(names_of::<Scaling>), Is("\"unit\""), Result,
            "\"unit\": pixels over 255; \"standardize\": each channel with the training set's mean and deviation";
        augment: Vec<Augment>, Kind::Choices(names_of::<Augment>), Is("[]"), Result,
            "changes of images, in training alone";
        crop: Option<[usize; 2]>, Kind::Pair, Absent, Result,
            "of what the network sees: at random where \"random_crop\" is asked for, else the centre";
        crop_padding: usize, Kind::Count(65_535), Is("0"), Result,
            "pixels of black border that a random crop may reach into, fewer than its sides";
    }
}

impl Data {
    /// Samples of a step on each of `ranks` ranks.
    ///
    /// # Errors
    /// Of usage, where they do not divide the batch.
    pub fn samples_per_rank(&self, ranks: usize) -> Result<usize> {
        let batch = self.batch_size;
        if batch.is_multiple_of(ranks) {
            return Ok(batch / ranks);
        }
        let below = batch / ranks * ranks;
        let near = if below == 0 { ranks.to_string() } else { format!("{below} or {}", below + ranks) };
        Err(Exit::Usage.error(format!(
            "data.batch_size = {batch} cannot be divided among {ranks} ranks; --set data.batch_size={near}, or another number of ranks"
        )))
    }
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

settings! {
    /// What parameters are updated by; each group of them has a section of its own.
    pub struct Optimizer in "optimizer" {
        epsilon_form: EpsilonForm, Kind::Choice(names_of::<EpsilonForm>), Is("\"standard\""), Result,
            "where Adam's epsilon stands: \"standard\" beside the corrected root, \"hat\" beside the uncorrected one, as in TensorFlow";
        learning_rate_schedule: LearningRateSchedule, Kind::Choice(names_of::<LearningRateSchedule>), Is("\"constant\""), Result,
            "what all learning rates are multiplied by: \"constant\": 1; \"step\": `step_factor` more often every `step_epochs`; \
             \"cosine\": from 1 to 0 on half a cosine, step by step";
        warmup_epochs: f64, Kind::Number(SPAN), Is("0.0"), Result,
            "epochs in which learning rates rise in a straight line to what they are";
        step_epochs: u64, Kind::Whole(1), Is("30"), Result,
            "epochs from one step of a \"step\" schedule to the next";
        step_factor: f64, Kind::Number(FRACTION), Is("0.1"), Result,
            "what learning rates are multiplied by at each step of a \"step\" schedule";
        cosine_epochs: Option<f64>, Kind::Number(POSITIVE_SPAN), Epochs, Result,
            "epochs from the start to the end of a \"cosine\" schedule, the warm-up included; afterwards learning rates are 0";
    }
    plus {
        /// For the forward model.
        forward: ParameterGroup,
        /// For the inverses.
        inverse: ParameterGroup,
        /// For feedback weights that learn.
        feedback: ParameterGroup
    }
}

impl Optimizer {
    /// The group of the maps that have `role`. Fixed ones have none, and are given the forward model's.
    pub fn group(&self, role: Role) -> &ParameterGroup {
        match role {
            Role::Inverse => &self.inverse,
            Role::Feedback | Role::DirectFeedback => &self.feedback,
            Role::Forward | Role::Auxiliary | Role::Normalization | Role::Statistics => &self.forward,
        }
    }

    /// Each group, with a key to name it by.
    pub fn groups(&self) -> [(&'static str, &ParameterGroup); 3] {
        let Optimizer { forward, inverse, feedback, .. } = self;
        [("optimizer.forward.momentum", forward), ("optimizer.inverse.momentum", inverse), ("optimizer.feedback.momentum", feedback)]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    Constant,
    Step,
    Cosine,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpsilonForm {
    /// `m_hat / (sqrt(v_hat) + epsilon)`.
    Standard,
    /// `sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + epsilon)`, TensorFlow's form.
    Hat,
}

settings! {
    /// The optimiser of a group of parameters.
    pub struct ParameterGroup in "optimizer.forward" {
        learning_rate: ByLayer, Kind::Numbers(NOT_NEGATIVE), Required, Result,
            "step size, for the forward model; an array has one for each layer, from the lowest";
        method: OptimizerMethod, Kind::Choice(names_of::<OptimizerMethod>), Is("\"adam\""), Result, "what gradients become steps by";
        beta1: f64, Kind::Number(DECAY), Is("0.9"), Result, "decay of Adam's mean of gradients";
        beta2: f64, Kind::Number(DECAY), Is("0.999"), Result, "decay of Adam's mean of squared gradients";
        epsilon: f64, Kind::Number(NOT_NEGATIVE), Is("1e-8"), Result, "what Adam adds to the root of that mean";
        momentum: f64, Kind::Number(DECAY), Is("0.0"), Result, "decay of SGD's sum of gradients";
        nesterov: bool, Kind::Flag, Is("false"), Result, "whether SGD looks ahead along its momentum";
        weight_decay: f64, Kind::Number(NOT_NEGATIVE), Is("0.0"), Result,
            "decoupled: a step takes `learning_rate` times this part of each parameter away, beside what the gradient does";
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerMethod {
    Adam,
    Sgd,
}

impl ParameterGroup {
    /// Numbers for each parameter that a step needs of the step before: a sum of gradients without momentum is this step's alone.
    pub fn needed_moments(&self) -> usize {
        if self.method == OptimizerMethod::Sgd && self.momentum == 0.0 { 0 } else { self.moments().len() }
    }

    /// What a checkpoint keeps for each parameter.
    pub fn moments(&self) -> &'static [Buffer] {
        match self.method {
            OptimizerMethod::Adam => &[Buffer::FirstMoment, Buffer::SecondMoment],
            OptimizerMethod::Sgd => &[Buffer::FirstMoment],
        }
    }
}

/// The rows of another group, in which what is not written is as for the forward model.
macro_rules! group {
    ($section:literal, $meaning:literal) => {
        &[
            group!(@ $section, $meaning, "learning_rate", 0),
            group!(@ $section, $meaning, "method", 1),
            group!(@ $section, $meaning, "beta1", 2),
            group!(@ $section, $meaning, "beta2", 3),
            group!(@ $section, $meaning, "epsilon", 4),
            group!(@ $section, $meaning, "momentum", 5),
            group!(@ $section, $meaning, "nesterov", 6),
            group!(@ $section, $meaning, "weight_decay", 7),
        ]
    };
    (@ $section:literal, $meaning:literal, $name:literal, $row:literal) => {{
        let forward = &ParameterGroup::KEYS[$row];
        Key { path: concat!($section, ".", $name), default: Of { path: forward.path, words: "forward's" }, meaning: $meaning, ..*forward }
    }};
}

const INVERSE: &[Key] = group!("optimizer.inverse", "the same for the inverses");
const FEEDBACK: &[Key] = group!("optimizer.feedback", "the same for feedback weights that learn");

settings! {
    /// How long to train, and what is looked at and kept on the way. Intervals of 0 mean never.
    pub struct Training in "training" {
        epochs: Option<u64>, Kind::Whole(0), Absent, Course,
            "passes over the data; this or `max_steps` is required, the earlier end counts";
        max_steps: Option<u64>, Kind::Whole(0), Absent, Course,
            "steps after which training ends";
        eval_every_epochs: u64, Kind::Whole(0), Is("1"), Watching,
            "epochs between evaluations; 0: not by epochs";
        eval_every_steps: u64, Kind::Whole(0), Is("0"), Watching,
            "steps between evaluations, the first before any training; 0: not by steps. A report shows the last of each epoch";
        checkpoint_every_epochs: u64, Kind::Whole(0), Is("1"), Watching,
            "epochs between checkpoints, beside those of step 0 and of the end; 0: not by epochs";
        checkpoint_every_steps: u64, Kind::Whole(0), Is("0"), Watching,
            "steps between checkpoints; 0: not by steps";
        checkpoint_every_minutes: f64, Kind::Number(SPAN), Is("0.0"), Watching,
            "minutes between checkpoints; 0: not by time";
        keep_checkpoints: usize, Kind::Size(1), Is("2"), Watching,
            "how many of the newest to keep; those of step 0 and the best are kept too";
        log_every_steps: u64, Kind::Whole(1), Is("50"), Watching,
            "steps between lines of metrics";
        diagnostics: bool, Kind::Flag, Is("false"), Watching,
            "evaluations compare the rule with back-propagation, layer by layer, in `metrics.jsonl` and the report";
    }
}

settings! {
    /// What computes, and how ranks share the work.
    pub struct Parallel in "parallel" {
        device: Device, Kind::Choice(names_of::<Device>), Is("\"auto\""), Speed,
            "what computes";
        backend: TransportChoice, Kind::Choice(names_of::<TransportChoice>), Is("\"auto\""), Speed,
            "what ranks on GPUs exchange by: \"nccl\", or \"mpi\" through the hosts' memory";
        exchange: ExchangeChoice, Kind::Choice(names_of::<ExchangeChoice>), Is("\"auto\""), Speed,
            "\"activities\": factors of the updates; \"gradients\": sums of them";
        overlap: bool, Kind::Flag, Is("true"), Speed,
            "what is exchanged travels while layers still compute";
        wire: Wire, Kind::Choice(names_of::<Wire>), Is("\"f32\""), Course,
            "what tensors are rounded to on their way between ranks: \"bf16\" halves what GPUs exchange";
        threads_per_rank: usize, Kind::Count(1024), Is("0"), Speed,
            "threads that compute; 0: this rank's share of the CPUs";
        precision: Precision, Kind::Choice(names_of::<Precision>), Is("\"f32\""), Course,
            "of products, but those of passes through inverses, whose differences make targets; \"tf32\" and \"bf16\" on GPUs";
        stall_timeout: f64, Kind::Number(POSITIVE_SPAN), Is("300.0"), Watching,
            "seconds without progress after which the job is ended";
        verify_every_steps: u64, Kind::Whole(0), Is("0"), Watching,
            "steps between comparisons of all ranks' parameters; 0: never";
        kernels: KernelChoice, Kind::Choice(names_of::<KernelChoice>), Is("\"auto\""), Speed,
            "\"avx512\", \"avx2\", \"portable\": of the CPU; \"cuda\": of this program, on a GPU; \"libtorch\": of libtorch, on any device";
    }
}

impl Parallel {
    /// What the exchange between devices works by.
    pub fn exchange(&self) -> Settings {
        Settings { backend: self.backend, overlap: self.overlap, wire: self.wire, stall_timeout: self.stall_timeout }
    }
}
