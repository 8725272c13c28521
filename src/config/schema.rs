//! The configuration with every default filled in: what the rest of the program sees.
//!
//! Each field is declared together with the row of its key ([`crate::key`]). A value of this type has been checked on its own (ranges, required keys,
//! combinations of rule and schedule); what needs data or ranks is checked when the plan is made. Settings that a lower part of the program
//! works by are defined there.

use std::path::PathBuf;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use crate::compute::settings::{DeviceChoice as Device, KernelChoice, Precision};
use crate::exchange::settings::Settings;
pub use crate::exchange::settings::{ExchangeChoice, TransportChoice, Wire};
use crate::exit::Exit;
use crate::key::Default::{Absent, FileName, Is, Of, Required};
use crate::key::{DECAY, Key, Kind, NOT_NEGATIVE, POSITIVE_SPAN, SPAN, names_of, settings};
use crate::network::Inverses;
pub use crate::network::{LayerSpec as Layer, Output, Spec as Network};
pub use crate::rules::{BackwardWeights, ByLayer, InverseFields, Learning, RuleChoice as Rule, Schedule};

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
        let machine = [Optimizer::KEYS, Adam::KEYS, INVERSE, Training::KEYS, Parallel::KEYS];
        learning.into_iter().chain(machine).flatten()
    }

    /// The row of the key at `path`.
    pub fn key(path: &str) -> Option<&'static Key> {
        Config::keys().find(|key| key.path == path)
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

    /// Whether this network has an inverse to train under its rule.
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
        crop_padding: usize, Kind::Size(0), Is("0"), Result,
            "pixels of black border that a random crop may reach into";
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
    /// What parameters are updated by; the keys of Adam are in sections of their own.
    pub struct Optimizer in "optimizer" {
        epsilon_form: EpsilonForm, Kind::Choice(names_of::<EpsilonForm>), Is("\"standard\""), Result,
            "where Adam's epsilon stands: \"standard\" beside the corrected root, \"hat\" beside the uncorrected one, as in TensorFlow";
    }
    plus {
        /// For the forward model.
        forward: Adam,
        /// For the inverses.
        inverse: Adam
    }
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
    /// Adam (Kingma & Ba) for one of the two models.
    #[derive(Copy)]
    pub struct Adam in "optimizer.forward" {
        learning_rate: f64, Kind::Number(NOT_NEGATIVE), Required, Result, "step size of Adam, for the forward model";
        beta1: f64, Kind::Number(DECAY), Is("0.9"), Result, "decay of Adam's mean of gradients";
        beta2: f64, Kind::Number(DECAY), Is("0.999"), Result, "decay of Adam's mean of squared gradients";
        epsilon: f64, Kind::Number(NOT_NEGATIVE), Is("1e-8"), Result, "what Adam adds to the root of that mean";
    }
}

/// The same for the inverses, key by key as for the forward model where nothing is written.
const INVERSE: &[Key] = &[
    inverse("optimizer.inverse.learning_rate", &Adam::KEYS[0]),
    inverse("optimizer.inverse.beta1", &Adam::KEYS[1]),
    inverse("optimizer.inverse.beta2", &Adam::KEYS[2]),
    inverse("optimizer.inverse.epsilon", &Adam::KEYS[3]),
];

const fn inverse(path: &'static str, forward: &Key) -> Key {
    Key { path, default: Of { path: forward.path, words: "forward's" }, meaning: "the same for the inverses", ..*forward }
}

settings! {
    /// How long to train, and what is looked at and kept on the way. Intervals of 0 mean never.
    pub struct Training in "training" {
        epochs: Option<u64>, Kind::Whole(0), Absent, Course,
            "passes over the data; this or `max_steps` is required, the earlier end counts";
        max_steps: Option<u64>, Kind::Whole(0), Absent, Course,
            "steps after which training ends";
        eval_every_epochs: u64, Kind::Whole(0), Is("1"), Watching,
            "epochs between evaluations; 0: never";
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
            "what computes; a program built without libtorch computes on the CPU alone";
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
            "of products; \"tf32\" and \"bf16\" on GPUs";
        stall_timeout: f64, Kind::Number(POSITIVE_SPAN), Is("300.0"), Watching,
            "seconds without progress after which the job is ended";
        verify_every_steps: u64, Kind::Whole(0), Is("0"), Watching,
            "steps between comparisons of all ranks' parameters; 0: never";
        kernels: KernelChoice, Kind::Choice(names_of::<KernelChoice>), Is("\"auto\""), Speed,
            "of the CPU";
    }
}

impl Parallel {
    /// What the exchange between devices works by.
    pub fn exchange(&self) -> Settings {
        Settings { backend: self.backend, overlap: self.overlap, wire: self.wire, stall_timeout: self.stall_timeout }
    }
}
