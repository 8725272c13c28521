//! Shrinking to a short side, and the central square.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};

use super::{CHANNELS, Picture};
use crate::format::MAX_SIDE;

thread_local! {
    /// Keeps its intermediate rows from one picture to the next.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// Height and width after the short side became `size`: the long side in proportion, fractions dropped as torchvision's
/// `Resize` drops them.
pub fn resized_frame(height: u32, width: u32, size: u32) -> (u64, u64) {
    let long = |long: u32, short: u32| u64::from(size) * u64::from(long) / u64::from(short);
    if width <= height { (long(height, width), u64::from(size)) } else { (u64::from(size), long(width, height)) }
}

/// Resizes to a short side of `size` with Lanczos' filter of three lobes, its support widened where the picture shrinks. A
/// picture that has the size already stays as it is.
pub fn resize(picture: Picture, size: u32) -> Result<Picture> {
    if picture.height.min(picture.width) == size {
        return Ok(picture);
    }
    let (height, width) = resized_frame(picture.height, picture.width, size);
    let side = u64::from(MAX_SIDE);
    ensure!(height <= side && width <= side, "its frame would become {height} x {width}, too long to be stored");
    let (height, width) = (height as u32, width as u32);
    let source = ImageRef::new(picture.width, picture.height, &picture.pixels, PixelType::U8x3).context("it cannot be resized")?;
    let mut resized = Image::new(width, height, PixelType::U8x3);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Lanczos3));
    RESIZER.with_borrow_mut(|resizer| resizer.resize(&source, &mut resized, &options)).context("it cannot be resized")?;
    Ok(Picture { height, width, pixels: resized.into_vec() })
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
