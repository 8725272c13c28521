//! How ranks share an update on GPUs, each of which has its own copy of the parameters: map by map, whichever moves fewer bytes.
//!
//! Of every map a rank owns an equal part. It alone has moments of that, applies the optimiser to it, and all ranks gather what is new.
//! * `activities`: ranks gather all factors, and each makes the gradient of what it owns. The kernels sum over samples in the order of the
//!   global batch, so the bits are those of one rank.
//! * `gradients`: each rank makes its own gradient, and the sums are scattered to the owners.
//!
//! The exchange stands between two graphs: the rule's, which ends with the gradients, and that of the updates. By NCCL, and with
//! `parallel.overlap`, it begins while the host still waits for the measures. What begins together is one operation, so that small maps
//! cost no wait of their own.

mod staged;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
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

    /// To each rank's parts their sums over ranks; the other parts are anything then.
    fn reduce_scatter(&mut self, traced: Span, wholes: &[Whole]) -> Result<Handle>;

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

    fn reduce_scatter(&mut self, traced: Span, wholes: &[Whole]) -> Result<Handle> {
        let pieces: Vec<nccl::Piece> = wholes.iter().map(|whole| self.piece(whole.at.0, whole.each, whole.element)).collect();
        // SAFETY: the same.
        unsafe { self.scatter(traced, &pieces, Box::new(())) }
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

/// The maps of which ranks update parts, and what of them they gather then.
pub type NewParameters = Vec<(MapId, Vec<Whole>)>;

/// Shares updates among ranks whose GPUs have a backend each.
pub struct CudaExchange {
    transport: Arc<dyn Transport>,
    sharing: Vec<Sharing>,
    /// Absent where there is one rank.
    collectives: Option<Box<dyn Collectives>>,
    overlap: bool,
    /// Whether what travels is rounded to bf16.
    rounded: bool,
    /// What travels of this step, and the bytes that this rank receives.
    under_way: Option<(Vec<Handle>, usize)>,
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
        let (mut factors, mut gradients, mut sent) = (Vec::new(), Vec::new(), BTreeSet::new());
        let whole = |(at, each)| Whole { at, each, element };
        for of_map in Update::by_map(updates) {
            let map = of_map[0].map;
            match self.sharing[map.0] {
                Sharing::None => {}
                Sharing::Activities => {
                    for activity in factors_of(of_map).filter(|activity| sent.insert(activity.0)) {
                        factors.push(whole(if rounded { backend.round_factor(activity)? } else { backend.gathered(activity)? }));
                    }
                }
                // A gradient is the sum of all updates of a map.
                Sharing::Gradients => {
                    let at = if rounded { backend.round_gradient(map)? } else { backend.gradients(map) };
                    gradients.extend(backend.pieces_from(map, at, element.bytes()).into_iter().map(whole));
                }
            }
        }
        let traced = |doing| Span { doing, layer: None };
        let mut handles = Vec::new();
        if !factors.is_empty() {
            handles.push(collectives.all_gather(traced(Doing::FactorsTransfer), &factors)?);
        }
        if !gradients.is_empty() {
            handles.push(collectives.reduce_scatter(traced(Doing::GradientTransfer), &gradients)?);
        }
        self.under_way = Some((handles, self.received(factors.iter().chain(&gradients))));
        Ok(())
    }

    /// Lets what the GPU is given from now on wait for all that the updates need. Returns what ranks gather when they are done.
    pub fn bring(&mut self, backend: &mut CudaBackend, updates: &[Update]) -> Result<NewParameters> {
        if self.collectives.is_none() {
            return Ok(Vec::new());
        }
        let _span = span(Doing::Device, None);
        self.waited.clear();
        self.waited.edge(false, &*backend.gpu, backend.stream)?;
        if self.under_way.is_none() {
            self.begin(backend, updates)?;
        }
        let (Some(collectives), Some((handles, bytes))) = (&mut self.collectives, self.under_way.take()) else { return Ok(Vec::new()) };
        handles.into_iter().try_for_each(|handle| collectives.wait(handle))?;
        self.take(backend, updates)?;
        let new = self.new_parameters(backend, updates);
        let bytes = bytes + self.received(new.iter().flat_map(|(_, wholes)| wholes));
        self.waited.add(Work::new(Doing::Device, None, 0.0, bytes as f64), false, &*backend.gpu, backend.stream)?;
        self.waited.edge(true, &*backend.gpu, backend.stream)?;
        Ok(new)
    }

    /// Of what travels.
    fn element(&self) -> Element {
        if self.rounded { Element::Bf16 } else { Element::F32 }
    }

    /// Takes what has arrived rounded.
    fn take(&self, backend: &mut CudaBackend, updates: &[Update]) -> Result<()> {
        let mut taken = BTreeSet::new();
        for of_map in Update::by_map(updates).filter(|_| self.rounded) {
            let map = of_map[0].map;
            match self.sharing[map.0] {
                Sharing::None => continue,
                Sharing::Activities => {
                    factors_of(of_map)
                        .filter(|activity| taken.insert(activity.0))
                        .try_for_each(|activity| backend.take_factor(activity))?;
                }
                Sharing::Gradients => backend.take_gradient(map)?,
            }
            backend.keep_before(map)?;
        }
        Ok(())
    }

    /// Bytes that this rank receives of what ranks have parts of.
    fn received<'a>(&self, wholes: impl Iterator<Item = &'a Whole>) -> usize {
        (self.transport.size() - 1) * wholes.map(|whole| whole.each).sum::<usize>()
    }

    fn new_parameters(&self, backend: &CudaBackend, updates: &[Update]) -> NewParameters {
        let element = self.element();
        let maps = Update::by_map(updates).map(|of_map| of_map[0].map).filter(|map| self.sharing[map.0] != Sharing::None);
        let wholes = |map| {
            let at = if self.rounded { backend.changes(map) } else { backend.parameters_at(map) };
            backend.pieces_from(map, at, element.bytes()).into_iter().map(|(at, each)| Whole { at, each, element }).collect()
        };
        maps.map(|map| (map, wholes(map))).collect()
    }

    /// Gathers new parameters, of which ranks have updated parts, and waits until all that travels has arrived.
    pub fn share_parameters(&mut self, backend: &mut CudaBackend, new: NewParameters) -> Result<()> {
        let Some(collectives) = &mut self.collectives else { return Ok(()) };
        let _span = span(Doing::Device, None);
        let (rounded, mut wholes) = (self.rounded, Vec::new());
        for (map, of_map) in &new {
            if rounded {
                backend.round_change(*map)?;
            }
            wholes.extend(of_map);
        }
        if !wholes.is_empty() {
            let handle = collectives.all_gather(Span { doing: Doing::ParametersTransfer, layer: None }, &wholes)?;
            collectives.wait(handle)?;
        }
        if rounded {
            new.into_iter().try_for_each(|(map, _)| backend.take_changes(map))?;
        }
        collectives.settle()?;
        self.waited.enter(&mut backend.profile, Doing::Device, &*backend.gpu)
    }

    /// The gradient of one update over all ranks' samples, this rank's parts where ranks share gradients, scaled or not. Collective.
    pub fn gradient(&mut self, backend: &mut CudaBackend, update: &Update) -> Result<Vec<f32>> {
        let sums = self.sharing[update.map.0] == Sharing::Gradients;
        if sums {
            backend.keep_whole(update)?;
        }
        self.begin(backend, std::slice::from_ref(update))?;
        if let (Some(collectives), Some((handles, _))) = (&mut self.collectives, self.under_way.take()) {
            handles.into_iter().try_for_each(|handle| collectives.wait(handle))?;
            self.take(backend, std::slice::from_ref(update))?;
        }
        if !sums {
            // All of it, so that what is made of it is added up in one order.
            backend.keep_whole(update)?;
        }
        let gradient = backend.gradient_here(update.map, sums)?;
        self.collectives.as_mut().map_or(Ok(()), |collectives| collectives.settle())?;
        Ok(gradient)
    }

    /// Ends a step without its updates.
    pub fn settle(&mut self) {
        let (Some(collectives), Some((handles, _))) = (&mut self.collectives, self.under_way.take()) else { return };
        // The step has failed already, and its first error says more.
        let _ = handles.into_iter().try_for_each(|handle| collectives.wait(handle)).and_then(|()| collectives.settle());
    }

    /// Brings all ranks' moments to rank 0, for a checkpoint. Collective.
    pub fn gather_moments(&self, backend: &CudaBackend) {
        let (rank, size) = (self.transport.rank(), self.transport.size());
        for map in (0..self.sharing.len()).map(MapId).filter(|map| self.sharing[map.0] != Sharing::None) {
            for buffer in [Buffer::FirstMoment, Buffer::SecondMoment] {
                let own = backend.part(map, buffer);
                // Which the optimiser may not need.
                if own.is_empty() {
                    continue;
                }
                let mut whole = vec![0.0f32; own.len() * size];
                for (among_all, at) in backend.parts(map) {
                    let first = among_all.start - rank * at.len();
                    let ranges: Vec<_> = (0..size).map(|rank| first + rank * at.len()..first + (rank + 1) * at.len()).collect();
                    whole[among_all].copy_from_slice(&own[at]);
                    // SAFETY: `whole` holds the ranges of all ranks.
                    unsafe { self.transport.gather_ranges(whole.as_mut_ptr(), &ranges) };
                }
                if rank == 0 {
                    backend.keep_gathered(map, buffer, whole);
                }
            }
        }
    }
}

fn factors_of(of_map: &[Update]) -> impl Iterator<Item = Activity> {
    of_map.iter().flat_map(|update| [update.pre, update.post])
}
