use std::borrow::Cow;

use super::*;

fn frame(height: usize, width: usize, channels: usize) -> Sample<'static> {
    let value = |y: usize, x: usize, c: usize| ((y * 37 + x * 91 + c * 53 + x * y * 13) % 256) as u8;
    let pixels = (0..height).flat_map(|y| (0..width).flat_map(move |x| (0..channels).map(move |c| value(y, x, c)))).collect();
    Sample { pixels: Cow::Owned(pixels), height, width, channels, label: 0 }
}

fn key(index: u64) -> AugmentKey {
    AugmentKey { seed: 7, epoch: 3, index }
}

/// What `apply` must write, value by value.
fn expected(sample: &Sample, view: &View, scale: &[f32], shift: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for y in 0..view.height {
        for x in 0..view.width {
            for c in 0..sample.channels {
                let y = view.top + (if view.mirror_vertically { view.height - 1 - y } else { y }) as isize;
                let x = view.left + (if view.mirror_horizontally { view.width - 1 - x } else { x }) as isize;
                let inside = (0..sample.height as isize).contains(&y) && (0..sample.width as isize).contains(&x);
                let at = (y * sample.width as isize + x) * sample.channels as isize + c as isize;
                let x = if inside { f32::from(sample.pixels[at as usize]) } else { 0.0 };
                out.push(x * scale[c] + shift[c]);
            }
        }
    }
    out
}

#[test]
fn every_view_is_converted_exactly() {
    for channels in [1, 2, 3, 5, 64] {
        let scale: Vec<f32> = (0..channels).map(|c| 0.37 / (c + 1) as f32).collect();
        let shift: Vec<f32> = (0..channels).map(|c| 0.11 * c as f32 - 0.5).collect();
        let sample = frame(40, 55, channels);
        for (crop, padding) in [([37, 50], 0), ([40, 55], 4), ([46, 61], 3), ([1, 1], 9)] {
            let augmentation = Augmentation {
                crop: Some(crop),
                padding,
                horizontal_flip: true,
                vertical_flip: true,
                random_crop: true,
                ..Augmentation::default()
            };
            for index in 0..16 {
                let view = augmentation.draw(key(index), 40, 55, true).unwrap();
                let mut out = vec![f32::NAN; crop[0] * crop[1] * channels];
                augmentation.apply(&sample, key(index), true, &mut out, &scale, &shift).unwrap();
                assert_eq!(out, expected(&sample, &view, &scale, &shift), "{view:?}");
                let mut bytes = vec![77; out.len()];
                augmentation.apply_bytes(&sample, key(index), true, &mut bytes).unwrap();
                let plain = expected(&sample, &view, &vec![1.0; channels], &vec![0.0; channels]);
                assert_eq!(bytes.iter().map(|byte| f32::from(*byte)).collect::<Vec<f32>>(), plain, "{view:?}");
            }
        }
    }
}

#[test]
fn evaluation_takes_the_centre_as_torchvision_does() {
    let all = |crop| Augmentation {
        crop: Some(crop),
        padding: 4,
        horizontal_flip: true,
        vertical_flip: true,
        random_crop: true,
        random_resized_crop: false,
    };
    // torchvision's CenterCrop: int(round((frame - crop) / 2)), Python's round.
    for (frame, crop, top) in [(10, 10, 0), (10, 9, 0), (10, 8, 1), (10, 7, 2), (10, 5, 2), (10, 3, 4), (10, 13, -1), (10, 12, -1)] {
        let view = all([crop, crop]).draw(key(5), frame, frame, false).unwrap();
        assert_eq!((view.top, view.left), (top, top), "{frame} {crop}");
        assert!(!view.mirror_horizontally && !view.mirror_vertically);
    }
    // Training without a random crop takes the same place, but mirrors.
    let flips = Augmentation { random_crop: false, ..all([7, 7]) };
    let views: Vec<View> = (0..64).map(|index| flips.draw(key(index), 10, 10, true).unwrap()).collect();
    assert!(views.iter().all(|view| (view.top, view.left) == (2, 2)));
    assert!(views.iter().any(|view| view.mirror_horizontally) && views.iter().any(|view| !view.mirror_horizontally));
}

#[test]
fn draws_are_uniform_independent_and_repeatable() {
    let augmentation = Augmentation {
        crop: Some([8, 10]),
        padding: 1,
        horizontal_flip: true,
        vertical_flip: true,
        random_crop: true,
        ..Augmentation::default()
    };
    let count = 40_000;
    let mut places = [[0usize; 5]; 4];
    let mut flips = [[0usize; 2]; 2];
    for index in 0..count {
        let view = augmentation.draw(key(index), 9, 13, true).unwrap();
        assert_eq!(view, augmentation.draw(key(index), 9, 13, true).unwrap());
        // Tops from -1 to 2, lefts from -1 to 4: 4 x 6 places.
        if view.left < 4 {
            places[(view.top + 1) as usize][(view.left + 1) as usize] += 1;
        }
        flips[usize::from(view.mirror_horizontally)][usize::from(view.mirror_vertically)] += 1;
    }
    // Five deviations of a binomial count.
    let near = |found: usize, probability: f64| {
        let mean = count as f64 * probability;
        assert!((found as f64 - mean).abs() < 5.0 * (mean * (1.0 - probability)).sqrt(), "{found} of {mean}");
    };
    places.iter().flatten().for_each(|&found| near(found, 1.0 / 24.0));
    flips.iter().flatten().for_each(|&found| near(found, 0.25));
    let other = AugmentKey { epoch: 4, ..key(0) };
    assert!((0..20).any(|index| {
        let drawn = |key: AugmentKey| augmentation.draw(AugmentKey { index, ..key }, 9, 13, true).unwrap();
        drawn(other) != drawn(key(0))
    }));
}

