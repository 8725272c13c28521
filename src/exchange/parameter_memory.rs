//! Where parameters and moments of the CPU's kernels lie: in memory of one rank, or of all ranks of a host.

use anyhow::{Context, Result};

use super::Transport;
use super::settings::ExchangeChoice;
use crate::compute::cpu::{Arena, Parameters, Sizes, spans};
use crate::network::Maps;

/// The parameters' arenas, private or shared by the ranks of a host.
pub struct ParameterMemory {
    pub weights: Arena,
    pub first: Arena,
    pub second: Arena,
    pub shared: bool,
}

impl ParameterMemory {
    /// Memory for parameters of `sizes`: one copy for all ranks of a host where they share by `activities`, else one a rank. Collective.
    pub fn new(sizes: Sizes, transport: &dyn Transport, choice: ExchangeChoice) -> Result<ParameterMemory> {
        if transport.size() > 1 && choice != ExchangeChoice::Gradients && can_share(transport) {
            let elements = [sizes.weights, sizes.moments, sizes.moments];
            // One window, all of it the first rank's: weights, then both moments.
            let mut of_ranks = vec![0; transport.local().1];
            of_ranks[0] = elements.iter().sum();
            if let Some(arenas) = transport.shared(&of_ranks)? {
                // SAFETY: the window has room for all three, one behind the other, and is mapped until release_shared.
                let at = |element: usize, len: usize| unsafe { Arena::shared(arenas[0].at(element), len) };
                return Ok(ParameterMemory {
                    weights: at(0, sizes.weights),
                    first: at(sizes.weights, sizes.moments),
                    second: at(sizes.weights + sizes.moments, sizes.moments),
                    shared: true,
                });
            }
        }
        let private = |len| Arena::new(len).context("not enough memory for the parameters");
        Ok(ParameterMemory {
            weights: private(sizes.weights)?,
            first: private(sizes.moments)?,
            second: private(sizes.moments)?,
            shared: false,
        })
    }
}

/// Whether ranks of a host may share memory: each then exchanges with the ranks of the same place on the other hosts.
fn can_share(transport: &dyn Transport) -> bool {
    if !transport.uniform() && transport.rank() == 0 {
        log::info!(
            "hosts have different numbers of ranks, or ranks do not go host by host: each rank keeps its own copy of the parameters"
        );
    }
    transport.uniform() && transport.local().1 > 1
}

/// Parameters in `memory`.
pub fn parameters(maps: &Maps, memory: ParameterMemory) -> Parameters {
    let (spans, _) = spans(maps);
    Parameters { spans, weights: memory.weights, first: memory.first, second: memory.second }
}
