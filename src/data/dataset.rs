//! A prepared data set as a run uses it: a part of its samples, and how their pixels become the network's input.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shards::{AugmentKey, Augmentation, ChannelStatistics, Dataset};

use super::order::split;
use super::pipeline::Loaded;
use crate::config::{self, Augment, Scaling};
use crate::exit::Exit;
use crate::observe;

/// Samples for training, validation or testing. Parts of one data set share its map of the files.
pub struct DataSet {
    shards: Arc<Dataset>,
    /// The samples of this part, as numbers in the shards; `None` where it is the whole.
    subset: Option<Vec<usize>>,
    augmentation: Augmentation,
    scaling: Affine,
    trained: Arc<TrainingData>,
}

/// What a network means nothing without: the classes and the scale of the data that it was trained on. Checkpoints keep it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainingData {
    /// [H, W, C] that the network sees.
    pub input: [usize; 3],
    /// One name per class.
    pub class_names: Vec<String>,
    /// Of all samples, those set apart for validation included.
    pub statistics: ChannelStatistics,
}

/// What a random augmentation depends on, beside the sample's number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    pub(super) seed: u64,
    pub(super) epoch: u64,
}

impl DataSet {
    /// Opens `data.train`: its training part, and the `data.validation` samples that the seed sets apart.
    ///
    /// # Errors
    /// Where the folder holds no whole data set, `data.validation` leaves nothing, or `data.crop` does not fit the images.
    pub fn open_train(config: &config::Data, seed: u64) -> Result<(Arc<DataSet>, Option<Arc<DataSet>>)> {
        const KEY: &str = "data.train";
        let shards = open(KEY, &config.train)?;
        let (samples, validation) = (shards.len(), config.validation);
        if validation >= samples {
            return Err(Exit::Usage.error(format!(
                "data.validation = {validation} leaves nothing to train on: {KEY} = {:?} has {samples} samples",
                config.train
            )));
        }
        let augmentation = augmentation(config);
        let trained = Arc::new(TrainingData {
            input: input_shape(&augmentation, &shards, KEY)?,
            class_names: shards.class_names().to_vec(),
            statistics: shards.statistics().clone(),
        });
        let scaling = Affine::new(config.scaling, &trained.statistics);
        let shards = Arc::new(shards);
        let part = |subset| {
            let (shards, trained) = (Arc::clone(&shards), Arc::clone(&trained));
            Arc::new(DataSet { shards, subset, augmentation: augmentation.clone(), scaling: scaling.clone(), trained })
        };
        if validation == 0 {
            return Ok((part(None), None));
        }
        let (training, apart) = split(seed, samples, validation);
        Ok((part(Some(training)), Some(part(Some(apart)))))
    }

    /// Opens `data.test` where the configuration names one, for a network that was trained on `trained`: its statistics scale the pixels.
    ///
    /// # Errors
    /// As [`DataSet::open_train`]; also where its images differ in size or channels from those trained on, or it has other classes.
    pub fn open_test(config: &config::Data, trained: &Arc<TrainingData>) -> Result<Option<Arc<DataSet>>> {
        const KEY: &str = "data.test";
        let Some(path) = &config.test else { return Ok(None) };
        let shards = open(KEY, path)?;
        let refuse = |message: String| Err(Exit::Usage.error(format!("{KEY} = {path:?}: {message}")));
        let augmentation = augmentation(config);
        let shape = input_shape(&augmentation, &shards, KEY)?;
        if shape != trained.input {
            let (ours, trained) = (shape_text(shape), shape_text(trained.input));
            return refuse(format!("its images are {ours}, those of data.train {trained}; prepare both alike (data.crop evens out sizes)"));
        }
        let classes = trained.class_names.len();
        let labels = shards.shards().iter().flat_map(|shard| shard.labels());
        if let Some((sample, label)) = labels.enumerate().find(|(_, label)| **label as usize >= classes) {
            return refuse(format!("its sample {sample} has label {label}, but data.train has {classes} classes"));
        }
        // A class that one of two folders lacks shifts the labels of all behind it.
        let names = shards.class_names().iter().zip(&trained.class_names);
        if let Some((class, (ours, trained))) = names.enumerate().find(|(_, (ours, trained))| ours != trained) {
            return refuse(format!("its class {class} is {ours:?}, that of data.train {trained:?}; prepare both with the same classes"));
        }
        let scaling = Affine::new(config.scaling, &trained.statistics);
        Ok(Some(Arc::new(DataSet { shards: Arc::new(shards), subset: None, augmentation, scaling, trained: Arc::clone(trained) })))
    }

