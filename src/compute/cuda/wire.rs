//! What travels between GPUs rounded to bf16 (`parallel.wire`): half the bytes of factors, of gradients, and of the changes of parameters.
//!
//! What was rounded counts for the rank that it comes from too, or replicas would drift apart: it takes its own factors as the others get
//! them, and adds its change as they do to what its parameters were before.

use std::ops::Range;

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

    /// Rounds this rank's gradient of a map. Where it lies then.
    pub fn round_gradient(&mut self, map: MapId) -> Result<Address> {
        let (floats, [wire, _]) = (self.parameters[map.0].padded, self.wire_of_map(map));
        self.convert(Some(self.maps.get(map).layer), &[rounds(self.gradients(map), Address::NULL, wire, floats)])?;
        Ok(wire)
    }

    /// Takes this rank's parts of the sum over ranks.
    pub fn take_gradient(&mut self, map: MapId) -> Result<()> {
        let ([wire, _], gradients) = (self.wire_of_map(map), self.gradients(map));
        let part = |own: Range<usize>| takes(wire.offset(2 * own.start), Address::NULL, gradients.offset(4 * own.start), own.len());
        let all = self.parameters[map.0].parts().map(|(own, _)| part(own));
        self.convert(Some(self.maps.get(map).layer), &all)
    }

    /// Keeps this rank's parts of a map as they are before an update.
    pub fn keep_before(&mut self, map: MapId) -> Result<()> {
        let ([_, before], values) = (self.wire_of_map(map), self.parameters_at(map));
        let parts = self.parameters[map.0].parts();
        for (own, at) in parts.into_iter().filter(|(own, _)| !own.is_empty()) {
            // SAFETY: both hold this rank's part, and are apart.
            unsafe { self.gpu.copy(before.offset(4 * at.start), values.offset(4 * own.start), 4 * own.len(), self.stream)? };
        }
        Ok(())
    }

    /// Where all ranks' changes of a map travel.
    pub fn changes(&self, map: MapId) -> Address {
        self.wire_of_map(map)[0]
    }

    /// Rounds how this rank's parts of a map have changed.
    pub fn round_change(&mut self, map: MapId) -> Result<()> {
        let ([wire, before], values) = (self.wire_of_map(map), self.parameters_at(map));
        let all = self.parameters[map.0]
            .parts()
            .map(|(own, at)| rounds(values.offset(4 * own.start), before.offset(4 * at.start), wire.offset(2 * own.start), own.len()));
        self.convert(Some(self.maps.get(map).layer), &all)
    }

    /// Adds all ranks' changes, when they have arrived.
    pub fn take_changes(&mut self, map: MapId) -> Result<()> {
        let (parameters, [wire, before], values) = (&self.parameters[map.0], self.wire_of_map(map), self.parameters_at(map));
        let part = |from: usize, to: usize, base: Option<Address>| {
            let out = values.offset(4 * from);
            takes(wire.offset(2 * from), base.unwrap_or(out), out, to - from)
        };
        let [(weights, _), (biases, at)] = parameters.parts();
        let all = [
            part(0, weights.start, None),
            part(weights.start, weights.end, Some(before)),
            part(weights.end, biases.start, None),
            part(biases.start, biases.end, Some(before.offset(4 * at.start))),
            part(biases.end, parameters.padded, None),
        ];
        self.convert(Some(self.maps.get(map).layer), &all)
    }
}
