//! Who owns which parameters: the rank that makes their gradient and applies the optimiser.
//!
//! Ranks meet when all have updated what they own, so a step takes as long as the one with the most work. Of equal numbers of parameters
//! the work is not equal: at the edges of an image, where the first and the last ranks' lie, many have no link, and a bias is
//! the sum of few numbers. So maps are cut by work, the largest first, and what one cut leaves uneven the next one makes up for.

use std::ops::Range;

use crate::compute::cpu::CpuBackend;
use crate::network::{MapId, Role};

/// For each map the update items that each rank owns, one rank's after the other's. Those of a map that is not trained are none. The forward model and the
/// inverses, which may learn in turns, are both divided evenly. `work` is that of an item.
pub fn divide(backend: &CpuBackend, ranks: usize, work: impl Fn(MapId, usize) -> u64) -> Vec<Vec<Range<usize>>> {
    let maps = &backend.maps.all;
    let mut owned = vec![vec![0..0; ranks]; maps.len()];
    for inverse in [false, true] {
        let of_model = |map: &usize| maps[*map].trained() && (maps[*map].role == Role::Inverse) == inverse;
        // Work of the items before each, and of all at the end.
        let before = |map: usize| {
            let items = (0..backend.update_items(MapId(map))).map(|item| work(MapId(map), item));
            let sums = items.scan(0, |sum, work| {
                *sum += work;
                Some(*sum)
            });
            (map, std::iter::once(0).chain(sums).collect::<Vec<u64>>())
        };
        let mut maps: Vec<(usize, Vec<u64>)> = (0..maps.len()).filter(of_model).map(before).collect();
        maps.sort_by_key(|(_, before)| std::cmp::Reverse(before.last().copied()));
        let mut loads = vec![0; ranks];
        for (map, before) in maps {
            owned[map] = cut(&before, &mut loads);
        }
    }
    owned
}

