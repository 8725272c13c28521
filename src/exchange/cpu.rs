//! How ranks share an update on CPUs, whose kernels work on plain memory.
//!
//! Every parameter has one owner, the rank that applies the optimiser to it; owners' ranges follow the order of memory, in whole update items,
//! as many as are equal work.
//! * `activities`: the owner reads all ranks' factors and makes its range's gradient for the global batch, in sample order. Ranks of one
//!   host see each other's factors and one copy of the parameters; between hosts factors and new parameters travel, each between ranks
//!   of the same place on their hosts, so that a byte crosses once.
//! * `gradients`: each rank makes its own gradient; sums are scattered to the owners, and the new parameters gathered.
//!
//! With `parallel.overlap` a factor travels from when it is final, a gradient from when it is made, and new parameters while the next map is
//! updated; without it one after the other. The sums have the same order, and so the same bits.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};

use super::settings::ExchangeChoice;
use super::transport::{Handle, Message, Span, Transport};
use super::{Optimizers, UpdateExchange, ownership, reduce};
use crate::compute::cpu::{Arena, CpuBackend, Use};
use crate::compute::{Activity, Update};
use crate::network::MapId;
use crate::observe::{Doing, span};

/// Performs updates on all ranks, and keeps what that needs.
pub struct Exchange {
    transport: Arc<dyn Transport>,
    buffers: Buffers,
    rank: usize,
    size: usize,
    /// Ranks that see one copy of the parameters, this one among them.
    sharing: usize,
    overlap: bool,
    /// Every rank's activities as this one sees them; by gradients its own alone.
    bases: Vec<*mut f32>,
    /// Update items that each rank owns, by map.
    owned: Vec<Vec<Range<usize>>>,
    /// Elements that each rank owns, by map.
    elements: Vec<Vec<Range<usize>>>,
    /// One over the global batch.
    scale: f32,
    /// Updates of this step.
    taken: Vec<Update>,
    /// Factors of this step, by activity.
    factors: BTreeMap<usize, Handle>,
    /// Gradients of this step, by map.
    gradients: BTreeMap<usize, Handle>,
}

enum Buffers {
    /// The arena of all ranks' activities, where this rank has one of its own.
    Activities { _all: Option<Arena> },
    /// Gradients in the layout of the parameters, and what other ranks send: by map, from the element that `recv_starts` says.
    Gradients { gradients: Arena, recv: Arena, recv_starts: Vec<usize> },
}

// SAFETY: the addresses are of arenas that live as long as the backend beside this, on whichever thread.
unsafe impl Send for Exchange {}

impl Exchange {
    /// Gives the backend's activities their memory and prepares updates in the way chosen. `shared` says that the parameters are the host's.
    /// Collective.
    pub fn new(
        backend: &mut CpuBackend,
        shared: bool,
        transport: &Arc<dyn Transport>,
        choice: ExchangeChoice,
        overlap: bool,
    ) -> Result<Exchange> {
        let (rank, size) = (transport.rank(), transport.size());
        let samples = backend.batch() * size;
        let owned = match choice {
            // The sum of what was received and the optimiser: the same for every item.
            ExchangeChoice::Gradients => ownership::divide(backend, size, |_, _| 1),
            _ => ownership::divide(backend, size, |map, item| backend.item_work(map, item, samples)),
        };
        let of_ranks =
            |(map, ranges): (usize, &Vec<Range<usize>>)| ranges.iter().map(|own| backend.item_elements(MapId(map), own.clone())).collect();
        let elements: Vec<Vec<Range<usize>>> = owned.iter().enumerate().map(of_ranks).collect();

        let room = backend.activity_elements();
        let private = |len| Arena::new(len).context("not enough memory for the activities");
        let local = transport.local().1;
        let host = if shared { transport.shared(&vec![room * (size / local); local])? } else { None };
        if shared && host.is_none() {
            // One copy of the parameters, under activities that nobody else sees, would change while others compute with it.
            backend.parameters.make_private().context("not enough memory for the parameters")?;
            // SAFETY: no arena of the shared memory was given to anybody yet, but to the parameters, which were just made
            // private.
            unsafe { transport.release_shared() };
        }
        let (buffers, arena, bases) = if size > 1 && choice == ExchangeChoice::Gradients {
            let arena = private(room)?;
            let bases = vec![arena.at(0)];
            let mut recv_starts = vec![0];
            recv_starts.extend(elements.iter().map(|ranges| reduce::recv_elements(ranges, rank)).scan(0, |end, len| {
                *end += len;
                Some(*end)
            }));
            let recv = private(*recv_starts.last().expect("there is a first"))?;
            (Buffers::Gradients { gradients: private(backend.parameters.first.len())?, recv, recv_starts }, arena, bases)
        } else if let Some(windows) = &host {
            // A rank's window holds its own activities, and those of its fellows on other hosts.
            let bases: Vec<*mut f32> = (0..size).map(|rank| windows[rank % local].at(rank / local * room)).collect();
            // SAFETY: the window is this rank's, of `room` elements, and is mapped until release_shared.
            (Buffers::Activities { _all: None }, unsafe { Arena::shared(bases[rank], room) }, bases)
        } else {
            let all = private(room * size)?;
            let bases: Vec<*mut f32> = (0..size).map(|rank| all.at(rank * room)).collect();
            // SAFETY: `all` has `room` elements for each rank, and is kept beside.
            (Buffers::Activities { _all: Some(all) }, unsafe { Arena::shared(bases[rank], room) }, bases)
        };
        backend.allocate(arena);
        let sharing = if host.is_some() { local } else { 1 };
        let scale = 1.0 / (backend.batch() * size) as f32;
        Ok(Exchange {
            transport: transport.clone(),
            buffers,
            rank,
            size,
            sharing,
            overlap,
            bases,
            owned,
            elements,
            scale,
            taken: Vec::new(),
            factors: BTreeMap::new(),
            gradients: BTreeMap::new(),
        })
    }

