//! Data sets made for the occasion, opened and loaded as a run does it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use shards::format::Encoding;
use shards::{Dataset, DatasetWriter, Description, PixelSums};

use super::*;
use crate::config::{Augment, Data, Scaling};
use crate::exit::Exit;

/// The value of a pixel, which tells sample, place and channel apart as far as a byte can.
fn pixel(sample: usize, at: usize) -> u8 {
    (sample * 37 + at * 11 + at / 7) as u8
}

/// A data set of two shards; `frame` gives the height and width of each sample. Labels count through `classes`.
fn write(folder: &Path, samples: usize, channels: usize, classes: &[&str], frame: impl Fn(usize) -> (u32, u32)) -> PathBuf {
    let class_names = classes.iter().map(|name| name.to_string()).collect();
    let description = Description { channels, class_names, encoding: Encoding::Raw, made_by: "a test".into() };
    let writer = DatasetWriter::begin(folder, description).unwrap();
    let shard = |number: usize, samples: std::ops::Range<usize>| {
        let mut shard = writer.shard(number).unwrap();
        for sample in samples {
            let (height, width) = frame(sample);
            let pixels: Vec<u8> = (0..height as usize * width as usize * channels).map(|at| pixel(sample, at)).collect();
            shard.add(&pixels, (height, width), (sample % classes.len()) as u32, &PixelSums::of(&pixels, channels)).unwrap();
        }
        shard.finish().unwrap()
    };
    writer.finish(vec![shard(0, 0..samples / 3), shard(1, samples / 3..samples)]).unwrap();
    folder.to_owned()
}

fn config(train: PathBuf) -> Data {
    Data {
        train,
        test: None,
        validation: 0,
        batch_size: 6,
        shuffle: true,
        scaling: Scaling::Unit,
        augment: Vec::new(),
        crop: None,
        crop_padding: 0,
    }
}

const CLASSES: [&str; 3] = ["ant", "bee", "cat"];

/// 20 images of 6 x 5 x 3 in three classes.
fn small(folder: &Path) -> Data {
    config(write(&folder.join("train"), 20, 3, &CLASSES, |_| (6, 5)))
}

fn plan(rank: usize, world_size: usize) -> BatchPlan {
    BatchPlan { seed: 11, batch_size: 6, shuffle: true, rank, world_size }
}

fn batches(data: &Arc<DataSet>, plan: BatchPlan, start: Position, count: usize, threads: usize) -> Vec<Loaded> {
    let mut loader = Loader::with_threads(Arc::clone(data), plan, start, Form::Floats, threads..=threads);
    let mut batches = Vec::new();
    for _ in 0..count {
        let batch = loader.next().unwrap();
        batches.push(batch.clone());
        loader.recycle(batch);
    }
    batches
}

fn evaluated(data: &Arc<DataSet>, rank: usize, world_size: usize, capacity: usize) -> Vec<(usize, u32, Vec<f32>)> {
    let size = data.input_shape().iter().product();
    let mut samples = Vec::new();
    for batch in evaluation_batches(Arc::clone(data), rank, world_size, capacity, Form::Floats) {
        let (places, batch) = batch.unwrap();
        assert!(places.len() <= capacity && batch.labels.len() == places.len() && batch.pixels.len() == places.len() * size);
        let pixels = batch.pixels.chunks(size).map(<[f32]>::to_vec);
        samples.extend(places.zip(batch.labels).zip(pixels).map(|((place, label), pixels)| (place, label, pixels)));
    }
    samples
}

/// The message of an error that must be there, and its exit code.
fn refusal<T>(result: Result<T>) -> (String, Exit) {
    let error = result.err().expect("this is refused");
    (format!("{error:#}"), Exit::of(&error))
}

fn assert_refused<T>(result: Result<T>, parts: &[&str]) {
    let (message, exit) = refusal(result);
    assert_eq!(exit, Exit::Usage, "{message}");
    parts.iter().for_each(|part| assert!(message.contains(part), "{part:?} is not in: {message}"));
}

