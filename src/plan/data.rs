//! What a plan must know of the data: the image that the network sees, the classes, and how many samples there are.

use std::path::Path;

use anyhow::Result;
use data_prep::Dataset;

use crate::config::{Augment, Config, Output};
use crate::exit::Exit;

/// Facts about the data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataFacts {
    /// [height, width, channels] of the image as the network sees it, after cropping.
    pub input: [usize; 3],
    pub classes: usize,
    /// Training samples, those set apart for validation included; none where no data was looked at.
    pub train: Option<usize>,
    /// Test samples, where the configuration names a test set.
    pub test: Option<usize>,
}

impl DataFacts {
    /// Data of which only the shape is known.
    pub fn of_shape(input: [usize; 3], classes: usize) -> DataFacts {
        DataFacts { input, classes, train: None, test: None }
    }

    /// Opens the configuration's data sets and checks that they go together.
    ///
    /// Fails where one cannot be used, the images cannot be cropped as asked, or the test set has a label beyond the training set's
    /// classes.
    pub fn of_data(config: &Config) -> Result<DataFacts> {
        let train = open("data.train", &config.data.train)?;
        let facts =
            DataFacts { input: cropped(config, "data.train", &train)?, classes: train.classes(), train: Some(train.len()), test: None };
        let Some(path) = &config.data.test else { return Ok(facts) };
        let test = open("data.test", path)?;
        let seen = cropped(config, "data.test", &test)?;
        if seen != facts.input {
            return Err(wrong("data.test", path, format!("its images are {}, the training set's {}", size(seen), size(facts.input))));
        }
        if config.network.output == Output::Softmax
            && let Some(index) = (0..test.len()).find(|&index| test.label(index) as usize >= facts.classes)
        {
            let label = test.label(index);
            let message = format!(
                "sample {index} has label {label}, and the training set has {} classes, numbered from 0; prepare both with the same \
                 classes (data-prep --classes)",
                facts.classes
            );
            return Err(wrong("data.test", path, message));
        }
        Ok(DataFacts { test: Some(test.len()), ..facts })
    }
}

fn open(key: &str, path: &Path) -> Result<Dataset> {
    Dataset::open(path).map_err(|error| match data_prep::error::exit_code(&error) {
        2 => wrong(key, path, format!("{error:#}")),
        _ => error.context(format!("{key} = {:?} cannot be used", path.display().to_string())),
    })
}

/// The image that the network sees of `dataset`.
fn cropped(config: &Config, key: &str, dataset: &Dataset) -> Result<[usize; 3]> {
    let data = &config.data;
    let Some([height, width]) = data.crop else {
        return dataset.shape().ok_or_else(|| {
            wrong(key, dataset.folder(), "its images differ in size; say what to cut from them: data.crop = [height, width]".to_owned())
        });
    };
    if let Some([stored_height, stored_width, _]) = dataset.shape()
        && !data.augment.contains(&Augment::RandomResizedCrop)
        && (height > stored_height + 2 * data.crop_padding || width > stored_width + 2 * data.crop_padding)
    {
        let message = format!(
            "images of {stored_height}x{stored_width} are too small for data.crop = [{height}, {width}] with data.crop_padding = {}",
            data.crop_padding
        );
        return Err(wrong(key, dataset.folder(), message));
    }
    Ok([height, width, dataset.channels()])
}

fn size([height, width, channels]: [usize; 3]) -> String {
    format!("{height}x{width}x{channels}")
}

fn wrong(key: &str, path: &Path, message: String) -> anyhow::Error {
    Exit::Usage.error(format!("{key} = {:?}: {message}", path.display().to_string()))
}
