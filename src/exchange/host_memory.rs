//! Memory that processes of a host share without MPI, whose own windows end with it.
//!
//! A file without a name, which the kernel frees with its last map: it needs no room in /dev/shm and is left behind by no crash.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd};

use anyhow::{Context, Result};
use memmap2::MmapRaw;

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
        let memory = MmapRaw::map_raw(&file).context("memory to share cannot be mapped")?;
        Ok(Offer { file, memory })
    }

    /// What another process needs to [`accept`] it, as long as this offer stands.
    pub fn words(&self) -> [u64; 2] {
        [u64::from(std::process::id()), self.file.as_raw_fd() as u64]
    }

    /// The memory, when everyone has accepted. It is never freed.
    pub fn keep(self) -> *mut u8 {
        kept(self.memory)
    }
}

/// The memory that another process offers. It is never freed.
pub fn accept([process, descriptor]: [u64; 2]) -> Result<*mut u8> {
    let path = format!("/proc/{process}/fd/{descriptor}");
    let file = OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("{path} cannot be opened"))?;
    Ok(kept(MmapRaw::map_raw(&file).with_context(|| format!("{path} cannot be mapped"))?))
}

fn kept(memory: MmapRaw) -> *mut u8 {
    let at = memory.as_mut_ptr();
    std::mem::forget(memory);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_memory() {
        let offer = Offer::new(100).unwrap();
        let theirs = accept(offer.words()).unwrap();
        let ours = offer.keep();
        unsafe {
            assert_eq!(*theirs.add(99), 0);
            *ours.add(99) = 7;
            assert_eq!(*theirs.add(99), 7);
        }
        assert!(accept([u64::from(std::process::id()), 1 << 20]).is_err());
    }
}
