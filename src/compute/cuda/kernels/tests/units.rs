//! What is done unit by unit.

use super::memory::{Buffer, distance, padded, random, unpadded};
use super::{emulation, launch};
use crate::compute::cpu::{Place, normals, stream_of_weights, uniforms};
use crate::compute::cuda::kernels::arguments as c;
use crate::compute::cuda::kernels::arguments::Operation;
use crate::compute::cuda::kernels::launches::{self, in_fours};

/// Slopes in float64, of the value y at the argument x.
pub const SLOPES: [fn(f64, f64) -> f64; 5] = [
    |_, _| 1.0,
    |y, _| 1.0 - y * y,
    |y, _| f64::from(u8::from(y > 0.0)),
    |y, _| if y > 0.0 { 1.0 } else { 0.01 },
    |_, x| {
        let scale = (2.0 / std::f64::consts::PI).sqrt();
        let t = (scale * (x + 0.044_715 * x.powi(3))).tanh();
        0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * scale * (1.0 + 3.0 * 0.044_715 * x * x)
    },
];

/// Nonlinearities in float64.
pub const VALUES: [fn(f64) -> f64; 5] = [
    |x| x,
    f64::tanh,
    |x| x.max(0.0),
    |x| if x < 0.0 { 0.01 * x } else { x },
    |x| x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh()),
];

