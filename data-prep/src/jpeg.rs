//! JPEG decoding, for preparation and for data sets that are stored as JPEG.

use anyhow::{Result, ensure};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::format::MAX_SIDE;

/// Decodes a stored sample, whose frame is known, to [height, width, channels] with one or three channels.
pub fn decode_stored(bytes: &[u8], height: usize, width: usize, channels: usize) -> Result<Vec<u8>> {
    let colors = if channels == 1 { ColorSpace::Luma } else { ColorSpace::RGB };
    let side = MAX_SIDE as usize;
    let options = DecoderOptions::new_fast().set_strict_mode(true).set_max_width(side).set_max_height(side);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options.jpeg_set_out_colorspace(colors));
    decoder.decode_headers()?;
    let found = decoder.dimensions();
    // Before anything of the announced size is allocated.
    ensure!(found == Some((width, height)), "its frame is {found:?} (width, height), expected is ({width}, {height})");
    let pixels = decoder.decode()?;
    ensure!(pixels.len() == height * width * channels, "it decodes to {} bytes for {height} x {width} x {channels}", pixels.len());
    Ok(pixels)
}
