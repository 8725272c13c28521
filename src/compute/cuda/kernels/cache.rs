//! Compiled kernels on disk, so that a machine compiles each once; and that they were tested.
//!
//! A file is named by kernel and key, the hash of all that its code depends on, and begins with the key and a checksum. It is written under
//! another name and then renamed: ranks that start at once each find a whole file or none. What cannot be read or written is passed over,
//! since the kernels can always be compiled.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

use biodist_process::files::read_if_there;

use crate::compute::cuda::nvrtc::OPTIONS;

/// A folder of compiled kernels.
pub struct Cache {
    folder: PathBuf,
}

/// A file of the cache, there or not.
pub struct Entry {
    path: PathBuf,
    key: u64,
}

impl Cache {
    /// `biodist/kernels` in the user's folder of caches; nothing where there is no such folder.
    pub fn open() -> Option<Cache> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|folder| folder.is_absolute());
        let caches = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
        Some(Cache::at(&caches?.join("biodist/kernels")))
    }

    pub fn at(folder: &Path) -> Cache {
        Cache { folder: folder.to_owned() }
    }

    /// The entry of a program.
    pub fn entry(&self, name: &str, source: &str, version: (i32, i32), capability: (i32, i32)) -> Entry {
        let key = key_of((source, OPTIONS, version, capability));
        let (major, minor) = capability;
        Entry { path: self.folder.join(format!("{name}-sm_{major}{minor}-{key:016x}.cubin")), key }
    }

    /// An entry without content, which is there where `what` went well on a GPU of the name `gpu`.
    pub fn record(&self, gpu: &str, what: &str) -> Entry {
        let key = key_of((gpu, what));
        Entry { path: self.folder.join(format!("tested-{key:016x}")), key }
    }
}

fn key_of(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

impl Entry {
    /// The code, where it is there and whole.
    pub fn read(&self) -> Option<Vec<u8>> {
        let bytes = match read_if_there(&self.path) {
            Ok(bytes) => bytes?,
            Err(error) => return self.pass_over(&error),
        };
        match bytes.split_at_checked(HEAD) {
            Some((head, image)) if head == self.head(image) => Some(image.to_vec()),
            _ => self.pass_over(&"it is damaged"),
        }
    }

    fn pass_over<T>(&self, reason: &dyn std::fmt::Display) -> Option<T> {
        log::warn!("{} is made again: {reason}", self.path.display());
        None
    }

    /// Keeps the code, where that can be done.
    pub fn write(&self, image: &[u8]) {
        static SAID: Once = Once::new();
        if let Err(error) = self.try_write(image) {
            let path = self.path.display();
            SAID.call_once(|| log::warn!("what was compiled and tested is not kept, and done again at each start: {path}: {error}"));
        }
    }

    fn try_write(&self, image: &[u8]) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Of a name of its own: ranks on hosts that share the folder may have the same process number.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(&self.head(image))?;
        file.write_all(image)?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        Ok(())
    }

    fn head(&self, image: &[u8]) -> [u8; HEAD] {
        let mut head = [0; HEAD];
        head[..8].copy_from_slice(&self.key.to_le_bytes());
        head[8..].copy_from_slice(&crc32fast::hash(image).to_le_bytes());
        head
    }
}

/// Bytes of key and checksum.
const HEAD: usize = 12;