    /// Whether the ranks of this host see one copy of the parameters.
    pub fn shares_parameters(&self) -> bool {
        self.sharing > 1
    }

    /// Gives weights that follow the signs of their layer's these signs; `draw` is the number of steps before. Collective.
    pub fn follow_signs(&self, backend: &mut CpuBackend, draw: u64) {
        if backend.maps.follow_signs() {
            backend.follow_signs(draw, (self.rank % self.sharing, self.sharing));
            self.meet(backend);
        }
    }

    /// Stores the gradients of `updates`, summed over the global batch, in `to`, an arena of the parameters' layout: of each map the part that
    /// this rank owns. No parameter changes.
    pub fn gradients(&mut self, backend: &mut CpuBackend, updates: &[Update], to: &Arena) -> Result<()> {
        let to = to.at(0);
        let store = |_| Use::Store { gradients: to, scale: 1.0 };
        match self.buffers {
            Buffers::Activities { .. } => {
                self.await_factors(backend, updates);
                backend.update(updates, &self.bases, |map| self.part(map, self.rank), store)?;
                self.meet(backend);
                self.factors.clear();
            }
            Buffers::Gradients { .. } => {
                backend.update(updates, &self.bases, |map| self.whole(map), store)?;
                for update in updates {
                    // SAFETY: `to` has the layout of the parameters, of which the ranges are parts.
                    unsafe { reduce::reduce_scatter(&*self.transport, backend.isa, &backend.pool, to, &self.elements[update.map.0]) };
                }
            }
        }
        Ok(())
    }

    /// The update items of `map` that `rank` owns; those of the ranks follow one another.
    pub fn part(&self, map: MapId, rank: usize) -> Range<usize> {
        self.owned[map.0][rank].clone()
    }

    /// All of a map's update items.
    fn whole(&self, map: MapId) -> Range<usize> {
        0..self.part(map, self.size - 1).end
    }

    /// Brings the moments to rank 0, for a checkpoint. Collective.
    pub fn gather_moments(&self, backend: &CpuBackend) {
        let beyond = |rank: usize| rank >= self.sharing;
        for (map, ranges) in backend.maps.all.iter().zip(&self.elements).filter(|(map, _)| map.trained()) {
            let _span = span(Doing::Gather, Some(map.layer));
            for moment in [&backend.parameters.first, &backend.parameters.second] {
                let message = |rank: usize, of: usize| Message::of(rank, moment.at(0), &ranges[of]);
                let sends: Vec<Message> = if beyond(self.rank) { vec![message(0, self.rank)] } else { Vec::new() };
                let from = if self.rank == 0 { self.sharing..self.size } else { 0..0 };
                let receives: Vec<Message> = from.map(|rank| message(rank, rank)).collect();
                let traced = Span { doing: Doing::Gather, layer: Some(map.layer) };
                // SAFETY: the moments hold the ranges, and are waited for at once.
                let handle = unsafe { self.transport.begin(traced, &sends, &receives) };
                self.transport.wait(handle);
            }
        }
    }

    /// Ranks that this one reaches by messages: those of its place on other hosts, or all others.
    fn peers(&self) -> impl Iterator<Item = usize> + use<> {
        let (rank, size, sharing) = (self.rank, self.size, self.sharing);
        (1..size / sharing).map(move |distance| (rank + distance * sharing) % size)
    }

