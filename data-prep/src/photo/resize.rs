//! Shrinking to a short side, and the central square.

use std::f64::consts::PI;

use anyhow::{Context, Result, ensure};
use resize::{Filter, FilterType};
use shards::format::{MAX_PIXELS, MAX_SIDE};

use super::{CHANNELS, Picture};

/// Height and width after the short side became `size`: the long side in proportion, fractions dropped as torchvision's
/// `Resize` drops them.
pub fn resized_frame(height: u32, width: u32, size: u32) -> (u64, u64) {
    let long = |long: u32, short: u32| u64::from(size) * u64::from(long) / u64::from(short);
    if width <= height { (long(height, width), u64::from(size)) } else { (u64::from(size), long(width, height)) }
}

/// Resizes to a short side of `size` with Lanczos' filter of three lobes, its support widened where the picture shrinks. A
/// picture that has the size already stays as it is.
pub fn resize(mut picture: Picture, size: u32) -> Result<Picture> {
    if picture.height.min(picture.width) == size {
        return Ok(picture);
    }
    let (height, width) = resized_frame(picture.height, picture.width, size);
    let side = u64::from(MAX_SIDE);
    ensure!(height <= side && width <= side, "its frame would become {height} x {width}, too long to be stored");
    ensure!(height * width <= MAX_PIXELS, "its frame would become {height} x {width}, beyond {MAX_PIXELS} pixels");
    let (height, width) = (height as usize, width as usize);
    let mut pixels = vec![0; height * width * CHANNELS];
    let filter = FilterType::Custom(Filter::new("Lanczos3", lanczos3, LOBES).context("it cannot be resized")?);
    let source = resize::Picture { height: picture.height as usize, width: picture.width as usize, pixels: &mut picture.pixels };
    let resized = resize::Picture { height, width, pixels: &mut pixels };
    resize::resize(CHANNELS, source, resized, filter).context("it cannot be resized")?;
    Ok(Picture { height: height as u32, width: width as u32, pixels })
}

/// Lobes of Lanczos' filter on each side.
const LOBES: f64 = 3.0;

/// Lanczos' filter, sinc(x) sinc(x / 3). Thousands of its values are needed for every photo, and two sines for each were a tenth of all
/// the time: sin 3t = 3 sin t - 4 sin³ t saves one.
fn lanczos3(x: f64) -> f64 {
    if x.abs() >= LOBES {
        return 0.0;
    }
    let angle = PI * x / LOBES;
    if angle.abs() < 1e-6 {
        return 1.0;
    }
    let sine = angle.sin();
    let square = sine / angle * (sine / angle);
    square * (1.0 - 4.0 / 3.0 * sine * sine)
}

/// The central `size` x `size` square of a picture that is at least as large; of an odd margin the smaller half is above
/// and to the left, rounded to even as torchvision's `CenterCrop` rounds.
pub fn centre_crop(picture: Picture, size: u32) -> Picture {
    if (picture.height, picture.width) == (size, size) {
        return picture;
    }
    let margin = |side: u32| {
        let difference = (side - size) as usize;
        difference / 2 + usize::from(difference % 4 == 3)
    };
    let (top, left) = (margin(picture.height), margin(picture.width));
    let row = size as usize * CHANNELS;
    let lines = picture.pixels.chunks_exact(picture.width as usize * CHANNELS).skip(top).take(size as usize);
    let mut pixels = Vec::with_capacity(size as usize * row);
    lines.for_each(|line| pixels.extend_from_slice(&line[left * CHANNELS..][..row]));
    Picture { height: size, width: size, pixels }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sine_gives_lanczos_filter() {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (PI * x).sin() / (PI * x) };
        for step in -400..=400 {
            let x = f64::from(step) / 100.0;
            let expected = if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 };
            assert!((lanczos3(x) - expected).abs() < 1e-14, "{x}");
        }
    }
}
