//! How much room a preparation needs, said before it begins.

use std::io::Write;
use std::path::Path;

use anyhow::{Result, ensure};
use biodist_process::files::free_space;
use biodist_process::quote::lines;
use indicatif::HumanBytes;

/// Room for headers, tables and manifests, as a part of the samples' bytes.
const OVERHEAD: f64 = 0.01;

/// Says that `bytes` of samples will be written below `folder`.
///
/// # Errors
/// Where the file system has less room than that. One that does not tell its free room is trusted.
pub fn require(folder: &Path, what: &str, bytes: u64, advice: &str) -> Result<()> {
    let need = (bytes as f64 * (1.0 + OVERHEAD)) as u64;
    let Some(free) = free_space(folder) else { return Ok(()) };
    let said = format!("{what}: {} of disk needed in {}, {} free", HumanBytes(need), folder.display(), HumanBytes(free));
    let _ = writeln!(std::io::stderr(), "{}", lines(&said));
    ensure!(
        need <= free,
        "{} has {} free, but {} are needed; free some space or {advice}",
        folder.display(),
        HumanBytes(free),
        HumanBytes(need)
    );
    Ok(())
}
