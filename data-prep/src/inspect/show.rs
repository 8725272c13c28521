//! Samples of a data set on a contact sheet, as stored or as training sees them.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use biodist_process::exit::Exit;
use image::{Rgb, RgbImage};
use shards::augment::{AugmentKey, Augmentation};
use shards::dataset::Dataset;
use shards::random::permutation;

use super::sheet::{self, Cell, Form};

/// Most samples on one sheet.
const MAX_COUNT: usize = 2000;

/// What `data-prep show` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub folder: PathBuf,
    /// Samples by number; where there are none, `count` random ones.
    pub indices: Vec<usize>,
    pub count: usize,
    pub out: PathBuf,
    /// Decides the random samples and the augmentation.
    pub seed: u64,
    pub epoch: u64,
    /// Shows what training sees; the stored frames where absent.
    pub augmentation: Option<Augmentation>,
}

/// Draws the sheet. Returns the numbers of the samples on it.
pub fn show(options: &Options) -> Result<Vec<usize>> {
    let form = Form::of(&options.out)?;
    let dataset = Dataset::open(&options.folder)?;
    let mut indices = options.indices.clone();
    if let Some(&index) = indices.iter().find(|&&index| index >= dataset.len()) {
        return Err(Exit::Usage.error(format!(
            "{} has samples 0 to {}, asked was number {index}",
            options.folder.display(),
            dataset.len() - 1
        )));
    }
    if indices.is_empty() {
        indices = permutation(options.seed, dataset.len());
        indices.truncate(options.count);
        indices.sort();
    }
    if indices.is_empty() || indices.len() > MAX_COUNT {
        return Err(Exit::Usage.error(format!("{} samples are asked for, a sheet has 1 to {MAX_COUNT}", indices.len())));
    }
    let mut cells = Vec::new();
    for &index in &indices {
        let picture = match &options.augmentation {
            Some(augmentation) => augmented(&dataset, augmentation, options, index)?,
            None => {
                let sample = dataset.sample(index)?;
                colours(&sample.pixels, sample.height, sample.width, sample.channels)
            }
        };
        let label = dataset.label(index);
        cells.push(Cell { picture, text: dataset.class_names()[label as usize].clone(), footer: format!("#{index}, class {label}") });
    }
    let columns = (cells.len() as f64).sqrt().ceil() as u32;
    sheet::save(sheet::draw(&cells, columns), form, &options.out)?;
    Ok(indices)
}

fn augmented(dataset: &Dataset, augmentation: &Augmentation, options: &Options, index: usize) -> Result<RgbImage> {
    let sample = dataset.sample(index)?;
    let frame = Some([sample.height, sample.width, sample.channels]);
    let [height, width, channels] =
        augmentation.output_shape(frame, sample.channels).map_err(|error| Exit::Usage.error(format!("{error:#}")))?;
    ensure!(height * width * channels <= 1 << 28, "--crop {height} {width} is too large to show");
    let key = AugmentKey { seed: options.seed, epoch: options.epoch, index: index as u64 };
    let mut out = vec![0.0; height * width * channels];
    augmentation.apply(&sample, key, true, &mut out, &vec![1.0; channels], &vec![0.0; channels])?;
    let pixels: Vec<u8> = out.into_iter().map(|x| x as u8).collect();
    Ok(colours(&pixels, height, width, channels))
}

/// [H, W, C] as colours: the first three channels, or the first one in gray.
fn colours(pixels: &[u8], height: usize, width: usize, channels: usize) -> RgbImage {
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let pixel = &pixels[(y as usize * width + x as usize) * channels..][..channels];
        if channels >= 3 { Rgb([pixel[0], pixel[1], pixel[2]]) } else { Rgb([pixel[0]; 3]) }
    })
}
