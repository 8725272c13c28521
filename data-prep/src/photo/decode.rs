//! Files to pixels, whatever their form: collections of photos hold CMYK and gray JPEGs, PNGs that are named .JPEG, 16 bits
//! per value, palettes. The name is never looked at, only the first bytes. All become 8-bit RGB; opacity is dropped.

use std::borrow::Cow;
use std::io::Cursor;

use anyhow::{Context, Result, bail, ensure};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, Limits, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::format::MAX_SIDE;

/// More pixels are refused before anything is allocated for them: some files announce frames that they do not hold.
const MAX_PIXELS: u64 = 1 << 27;

/// An image in memory: [height, width, 3] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    pub height: u32,
    pub width: u32,
    pub pixels: Vec<u8>,
}

/// Decodes a JPEG or PNG file; turns it as its EXIF data say where `exif_orientation` is set.
///
/// # Errors
/// Where the file is of another kind, damaged, cut off, or too large.
pub fn decode(file: &[u8], exif_orientation: bool) -> Result<Picture> {
    let (picture, orientation) = match file {
        [0xff, 0xd8, ..] => decode_jpeg(file, exif_orientation)?,
        [0x89, b'P', b'N', b'G', ..] => decode_png(file, exif_orientation)?,
        [] => bail!("it is empty"),
        _ => bail!("it is neither a JPEG nor a PNG (it begins with {:02x?})", &file[..file.len().min(4)]),
    };
    if orientation == Orientation::NoTransforms {
        return Ok(picture);
    }
    let image = RgbImage::from_raw(picture.width, picture.height, picture.pixels).context("the decoder gave too few pixels")?;
    let mut image = DynamicImage::from(image);
    image.apply_orientation(orientation);
    let image = image.into_rgb8();
    Ok(Picture { height: image.height(), width: image.width(), pixels: image.into_raw() })
}

fn check_frame(width: u64, height: u64) -> Result<()> {
    let sides = 1..=u64::from(MAX_SIDE);
    ensure!(
        sides.contains(&width) && sides.contains(&height) && width * height <= MAX_PIXELS,
        "its frame of {height} x {width} pixels is beyond {MAX_PIXELS} pixels"
    );
    Ok(())
}

fn decode_jpeg(file: &[u8], exif_orientation: bool) -> Result<(Picture, Orientation)> {
    // Strict, since otherwise a file that is cut off yields gray areas and no error; but bytes between the segments of the
    // header, which strictness refuses, are common and harmless.
    let side = MAX_SIDE as usize;
    let options = DecoderOptions::new_fast().set_strict_mode(true).set_max_width(side).set_max_height(side);
    let file = without_junk(file);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&*file), options.jpeg_set_out_colorspace(ColorSpace::RGB));
    decoder.decode_headers().map_err(reason)?;
    let (width, height) = decoder.dimensions().context("it has no frame")?;
    check_frame(width as u64, height as u64)?;
    let pixels = decoder.decode().map_err(reason)?;
    ensure!(pixels.len() == width * height * 3, "it decodes to {} bytes for a frame of {height} x {width}", pixels.len());
    let exif = if exif_orientation { decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif)) } else { None };
    Ok((Picture { height: height as u32, width: width as u32, pixels }, exif.unwrap_or(Orientation::NoTransforms)))
}

/// The decoder's message on one line.
fn reason(error: zune_jpeg::errors::DecodeErrors) -> anyhow::Error {
    let text = format!("{error:?}");
    anyhow::anyhow!("{}", text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The file without the bytes that lie between the segments of its header and belong to none.
fn without_junk(file: &[u8]) -> Cow<'_, [u8]> {
    const START_OF_SCAN: u8 = 0xda;
    let mut at = 2;
    let mut junk = Vec::new();
    while let Some(&[mark, kind]) = file.get(at..at + 2) {
        if mark != 0xff || kind == 0 || kind == 0xff {
            match junk.last_mut() {
                Some((_, end)) if *end == at => *end = at + 1,
                _ => junk.push((at, at + 1)),
            }
            at += 1;
            continue;
        }
        if kind == START_OF_SCAN {
            break;
        }
        let Some(&[high, low]) = file.get(at + 2..at + 4) else { break };
        at += 2 + usize::from(u16::from_be_bytes([high, low])).max(2);
    }
    if junk.is_empty() {
        return Cow::Borrowed(file);
    }
    let mut kept = Vec::with_capacity(file.len());
    let mut from = 0;
    for (start, end) in junk {
        kept.extend_from_slice(&file[from..start]);
        from = end;
    }
    kept.extend_from_slice(&file[from..]);
    Cow::Owned(kept)
}

fn decode_png(file: &[u8], exif_orientation: bool) -> Result<(Picture, Orientation)> {
    let mut decoder = image::codecs::png::PngDecoder::with_limits(Cursor::new(file), Limits::no_limits()).map_err(whole)?;
    let (width, height) = decoder.dimensions();
    check_frame(u64::from(width), u64::from(height))?;
    let orientation = if exif_orientation { decoder.orientation().map_err(whole)? } else { Orientation::NoTransforms };
    let image = DynamicImage::from_decoder(decoder).map_err(whole)?.into_rgb8();
    Ok((Picture { height: image.height(), width: image.width(), pixels: image.into_raw() }, orientation))
}

/// The error alone: its text holds that of its cause, which would be told twice.
fn whole(error: image::ImageError) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_png_is_told_once() {
        let mut file = Cursor::new(Vec::new());
        RgbImage::from_fn(20, 10, |x, y| image::Rgb([x as u8, y as u8, 7])).write_to(&mut file, image::ImageFormat::Png).unwrap();
        let file = file.into_inner();
        assert_eq!(decode(&file, false).unwrap().width, 20);
        for damaged in [file[..20].to_vec(), file[..file.len() - 20].to_vec(), [&file[..50], &[0; 40]].concat()] {
            let text = format!("{:#}", decode(&damaged, false).unwrap_err());
            let parts: Vec<&str> = text.split(": ").collect();
            assert!(parts.iter().enumerate().all(|(index, part)| !parts[..index].contains(part)), "{text}");
        }
    }
}
