//! Batch normalisation, on the way up and on the way down, against float64; and the same bits whatever rank a sample is on.

use super::memory::{Buffer, padded, random, unpadded};
use super::{emulation, launch};
use crate::compute::cuda::kernels::arguments as c;
use crate::compute::cuda::kernels::launches::{self, in_fours};

/// A layer on some positions.
struct Case {
    positions: usize,
    channels: usize,
    samples: usize,
    /// What the weights yield, and the error of y: \[position]\[sample]\[channel].
    a: Vec<f32>,
    delta: Vec<f32>,
    /// Scales and shifts; running means and variances.
    affine: Vec<f32>,
    statistics: Vec<f32>,
}

/// What a rank finds: y and, kept, its argument; drift; products; and the error of a. Without padding.
#[derive(PartialEq)]
struct Found([Vec<f32>; 5]);

impl Case {
    fn new(positions: usize, channels: usize, samples: usize) -> Case {
        let values = |seed, numbers: usize| random(seed, numbers);
        let each = positions * samples * channels;
        // Far from 0, as sums of squares are told from squares of sums there.
        let a = values(1, each).into_iter().map(|a| 3.0 + 0.5 * a).collect();
        let statistics = values(4, channels).into_iter().map(|mean| 2.9 + 0.1 * mean).chain(values(5, channels).into_iter().map(f32::abs));
        Case { positions, channels, samples, a, delta: values(2, each), affine: values(3, 2 * channels), statistics: statistics.collect() }
    }

    /// What `ranks` ranks find, each of which has as many samples.
    fn on_ranks(&self, ranks: usize) -> Vec<Found> {
        let (positions, channels, each) = (self.positions, self.channels, self.samples / ranks);
        let (pitch, wide) = (in_fours(channels), in_fours(2 * channels));
        let [affine, statistics] = [&self.affine, &self.statistics].map(|map| Buffer::of(&padded(map, 2 * channels)));
        let of_rank = |values: &[f32], rank: usize| {
            let rows = values.chunks_exact(channels).enumerate().filter(|(row, _)| row % self.samples / each == rank);
            Buffer::of(&padded(&rows.flat_map(|(_, row)| row.to_vec()).collect::<Vec<f32>>(), channels))
        };
        // All ranks' sums, one after another.
        let [moments, products] = [(); 2].map(|()| Buffer::new(ranks * each * wide));
        let numbers: Vec<Buffer> = (0..ranks).map(|_| Buffer::new(6 * pitch)).collect();
        let all = |sums: &Buffer| c::Factors {
            post: sums.address(),
            post_rank: (each * wide) as i64,
            samples: self.samples as i32,
            per_rank: each as i32,
            ..c::Factors::default()
        };
        let sum = |rank: usize, a: &Buffer, b: Option<&Buffer>, to: &Buffer| {
            let sums = c::ChannelSums {
                a: a.address(),
                b: b.map_or(0, Buffer::address),
                around: if b.is_none() { statistics.address() } else { 0 },
                numbers: numbers[rank].address(),
                out: to.address() + 4 * (rank * each * wide) as u64,
                positions: positions as i32,
                samples: each as i32,
                channels: channels as i32,
                ..c::ChannelSums::default()
            };
            let partial = Buffer::new(launches::channel_partial(&sums));
            launch(&[to, &partial], |list| launches::channel_sums(list, &c::ChannelSums { partial: partial.address(), ..sums }));
        };
        let make = |rank: usize, sums: &Buffer, to: Option<[&Buffer; 2]>, down: bool| {
            let made = c::ChannelNumbers {
                all: all(sums),
                affine: affine.address(),
                statistics: statistics.address(),
                numbers: numbers[rank].address(),
                drift: to.map_or(0, |to| to[0].address()),
                one: to.map_or(0, |to| to[1].address()),
                epsilon: 1e-5,
                positions: positions as i32,
                channels: channels as i32,
            };
            let written: Vec<&Buffer> = [&numbers[rank]].into_iter().chain(to.into_iter().flatten()).collect();
            launch(&written, |list| launches::channel_numbers(list, &made, down));
        };
        let map = |rank: usize, a: &Buffer, delta: Option<&Buffer>, out: &Buffer, kept: Option<&Buffer>| {
            let map = c::MapChannels {
                a: a.address(),
                delta: delta.map_or(0, Buffer::address),
                numbers: numbers[rank].address(),
                out: out.address(),
                kept: kept.map_or(0, Buffer::address),
                quads: (positions * each * pitch / 4) as u32,
                channels: channels as i32,
                nonlinearity: if kept.is_some() { 1 } else { 0 },
                padding: 0,
            };
            launch(&[&[out], kept.as_slice()].concat(), |list| launches::map_channels(list, &map));
        };
        let of_ranks: Vec<[Buffer; 2]> = (0..ranks).map(|rank| [of_rank(&self.a, rank), of_rank(&self.delta, rank)]).collect();
        of_ranks.iter().enumerate().for_each(|(rank, [a, _])| sum(rank, a, None, &moments));
        let up: Vec<[Buffer; 3]> = of_ranks
            .iter()
            .enumerate()
            .map(|(rank, [a, delta])| {
                let [y, kept] = [(); 2].map(|()| Buffer::new(positions * each * pitch));
                let (drift, one) = (Buffer::new(each * wide), Buffer::new(4 * each));
                make(rank, &moments, Some([&drift, &one]), false);
                assert_eq!(one.floats(), [1.0, 0.0, 0.0, 0.0].repeat(each));
                map(rank, a, None, &y, Some(&kept));
                sum(rank, delta, Some(a), &products);
                [y, kept, drift]
            })
            .collect();
        let down = of_ranks.iter().enumerate().zip(up).map(|((rank, [a, delta]), [y, kept, drift])| {
            let error = Buffer::new(positions * each * pitch);
            make(rank, &products, None, true);
            map(rank, a, Some(delta), &error, None);
            let own = &products.floats()[rank * each * wide..(rank + 1) * each * wide];
            let [y, kept, error] = [y, kept, error].map(|values| unpadded(&values.floats(), channels));
            Found([y, kept, unpadded(&drift.floats(), 2 * channels), unpadded(own, 2 * channels), error])
        });
        down.collect()
    }

