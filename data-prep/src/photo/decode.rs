//! Files to pixels, whatever their form: collections of photos hold CMYK and gray JPEGs, PNGs that are named .JPEG, 16 bits
//! per value, palettes. The name is never looked at, only the first bytes. All become 8-bit RGB; opacity is dropped.

use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use image::codecs::png::PngDecoder;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits, RgbImage};
use shards::format::{MAX_PIXELS, MAX_SIDE};
use shards::jpeg::Jpeg;

use super::CHANNELS;

/// Bytes that a PNG's colour profile and texts may take when they are unpacked.
const MAX_BESIDES: u64 = 64 << 20;

/// An image in memory: [height, width, 3] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub height: u32,
    pub width: u32,
    pub pixels: Vec<u8>,
}

/// A JPEG or PNG file whose header has been read.
pub struct Photo<'a> {
    form: Form<'a>,
    /// Height and width.
    frame: (u32, u32),
    orientation: Orientation,
}

enum Form<'a> {
    Jpeg(Jpeg<'a>),
    Png(Box<PngDecoder<Cursor<&'a [u8]>>>),
}

impl<'a> Photo<'a> {
    /// Reads the header, and where `exif_orientation` is set also how the EXIF data say that the photo is to be turned.
    ///
    /// # Errors
    /// Where the file is of another kind, damaged, or too large.
    pub fn open(file: &'a [u8], exif_orientation: bool) -> Result<Photo<'a>> {
        let (form, frame, orientation) = match file {
            [0xff, 0xd8, ..] => {
                let jpeg = Jpeg::open(file)?;
                let orientation = jpeg.exif().filter(|_| exif_orientation).and_then(Orientation::from_exif_chunk);
                let frame = jpeg.frame();
                (Form::Jpeg(jpeg), frame, orientation.unwrap_or(Orientation::NoTransforms))
            }
            [0x89, b'P', b'N', b'G', ..] => {
                let mut limits = Limits::no_limits();
                limits.max_alloc = Some(MAX_BESIDES);
                let mut png = PngDecoder::with_limits(Cursor::new(file), limits).map_err(whole)?;
                let orientation = if exif_orientation { png.orientation().map_err(whole)? } else { Orientation::NoTransforms };
                let (width, height) = png.dimensions();
                (Form::Png(Box::new(png)), (height, width), orientation)
            }
            [] => bail!("it is empty"),
            _ => bail!("it is neither a JPEG nor a PNG (it begins with {:02x?})", &file[..file.len().min(4)]),
        };
        check_frame(frame.1.into(), frame.0.into())?;
        Ok(Photo { form, frame, orientation })
    }

    /// Height and width, before it is turned.
    pub fn frame(&self) -> (u32, u32) {
        self.frame
    }

    /// Bytes that [`Photo::decode`] needs at most, its result included.
    pub fn memory(&self) -> u64 {
        let result = u64::from(self.frame.0) * u64::from(self.frame.1) * CHANNELS as u64;
        let decoded = match &self.form {
            Form::Jpeg(jpeg) => jpeg.memory(),
            Form::Png(png) => png.total_bytes(),
        };
        decoded + result
    }

    /// Decodes and turns it.
    ///
    /// # Errors
    /// Where the file is damaged or cut off.
    pub fn decode(self) -> Result<Picture> {
        let (height, width) = self.frame;
        let image = match self.form {
            Form::Jpeg(jpeg) => RgbImage::from_raw(width, height, jpeg.rgb()?).context("the decoder gave too few pixels")?,
            Form::Png(png) => DynamicImage::from_decoder(*png).map_err(whole)?.into_rgb8(),
        };
        let mut image = DynamicImage::from(image);
        image.apply_orientation(self.orientation);
        let image = image.into_rgb8();
        Ok(Picture { height: image.height(), width: image.width(), pixels: image.into_raw() })
    }
}

fn check_frame(width: u64, height: u64) -> Result<()> {
    let sides = 1..=u64::from(MAX_SIDE);
    ensure!(
        sides.contains(&width) && sides.contains(&height) && width * height <= MAX_PIXELS,
        "its frame of {height} x {width} pixels is beyond {MAX_PIXELS} pixels"
    );
    Ok(())
}

/// The error alone: its text holds that of its cause, which would be told twice.
fn whole(error: image::ImageError) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(file: &[u8]) -> Result<Picture> {
        Photo::open(file, false)?.decode()
    }

    #[test]
    fn what_is_wrong_with_a_png_is_told_once() {
        let mut file = Cursor::new(Vec::new());
        RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8, y as u8, 7])).write_to(&mut file, image::ImageFormat::Png).unwrap();
        let file = file.into_inner();
        assert_eq!(decode(&file).unwrap().width, 20);
        for damaged in [file[..20].to_vec(), file[..file.len() - 20].to_vec(), [&file[..50], &[0; 40]].concat()] {
            let text = format!("{:#}", decode(&damaged).unwrap_err());
            let parts: Vec<&str> = text.split(": ").collect();
            assert!(parts.iter().enumerate().all(|(index, part)| !parts[..index].contains(part)), "{text}");
        }
    }
}
