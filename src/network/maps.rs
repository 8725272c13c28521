//! Every map that a rule needs on a network: forward, inverse, feedback and auxiliary weights.
//!
//! Maps are made once, from the network and what the rule needs. Rules address them by [`MapId`]; the backend stores their parameters.

use super::{Feedback, Gains, Inverses, Map, Needs, Network, Plasticity, Pool, Role};

/// A map of [`Maps::all`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MapId(pub usize);

/// All maps of a network under a rule.
#[derive(Clone, Debug)]
pub struct Maps {
    pub all: Vec<Map>,
    /// By layer.
    pub forward: Vec<MapId>,
    /// By layer: none at the bottom, and none at the top under dtp.
    pub inverse: Vec<Option<MapId>>,
    /// By layer: `feedback` (fa) from the layer's output to its input, or `direct_feedback` (dfa) from the network's output to the layer's,
    /// which pools do not have. Of the lowest alone, from the network's output to its input (pepita).
    pub feedback: Vec<Option<MapId>>,
    pub auxiliary: Option<MapId>,
    /// By layer, where it is normalised: scale and shift, and running statistics.
    pub normalization: Vec<Option<[MapId; 2]>>,
}

impl Maps {
    /// The maps of `network` with those that a rule needs beside them.
    pub fn new(network: &Network, needs: &Needs) -> Maps {
        let Gains { forward, inverse, feedback } = needs.gains;
        let depth = network.depth();
        let top = &network.layers[depth - 1];
        let mut maps = Maps {
            all: Vec::new(),
            forward: Vec::new(),
            inverse: vec![None; depth],
            feedback: vec![None; depth],
            auxiliary: None,
            normalization: vec![None; depth],
        };
        for (index, layer) in network.layers.iter().enumerate() {
            let id = maps.add(Map { gain: forward, ..Map::forward(index, layer) });
            maps.forward.push(id);
        }
        for (index, layer) in network.layers.iter().enumerate().filter(|(_, layer)| layer.normalization().is_some()) {
            let maps_of = [(Role::Normalization, "normalization"), (Role::Statistics, "statistics")];
            maps.normalization[index] = Some(maps_of.map(|(role, name)| maps.add(Map::of_channels(index, layer, role, name))));
        }
        let with_inverse = match needs.inverses {
            Inverses::None => 0..0,
            Inverses::Hidden => 1..depth.saturating_sub(1),
            Inverses::HiddenAndOutput => 1..depth,
        };
        let auxiliary_units = needs.auxiliary_units;
        let features = auxiliary_units > 0;
        for index in with_inverse {
            let extra = if features && index == depth - 1 { auxiliary_units } else { 0 };
            let map = Map::inverse(index, &network.layers[index], extra, needs.fields, needs.inverse_plasticity);
            maps.inverse[index] = Some(maps.add(Map { gain: inverse, ..map }));
        }
        match needs.feedback {
            Feedback::None => {}
            Feedback::Layered(plasticity) => {
                for index in 1..depth {
                    let map = Map::feedback(index, &network.layers[index], plasticity);
                    maps.feedback[index] = Some(maps.add(Map { gain: feedback, ..map }));
                }
            }
            Feedback::Direct(plasticity) => {
                let weighted = |index: &usize| maps.all[maps.forward[*index].0].pool.is_none();
                for index in (0..depth - 1).filter(weighted).collect::<Vec<_>>() {
                    let map = Map::direct_feedback(index, network.layers[index].output, top.output.units(), plasticity);
                    maps.feedback[index] = Some(maps.add(Map { gain: feedback, ..map }));
                }
            }
            Feedback::Input => maps.feedback[0] = Some(maps.add(Map::input_feedback(network.input, top.output.units()))),
        }
        if features {
            maps.auxiliary = Some(maps.add(Map::auxiliary(depth - 1, top, auxiliary_units)));
        }
        maps
    }

    fn add(&mut self, map: Map) -> MapId {
        self.all.push(map);
        MapId(self.all.len() - 1)
    }

    /// Whether some have the signs of others.
    pub fn follow_signs(&self) -> bool {
        self.all.iter().any(|map| matches!(map.plasticity, Plasticity::Signs(_)))
    }

    pub fn get(&self, id: MapId) -> &Map {
        &self.all[id.0]
    }

    /// The pools on the way up that keep which place of a window won.
    pub fn max_pools(&self) -> impl Iterator<Item = &Map> {
        self.all.iter().filter(|map| map.pool == Some(Pool::Max) && map.role == Role::Forward)
    }

    /// Parameters of all maps with `role`.
    pub fn parameters(&self, role: Role) -> usize {
        self.all.iter().filter(|map| map.role == role).map(Map::parameters).sum()
    }
}