    /// The same of one rank, in float64.
    fn exact(&self) -> [Vec<f64>; 5] {
        let (channels, samples) = (self.channels, self.samples);
        let count = (self.positions * samples) as f64;
        let sum = |of: &dyn Fn(usize) -> f64, channel: usize| (channel..self.a.len()).step_by(channels).map(of).sum::<f64>();
        let [a, delta] = [&self.a, &self.delta].map(|values| values.iter().map(|value| f64::from(*value)).collect::<Vec<f64>>());
        let mut exact = [
            vec![0.0; a.len()],
            vec![0.0; a.len()],
            vec![0.0; 2 * channels * samples],
            vec![0.0; 2 * channels * samples],
            vec![0.0; a.len()],
        ];
        for channel in 0..channels {
            let [scale, shift] = [0, channels].map(|half| f64::from(self.affine[half + channel]));
            let [running_mean, running_variance] = [0, channels].map(|half| f64::from(self.statistics[half + channel]));
            let mean = sum(&|i| a[i], channel) / count;
            let variance = sum(&|i| (a[i] - mean).powi(2), channel) / count;
            let x = |i: usize| (a[i] - mean) / (variance + 1e-5).sqrt();
            let (alone, with_x) = (sum(&|i| delta[i], channel) / count, sum(&|i| delta[i] * x(i), channel) / count);
            for sample in 0..samples {
                exact[2][2 * channels * sample + channel] = running_mean - mean;
                exact[2][2 * channels * sample + channels + channel] = running_variance - variance * count / (count - 1.0);
            }
            for i in (channel..a.len()).step_by(channels) {
                let of_sample = 2 * channels * (i / channels % samples);
                exact[1][i] = scale * x(i) + shift;
                exact[0][i] = exact[1][i].tanh();
                exact[3][of_sample + channel] += delta[i] * x(i);
                exact[3][of_sample + channels + channel] += delta[i];
                exact[4][i] = scale / (variance + 1e-5).sqrt() * (delta[i] - alone - x(i) * with_x);
            }
        }
        exact
    }
}

#[test]
fn normalization_agrees_with_float64_and_knows_no_ranks() {
    let Some(_) = emulation() else { return };
    // One position and many, which are summed in slices; channels that fill no four, and more than a block has.
    for (positions, channels, samples) in [(1, 37, 12), (20, 5, 4), (200, 12, 8), (150, 3, 20)] {
        let case = Case::new(positions, channels, samples);
        let alone = case.on_ranks(1).remove(0);
        for (what, (found, wanted)) in alone.0.iter().zip(case.exact()).enumerate() {
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(wanted) {
                let off = (f64::from(*found) - wanted).abs();
                assert!(off < 2e-5 * wanted.abs().max(1.0), "{what} of {positions} x {channels} x {samples}: {found} for {wanted}");
            }
        }
        for ranks in [2, 4] {
            let together = case.on_ranks(ranks);
            // Rows of activities go position by position, those of sums sample by sample.
            for (what, whole) in alone.0.iter().enumerate() {
                let (outer, row) = if what == 2 || what == 3 { (1, 2 * channels) } else { (positions, channels) };
                let each = samples / ranks * row;
                let joined: Vec<u32> = (0..outer)
                    .flat_map(|place| together.iter().flat_map(move |Found(of_rank)| &of_rank[what][place * each..(place + 1) * each]))
                    .map(|value| value.to_bits())
                    .collect();
                assert_eq!(joined, whole.iter().map(|value| value.to_bits()).collect::<Vec<_>>(), "{what} on {ranks} ranks");
            }
        }
    }
}

#[test]
fn evaluations_take_running_statistics() {
    let Some(_) = emulation() else { return };
    let case = Case::new(6, 9, 5);
    let [affine, statistics] = [&case.affine, &case.statistics].map(|map| Buffer::of(&padded(map, 18)));
    let (a, numbers, out) = (Buffer::of(&padded(&case.a, 9)), Buffer::new(6 * 12), Buffer::new(6 * 5 * 12));
    let made = c::ChannelNumbers {
        affine: affine.address(),
        statistics: statistics.address(),
        numbers: numbers.address(),
        epsilon: 1e-5,
        positions: 6,
        channels: 9,
        all: c::Factors { samples: 5, per_rank: 5, ..c::Factors::default() },
        ..c::ChannelNumbers::default()
    };
    launch(&[&numbers], |list| launches::channel_numbers(list, &made, false));
    let map = c::MapChannels {
        a: a.address(),
        numbers: numbers.address(),
        out: out.address(),
        quads: 90,
        channels: 9,
        ..c::MapChannels::default()
    };
    launch(&[&out], |list| launches::map_channels(list, &map));
    for (i, found) in unpadded(&out.floats(), 9).into_iter().enumerate() {
        let of = |values: &[f32], half: usize| f64::from(values[half * 9 + i % 9]);
        let x = (f64::from(case.a[i]) - of(&case.statistics, 0)) / (of(&case.statistics, 1) + 1e-5).sqrt();
        let wanted = of(&case.affine, 0) * x + of(&case.affine, 1);
        assert!((f64::from(found) - wanted).abs() < 1e-5 * wanted.abs().max(1.0), "{found} for {wanted}");
    }
}