#[test]
fn resized_parts_have_the_areas_and_aspects_asked_for() {
    let augmentation = Augmentation { crop: Some([32, 32]), random_resized_crop: true, ..Augmentation::default() };
    let count = 20_000;
    let (mut areas, mut wide) = (0.0, 0);
    for index in 0..count {
        let view = augmentation.draw(key(index), 300, 300, true).unwrap();
        assert!(view.top >= 0 && view.top as usize + view.height <= 300 && view.left >= 0 && view.left as usize + view.width <= 300);
        let area = (view.height * view.width) as f64 / 90_000.0;
        let aspect = view.width as f64 / view.height as f64;
        assert!((0.078..=1.0).contains(&area) && (0.74..1.35).contains(&aspect), "{view:?}");
        areas += area / count as f64;
        wide += u64::from(aspect > 1.0);
    }
    // A uniform area's mean would be 0.54; large parts fit a square frame less often, so it lies below. 40,000 draws of
    // torchvision's RandomResizedCrop.get_params have the mean 0.4793, standard error 0.0012.
    assert!((areas - 0.4793).abs() < 0.007, "{areas}");
    assert!((wide as f64 / count as f64 - 0.5).abs() < 0.02, "{wide}");
    // No part of a very long frame fits: the centre of the largest aspect that is allowed.
    let view = augmentation.draw(key(1), 10, 4000, true).unwrap();
    assert_eq!((view.top, view.left, view.height, view.width), (0, 1993, 10, 13));
}

#[test]
fn resizing_agrees_with_torchvision() {
    let sample = frame(11, 14, 3);
    // torchvision 0.26's resized_crop(bilinear, antialias) of the same frame.
    let cases: [(View, [usize; 2], &[u8]); 2] = [
        (
            part(1, 2, 9, 8),
            [4, 5],
            &[
                144, 120, 128, 126, 156, 127, 111, 134, 183, 169, 112, 165, 139, 91, 144, 154, 143, 126, 140, 102, 140, 160, 121, 148, 157,
                115, 154, 90, 131, 99, 128, 105, 143, 131, 112, 154, 136, 120, 139, 158, 121, 138, 118, 109, 107, 161, 158, 107, 130, 134,
                163, 142, 136, 139, 166, 113, 133, 105, 119, 95,
            ],
        ),
        (
            part(3, 0, 4, 6),
            [6, 4],
            &[
                160, 117, 170, 171, 111, 164, 189, 99, 152, 200, 93, 146, 133, 138, 191, 145, 141, 123, 157, 96, 135, 169, 94, 147, 113,
                166, 192, 128, 157, 92, 124, 101, 130, 137, 110, 137, 141, 194, 114, 168, 103, 132, 120, 135, 183, 139, 176, 95, 169, 142,
                115, 137, 105, 158, 144, 112, 165, 108, 161, 134, 189, 82, 135, 96, 120, 173, 169, 80, 133, 76, 129, 182,
            ],
        ),
    ];
    for (view, size, expected) in cases {
        let mut out = vec![0.0; expected.len()];
        resize_and_convert(&sample, &view, size, &Affine::new(&[1.0; 3], &[0.0; 3]), &mut out).unwrap();
        for (found, &expected) in out.iter().zip(expected) {
            assert!((found - f32::from(expected)).abs() <= 1.0, "{found} {expected}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let crop = |crop| Augmentation { crop: Some(crop), ..Augmentation::default() };
    let message = |augmentation: &Augmentation, frame, channels| format!("{:#}", augmentation.output_shape(frame, channels).unwrap_err());
    assert!(message(&Augmentation::default(), None, 3).contains("set crop"));
    assert!(message(&crop([33, 32]), Some([32, 32, 3]), 3).contains("does not fit a frame of 32 x 32"));
    assert!(message(&crop([0, 32]), None, 3).contains("at least 1"));
    let both = Augmentation { random_crop: true, random_resized_crop: true, ..crop([8, 8]) };
    assert!(message(&both, None, 3).contains("choose one"));
    let nowhere = Augmentation { random_crop: true, ..Augmentation::default() };
    assert!(message(&nowhere, Some([32, 32, 3]), 3).contains("needs crop"));
    let padded = Augmentation { random_crop: true, padding: 2, ..crop([36, 36]) };
    assert_eq!(padded.output_shape(Some([32, 32, 3]), 3).unwrap(), [36, 36, 3]);
    assert!(message(&Augmentation { padding: usize::MAX, ..padded }, Some([32, 32, 3]), 3).contains("crop_padding"));
    let sample = frame(8, 8, 1);
    assert!(Augmentation::default().apply(&sample, key(0), true, &mut [0.0; 63], &[1.0], &[0.0]).is_err());
}
