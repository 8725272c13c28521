//! What travels for the update of a map whose parameters each rank has for itself.
//!
//! Of sums of gradients a rank receives its part, and then the rest of the new parameters. Of factors it receives those of the other ranks,
//! and with this program's kernels, which update a rank's part alone, new parameters as well. So what is left to compare is the factors
//! with the gradient: of the global batch, whatever the number of ranks, and less memory is where fewer bytes travel. libtorch's kernels
//! update all of a map on every rank, and no parameter travels.

use super::Transport;
use super::settings::ExchangeChoice;
use crate::compute::device::Kernels;
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
    pub fn plan(maps: &Maps, size: usize, choice: ExchangeChoice, samples: usize, kernels: Kernels) -> Vec<Sharing> {
        let of = |map: &Map| match choice {
            _ if size == 1 || !map.trained() => Sharing::None,
            ExchangeChoice::Activities => Sharing::Activities,
            ExchangeChoice::Gradients => Sharing::Gradients,
            ExchangeChoice::Auto => {
                let factors = (size - 1) * samples * (map.source.units() + map.destination.units());
                let part = (size - 1) * map.parameters() / size;
                let by_activities = factors + if kernels == Kernels::Own { part } else { 0 };
                if by_activities <= 2 * part { Sharing::Activities } else { Sharing::Gradients }
            }
        };
        maps.all.iter().map(of).collect()
    }

    /// This rank's part of the optimiser's work, and the number of parts.
    pub fn part(self, transport: &dyn Transport, kernels: Kernels) -> (usize, usize) {
        match (self, kernels) {
            (Sharing::None, _) | (Sharing::Activities, Kernels::Libtorch) => (0, 1),
            _ => (transport.rank(), transport.size()),
        }
    }
}
