//! How fast batches are loaded, beside the speed at which memory is copied: `cargo bench --bench loader -- [--threads N] [FOLDER]`.
//!
//! Without a folder that data-prep made, images of random pixels are used. Photographs are cropped to 224 x 224, mirrored and
//! standardised; digits are scaled only, and what counts there is the processor time that loading takes from training.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use biodist::config::{Augment, Data, Scaling};
use biodist::data::{BatchPlan, DataSet, Form, Loader, Position};
use shards::format::Encoding;
use shards::{DatasetWriter, Description, PixelSums};

fn main() -> Result<()> {
    let (threads, folder) = arguments()?;
    let temporary = tempfile::tempdir()?;
    let photos = match folder {
        Some(folder) => folder,
        None => random_images(&temporary.path().join("photos"), 768, [256, 256, 3])?,
    };
    let digits = random_images(&temporary.path().join("digits"), 60_000, [28, 28, 1])?;

    let copied = copy_speed(threads);
    println!("memory copy, {threads} threads: {:.1} GB/s", copied / 1e9);
    let augment = vec![Augment::RandomCrop, Augment::HorizontalFlip];
    let config = data(&photos, Scaling::Standardize, augment, Some([224, 224]));
    let (data_set, _) = DataSet::open_train(&config, 0)?;
    let bytes = 4 * data_set.input_shape().iter().product::<usize>();
    let rate = images_per_second(data_set, 64, threads)?;
    let fraction = rate * bytes as f64 / copied;
    println!("photographs, {threads} threads: {rate:.0} images/s, {:.0}% of the speed of copying their floats", 100.0 * fraction);

    let (data_set, _) = DataSet::open_train(&data(&digits, Scaling::Unit, Vec::new(), None), 0)?;
    let rate = images_per_second(Arc::clone(&data_set), 128, 1)?;
    let idle = processor_time_per_batch(data_set, 128)?;
    println!("digits, 1 thread: {rate:.0} images/s; {:.1} us of processor time for a batch of 128 in steps of 1 ms", 1e6 * idle);
    Ok(())
}

fn arguments() -> Result<(usize, Option<PathBuf>)> {
    let (mut threads, mut folder) = (2, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What `cargo bench` adds.
            "--bench" => {}
            "--threads" => threads = arguments.next().context("--threads needs a number")?.parse().context("--threads needs a number")?,
            _ => folder = Some(PathBuf::from(argument)),
        }
    }
    Ok((threads, folder))
}

fn data(train: &Path, scaling: Scaling, augment: Vec<Augment>, crop: Option<[usize; 2]>) -> Data {
    let train = train.to_owned();
    Data { train, test: None, validation: 0, batch_size: 1, shuffle: true, scaling, augment, crop, crop_padding: 0 }
}

/// A data set of noise.
fn random_images(folder: &Path, samples: u32, [height, width, channels]: [u32; 3]) -> Result<PathBuf> {
    let description = Description {
        channels: channels as usize,
        class_names: (0..10).map(|class| class.to_string()).collect(),
        encoding: Encoding::Raw,
        made_by: "benches/loader.rs".into(),
    };
    let writer = DatasetWriter::begin(folder, description)?;
    let mut shard = writer.shard(0)?;
    let mut state = 1u32;
    let mut pixels = vec![0u8; (height * width * channels) as usize];
    for sample in 0..samples {
        for pixel in &mut pixels {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *pixel = (state >> 24) as u8;
        }
        shard.add(&pixels, (height, width), sample % 10, &PixelSums::of(&pixels, channels as usize))?;
    }
    writer.finish(vec![shard.finish()?])?;
    Ok(folder.to_owned())
}

/// Bytes copied in a second by threads at once, from and to memory far larger than the caches.
fn copy_speed(threads: usize) -> f64 {
    const LENGTH: usize = 256 << 20;
    const ROUNDS: usize = 4;
    let barrier = std::sync::Barrier::new(threads);
    let seconds = std::thread::scope(|scope| {
        let copy = || {
            let from = vec![1u8; LENGTH];
            let mut to = vec![2u8; LENGTH];
            barrier.wait();
            let began = Instant::now();
            for _ in 0..ROUNDS {
                to.copy_from_slice(std::hint::black_box(&from));
                std::hint::black_box(&mut to);
            }
            began.elapsed().as_secs_f64()
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(copy)).collect();
        threads.into_iter().map(|thread| thread.join().expect("copying does not fail")).fold(0.0, f64::max)
    });
    (threads * ROUNDS * LENGTH) as f64 / seconds
}

fn loader(data_set: Arc<DataSet>, batch_size: usize, threads: usize) -> Loader {
    let plan = BatchPlan { seed: 0, batch_size, shuffle: true, rank: 0, world_size: 1 };
    Loader::with_threads(data_set, plan, Position::default(), Form::Floats, threads..=threads)
}

/// The median of several stretches of a second, after one that touches all memory.
fn images_per_second(data_set: Arc<DataSet>, batch_size: usize, threads: usize) -> Result<f64> {
    let mut loader = loader(data_set, batch_size, threads);
    let mut rates = Vec::new();
    for stretch in 0..6 {
        let (began, mut images) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(1) {
            let batch = loader.next()?;
            images += batch.labels.len();
            loader.recycle(batch);
        }
        if stretch > 0 {
            rates.push(images as f64 / began.elapsed().as_secs_f64());
        }
    }
    rates.sort_by(f64::total_cmp);
    Ok(rates[rates.len() / 2])
}

/// Seconds of processor time that a batch costs while training, here asleep, takes a millisecond for each.
fn processor_time_per_batch(data_set: Arc<DataSet>, batch_size: usize) -> Result<f64> {
    const BATCHES: u32 = 1000;
    let step = Duration::from_millis(1);
    let mut loader = loader(data_set, batch_size, 1);
    let batch = loader.next()?;
    loader.recycle(batch);
    let began = processor_time();
    for _ in 0..BATCHES {
        std::thread::sleep(step);
        let batch = loader.next()?;
        loader.recycle(batch);
    }
    let loading = processor_time() - began;
    let began = processor_time();
    (0..BATCHES).for_each(|_| std::thread::sleep(step));
    let sleeping = processor_time() - began;
    Ok((loading - sleeping) / f64::from(BATCHES))
}

/// Seconds of processor time that this process has used.
fn processor_time() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the clock exists on every system that this program runs on, and `time` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + 1e-9 * time.tv_nsec as f64
}
