//! What is done at a network's two ends: images and labels come in, an output and its error go out.

use super::memory::{Buffer, distance, padded, random, unpadded};
use super::products::shape;
use super::{emulation, launch};
use crate::compute::Pixels;
use crate::compute::cuda::kernels::arguments as c;
use crate::compute::cuda::kernels::launches::{self, in_fours};
use crate::compute::cuda::kernels::tables::Input;
use crate::network::Shape;

/// Runs `output` on one row of logits a sample: output, error, and the three measures.
fn output(pre: &[f32], units: usize, labels: &[u32], smoothing: f32, wanted: Option<&[f32]>) -> [Vec<f32>; 5] {
    let samples = pre.len() / units;
    let (pre, labels, count) = (Buffer::of(&padded(pre, units)), Buffer::of(labels), samples * in_fours(units));
    let wanted = wanted.map(|wanted| Buffer::of(&padded(wanted, units)));
    let ([y, error], [loss, top1, top5]) = ([(); 2].map(|()| Buffer::new(count)), [(); 3].map(|()| Buffer::new(samples)));
    let argument = c::Output {
        pre: pre.address(),
        output: y.address(),
        error: error.address(),
        labels: labels.address(),
        wanted: wanted.as_ref().map_or(0, Buffer::address),
        loss: loss.address(),
        top1: top1.address(),
        top5: top5.address(),
        samples: samples as i32,
        units: units as i32,
        linear: i32::from(wanted.is_some()),
        smoothing,
    };
    let all = [&y, &error, &loss, &top1, &top5];
    launch(&all, |list| launches::output(list, &argument));
    let both = all.map(Buffer::floats);
    // The output alone is the same.
    let alone = Buffer::new(count);
    let argument = c::Output { output: alone.address(), error: 0, ..argument };
    launch(&[&alone], |list| launches::output(list, &argument));
    assert_eq!(alone.bits(), y.bits());
    let [y, error, loss, top1, top5] = both;
    [unpadded(&y, units), unpadded(&error, units), loss, top1, top5]
}

#[test]
fn the_output_agrees_with_float64() {
    let Some(_) = emulation() else { return };
    for (units, samples, smoothing) in [(1000, 3, 0.0), (10, 130, 0.1f32), (5, 1, 0.0), (257, 2, 0.5)] {
        let pre: Vec<f32> = random(3, units * samples).into_iter().map(|x| 30.0 * x).collect();
        let labels: Vec<u32> = (0..samples).map(|sample| (sample * 7 % units) as u32).collect();
        let [y, error, loss, top1, top5] = output(&pre, units, &labels, smoothing, None);
        for sample in 0..samples {
            let row = &pre[sample * units..][..units];
            let (label, own) = (labels[sample] as usize, row[labels[sample] as usize]);
            let sum: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
            let wanted = sum.ln() - f64::from(own);
            assert!((f64::from(loss[sample]) - wanted).abs() < 1e-5 * wanted.max(1.0), "{} for {wanted}", loss[sample]);
            for (class, logit) in row.iter().enumerate() {
                let p = f64::from(*logit).exp() / sum;
                let at = sample * units + class;
                let smoothing = f64::from(smoothing);
                let hot = smoothing / units as f64 + if class == label { 1.0 - smoothing } else { 0.0 };
                assert!((f64::from(y[at]) - p).abs() < 1e-6 && (f64::from(error[at]) - p + hot).abs() < 1e-6);
            }
            let ahead = row.iter().enumerate().filter(|&(class, x)| *x > own || (*x == own && class < label)).count();
            assert_eq!((top1[sample], top5[sample]), (f32::from(ahead >= 1), f32::from(ahead >= 5)));
        }
    }
    // Equal logits rank by class; a number that is not one is never right, and far ones do not overflow.
    let [.., top1, top5] = output(&[2.0; 21], 7, &[0, 4, 5], 0.0, None);
    assert_eq!((top1, top5), (vec![0.0, 1.0, 1.0], vec![0.0, 0.0, 1.0]));
    let [_, _, loss, top1, top5] = output(&[f32::NAN, 1.0, 2.0, 3.0, 4.0, 88.0, -90.0, 400.0, 5.0, 6.0, 7.0, 400.0], 6, &[0, 1], 0.0, None);
    assert!(loss[0].is_nan() && (loss[1] - 2f32.ln()).abs() < 1e-6, "{loss:?}");
    assert_eq!((top1, top5), (vec![1.0, 0.0], vec![1.0, 0.0]));

    let (h, x) = (random(1, 3 * 301), random(2, 3 * 301));
    let [y, error, loss, ..] = output(&h, 301, &[], 0.0, Some(&x));
    assert_eq!(y, h);
    let wanted: Vec<f64> = h.iter().zip(&x).map(|(h, x)| 2.0 * (f64::from(*h) - f64::from(*x))).collect();
    assert!(distance(&error, &wanted) < 1e-6);
    let sums: Vec<f64> = wanted.chunks_exact(301).map(|row| row.iter().map(|error| error * error / 4.0).sum()).collect();
    assert!(distance(&loss, &sums) < 1e-6);
}

