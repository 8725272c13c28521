//! What travels between GPUs rounded to bf16 (`parallel.wire`): half the bytes of factors, of gradients, and of the changes of parameters.
//!
//! What was rounded counts for the rank that it comes from too, or replicas would drift apart: it takes its own factors as the others get
//! them, and adds its change as they do to what its parameters were before.

use anyhow::Result;

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::launches;
use super::marks::Work;
use crate::compute::Activity;
use crate::network::MapId;
use crate::observe::Doing;

/// Rounds `source`, less `base` where there is one.
fn rounds(source: Address, base: Address, rounded: Address, floats: usize) -> c::Wire {
    c::Wire { source: source.0, base: base.0, rounded: rounded.0, out: 0, count: floats as i64 }
}

/// Takes what was rounded, and adds it to `base` where there is one.
fn takes(rounded: Address, base: Address, out: Address, floats: usize) -> c::Wire {
    c::Wire { source: 0, base: base.0, rounded: rounded.0, out: out.0, count: floats as i64 }
}

impl CudaBackend {
    fn convert(&mut self, layer: Option<usize>, all: &[c::Wire]) -> Result<()> {
        let bytes = all.iter().map(|one| 6.0 * one.count as f64).sum();
        self.perform_apart(Work::new(Doing::Device, layer, 0.0, bytes), |_, launches| {
            all.iter().filter(|one| one.count > 0).for_each(|one| launches::wire(launches, one));
            Ok(())
        })
    }

    /// Rounds this rank's values of an activity that ranks gather. Where all ranks' have their places, and the bytes of each.
    pub fn round_factor(&mut self, activity: Activity) -> Result<(Address, usize)> {
        let (_, each) = self.gathered(activity)?;
        let (wire, floats) = (self.wire_of(activity), each / 4);
        let own = wire.offset(self.rank * each / 2);
        self.convert(None, &[rounds(self.values(activity), Address::NULL, own, floats)])?;
        Ok((wire, each / 2))
    }

    /// Takes all ranks' values, when they have arrived.
    pub fn take_factor(&mut self, activity: Activity) -> Result<()> {
        let (all, each) = self.gathered(activity)?;
        self.convert(None, &[takes(self.wire_of(activity), Address::NULL, all, self.size * each / 4)])
    }

    /// Rounds this rank's gradient of a map. Where it lies then, and the bytes of each rank's part.
    pub fn round_gradient(&mut self, map: MapId) -> Result<(Address, usize)> {
        let (floats, [wire, _]) = (self.parameters[map.0].padded, self.wire_of_map(map));
        self.convert(Some(self.maps.get(map).layer), &[rounds(self.gradients(map), Address::NULL, wire, floats)])?;
        Ok((wire, self.bytes_of_part(map) / 2))
    }

    /// Takes this rank's part of the sum over ranks, and keeps its parameters as they are before the update.
    pub fn take_gradient(&mut self, map: MapId) -> Result<()> {
        let (owned, [wire, before]) = (self.parameters[map.0].owned.clone(), self.wire_of_map(map));
        let own = wire.offset(2 * owned.start);
        let part = self.part_of_gradient(map);
        self.convert(Some(self.maps.get(map).layer), &[takes(own, Address::NULL, part, owned.len())])?;
        // SAFETY: both hold this rank's part, and are apart.
        unsafe { self.gpu.copy(before, self.parameters_at(map).offset(4 * owned.start), 4 * owned.len(), self.stream) }
    }

    /// Rounds how this rank's part of the parameters has changed. Where all ranks' changes have their places, and the bytes of each.
    pub fn round_change(&mut self, map: MapId) -> Result<(Address, usize)> {
        let (owned, [wire, before]) = (self.parameters[map.0].owned.clone(), self.wire_of_map(map));
        let (now, own) = (self.parameters_at(map).offset(4 * owned.start), wire.offset(2 * owned.start));
        self.convert(Some(self.maps.get(map).layer), &[rounds(now, before, own, owned.len())])?;
        Ok((wire, self.bytes_of_part(map) / 2))
    }

    /// Adds all ranks' changes, when they have arrived.
    pub fn take_changes(&mut self, map: MapId) -> Result<()> {
        let (owned, padded) = (self.parameters[map.0].owned.clone(), self.parameters[map.0].padded);
        let ([wire, before], values) = (self.wire_of_map(map), self.parameters_at(map));
        let part = |from: usize, to: usize, base: Option<Address>| {
            let out = values.offset(4 * from);
            takes(wire.offset(2 * from), base.unwrap_or(out), out, to - from)
        };
        let all = [part(0, owned.start, None), part(owned.start, owned.end, Some(before)), part(owned.end, padded, None)];
        self.convert(Some(self.maps.get(map).layer), &all)
    }
}
