//! How ranks share an update whose parameters are tensors, each rank having its own.
//!
//! Map by map, whichever moves fewer bytes:
//! * `activities`: every rank gathers all ranks' factors and makes the whole update itself. Equal factors and equal arithmetic keep the
//!   replicas equal, and no parameter travels.
//! * `gradients`: each rank makes its own gradient; sums are scattered in equal parts, each rank applies the optimiser to its part, of which
//!   alone it has moments, and the new parameters are gathered.
//!
//! With `parallel.wire = "bf16"` all of it travels rounded: of new parameters the change, which every rank adds, its owner too, so that the
//! replicas stay equal.
//!
//! With `parallel.overlap` what travels is begun as early as possible, and waited for as late: factors, and gradients made of them, as soon as
//! the rule hands them out, while the device goes on with the rule.

mod by_nccl;
mod staged;

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use self::staged::Staged;
use super::nccl::{self, Joined};
use super::settings::{Settings, Wire};
use super::{Handle, Optimizers, Sharing, Span, Transport, UpdateExchange, equal_ranges};
use crate::compute::cuda::Stream;
use crate::compute::torch::TorchBackend;
use crate::compute::{Activity, Buffer, OptimizerStep, Update};
use crate::network::MapId;
use crate::observe::Doing;

/// Collective operations on contiguous tensors of one device, of float32 or bf16, among all ranks.
///
/// They begin when the device has done what it was given before. Tensors may be dropped or changed only after a wait for the handle.
pub trait Collectives {
    /// For each pair (own, all): every rank's `own` to all ranks, in the order of ranks; `all` holds as many as there are ranks. `own` may
    /// be this rank's place in `all`. `traced` is what a trace shows.
    fn all_gather(&mut self, traced: Span, pairs: &[(&Tensor, &Tensor)]) -> Result<Handle>;

    /// The sum over ranks of `all`, of which each rank gets its part in `own`, one of as many equal parts as there are ranks.
    fn reduce_scatter(&mut self, traced: Span, all: &Tensor, own: &Tensor) -> Result<Handle>;

    /// What the device is given from now on waits for the operation.
    fn wait(&mut self, handle: Handle) -> Result<()>;

    /// Waits here until all operations are done. Fails where one has, or does not end in time.
    fn settle(&mut self) -> Result<()>;
}

/// Performs updates on all ranks.
pub struct TensorExchange {
    transport: Arc<dyn Transport>,
    sharing: Vec<Sharing>,
    /// Absent where there is one rank.
    collectives: Option<Box<dyn Collectives>>,
    size: usize,
    overlap: bool,
    /// What travels.
    wire: Kind,
    /// Updates of this step.
    taken: Vec<Update>,
    /// Those of a gradient that may still get more.
    pending: Vec<Update>,
    /// Of this step: all ranks' factors on their way, [ranks, positions, samples, channels], by activity.
    factors: BTreeMap<usize, (Handle, Tensor)>,
    /// Of this step, by map.
    gradients: BTreeMap<usize, Scattering>,
}

/// A gradient on its way.
struct Scattering {
    handle: Handle,
    /// In use until the handle is waited for.
    _all: Tensor,
    /// This rank's part of the sum.
    part: Tensor,
}

impl TensorExchange {
    /// Joins the ranks in the way that `parallel.backend` says. Collective.
    pub fn new(
        backend: &TorchBackend,
        sharing: Vec<Sharing>,
        transport: &Arc<dyn Transport>,
        settings: &Settings,
    ) -> Result<TensorExchange> {
        let joined = nccl::join(backend.driver(), Stream::LIBTORCH, transport, settings.backend, settings.stall_timeout)?;
        let collectives: Option<Box<dyn Collectives>> = match joined {
            Joined::Alone => None,
            Joined::ByNccl(joined) => Some(joined),
            Joined::ByMpi => Some(Box::new(Staged::new(transport.clone())?)),
        };
        Ok(TensorExchange::over(collectives, transport.clone(), sharing, transport.size(), settings.overlap, settings.wire))
    }