#[test]
fn dense_activities_are_joined_and_labels_become_vectors() {
    let Some(_) = emulation() else { return };
    for (a, b, samples) in [(10, 5, 3), (4, 8, 1), (1, 1, 7), (1000, 3, 2)] {
        let (left, right) = (random(1, a * samples), random(2, b * samples));
        let buffers = [Buffer::of(&padded(&left, a)), Buffer::of(&padded(&right, b))];
        let out = Buffer::new(samples * in_fours(a + b));
        let argument = c::Concatenate {
            a: buffers[0].address(),
            b: buffers[1].address(),
            destination: out.address(),
            samples: samples as i32,
            a_channels: a as i32,
            b_channels: b as i32,
            padding: 0,
        };
        launch(&[&out], |list| launches::concatenate(list, &argument));
        let wanted: Vec<f32> = left.chunks_exact(a).zip(right.chunks_exact(b)).flat_map(|(a, b)| [a, b].concat()).collect();
        assert_eq!(unpadded(&out.floats(), a + b), wanted);
    }
    let (labels, out) = (Buffer::of(&[2u32, 0, 4]), Buffer::new(3 * 8));
    let argument = c::OneHot { destination: out.address(), labels: labels.address(), samples: 3, classes: 5, smoothing: 0.0, padding: 0 };
    launch(&[&out], |list| launches::one_hot(list, &argument));
    let wanted: [f32; 15] = [0., 0., 1., 0., 0., 1., 0., 0., 0., 0., 0., 0., 0., 0., 1.];
    assert_eq!(unpadded(&out.floats(), 5), wanted);
    let argument = c::OneHot { smoothing: 0.25, ..argument };
    launch(&[&out], |list| launches::one_hot(list, &argument));
    assert_eq!(unpadded(&out.floats(), 5), wanted.map(|hot| 0.05 + 0.75 * hot));
}

/// `samples` images in the layout that `input` asks for.
pub fn pixels(input: &Input, image: Shape, samples: usize, pixels: Pixels) -> Buffer {
    let (source, out) = (Buffer::of(pixels.bytes()), Buffer::new(samples * input.floats(image)));
    let [scale, shift] = match pixels {
        Pixels::Floats(_) => [&[][..]; 2],
        Pixels::Bytes { scale, shift, .. } => [scale, shift],
    };
    let place = Buffer::of(&[c::Place { colours: scale.len() as u32, ..c::Place::default() }]);
    let [scale, shift] = [scale, shift].map(Buffer::of);
    let argument = c::Pixels {
        source: source.address(),
        destination: out.address(),
        scale: scale.address(),
        shift: shift.address(),
        place: place.address(),
        samples: samples as i32,
        ..input.pixels(image)
    };
    launch(&[&out], |list| launches::pixels(list, &argument));
    out
}

#[test]
fn pixels_are_scaled_into_an_activity_or_a_line() {
    let Some(_) = emulation() else { return };
    let (image, samples) = (shape(5, 6, 3), 4);
    let bytes: Vec<u8> = (0..image.units() * samples).map(|i| (i * 37 % 256) as u8).collect();
    let (scale, shift) = ([0.01f32, 0.02, 0.03], [-1.0f32, 0.5, 0.25]);
    let scaled = |i: usize| f32::from(bytes[i]) * scale[i % 3] + shift[i % 3];
    let given = Pixels::Bytes { values: &bytes, scale: &scale, shift: &shift };
    for given in [given, Pixels::Floats(&given.scaled())] {
        let activity = pixels(&Input::Activity, image, samples, given);
        let activity = unpadded(&activity.floats(), 3);
        let line = pixels(&Input::Dense, image, samples, given);
        let line = unpadded(&line.floats(), image.units());
        for sample in 0..samples {
            for i in 0..image.units() {
                let wanted = scaled(sample * image.units() + i);
                assert_eq!(line[sample * image.units() + i], wanted);
                assert_eq!(activity[(i / 3 * samples + sample) * 3 + i % 3], wanted);
            }
        }
    }
}
