//! idx files, the form of MNIST and its relatives: a magic number that gives the type and the number of dimensions, the
//! dimensions, then the values, all big-endian; often gzipped.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use flate2::bufread::MultiGzDecoder;
use serde_json::json;

use super::arrays::{self, Array, BYTE, Layout};
use super::{Made, base_name};
use crate::output::{identity, require_apart};

/// What `data-prep idx` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// [N, H, W] or [N, H, W, C] of unsigned bytes.
    pub images: PathBuf,
    /// `[N]` of unsigned bytes.
    pub labels: PathBuf,
    pub out: PathBuf,
    /// Class count; the largest label and one where absent.
    pub classes: Option<u32>,
    /// Size of a shard's pixels.
    pub shard_mib: u32,
}

/// Writes the samples in file order.
///
/// # Errors
/// Where a file is missing or foreign, and as [`arrays::prepare`].
pub fn run(options: &Options) -> Result<Made> {
    let Options { images, labels, out, classes, shard_mib } = options;
    arrays::check_classes(*classes)?;
    require_apart(out, &[images, labels])?;
    let job = json!({
        "command": "idx", "images": identity(images)?, "labels": identity(labels)?, "classes": classes, "shard_mib": shard_mib,
    });
    let made = json!({ "images": base_name(images), "labels": base_name(labels), "classes": classes });
    let wanted = arrays::Options { out, classes: *classes, layout: Layout::Pixels, shard_mib: *shard_mib, job, made };
    arrays::prepare(|| open(images), open(labels)?, wanted)
}

/// An idx file of unsigned bytes, unpacked as it is read.
fn open(path: &Path) -> Result<Array> {
    let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
    let mut buffered = BufReader::with_capacity(1 << 20, file);
    let start = buffered.fill_buf().with_context(|| format!("{} cannot be read", path.display()))?;
    let gzipped = start.starts_with(&[0x1f, 0x8b]);
    let mut content: Box<dyn Read> = if gzipped { Box::new(MultiGzDecoder::new(buffered)) } else { Box::new(buffered) };
    let mut magic = [0; 4];
    content.read_exact(&mut magic).with_context(|| format!("{} is no idx file: it is too short or not gzip", path.display()))?;
    let [0, 0, kind, count] = magic else {
        bail!("{} is no idx file: it begins with {magic:02x?}, an idx file with two zeros", path.display());
    };
    ensure!(kind == 0x08, "{} holds values of idx type 0x{kind:02x}; unsigned bytes (0x08) are required, so convert it", path.display());
    let mut dimensions = Vec::new();
    for _ in 0..count {
        let mut size = [0; 4];
        content.read_exact(&mut size).with_context(|| format!("{} is cut off in its header", path.display()))?;
        dimensions.push(u32::from_be_bytes(size).into());
    }
    Ok(Array { name: path.display().to_string(), dimensions, number: BYTE, content })
}
