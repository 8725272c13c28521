//! What batch normalisation does to each channel: sums over a sample's positions, and maps with numbers of the channel's own.

use super::elementwise::{Sloped, Values};
use super::nonlinearity::Through;
use super::simd::{Kernel, LANES, Simd};

/// Samples `begin..end` of an activity of [position][batch][stride].
#[derive(Clone, Copy)]
pub struct Samples {
    pub positions: usize,
    pub batch: usize,
    pub stride: usize,
    pub begin: usize,
    pub end: usize,
}

impl Samples {
    /// Calls `f(element, channel)` for each vector, channel by channel: positions come last.
    #[inline(always)]
    fn each(&self, mut f: impl FnMut(usize, usize)) {
        for position in 0..self.positions {
            for sample in self.begin..self.end {
                let row = (position * self.batch + sample) * self.stride;
                (0..self.stride).step_by(LANES).for_each(|channel| f(row + channel, channel));
            }
        }
    }
}

/// Numbers of each channel, and zeros to the end of the row.
pub fn padded(values: &[f32], stride: usize) -> Vec<f32> {
    let mut row = values.to_vec();
    row.resize(stride, 0.0);
    row
}

/// `to = [sum (a - around) b, sum (a - around)]` over the positions of each sample, with `a - around` in the place of b where there is none. A
/// sum runs in the order of positions.
pub struct ChannelSums<'a> {
    pub samples: Samples,
    pub channels: usize,
    pub a: Values,
    pub around: &'a [f32],
    pub b: Option<Values>,
    pub to: Values,
    pub to_stride: usize,
}

impl Kernel for ChannelSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Samples { positions, batch, stride, begin, end } = self.samples;
        for sample in begin..end {
            for channel in (0..stride).step_by(LANES) {
                unsafe {
                    let around = S::load(self.around.as_ptr().add(channel));
                    let (mut products, mut sums) = (S::splat(0.0), S::splat(0.0));
                    for position in 0..positions {
                        let at = (position * batch + sample) * stride + channel;
                        let a = S::load(self.a.at(at)).sub(around);
                        let b = self.b.map_or(a, |b| S::load(b.at(at)));
                        products = a.mul_add(b, products);
                        sums = sums.add(a);
                    }
                    let mut lanes = [0.0f32; LANES];
                    for (sum, first) in [(products, 0), (sums, self.channels)] {
                        sum.store(lanes.as_mut_ptr());
                        for (lane, value) in lanes.iter().enumerate().take(self.channels.saturating_sub(channel)) {
                            *self.to.at(sample * self.to_stride + first + channel + lane) = *value;
                        }
                    }
                }
            }
        }
    }
}

/// `to = s((a - subtract) scale + shift)`.
pub struct MapChannels<'a, N> {
    pub samples: Samples,
    pub a: Values,
    pub subtract: &'a [f32],
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    pub to: Sloped<N>,
}

impl<N: Through> Kernel for MapChannels<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.samples.each(|at, channel| unsafe {
            let [subtract, scale, shift] = [self.subtract, self.scale, self.shift].map(|of| S::load(of.as_ptr().add(channel)));
            let value = S::load(self.a.at(at)).sub(subtract).mul_add(scale, shift);
            if !N::NONLINEARITY.slope_follows_from_value() {
                value.store(self.to.pre_activation.at(at));
            }
            N::value(value).store(self.to.y.at(at));
        });
    }
}

/// `to = factor (delta - mean - normal product)`.
pub struct ThroughChannels<'a> {
    pub samples: Samples,
    pub delta: Values,
    pub normal: Values,
    pub factor: &'a [f32],
    pub mean: &'a [f32],
    pub product: &'a [f32],
    pub to: Values,
}

impl Kernel for ThroughChannels<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.samples.each(|at, channel| unsafe {
            let [factor, mean, product] = [self.factor, self.mean, self.product].map(|of| S::load(of.as_ptr().add(channel)));
            let error = S::load(self.delta.at(at)).sub(mean).sub(S::load(self.normal.at(at)).mul(product));
            error.mul(factor).store(self.to.at(at));
        });
    }
}
