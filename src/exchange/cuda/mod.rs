//! How ranks share an update on GPUs, each of which has its own copy of the parameters: map by map, whichever moves fewer bytes.
//!
//! * `activities`: every rank gathers all ranks' factors and makes the whole update itself. The kernels sum over samples in the order of
//!   the global batch, so the bits are those of one rank.
//! * `gradients`: each rank makes its own gradient; sums are scattered in equal parts, each rank applies the optimiser to its part, of which
//!   alone it has moments, and the new parameters are gathered.
//!
//! The exchange stands between two graphs: the rule's, which ends with the gradients, and that of the updates. By NCCL, and with
//! `parallel.overlap`, it begins while the host still waits for the measures.

mod staged;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;

use self::staged::Staged;
use super::nccl::{self, Element, Joined};
use super::settings::{Settings, TransportChoice, Wire};
use super::{Handle, Sharing, Span, Transport};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::{Address, CudaBackend, Gpu, Marks, Meeting, Stream, Work};
use crate::compute::{Activity, Buffer, Update};
use crate::network::MapId;
use crate::observe::{Doing, span};

/// Memory of the GPU that all ranks have a part of: their parts lie one after another, `each` bytes long.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    pub at: Address,
    pub each: usize,
    pub element: Element,
}

/// Collective operations among all ranks on memory of this rank's GPU. They begin when the GPU has done what it was given before, and the
/// memory stays as it is until they were waited for.
pub trait Collectives {
    /// Every rank's parts to all ranks.
    fn all_gather(&mut self, traced: Span, wholes: &[Whole]) -> Result<Handle>;

    /// To each rank's part its sum over ranks; the other parts are anything then.
    fn reduce_scatter(&mut self, traced: Span, whole: Whole) -> Result<Handle>;

    /// What the GPU is given from now on waits for the operation.
    fn wait(&mut self, handle: Handle) -> Result<()>;

    /// Waits here until all operations are done. Fails where one has, or does not end in time.
    fn settle(&mut self) -> Result<()>;

    /// Whether they go on while this thread does something else.
    fn overlap(&self) -> bool;
}

impl<C: nccl::Calls> Collectives for nccl::Nccl<C> {
    fn all_gather(&mut self, traced: Span, wholes: &[Whole]) -> Result<Handle> {
        let pieces: Vec<nccl::Piece> = wholes.iter().map(|whole| self.piece(whole.at.0, whole.each, whole.element)).collect();
        // SAFETY: the backend's memory, which is there as long as the process.
        unsafe { self.gather(traced, &pieces, Box::new(())) }
    }

    fn reduce_scatter(&mut self, traced: Span, whole: Whole) -> Result<Handle> {
        // SAFETY: the same.
        unsafe { self.scatter(traced, self.piece(whole.at.0, whole.each, whole.element), Box::new(())) }
    }

    fn wait(&mut self, handle: Handle) -> Result<()> {
        self.await_on_device(handle)
    }

    fn settle(&mut self) -> Result<()> {
        self.finish()
    }

    fn overlap(&self) -> bool {
        true
    }
}

/// Joins the ranks' GPUs in the way that `choice` says: the operations, and by what they are done; none for one rank. `gpu` is this rank's,
/// which computes on `main`, and `driver` the same, where it is one. Collective.
pub fn join(
    gpu: Rc<dyn Gpu>,
    driver: Option<&Rc<Driver>>,
    main: Stream,
    transport: &Arc<dyn Transport>,
    choice: TransportChoice,
    stall_timeout: f64,
) -> Result<Option<(Box<dyn Collectives>, &'static str)>> {
    Ok(match nccl::join(driver, main, transport, choice, stall_timeout)? {
        Joined::Alone => None,
        Joined::ByNccl(joined) => Some((joined, nccl::BY_NCCL)),
        Joined::ByMpi => Some((Box::new(Staged::new(gpu, main, transport.clone())?), nccl::BY_MPI)),
    })
}

impl Meeting for CudaExchange {
    /// Whole numbers, whatever the wire: all ranks make the same of them.
    fn gather(&mut self, backend: &mut CudaBackend, activity: Activity) -> Result<()> {
        let Some(collectives) = &mut self.collectives else { return Ok(()) };
        let (at, each) = backend.gathered(activity)?;
        let traced = Span { doing: Doing::AllGather, layer: None };
        let handle = collectives.all_gather(traced, &[Whole { at, each, element: Element::F32 }])?;
        collectives.wait(handle)
    }
}

