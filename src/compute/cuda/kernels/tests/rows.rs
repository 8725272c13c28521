//! Images of few channels, left as lines of each sample: forward and update, against the map as it was.

use super::ends::pixels;
use super::memory::{Buffer, distance, padded, unpadded};
use super::products::{reference, shape, weights};
use super::updates::{ADAM, Given};
use super::{emulation, launch};
use crate::compute::Pixels;
use crate::compute::cuda::kernels::arguments::{Apply, Factors, Job, Map, Update};
use crate::compute::cuda::kernels::launches::{self, in_fours};
use crate::compute::cuda::kernels::tables::{Input, Tables};
use crate::compute::settings::Precision::F32;
use crate::network::{Connectivity, Shape};

/// A layer of windows, and the shape of its input.
struct Lowest {
    image: Shape,
    connectivity: Connectivity,
    input: Input,
}

fn lowest(image: Shape, channels: usize, kernel: usize, stride: usize, shared: bool) -> Lowest {
    let output = shape(image.height.div_ceil(stride), image.width.div_ceil(stride), channels);
    let connectivity = Connectivity::windows(image, output, kernel, stride, shared);
    let input = Input::between(&connectivity, image, output);
    Lowest { image, connectivity, input }
}

/// Of all shapes: rows that begin on every float, on every second, and on every fourth; kernels larger than the stride, and smaller.
fn cases() -> Vec<Lowest> {
    vec![
        lowest(shape(7, 6, 3), 12, 5, 1, false),
        lowest(shape(6, 9, 3), 5, 4, 2, false),
        lowest(shape(9, 8, 3), 48, 5, 4, false),
        lowest(shape(5, 6, 1), 20, 3, 1, false),
        lowest(shape(7, 7, 5), 3, 2, 3, false),
        lowest(shape(6, 6, 3), 20, 3, 1, true),
        lowest(shape(6, 7, 4), 4, 3, 2, true),
        lowest(shape(1, 2, 3), 5, 3, 1, true),
    ]
}

#[test]
fn the_lowest_layer_reads_an_image_as_it_lies() {
    let Some(_) = emulation() else { return };
    for Lowest { image, connectivity, input } in cases() {
        let connectivity = &connectivity;
        let shared = connectivity.blocks == connectivity.blocks_per_position;
        let Input::Rows(rows) = &input else { panic!("{image} has few channels") };
        let samples = 5;
        let bytes: Vec<u8> = (0..image.units() * samples).map(|i| (i * 37 % 256) as u8).collect();
        let (scale, shift) = (vec![0.01; image.channels], vec![-1.0; image.channels]);
        let x = pixels(&input, image, samples, Pixels::Bytes { values: &bytes, scale: &scale, shift: &shift });
        assert!(x.floats().iter().all(|x| x.is_finite()), "every float is written");
        // The image as an activity.
        let mut activity = vec![0.0; bytes.len()];
        for (i, byte) in bytes.iter().enumerate() {
            let (sample, position, channel) = (i / image.units(), i % image.units() / image.channels, i % image.channels);
            activity[(position * samples + sample) * image.channels + channel] = f32::from(*byte) * 0.01 - 1.0;
        }
        let (w, wide) = (weights(connectivity, 1), in_fours(connectivity.columns));
        let described = |tables: &Tables| (Buffer::of(&tables.starts), Buffer::of(&tables.links));
        let (tables, kernel_row, pitch, place) = input.view(image).unwrap();
        let (starts, links) = described(&tables);
        let (weights_buffer, out) =
            (Buffer::of(&padded(&w, connectivity.columns)), Buffer::new(connectivity.destinations * samples * wide));
        let kernel_rows = Map { starts: starts.address(), links: links.address(), rows: kernel_row, columns: wide as i32, pitch, place };
        let mut argument = Apply {
            map: kernel_rows,
            weights: weights_buffer.address(),
            samples: samples as i32,
            jobs: 1,
            positions: connectivity.destinations as i32,
            ..Apply::default()
        };
        argument.job[0] = Job { source: x.address(), destination: out.address(), kept: 0 };
        let partial = Buffer::new(launches::apply_partial(F32, false, tables.most, &argument));
        argument.partial = partial.address();
        launch(&[&out, &partial, &x], |list| launches::apply(list, F32, false, tables.most, &argument));
        let off = distance(&unpadded(&out.floats(), connectivity.columns), &reference(connectivity, false, &activity, &w, None, samples));
        assert!(off < 1e-6, "{image}: off by {off:.1e}");

        // The update.
        let given = Given { pre: activity, ..Given::new(connectivity, samples, 4) };
        let (wanted, post) = (given.reference(), Buffer::of(&padded(&given.post, connectivity.columns)));
        // Every row of a kernel, so that all of the gradient is written.
        let tables = &if shared { rows.by_block.clone() } else { rows.by_destination.decaying(connectivity.blocks_per_position.isqrt()) };
        let (starts, links) = described(tables);
        let optimizer = Buffer::of(&[ADAM]);
        let gradients = Buffer::new(connectivity.blocks * connectivity.rows * wide);
        let mut update = Update {
            map: Map { starts: starts.address(), links: links.address(), ..kernel_rows },
            factors: Factors {
                pre: x.address(),
                post: post.address(),
                samples: samples as i32,
                per_rank: samples as i32,
                ..Factors::default()
            },
            gradients: gradients.address(),
            optimizer: optimizer.address(),
            groups: tables.groups() as i32,
            ..Update::default()
        };
        let partial = Buffer::new(if shared { launches::shared_partial(F32, tables.most, &update) } else { 0 });
        update.partial = partial.address();
        let make = if shared { launches::update_shared } else { launches::update };
        launch(&[&gradients, &partial, &x, &post], |list| make(list, F32, tables.most, None, &update));
        let gradient = gradients.floats();
        let wanted: Vec<f64> = wanted.iter().map(|sum| sum * f64::from(ADAM.scale)).collect();
        let off = distance(&unpadded(&gradient, connectivity.columns), &wanted);
        assert!(off < 1e-6, "{image}: the update is off by {off:.1e}");
    }
}

#[test]
fn other_inputs_are_activities() {
    assert_eq!(lowest(shape(4, 4, 16), 5, 3, 1, false).input, Input::Activity);
    // Whatever reads all of the image at one place reads it as one line.
    for Lowest { image, input, .. } in [lowest(shape(1, 1, 785), 5, 1, 1, false), lowest(shape(3, 3, 3), 5, 3, 3, false)] {
        assert_eq!(input, Input::Dense);
        let (tables, rows, pitch, place) = input.view(image).unwrap();
        assert_eq!((tables.groups(), tables.most, rows as usize, place), (1, 1, image.units(), 0));
        assert_eq!(pitch as usize, in_fours(image.units()));
    }
}
