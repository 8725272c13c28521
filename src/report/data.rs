//! Which data a run was trained on.
//!
//! Names decide, because a report is often made where the data are not: the folder's (`data/mnist/train`), else the experiment's
//! (`mnist_fc_bp`). Where the data are there, their manifest has a veto. A run records what its data held, so that whatever lies in their
//! place later is not taken for them, nor a part of a data set for the whole. What else tells them from the data set that they are
//! named after, whoever prepared them has noted (`data-prep folder --note`): that they are JPEG copies of its images.

use std::path::{Component, Path};

use serde_json::Value;
use shards::manifest::Manifest;

use super::paper;
use crate::config::Config;

/// The training data of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Data {
    /// The paper's data set that it is.
    pub paper: Option<paper::DataSet>,
    /// With what was noted on them.
    pub name: String,
    /// Samples, where the data are there to be counted.
    pub samples: Option<u64>,
    /// Positions of an image that the network saw, where its size is known.
    pub pixels: Option<usize>,
    note: Option<String>,
    /// Equal for equal data: by what the run recorded of training and test data, by what the manifest says, or where there is neither by the
    /// name of what is known. The place tells nothing, for seeds may be trained in several.
    pub identity: String,
}

impl Data {
    /// The data of a run of `config`; `recorded` is what its run.json says of them, which older ones do not.
    pub fn of(config: &Config, recorded: &Value) -> Data {
        let folder = &config.data.train;
        let checksum = |of: &str| recorded[of]["shards_checksum"].as_str();
        // What lies there now may be something else.
        let manifest = Manifest::read(folder)
            .ok()
            .filter(|manifest| checksum("train").is_none_or(|then| then == format!("{:08x}", manifest.fingerprint())));
        let named = by_name(folder).or_else(|| words(&config.experiment.name).iter().rev().find_map(|word| known(word)));
        let paper = named.and_then(|named| named.ok()).filter(|paper| manifest.as_ref().is_none_or(|manifest| fits(manifest, *paper)));
        let original = match (paper, named) {
            (Some(paper), _) => Some(paper.name()),
            (None, Some(Err(name))) => Some(name),
            (None, _) => None,
        };
        let told = recorded["train"]["note"].as_str().or(manifest.as_ref().and_then(|manifest| manifest.note()));
        let note = told.map(str::to_owned);
        let mut name = original.map_or_else(|| folder_name(folder), str::to_owned);
        if let Some(note) = &note {
            name += &format!(" ({note})");
        }
        let identity = match &manifest {
            _ if checksum("train").is_some() => format!("{:?}", [checksum("train"), checksum("test")]),
            Some(manifest) => format!("{} samples with mean {:?}", manifest.samples, manifest.statistics.mean),
            None if original.is_some() => name.clone(),
            None => folder.display().to_string(),
        };
        let samples = recorded["train"]["samples"].as_u64().or(manifest.as_ref().map(|manifest| manifest.samples));
        let stored = manifest.as_ref().and_then(|manifest| manifest.shape).map(|[height, width, _]| [height as usize, width as usize]);
        let seen = config.data.crop.or(stored).or(paper.and_then(paper::DataSet::sides));
        Data { paper, name, samples, pixels: seen.map(|[height, width]| height * width), note, identity }
    }

    /// What to say where it is not the whole of the paper's data set, or not its very images.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if let (Some(paper), Some(samples)) = (self.paper, self.samples) {
            let whole = paper.train_samples() as u64;
            if samples != whole {
                remarks.push(format!("trained on {samples} images, where {} has {whole}", paper.name()));
            }
        }
        remarks.extend(self.note.iter().map(|note| format!("note on the data: {note}")));
        remarks
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
    words_of_folders(folder).find_map(|words| {
        let known: Vec<Known> = words.iter().filter_map(|word| known(word)).collect();
        known.iter().find(|known| known.is_err()).or(known.first()).copied()
    })
}

/// The words of each folder's name on the way, the innermost first.
fn words_of_folders(folder: &Path) -> impl Iterator<Item = Vec<String>> {
    folder.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(words(&name.to_string_lossy())),
        _ => None,
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
    use serde_json::json;

    use super::*;

    #[test]
    fn folders_are_known_by_the_words_of_their_names() {
        let cases = [
            ("/home/a/data/mnist/train", Some(Ok(paper::DataSet::Mnist))),
            ("data/cifar10/train", Some(Ok(paper::DataSet::Cifar10))),
            ("data/cifar10-jpeg/train", Some(Ok(paper::DataSet::Cifar10))),
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
    /// The data of a configuration for CIFAR-10, in a folder that is not there.
    fn absent(folder: &str) -> Data {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cifar_lc_bp.toml");
        Data::of(&Config::load(&config, &[format!("data.train={folder:?}")]).unwrap(), &Value::Null)
    }

    #[test]
    fn a_note_tells_data_from_the_set_that_they_are_named_after() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cifar_lc_bp.toml");
        let config = Config::load(&config, &["data.train=\"/nowhere/cifar10-copies/train\"".to_owned()]).unwrap();
        let copies = Data::of(&config, &json!({ "train": { "note": "JPEG copies" } }));
        assert_eq!((copies.paper, copies.name.as_str()), (Some(paper::DataSet::Cifar10), "CIFAR-10 (JPEG copies)"));
        assert_eq!(copies.remarks(), ["note on the data: JPEG copies"]);
        let itself = absent("/nowhere/cifar10-copies/train");
        assert_eq!((itself.name.as_str(), itself.remarks().len()), ("CIFAR-10", 0));
        assert_ne!(copies.identity, itself.identity);
        let part = Data { samples: Some(200), ..copies };
        assert_eq!(part.remarks(), ["trained on 200 images, where CIFAR-10 has 50000", "note on the data: JPEG copies"]);
    }

    #[test]
    fn what_a_run_recorded_tells_data_apart() {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/cifar_lc_bp.toml");
        let config = Config::load(&config, &["data.train=\"/nowhere/cifar10/train\"".to_owned()]).unwrap();
        let of = |train: &str, test: &str| {
            Data::of(&config, &json!({ "train": { "shards_checksum": train, "samples": 45_000 }, "test": { "shards_checksum": test } }))
        };
        assert_eq!(of("0a", "0b"), of("0a", "0b"));
        assert_ne!(of("0a", "0b").identity, of("0c", "0b").identity);
        assert_ne!(of("0a", "0b").identity, of("0a", "0d").identity);
        assert_eq!(of("0a", "0b").remarks(), ["trained on 45000 images, where CIFAR-10 has 50000"]);
    }

    #[test]
    fn absent_data_are_known_by_name_wherever_they_were() {
        assert_eq!(absent("/here/cifar10/train").identity, absent("there/data/cifar/train").identity);
        assert_eq!(absent("/here/fashion-mnist/train").identity, "Fashion-MNIST");
        // Nothing but the experiment's name tells what it is.
        assert_eq!(absent("/scratch/1234/train").identity, "CIFAR-10");
    }
}