    /// Over the collectives of `size` ranks, which map by map share as `sharing` says.
    pub(super) fn over(
        collectives: Option<Box<dyn Collectives>>,
        transport: Arc<dyn Transport>,
        sharing: Vec<Sharing>,
        size: usize,
        overlap: bool,
        wire: Wire,
    ) -> TensorExchange {
        let wire = if wire == Wire::Bf16 { Kind::BFloat16 } else { Kind::Float };
        TensorExchange {
            transport,
            sharing,
            collectives,
            size,
            overlap,
            wire,
            taken: Vec::new(),
            pending: Vec::new(),
            factors: BTreeMap::new(),
            gradients: BTreeMap::new(),
        }
    }

    /// Begins what the sharing of one map's updates needs before any parameter may change: to gather factors, each once in a step, or to sum
    /// a gradient.
    fn begin(&mut self, backend: &mut TorchBackend, of_map: &[Update]) -> Result<()> {
        let Some(collectives) = &mut self.collectives else { return Ok(()) };
        let map = of_map[0].map;
        let factors = of_map.iter().map(|update| backend.factors(update)).collect::<Result<Vec<_>>>()?;
        let traced = |doing: Doing| Span { doing, layer: Some(backend.maps.get(map).layer) };
        match self.sharing[map.0] {
            Sharing::None => {}
            Sharing::Activities => {
                let mut new: Vec<(Activity, Tensor)> = Vec::new();
                for (update, (pre, post)) in of_map.iter().zip(factors) {
                    for (activity, values) in [(update.pre, pre), (update.post, post)] {
                        if !self.factors.contains_key(&activity.0) && new.iter().all(|(other, _)| *other != activity) {
                            new.push((activity, values));
                        }
                    }
                }
                let pairs: Vec<(Tensor, Tensor)> = new
                    .iter()
                    .map(|(_, own)| {
                        let own = own.f_to_kind(self.wire)?.f_contiguous()?;
                        let (positions, samples, channels) = own.size3()?;
                        let all = Tensor::f_empty([self.size as i64, positions, samples, channels], (self.wire, own.device()))?;
                        Ok((own, all))
                    })
                    .collect::<Result<_>>()?;
                let borrowed: Vec<(&Tensor, &Tensor)> = pairs.iter().map(|(own, all)| (own, all)).collect();
                let bytes = pairs.iter().map(|(own, all)| self.wire.elt_size_in_bytes() * (all.numel() - own.numel())).sum();
                let traced = traced(Doing::FactorsTransfer);
                let handle = exchanging(backend, bytes, |_| collectives.all_gather(traced, &borrowed))?;
                self.factors.extend(new.iter().zip(pairs).map(|((activity, _), (_, all))| (activity.0, (handle, all))));
            }
            Sharing::Gradients => {
                let traced = traced(Doing::GradientTransfer);
                let (pre, post) = one_after_the_other(factors)?;
                let all = backend.gradient(map, &pre, &post)?.f_to_kind(self.wire)?;
                let part = Tensor::f_empty([backend.owned(map).len() as i64], (self.wire, all.device()))?;
                let handle = exchanging(backend, self.wire.elt_size_in_bytes() * (all.numel() - part.numel()), |_| {
                    collectives.reduce_scatter(traced, &all, &part)
                })?;
                self.gradients.insert(map.0, Scattering { handle, _all: all, part });
            }
        }
        Ok(())
    }

    /// Waits for a transfer.
    fn wait(&mut self, backend: &mut TorchBackend, handle: Handle) -> Result<()> {
        let collectives = self.collectives.as_mut().context("ranks are joined")?;
        exchanging(backend, 0, |_| collectives.wait(handle))
    }

    /// All ranks' factors of updates that shared them.
    fn gathered(&mut self, backend: &mut TorchBackend, of_map: &[Update]) -> Result<Vec<(Tensor, Tensor)>> {
        let mut one = |activity: Activity| {
            let handle = self.factors.get(&activity.0).context("every factor was gathered")?.0;
            self.wait(backend, handle)?;
            joined(&self.factors[&activity.0].1)
        };
        of_map.iter().map(|update| Ok((one(update.pre)?, one(update.post)?))).collect()
    }

