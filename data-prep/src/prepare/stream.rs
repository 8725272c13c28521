//! Raw samples of one shape, one after the other, into shards.

use anyhow::Result;
use shards::statistics::PixelSums;
use shards::writer::{DatasetWriter, FinishedShard};

use super::samples_per_shard;

/// What is known of the samples.
pub struct Stream {
    pub count: usize,
    /// Height and width.
    pub frame: (u32, u32),
    pub channels: usize,
    pub shard_mib: u32,
}

impl Stream {
    /// Writes the samples that `read` yields: it is called with each number in order, fills in the pixels, [H, W, C], and
    /// returns the label. Shards that an interrupted run finished are kept; their samples are read all the same.
    pub fn write(&self, writer: &DatasetWriter, mut read: impl FnMut(usize, &mut [u8]) -> Result<u32>) -> Result<Vec<FinishedShard>> {
        let length = self.frame.0 as usize * self.frame.1 as usize * self.channels;
        let mut pixels = vec![0; length];
        let per_shard = samples_per_shard(self.shard_mib, length as u64);
        let mut shards = Vec::new();
        for number in 0..self.count.div_ceil(per_shard) {
            let samples = number * per_shard..((number + 1) * per_shard).min(self.count);
            if let Some(shard) = writer.finished(number)? {
                for index in samples {
                    read(index, &mut pixels)?;
                }
                shards.push(shard);
                continue;
            }
            let mut shard = writer.shard(number)?;
            for index in samples {
                let label = read(index, &mut pixels)?;
                shard.add(&pixels, self.frame, label, &PixelSums::of(&pixels, self.channels))?;
            }
            shards.push(shard.finish()?);
        }
        Ok(shards)
    }
}
