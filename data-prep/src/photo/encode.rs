//! Pixels to a JPEG that takes little room.

use anyhow::{Context, Result};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};

use super::Picture;

/// A baseline JPEG with halved chroma, as photos have it. `quality` is 1 to 100.
pub fn jpeg(picture: &Picture, quality: u8) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, quality);
    encoder.set_sampling_factor(SamplingFactor::F_2_2);
    let (width, height) = (u16::try_from(picture.width), u16::try_from(picture.height));
    let (width, height) = (width.context("its frame is too wide for a JPEG")?, height.context("its frame is too high for a JPEG")?);
    encoder.encode(&picture.pixels, width, height, ColorType::Rgb).context("it cannot be packed as JPEG")?;
    Ok(bytes)
}