    /// Begins to send this rank's factors of `update` and to receive the others', each once in a step.
    fn send_factors(&mut self, backend: &mut CpuBackend, update: Update) {
        for activity in [update.pre, update.post] {
            if self.factors.contains_key(&activity.0) {
                continue;
            }
            let range = elements_of(backend, activity);
            let of = |peer, owner: usize| Message::of(peer, self.bases[owner], &range);
            // SAFETY: activities of this step stay as they are until commit has waited, and each peer has a part of its
            // own.
            let handle = unsafe { self.swap(backend, Doing::FactorsTransfer, update.map, of) };
            self.factors.insert(activity.0, handle);
        }
    }

    /// Begins to send each peer what this rank owns and to receive what the peer does: `of(peer, owner)`.
    ///
    /// # Safety
    /// As [`Transport::begin`].
    unsafe fn swap(&self, backend: &mut CpuBackend, doing: Doing, map: MapId, of: impl Fn(usize, usize) -> Message) -> Handle {
        let sends: Vec<Message> = self.peers().map(|peer| of(peer, self.rank)).collect();
        let receives: Vec<Message> = self.peers().map(|peer| of(peer, peer)).collect();
        let received = receives.iter().map(|message| message.bytes).sum();
        let layer = Some(backend.maps.get(map).layer);
        exchanging(backend, (Doing::AllGather, layer), received, || {
            // SAFETY: the caller promises what begin asks for.
            unsafe { self.transport.begin(Span { doing, layer }, &sends, &receives) }
        })
    }

    /// Returns when all ranks' factors of `updates` are there.
    fn await_factors(&mut self, backend: &mut CpuBackend, updates: &[Update]) {
        if self.peers().next().is_some() {
            updates.iter().for_each(|update| self.send_factors(backend, *update));
            for update in updates {
                let layer = Some(backend.maps.get(update.map).layer);
                let handles = [update.pre, update.post].map(|activity| self.factors[&activity.0]);
                exchanging(backend, (Doing::AllGather, layer), 0, || handles.into_iter().for_each(|handle| self.transport.wait(handle)));
            }
        }
        self.meet(backend);
    }

    /// Waits for those that see the same memory.
    fn meet(&self, backend: &mut CpuBackend) {
        if self.sharing > 1 {
            exchanging(backend, (Doing::Barrier, None), 0, || self.transport.host_barrier());
        }
    }

    /// Stores the mean gradient's part of this rank's samples, of one map, and begins to send it.
    fn send_gradient_of(&mut self, backend: &mut CpuBackend, of_map: &[Update]) -> Result<()> {
        self.make_gradient(backend, of_map)?;
        self.send_gradient(backend, of_map[0].map);
        Ok(())
    }

    /// Stores the mean gradient's part of this rank's samples, of one map.
    fn make_gradient(&self, backend: &mut CpuBackend, of_map: &[Update]) -> Result<()> {
        let Buffers::Gradients { gradients, .. } = &self.buffers else { return Ok(()) };
        let store = Use::Store { gradients: gradients.at(0), scale: self.scale };
        backend.update(of_map, &self.bases, |map| self.whole(map), |_| store)
    }

    fn send_gradient(&mut self, backend: &mut CpuBackend, map: MapId) {
        let Buffers::Gradients { gradients, recv, recv_starts } = &self.buffers else { return };
        let ranges = &self.elements[map.0];
        let layer = Some(backend.maps.get(map).layer);
        let traced = Span { doing: Doing::GradientTransfer, layer };
        let bytes = 4 * reduce::recv_elements(ranges, self.rank);
        // SAFETY: the gradient is final, and `recv` has room from where this map's begins; await_gradients waits.
        let handle = exchanging(backend, (Doing::ReduceScatter, layer), bytes, || unsafe {
            reduce::begin(&*self.transport, traced, gradients.at(0), ranges, recv.at(recv_starts[map.0]))
        });
        self.gradients.insert(map.0, handle);
    }

    /// Returns when all ranks' gradients of `updates` in this rank's ranges are there.
    fn await_gradients(&mut self, backend: &mut CpuBackend, updates: &[Update]) -> Result<()> {
        let of_maps = || Update::by_map(updates);
        for of_map in of_maps().filter(|of_map| !self.gradients.contains_key(&of_map[0].map.0)) {
            self.make_gradient(backend, of_map)?;
        }
        for update in of_maps().map(|of_map| of_map[0]) {
            if !self.gradients.contains_key(&update.map.0) {
                self.send_gradient(backend, update.map);
            }
        }
        for update in of_maps().map(|of_map| of_map[0]) {
            let (layer, handle) = (Some(backend.maps.get(update.map).layer), self.gradients[&update.map.0]);
            exchanging(backend, (Doing::ReduceScatter, layer), 0, || self.transport.wait(handle));
        }
        Ok(())
    }

