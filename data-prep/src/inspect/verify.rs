//! All checksums of a data set, compared in parallel.

use std::path::Path;
use std::sync::Mutex;

use anyhow::{Result, bail};
use rayon::prelude::*;
use shards::dataset::Dataset;

use crate::progress::Progress;

/// Faults that are listed; the others are only counted.
const LISTED: usize = 10;

/// Reads every byte of a data set and compares every checksum. Returns the data set, so that what was verified can be told.
///
/// # Errors
/// Lists the shards and the bytes that are altered.
pub fn verify(folder: &Path, threads: usize) -> Result<Dataset> {
    let dataset = Dataset::open(folder)?;
    let pool = crate::pool(threads)?;
    let blocks: Vec<(usize, usize)> =
        dataset.shards().iter().enumerate().flat_map(|(shard, opened)| (0..opened.blocks()).map(move |block| (shard, block))).collect();
    let progress = Progress::new("verify", "blocks", blocks.len() as u64, 0);
    let faults: Mutex<Vec<((usize, usize), String)>> = Mutex::default();
    pool.install(|| {
        blocks.par_iter().for_each(|&(shard, block)| {
            if let Err(error) = dataset.shards()[shard].verify_block(block) {
                faults.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(((shard, block), format!("{error:#}")));
            }
            progress.add(1);
        });
    });
    progress.finish();
    let mut faults = faults.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if faults.is_empty() {
        return Ok(dataset);
    }
    faults.sort();
    let listed: Vec<&str> = faults.iter().take(LISTED).map(|(_, fault)| fault.as_str()).collect();
    let more = faults.len().saturating_sub(LISTED);
    bail!("{}{}", listed.join("\n       "), if more > 0 { format!("\n       and {more} more blocks") } else { String::new() })
}
