//! Which data a run was trained on.
//!
//! Names decide, because a report is often made where the data are not: the folder's (`data/mnist/train`), else the experiment's
//! (`mnist_fc_bp`). Where the data are there, their manifest has a veto and gives the number of samples, so that a part of a data set
//! is not taken for the whole.

use std::path::{Component, Path};

use data_prep::manifest::Manifest;

use super::paper;
use crate::config::Config;

/// The training data of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The paper's data set that it is.
    pub paper: Option<paper::DataSet>,
    pub name: String,
    /// Samples, where the data are there to be counted.
    pub samples: Option<u64>,
    /// Equal for equal data, on one machine.
    pub identity: String,
}

impl Data {
    pub fn of(config: &Config) -> Data {
        let folder = &config.data.train;
        let manifest = Manifest::read(folder).ok();
        let named = by_name(folder).or_else(|| words(&config.experiment.name).iter().rev().find_map(|word| known(word)));
        let paper = named.and_then(|named| named.ok()).filter(|paper| manifest.as_ref().is_none_or(|manifest| fits(manifest, *paper)));
        let name = match (paper, named) {
            (Some(paper), _) => paper.name().to_owned(),
            (None, Some(Err(name))) => name.to_owned(),
            (None, _) => folder_name(folder),
        };
        let identity = match &manifest {
            Some(manifest) => format!("{} samples with mean {:?}", manifest.samples, manifest.statistics.mean),
            None => folder.display().to_string(),
        };
        Data { paper, name, samples: manifest.map(|manifest| manifest.samples), identity }
    }

    /// What to say where it is not the whole of the paper's data set.
    pub fn remark(&self) -> Option<String> {
        let (paper, samples) = (self.paper?, self.samples?);
        let whole = paper.train_samples() as u64;
        (samples != whole).then(|| format!("trained on {samples} images, where {} has {whole}", paper.name()))
    }
}

/// A data set that a word means: the paper's, or another one by its name.
type Known = Result<paper::DataSet, &'static str>;

fn known(word: &str) -> Option<Known> {
    Some(match word {
        "mnist" => Ok(paper::DataSet::Mnist),
        "cifar" | "cifar10" => Ok(paper::DataSet::Cifar10),
        "imagenet" | "ilsvrc2012" => Ok(paper::DataSet::ImageNet),
        "fashion" => Err("Fashion-MNIST"),
        "imagenette" => Err("Imagenette"),
        _ => return None,
    })
}

/// By the folders on the way, the innermost first; in a name of several words the more special one counts (`fashion-mnist`).
fn by_name(folder: &Path) -> Option<Known> {
    folder.components().rev().find_map(|component| {
        let Component::Normal(name) = component else { return None };
        let known: Vec<Known> = words(&name.to_string_lossy()).iter().filter_map(|word| known(word)).collect();
        known.iter().find(|known| known.is_err()).or(known.first()).copied()
    })
}

fn words(name: &str) -> Vec<String> {
    name.to_lowercase().split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect()
}

fn fits(manifest: &Manifest, paper: paper::DataSet) -> bool {
    (manifest.channels as usize, manifest.classes as usize) == paper.shape()
}

/// `data/flowers/train` is called flowers.
fn folder_name(folder: &Path) -> String {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    match name(folder).as_deref() {
        Some("train") => folder.parent().and_then(name).unwrap_or("train".to_owned()),
        Some(other) => other.to_owned(),
        None => folder.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_known_by_the_words_of_their_names() {
        let cases = [
            ("/home/a/data/mnist/train", Some(Ok(paper::DataSet::Mnist))),
            ("data/cifar10/train", Some(Ok(paper::DataSet::Cifar10))),
            ("/scratch/ILSVRC2012/imagenet-256/train", Some(Ok(paper::DataSet::ImageNet))),
            ("data/imagenette/train", Some(Err("Imagenette"))),
            ("data/fashion-mnist/train", Some(Err("Fashion-MNIST"))),
            ("mnist/../fashion/train", Some(Err("Fashion-MNIST"))),
            ("data/flowers/train", None),
            ("data/notmnist/train", None),
        ];
        for (folder, expected) in cases {
            assert_eq!(by_name(Path::new(folder)), expected, "{folder}");
        }
        assert_eq!(folder_name(Path::new("data/flowers/train")), "flowers");
        assert_eq!(folder_name(Path::new("data/flowers")), "flowers");
    }
}
