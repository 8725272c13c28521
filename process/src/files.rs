//! Files that are whole or not there: written under a temporary name, synced, renamed. And files that are files: opening a
//! named pipe waits for its other end, for ever where there is none.

use std::ffi::CString;
use std::fs::{File, FileType, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Opens a regular file for reading. Waits for nothing.
///
/// # Errors
/// Of kind `InvalidInput` where anything else has this name.
pub fn open_regular(path: &Path) -> io::Result<File> {
    open_at_once(path, OpenOptions::new().read(true))
}

/// All bytes of a regular file.
///
/// # Errors
/// As [`open_regular`], and where they cannot be read.
pub fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = open_regular(path)?;
    let mut bytes = Vec::with_capacity(usize::try_from(file.metadata()?.len()).unwrap_or(0).min(64 << 20));
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same; nothing where no file has this name.
///
/// # Errors
/// All others of [`read_regular`].
pub fn read_if_there(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match read_regular(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => bytes.map(Some),
    }
}

/// A regular file, or an error at once. Looked at after opening: between a look and an opening another file may take the name.
pub fn open_at_once(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let found = match options.custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => {
            let kind = file.metadata()?.file_type();
            if kind.is_file() {
                return Ok(file);
            }
            kind
        }
        Err(error) if error.raw_os_error() == Some(libc::EMFILE) => return Err(too_many(&error)),
        // Sockets, and pipes without a reader, cannot even be opened, and folders not for writing.
        Err(error) => match path.metadata() {
            Ok(metadata) if !metadata.is_file() => metadata.file_type(),
            _ => return Err(error),
        },
    };
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("this is {}, not a file", name(found))))
}

/// Bytes that may still be written below `folder`; nothing where its file system does not tell.
pub fn free_space(folder: &Path) -> Option<u64> {
    let path = CString::new(folder.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` is plain numbers, for which zeros are valid, and the path ends in a zero byte.
    let (status, found) = unsafe {
        let mut found: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(path.as_ptr(), &mut found), found)
    };
    (status == 0).then(|| found.f_bavail.saturating_mul(found.f_frsize))
}

/// Locks a file or folder for as long as it is open; false where another process has it. A file system without locks has none to respect.
pub fn lock(file: &File) -> bool {
    !matches!(file.try_lock(), Err(TryLockError::WouldBlock))
}

/// Says how many files a process may have open, and where that is decided.
fn too_many(error: &io::Error) -> io::Error {
    // SAFETY: `rlimit` is plain numbers, for which zeros are valid, and the call fills it.
    let limit = unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit
    };
    let (now, most) = (limit.rlim_cur, limit.rlim_max);
    let raise =
        if now < most { format!("raise that with `ulimit -n`, up to {most}") } else { "let the administrator raise that".to_owned() };
    io::Error::other(format!("{error}; this process may have {now} files open: {raise}"))
}

fn name(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_dir() => "a folder",
        _ => "a device",
    }
}

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
        let file = open_at_once(&partial, OpenOptions::new().write(true).create(true).truncate(true));
        let file = file.with_context(|| format!("{} cannot be created", partial.display()))?;
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
        anyhow::Error::new(error).context(format!("{} cannot be written", self.path.display()))
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
        return write_through(path, bytes).with_context(|| format!("{} cannot be written", path.display()));
    }
    let mut file = AtomicFile::create(path)?;
    file.write(bytes)?;
    file.commit()
}

/// Writes what a name leads to. A pipe is written at its reader's pace, and not at all where it has none.
fn write_through(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ENXIO) => io::Error::other("nobody reads from the other end of it"),
        _ => error,
    })?;
    // SAFETY: the descriptor is open; the call changes a flag of it.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    file.write_all(bytes)
}

/// Makes a rename or removal in `path`'s folder last through a loss of power.
pub fn sync_folder(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| format!("{} cannot be synced", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let pipe = std::ffi::CString::new(path("pipe").to_str().unwrap()).unwrap();
        // SAFETY: the path ends in a zero byte.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("pipe"), path("link")).unwrap();
        let others =
            [("pipe", "a named pipe"), ("link", "a named pipe"), ("socket", "a socket"), (".", "a folder"), ("/dev/null", "a device")];
        for (name, what) in others {
            let error = open_regular(&path(name)).unwrap_err();
            assert_eq!((error.kind(), error.to_string()), (io::ErrorKind::InvalidInput, format!("this is {what}, not a file")));
        }
        std::fs::write(path("file"), b"bytes").unwrap();
        assert_eq!(read_regular(&path("file")).unwrap(), b"bytes");
        assert_eq!(read_regular(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!([read_if_there(&path("file")).unwrap(), read_if_there(&path("none")).unwrap()], [Some(b"bytes".to_vec()), None]);
        assert_eq!(read_if_there(&path("pipe")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
