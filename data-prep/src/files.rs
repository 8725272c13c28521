//! Files that are whole or not there: written under a temporary name, synced, renamed.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Ending of a file that is still being written.
pub const PARTIAL: &str = "partial";

/// A file that takes its name only when it is complete and on disk. Dropped before that, it removes itself.
pub struct AtomicFile {
    path: PathBuf,
    partial: PathBuf,
    file: Option<BufWriter<File>>,
}

impl AtomicFile {
    pub fn create(path: &Path) -> Result<AtomicFile> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        name.push(PARTIAL);
        let partial = path.with_file_name(name);
        let file = File::create(&partial).with_context(|| format!("{} cannot be created", partial.display()))?;
        Ok(AtomicFile { path: path.to_owned(), partial, file: Some(BufWriter::with_capacity(1 << 20, file)) })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let result = self.writer().write_all(bytes);
        result.map_err(|error| self.failed(error))
    }

    /// Replaces the first bytes.
    pub fn rewrite_start(&mut self, bytes: &[u8]) -> Result<()> {
        let writer = self.writer();
        let result = writer.seek(SeekFrom::Start(0)).and_then(|_| writer.write_all(bytes));
        result.map_err(|error| self.failed(error))
    }

    /// Brings the content to disk and gives the file its name.
    pub fn commit(mut self) -> Result<()> {
        let writer = self.writer();
        let synced = writer.flush().and_then(|()| writer.get_ref().sync_all());
        synced.map_err(|error| self.failed(error))?;
        self.file = None;
        std::fs::rename(&self.partial, &self.path).with_context(|| format!("{} cannot be put in place", self.path.display()))?;
        sync_folder(&self.path)
    }

    fn writer(&mut self) -> &mut BufWriter<File> {
        self.file.as_mut().expect("the file is open until commit")
    }

    fn failed(&self, error: io::Error) -> anyhow::Error {
        let advice = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; free some space and run the same command again, it goes on",
            _ => "",
        };
        anyhow::anyhow!("{} cannot be written: {error}{advice}", self.path.display())
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(writer) = self.file.take() {
            // Discard the buffer: flushing it could only fail again.
            drop(writer.into_parts());
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

/// Writes a whole small file. A device, or what a link leads to, is written itself: another file would take its place.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.is_symlink() || std::fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        return std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()));
    }
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// Makes a rename or removal in `path`'s folder last through a loss of power.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("{} cannot be synced", folder.display()))
}
