//! JPEG, for data sets that are stored as it, and for their preparation.
//!
//! Both decode by libjpeg-turbo, which Pillow and torchvision use as well: its pixels are what everyone expects of a file, for every form that
//! JPEG has, and they are the same bits on every processor. It goes on after damage with a warning; here most warnings are errors.

mod libjpeg;

use anyhow::{Context, Result, ensure};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use crate::format::MAX_PIXELS;

pub use libjpeg::Jpeg;

/// Decodes a stored sample, whose frame is known, to [height, width, channels] with one or three channels.
pub fn decode_stored(bytes: &[u8], height: usize, width: usize, channels: usize) -> Result<Vec<u8>> {
    let jpeg = Jpeg::open(bytes)?;
    let found = jpeg.frame();
    // Before anything of the announced size is allocated.
    let sound = (found.0 as usize, found.1 as usize) == (height, width) && u64::from(found.0) * u64::from(found.1) <= MAX_PIXELS;
    ensure!(sound, "its frame is {} x {}, expected is {height} x {width}, up to {MAX_PIXELS} pixels", found.0, found.1);
    if channels == 1 { jpeg.gray() } else { jpeg.rgb() }
}

/// A baseline JPEG of [height, width, 3] with halved chroma, as photos have it. `quality` is 1 to 100.
///
/// # Errors
/// A frame that a JPEG cannot have.
pub fn encode(pixels: &[u8], (height, width): (u32, u32), quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let width = u16::try_from(width).context("its frame is too wide for a JPEG")?;
    let height = u16::try_from(height).context("its frame is too high for a JPEG")?;
    encoder.encode(pixels, width, height, ColorType::Rgb).context("it cannot be packed as JPEG")?;
    Ok(bytes)
}
