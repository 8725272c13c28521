//! Memory that processes of a host share.
//!
//! A file without a name, which the others open through the first one's descriptor: it needs no room in /dev/shm, of which containers have
//! 64 MB, outlives MPI, and is left behind by no crash. Where ranks run in containers of their own the kernel refuses that; then it is a
//! file in /dev/shm, whose name goes as soon as all have opened it.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use memmap2::{Advice, MmapRaw};

/// Smaller memory is not worth a large page.
const LARGE: usize = 4 << 20;

/// Zeroed memory that this process has made.
pub struct Offer {
    file: File,
    memory: MmapRaw,
    /// In /dev/shm, until it is dropped.
    name: Option<Name>,
}

/// What another process needs to [`accept`] an offer: device and inode of the file, then the process and its descriptor, or a number of
/// the name and [`NAMED`].
pub type Words = [u64; 4];

const NAMED: u64 = u64::MAX;

struct Name {
    number: u64,
    path: PathBuf,
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Offer {
    pub fn without_name(bytes: usize) -> Result<Offer> {
        // SAFETY: the name is a C string, and the descriptor is a new one of ours.
        let descriptor = unsafe { libc::memfd_create(c"biodist".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error()).context("memory to share cannot be made");
        }
        // SAFETY: the descriptor is new, open, and owned by nobody else.
        let file = unsafe { File::from_raw_fd(descriptor) };
        file.set_len(bytes as u64).context("memory to share cannot be made")?;
        Offer::of(file, None)
    }

    pub fn in_dev_shm(bytes: usize) -> Result<Offer> {
        let number = RandomState::new().build_hasher().finish();
        let path = path_of(number);
        let what = || format!("{bytes} bytes of shared memory cannot be had in /dev/shm");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).with_context(what)?;
        let name = Name { number, path };
        // Takes its pages at once: a lack of them that shows later is a SIGBUS.
        // SAFETY: the descriptor is open.
        let status = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
        if status != 0 {
            return Err(std::io::Error::from_raw_os_error(status)).with_context(what);
        }
        Offer::of(file, Some(name))
    }

    fn of(file: File, name: Option<Name>) -> Result<Offer> {
        let memory = map(&file).context("memory to share cannot be mapped")?;
        Ok(Offer { file, memory, name })
    }

    /// How others come to it, as long as this offer stands.
    pub fn words(&self) -> Words {
        let (device, inode) = self.file.metadata().map_or((0, 0), |facts| (facts.dev(), facts.ino()));
        match &self.name {
            Some(name) => [device, inode, name.number, NAMED],
            None => [device, inode, u64::from(std::process::id()), self.file.as_raw_fd() as u64],
        }
    }

    /// The memory, when everyone has accepted.
    pub fn keep(self) -> MmapRaw {
        self.memory
    }
}

/// The memory of `bytes` bytes that another process offers.
pub fn accept([device, inode, of, how]: Words, bytes: usize) -> Result<MmapRaw> {
    let path = if how == NAMED { path_of(of) } else { Path::new("/proc").join(of.to_string()).join("fd").join(how.to_string()) };
    let file = OpenOptions::new().read(true).write(true).open(&path).with_context(|| format!("{} cannot be opened", path.display()))?;
    // A process that sees other processes, or another /dev/shm, may have found another file.
    let facts = file.metadata()?;
    let is_it = (facts.dev(), facts.ino(), facts.len()) == (device, inode, bytes as u64);
    ensure!(is_it, "{} is not the memory that another process made", path.display());
    map(&file).with_context(|| format!("{} cannot be mapped", path.display()))
}

fn path_of(number: u64) -> PathBuf {
    PathBuf::from(format!("/dev/shm/biodist-{number:016x}"))
}

fn map(file: &File) -> std::io::Result<MmapRaw> {
    let memory = MmapRaw::map_raw(file)?;
    if memory.len() >= LARGE {
        // Where the system gives such files large pages on request; a refusal costs speed alone.
        let _ = memory.advise(Advice::HugePage);
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_see_one_memory() {
        for offer in [Offer::without_name(100).unwrap(), Offer::in_dev_shm(100).unwrap()] {
            let theirs = accept(offer.words(), 100).unwrap();
            let name = offer.name.as_ref().map(|name| name.path.clone());
            let [device, inode, of, how] = offer.words();
            assert!(accept(offer.words(), 99).is_err() && accept([device, inode + 1, of, how], 100).is_err());
            let ours = offer.keep();
            assert!(name.is_none_or(|name| !name.exists()), "the name goes with the offer");
            let (theirs, ours) = (theirs.as_mut_ptr(), ours.as_mut_ptr());
            // SAFETY: both mappings have 100 bytes, and one thread uses them.
            unsafe {
                assert_eq!(*theirs.add(99), 0);
                *ours.add(99) = 7;
                assert_eq!(*theirs.add(99), 7);
            }
        }
        assert!(accept([0, 0, u64::from(std::process::id()), 1 << 20], 100).is_err());
    }

    #[test]
    fn what_dev_shm_has_no_room_for_is_refused() {
        let error = format!("{:#}", Offer::in_dev_shm(1 << 50).err().unwrap());
        assert!(error.contains("cannot be had in /dev/shm"), "{error}");
    }
}
