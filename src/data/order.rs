//! Which sample, when.
//!
//! The order of an epoch is a pure function of the seed and the epoch, drawn for the whole data set before it is divided into global
//! batches and those among the ranks. So it is the same for any number of ranks, and a position in training is one integer: the
//! number of batches before it. A whole permutation of a million samples takes some hundredths of a second, once an epoch, which a
//! loading thread spends ahead of time.

use std::ops::Range;

use shards::random::{permutation, philox};

/// How a data set is divided into batches, and which part of each is this rank's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchPlan {
    pub seed: u64,
    /// Samples of a batch, of all ranks together; a multiple of the world size.
    pub batch_size: usize,
    /// Whether each epoch has an order of its own; else samples come as they are stored.
    pub shuffle: bool,
    pub rank: usize,
    pub world_size: usize,
}

impl BatchPlan {
    /// The places of this rank's samples in the global batch.
    pub fn part(&self) -> Range<usize> {
        let each = self.batch_size / self.world_size;
        self.rank * each..(self.rank + 1) * each
    }
}

/// A batch of training: the passes over the data before it, and the batches of its own pass before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    pub epoch: u64,
    pub batch: u64,
}

impl Position {
    /// The position after `batches` batches of training.
    pub fn after(batches: u64, batches_per_epoch: usize) -> Position {
        let per_epoch = batches_per_epoch as u64;
        Position { epoch: batches / per_epoch, batch: batches % per_epoch }
    }

    /// Batches of training before this one.
    pub fn batches_before(&self, batches_per_epoch: usize) -> u64 {
        self.epoch * batches_per_epoch as u64 + self.batch
    }
}

/// Whole batches in one pass over `samples`; what is left over is no part of that pass.
pub fn batches_per_epoch(samples: usize, batch_size: usize) -> usize {
    samples / batch_size
}

/// The part of `samples` that `rank` evaluates: contiguous, in the order of the ranks, and of equal length but for one sample.
pub fn evaluation_part(samples: usize, rank: usize, world_size: usize) -> Range<usize> {
    let start = |rank: usize| (samples as u128 * rank as u128 / world_size as u128) as usize;
    start(rank)..start(rank + 1)
}

/// `count` places of `samples`, evenly apart: of every class its share where a data set is stored class by class. At most `samples`
/// of them are different.
pub fn evenly(samples: usize, count: usize) -> impl ExactSizeIterator<Item = usize> {
    (0..count).map(move |number| (samples as u128 * number as u128 / count as u128) as usize)
}

/// What a permutation is drawn for; each purpose has random numbers of its own.
#[derive(Clone, Copy, Debug)]
enum Purpose {
    Epoch(u64),
    Validation,
}

impl Purpose {
    /// A seed for this purpose alone.
    fn seed(self, seed: u64) -> u64 {
        let (epoch, tag) = match self {
            Purpose::Epoch(epoch) => (epoch, *b"epoc"),
            Purpose::Validation => (0, *b"vali"),
        };
        let words = philox(seed, [epoch as u32, (epoch >> 32) as u32, 0, u32::from_le_bytes(tag)]);
        u64::from(words[0]) | u64::from(words[1]) << 32
    }
}

/// The order of an epoch: a permutation of `0..samples`, uniformly drawn by seed and epoch.
pub fn epoch_order(seed: u64, epoch: u64, samples: usize) -> Vec<usize> {
    permutation(Purpose::Epoch(epoch).seed(seed), samples)
}