/// Shares updates among ranks whose GPUs have a backend each.
pub struct CudaExchange {
    transport: Arc<dyn Transport>,
    sharing: Vec<Sharing>,
    /// Absent where there is one rank.
    collectives: Option<Box<dyn Collectives>>,
    overlap: bool,
    /// Whether what travels is rounded to bf16.
    rounded: bool,
    /// What travels of this step.
    under_way: Option<Vec<Handle>>,
    /// How long the GPU waits for what travels.
    waited: Marks,
}

impl CudaExchange {
    /// Joins the ranks in the way that `parallel.backend` says; `driver` is that of this rank's GPU, where it is one. Collective.
    pub fn new(
        backend: &CudaBackend,
        driver: Option<&Rc<Driver>>,
        sharing: Vec<Sharing>,
        transport: &Arc<dyn Transport>,
        settings: &Settings,
    ) -> Result<CudaExchange> {
        let joined = join(backend.gpu.clone(), driver, backend.stream, transport, settings.backend, settings.stall_timeout)?;
        let collectives = joined.map(|(collectives, _)| collectives);
        Ok(CudaExchange {
            transport: transport.clone(),
            sharing,
            collectives,
            overlap: settings.overlap,
            rounded: transport.size() > 1 && settings.wire == Wire::Bf16,
            under_way: None,
            waited: Marks::default(),
        })
    }

    /// Of each map.
    pub fn sharing(&self) -> &[Sharing] {
        &self.sharing
    }

    /// Begins what need not wait for this thread, where that is wanted: the GPU was given all that makes factors and gradients.
    pub fn begin_early(&mut self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        if self.overlap && self.collectives.as_ref().is_some_and(|collectives| collectives.overlap()) {
            self.begin(backend, updates)?;
        }
        Ok(())
    }

    fn begin(&mut self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        let (rounded, element) = (self.rounded, self.element());
        let Some(collectives) = &mut self.collectives else { return Ok(()) };
        let maps = backend.maps.clone();
        let mut handles = Vec::with_capacity(updates.len());
        let mut sent = Vec::new();
        let mut last = None;
        for update in updates {
            let traced = |doing| Span { doing, layer: Some(maps.get(update.map).layer) };
            let again = last.replace(update.map) == Some(update.map);
            match self.sharing[update.map.0] {
                Sharing::None => {}
                Sharing::Activities => {
                    let mut new = vec![update.pre, update.post];
                    new.retain(|activity| !sent.contains(activity));
                    new.dedup();
                    if new.is_empty() {
                        continue;
                    }
                    let whole = |activity: &Activity| {
                        let place = if rounded { backend.round_factor(*activity) } else { backend.gathered(*activity) };
                        place.map(|(at, each)| Whole { at, each, element })
                    };
                    let wholes = new.iter().map(whole).collect::<Result<Vec<_>>>()?;
                    handles.push(collectives.all_gather(traced(Doing::FactorsTransfer), &wholes)?);
                    sent.extend(new);
                }
                // A gradient is the sum of all updates of a map.
                Sharing::Gradients if again => {}
                Sharing::Gradients => {
                    let place = (backend.gradients(update.map), backend.bytes_of_part(update.map));
                    let (at, each) = if rounded { backend.round_gradient(update.map)? } else { place };
                    handles.push(collectives.reduce_scatter(traced(Doing::GradientTransfer), Whole { at, each, element })?);
                }
            }
        }
        self.under_way = Some(handles);
        Ok(())
    }

    /// Lets what the GPU is given from now on wait for all that the updates need.
    pub fn bring(&mut self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        if self.collectives.is_none() {
            return Ok(());
        }
        let _span = span(Doing::Device, None);
        self.waited.clear();
        self.waited.edge(false, &*backend.gpu, backend.stream)?;
        if self.under_way.is_none() {
            self.begin(backend, updates)?;
        }
        let (Some(collectives), Some(handles)) = (&mut self.collectives, self.under_way.take()) else { return Ok(()) };
        handles.into_iter().try_for_each(|handle| collectives.wait(handle))?;
        self.take(backend, updates)?;
        self.waited.add(Work::new(Doing::Device, None, 0.0, self.received(backend, updates)), false, &*backend.gpu, backend.stream)?;
        self.waited.edge(true, &*backend.gpu, backend.stream)
    }

    /// Of what travels.
    fn element(&self) -> Element {
        if self.rounded { Element::Bf16 } else { Element::F32 }
    }

