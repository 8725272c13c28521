//! A batch as it comes, `[sample][position][channel]`, laid out as kernels read it, `[position][sample][channel]`.
//!
//! Neighbouring pixels of a sample go to places as far apart as all samples of a position take. A whole image written so would touch every
//! cache line of the input for each sample, more than caches hold; so it is done in blocks of positions, whose lines stay until they are full.

use std::ops::Range;

use super::CpuBackend;
use super::elementwise::Values;
use crate::compute::Activity;
use crate::observe::Doing;

/// Elements of a block: 128 KiB.
const BLOCK: usize = 1 << 15;

/// Where a batch comes from and goes to. Nobody writes to the same positions of the same samples.
pub struct LayOut<'a> {
    pub pixels: &'a [f32],
    pub to: Values,
    pub samples: usize,
    pub positions: usize,
    pub channels: usize,
    /// Elements between samples of a position.
    pub stride: usize,
}

impl LayOut<'_> {
    /// These positions of these samples.
    ///
    /// # Safety
    /// `to` must hold them.
    pub unsafe fn run(&self, positions: Range<usize>, samples: Range<usize>) {
        let block = (BLOCK / (self.samples * self.stride)).max(1);
        for begin in positions.clone().step_by(block) {
            let some = begin..(begin + block).min(positions.end);
            for sample in samples.clone() {
                // SAFETY: the caller's promise. Of the usual images a copy is a move or two, where the compiler knows the channels.
                unsafe {
                    match self.channels {
                        1 => self.copy(1, &some, sample),
                        3 => self.copy(3, &some, sample),
                        channels => self.copy(channels, &some, sample),
                    }
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn copy(&self, channels: usize, positions: &Range<usize>, sample: usize) {
        let image = sample * self.positions;
        let pixels = &self.pixels[(image + positions.start) * channels..(image + positions.end) * channels];
        for (position, pixel) in positions.clone().zip(pixels.chunks_exact(channels)) {
            let at = (position * self.samples + sample) * self.stride;
            // SAFETY: the caller's promise.
            unsafe { std::ptr::copy_nonoverlapping(pixel.as_ptr(), self.to.at(at), channels) };
        }
    }
}

impl CpuBackend {
    /// [`Backend::step_along`](crate::compute::Backend::step_along) from the input, whose rows are not padded to vectors as those of other activities are.
    pub(super) fn step_from_input(&mut self, y: Activity, scale: f32, change: Activity, destination: Activity) {
        let (from, to) = (self.place(y), self.place(destination));
        assert_eq!((from.shape, to.stride), (to.shape, self.place(change).stride), "activities of the input's shape");
        let (y, change, out) = (self.values(y), self.values(change), self.values(destination));
        self.timed((Doing::Elementwise, None), 0.0, 12 * self.elements(destination), |this| {
            this.by_sample(destination, |samples| {
                for position in 0..samples.positions {
                    for sample in samples.begin..samples.end {
                        let row = position * samples.batch + sample;
                        for channel in 0..to.shape.channels {
                            let (read, at) = (row * from.stride + channel, row * to.stride + channel);
                            // SAFETY: the three have the input's shape and these strides, and this thread alone has the sample.
                            unsafe { *out.at(at) = *y.at(read) + scale * *change.at(at) };
                        }
                    }
                }
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pixel_goes_to_its_place_and_nothing_else_is_written() {
        // Of the last a block has 84 positions.
        for (samples, positions, channels, stride) in [(1, 1, 7, 16), (3, 5, 1, 1), (2, 11, 4, 16), (129, 300, 3, 3)] {
            let pixels: Vec<f32> = (0..samples * positions * channels).map(|index| index as f32).collect();
            let mut to = vec![-1.0; positions * samples * stride];
            let layout = LayOut { pixels: &pixels, to: Values(to.as_mut_ptr()), samples, positions, channels, stride };
            // SAFETY: `to` has room, and nobody else has it.
            unsafe {
                layout.run(0..positions / 2, 0..samples);
                layout.run(positions / 2..positions, 0..samples / 2);
                layout.run(positions / 2..positions, samples / 2..samples);
            }
            for (index, value) in to.iter().enumerate() {
                let (place, channel) = (index / stride, index % stride);
                let (position, sample) = (place / samples, place % samples);
                let wanted = if channel < channels { pixels[(sample * positions + position) * channels + channel] } else { -1.0 };
                assert_eq!(*value, wanted, "{position} {sample} {channel}");
            }
        }
    }
}