/// Divides `0..samples` by seed into what is left for training and `validation` samples set apart, both ascending.
pub fn split(seed: u64, samples: usize, validation: usize) -> (Vec<usize>, Vec<usize>) {
    let mut apart = permutation(Purpose::Validation.seed(seed), samples);
    let mut training = apart.split_off(validation);
    training.sort_unstable();
    apart.sort_unstable();
    (training, apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_permutation(order: &[usize]) -> bool {
        let mut sorted = order.to_vec();
        sorted.sort_unstable();
        sorted.iter().enumerate().all(|(place, &sample)| place == sample)
    }

    #[test]
    fn every_epoch_is_a_permutation_of_its_own() {
        for samples in [0, 1, 2, 3, 7, 64, 1000, 60_000] {
            assert!(is_permutation(&epoch_order(3, 5, samples)), "{samples} samples");
        }
        let order = epoch_order(3, 5, 1000);
        assert_eq!(order, epoch_order(3, 5, 1000));
        for other in [epoch_order(3, 6, 1000), epoch_order(4, 5, 1000), epoch_order(5, 3, 1000)] {
            // Two independent permutations agree in about one place.
            let same = order.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} places of 1000 agree");
        }
    }

    #[test]
    fn all_permutations_are_equally_likely() {
        let mut counts = std::collections::HashMap::new();
        let epochs = 24_000u64;
        for epoch in 0..epochs {
            *counts.entry(epoch_order(9, epoch, 4)).or_insert(0u64) += 1;
        }
        assert_eq!(counts.len(), 24);
        let expected = epochs as f64 / 24.0;
        let chi_square: f64 = counts.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum();
        // 23 degrees of freedom: beyond 49.7 once in a thousand.
        assert!(chi_square < 49.7, "chi square {chi_square} in {counts:?}");
    }

    #[test]
    fn the_order_never_changes_between_versions() {
        // A run that is continued by a newer program must see the same batches. Computed by another program, from Philox's definition.
        assert_eq!(epoch_order(0, 0, 10), [9, 2, 0, 6, 4, 8, 1, 5, 7, 3]);
        assert_eq!(epoch_order(u64::MAX, 1 << 40, 10), [4, 2, 9, 0, 3, 7, 5, 1, 8, 6]);
        assert_eq!(split(7, 1000, 100).1[..8], [11, 13, 32, 56, 68, 75, 113, 117]);
    }

    #[test]
    fn places_evenly_apart_take_every_class_its_share() {
        assert_eq!(evenly(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(evenly(3, 3).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(evenly(usize::MAX, 2).collect::<Vec<_>>(), [0, usize::MAX / 2]);
        let mut counts = [0; 10];
        evenly(50_000, 128).for_each(|place| counts[place / 5_000] += 1);
        assert!(counts.iter().all(|count| (12..=13).contains(count)), "{counts:?}");
    }

    #[test]
    fn validation_and_training_share_no_sample() {
        let (training, validation) = split(7, 1000, 100);
        assert_eq!((training.len(), validation.len()), (900, 100));
        assert!(training.is_sorted() && validation.is_sorted());
        assert!(is_permutation(&[&training[..], &validation].concat()));
        assert_eq!(split(7, 1000, 100), (training, validation.clone()));
        assert_ne!(split(8, 1000, 100).1, validation);
        // Spread over the whole set: the mean of 100 of 1000 deviates from the middle by 27.4 in one case of three.
        let mean = validation.iter().map(|&sample| sample as f64).sum::<f64>() / 100.0;
        assert!((mean - 499.5).abs() < 4.0 * 27.4, "mean {mean}");
    }

    #[test]
    fn the_ranks_parts_tile_the_global_batch() {
        for world_size in 1..=5 {
            let batch_size = 12 * world_size;
            let plan = |rank| BatchPlan { seed: 0, batch_size, shuffle: true, rank, world_size };
            let places: Vec<usize> = (0..world_size).flat_map(|rank| plan(rank).part()).collect();
            assert!(places.into_iter().eq(0..batch_size), "{world_size} ranks");
        }
    }

    #[test]
    fn evaluation_parts_cover_every_sample_once() {
        for samples in [0, 1, 2, 5, 97, 100, 10_001] {
            for world_size in 1..=5 {
                let parts: Vec<Range<usize>> = (0..world_size).map(|rank| evaluation_part(samples, rank, world_size)).collect();
                assert!(parts.iter().cloned().flatten().eq(0..samples), "{samples} samples, {world_size} ranks");
                let lengths: Vec<usize> = parts.iter().map(Range::len).collect();
                assert!(lengths.iter().max().unwrap() - lengths.iter().min().unwrap() <= 1, "{lengths:?}");
            }
        }
    }

    #[test]
    fn a_position_is_one_integer() {
        for batches in [0, 1, 467, 468, 469, 100_000] {
            let position = Position::after(batches, 468);
            assert!(position.batch < 468);
            assert_eq!(position.batches_before(468), batches);
        }
        assert_eq!(Position::after(469, 468), Position { epoch: 1, batch: 1 });
        assert_eq!(batches_per_epoch(60_000, 128), 468);
    }
}
