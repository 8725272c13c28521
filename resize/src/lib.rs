//! Resizing of pictures of bytes, for training and for the preparation of photos.
//!
//! It is a crate of its own because of how long it takes to compile. The resizer's code is generic over the type of a pixel and the kind of
//! a view, it is compiled anew in each crate that calls it, and once more for that crate's tests: each time it was over a minute. Here it
//! is compiled once, for the four types that shards have and for the one kind of view that the resizer's intermediate pictures have.

use std::cell::RefCell;

use anyhow::{Context, Result};
use fast_image_resize::images::TypedImage;
use fast_image_resize::pixels::{U8, U8x2, U8x3, U8x4};
use fast_image_resize::{PixelTrait, ResizeAlg, ResizeOptions, Resizer};

pub use fast_image_resize::{Filter, FilterType};

thread_local! {
    /// Keeps its intermediate rows from one picture to the next.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A picture, `[height][width][channel]`.
pub struct Picture<'a> {
    pub height: usize,
    pub width: usize,
    /// Nothing writes to those of a source; see above.
    pub pixels: &'a mut [u8],
}

/// Resizes a picture of one to four channels by `filter`, whose support is widened where the picture shrinks. Four channels are data, not
/// colour and opacity.
///
/// # Errors
/// Where one of the pictures has fewer pixels than its sides say.
pub fn resize(channels: usize, source: Picture, resized: Picture, filter: FilterType) -> Result<()> {
    match channels {
        1 => resize_typed::<U8>(source, resized, filter),
        2 => resize_typed::<U8x2>(source, resized, filter),
        3 => resize_typed::<U8x3>(source, resized, filter),
        _ => resize_typed::<U8x4>(source, resized, filter),
    }
}

fn resize_typed<P: PixelTrait>(source: Picture, resized: Picture, filter: FilterType) -> Result<()> {
    let source = TypedImage::<P>::from_buffer(source.width as u32, source.height as u32, source.pixels).context("the source")?;
    let mut resized = TypedImage::<P>::from_buffer(resized.width as u32, resized.height as u32, resized.pixels).context("the result")?;
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).use_alpha(false);
    RESIZER.with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut resized, &options))?;
    Ok(())
}
