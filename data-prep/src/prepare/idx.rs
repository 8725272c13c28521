//! idx files, the form of MNIST and its relatives: a magic number that gives the type and the number of dimensions, the
//! dimensions, then the values, all big-endian; often gzipped.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use flate2::bufread::MultiGzDecoder;
use serde_json::json;
use shards::format::{Encoding, MAX_CHANNELS, MAX_CLASSES, MAX_SIDE};
use shards::manifest::Manifest;
use shards::writer::{DatasetWriter, Description};

use super::stream::Stream;
use super::{base_name, made_by, numbered_classes};
use crate::output::{Output, identity, require_apart};

/// What `data-prep idx` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// [N, H, W] or [N, H, W, C] of unsigned bytes.
    pub images: PathBuf,
    /// `[N]` of unsigned bytes.
    pub labels: PathBuf,
    pub out: PathBuf,
    /// Class count; the largest label and one where absent.
    pub classes: Option<u32>,
    /// Size of a shard's pixels.
    pub shard_mib: u32,
}

/// Larger samples are refused: their size is a damaged header's.
const MAX_SAMPLE: u64 = 256 << 20;
/// More labels are refused as well: a small packed file can hold any number.
const MAX_LABELS: u32 = 1 << 28;

/// Writes the samples in file order.
///
/// # Errors
/// Names the file that is missing, foreign, truncated or too long, and labels beyond the class count.
pub fn run(options: &Options) -> Result<Manifest> {
    if let Some(classes) = options.classes.filter(|classes| !(1..=MAX_CLASSES).contains(classes)) {
        return Err(Exit::Usage.error(format!("--classes is {classes}, allowed are 1 to {MAX_CLASSES}")));
    }
    require_apart(&options.out, &[&options.images, &options.labels])?;
    let job = json!({
        "command": "idx", "images": identity(&options.images)?, "labels": identity(&options.labels)?, "classes": options.classes,
        "shard_mib": options.shard_mib,
    });
    // All that can be wrong with the files is found before anything is written: what had to be got again would be another job.
    let labels = read_labels(&options.labels)?;
    let mut images = IdxFile::open(&options.images)?;
    let (height, width, channels) = match images.dimensions[..] {
        [_, height, width] => (height, width, 1),
        [_, height, width, channels] => (height, width, channels),
        _ => bail!(
            "{} has {} dimensions; images have three [N, H, W] or four [N, H, W, C]",
            options.images.display(),
            images.dimensions.len()
        ),
    };
    let count = images.dimensions[0] as usize;
    ensure!(
        count == labels.len(),
        "{} has {count} images, but {} has {} labels; the two must belong together",
        options.images.display(),
        options.labels.display(),
        labels.len()
    );
    ensure!(count > 0, "{} holds no images", options.images.display());
    let sides = 1..=MAX_SIDE;
    let bytes = u64::from(height) * u64::from(width) * u64::from(channels.min(MAX_CHANNELS));
    let sound = sides.contains(&height) && sides.contains(&width) && (1..=MAX_CHANNELS).contains(&channels) && bytes <= MAX_SAMPLE;
    ensure!(sound, "{} has images of {height} x {width} x {channels}, which cannot be stored", options.images.display());
    let largest = u32::from(labels.iter().copied().max().unwrap_or(0));
    let classes = options.classes.unwrap_or(largest + 1);
    if let Some(at) = labels.iter().position(|&label| u32::from(label) >= classes) {
        bail!(
            "{} has label {} at number {at}, but --classes is {classes}; labels are 0 to {}",
            options.labels.display(),
            labels[at],
            classes - 1
        );
    }
    images.expect_samples(u64::from(height) * u64::from(width) * u64::from(channels) * count as u64)?;
    images = IdxFile::open(&options.images)?;
    let output = Output::claim(&options.out, &job)?;
    let made = json!({ "images": base_name(&options.images), "labels": base_name(&options.labels), "classes": options.classes });
    let writer = DatasetWriter::begin(
        &options.out,
        Description {
            channels: channels as usize,
            class_names: numbered_classes(classes),
            encoding: Encoding::Raw,
            made_by: made_by("idx", made),
        },
    )?;
    let stream = Stream { count, frame: (height, width), channels: channels as usize, shard_mib: options.shard_mib };
    let shards = stream.write(&writer, |index, pixels| {
        images.read_exact(pixels)?;
        Ok(u32::from(labels[index]))
    })?;
    images.expect_end()?;
    let manifest = writer.finish(shards)?;
    output.release()?;
    Ok(manifest)
}

fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = IdxFile::open(path)?;
    let [count] = file.dimensions[..] else {
        bail!("{} has {} dimensions; labels have one, so this is another file", path.display(), file.dimensions.len());
    };
    ensure!(count <= MAX_LABELS, "{} announces {count} labels; data-prep takes up to {MAX_LABELS}", path.display());
    // Read as it comes: a damaged count must not become an allocation.
    let mut labels = Vec::new();
    let read = file.content.by_ref().take(u64::from(count)).read_to_end(&mut labels);
    read.with_context(|| format!("{} cannot be read", path.display()))?;
    ensure!(
        labels.len() == count as usize,
        "{} is cut off: its header announces {count} labels, {} are there; get it again",
        path.display(),
        labels.len()
    );
    file.expect_end()?;
    Ok(labels)
}

/// An open idx file of unsigned bytes, unpacked as it is read.
struct IdxFile {
    path: PathBuf,
    dimensions: Vec<u32>,
    content: Box<dyn Read>,
}

impl IdxFile {
    fn open(path: &Path) -> Result<IdxFile> {
        let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
        let mut buffered = BufReader::with_capacity(1 << 20, file);
        let start = buffered.fill_buf().with_context(|| format!("{} cannot be read", path.display()))?;
        let gzipped = start.starts_with(&[0x1f, 0x8b]);
        let mut content: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(buffered)) } else { Box::new(buffered) };
        let mut magic = [0; 4];
        content.read_exact(&mut magic).with_context(|| format!("{} is no idx file: it is too short or not gzip", path.display()))?;
        let [0, 0, kind, count] = magic else {
            bail!("{} is no idx file: it begins with {magic:02x?}, an idx file with two zeros", path.display());
        };
        ensure!(
            kind == 0x08,
            "{} holds values of idx type 0x{kind:02x}; unsigned bytes (0x08) are required, so convert it",
            path.display()
        );
        let mut dimensions = Vec::new();
        for _ in 0..count {
            let mut size = [0; 4];
            content.read_exact(&mut size).with_context(|| format!("{} is cut off in its header", path.display()))?;
            dimensions.push(u32::from_be_bytes(size));
        }
        Ok(IdxFile { path: path.to_owned(), dimensions, content })
    }

    fn read_exact(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.content.read_exact(bytes).with_context(|| self.cut_off())
    }

    /// Reads to the end and fails where fewer or more than `length` bytes are there.
    fn expect_samples(&mut self, length: u64) -> Result<()> {
        let found = std::io::copy(&mut self.content.by_ref().take(length), &mut std::io::sink()).with_context(|| self.cut_off())?;
        ensure!(found == length, "{}", self.cut_off());
        self.expect_end()
    }

    /// Fails where bytes follow those that the header announces.
    fn expect_end(&mut self) -> Result<()> {
        let more =
            self.content.read(&mut [0]).with_context(|| format!("{} cannot be read to its end; get it again", self.path.display()))?;
        ensure!(
            more == 0,
            "{} has more bytes than its header announces ({:?}); it is not what it says it is",
            self.path.display(),
            self.dimensions
        );
        Ok(())
    }

    fn cut_off(&self) -> String {
        format!("{} is cut off: its header announces {:?}; get it again", self.path.display(), self.dimensions)
    }
}