    /// The optimiser on this rank's part of a map whose gradient was scattered; begins to gather what is new: as it is, or the rounded
    /// changes, which come back too.
    fn update_part(&mut self, backend: &mut TorchBackend, map: MapId, step: &OptimizerStep) -> Result<(Handle, Option<Tensor>)> {
        let Scattering { handle, part, .. } = self.gradients.get(&map.0).context("every gradient was made")?;
        let (handle, part) = (*handle, part.shallow_clone());
        self.wait(backend, handle)?;
        let owned = backend.owned(map);
        let own = backend.flat(map).f_narrow(0, owned.start as i64, owned.len() as i64)?;
        let before = if self.wire == Kind::Float {
            None
        } else {
            let mut before = own.f_empty_like()?;
            before.f_copy_(&own)?;
            Some(before)
        };
        backend.optimize(map, owned.clone(), &part.f_to_kind(Kind::Float)?, step)?;
        let (wire, size) = (self.wire, self.size);
        let traced = Span { doing: Doing::ParametersTransfer, layer: Some(backend.maps.get(map).layer) };
        let collectives = self.collectives.as_mut().context("ranks are joined")?;
        exchanging(backend, wire.elt_size_in_bytes() * owned.len() * (size - 1), |backend| {
            let Some(before) = before else {
                return Ok((collectives.all_gather(traced, &[(&own, backend.flat(map))])?, None));
            };
            let change = own.f_sub(&before)?.f_to_kind(wire)?;
            own.shallow_clone().f_copy_(&before)?;
            let changes = Tensor::f_empty([change.numel() as i64 * size as i64], (wire, change.device()))?;
            Ok((collectives.all_gather(traced, &[(&change, &changes)])?, Some(changes)))
        })
    }

    /// Brings the moments that ranks share to rank 0, for a checkpoint. Collective.
    pub fn gather_moments(&self, backend: &TorchBackend) {
        let transport = &self.transport;
        for (index, _) in self.sharing.iter().enumerate().filter(|(_, way)| **way == Sharing::Gradients) {
            for buffer in [Buffer::FirstMoment, Buffer::SecondMoment] {
                let map = MapId(index);
                let own = backend.part(map, buffer);
                let ranges = equal_ranges(self.size, own.len());
                let mut whole = vec![0.0f32; own.len() * self.size];
                whole[ranges[transport.rank()].clone()].copy_from_slice(&own);
                // SAFETY: `whole` holds the ranges of all ranks.
                unsafe { transport.gather_ranges(whole.as_mut_ptr(), &ranges) };
                if transport.rank() == 0 {
                    backend.keep_gathered(map, buffer, &whole);
                }
            }
        }
    }
}

impl UpdateExchange for TensorExchange {
    type Backend = TorchBackend;

    fn transport(&self) -> &Arc<dyn Transport> {
        &self.transport
    }

    fn take(&mut self, backend: &mut TorchBackend, update: Update) -> Result<()> {
        if backend.maps.get(update.map).pool.is_some() {
            return Ok(());
        }
        if self.overlap {
            // A gradient is whole when another map's updates begin.
            if self.pending.first().is_some_and(|before| before.map != update.map) {
                let of_map = std::mem::take(&mut self.pending);
                self.begin(backend, &of_map)?;
            }
            if self.sharing[update.map.0] == Sharing::Gradients {
                self.pending.push(update);
            } else {
                self.begin(backend, &[update])?;
            }
        }
        self.taken.push(update);
        Ok(())
    }

