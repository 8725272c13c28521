//! From a stored sample to what a network is given: crop, flip, conversion to floats and normalisation, in one pass.
//!
//! Crops and flips follow torchvision's `RandomCrop`, `CenterCrop`, `RandomHorizontalFlip`, `RandomVerticalFlip` and
//! `RandomResizedCrop`, but what is drawn is a pure function of (seed, epoch, sample): the same on any number of ranks and
//! threads, and after any interruption. [`Augmentation::draw`] says which number decides what.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use resize::{FilterType, Picture, resize};

pub use crate::convert::View;

use crate::convert::{Affine, Conversion, Unchanged, convert_rows};
use crate::dataset::Sample;
use crate::format::MAX_SIDE;
use crate::random::{below, philox, unit};

/// What happens to a sample before the network sees it. The default leaves it whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Augmentation {
    /// Height and width that the network sees; the stored frame where absent.
    pub crop: Option<[usize; 2]>,
    /// Black pixels around the frame, on each side, of which `random_crop` may take some.
    pub padding: usize,
    /// Mirror left and right with probability 1/2.
    pub horizontal_flip: bool,
    /// Mirror top and bottom with probability 1/2.
    pub vertical_flip: bool,
    /// Take the crop anywhere in the padded frame, each place with the same probability.
    pub random_crop: bool,
    /// Take a part of random area and aspect and resize it to the crop.
    pub random_resized_crop: bool,
}

/// What a sample's augmentation depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AugmentKey {
    pub seed: u64,
    pub epoch: u64,
    /// Number of the sample in its data set.
    pub index: u64,
}

/// Area of a random resized crop, as a part of the frame's.
const AREA: [f64; 2] = [0.08, 1.0];
/// Largest ratio of its width to its height; the smallest is the inverse.
const ASPECT: f64 = 4.0 / 3.0;
const LOG_ASPECT: f64 = 0.287_682_072_451_780_9;
/// Parts drawn before the centre is taken instead.
const ATTEMPTS: u32 = 10;
/// Keeps these draws apart from any other use of the same seed.
const STREAM: u32 = u32::from_le_bytes(*b"augm");

impl Augmentation {
    /// Height, width and channels that come out of frames of the given shape (`None`: of differing shapes).
    ///
    /// # Errors
    /// Where the augmentation contradicts itself or does not fit the frames. The messages name the configuration's keys.
    pub fn output_shape(&self, frame: Option<[usize; 3]>, channels: usize) -> Result<[usize; 3]> {
        ensure!(
            !(self.random_crop && self.random_resized_crop),
            "augment has both random_crop and random_resized_crop; choose one of them"
        );
        ensure!(
            !self.random_crop || self.crop.is_some() || self.padding > 0,
            "augment has random_crop, which needs crop = [height, width], crop_padding, or both"
        );
        ensure!(
            !self.random_resized_crop || channels <= 4,
            "augment has random_resized_crop, which works on up to 4 channels; the samples have {channels}"
        );
        let [height, width] = match (self.crop, frame) {
            (Some(crop), _) => crop,
            (None, Some([height, width, _])) => [height, width],
            (None, None) => anyhow::bail!("the samples have frames of different sizes; set crop = [height, width]"),
        };
        ensure!(height > 0 && width > 0, "crop is [{height}, {width}]; both must be at least 1");
        if let Some(frame) = frame {
            self.check_fits(frame[0], frame[1], [height, width], true)?;
        }
        Ok([height, width, channels])
    }

