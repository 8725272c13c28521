//! The learning rules: which activities meet which errors.
//!
//! A rule turns a batch into updates, each a presynaptic activity and a postsynaptic error. It sees a [`Backend`] and a network's maps, and
//! nothing of ranks, devices, or files. Adding a rule is a file here and a word in [`registry`], or a crate of one's own.
//!
//! | paper | here | hidden errors come from |
//! | --- | --- | --- |
//! | BP | [`backprop`] | transposed forward weights |
//! | FA (2.1) | [`feedback_alignment`] | fixed random transposes |
//! | KP; uSF, frSF, brSF | [`feedback_alignment`] | transposes that learn; transposes with the signs of the weights |
//! | WM | [`weight_mirror`] | transposes that learn from noise |
//! | DFA (2.1) | [`direct_feedback_alignment`] | fixed random projections of the output's error |
//! | DKP; DRTP | [`direct_feedback_alignment`] | projections that learn; fixed random projections of the label |
//! | PEPITA | [`input_modulation`] | a second pass, of an input to which the output's error is added |
//! | TP, DTP, SDTP, AO-SDTP (2.1) | [`target_propagation`], [`top_target`] | trained inverses: targets, not errors, travel down |
//! | L-DRL | [`local_difference_reconstruction`] | the same, with inverses that learn to pull back differences |

mod backprop;
mod choice;
mod definition;
mod diagnosis;
mod direct_feedback_alignment;
mod errors;
mod feedback_alignment;
mod forward;
mod input_modulation;
mod local_difference_reconstruction;
mod normalization;
mod registry;
mod settings;
mod target_propagation;
mod top_target;
mod weight_mirror;

use std::sync::Arc;

use anyhow::Result;

use crate::compute::{Activity, Backend, Update};
pub use crate::network::{Feedback, Inverses, Magnitude, Plasticity};
use crate::network::{Maps, Needs, Network};

pub use backprop::BP;
pub use choice::RuleChoice;
pub use definition::{Build, Definition, Setting};
pub use diagnosis::{Comparison, Diagnosis, Inverted};
pub use direct_feedback_alignment::{DFA, DKP, DRTP};
pub use errors::Errors;
pub use feedback_alignment::{BRSF, FA, FRSF, KP, USF};
pub use forward::Forward;
pub use input_modulation::PEPITA;
pub use local_difference_reconstruction::L_DRL;
pub use registry::{add, add_foreign, all as definitions, is_built_in, own_keys};
pub use settings::{BackwardWeights, ByLayer, InverseChoice, InverseFields, Learning, Schedule};
pub use target_propagation::{AO_SDTP, DTP, SDTP, TP};
pub use weight_mirror::WM;

/// Which of the two models learns in a step: both in parallel, or one of them in an alternating schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Both,
    Inverse,
    Forward,
}

impl Phase {
    pub fn trains_forward(self) -> bool {
        self != Phase::Inverse
    }

    pub fn trains_inverse(self) -> bool {
        self != Phase::Forward
    }
}

/// A step as a rule sees it: the arithmetic, and who takes its updates.
pub trait Step {
    fn backend(&mut self) -> &mut dyn Backend;

    /// Hands out an update as soon as both factors are final. They may travel to other ranks from then on, and must not change any more in
    /// this step; parameters change when the rule is done. Pools, which have none, are given as other layers are, and nothing becomes of it.
    ///
    /// A map may have several, one after the other: their gradients add up.
    fn update(&mut self, update: Update);

    /// The values of a dense `activity` in the samples of all ranks, in the order of the global batch: [samples, units]. Collective. Where
    /// a step is a graph they stay on the GPU, whose backend finds them there, and what is returned is empty.
    fn gather(&mut self, activity: Activity) -> Vec<f32>;

    /// How many times the inverses have learned from this batch before: noise is another one each time.
    fn iteration(&self) -> usize {
        0
    }
}

/// A step whose updates are looked at, not applied.
pub struct Collected<'a> {
    pub backend: &'a mut dyn Backend,
    pub updates: Vec<Update>,
    /// What ranks have brought together.
    pub gathered: Vec<Activity>,
    /// What all ranks have, of what one has.
    all: &'a dyn Fn(Vec<f32>) -> Vec<f32>,
}

impl<'a> Collected<'a> {
    /// Of one rank.
    pub fn on(backend: &'a mut dyn Backend) -> Collected<'a> {
        Collected::among(backend, &|own| own)
    }

    /// Of a rank among others, whose values `all` gathers.
    pub fn among(backend: &'a mut dyn Backend, all: &'a dyn Fn(Vec<f32>) -> Vec<f32>) -> Collected<'a> {
        Collected { backend, updates: Vec::new(), gathered: Vec::new(), all }
    }
}

impl Step for Collected<'_> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    fn update(&mut self, update: Update) {
        self.updates.push(update);
    }

    fn gather(&mut self, activity: Activity) -> Vec<f32> {
        self.gathered.push(activity);
        // What could not be read is no number, and found when the losses are looked at.
        (self.all)(self.backend.read_activity(activity).unwrap_or_default())
    }
}

/// A learning rule on a network. Activities it needs are made when it is built.
pub trait Rule {
    /// Hands out the updates of the backend's current batch, each map's one after the other, from the parameters as they are. Measures loss, errors, and,
    /// where inverses train, the inverse loss.
    fn learn(&self, step: &mut dyn Step, phase: Phase);

    /// The forward pass that `learn` begins with, for evaluation.
    fn forward(&self) -> &Forward;

    /// The targets of the hidden activities, from the lowest, which `learn` leaves behind where the forward model trains; empty under
    /// rules that have none.
    fn targets(&self) -> &[Activity] {
        &[]
    }

    /// The inverses that the rule trains, and the clean activities they are to invert, which `learn` leaves behind.
    fn inverted(&self) -> Vec<Inverted> {
        Vec::new()
    }
}

/// The rule that `learning` names.
pub fn build(learning: &Learning, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Result<Box<dyn Rule>> {
    let forward = Forward::new(network, maps, backend);
    (learning.rule.build)(learning, forward, network, maps, backend)
}
