//! JPEG decoding, for data sets that are stored as JPEG, and for their preparation.
//!
//! Both use libjpeg-turbo, which Pillow and torchvision use as well: its pixels are what everyone expects of a file, for every form that
//! JPEG has, and they are the same bits on every processor. It goes on after damage with a warning; here most warnings are errors.

mod libjpeg;

use anyhow::{Result, ensure};

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