    /// The part of a `height` x `width` frame that is taken for `key`.
    ///
    /// Words come from Philox with key `seed` and counter (index, index / 2^32, epoch, stream ^ block). In block 0 the words
    /// decide, in this order, the random crop's top and left (uniform over height + 2 padding - crop height + 1 places, and
    /// the same across), the horizontal flip and the vertical flip (the word's highest bit). Blocks 1 to 10 are attempts at a
    /// random resized crop: area uniform in 8% to 100% of the frame, logarithm of width / height uniform between those of 3/4
    /// and 4/3, top, left; the first that fits counts, and where none does, the largest centred part of an aspect in that
    /// range. Outside training, and in training without a random crop, it is the centre (half a pixel goes to the even side,
    /// as in torchvision), and nothing is mirrored outside training.
    ///
    /// # Errors
    /// Where the crop does not fit the frame.
    pub fn draw(&self, key: AugmentKey, height: usize, width: usize, training: bool) -> Result<View> {
        let [crop_height, crop_width] = self.crop.unwrap_or([height, width]);
        self.check_fits(height, width, [crop_height, crop_width], training)?;
        let centre = View {
            top: centred(height, crop_height),
            left: centred(width, crop_width),
            height: crop_height,
            width: crop_width,
            mirror_horizontally: false,
            mirror_vertically: false,
        };
        if !training {
            return Ok(centre);
        }
        let block = |block: u32| philox(key.seed, [key.index as u32, (key.index >> 32) as u32, key.epoch as u32, STREAM ^ block]);
        let words = block(0);
        let mut view = centre;
        if self.random_crop {
            let place =
                |word: u32, frame: usize, crop: usize| below(word, frame + 2 * self.padding - crop + 1) as isize - self.padding as isize;
            view.top = place(words[0], height, crop_height);
            view.left = place(words[1], width, crop_width);
        } else if self.random_resized_crop {
            view = (1..=ATTEMPTS)
                .find_map(|attempt| resized_part(block(attempt), height, width))
                .unwrap_or_else(|| central_part(height, width));
        }
        view.mirror_horizontally = self.horizontal_flip && words[2] >> 31 == 1;
        view.mirror_vertically = self.vertical_flip && words[3] >> 31 == 1;
        Ok(view)
    }

    /// Writes what the network sees of `sample` to `out`, [H, W, C] with the height and width of `crop` or of the frame: for
    /// each value x in 0..=255 of channel c, `x * scale[c] + shift[c]`, rounded after each operation. A black pixel of the
    /// padding has x = 0.
    ///
    /// # Errors
    /// Where the crop does not fit the sample's frame, or `out` has another length than it asks for.
    pub fn apply(&self, sample: &Sample, key: AugmentKey, training: bool, out: &mut [f32], scale: &[f32], shift: &[f32]) -> Result<()> {
        let channels = sample.channels;
        ensure!(
            scale.len() == channels && shift.len() == channels,
            "{} scales and {} shifts for {channels} channels",
            scale.len(),
            shift.len()
        );
        self.convert(sample, key, training, &Affine::new(scale, shift), out)
    }

    /// [`Augmentation::apply`] without scaling: the bytes x.
    ///
    /// # Errors
    /// As [`Augmentation::apply`].
    pub fn apply_bytes(&self, sample: &Sample, key: AugmentKey, training: bool, out: &mut [u8]) -> Result<()> {
        self.convert(sample, key, training, &Unchanged(sample.channels), out)
    }

    fn convert<C: Conversion>(&self, sample: &Sample, key: AugmentKey, training: bool, conversion: &C, out: &mut [C::Value]) -> Result<()> {
        let channels = sample.channels;
        let [height, width] = self.crop.unwrap_or([sample.height, sample.width]);
        ensure!(
            out.len() == height * width * channels,
            "the sample's frame of {} x {} gives {} values, where {} are expected; set crop = [height, width]",
            sample.height,
            sample.width,
            height * width * channels,
            out.len()
        );
        let view = self.draw(key, sample.height, sample.width, training)?;
        if training && self.random_resized_crop {
            resize_and_convert(sample, &view, [height, width], conversion, out)
        } else {
            convert_rows(&sample.pixels, [sample.height, sample.width], &view, conversion, out);
            Ok(())
        }
    }