    /// Takes what has arrived rounded.
    fn take(&self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        let mut taken = Vec::new();
        for of_map in Update::by_map(updates).filter(|_| self.rounded) {
            match self.sharing[of_map[0].map.0] {
                Sharing::None => {}
                Sharing::Activities => {
                    for activity in of_map.iter().flat_map(|update| [update.pre, update.post]) {
                        if !taken.contains(&activity) {
                            backend.take_factor(activity)?;
                            taken.push(activity);
                        }
                    }
                }
                Sharing::Gradients => backend.take_gradient(of_map[0].map)?,
            }
        }
        Ok(())
    }

    /// Bytes that this rank receives for `updates`.
    fn received(&self, backend: &CudaBackend, updates: &[Update]) -> f64 {
        let others = self.transport.size() as f64 - 1.0;
        let of = |update: &Update| match self.sharing[update.map.0] {
            Sharing::None => 0.0,
            Sharing::Activities => {
                [update.pre, update.post].iter().map(|one| backend.gathered(*one).map_or(0, |whole| whole.1) as f64).sum()
            }
            Sharing::Gradients => 2.0 * backend.bytes_of_part(update.map) as f64,
        };
        let rounded = if self.rounded { 0.5 } else { 1.0 };
        rounded * others * updates.iter().map(of).sum::<f64>()
    }

    /// Gathers new parameters, where ranks have updated parts, and waits until all that travels has arrived.
    pub fn share_parameters(&mut self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        let element = self.element();
        let Some(collectives) = &mut self.collectives else { return Ok(()) };
        let _span = span(Doing::Device, None);
        let mut handles = Vec::new();
        let mut maps: Vec<MapId> = updates.iter().map(|update| update.map).collect();
        maps.dedup();
        maps.retain(|map| self.sharing[map.0] == Sharing::Gradients);
        for map in &maps {
            let traced = Span { doing: Doing::ParametersTransfer, layer: Some(backend.maps.get(*map).layer) };
            let place = (backend.parameters_at(*map), backend.bytes_of_part(*map));
            let (at, each) = if self.rounded { backend.round_change(*map)? } else { place };
            handles.push(collectives.all_gather(traced, &[Whole { at, each, element }])?);
        }
        handles.into_iter().try_for_each(|handle| collectives.wait(handle))?;
        if self.rounded {
            maps.into_iter().try_for_each(|map| backend.take_changes(map))?;
        }
        collectives.settle()?;
        self.waited.enter(&mut backend.profile, Doing::Device, &*backend.gpu)
    }

    /// The gradient of one update over all ranks' samples, this rank's part where ranks share gradients, scaled or not. Collective.
    pub fn gradient(&mut self, backend: &mut CudaBackend, update: &Update) -> Result<Vec<f32>> {
        let sums = self.sharing[update.map.0] == Sharing::Gradients;
        if sums {
            backend.update(update, Some(0))?;
        }
        self.begin(backend, std::slice::from_ref(update))?;
        if let (Some(collectives), Some(handles)) = (&mut self.collectives, self.under_way.take()) {
            handles.into_iter().try_for_each(|handle| collectives.wait(handle))?;
            self.take(backend, std::slice::from_ref(update))?;
        }
        if !sums {
            backend.update(update, Some(0))?;
        }
        let gradient = backend.gradient_here(update.map, sums)?;
        self.collectives.as_mut().map_or(Ok(()), |collectives| collectives.settle())?;
        Ok(gradient)
    }

    /// Ends a step without its updates.
    pub fn settle(&mut self) {
        let (Some(collectives), Some(handles)) = (&mut self.collectives, self.under_way.take()) else { return };
        // The step has failed already, and its first error says more.
        let _ = handles.into_iter().try_for_each(|handle| collectives.wait(handle)).and_then(|()| collectives.settle());
    }

    /// Brings the moments that ranks share to rank 0, for a checkpoint. Collective.
    pub fn gather_moments(&self, backend: &CudaBackend) {
        let (rank, size) = (self.transport.rank(), self.transport.size());
        for map in (0..self.sharing.len()).map(MapId).filter(|map| self.sharing[map.0] == Sharing::Gradients) {
            for buffer in [Buffer::FirstMoment, Buffer::SecondMoment] {
                let own = backend.part(map, buffer);
                // Which the optimiser may not need.
                if own.is_empty() {
                    continue;
                }
                let ranges: Vec<_> = (0..size).map(|rank| rank * own.len()..(rank + 1) * own.len()).collect();
                let mut whole = vec![0.0f32; own.len() * size];
                whole[ranges[rank].clone()].copy_from_slice(&own);
                // SAFETY: `whole` holds the ranges of all ranks.
                unsafe { self.transport.gather_ranges(whole.as_mut_ptr(), &ranges) };
                if rank == 0 {
                    backend.keep_gathered(map, buffer, whole);
                }
            }
        }
    }
}
