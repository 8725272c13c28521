//! How ranks share an update.
//!
//! Every parameter has one owner, the rank that applies Adam to it; owners' ranges follow the order of memory, in whole update items. Ways
//! to bring an update about:
//! * `activities`: the owner reads all ranks' factors and makes its range's gradient for the global batch, in sample order. On one host the
//!   factors and the parameters lie in memory that all ranks share, and nothing is copied; else the factors are gathered first and the
//!   new parameters after.
//! * `gradients`: each rank makes its own gradient, sums are scattered to the owners, and the new parameters gathered.

mod host_memory;
mod mpi;
mod nccl;
mod staged;
mod tensors;
mod transport;

use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result};

pub use self::mpi::connect;
pub use self::tensors::{Collectives, NCCL_WITHOUT_GPU, Sharing, TensorExchange, Ticket, join};
pub use self::transport::{Single, Transport};
use crate::compute::cpu::{Arena, CpuBackend, Parameters, Sizes, Use, profile::Phase};
use crate::compute::{Activity, AdamStep, Update};
use crate::config::ExchangeChoice;
use crate::network::{MapId, Maps, Role};

/// Adam's constants of both models at one step.
#[derive(Clone, Copy, Debug)]
pub struct AdamSteps {
    pub forward: AdamStep,
    pub inverse: AdamStep,
}

impl AdamSteps {
    fn of(&self, maps: &Maps, map: MapId) -> AdamStep {
        if maps.get(map).role == Role::Inverse { self.inverse } else { self.forward }
    }
}

/// The parameters' arenas, private or shared by all ranks.
pub struct ParameterMemory {
    pub weights: Arena,
    pub first: Arena,
    pub second: Arena,
    pub shared: bool,
}