#[test]
fn the_ranks_parts_make_up_the_same_global_batches_over_several_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataSet::open_train(&small(folder.path()), 0).unwrap().0;
    let global = batches(&data, plan(0, 1), Position::default(), 7, 1);
    for epoch in 0..2 {
        // Three whole batches in 20 samples: 18 different ones, in an order that is the epoch's.
        let mut seen: Vec<&[f32]> = global[3 * epoch..3 * epoch + 3].iter().flat_map(|batch| batch.pixels.chunks(90)).collect();
        seen.sort_by(|a, b| a.partial_cmp(b).unwrap());
        seen.dedup();
        assert_eq!(seen.len(), 18);
        for (batch, loaded) in global[3 * epoch..3 * epoch + 3].iter().enumerate() {
            assert_eq!(loaded.position, Position { epoch: epoch as u64, batch: batch as u64 });
        }
    }
    assert_ne!(global[0].pixels, global[3].pixels, "the second epoch repeats the first");
    for (world_size, threads) in [(2, 1), (3, 2), (6, 3)] {
        let ranks: Vec<_> = (0..world_size).map(|rank| batches(&data, plan(rank, world_size), Position::default(), 7, threads)).collect();
        for (number, whole) in global.iter().enumerate() {
            let joined: Vec<f32> = ranks.iter().flat_map(|rank| rank[number].pixels.iter().copied()).collect();
            let labels: Vec<u32> = ranks.iter().flat_map(|rank| rank[number].labels.iter().copied()).collect();
            assert_eq!((&joined, &labels), (&whole.pixels, &whole.labels), "batch {number} of {world_size} ranks");
        }
    }
}

#[test]
fn loading_goes_on_from_any_position_as_if_never_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    config.augment = vec![Augment::RandomCrop, Augment::HorizontalFlip, Augment::VerticalFlip];
    config.crop = Some([4, 4]);
    let data = DataSet::open_train(&config, 0).unwrap().0;
    let whole = batches(&data, plan(0, 1), Position::default(), 10, 1);
    for start in [1, 2, 3, 5] {
        assert_eq!(batches(&data, plan(0, 1), Position::after(start, 3), 5, 2), whole[start as usize..start as usize + 5]);
    }
}

#[test]
fn without_shuffling_samples_come_as_stored() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataSet::open_train(&small(folder.path()), 0).unwrap().0;
    let batches = batches(&data, BatchPlan { shuffle: false, ..plan(0, 1) }, Position::default(), 4, 1);
    for (number, batch) in batches.iter().enumerate() {
        for (place, pixels) in batch.pixels.chunks(90).enumerate() {
            let sample = (6 * number + place) % 18;
            assert_eq!(batch.labels[place], sample as u32 % 3);
            assert!(pixels.iter().enumerate().all(|(at, &x)| x == f32::from(pixel(sample, at)) * (1.0 / 255.0)));
        }
    }
}

#[test]
fn bytes_that_a_device_scales_are_the_floats() {
    let folder = tempfile::tempdir().unwrap();
    let flips = [Augment::HorizontalFlip, Augment::VerticalFlip];
    let views = [(vec![], None, 0), (vec![Augment::RandomCrop], Some([4, 4]), 2), (vec![Augment::RandomResizedCrop], Some([4, 3]), 0)];
    for (augment, crop, crop_padding) in views {
        for scaling in [Scaling::Unit, Scaling::Standardize] {
            let augment = augment.iter().chain(if augment.is_empty() { &[] } else { &flips[..] }).copied().collect();
            let folder = tempfile::tempdir_in(&folder).unwrap();
            let config = Data { augment, crop, crop_padding, scaling, ..small(folder.path()) };
            let data = DataSet::open_train(&config, 0).unwrap().0;
            let load = |form| {
                let mut loader = Loader::with_threads(Arc::clone(&data), plan(0, 1), Position::default(), form, 1..=1);
                let training: Vec<Loaded> = (0..7).map(|_| loader.next().unwrap()).collect();
                let evaluated = evaluation_batches(Arc::clone(&data), 0, 1, 6, form).map(|batch| batch.unwrap().1);
                training.into_iter().chain(evaluated).collect::<Vec<_>>()
            };
            let (bytes, floats) = (load(Form::Bytes), load(Form::Floats));
            assert_eq!(bytes.len(), 7 + 4);
            for (bytes, floats) in bytes.iter().zip(&floats) {
                assert_eq!((&bytes.labels, bytes.position), (&floats.labels, floats.position));
                assert_eq!((bytes.bytes.len(), bytes.pixels.len(), floats.bytes.len()), (floats.pixels.len(), 0, 0));
                let bits = |loaded: &Loaded| loaded.input().scaled().iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(bytes), bits(floats), "{config:?}");
            }
        }
    }
}

#[test]
fn augmentation_depends_on_seed_epoch_and_sample_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    config.augment = vec![Augment::RandomResizedCrop, Augment::HorizontalFlip];
    config.crop = Some([4, 3]);
    let data = DataSet::open_train(&config, 0).unwrap().0;
    assert_eq!(data.input_shape(), [4, 3, 3]);
    let unshuffled = BatchPlan { shuffle: false, ..plan(0, 1) };
    let first = batches(&data, unshuffled, Position::default(), 6, 1);
    assert_eq!(first, batches(&data, unshuffled, Position::default(), 6, 3));
    assert_ne!(first[0].pixels, first[3].pixels, "the same samples look alike in both epochs");
    assert_ne!(first[0].pixels, batches(&data, BatchPlan { seed: 12, ..unshuffled }, Position::default(), 1, 1)[0].pixels);
    // In another order of batches, of other sizes, each sample looks the same.
    let mut looks: Vec<Vec<f32>> = first[..3].iter().flat_map(|batch| batch.pixels.chunks(36).map(<[f32]>::to_vec)).collect();
    for batch in batches(&data, BatchPlan { batch_size: 5, ..plan(0, 1) }, Position::default(), 4, 1) {
        for pixels in batch.pixels.chunks(36) {
            match looks.iter().position(|look| look == pixels) {
                Some(found) => drop(looks.swap_remove(found)),
                // Samples 18 and 19 are in no unshuffled batch.
                None => looks.push(pixels.to_vec()),
            }
        }
    }
    assert_eq!(looks.len(), 2);
}

