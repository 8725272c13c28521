//! Memory that processes of a host share.
//!
//! A file without a name, which the kernel frees with its last map: unlike MPI's windows it needs no room in /dev/shm, of which containers
//! have 64 MB, outlives MPI, and is left behind by no crash.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result};
use memmap2::{Advice, MmapRaw};

/// Zeroed memory that this process has made.
pub struct Offer {
    file: File,
    memory: MmapRaw,
}

impl Offer {
    pub fn new(bytes: usize) -> Result<Offer> {
        // SAFETY: the name is a C string, and the descriptor is a new one of ours.
        let descriptor = unsafe { libc::memfd_create(c"biodist".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("memory to share cannot be made");
        }
        let file = unsafe { File::from_raw_fd(descriptor) };
        file.set_len(bytes as u64).context("memory to share cannot be made")?;
        let memory = map(&file).context("memory to share cannot be mapped")?;
        Ok(Offer { file, memory })
    }

    /// What another process needs to [`accept`] it, as long as this offer stands.
    pub fn words(&self) -> [u64; 2] {
        [u64::from(std::process::id()), self.file.as_raw_fd() as u64]
    }

    /// The memory, when everyone has accepted.
    pub fn keep(self) -> MmapRaw {
        self.memory
    }
}

/// The memory that another process offers.
pub fn accept([process, descriptor]: [u64; 2]) -> Result<MmapRaw> {
    let path = format!("/proc/{process}/fd/{descriptor}");
    let file = OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("{path} cannot be opened"))?;
    map(&file).with_context(|| format!("{path} cannot be mapped"))
}

fn map(file: &File) -> std::io::Result<MmapRaw> {
    let memory = MmapRaw::map_raw(file)?;
    // Where the system gives such files large pages on request; a refusal costs speed alone.
    let _ = memory.advise(Advice::HugePage);
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_memory() {
        let offer = Offer::new(100).unwrap();
        let theirs = accept(offer.words()).unwrap();
        let ours = offer.keep();
        let (theirs, ours) = (theirs.as_mut_ptr(), ours.as_mut_ptr());
        unsafe {
            assert_eq!(*theirs.add(99), 0);
            *ours.add(99) = 7;
            assert_eq!(*theirs.add(99), 7);
        }
        assert!(accept([u64::from(std::process::id()), 1 << 20]).is_err());
    }
}
