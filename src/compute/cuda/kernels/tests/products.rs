//! `apply` in all its forms.

use super::memory::{Buffer, distance, padded, random, unpadded};
use super::units::{SLOPES, VALUES};
use super::{emulation, launch, run};
use crate::compute::cuda::kernels::arguments::{Apply, Job, Map, Peak};
use crate::compute::cuda::kernels::launches::{self, in_fours};
use crate::compute::cuda::kernels::tables::Tables;
use crate::compute::settings::Precision::{self, Bf16, F32, Tf32};
use crate::network::{Connectivity, Shape};

pub fn shape(height: usize, width: usize, channels: usize) -> Shape {
    Shape { height, width, channels }
}

/// Maps of all kinds, of odd shapes: channels that are no multiple of four, even kernels, strides, one position, 1,000 classes.
pub fn maps() -> Vec<(&'static str, Connectivity)> {
    let windows = |input: Shape, channels: usize, kernel: usize, stride: usize, shared: bool| {
        let output = shape(input.height.div_ceil(stride), input.width.div_ceil(stride), channels);
        Connectivity::windows(input, output, kernel, stride, shared)
    };
    vec![
        ("local, even kernel", windows(shape(7, 6, 12), 20, 4, 2, false)),
        ("local, stride beyond its kernel", windows(shape(5, 4, 5), 3, 2, 3, false)),
        ("conv", windows(shape(4, 5, 20), 48, 3, 1, true)),
        ("conv, blocks without links", windows(shape(1, 2, 3), 5, 3, 1, true)),
        ("inverse of local", windows(shape(6, 4, 12), 20, 3, 2, false).reversed()),
        ("inverse of wide local", windows(shape(2, 2, 96), 48, 3, 1, false).reversed()),
        ("dense", Connectivity::dense(shape(2, 3, 33), 130)),
        ("one position", Connectivity::dense(shape(1, 1, 5), 3)),
        ("to 1,000 classes", Connectivity::dense(shape(1, 3, 96), 1000)),
        ("inverse of dense", Connectivity::broadcast(1000, shape(1, 2, 48))),
    ]
}

/// Weights without padding, their blocks.
pub fn weights(map: &Connectivity, seed: u64) -> Vec<f32> {
    random(seed, map.weights())
}

/// What a pass through a map reads and writes: positions and channels of what it reads, and of what it writes.
fn ends(map: &Connectivity, transposed: bool) -> [usize; 4] {
    let (below, above) = ([map.sources, map.rows], [map.destinations, map.columns]);
    let ([sources, deep], [groups, wide]) = if transposed { (above, below) } else { (below, above) };
    [sources, deep, groups, wide]
}

/// Tables where kernels read them.
pub struct Described {
    starts: Buffer,
    links: Buffer,
}

impl Described {
    pub fn new(tables: &Tables) -> Described {
        Described { starts: Buffer::of(&tables.starts), links: Buffer::of(&tables.links) }
    }

    /// `map` by these tables, for kernels that read activities of `deep` channels.
    pub fn map(&self, map: &Connectivity, deep: usize) -> Map {
        let [rows, columns, pitch] = [map.rows, in_fours(map.columns), in_fours(deep)].map(|count| count as i32);
        Map { starts: self.starts.address(), links: self.links.address(), rows, columns, pitch, place: 0 }
    }
}

/// The map in float64: [destination][sample][column] of `x`, [source][sample][row]. Transposed: the other way.
pub fn reference(map: &Connectivity, transposed: bool, x: &[f32], w: &[f32], bias: Option<&[f32]>, samples: usize) -> Vec<f64> {
    let [_, deep, groups, wide] = ends(map, transposed);
    let mut y = vec![0.0; groups * samples * wide];
    for group in 0..groups {
        let links = if transposed { map.by_source.of(group) } else { map.by_destination.of(group) };
        for sample in 0..samples {
            let out = &mut y[(group * samples + sample) * wide..][..wide];
            if let Some(bias) = bias {
                let at = if bias.len() == wide { 0 } else { group * wide };
                out.iter_mut().zip(&bias[at..]).for_each(|(out, bias)| *out = f64::from(*bias));
            }
            for link in links {
                let from = if transposed { link.destination } else { link.source } as usize;
                let block = &w[link.block as usize * map.rows * map.columns..];
                for k in 0..deep {
                    let value = f64::from(x[(from * samples + sample) * deep + k]);
                    for (n, out) in out.iter_mut().enumerate() {
                        *out += value * f64::from(if transposed { block[n * deep + k] } else { block[k * wide + n] });
                    }
                }
            }
        }
    }
    y
}

/// Applies `map` to activities of `samples` samples, and gives each result without padding.
#[allow(clippy::too_many_arguments)]
fn apply(
    precision: Precision,
    map: &Connectivity,
    transposed: bool,
    sources: &[Vec<f32>],
    w: &[f32],
    bias: Option<&[f32]>,
    samples: usize,
    nonlinearity: i32,
) -> Vec<Vec<f32>> {
    apply_and_keep(precision, map, transposed, sources, w, bias, samples, nonlinearity, None).0
}

