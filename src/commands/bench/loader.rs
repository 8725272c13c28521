//! `biodist bench loader`: how fast batches come from shards, raw and JPEG, by the number of threads and by the form of their pixels.
//!
//! Each row loads the same batches as training would, random crops that are mirrored at random, and throws them away.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use shards::format::Encoding;
use shards::{DatasetWriter, Description, PixelSums, jpeg};

use super::machine::median;
use crate::config::{Augment, Data, Scaling};
use crate::data::{BatchPlan, DataSet, Form, Loader, Position};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::text::{scaled, table};
use crate::training::StopRequest;

/// Crops of a batch.
const BATCH: usize = 64;
/// Photos that are made up, of this height and width: more than caches hold.
const PHOTOS: u32 = 512;
const SIDE: u32 = 256;
/// Of JPEGs, as data-prep packs them.
const QUALITY: u8 = 90;

/// Measure how fast batches are loaded
///
/// Without FOLDER, photos of 256 x 256 are made up, and packed raw and as JPEG, in the folder for temporary files (TMPDIR). Pixels come as
/// floats, which CPUs take, and as bytes, which GPUs scale themselves.
#[derive(Debug, clap::Args)]
pub struct LoaderArgs {
    /// Data sets that data-prep made
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Side of the crops
    #[arg(long, value_name = "PIXELS", default_value_t = 224, value_parser = clap::value_parser!(u32).range(1..=65_535))]
    crop: u32,
    /// Most threads; fewer are tried too [default: the CPUs that this process may use]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Seconds for each row
    #[arg(long, value_name = "S", default_value_t = 1.5, value_parser = seconds)]
    seconds: f64,
    /// Print one JSON object, as the last line
    #[arg(long)]
    json: bool,
}

fn seconds(typed: &str) -> Result<f64, String> {
    let seconds = typed.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.ok_or_else(|| "give a number of seconds from 0.01 to 600".to_owned())
}

/// A way to load a data set, and how fast it was.
struct Row {
    data: String,
    form: Form,
    threads: usize,
    /// Crops in a second.
    rate: f64,
    /// Bytes of a crop.
    bytes: usize,
}

/// Prints how fast batches come. For one process.
pub fn run(args: LoaderArgs, transport: &dyn Transport) -> Result<()> {
    if transport.size() > 1 {
        return Err(Exit::Usage.error("bench loader measures one process: start it without mpirun, and give it that rank's --threads"));
    }
    // Whoever interrupts this gets the temporary folder removed.
    let stop = StopRequest::listen()?;
    stop.started();
    let temporary = tempfile::Builder::new().prefix("biodist-bench-").tempdir().context("no temporary folder can be made; set TMPDIR")?;
    let folders = if args.folders.is_empty() {
        let made = |encoding| made_up(&temporary.path().join(name(encoding)), encoding);
        vec![made(Encoding::Raw)?, made(Encoding::Jpeg)?]
    } else {
        args.folders
    };
    let most = args.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |threads| threads as usize);
    let mut counts: Vec<usize> =
        std::iter::successors(Some(1), |threads| Some(2 * threads)).take_while(|threads| *threads < most).collect();
    counts.push(most);
    let mut rows = Vec::new();
    for folder in &folders {
        let (data, _) = DataSet::open_train(&as_trained(folder, [args.crop as usize; 2]), 0)?;
        for form in [Form::Bytes, Form::Floats] {
            for &threads in &counts {
                let rate = rate(&data, form, threads, args.seconds)?;
                if stop.received() {
                    return Err(Exit::Stopped.error("stopped on request"));
                }
                let values = data.input_shape().iter().product::<usize>();
                let bytes = if form == Form::Bytes { values } else { 4 * values };
                let shown = folder.strip_prefix(temporary.path()).unwrap_or(folder);
                rows.push(Row { data: shown.display().to_string(), form, threads, rate, bytes });
            }
        }
    }
    say(if args.json { json!({ "rows": rows.iter().map(Row::to_json).collect::<Vec<_>>() }).to_string() } else { to_text(&rows) });
    Ok(())
}

fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Raw => "raw",
        Encoding::Jpeg => "JPEG",
    }
}

/// As photos are mostly trained on.
fn as_trained(folder: &Path, crop: [usize; 2]) -> Data {
    Data {
        train: folder.to_owned(),
        test: None,
        validation: 0,
        batch_size: BATCH,
        shuffle: true,
        scaling: Scaling::Standardize,
        augment: vec![Augment::RandomCrop, Augment::HorizontalFlip],
        crop: Some(crop),
        crop_padding: 0,
    }
}

/// Crops in a second: the median of three stretches, after the batches that are loaded first.
fn rate(data: &Arc<DataSet>, form: Form, threads: usize, seconds: f64) -> Result<f64> {
    let plan = BatchPlan { seed: 0, batch_size: BATCH.min(data.len()), shuffle: true, rank: 0, world_size: 1 };
    let mut loader = Loader::with_threads(Arc::clone(data), plan, Position::default(), form, threads..=threads);
    let mut load = |batches: usize, seconds: f64| -> Result<f64> {
        let (started, mut loaded) = (Instant::now(), 0);
        while loaded < batches || started.elapsed().as_secs_f64() < seconds {
            let batch = loader.next()?;
            loaded += 1;
            loader.recycle(batch);
        }
        Ok((loaded * plan.batch_size) as f64 / started.elapsed().as_secs_f64())
    };
    load(2 * threads + 2, 0.0)?;
    Ok(median((0..3).map(|_| load(1, seconds / 3.0)).collect::<Result<_>>()?))
}

impl Row {
    fn form(&self) -> &'static str {
        if self.form == Form::Bytes { "bytes" } else { "floats" }
    }

    fn to_json(&self) -> Value {
        json!({
            "data": self.data,
            "pixels": self.form(),
            "threads": self.threads,
            "crops_per_second": self.rate,
            "bytes_per_second": self.rate * self.bytes as f64,
        })
    }
}

fn to_text(rows: &[Row]) -> String {
    let heading = ["data", "pixels", "threads", "crops/s", "written"].map(str::to_owned).to_vec();
    let of = |row: &Row| {
        let written = format!("{}B/s", scaled(row.rate * row.bytes as f64));
        vec![row.data.clone(), row.form().to_owned(), row.threads.to_string(), format!("{:.0}", row.rate), written]
    };
    table(&[vec![heading], rows.iter().map(of).collect()].concat(), 2)
}

/// A data set of soft shapes under some grain, whose JPEGs are about as large as photos'.
fn made_up(folder: &Path, encoding: Encoding) -> Result<PathBuf> {
    let description =
        Description { channels: 3, class_names: vec!["none".into(), "all".into()], encoding, made_by: "biodist bench loader".into() };
    let writer = DatasetWriter::begin(folder, description)?;
    let mut shard = writer.shard(0)?;
    for photo in 0..PHOTOS {
        let pixels = picture(photo);
        let sums = PixelSums::of(&pixels, 3);
        let packed = match encoding {
            Encoding::Raw => pixels,
            Encoding::Jpeg => jpeg::encode(&pixels, (SIDE, SIDE), QUALITY)?,
        };
        shard.add(&packed, (SIDE, SIDE), photo % 2, &sums)?;
    }
    writer.finish(vec![shard.finish()?])?;
    Ok(folder.to_owned())
}

fn picture(photo: u32) -> Vec<u8> {
    let mut state = photo.wrapping_mul(2_654_435_761) | 1;
    let mut grain = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 28) as i32 - 8
    };
    // Triangle waves, whose lines are the edges that photos have.
    let wave = |at: u32, length: u32| (at % (2 * length)).abs_diff(length) * 255 / length;
    let mut pixels = Vec::with_capacity((3 * SIDE * SIDE) as usize);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let light = (wave(x + 3 * photo, 23) + wave(y + x / 2, 41) + wave(2 * y + photo, 57)) as i32 / 3 + grain();
            pixels.extend([0, 20, 40].map(|colour| (light + colour * (photo as i32 % 5 - 2) / 2).clamp(0, 255) as u8));
        }
    }
    pixels
}
