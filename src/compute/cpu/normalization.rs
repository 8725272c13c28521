//! The operations of batch normalisation on the CPU: each one parallel pass over samples.

use std::marker::PhantomData;

use super::CpuBackend;
use super::channels::{ChannelSums, MapChannels, ThroughChannels, padded};
use super::elementwise::{Samples, Sloped};
use super::nonlinearity::through;
use super::simd::Isa;
use crate::compute::{Activity, ByChannel};
use crate::network::Shape;
use crate::observe::Doing;

impl CpuBackend {
    /// Runs `body` over the samples of activities shaped as `like`, `operands` of which are read or written.
    fn by_channel(&mut self, like: Activity, operands: usize, body: impl Fn(Isa, Samples) + Sync) {
        let bytes = 4 * operands * self.elements(like);
        self.timed((Doing::Elementwise, None), 0.0, bytes, |this| this.by_sample(like, |samples| body(this.isa, samples)));
    }
}

impl ByChannel for CpuBackend {
    fn fill(&mut self, destination: Activity, values: &[f32]) {
        let (slot, to) = (self.place(destination), self.values(destination));
        for row in 0..slot.shape.positions() * self.batch {
            // SAFETY: each position of a sample has so many channels, and the backend is borrowed by this alone.
            unsafe { std::slice::from_raw_parts_mut(to.at(row * slot.stride), slot.shape.channels) }.copy_from_slice(values);
        }
    }

    fn channel_sums(&mut self, a: Activity, around: &[f32], b: Option<(Activity, [&[f32]; 2])>, destination: Activity) {
        let (slot, to) = (self.place(a), self.place(destination));
        assert_eq!(to.shape, Shape::flat(2 * slot.shape.channels), "two sums for each channel");
        let around = padded(around, slot.stride);
        let [values, out] = [a, destination].map(|activity| self.values(activity));
        let of_b = b.map_or_else(Default::default, |(_, of_channels)| of_channels.map(|values| padded(values, slot.stride)));
        let b = b.map(|(b, _)| (self.values(b), [&of_b[0][..], &of_b[1][..]]));
        let (channels, to_stride) = (slot.shape.channels, to.stride);
        // SAFETY: a and b have the slot's shape, the destination two numbers a channel, and this thread alone has the samples.
        self.by_channel(a, 1 + usize::from(b.is_some()), |isa, samples| unsafe {
            isa.run(ChannelSums { samples, channels, a: values, around: &around, b, to: out, to_stride });
        });
    }

    fn map_channels(&mut self, a: Activity, of_channels: [&[f32]; 3], destination: Activity) {
        let slot = self.place(destination);
        let [subtract, scale, shift] = of_channels.map(|values| padded(values, slot.stride));
        let a = self.values(a);
        through!(slot.nonlinearity, N => {
            let [y, pre_activation] = [self.values(destination), self.pre_activations(destination)];
            // SAFETY: both have the slot's shape, and this thread alone has the samples.
            self.by_channel(destination, 2, |isa, samples| unsafe {
                let to = Sloped::<N> { y, pre_activation, nonlinearity: PhantomData };
                isa.run(MapChannels { samples, a, subtract: &subtract, scale: &scale, shift: &shift, to });
            });
        });
    }

    fn through_channels(&mut self, delta: Activity, a: Activity, of_channels: [&[f32]; 4], destination: Activity) {
        let stride = self.place(delta).stride;
        let [factor, mean, around, slope] = of_channels.map(|values| padded(values, stride));
        let [error, a, to] = [delta, a, destination].map(|activity| self.values(activity));
        // SAFETY: all three have one shape, and this thread alone has the samples.
        self.by_channel(delta, 3, |isa, samples| unsafe {
            isa.run(ThroughChannels { samples, delta: error, a, factor: &factor, mean: &mean, around: &around, slope: &slope, to });
        });
    }
}