    fn commit(&mut self, backend: &mut TorchBackend, steps: Optimizers) -> Result<()> {
        let updates = std::mem::take(&mut self.taken);
        let not_begun = if self.overlap { std::mem::take(&mut self.pending) } else { updates.clone() };
        // All factors first: they travel while gradients are made.
        let (by_factors, others): (Vec<&[Update]>, Vec<&[Update]>) =
            Update::by_map(&not_begun).partition(|of_map| self.sharing[of_map[0].map.0] == Sharing::Activities);
        by_factors.into_iter().chain(others).try_for_each(|of_map| self.begin(backend, of_map))?;
        let of = |way| Update::by_map(&updates).filter(|of_map| self.sharing[of_map[0].map.0] == way).collect::<Vec<_>>();
        let [by_factors, by_gradients, alone] = [Sharing::Activities, Sharing::Gradients, Sharing::None].map(of);
        if self.collectives.is_some() {
            for of_map in by_factors {
                let factors = self.gathered(backend, of_map)?;
                update_whole(backend, of_map[0].map, factors, steps)?;
            }
            let mut gathering = Vec::with_capacity(by_gradients.len());
            for map in by_gradients.iter().map(|of_map| of_map[0].map) {
                gathering.push((map, self.update_part(backend, map, &steps.of(map))?));
            }
            let collectives = self.collectives.as_mut().context("ranks are joined")?;
            exchanging(backend, 0, |backend| {
                for (map, (handle, changes)) in &gathering {
                    collectives.wait(*handle)?;
                    if let Some(changes) = changes {
                        let _ = backend.flat(*map).shallow_clone().f_add_(&changes.f_to_kind(Kind::Float)?)?;
                    }
                }
                collectives.settle()
            })?;
            self.factors.clear();
            self.gradients.clear();
        }
        for of_map in alone {
            let factors = of_map.iter().map(|update| backend.factors(update)).collect::<Result<_>>()?;
            update_whole(backend, of_map[0].map, factors, steps)?;
        }
        backend.settle()
    }

    fn settle(&mut self) {
        self.taken.clear();
        self.pending.clear();
        let handles = std::mem::take(&mut self.factors).into_values().map(|(handle, _)| handle);
        let handles = handles.chain(std::mem::take(&mut self.gradients).into_values().map(|scattering| scattering.handle));
        let Some(collectives) = &mut self.collectives else { return };
        // The step has failed already, and its first error says more.
        let _ = handles.into_iter().try_for_each(|handle| collectives.wait(handle)).and_then(|()| collectives.settle());
    }
}

/// The gradient of a map from the factors of all its updates, and the optimiser on all of it.
fn update_whole(backend: &mut TorchBackend, map: MapId, factors: Vec<(Tensor, Tensor)>, steps: Optimizers) -> Result<()> {
    let (pre, post) = one_after_the_other(factors)?;
    let gradient = backend.gradient(map, &pre, &post)?;
    backend.optimize(map, 0..gradient.numel(), &gradient, &steps.of(map))
}

/// The factors of several updates of a map, as those of one that has the samples of them all.
fn one_after_the_other(mut factors: Vec<(Tensor, Tensor)>) -> Result<(Tensor, Tensor)> {
    if factors.len() == 1 {
        return factors.pop().context("there is one");
    }
    let (pre, post): (Vec<Tensor>, Vec<Tensor>) = factors.into_iter().unzip();
    Ok((Tensor::f_cat(&pre, 1)?, Tensor::f_cat(&post, 1)?))
}

/// Gathered factors as those of the global batch, [positions, samples of all ranks, channels].
fn joined(all: &Tensor) -> Result<Tensor> {
    let (ranks, positions, samples, channels) = all.size4()?;
    all.f_to_kind(Kind::Float)?
        .f_permute([1, 0, 2, 3])?
        .f_reshape([positions, ranks * samples, channels])
        .context("factors cannot be joined")
}

/// Enters the time that `communicate` takes as exchange, and the bytes that it brings.
fn exchanging<T>(backend: &mut TorchBackend, bytes: usize, communicate: impl FnOnce(&mut TorchBackend) -> Result<T>) -> Result<T> {
    backend.timed(Doing::Device, 0.0, bytes as f64, communicate)
}
