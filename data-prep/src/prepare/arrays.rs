//! Images and labels in files of arrays, whatever the form of the files: one array of unsigned bytes, one of whole numbers.

use std::io::{Read, copy, sink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use biodist_process::exit::Exit;
use serde_json::Value;
use shards::format::{Encoding, MAX_CHANNELS, MAX_CLASSES, MAX_SIDE};
use shards::writer::{DatasetWriter, Description};

use super::stream::Stream;
use super::{Made, made_by, numbered_classes};
use crate::output::Output;

/// Larger samples are refused: their size is a damaged header's.
const MAX_SAMPLE: u64 = 256 << 20;
/// More labels are refused as well: a small packed file can hold any number.
const MAX_LABELS: u64 = 1 << 28;

/// An array in a file whose header has been read.
pub struct Array {
    /// The file, and where it holds several arrays, which of them, as messages name it.
    pub name: String,
    pub dimensions: Vec<u64>,
    pub number: Number,
    /// The values, then the end.
    pub content: Box<dyn Read>,
}

/// How a whole number is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number {
    /// 1, 2, 4 or 8.
    pub bytes: usize,
    pub signed: bool,
    pub big_endian: bool,
}

/// An unsigned byte.
pub const BYTE: Number = Number { bytes: 1, signed: false, big_endian: false };

/// Where the channels of an image lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// [H, W, C]
    Pixels,
    /// [C, H, W]
    Planes,
}

/// What is to be made of two arrays.
pub struct Options<'a> {
    pub out: &'a Path,
    /// Class count; the largest label and one where absent.
    pub classes: Option<u32>,
    pub layout: Layout,
    pub shard_mib: u32,
    /// The command, its inputs and options, as [`Output::claim`] takes them.
    pub job: Value,
    /// What the manifest says of the same.
    pub made: Value,
}

/// Fails where `--classes` is impossible.
pub fn check_classes(classes: Option<u32>) -> Result<()> {
    match classes.filter(|classes| !(1..=MAX_CLASSES).contains(classes)) {
        Some(classes) => Err(Exit::Usage.error(format!("--classes is {classes}, allowed are 1 to {MAX_CLASSES}"))),
        None => Ok(()),
    }
}

/// Writes the samples in the order of the arrays.
///
/// # Errors
/// Names the array that is of another shape, truncated or too long, and labels beyond the class count. All that can be wrong with the
/// files is found before anything is written: what had to be got again would be another job.
pub fn prepare(images: impl Fn() -> Result<Array>, mut labels: Array, options: Options) -> Result<Made> {
    check_classes(options.classes)?;
    let labels_name = labels.name.clone();
    let labels = labels.labels()?;
    let mut array = images()?;
    let ([count, height, width, channels], name) = (array.image_shape(options.layout)?, array.name.clone());
    let wrong = |message: String| Err(Exit::Usage.error(message));
    if count != labels.len() as u64 {
        return wrong(format!("{name} has {count} images, but {labels_name} has {} labels; the two must belong together", labels.len()));
    }
    ensure!(count > 0, "{name} holds no images");
    let sides = 1..=u64::from(MAX_SIDE);
    let sound = sides.contains(&height) && sides.contains(&width) && (1..=u64::from(MAX_CHANNELS)).contains(&channels);
    let length = if sound { height * width * channels } else { u64::MAX };
    ensure!(length <= MAX_SAMPLE, "{name} has images of {height} x {width} x {channels}, which cannot be stored");
    let largest = labels.iter().copied().max().unwrap_or(0);
    let classes = options.classes.unwrap_or(largest + 1);
    if let Some(at) = labels.iter().position(|&label| label >= classes) {
        let (label, most) = (labels[at], classes - 1);
        return wrong(format!("{labels_name} has label {label} at number {at}, but --classes is {classes}; labels are 0 to {most}"));
    }
    array.expect_values(length.saturating_mul(count))?;
    let Some(output) = Output::claim(options.out, &options.job)? else {
        return Made::before(options.out, [options.out.to_owned()]);
    };
    let command = options.job["command"].as_str().unwrap_or_default().to_owned();
    let description = Description {
        channels: channels as usize,
        class_names: numbered_classes(classes),
        encoding: Encoding::Raw,
        made_by: made_by(&command, options.made),
    };
    let writer = DatasetWriter::begin(options.out, description)?;
    let mut array = images()?;
    let frame = (height as u32, width as u32);
    let stream = Stream { count: count as usize, frame, channels: channels as usize, shard_mib: options.shard_mib };
    let mut planes = vec![0; if options.layout == Layout::Planes { length as usize } else { 0 }];
    let shards = stream.write(&writer, |index, pixels| {
        if planes.is_empty() {
            array.read_exact(pixels)?;
        } else {
            array.read_exact(&mut planes)?;
            interleave(&planes, channels as usize, pixels);
        }
        Ok(labels[index])
    })?;
    array.expect_end()?;
    let manifest = writer.finish(shards)?;
    output.release(options.job)?;
    Ok(Made::now(vec![(PathBuf::from(options.out), manifest)]))
}