impl ParameterMemory {
    /// Memory for parameters of `sizes`: one copy for all ranks of one host where they share by `activities`, else one a rank.
    pub fn new(sizes: Sizes, transport: &dyn Transport, choice: ExchangeChoice) -> Result<ParameterMemory> {
        if transport.size() > 1 && choice != ExchangeChoice::Gradients {
            let elements = [sizes.weights, sizes.moments, sizes.moments];
            // One window, all of it rank 0's: weights, then both moments.
            let mut of_ranks = vec![0; transport.size()];
            of_ranks[0] = elements.iter().sum();
            if let Some(arenas) = transport.shared(&of_ranks)? {
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

/// Performs updates on all ranks, and keeps what that needs.
pub struct Exchange {
    way: Way,
    rank: usize,
    size: usize,
    /// This rank's activities as the others see them, or all ranks' as this one does.
    bases: Vec<*const f32>,
    /// Update items by map.
    items: Vec<usize>,
    /// Those that this rank owns.
    owned: Vec<Range<usize>>,
    /// Elements that each rank owns, by map.
    elements: Vec<Vec<Range<usize>>>,
}

enum Way {
    /// One rank: nothing to exchange.
    Alone,
    /// All ranks on one host, sharing factors and parameters.
    Shared,
    /// Factors gathered here, [rank][elements of the arena].
    GatheredFactors { all: Vec<f32>, elements: usize },
    /// Gradients in the layout of the parameters.
    Gradients { gradients: Arena },
}

// Addresses of arenas that live as long as the backend beside this.
unsafe impl Send for Exchange {}

impl Exchange {
    /// Gives the backend's activities their memory and prepares updates in the way chosen.
    pub fn new(backend: &mut CpuBackend, shared: bool, transport: &dyn Transport, choice: ExchangeChoice) -> Result<Exchange> {
        let (rank, size) = (transport.rank(), transport.size());
        let elements = backend.activity_elements();
        let private = |len| Arena::new(len).context("not enough memory for the activities");
        let (way, arena, bases) = if size == 1 {
            let arena = private(elements)?;
            let bases = vec![arena.at(0).cast_const()];
            (Way::Alone, arena, bases)
        } else if choice == ExchangeChoice::Gradients {
            let arena = private(elements)?;
            let bases = vec![arena.at(0).cast_const()];
            (Way::Gradients { gradients: private(backend.parameters.first.len())? }, arena, bases)
        } else if let (true, Some(arenas)) = (shared, transport.shared(&vec![elements; size])?) {
            let bases = arenas.iter().map(|arena| arena.at(0).cast_const()).collect();
            let own = arenas.into_iter().nth(rank).expect("every rank has an arena");
            (Way::Shared, own, bases)
        } else {
            let arena = private(elements)?;
            let all = vec![0.0f32; elements * size];
            let bases = (0..size).map(|rank| unsafe { all.as_ptr().add(rank * elements) }).collect();
            (Way::GatheredFactors { all, elements }, arena, bases)
        };
        backend.allocate(arena)?;
        let maps = backend.maps.clone();
        let items: Vec<usize> =
            (0..maps.all.len()).map(|map| if maps.all[map].trained() { backend.update_items(MapId(map)) } else { 0 }).collect();
        let owned = items.iter().map(|items| part(*items, rank, size)).collect();
        let of_ranks =
            |(map, items): (usize, &usize)| (0..size).map(|rank| backend.item_elements(MapId(map), part(*items, rank, size))).collect();
        let elements = items.iter().enumerate().map(of_ranks).collect();
        Ok(Exchange { way, rank, size, bases, items, owned, elements })
    }

    /// Whether all ranks see one copy of the parameters.
    pub fn shares_parameters(&self) -> bool {
        matches!(self.way, Way::Shared)
    }

    /// Applies `updates` to the parameters of every rank.
    pub fn update(&mut self, backend: &mut CpuBackend, transport: &dyn Transport, updates: &[Update], steps: AdamSteps) -> Result<()> {
        let maps = backend.maps.clone();
        let weights = backend.parameters.weights.at(0);
        let (first, second) = (backend.parameters.first.at(0), backend.parameters.second.at(0));
        let adam = |map: MapId| Use::Adam { weights, first, second, step: steps.of(&maps, map) };
        let owned = |map: MapId| self.owned[map.0].clone();
        match &mut self.way {
            Way::Alone => backend.update(updates, &self.bases, owned, adam),
            Way::Shared => {
                timed(backend, || transport.barrier());
                backend.update(updates, &self.bases, owned, adam)?;
                timed(backend, || transport.barrier());
                Ok(())
            }
            Way::GatheredFactors { all, elements } => {
                gather_factors(backend, transport, updates, all, *elements);
                backend.update(updates, &self.bases, owned, adam)?;
                gather_parameters(backend, transport, updates, &self.elements);
                Ok(())
            }
            Way::Gradients { gradients } => {
                let to = gradients.at(0);
                let items = &self.items;
                backend.update(
                    updates,
                    &self.bases,
                    |map| 0..items[map.0],
                    |map| Use::Store { gradients: to, scale: steps.of(&maps, map).scale },
                )?;
                for update in updates {
                    let ranges = &self.elements[update.map.0];
                    timed(backend, || unsafe { transport.reduce_scatter_ranges(to, ranges) });
                    backend.adam(gradients, ranges[self.rank].clone(), steps.of(&maps, update.map));
                }
                gather_parameters(backend, transport, updates, &self.elements);
                Ok(())
            }
        }
    }

    /// Stores the gradients of `updates`, summed over the global batch, in `to`, an arena of the parameters' layout: of each map the part that
    /// this rank owns. No parameter changes.
    pub fn gradients(&mut self, backend: &mut CpuBackend, transport: &dyn Transport, updates: &[Update], to: &Arena) -> Result<()> {
        let to = to.at(0);
        let store = |_| Use::Store { gradients: to, scale: 1.0 };
        let owned = |map: MapId| self.owned[map.0].clone();
        match &mut self.way {
            Way::Alone => backend.update(updates, &self.bases, owned, store),
            Way::Shared => {
                transport.barrier();
                backend.update(updates, &self.bases, owned, store)?;
                transport.barrier();
                Ok(())
            }
            Way::GatheredFactors { all, elements } => {
                gather_factors(backend, transport, updates, all, *elements);
                backend.update(updates, &self.bases, owned, store)
            }
            Way::Gradients { .. } => {
                backend.update(updates, &self.bases, |map| 0..self.items[map.0], store)?;
                for update in updates {
                    unsafe { transport.reduce_scatter_ranges(to, &self.elements[update.map.0]) };
                }
                Ok(())
            }
        }
    }

    /// The update items of `map` that `rank` owns; those of the ranks follow one another.
    pub fn part(&self, map: MapId, rank: usize) -> Range<usize> {
        part(self.items[map.0], rank, self.size)
    }

    /// Brings Adam's moments to rank 0, for a checkpoint.
    pub fn gather_moments(&self, backend: &CpuBackend, transport: &dyn Transport) {
        if matches!(self.way, Way::GatheredFactors { .. } | Way::Gradients { .. }) {
            for (map, ranges) in backend.maps.all.iter().zip(&self.elements) {
                if map.trained() {
                    for moment in [&backend.parameters.first, &backend.parameters.second] {
                        unsafe { transport.gather_ranges(moment.at(0), ranges) };
                    }
                }
            }
        }
    }
}

/// The part of `items` update items that `rank` of `size` ranks owns.
fn part(items: usize, rank: usize, size: usize) -> Range<usize> {
    items * rank / size..items * (rank + 1) / size
}

/// Brings the factors of `updates` of all ranks into `all`, [rank][elements of an arena].
fn gather_factors(backend: &mut CpuBackend, transport: &dyn Transport, updates: &[Update], all: &mut [f32], elements: usize) {
    for activity in factors(updates) {
        let slot = backend.place(activity);
        let len = slot.shape.positions() * backend.batch() * slot.stride;
        let own = backend.values_of(activity);
        let starts = (0..transport.size()).map(|rank| rank * elements + slot.start);
        let ranges: Vec<_> = starts.map(|at| at..at + len).collect();
        timed(backend, || unsafe {
            let to = all.as_mut_ptr().add(ranges[transport.rank()].start);
            std::ptr::copy_nonoverlapping(own, to, len);
            transport.all_gather_ranges(all.as_mut_ptr(), &ranges);
        });
    }
}

/// Activities that `updates` need from every rank, each once.
fn factors(updates: &[Update]) -> impl Iterator<Item = Activity> {
    let mut seen = std::collections::BTreeSet::new();
    let all = updates.iter().flat_map(|update| [update.pre, update.post]);
    all.filter(move |activity| seen.insert(activity.0)).collect::<Vec<_>>().into_iter()
}

/// Every owner's new parameters to all ranks.
fn gather_parameters(backend: &mut CpuBackend, transport: &dyn Transport, updates: &[Update], elements: &[Vec<Range<usize>>]) {
    let weights = backend.parameters.weights.at(0);
    timed(backend, || {
        for update in updates {
            unsafe { transport.all_gather_ranges(weights, &elements[update.map.0]) };
        }
    });
}

/// Enters the time that `communicate` takes as exchange.
fn timed<T>(backend: &mut CpuBackend, communicate: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = communicate();
    backend.profile.add(Phase::Exchange, started.elapsed().as_secs_f64(), 0.0, 0.0);
    result
}

/// Parameters in `memory`.
pub fn parameters(maps: &Maps, memory: ParameterMemory) -> Parameters {
    let (spans, _) = crate::compute::cpu::spans(maps);
    Parameters { spans, weights: memory.weights, first: memory.first, second: memory.second }
}
