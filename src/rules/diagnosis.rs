//! A rule beside back-propagation, on the same batch: what is to be compared, layer by layer.
//!
//! The paper explains its results by how far a rule's updates are from the gradient (5.6), by how well inverses invert, and by how diverse
//! targets are (5.5). Here both rules run on one forward pass; measuring what they leave behind is the executor's affair, for it takes
//! all ranks' samples.

use std::sync::Arc;

use super::backprop::Backprop;
use super::{Phase, Rule, Step};
use crate::compute::{Activity, Backend, Update};
use crate::network::{MapId, Maps, Network};

/// An inverse, and what it is to invert: `g(from)` should be `original`.
#[derive(Clone, Copy, Debug)]
pub struct Inverted {
    /// Of the layer whose inverse it is, from 0.
    pub layer: usize,
    pub map: MapId,
    pub from: Activity,
    pub original: Activity,
}

/// What is to be compared in one forward layer.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// By the rule, and by back-propagation; none of a pool.
    pub updates: Option<[Update; 2]>,
    /// What the layer's inverse makes of the clean activity above it, and the activity below.
    pub reconstruction: Option<(Activity, Activity)>,
    /// The target of the layer's activity, and the activity.
    pub target: Option<(Activity, Activity)>,
}

pub struct Diagnosis {
    backprop: Backprop,
    maps: Arc<Maps>,
    reconstructions: Vec<(Inverted, Activity)>,
}

impl Diagnosis {
    /// For `rule`, whose forward pass it shares. The activities it needs are made here.
    pub fn new(rule: &dyn Rule, network: &Network, maps: &Arc<Maps>, backend: &mut dyn Backend) -> Diagnosis {
        let backprop = Backprop::new(rule.forward().with_own_errors(backend), network, backend);
        let inverted = rule.inverted().into_iter();
        let reconstructions = inverted
            .map(|inverted| (inverted, backend.activity_of(network.shape(inverted.layer), network.nonlinearity(inverted.layer))))
            .collect();
        Diagnosis { backprop, maps: maps.clone(), reconstructions }
    }

    /// Runs both rules in `step`, whose updates `taken` takes out, on the backend's batch; and the inverses on what is not corrupted. No
    /// parameter changes. By layer.
    pub fn run<S: Step>(&self, rule: &dyn Rule, step: &mut S, taken: impl Fn(&mut S) -> Vec<Update>) -> Vec<Comparison> {
        let updates_of = |rule: &dyn Rule, step: &mut S| {
            rule.learn(step, Phase::Both);
            taken(step)
        };
        let ours = updates_of(rule, step);
        for (inverted, result) in &self.reconstructions {
            step.backend().apply(inverted.map, &[(inverted.from, *result)]);
        }
        let theirs = updates_of(&self.backprop, step);
        let forward = rule.forward();
        let compare = |(layer, map): (usize, &MapId)| {
            let of = |updates: &[Update]| {
                let update = updates.iter().find(|update| update.map == *map);
                *update.expect("every rule trains every forward layer")
            };
            let reconstruction = self.reconstructions.iter().find(|(inverted, _)| inverted.layer == layer);
            Comparison {
                updates: self.maps.get(*map).pool.is_none().then(|| [of(&ours), of(&theirs)]),
                reconstruction: reconstruction.map(|(inverted, result)| (*result, inverted.original)),
                target: rule.targets().get(layer).map(|target| (*target, forward.h[layer + 1])),
            }
        };
        forward.maps.iter().enumerate().map(compare).collect()
    }
}