/// The same, with what is kept of each result before the nonlinearity; or multiplied by its slope at a value and its argument.
#[allow(clippy::too_many_arguments)]
fn apply_and_keep(
    precision: Precision,
    map: &Connectivity,
    transposed: bool,
    sources: &[Vec<f32>],
    w: &[f32],
    bias: Option<&[f32]>,
    samples: usize,
    nonlinearity: i32,
    slope_at: Option<[&[f32]; 2]>,
) -> (Vec<Vec<f32>>, Vec<Vec<f32>>) {
    let [_, deep, groups, wide] = ends(map, transposed);
    let tables = if transposed { Tables::by_source(map) } else { Tables::by_destination(map) };
    let described = Described::new(&tables);
    let w = Buffer::of(&padded(w, map.columns));
    let bias_stride = bias.map_or(0, |bias| if bias.len() == wide { 0 } else { in_fours(wide) });
    let bias = bias.map(|bias| Buffer::of(&padded(bias, wide)));
    let inputs: Vec<Buffer> = sources.iter().map(|source| Buffer::of(&padded(source, deep))).collect();
    let room = || sources.iter().map(|_| Buffer::new(groups * samples * in_fours(wide))).collect();
    let (outputs, kept): (Vec<Buffer>, Vec<Buffer>) = (room(), room());
    let [y, slope_argument] = slope_at.map_or([const { None }; 2], |both| both.map(|values| Some(Buffer::of(&padded(values, wide)))));
    let keeps = !transposed && slope_at.is_none();
    let mut argument = Apply {
        map: described.map(map, deep),
        weights: w.address(),
        bias: bias.as_ref().map_or(0, Buffer::address),
        y: y.as_ref().map_or(0, Buffer::address),
        argument: slope_argument.as_ref().map_or(0, Buffer::address),
        bias_stride: bias_stride as i32,
        samples: samples as i32,
        jobs: sources.len() as i32,
        nonlinearity,
        positions: groups as i32,
        ..Apply::default()
    };
    for (job, (input, (output, kept))) in argument.job.iter_mut().zip(inputs.iter().zip(outputs.iter().zip(&kept))) {
        *job = Job { source: input.address(), destination: output.address(), kept: if keeps { kept.address() } else { 0 } };
    }
    let partial = Buffer::new(launches::apply_partial(precision, transposed, tables.most, &argument));
    argument.partial = partial.address();
    let buffers: Vec<&Buffer> = [&partial, &w].into_iter().chain(&outputs).chain(&inputs).chain(&kept).collect();
    launch(&buffers, |list| launches::apply(list, precision, transposed, tables.most, &argument));
    let of = |buffers: &[Buffer]| buffers.iter().map(|buffer| unpadded(&buffer.floats(), wide)).collect();
    (of(&outputs), if keeps { of(&kept) } else { Vec::new() })
}

fn tolerance(precision: Precision) -> f64 {
    match precision {
        F32 => 1e-6,
        Tf32 => 6e-4,
        Bf16 => 5e-3,
    }
}

#[test]
fn apply_agrees_with_float64() {
    let Some(_) = emulation() else { return };
    for (number, (name, map)) in maps().into_iter().enumerate() {
        let seed = number as u64 * 10;
        let w = weights(&map, seed);
        // Some with more than one tile of samples, some with several activities.
        let (samples, jobs) = [(37, 1), (3, 3), (70, 1), (1, 1), (21, 3), (13, 2), (130, 1), (1, 2), (5, 1), (65, 1)][number];
        for precision in [F32, Tf32, Bf16] {
            for transposed in [false, true] {
                let [sources, deep, groups, wide] = ends(&map, transposed);
                let x: Vec<Vec<f32>> = (0..jobs).map(|job| random(seed + job, sources * samples * deep)).collect();
                let shared = map.blocks == map.blocks_per_position && map.destinations > 1;
                let bias = random(seed + 7, if shared { wide } else { groups * wide });
                let bias = (!transposed).then_some(&bias[..]);
                let y = apply(precision, &map, transposed, &x, &w, bias, samples, 0);
                for (x, y) in x.iter().zip(&y) {
                    let off = distance(y, &reference(&map, transposed, x, &w, bias, samples));
                    assert!(off < tolerance(precision), "{name}, {precision:?}, transposed {transposed}: off by {off:.1e}");
                }
            }
        }
    }
}

