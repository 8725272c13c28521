//! CIFAR-10's official binary batches: records of one label byte and 32 x 32 red, green and blue planes.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::{open_regular, read_regular};
use serde_json::json;
use shards::format::Encoding;
use shards::manifest::Manifest;
use shards::writer::{DatasetWriter, Description};

use super::stream::Stream;
use super::{base_name, made_by};
use crate::output::{Output, identity, require_apart};

const SIDE: usize = 32;
const PLANE: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PLANE;
const NAMES: &str = "batches.meta.txt";
/// The parts and their batches.
const PARTS: [(&str, &[&str]); 2] = [
    ("train", &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]),
    ("test", &["test_batch.bin"]),
];
/// More than any batch has.
const MAX_BATCH: u64 = 1 << 27;
/// More than the file of names has.
const MAX_NAMES: u64 = 1 << 20;

/// What `data-prep cifar10` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Folder with the batches and `batches.meta.txt`.
    pub batches: PathBuf,
    pub out: PathBuf,
    pub shard_mib: u32,
}

/// Writes `out/train` and `out/test` in the batches' order, as [32, 32, 3].
///
/// # Errors
/// Names the batch that is missing, of the wrong length, or has labels beyond the classes.
pub fn run(options: &Options) -> Result<Vec<(PathBuf, Manifest)>> {
    if let Some(hint) = hint(&options.batches) {
        return Err(Exit::Usage.error(format!("--batches {}: {hint}", options.batches.display())));
    }
    require_apart(&options.out, &[&options.batches])?;
    let files = PARTS.iter().flat_map(|(_, batches)| batches.iter()).chain([&NAMES]);
    let inputs = files.map(|name| identity(&options.batches.join(name))).collect::<Result<Vec<_>>>()?;
    let class_names = read_names(&options.batches.join(NAMES))?;
    // Everything is read before anything is written: a whole CIFAR-10 is 180 MB.
    let parts = PARTS
        .iter()
        .map(|(part, batches)| Ok((*part, read_records(&options.batches, batches, class_names.len())?)))
        .collect::<Result<Vec<_>>>()?;
    let output = Output::claim(&options.out, &json!({ "command": "cifar10", "inputs": inputs, "shard_mib": options.shard_mib }))?;
    let mut written = Vec::new();
    for (part, records) in parts {
        let folder = options.out.join(part);
        let description = Description {
            channels: 3,
            class_names: class_names.clone(),
            encoding: Encoding::Raw,
            made_by: made_by("cifar10", json!({ "part": part })),
        };
        let writer = DatasetWriter::begin(&folder, description)?;
        let records: Vec<&[u8]> = records.iter().flat_map(|batch| batch.chunks_exact(RECORD)).collect();
        let side = SIDE as u32;
        let stream = Stream { count: records.len(), frame: (side, side), channels: 3, shard_mib: options.shard_mib };
        let shards = stream.write(&writer, |index, pixels| {
            interleave(&records[index][1..], pixels);
            Ok(u32::from(records[index][0]))
        })?;
        written.push((folder, writer.finish(shards)?));
    }
    output.release()?;
    Ok(written)
}

/// What `batches` is instead of the folder of the batches, and what to do.
fn hint(batches: &Path) -> Option<String> {
    const FOLDER: &str = "cifar-10-batches-bin";
    let holds = |name: &&str| batches.join(name).exists();
    let (name, place) = (base_name(batches), batches.display());
    let archive = batches.is_file() || name.ends_with(".tar.gz");
    if holds(&PARTS[0].1[0]) {
        None
    } else if holds(&FOLDER) {
        Some(format!("did you mean {}?", batches.join(FOLDER).display()))
    } else if ["data_batch_1", "data_batch_1.mat", "cifar-10-batches-py", "cifar-10-batches-mat"].iter().any(holds)
        || archive && (name.contains("python") || name.contains("matlab"))
    {
        Some("this is the Python or MATLAB version; download the binary version, cifar-10-binary.tar.gz, and unpack it".to_owned())
    } else if archive {
        Some(format!("this is no folder; unpack it with `tar -xf {place}` and give the folder {FOLDER} that comes out"))
    } else if holds(&"cifar-10-binary.tar.gz") {
        Some(format!("unpack the archive in it with `tar -xf {place}/cifar-10-binary.tar.gz` and give the folder {FOLDER} that comes out"))
    } else {
        None
    }
}

/// Planes [3, H, W] to pixels [H, W, 3].
fn interleave(planes: &[u8], pixels: &mut [u8]) {
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        pixel.copy_from_slice(&[planes[at], planes[PLANE + at], planes[2 * PLANE + at]]);
    }
}

fn read_records(folder: &Path, batches: &[&str], classes: usize) -> Result<Vec<Vec<u8>>> {
    let mut records = Vec::new();
    for name in batches {
        let path = folder.join(name);
        let read = || -> std::io::Result<(u64, Vec<u8>)> {
            let file = open_regular(&path)?;
            let mut batch = Vec::new();
            file.take(MAX_BATCH).read_to_end(&mut batch)?;
            Ok((path.metadata()?.len(), batch))
        };
        let (length, batch) = read().with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(
            length > 0 && length % RECORD as u64 == 0 && length <= MAX_BATCH,
            "{} has {length} bytes, which is no multiple of a record's {RECORD}: it is cut off or no CIFAR-10 batch; get it again",
            path.display()
        );
        if let Some(at) = batch.chunks_exact(RECORD).position(|record| usize::from(record[0]) >= classes) {
            anyhow::bail!("{} has label {} in record {at}, but {NAMES} names {classes} classes", path.display(), batch[at * RECORD]);
        }
        records.push(batch);
    }
    Ok(records)
}

fn read_names(path: &Path) -> Result<Vec<String>> {
    let length = path.metadata().with_context(|| format!("{} cannot be read", path.display()))?.len();
    ensure!(length <= MAX_NAMES, "{} has {length} bytes; the names of ten classes have fewer than {MAX_NAMES}", path.display());
    let text = read_regular(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let text = String::from_utf8(text).with_context(|| format!("{} is no text", path.display()))?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if names.is_empty() || names.len() > 256 {
        return Err(Exit::Usage.error(format!("{} has {} class names; CIFAR-10 has ten", path.display(), names.len())));
    }
    Ok(names)
}
