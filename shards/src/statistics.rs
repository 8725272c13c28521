//! Mean and deviation of each channel, from exact integer sums.
//!
//! Sums of integers do not depend on the order of summation, so the statistics are the same whatever the number of threads
//! and shards; 2^64 holds the squares of 2.8e14 pixels.

use serde::{Deserialize, Serialize};

/// Mean and population deviation of each channel of x / 255, over all pixels of all samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelStatistics {
    pub mean: Vec<f64>,
    pub deviation: Vec<f64>,
}

/// Sums of a set of pixels, per channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PixelSums {
    /// Pixels per channel.
    pub pixels: u64,
    /// Sum of x and of x² for each channel.
    pub channels: Vec<[u64; 2]>,
}

impl PixelSums {
    pub fn new(channels: usize) -> PixelSums {
        PixelSums { pixels: 0, channels: vec![[0; 2]; channels] }
    }

    /// Sums of one image, `pixels` being [H, W, C].
    pub fn of(pixels: &[u8], channels: usize) -> PixelSums {
        let mut sums = PixelSums::new(channels);
        sums.pixels = (pixels.len() / channels) as u64;
        match channels {
            1 => sums.channels[0] = sums_of::<1>(pixels)[0],
            3 => sums.channels.copy_from_slice(&sums_of::<3>(pixels)),
            _ => {
                for pixel in pixels.chunks_exact(channels) {
                    for (sum, &x) in sums.channels.iter_mut().zip(pixel) {
                        sum[0] += u64::from(x);
                        sum[1] += u64::from(x).pow(2);
                    }
                }
            }
        }
        sums
    }

    /// Adds another set's sums; `None` where a sum would exceed 2^64.
    pub fn checked_add(&mut self, other: &PixelSums) -> Option<()> {
        self.pixels = self.pixels.checked_add(other.pixels)?;
        for (sum, added) in self.channels.iter_mut().zip(&other.channels) {
            sum[0] = sum[0].checked_add(added[0])?;
            sum[1] = sum[1].checked_add(added[1])?;
        }
        Some(())
    }

    /// Mean and deviation; zero where there are no pixels.
    pub fn statistics(&self) -> ChannelStatistics {
        let count = u128::from(self.pixels.max(1));
        let mean = |sum: &[u64; 2]| sum[0] as f64 / (255.0 * count as f64);
        let deviation = |sum: &[u64; 2]| {
            // n Σx² - (Σx)² in integers: no cancellation.
            let scaled = (count * u128::from(sum[1])).saturating_sub(u128::from(sum[0]) * u128::from(sum[0]));
            (scaled as f64).sqrt() / (255.0 * count as f64)
        };
        ChannelStatistics { mean: self.channels.iter().map(mean).collect(), deviation: self.channels.iter().map(deviation).collect() }
    }
}

/// The sums for a number of channels known to the compiler. 32-bit partial sums over short stretches let it vectorise.
fn sums_of<const C: usize>(pixels: &[u8]) -> [[u64; 2]; C] {
    let mut total = [[0u64; 2]; C];
    // 65025 * 32768 < 2^32.
    for stretch in pixels.chunks(C * 32768) {
        let mut partial = [[0u32; 2]; C];
        for pixel in stretch.chunks_exact(C) {
            for c in 0..C {
                let x = u32::from(pixel[c]);
                partial[c][0] += x;
                partial[c][1] += x * x;
            }
        }
        for c in 0..C {
            total[c][0] += u64::from(partial[c][0]);
            total[c][1] += u64::from(partial[c][1]);
        }
    }
    total
}