#[test]
fn evaluation_sees_every_sample_once_and_unaugmented() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    config.augment = vec![Augment::RandomCrop, Augment::HorizontalFlip];
    config.crop = Some([4, 3]);
    let data = DataSet::open_train(&config, 0).unwrap().0;
    for world_size in 1..=5 {
        for capacity in [1, 3, 7, 100] {
            let all: Vec<_> = (0..world_size).flat_map(|rank| evaluated(&data, rank, world_size, capacity)).collect();
            assert_eq!(all.len(), 20);
            for (sample, (place, label, pixels)) in all.iter().enumerate() {
                assert_eq!((*place, *label), (sample, sample as u32 % 3));
                // Rows 1 to 4 and columns 1 to 3 of 6 x 5.
                let centre = (0..4).flat_map(|y| (0..3).flat_map(move |x| (0..3).map(move |c| ((y + 1) * 5 + x + 1) * 3 + c)));
                assert!(centre.zip(pixels).all(|(at, &x)| x == f32::from(pixel(sample, at)) * (1.0 / 255.0)));
            }
        }
    }
    assert!(evaluated(&data, 29, 30, 4).len() == 1 && evaluated(&data, 0, 30, 4).is_empty(), "more ranks than samples");
}

#[test]
fn validation_samples_are_set_apart_by_the_seed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    config.validation = 7;
    let (train, validation) = DataSet::open_train(&config, 3).unwrap();
    let validation = validation.unwrap();
    assert_eq!((train.len(), validation.len()), (13, 7));
    let pixels = |data: &Arc<DataSet>| evaluated(data, 0, 1, 5).into_iter().map(|(_, _, pixels)| pixels).collect::<Vec<_>>();
    let (ours, apart) = (pixels(&train), pixels(&validation));
    assert!(apart.iter().all(|sample| !ours.contains(sample)));
    assert_eq!(pixels(&DataSet::open_train(&config, 3).unwrap().1.unwrap()), apart);
    assert_ne!(pixels(&DataSet::open_train(&config, 4).unwrap().1.unwrap()), apart);
    assert_eq!(batches(&train, plan(0, 1), Position::default(), 3, 1)[2].position, Position { epoch: 1, batch: 0 });

    config.validation = 20;
    assert_refused(DataSet::open_train(&config, 3), &["data.validation = 20", "20 samples", "data.train"]);
}

#[test]
fn standardising_uses_the_training_sets_statistics() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    config.scaling = Scaling::Standardize;
    config.test = Some(write(&folder.path().join("test"), 4, 3, &CLASSES, |_| (6, 5)));
    let train = DataSet::open_train(&config, 0).unwrap().0;
    let test = DataSet::open_test(&config, train.trained()).unwrap().unwrap();
    let all: Vec<f64> = evaluated(&train, 0, 1, 8).into_iter().flat_map(|(_, _, pixels)| pixels).map(f64::from).collect();
    for c in 0..3 {
        let channel: Vec<f64> = all.iter().skip(c).step_by(3).copied().collect();
        let mean = channel.iter().sum::<f64>() / channel.len() as f64;
        let variance = channel.iter().map(|x| x * x).sum::<f64>() / channel.len() as f64 - mean * mean;
        assert!(mean.abs() < 1e-6 && (variance - 1.0).abs() < 1e-5, "mean {mean}, variance {variance}");
    }
    // The same pixels, so the same values, though the test set's own statistics are others.
    assert_eq!(evaluated(&test, 0, 1, 8), evaluated(&train, 0, 1, 8)[..4]);
}

#[test]
fn a_channel_that_never_varies_becomes_zero() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(write(&folder.path().join("train"), 1, 3, &["only"], |_| (1, 1)));
    config.scaling = Scaling::Standardize;
    let data = DataSet::open_train(&config, 0).unwrap().0;
    assert_eq!(Dataset::open(&config.train).unwrap().statistics().deviation, [0.0; 3]);
    assert!(evaluated(&data, 0, 1, 1)[0].2.iter().all(|x| x.abs() < 1e-6));
}

