//! Parts of an update, which ranks own: the bits of the whole, and nothing else.

use std::ops::Range;

use super::emulation;
use super::memory::{Buffer, padded, random};
use super::products::{maps, shape};
use super::updates::{ADAM, Given, samples, some_biases};
use crate::compute::cuda::kernels::launches::in_fours;
use crate::compute::cuda::kernels::tables::Grouping;
use crate::compute::settings::Precision::F32;
use crate::network::Connectivity;

/// Equal parts of so many elements, whole lines but for the last.
fn parts(elements: usize, parts: usize) -> Vec<Range<usize>> {
    let each = elements.div_ceil(4 * parts) * 4;
    (0..parts).map(|part| (part * each).min(elements)..((part + 1) * each).min(elements)).collect()
}

#[test]
fn shares_of_an_update_have_the_bits_of_the_whole() {
    let Some(_) = emulation() else { return };
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<u32>>();
    for (number, (name, map)) in maps().into_iter().enumerate() {
        let chosen = Given::new(&map, samples(number).min(9), number as u64);
        let other = match chosen.grouping {
            Grouping::Block => None,
            Grouping::Destination => Some(Grouping::Source),
            Grouping::Source => Some(Grouping::Destination),
        };
        let all = map.blocks * map.rows * in_fours(map.columns);
        let start = [1, 2, 3].map(|seed| padded(&random(seed, map.weights()).into_iter().map(f32::abs).collect::<Vec<f32>>(), map.columns));
        let (nothing, whole) = ([0; 3].map(Buffer::new), start.each_ref().map(|values| Buffer::of(values)));
        let (gradient, blocks) = chosen.run_share(F32, 1, &ADAM, &nothing, true, None);
        chosen.run(F32, 1, &ADAM, &whole, false);
        let whole = whole.each_ref().map(Buffer::floats);
        for grouping in [Some(chosen.grouping), other].into_iter().flatten() {
            let given = Given { grouping, ..Given::new(&map, chosen.samples, number as u64) };
            for owned in [2, 5].into_iter().flat_map(|count| parts(all, count)) {
                let (share, fewer) = given.run_share(F32, 1, &ADAM, &nothing, true, Some(&owned));
                assert!(bits(&share[owned.clone()]) == bits(&gradient[owned.clone()]), "{name}, {grouping:?}: {owned:?}");
                let others = share[..owned.start].iter().chain(&share[owned.end..]);
                assert!(others.into_iter().all(|value| value.is_nan()), "{name}, {grouping:?}: written outside of {owned:?}");
                // Only so grouped are blocks without links known.
                if grouping != chosen.grouping {
                    continue;
                }
                assert!(fewer <= blocks, "{name}: {fewer} blocks of {blocks} for {owned:?}");
                let [weights, first, second] = &start;
                let parts = [Buffer::of(weights), Buffer::of(&first[owned.clone()]), Buffer::of(&second[owned.clone()])];
                given.run_share(F32, 1, &ADAM, &parts, false, Some(&owned));
                let [weights, first, second] = parts.each_ref().map(|buffer| bits(&buffer.floats()));
                let mut wanted = bits(&start[0]);
                wanted[owned.clone()].copy_from_slice(&bits(&whole[0][owned.clone()]));
                let moments = [1, 2].map(|moment| bits(&whole[moment][owned.clone()]));
                assert!((weights, [first, second]) == (wanted, moments), "{name}: {owned:?}");
            }
        }
    }
}

#[test]
fn a_share_takes_its_part_of_the_blocks() {
    let Some(_) = emulation() else { return };
    let dense = Connectivity::dense(shape(1, 1, 1024), 96);
    let local = Connectivity::windows(shape(4, 4, 64), shape(4, 4, 96), 3, 1, false);
    for map in [&dense, &local, &local.reversed()] {
        let (given, nothing) = (Given::new(map, 1, 1), [0; 3].map(Buffer::new));
        let blocks = |owned: Option<&Range<usize>>| given.run_share(F32, 1, &ADAM, &nothing, true, owned).1;
        let whole = blocks(None);
        for owned in parts(map.blocks * map.rows * map.columns, 4) {
            let found = blocks(Some(&owned));
            assert!(found > 0 && 4 * found <= whole, "{found} blocks of {whole} for {owned:?}");
        }
    }
}

#[test]
fn shares_of_biases_have_the_bits_of_all() {
    let Some(_) = emulation() else { return };
    for (positions, channels, samples) in [(1, 1000, 3), (6, 20, 37), (90, 5, 4), (70, 65, 2)] {
        let errors = random(4, positions * channels * samples);
        for shared in [false, true] {
            let some = |elements| some_biases(&errors, channels, samples, 1, shared, elements);
            let count = if shared { 1 } else { positions } * in_fours(channels);
            let all = some(0..count);
            for owned in parts(count, 3) {
                let found = some(owned.clone());
                let same = |at: usize| if owned.contains(&at) { found[at].to_bits() == all[at].to_bits() } else { found[at].is_nan() };
                assert!((0..count).all(same), "{positions} positions, {channels} channels, shared {shared}: {owned:?}");
            }
        }
    }
}