#[test]
fn a_value_has_the_same_bits_in_every_batch() {
    let Some(_) = emulation() else { return };
    // Narrow and wide tiles; one of them in slices of K.
    let input = shape(2, 2, 40);
    let narrow = Connectivity::windows(input, shape(2, 2, 20), 3, 1, false);
    let wide = Connectivity::dense(shape(2, 2, 80), 100);
    for (map, transposed) in [(&narrow, false), (&wide, false), (&narrow, true), (&wide, true)] {
        for precision in [F32, Tf32, Bf16] {
            let [sources, deep, _, wide] = ends(map, transposed);
            let (samples, w) = (130, weights(map, 1));
            let x = random(2, sources * samples * deep);
            let all = apply(precision, map, transposed, std::slice::from_ref(&x), &w, None, samples, 1).remove(0);
            for some in [1, 13, 64, 100] {
                let first = |values: &[f32], channels: usize| -> Vec<f32> {
                    values.chunks_exact(samples * channels).flat_map(|position| position[..some * channels].to_vec()).collect()
                };
                // As the first of two activities, as the second, and alone.
                let (alone, other) = (first(&x, deep), random(3, sources * some * deep));
                let wanted = first(&all, wide);
                let both = apply(precision, map, transposed, &[alone.clone(), other.clone()], &w, None, some, 1);
                let swapped = apply(precision, map, transposed, &[other, alone.clone()], &w, None, some, 1);
                let alone = apply(precision, map, transposed, &[alone], &w, None, some, 1);
                for got in [&both[0], &swapped[1], &alone[0]] {
                    assert!(got.iter().zip(&wanted).all(|(a, b)| a.to_bits() == b.to_bits()), "{precision:?}, {some} samples");
                }
            }
        }
    }
}

#[test]
fn float32_keeps_its_accuracy_in_long_sums() {
    let Some(_) = emulation() else { return };
    // All positive: what tensor cores cut off would add up.
    let map = Connectivity::dense(shape(1, 1, 2400), 8);
    let positive = |seed, len| random(seed, len).into_iter().map(f32::abs).collect::<Vec<f32>>();
    let (x, w) = (positive(1, 3 * 2400), positive(2, 8 * 2400));
    let wanted = reference(&map, false, &x, &w, None, 3);
    let off = |precision| distance(&apply(precision, &map, false, std::slice::from_ref(&x), &w, None, 3, 0)[0], &wanted);
    assert!(off(F32) < 1e-6, "{:.1e}", off(F32));
    assert!(off(Tf32) > 3e-6 && off(Bf16) > 2e-5, "the emulation rounds nothing: {:.1e}, {:.1e}", off(Tf32), off(Bf16));
}

#[test]
fn nonlinearities_follow_the_bias() {
    let Some(_) = emulation() else { return };
    // With slices and without.
    for map in [Connectivity::dense(shape(1, 1, 12), 20), Connectivity::dense(shape(1, 4, 96), 20)] {
        let (samples, w) = (9, weights(&map, 4));
        let (x, bias) = (random(5, map.sources * samples * map.rows), random(6, 20));
        let sums = reference(&map, false, &x, &w, Some(&bias), samples);
        for (number, f) in VALUES.iter().enumerate() {
            let wanted: Vec<f64> = sums.iter().map(|x| f(*x)).collect();
            let (y, kept) = apply_and_keep(F32, &map, false, std::slice::from_ref(&x), &w, Some(&bias), samples, number as i32, None);
            let off = |got: &[f32], wanted: &[f64]| {
                got.iter().zip(wanted).map(|(got, wanted)| (f64::from(*got) - wanted).abs()).fold(0.0, f64::max)
            };
            let off = [off(&y[0], &wanted), off(&kept[0], &sums)];
            assert!(off.iter().all(|off| *off < 2e-5), "nonlinearity {number}: off by {off:?}");
        }
    }
}

#[test]
fn slopes_are_multiplied_to_errors() {
    let Some(_) = emulation() else { return };
    // With slices and without, on the way that a transpose takes and on that of feedback.
    for map in [Connectivity::dense(shape(1, 1, 11), 21), Connectivity::dense(shape(1, 4, 110), 90)] {
        for transposed in [false, true] {
            let [sources, deep, groups, wide] = ends(&map, transposed);
            let (samples, w) = (9, weights(&map, 4));
            let x = random(5, sources * samples * deep);
            let [y, argument] = [6, 7].map(|seed| random(seed, groups * samples * wide));
            let sums = reference(&map, transposed, &x, &w, None, samples);
            for (number, slope) in SLOPES.iter().enumerate() {
                let sources = std::slice::from_ref(&x);
                let slope_at = Some([&y[..], &argument[..]]);
                let (error, _) = apply_and_keep(F32, &map, transposed, sources, &w, None, samples, number as i32, slope_at);
                for (i, error) in error[0].iter().enumerate() {
                    let wanted = sums[i] * slope(f64::from(y[i]), f64::from(argument[i]));
                    assert!((f64::from(*error) - wanted).abs() < 2e-5, "nonlinearity {number}, {transposed}: {error} for {wanted}");
                }
            }
        }
    }
}

#[test]
fn the_peak_counts_its_products() {
    let Some(_) = emulation() else { return };
    for precision in [F32, Tf32, Bf16] {
        let (out, mut list) = (Buffer::new(2 * 256), Vec::new());
        let argument = Peak { out: out.address(), times: 3, padding: 0 };
        let operations = launches::peak(&mut list, precision, 2, &argument);
        // Two for each element of a chunk of 32 rows, 48 columns and 16 of K, in 16 warps.
        assert_eq!(operations, f64::from(2 * 32 * 48 * 16 * 16 * 3));
        run(&list, &[&out]);
        assert!(out.floats().iter().all(|x| x.is_finite() && *x != 0.0));
    }
}
