//! How much room a preparation needs, said before it begins.

use std::ffi::CString;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Result, ensure};
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
    let Some(free) = free(folder) else { return Ok(()) };
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

fn free(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` is plain numbers, for which zeros are valid, and the path ends in a zero byte.
    let (status, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut found), found)
    };
    (status == 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}
