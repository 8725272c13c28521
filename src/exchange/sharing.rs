//! What travels for the update of a map whose parameters each rank has for itself.

use super::Transport;
use super::settings::ExchangeChoice;
use crate::network::{Map, Maps};

/// How ranks share the update of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nothing to share: one rank, or a map that is not trained.
    None,
    Activities,
    Gradients,
}

impl Sharing {
    /// For each of `maps`, on `size` ranks of `samples` samples each: as chosen, or whichever moves fewer bytes.
    pub fn plan(maps: &Maps, size: usize, choice: ExchangeChoice, samples: usize) -> Vec<Sharing> {
        let of = |map: &Map| match choice {
            _ if size == 1 || !map.trained() => Sharing::None,
            ExchangeChoice::Activities => Sharing::Activities,
            ExchangeChoice::Gradients => Sharing::Gradients,
            ExchangeChoice::Auto => {
                // What a rank receives: the other ranks' factors; or their gradients of its part and the rest of the parameters.
                let factors = (size - 1) * samples * (map.source.units() + map.destination.units());
                let gradients = 2 * (size - 1) * map.parameters() / size;
                if factors <= gradients { Sharing::Activities } else { Sharing::Gradients }
            }
        };
        maps.all.iter().map(of).collect()
    }

    /// This rank's part of the optimiser's work, and the number of parts.
    pub fn part(self, transport: &dyn Transport) -> (usize, usize) {
        if self == Sharing::Gradients { (transport.rank(), transport.size()) } else { (0, 1) }
    }
}