#[test]
fn elementwise_operations_agree_with_float64() {
    let Some(_) = emulation() else { return };
    let count = 1100;
    let values: Vec<Vec<f32>> = (0..5).map(|seed| random(seed, count)).collect();
    let buffers: Vec<Buffer> = values.iter().map(|values| Buffer::of(values)).collect();
    let (s0, s1) = (0.3f32, 0.7f32);
    let operations = [
        Operation::ErrorThrough,
        Operation::Through,
        Operation::DifferenceThrough,
        Operation::StepAlong,
        Operation::DifferenceTarget,
        Operation::Add,
    ];
    for (nonlinearity, slope) in SLOPES.iter().enumerate() {
        for operation in operations {
            for with_back in [false, true] {
                let (out, kept) = (Buffer::new(count), Buffer::new(count));
                let [a, b, c, d, argument] = std::array::from_fn(|i| buffers[i].address());
                let argument = c::Elementwise {
                    a,
                    b,
                    c,
                    d: if with_back { d } else { 0 },
                    argument,
                    out: out.address(),
                    kept: kept.address(),
                    count: count as i64,
                    s0,
                    s1,
                    operation: operation as i32,
                    nonlinearity: nonlinearity as i32,
                };
                launch(&[&out, &kept], |list| launches::elementwise(list, &argument));
                for (i, (got, kept)) in out.floats().into_iter().zip(kept.floats()).enumerate() {
                    let [a, b, c, d, x] = std::array::from_fn(|operand| f64::from(values[operand][i]));
                    let (s0, s1) = (f64::from(s0), f64::from(s1));
                    let wanted = match operation {
                        Operation::ErrorThrough => 2.0 * (a - b) * slope(a, x),
                        Operation::Through => a * slope(b, x),
                        Operation::DifferenceThrough => (a - b) * slope(b, x),
                        Operation::StepAlong => a + s0 * b,
                        Operation::Add => VALUES[nonlinearity](a + b),
                        Operation::DifferenceTarget => a + s0 * (c - b) + if with_back { s1 * d } else { 0.0 },
                    };
                    assert!((f64::from(got) - wanted).abs() < 1e-6, "{operation:?} {nonlinearity}: {got} for {wanted}");
                    match operation {
                        Operation::Add => assert_eq!(kept, a as f32 + b as f32),
                        Operation::DifferenceTarget => {
                            let error = 2.0 * (a - wanted) * slope(a, x);
                            assert!((f64::from(kept) - error).abs() < 1e-6, "{nonlinearity}: {kept} for {error}");
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}

#[test]
fn tanh_is_the_cpus() {
    let Some(_) = emulation() else { return };
    let mut values: Vec<f32> = (-4000..4000).map(|i| i as f32 * 2.5e-3).collect();
    values.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 100.0]);
    let (a, b, out) = (Buffer::of(&values), Buffer::of(&vec![0.0f32; values.len()]), Buffer::new(values.len()));
    let (operation, nonlinearity) = (Operation::Add as i32, 1);
    let argument = c::Elementwise {
        a: a.address(),
        b: b.address(),
        out: out.address(),
        count: values.len() as i64,
        operation,
        nonlinearity,
        ..c::Elementwise::default()
    };
    launch(&[&out], |list| launches::elementwise(list, &argument));
    for (x, y) in values.iter().zip(out.floats()) {
        let exact = f64::from(*x).tanh();
        let close = (f64::from(y) - exact).abs() <= 5e-7 * exact.abs();
        assert!(close || x.is_nan() && y.is_nan(), "tanh({x}) = {y}, exactly {exact}");
    }
}

#[test]
fn a_measured_error_sums_each_sample_by_itself() {
    let Some(_) = emulation() else { return };
    for (positions, channels, samples) in [(1, 5, 3), (700, 48, 2), (40, 20, 9)] {
        let (y, target) = (random(1, positions * samples * channels), random(2, positions * samples * channels));
        let measured = |pick: &dyn Fn(usize) -> bool| {
            // Some of the samples.
            let of = |values: &[f32]| -> Vec<f32> {
                let rows = values.chunks_exact(channels).enumerate().filter(|(row, _)| pick(row % samples));
                padded(&rows.flat_map(|(_, row)| row.to_vec()).collect::<Vec<f32>>(), channels)
            };
            let some = (0..samples).filter(|sample| pick(*sample)).count();
            let (pitch, count) = (in_fours(channels), positions * some * in_fours(channels));
            let parts = launches::measure_parts(positions, pitch);
            let (y, target, error) = (Buffer::of(&of(&y)), Buffer::of(&of(&target)), Buffer::new(count));
            let (partial, out) = (Buffer::new(parts * some), Buffer::new(some));
            let argument = c::MeasuredError {
                y: y.address(),
                target: target.address(),
                error: error.address(),
                partial: partial.address(),
                positions: positions as i32,
                samples: some as i32,
                pitch: pitch as i32,
                nonlinearity: 1,
                ..c::MeasuredError::default()
            };
            let (parts, samples) = (parts as i32, some as i32);
            let sum = c::SumMeasure { partial: partial.address(), out: out.address(), parts, samples };
            launch(&[&error, &partial, &out], |list| {
                launches::measured_error(list, &argument);
                launches::sum_measure(list, &sum);
            });
            (unpadded(&error.floats(), channels), out.floats())
        };
        let (error, sums) = measured(&|_| true);
        let wanted: Vec<f64> =
            y.iter().zip(&target).map(|(y, target)| 2.0 * (f64::from(*y) - f64::from(*target)) * (1.0 - f64::from(*y).powi(2))).collect();
        assert!(distance(&error, &wanted) < 1e-6);
        let mut wanted = vec![0.0; samples];
        for (i, (y, target)) in y.iter().zip(&target).enumerate() {
            wanted[i / channels % samples] += (f64::from(*y) - f64::from(*target)).powi(2);
        }
        assert!(distance(&sums, &wanted) < 1e-6, "{sums:?} for {wanted:?}");
        assert_eq!(measured(&|sample| sample == 1).1, sums[1..2], "alone");
    }
}

#[test]
fn noise_is_the_cpus_to_the_bit() {
    let Some(_) = emulation() else { return };
    let place = Place { seed: 20260 + (5 << 32), step: (3 << 32) + 17, layer: 2, first: 40 };
    for [positions, samples, channels] in [[1, 3, 1000usize], [6, 4, 20], [9, 5, 3], [1, 1, 1], [3, 2, 64], [2, 130, 12]] {
        let source = random(1, positions * samples * channels);
        let input = Buffer::of(&padded(&source, channels));
        let out = Buffer::new(positions * samples * in_fours(channels));
        let (step, step_high, first) = (place.step as u32, (place.step >> 32) as u32, place.first as u32);
        let at = Buffer::of(&[c::Place { step, step_high, first, colours: 0 }]);
        let argument = c::Noise {
            source: input.address(),
            destination: out.address(),
            place: at.address(),
            positions: positions as u32,
            samples: samples as u32,
            channels: channels as u32,
            key_low: place.seed as u32,
            key_high: (place.seed >> 32) as u32,
            stream: 1 << 16 | place.layer as u32,
            sigma: 0.25,
            padding: 0,
        };
        launch(&[&out], |list| launches::noise(list, &argument));
        let eps = normals(positions, samples, channels, place);
        let wanted: Vec<f32> = source.iter().zip(&eps).map(|(x, eps)| x + eps * 0.25).collect();
        assert_eq!(unpadded(&out.floats(), channels), wanted, "{positions} positions, {samples} samples, {channels} channels");
    }
}

#[test]
fn what_travels_is_rounded_to_bf16_and_back() {
    let Some(_) = emulation() else { return };
    // A half rounds to even; an eighth of a percent is what bf16 tells apart.
    let source: Vec<f32> = [1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0, -0.1].into_iter().chain(random(1, 1100)).collect();
    let base = random(2, source.len());
    for with_base in [false, true] {
        let [from, of, rounded, out] = [Buffer::of(&source), Buffer::of(&base), Buffer::new(source.len() / 2), Buffer::new(source.len())];
        let base_address = if with_base { of.address() } else { 0 };
        let (count, rest) = (source.len() as i64, c::Wire { base: base_address, rounded: rounded.address(), ..c::Wire::default() });
        launch(&[&rounded], |list| launches::wire(list, &c::Wire { source: from.address(), count, ..rest }));
        launch(&[&out], |list| launches::wire(list, &c::Wire { out: out.address(), count, ..rest }));
        for (at, found) in out.floats().into_iter().enumerate() {
            let b = if with_base { base[at] } else { 0.0 };
            let bits = (source[at] - b).to_bits();
            let kept = f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000);
            assert_eq!(found, b + kept, "{at}");
        }
    }
}

#[test]
fn signs_follow_the_layers_and_magnitudes_are_the_cpus_to_the_bit() {
    let Some(_) = emulation() else { return };
    let (seed, map, draw, bound) = (20260 + (5 << 32), 3, (7 << 32) + 19, 0.3);
    for [blocks, rows, columns] in [[1, 5, 3usize], [6, 20, 12], [3, 1, 100], [2, 64, 1]] {
        let (before, layer) = (random(1, blocks * rows * columns), random(2, blocks * rows * columns));
        for (equal, bound) in [(0.25, 0.0), (0.0, 0.0), (0.0, bound)] {
            let (weights, of) = (Buffer::of(&padded(&before, columns)), Buffer::of(&padded(&layer, rows)));
            let argument = c::Signs {
                weights: weights.address(),
                layer: of.address(),
                blocks: blocks as i32,
                rows: rows as i32,
                columns: columns as i32,
                equal,
                bound,
                key_low: seed as u32,
                key_high: (seed >> 32) as u32,
                draw: draw as u32,
                stream: stream_of_weights(map, draw),
                padding: 0,
            };
            launch(&[&weights], |list| launches::signs(list, &argument));
            let drawn = uniforms(before.len(), bound, seed, map, draw);
            let wanted = (0..before.len()).map(|at| {
                let (row, column) = (at / columns, at % columns);
                let size = if equal != 0.0 {
                    equal
                } else if bound != 0.0 {
                    drawn[at]
                } else {
                    before[at]
                };
                size.copysign(layer[(row / rows * columns + column) * rows + row % rows])
            });
            assert_eq!(unpadded(&weights.floats(), columns), wanted.collect::<Vec<f32>>(), "{blocks} blocks of {rows} x {columns}");
        }
    }
}