    fn check_fits(&self, height: usize, width: usize, crop: [usize; 2], training: bool) -> Result<()> {
        let [crop_height, crop_width] = crop;
        ensure!(self.padding <= MAX_SIDE as usize, "crop_padding is {}, at most {MAX_SIDE} is possible", self.padding);
        let resized = training && self.random_resized_crop;
        let room = if self.random_crop { 2 * self.padding } else { 0 };
        ensure!(
            resized || (crop_height <= height + room && crop_width <= width + room),
            "crop = [{crop_height}, {crop_width}] does not fit a frame of {height} x {width}{}",
            if self.random_crop { format!(" with crop_padding = {}", self.padding) } else { String::new() }
        );
        Ok(())
    }
}

/// Where a centred crop begins: half the difference, halves rounded to even; negative where the crop is larger.
fn centred(frame: usize, crop: usize) -> isize {
    let difference = frame as isize - crop as isize;
    if difference < 0 {
        return -(-difference / 2);
    }
    difference / 2 + isize::from(difference % 4 == 3)
}

fn part(top: usize, left: usize, height: usize, width: usize) -> View {
    View { top: top as isize, left: left as isize, height, width, mirror_horizontally: false, mirror_vertically: false }
}

fn resized_part(words: [u32; 4], height: usize, width: usize) -> Option<View> {
    let area = (height * width) as f64 * (AREA[0] + unit(words[0]) * (AREA[1] - AREA[0]));
    let aspect = exponential((2.0 * unit(words[1]) - 1.0) * LOG_ASPECT);
    let part_width = (area * aspect).sqrt().round_ties_even() as usize;
    let part_height = (area / aspect).sqrt().round_ties_even() as usize;
    let fits = (1..=height).contains(&part_height) && (1..=width).contains(&part_width);
    fits.then(|| part(below(words[2], height - part_height + 1), below(words[3], width - part_width + 1), part_height, part_width))
}

fn central_part(height: usize, width: usize) -> View {
    let ratio = width as f64 / height as f64;
    let (part_height, part_width) = if ratio < 1.0 / ASPECT {
        (((width as f64 * ASPECT).round_ties_even() as usize).min(height), width)
    } else if ratio > ASPECT {
        (height, ((height as f64 * ASPECT).round_ties_even() as usize).min(width))
    } else {
        (height, width)
    };
    part((height - part_height) / 2, (width - part_width) / 2, part_height, part_width)
}

/// e^x for |x| < 1 by its series. The C library's differs between machines in the last bit, which could move a crop.
fn exponential(x: f64) -> f64 {
    (1..=18).rev().fold(1.0, |sum, n| 1.0 + x / f64::from(n) * sum)
}

thread_local! {
    /// The part that is resized, and what becomes of it: their memory is used again for each sample.
    static RESIZING: RefCell<[Vec<u8>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// Resizes the view to `size` (bilinear, with support widened where it shrinks: torchvision's antialias), then converts.
fn resize_and_convert<C: Conversion>(sample: &Sample, view: &View, size: [usize; 2], conversion: &C, out: &mut [C::Value]) -> Result<()> {
    let [height, width] = size;
    let row = sample.width * sample.channels;
    let (left, right) = (view.left as usize * sample.channels, (view.left as usize + view.width) * sample.channels);
    let rows = sample.pixels.chunks_exact(row).skip(view.top as usize).take(view.height);
    RESIZING.with_borrow_mut(|[part, resized]| {
        // Cropped first, as torchvision does: nothing of what lies beside the part reaches the result.
        part.clear();
        rows.for_each(|row| part.extend_from_slice(&row[left..right]));
        resized.resize(height * width * sample.channels, 0);
        let source = Picture { height: view.height, width: view.width, pixels: part };
        resize(sample.channels, source, Picture { height, width, pixels: resized }, FilterType::Bilinear).context("random_resized_crop")?;
        let whole = View { top: 0, left: 0, height, width, ..*view };
        convert_rows(resized, size, &whole, conversion, out);
        Ok(())
    })
}

#[cfg(test)]
mod tests;
