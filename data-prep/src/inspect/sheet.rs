//! A contact sheet: pictures in a grid, a line of text under each.

use std::path::Path;

use anyhow::{Context, Result};
use biodist_process::exit::Exit;
use biodist_process::files::write_atomically;
use font8x8::UnicodeFonts;
use image::imageops::FilterType;
use image::{ImageEncoder, Rgb, RgbImage};
use shards::jpeg;

/// Small pictures are enlarged by whole factors until their long side comes near this, large ones shrunk to it.
const SIDE: u32 = 160;
const GLYPH: u32 = 8;
const GAP: u32 = 8;
const TEXT_LINES: usize = 2;
/// Of a JPEG: the text stays legible.
const QUALITY: u8 = 92;
const PAPER: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([20, 20, 20]);

/// A picture and the text under it.
pub struct Cell {
    pub picture: RgbImage,
    pub text: String,
    pub footer: String,
}

impl Cell {
    /// The text on lines of `columns` characters, broken between words where that is possible, at most [`TEXT_LINES`], and the footer.
    fn lines(&self, columns: usize) -> Vec<String> {
        let mut lines = vec![String::new()];
        for word in self.text.split_whitespace() {
            let length = |text: &str| text.chars().count();
            let line = lines.last_mut().expect("there is a first line");
            if line.is_empty() || length(line) + 1 + length(word) <= columns {
                line.push_str(if line.is_empty() { "" } else { " " });
                line.push_str(word);
            } else {
                lines.push(word.to_owned());
            }
        }
        lines.truncate(TEXT_LINES);
        lines.push(self.footer.clone());
        lines
    }
}

/// Draws the cells row by row, `columns` in each.
pub fn draw(cells: &[Cell], columns: u32) -> RgbImage {
    let pictures: Vec<RgbImage> = cells.iter().map(|cell| scaled(&cell.picture)).collect();
    let width = pictures.iter().map(RgbImage::width).max().unwrap_or(1).max(SIDE);
    let height = pictures.iter().map(RgbImage::height).max().unwrap_or(1);
    let columns_of_text = width / GLYPH;
    let texts: Vec<Vec<String>> = cells.iter().map(|cell| cell.lines(columns_of_text as usize)).collect();
    let lines = texts.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let (step_x, step_y) = (width + GAP, height + GAP + lines * (GLYPH + 2));
    let rows = (cells.len() as u32).div_ceil(columns);
    let mut sheet = RgbImage::from_pixel(GAP + columns.min(cells.len() as u32) * step_x, GAP + rows * step_y, PAPER);
    for (at, (text, picture)) in texts.iter().zip(&pictures).enumerate() {
        let (left, top) = (GAP + at as u32 % columns * step_x, GAP + at as u32 / columns * step_y);
        image::imageops::replace(&mut sheet, picture, i64::from(left), i64::from(top));
        for (line, text) in text.iter().enumerate() {
            write(&mut sheet, text, left, top + height + 2 + line as u32 * (GLYPH + 2), columns_of_text);
        }
    }
    sheet
}

/// How a sheet is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Png,
    Jpeg,
}

impl Form {
    /// What the ending of the file's name says; without one, as a device's, PNG.
    ///
    /// # Errors
    /// Where it says anything else.
    pub fn of(path: &Path) -> Result<Form> {
        match path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).as_deref() {
            None | Some("png") => Ok(Form::Png),
            Some("jpg" | "jpeg") => Ok(Form::Jpeg),
            Some(_) => {
                Err(Exit::Usage.error(format!("--out {}: a sheet is a PNG or a JPEG; end its name in .png or .jpg", path.display())))
            }
        }
    }
}

/// Writes the sheet under exactly the name that is given.
pub fn save(sheet: RgbImage, form: Form, path: &Path) -> Result<()> {
    let (width, height) = sheet.dimensions();
    let bytes = match form {
        Form::Jpeg => jpeg::encode(sheet.as_raw(), (height, width), QUALITY)?,
        Form::Png => {
            let mut bytes = Vec::new();
            let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
            let written = encoder.write_image(sheet.as_raw(), width, height, image::ExtendedColorType::Rgb8);
            written.context("the sheet cannot be packed as PNG")?;
            bytes
        }
    };
    write_atomically(path, &bytes)
}

fn scaled(picture: &RgbImage) -> RgbImage {
    let (width, height) = picture.dimensions();
    let long = width.max(height);
    if long > SIDE {
        let side = |side: u32| (side * SIDE / long).max(1);
        return image::imageops::resize(picture, side(width), side(height), FilterType::Triangle);
    }
    let factor = (SIDE / long).max(1);
    image::imageops::resize(picture, width * factor, height * factor, FilterType::Nearest)
}

/// One line of at most `columns` characters; what the font lacks becomes a question mark.
fn write(sheet: &mut RgbImage, text: &str, left: u32, top: u32, columns: u32) {
    let fonts = (font8x8::BASIC_FONTS, font8x8::LATIN_FONTS, font8x8::GREEK_FONTS);
    for (at, letter) in text.chars().take(columns as usize).enumerate() {
        let glyph = fonts.0.get(letter).or_else(|| fonts.1.get(letter)).or_else(|| fonts.2.get(letter));
        let glyph = glyph.or_else(|| fonts.0.get('?')).unwrap_or_default();
        for (y, row) in (0..).zip(glyph) {
            for x in (0..GLYPH).filter(|x| row >> x & 1 == 1) {
                sheet.put_pixel(left + at as u32 * GLYPH + x, top + y, INK);
            }
        }
    }
}