/// Planes [C, H, W] to pixels [H, W, C].
pub fn interleave(planes: &[u8], channels: usize, pixels: &mut [u8]) {
    let plane = planes.len() / channels;
    for (at, pixel) in pixels.chunks_exact_mut(channels).enumerate() {
        pixel.iter_mut().enumerate().for_each(|(channel, value)| *value = planes[channel * plane + at]);
    }
}

impl Array {
    /// Count, height, width and channels.
    fn image_shape(&self, layout: Layout) -> Result<[u64; 4]> {
        match (&self.dimensions[..], layout) {
            (&[count, height, width], _) => Ok([count, height, width, 1]),
            (&[count, height, width, channels], Layout::Pixels) => Ok([count, height, width, channels]),
            (&[count, channels, height, width], Layout::Planes) => Ok([count, height, width, channels]),
            (dimensions, _) => Err(Exit::Usage.error(format!(
                "{} has {} dimensions; images have three [N, H, W] or four, [N, H, W, C] or [N, C, H, W]",
                self.name,
                dimensions.len()
            ))),
        }
    }

    /// All values, which are labels.
    fn labels(&mut self) -> Result<Vec<u32>> {
        let name = self.name.clone();
        let [count] = self.dimensions[..] else {
            let found = self.dimensions.len();
            return Err(Exit::Usage.error(format!("{name} has {found} dimensions; labels have one, so this is another file")));
        };
        ensure!(count <= MAX_LABELS, "{name} announces {count} labels; data-prep takes up to {MAX_LABELS}");
        let Number { bytes, signed, big_endian } = self.number;
        // Read as it comes: a damaged count must not become an allocation.
        let mut values = Vec::new();
        let read = self.content.by_ref().take(count * bytes as u64).read_to_end(&mut values);
        read.with_context(|| format!("{name} cannot be read"))?;
        let found = values.len() / bytes;
        ensure!(found as u64 == count, "{name} is cut off: its header announces {count} labels, {found} are there; get it again");
        self.expect_end()?;
        let label = |(at, value): (usize, &[u8])| {
            let digits = |digit: &u8, sum: i128| sum << 8 | i128::from(*digit);
            let number = if big_endian {
                value.iter().fold(0, |sum, digit| digits(digit, sum))
            } else {
                value.iter().rfold(0, |sum, digit| digits(digit, sum))
            };
            let number = if signed && number >> (8 * bytes - 1) != 0 { number - (1 << (8 * bytes)) } else { number };
            let label = u32::try_from(number).ok().filter(|label| *label < MAX_CLASSES);
            label.with_context(|| format!("{name} has label {number} at number {at}; labels are 0 to {}", MAX_CLASSES - 1))
        };
        values.chunks_exact(bytes).enumerate().map(label).collect()
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.content.read_exact(bytes).with_context(|| self.cut_off())
    }

    /// Reads to the end and fails where fewer or more than `length` bytes are there.
    fn expect_values(&mut self, length: u64) -> Result<()> {
        let found = copy(&mut self.content.by_ref().take(length), &mut sink()).with_context(|| self.cut_off())?;
        ensure!(found == length, "{}", self.cut_off());
        self.expect_end()
    }

    /// Fails where bytes follow those that the header announces.
    fn expect_end(&mut self) -> Result<()> {
        let more = self.content.read(&mut [0]).with_context(|| format!("{} cannot be read to its end; get it again", self.name))?;
        ensure!(more == 0, "{} has more bytes than its header announces ({:?}); it is not what it says it is", self.name, self.dimensions);
        Ok(())
    }

    fn cut_off(&self) -> String {
        format!("{} is cut off: its header announces {:?}; get it again", self.name, self.dimensions)
    }
}