    /// Begins to send this rank's new parameters of `map`, and to receive the others'.
    fn send_parameters(&self, backend: &mut CpuBackend, map: MapId) -> Handle {
        let (weights, ranges) = (backend.parameters.weights.at(0), &self.elements[map.0]);
        // SAFETY: each rank has updated its own range by now, and commit waits before anybody reads or writes.
        unsafe { self.swap(backend, Doing::ParametersTransfer, map, |peer, owner| Message::of(peer, weights, &ranges[owner])) }
    }
}

impl UpdateExchange for Exchange {
    type Backend = CpuBackend;

    fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn take(&mut self, backend: &mut CpuBackend, update: Update) -> Result<()> {
        if backend.maps.get(update.map).pool.is_some() {
            return Ok(());
        }
        let before = self.taken.last().map(|before| before.map);
        self.taken.push(update);
        if !self.overlap || self.size == 1 {
            return Ok(());
        }
        match self.buffers {
            Buffers::Activities { .. } => {
                self.send_factors(backend, update);
                Ok(())
            }
            // A gradient is whole when another map's updates begin.
            Buffers::Gradients { .. } => match before.filter(|map| *map != update.map) {
                Some(map) => {
                    let of_map: Vec<Update> = self.taken.iter().filter(|taken| taken.map == map).copied().collect();
                    self.send_gradient_of(backend, &of_map)
                }
                None => Ok(()),
            },
        }
    }

    fn commit(&mut self, backend: &mut CpuBackend, steps: Optimizers) -> Result<()> {
        let updates = std::mem::take(&mut self.taken);
        // With nobody to reach by messages, all maps are one pass.
        let at_once = !self.overlap || self.peers().next().is_none();
        let mut parameters = Vec::with_capacity(updates.len());
        let all = [&updates[..]];
        let by_map: Vec<&[Update]> = Update::by_map(&updates).collect();
        for some in if at_once { &all[..] } else { &by_map } {
            match self.buffers {
                Buffers::Activities { .. } => {
                    self.await_factors(backend, some);
                    let [weights, first, second] = backend.parameters.at();
                    let optimize = |map: MapId| Use::Optimize { weights, first, second, step: steps.of(map) };
                    backend.update(some, &self.bases, |map| self.part(map, self.rank), optimize)?;
                }
                Buffers::Gradients { .. } => {
                    self.await_gradients(backend, some)?;
                    let Buffers::Gradients { gradients, recv, recv_starts } = &self.buffers else { continue };
                    for update in Update::by_map(some).map(|of_map| of_map[0]) {
                        let (map, ranges) = (update.map.0, &self.elements[update.map.0]);
                        let step = steps.of(update.map);
                        let parts = reduce::parts(self.rank, gradients.at(0), ranges, recv.at(recv_starts[map]));
                        // SAFETY: await_gradients has waited for all parts, which hold as many elements as the range.
                        unsafe { backend.optimize(&parts, ranges[self.rank].clone(), step) };
                    }
                }
            }
            for update in Update::by_map(some).map(|of_map| of_map[0]) {
                parameters.push(self.send_parameters(backend, update.map));
            }
        }
        exchanging(backend, (Doing::AllGather, None), 0, || parameters.into_iter().for_each(|handle| self.transport.wait(handle)));
        self.meet(backend);
        self.factors.clear();
        self.gradients.clear();
        Ok(())
    }

    fn settle(&mut self) {
        self.taken.clear();
        let under_way = std::mem::take(&mut self.factors).into_values().chain(std::mem::take(&mut self.gradients).into_values());
        under_way.for_each(|handle| self.transport.wait(handle));
    }
}

/// What the current batch uses of an activity, in a rank's arena.
fn elements_of(backend: &CpuBackend, activity: Activity) -> Range<usize> {
    let slot = backend.place(activity);
    slot.start..slot.start + slot.shape.positions() * backend.batch() * slot.stride
}

/// Enters the time that `communicate` takes as exchange, of a layer where it is one's, and the bytes that it brings.
fn exchanging<T>(backend: &mut CpuBackend, (doing, layer): (Doing, Option<usize>), bytes: usize, communicate: impl FnOnce() -> T) -> T {
    let _span = span(doing, layer);
    let started = Instant::now();
    let result = communicate();
    backend.profile.add(Doing::Device, started.elapsed().as_secs_f64(), 0.0, bytes as f64);
    result
}
