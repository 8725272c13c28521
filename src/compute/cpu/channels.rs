//! What batch normalisation does to each channel: sums over a sample's positions, and maps with numbers of the channel's own.

use super::elementwise::{Samples, Sloped, Values};
use super::nonlinearity::Through;
use super::simd::{Kernel, Simd};

/// Numbers of each channel, and zeros to the end of the row.
pub fn padded(values: &[f32], stride: usize) -> Vec<f32> {
    let mut row = values.to_vec();
    row.resize(stride, 0.0);
    row
}

/// `to = [sum a' b', sum a']` over the positions of each sample, with `a' = a - around` and `b' = (b - subtract) scale`, or a' where there is no
/// `(b, [subtract, scale])`. A sum runs in the order of positions.
pub struct ChannelSums<'a> {
    pub samples: Samples,
    pub channels: usize,
    pub a: Values,
    pub around: &'a [f32],
    pub b: Option<(Values, [&'a [f32]; 2])>,
    pub to: Values,
    pub to_stride: usize,
}

impl Kernel for ChannelSums<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Samples { stride, begin, end, .. } = self.samples;
        // Position after position lies in memory, so all samples' sums grow together.
        let len = (end - begin) * stride;
        let mut sums = vec![0.0f32; 2 * len];
        let sums = Values(sums.as_mut_ptr());
        self.samples.each(|at, sample, channel| unsafe {
            let of = |values: &[f32]| S::load(values.as_ptr().add(channel));
            let a = S::load(self.a.at(at)).sub(of(self.around));
            let b = self.b.map_or(a, |(b, [subtract, scale])| S::load(b.at(at)).sub(of(subtract)).mul(of(scale)));
            let own = (sample - begin) * stride + channel;
            a.mul_add(b, S::load(sums.at(own))).store(sums.at(own));
            S::load(sums.at(len + own)).add(a).store(sums.at(len + own));
        });
        for sample in begin..end {
            for (first, half) in [(0, 0), (self.channels, len)] {
                for channel in 0..self.channels {
                    unsafe {
                        *self.to.at(sample * self.to_stride + first + channel) = *sums.at(half + (sample - begin) * stride + channel)
                    };
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
        self.samples.each(|at, _, channel| unsafe {
            let [subtract, scale, shift] = [self.subtract, self.scale, self.shift].map(|of| S::load(of.as_ptr().add(channel)));
            let value = S::load(self.a.at(at)).sub(subtract).mul_add(scale, shift);
            if !N::NONLINEARITY.slope_follows_from_value() {
                value.store(self.to.pre_activation.at(at));
            }
            N::value(value).store(self.to.y.at(at));
        });
    }
}

/// `to = factor (delta - mean - (a - around) slope)`.
pub struct ThroughChannels<'a> {
    pub samples: Samples,
    pub delta: Values,
    pub a: Values,
    pub factor: &'a [f32],
    pub mean: &'a [f32],
    pub around: &'a [f32],
    pub slope: &'a [f32],
    pub to: Values,
}

impl Kernel for ThroughChannels<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.samples.each(|at, _, channel| unsafe {
            let of = |values: &[f32]| S::load(values.as_ptr().add(channel));
            let along = S::load(self.a.at(at)).sub(of(self.around)).mul(of(self.slope));
            let error = S::load(self.delta.at(at)).sub(of(self.mean)).sub(along);
            error.mul(of(self.factor)).store(self.to.at(at));
        });
    }
}
