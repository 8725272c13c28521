//! Pools, and their ways back.

use super::memory::{Buffer, distance, padded, random, unpadded};
use super::products::shape;
use super::{emulation, launch};
use crate::compute::cuda::kernels::arguments::Pool;
use crate::compute::cuda::kernels::launches::{self, in_fours};
use crate::compute::cuda::kernels::tables::Tables;
use crate::network::Connectivity;

#[test]
fn pools_and_their_ways_back_follow_the_links() {
    let Some(_) = emulation() else { return };
    for (input, kernel, stride, samples) in [(shape(5, 6, 3), 3, 2, 4), (shape(4, 4, 20), 2, 2, 37), (shape(3, 5, 12), 3, 1, 1)] {
        let (height, width, channels) = (input.height.div_ceil(stride), input.width.div_ceil(stride), input.channels);
        let map = Connectivity::windows(input, shape(height, width, channels), kernel, stride, true);
        // Few different values, so that some are equal.
        let x: Vec<f32> = random(1, map.sources * samples * channels).into_iter().map(|x| (4.0 * x).round()).collect();
        let error = random(2, map.destinations * samples * channels);
        let winners = Buffer::new(map.destinations * samples * in_fours(channels));
        let windows = Buffer::of(&Tables::by_destination(&map).starts);
        for largest in [false, true] {
            let pass = |back: bool, from: &[f32]| {
                let (tables, positions) = match back {
                    false => (Tables::by_destination(&map), map.destinations),
                    true => (Tables::by_source(&map), map.sources),
                };
                let (starts, links) = (Buffer::of(&tables.starts), Buffer::of(&tables.links));
                let (from, out) = (Buffer::of(&padded(from, channels)), Buffer::new(positions * samples * in_fours(channels)));
                let argument = Pool {
                    starts: starts.address(),
                    links: links.address(),
                    windows: windows.address(),
                    source: from.address(),
                    destination: out.address(),
                    winners: winners.address(),
                    positions: positions as i32,
                    samples: samples as i32,
                    pitch: in_fours(channels) as i32,
                    largest: i32::from(largest),
                    back: i32::from(back),
                    padding: 0,
                };
                launch(&[&out, &winners, &from], |list| launches::pool(list, &argument));
                unpadded(&out.floats(), channels)
            };
            // What is no number shows wherever it is read, and nowhere else.
            for place in [0, map.sources / 2, map.sources - 1] {
                let mut broken = x.clone();
                broken[place * samples * channels] = f32::NAN;
                for (i, y) in pass(false, &broken).iter().enumerate() {
                    let (position, rest) = (i / channels / samples, i % (channels * samples));
                    let reads = map.by_destination.of(position).iter().any(|link| link.source as usize == place);
                    assert_eq!(y.is_nan(), reads && rest == 0, "largest {largest}");
                }
            }
            let (y, back) = (pass(false, &x), pass(true, &error));
            let mut wanted_back = vec![0.0; x.len()];
            for (i, y) in y.iter().enumerate() {
                let (position, rest) = (i / channels / samples, i % (channels * samples));
                let places: Vec<usize> =
                    map.by_destination.of(position).iter().map(|link| link.source as usize * samples * channels + rest).collect();
                let best = places.iter().fold(places[0], |best, place| if x[*place] > x[best] { *place } else { best });
                let mean = places.iter().map(|place| f64::from(x[*place])).sum::<f64>() / places.len() as f64;
                let wanted = if largest { f64::from(x[best]) } else { mean };
                assert!((f64::from(*y) - wanted).abs() < 1e-6, "{y} for {wanted}");
                for place in &places {
                    let share = if largest { f64::from(u8::from(*place == best)) } else { 1.0 / places.len() as f64 };
                    wanted_back[*place] += share * f64::from(error[i]);
                }
            }
            assert!(distance(&back, &wanted_back) < 1e-6, "largest {largest}");
        }
    }
}