    /// Number of samples, at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.subset.as_ref().map_or(self.shards.len(), Vec::len)
    }

    /// Number of classes of the training set.
    pub fn classes(&self) -> usize {
        self.trained.class_names.len()
    }

    /// What a network that is trained on these data, or tested on them, was trained on.
    pub fn trained(&self) -> &Arc<TrainingData> {
        &self.trained
    }

    /// Stands for the content of the shards, in hexadecimal.
    pub fn fingerprint(&self) -> String {
        format!("{:08x}", self.shards.fingerprint())
    }

    /// What `run.json` says of the data set that this is or is part of.
    pub fn about(&self) -> Value {
        let mut about = json!({ "shards_checksum": self.fingerprint(), "samples": self.shards.len() });
        if let Some(note) = self.shards.manifest().note() {
            about["note"] = note.into();
        }
        about
    }

    /// [H, W, C] of the network's input: after cropping.
    pub fn input_shape(&self) -> [usize; 3] {
        self.trained.input
    }

    /// Makes `batch` hold the samples at these places of the part, augmented where a `draw` is given.
    pub(super) fn fill(
        &self,
        places: impl ExactSizeIterator<Item = usize>,
        draw: Option<Draw>,
        form: Form,
        batch: &mut Loaded,
    ) -> Result<()> {
        let size: usize = self.trained.input.iter().product();
        let Draw { seed, epoch } = draw.unwrap_or(Draw { seed: 0, epoch: 0 });
        let Affine { scale, shift } = &self.scaling;
        batch.labels.clear();
        batch.scaling = (form == Form::Bytes).then(|| self.scaling.clone());
        match form {
            Form::Floats => batch.pixels.resize(places.len() * size, 0.0),
            Form::Bytes => batch.bytes.resize(places.len() * size, 0),
        }
        for (number, place) in places.enumerate() {
            let index = self.index(place);
            let sample = self.shards.sample(index)?;
            let key = AugmentKey { seed, epoch, index: index as u64 };
            let (training, at) = (draw.is_some(), number * size..(number + 1) * size);
            let applied = match form {
                Form::Floats => self.augmentation.apply(&sample, key, training, &mut batch.pixels[at], scale, shift),
                Form::Bytes => self.augmentation.apply_bytes(&sample, key, training, &mut batch.bytes[at]),
            };
            applied.with_context(|| format!("sample {index} of {}", self.shards.folder().display()))?;
            batch.labels.push(sample.label);
            observe::loaded();
        }
        Ok(())
    }

    /// Asks the system to bring the samples at these places of the part into memory.
    pub(super) fn prefetch(&self, places: impl Iterator<Item = usize>) {
        let indices: Vec<usize> = places.map(|place| self.index(place)).collect();
        self.shards.prefetch(&indices);
    }

    fn index(&self, place: usize) -> usize {
        self.subset.as_ref().map_or(place, |subset| subset[place])
    }
}

/// How the pixels of a batch come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Scaled.
    Floats,
    /// As stored, for a device that scales them.
    Bytes,
}

/// From a pixel x in 0..=255 to the network's input, per channel: `x * scale + shift`.
#[derive(Clone, Debug, PartialEq)]
pub struct Affine {
    pub scale: Arc<[f32]>,
    pub shift: Arc<[f32]>,
}