/// Cuts items, of which `before` says how much work lies before each, so that `loads` with them become as even as may be.
fn cut(before: &[u64], loads: &mut [u64]) -> Vec<Range<usize>> {
    let (items, work) = (before.len() - 1, before[before.len() - 1]);
    let last = loads.len() - 1;
    let even = (loads.iter().sum::<u64>() + work).div_ceil(loads.len() as u64);
    let wanted: Vec<u64> = loads.iter().map(|load| even.saturating_sub(*load)).collect();
    let all: u64 = wanted.iter().sum();
    let (mut begin, mut so_far) = (0, 0);
    let mut ranges = Vec::with_capacity(loads.len());
    for (rank, (load, wanted)) in loads.iter_mut().zip(wanted).enumerate() {
        so_far += wanted;
        let upto = (u128::from(work) * u128::from(so_far) / u128::from(all.max(1))) as u64;
        // The end that is nearest to it.
        let above = before.partition_point(|before| *before < upto);
        let nearer_below = above > 0 && before.get(above).is_none_or(|above_it| upto - before[above - 1] < above_it - upto);
        let end = if rank == last { items } else { (above - usize::from(nearer_below)).max(begin) };
        *load += before[end] - before[begin];
        ranges.push(begin..end);
        begin = end;
    }
    ranges
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::compute::cpu::simd::{self, Isa};
    use crate::compute::cpu::{self, Arena, Parameters};
    use crate::network::{Inverses, LayerOptions, LayerSpec, Maps, Needs, Network, Nonlinearity, Output, Spec};

    fn works(before: &[u64], ranges: &[Range<usize>]) -> Vec<u64> {
        ranges.iter().map(|range| before[range.end] - before[range.start]).collect()
    }

    #[test]
    fn what_one_cut_leaves_uneven_the_next_makes_up_for() {
        let mut loads = [0; 4];
        // Items of work 0 0 1 5 5 5 5 1 1 1: six for each of four ranks.
        let before = [0, 0, 0, 1, 6, 11, 16, 21, 22, 23, 24];
        let ranges = cut(&before, &mut loads);
        assert_eq!(ranges, [0..4, 4..5, 5..6, 6..10]);
        assert_eq!(works(&before, &ranges), [6, 5, 5, 8]);
        assert_eq!(loads, [6, 5, 5, 8]);
        // Of five more the first three ranks have some, which leaves nobody with more than eight.
        assert_eq!(cut(&[0, 1, 2, 3, 4, 5], &mut loads), [0..1, 1..3, 3..5, 5..5]);
        assert_eq!(loads, [7, 7, 7, 8]);
        assert_eq!(cut(&[0], &mut loads), [0..0, 0..0, 0..0, 0..0]);
        assert_eq!(cut(&[0, 0, 0], &mut [0, 0]), [0..0, 0..2]);
    }
    /// Products of one sample with the weights that each rank owns of the maps of one role, counted link by link.
    fn products(backend: &CpuBackend, owned: &[Vec<Range<usize>>], role: Role) -> Vec<u64> {
        let ranks = owned[0].len();
        let of_map = |map: usize, rank: usize| {
            let (span, connectivity) = (&backend.parameters.spans[map], &backend.maps.all[map].connectivity);
            let elements = backend.item_elements(MapId(map), owned[map][rank].clone());
            let block = span.panels * span.rows * simd::LANES;
            let inside = |block_at: usize| {
                let from = span.weights + block_at * block;
                (from + block).min(elements.end).saturating_sub(from.max(elements.start)) as u64
            };
            (0..span.blocks).map(|at| connectivity.by_block.of(at).len() as u64 * inside(at)).sum::<u64>()
        };
        let maps = || (0..owned.len()).filter(|map| backend.maps.all[*map].role == role);
        (0..ranks).map(|rank| maps().map(|map| of_map(map, rank)).sum()).collect()
    }

    #[test]
    fn no_rank_has_much_more_to_do_than_others() {
        let nonlinearity = Nonlinearity::Tanh;
        let local = |kernel, channels, stride| LayerSpec::local(kernel, channels, stride, nonlinearity);
        let conv = |kernel, channels, stride| LayerSpec::Conv { kernel, channels, stride, nonlinearity, options: LayerOptions::NONE };
        let dense = |units| LayerSpec::dense(units, nonlinearity);
        let images = vec![local(5, 64, 2), local(5, 128, 2), local(3, 256, 1), dense(1024)];
        let convolutions = vec![conv(5, 64, 2), conv(5, 128, 2), conv(3, 256, 1), dense(1024)];
        for (input, layers, inverses) in [
            ([32, 32, 3], images, Inverses::Hidden),
            ([28, 28, 1], vec![dense(256); 5], Inverses::HiddenAndOutput),
            ([32, 32, 3], convolutions, Inverses::None),
        ] {
            let network = Network::new(input, 10, &Spec { output: Output::Softmax, nonlinearity, layers }).unwrap();
            let maps = Arc::new(Maps::new(&network, &Needs { inverses, ..Needs::NONE }));
            let (spans, sizes) = cpu::spans(&maps);
            let [weights, first, second] = [sizes.weights, sizes.moments, sizes.moments].map(|len| Arena::new(len).unwrap());
            let setup = cpu::Setup { isa: Isa::Portable, threads: 1, seed: 0, capacity: 32, label_smoothing: 0.0 };
            let backend = CpuBackend::new(&network, maps, Parameters { spans, weights, first, second }, &setup).unwrap();
            for ranks in [1, 2, 3, 4, 8, 16] {
                let owned = divide(&backend, ranks, |map, item| backend.item_work(map, item, 32 * ranks));
                for (map, ranges) in owned.iter().enumerate() {
                    let ends = ranges.iter().fold(0, |end, range| if range.start == end { range.end } else { usize::MAX });
                    assert_eq!(ends, backend.update_items(MapId(map)), "ranges of map {map} follow one another to the end");
                }
                for role in [Role::Forward, Role::Inverse] {
                    let products = products(&backend, &owned, role);
                    let (most, mean) = (products.iter().max().unwrap() * ranks as u64, products.iter().sum::<u64>());
                    assert!(most as f64 <= 1.06 * mean as f64, "{input:?} on {ranks} ranks, {role:?}: {products:?}");
                }
            }
        }
    }
}
