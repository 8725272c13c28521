//! What is done to each photo before it is stored: decode, shrink, crop, and pack, always in this order.

mod decode;
mod resize;

use anyhow::Result;
use shards::format::Encoding;
use shards::jpeg::{decode_stored, encode};
use shards::statistics::PixelSums;

pub use decode::{Photo, Picture};
pub use resize::{centre_crop, resize, resized_frame};

/// All photos are stored in colour.
pub const CHANNELS: usize = 3;

/// How photos are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Treatment {
    /// Length that the short side gets; the photo's own where absent.
    pub size: Option<u32>,
    /// Keep only the central `size` x `size` square.
    pub square: bool,
    pub encoding: Encoding,
    /// Quality of a stored JPEG, 1 to 100.
    pub quality: u8,
    /// Turn the photo as its EXIF data say.
    pub exif_orientation: bool,
}

/// A photo as it goes into a shard.
#[derive(Debug)]
pub struct Prepared {
    pub bytes: Vec<u8>,
    /// Height and width.
    pub frame: (u32, u32),
    /// Of the pixels that a reader will see.
    pub sums: PixelSums,
}

impl Treatment {
    /// Prepares one photo given as the bytes of a JPEG or PNG file. `admit` is told how many bytes that takes at most, before they are
    /// allocated; it may wait, or refuse.
    ///
    /// # Errors
    /// Where the file cannot be decoded whole.
    pub fn prepare(&self, file: &[u8], admit: impl FnOnce(u64) -> Result<()>) -> Result<Prepared> {
        let photo = Photo::open(file, self.exif_orientation)?;
        admit(photo.memory().saturating_add(self.resized_memory(photo.frame())))?;
        let mut picture = photo.decode()?;
        if let Some(size) = self.size {
            picture = resize(picture, size)?;
            if self.square {
                picture = centre_crop(picture, size);
            }
        }
        let frame = (picture.height, picture.width);
        let (bytes, sums) = match self.encoding {
            Encoding::Raw => {
                let sums = PixelSums::of(&picture.pixels, CHANNELS);
                (picture.pixels, sums)
            }
            Encoding::Jpeg => {
                let bytes = encode(&picture.pixels, frame, self.quality)?;
                let seen = decode_stored(&bytes, picture.height as usize, picture.width as usize, CHANNELS)?;
                (bytes, PixelSums::of(&seen, CHANNELS))
            }
        };
        Ok(Prepared { bytes, frame, sums })
    }

    /// Bytes of a photo of this height and width after resizing, and of one pass of the resizing.
    fn resized_memory(&self, (height, width): (u32, u32)) -> u64 {
        self.size.map_or(0, |size| {
            let (height, width) = resized_frame(height, width, size);
            height.saturating_mul(width).saturating_mul(2 * CHANNELS as u64)
        })
    }
}
