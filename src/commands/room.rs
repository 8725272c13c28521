//! Whether the disk has room for a run's checkpoints, told before it trains: a disk that fills up hours later ends it.

use std::path::Path;

use anyhow::Result;
use biodist_process::files::free_space;

use crate::plan::Plan;
use crate::text::scaled;
use crate::training::Checkpoints;

/// Warns where `out` has less room than the checkpoints may take that are not there yet. A file system that does not tell its free room is trusted.
///
/// # Errors
/// Where the folder's checkpoints cannot be listed.
pub fn warn_of_little(out: &Path, plan: &Plan) -> Result<()> {
    let to_come = plan.disk.checkpoints.saturating_sub(Checkpoints::of(out).steps()?.len()) as u64;
    let each = plan.disk.checkpoint();
    if let Some(free) = free_space(out).filter(|free| *free < each.saturating_mul(to_come)) {
        let [free, each] = [free, each].map(|bytes| scaled(bytes as f64));
        let out = out.display();
        log::warn!(
            "{out} has {free}B free, and up to {to_come} checkpoints of {each}B are to come: make room, or keep fewer, by \
             --set training.keep_checkpoints=1"
        );
    }
    Ok(())
}