impl Affine {
    /// `"unit"`: x / 255. `"standardize"`: (x / 255 - mean) / deviation; a channel that never varies has deviation 1 instead of 0, and
    /// so is zero wherever it is as in training.
    fn new(scaling: Scaling, statistics: &ChannelStatistics) -> Affine {
        let channels = statistics.mean.iter().zip(&statistics.deviation);
        let coefficients = channels.map(|(&mean, &deviation)| match scaling {
            Scaling::Unit => (1.0 / 255.0, 0.0),
            Scaling::Standardize if deviation == 0.0 => (1.0 / 255.0, -mean),
            Scaling::Standardize => (1.0 / (255.0 * deviation), -mean / deviation),
        });
        let (scale, shift): (Vec<f32>, Vec<f32>) = coefficients.map(|(scale, shift)| (scale as f32, shift as f32)).unzip();
        Affine { scale: scale.into(), shift: shift.into() }
    }
}

/// Data sets up to this many bytes are compared with all their checksums before they are used: it takes a fraction of a second. The
/// checksums of larger ones' pixels are for `data-prep verify`.
const VERIFIED: u64 = 1 << 30;

fn open(key: &str, path: &Path) -> Result<Dataset> {
    let whole = |dataset: Dataset| {
        if dataset.bytes() <= VERIFIED {
            dataset.verify()?;
        }
        Ok(dataset)
    };
    Dataset::open(path).and_then(whole).map_err(|error| {
        let message = format!("{key} = {path:?}: {error:#}");
        // A wrong path is the configuration's fault, a damaged file is not.
        if Exit::of(&error) == Exit::Usage { Exit::Usage.error(message) } else { anyhow!(message) }
    })
}

fn augmentation(config: &config::Data) -> Augmentation {
    let asked = |augment| config.augment.contains(&augment);
    Augmentation {
        crop: config.crop,
        padding: config.crop_padding,
        horizontal_flip: asked(Augment::HorizontalFlip),
        vertical_flip: asked(Augment::VerticalFlip),
        random_crop: asked(Augment::RandomCrop),
        random_resized_crop: asked(Augment::RandomResizedCrop),
    }
}

/// What the network sees of these images; an error where `data.crop` is missing or does not fit each of them.
fn input_shape(augmentation: &Augmentation, shards: &Dataset, key: &str) -> Result<[usize; 3]> {
    let refuse = |message: String| Exit::Usage.error(message);
    let folder = shards.folder();
    let Some([height, width]) = augmentation.crop.or(shards.shape().map(|[height, width, _]| [height, width])) else {
        return Err(refuse(format!(
            "data.crop is missing: the images of {key} = {folder:?} differ in size; set data.crop = [height, width]"
        )));
    };
    let room = if augmentation.random_crop { 2 * augmentation.padding } else { 0 };
    let [least_height, least_width] = smallest_frame(shards);
    // Of random_resized_crop too: evaluations see the centre of an image as it is.
    if height > least_height + room || width > least_width + room {
        let padded = if room > 0 { format!(", padded by {} on each side", augmentation.padding) } else { String::new() };
        return Err(refuse(format!(
            "data.crop = [{height}, {width}] does not fit the images of {key} = {folder:?}: the smallest have {least_height} x \
             {least_width} pixels{padded}; choose a smaller crop or prepare larger images"
        )));
    }
    let least = height.min(width);
    if augmentation.random_crop && augmentation.padding >= least {
        return Err(refuse(format!(
            "data.crop_padding = {}: crops of {height} x {width} could lie beside the image, and be black all over; at most {} is possible",
            augmentation.padding,
            least - 1
        )));
    }
    let shape = augmentation.output_shape(shards.shape(), shards.channels());
    shape.map_err(|error| refuse(format!("{key} = {folder:?}: {error:#}")))
}

/// The least height and the least width of the stored images.
fn smallest_frame(shards: &Dataset) -> [usize; 2] {
    if let Some([height, width, _]) = shards.shape() {
        return [height, width];
    }
    let frames = shards.shards().iter().flat_map(|shard| shard.frames());
    frames.fold([usize::MAX; 2], |least, (height, width)| [least[0].min(height as usize), least[1].min(width as usize)])
}

/// A shape as people write it.
fn shape_text([height, width, channels]: [usize; 3]) -> String {
    format!("{height} x {width} x {channels}")
}