#[test]
fn a_data_set_that_is_none_is_refused_by_key_and_path() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path().join("nowhere"));
    assert_refused(DataSet::open_train(&config, 0), &["data.train", "nowhere", "does not exist", "data-prep"]);
    config.train = folder.path().to_owned();
    assert_refused(DataSet::open_train(&config, 0), &["data.train", "manifest.json", "data-prep"]);
    // A damaged one is no usage error.
    let mut config = small(folder.path());
    let train = DataSet::open_train(&config, 0).unwrap().0;
    config.test = Some(write(&folder.path().join("test"), 6, 3, &CLASSES, |_| (6, 5)));
    let shard = folder.path().join("test/00001.shard");
    std::fs::File::options().write(true).open(&shard).unwrap().set_len(100).unwrap();
    let (message, exit) = refusal(DataSet::open_test(&config, train.trained()));
    assert_eq!(exit, Exit::Failed);
    assert!(message.contains("data.test") && message.contains("00001.shard") && message.contains("cut off"), "{message}");
}

#[test]
fn a_test_set_that_does_not_match_the_training_set_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = small(folder.path());
    let train = DataSet::open_train(&config, 0).unwrap().0;
    assert!(DataSet::open_test(&config, train.trained()).unwrap().is_none());
    let mut refused = |name: &str, channels, classes: &[&str], frame, parts: &[&str]| {
        config.test = Some(write(&folder.path().join(name), 9, channels, classes, |_| frame));
        assert_refused(DataSet::open_test(&config, train.trained()), &[&["data.test", name], parts].concat());
    };
    refused("gray", 1, &CLASSES, (6, 5), &["6 x 5 x 1", "6 x 5 x 3"]);
    refused("large", 3, &CLASSES, (7, 5), &["7 x 5 x 3", "6 x 5 x 3", "data.crop"]);
    refused("classes", 3, &["ant", "bee", "cat", "dog"], (6, 5), &["sample 3 has label 3", "3 classes"]);
    refused("shifted", 3, &["ant", "cat"], (6, 5), &["class 1 is \"cat\"", "\"bee\""]);
}

#[test]
fn a_crop_must_fit_every_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(write(&folder.path().join("train"), 12, 3, &CLASSES, |sample| (6 + sample as u32 % 3, 9 - sample as u32 % 2)));
    assert_refused(DataSet::open_train(&config, 0), &["data.crop", "differ in size", "[height, width]"]);
    config.crop = Some([6, 9]);
    assert_refused(DataSet::open_train(&config, 0), &["data.crop = [6, 9]", "6 x 8 pixels"]);
    config.crop = Some([6, 8]);
    let data = DataSet::open_train(&config, 0).unwrap().0;
    assert_eq!(evaluated(&data, 0, 1, 5).len(), 12);
    config.augment = vec![Augment::RandomCrop];
    config.crop_padding = 2;
    config.crop = Some([10, 12]);
    let data = DataSet::open_train(&config, 0).unwrap().0;
    assert_eq!((data.input_shape(), evaluated(&data, 0, 1, 5).len()), ([10, 12, 3], 12));
    batches(&data, plan(0, 1), Position::default(), 4, 1);
    config.crop = Some([11, 12]);
    assert_refused(DataSet::open_train(&config, 0), &["data.crop = [11, 12]", "6 x 8 pixels, padded by 2"]);
    // It reaches into the border, but not beyond the image.
    (config.crop, config.crop_padding) = (Some([4, 5]), 3);
    DataSet::open_train(&config, 0).unwrap();
    config.crop_padding = 4;
    assert_refused(DataSet::open_train(&config, 0), &["data.crop_padding = 4", "4 x 5", "black", "at most 3"]);
}

#[test]
fn a_plan_without_a_whole_batch_is_an_error_and_no_hang() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataSet::open_train(&small(folder.path()), 0).unwrap().0;
    let mut loader = Loader::train(data, BatchPlan { batch_size: 21, ..plan(0, 1) }, Position::default(), Form::Floats);
    assert_refused(loader.next(), &["data.batch_size = 21", "20 samples"]);
    assert!(loader.next().is_err());
}

#[test]
fn a_shard_that_changes_while_it_is_loaded_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = DataSet::open_train(&small(folder.path()), 0).unwrap().0;
    let mut loader = Loader::train(Arc::clone(&data), plan(0, 1), Position::default(), Form::Floats);
    loader.next().unwrap();
    std::fs::remove_file(folder.path().join("train/00001.shard")).unwrap();
    // Some batches were loaded before.
    let error = (0..8).find_map(|_| loader.next().err()).expect("the loss is noticed");
    assert!(format!("{error:#}").contains("00001.shard"), "{error:#}");
    let mut evaluation = evaluation_batches(data, 0, 1, 20, Form::Floats);
    assert!(evaluation.next().unwrap().is_err());
    assert!(evaluation.next().is_none());
}
