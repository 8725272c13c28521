//! Pools: windows without weights, channel by channel.
//!
//! What an average sends back is its error in equal parts; a maximum sends it to the place that won, the first where several are equal.
//! Sums have the order of links, so they are the same bits however samples are shared out.

use super::elementwise::Values;
use super::simd::{Kernel, LANES, Simd};
use crate::network::{Connectivity, Pool};

/// A pass through a pool. Source and destination are [positions, batch, stride] with the same channels.
pub struct Pooling<'a> {
    /// From below to above, whichever way the pass goes.
    pub connectivity: &'a Connectivity,
    pub pool: Pool,
    pub back: bool,
    pub source: Values,
    pub destination: Values,
    /// Of a maximum, the block of the link that won, as a number; shaped as what is above.
    pub winners: Values,
    pub batch: usize,
    pub stride: usize,
}

/// Samples `begin..end` of a pass.
pub struct Samples<'a> {
    pub pass: &'a Pooling<'a>,
    pub begin: usize,
    pub end: usize,
}

impl Kernel for Samples<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let pass = self.pass;
        let positions = if pass.back { pass.connectivity.sources } else { pass.connectivity.destinations };
        for position in 0..positions {
            for sample in self.begin..self.end {
                for channel in (0..pass.stride).step_by(LANES) {
                    unsafe {
                        let value = match (pass.pool, pass.back) {
                            (Pool::Average, false) => pass.average::<S>(position, sample, channel),
                            (Pool::Average, true) => pass.shares::<S>(position, sample, channel),
                            (Pool::Max, false) => pass.maximum::<S>(position, sample, channel),
                            (Pool::Max, true) => pass.won::<S>(position, sample, channel),
                        };
                        value.store(pass.destination.at(pass.element(position, sample, channel)));
                    }
                }
            }
        }
    }
}

impl Pooling<'_> {
    fn element(&self, position: usize, sample: usize, channel: usize) -> usize {
        (position * self.batch + sample) * self.stride + channel
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(&self, position: u32, sample: usize, channel: usize) -> S {
        unsafe { S::load(self.source.at(self.element(position as usize, sample, channel))) }
    }

    /// One over the places of a window that are inside the image.
    fn share(&self, destination: usize) -> f32 {
        1.0 / self.connectivity.by_destination.of(destination).len() as f32
    }

    #[inline(always)]
    unsafe fn average<S: Simd>(&self, destination: usize, sample: usize, channel: usize) -> S {
        unsafe {
            let mut sum = S::splat(0.0);
            for link in self.connectivity.by_destination.of(destination) {
                sum = sum.add(self.load(link.source, sample, channel));
            }
            sum.mul(S::splat(self.share(destination)))
        }
    }

    #[inline(always)]
    unsafe fn shares<S: Simd>(&self, source: usize, sample: usize, channel: usize) -> S {
        unsafe {
            let mut sum = S::splat(0.0);
            for link in self.connectivity.by_source.of(source) {
                sum = sum.add(self.load::<S>(link.destination, sample, channel).mul(S::splat(self.share(link.destination as usize))));
            }
            sum
        }
    }

    #[inline(always)]
    unsafe fn maximum<S: Simd>(&self, destination: usize, sample: usize, channel: usize) -> S {
        let (first, others) = self.connectivity.by_destination.of(destination).split_first().expect("a window reaches into the image");
        unsafe {
            let mut largest: S = self.load(first.source, sample, channel);
            let mut winner = S::splat(first.block as f32);
            // No number is larger than what is none, wherever it stands: it is kept by itself.
            let mut not_finite = S::splat(0.0);
            for link in others {
                let value: S = self.load(link.source, sample, channel);
                not_finite = value.mul_add(S::splat(0.0), not_finite);
                let more = value.sub(largest);
                largest = more.where_positive(value, largest);
                winner = more.where_positive(S::splat(link.block as f32), winner);
            }
            winner.store(self.winners.at(self.element(destination, sample, channel)));
            largest.add(not_finite)
        }
    }

    #[inline(always)]
    unsafe fn won<S: Simd>(&self, source: usize, sample: usize, channel: usize) -> S {
        unsafe {
            let mut sum = S::splat(0.0);
            for link in self.connectivity.by_source.of(source) {
                let winner = S::load(self.winners.at(self.element(link.destination as usize, sample, channel)));
                let apart = winner.sub(S::splat(link.block as f32));
                let error = self.load::<S>(link.destination, sample, channel);
                sum = sum.add(S::splat(0.5).sub(apart.mul(apart)).where_positive(error, S::splat(0.0)));
            }
            sum
        }
    }
}
