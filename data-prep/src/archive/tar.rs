//! Tar archives read in place: the members' positions are listed once, their bytes are then read from anywhere, by any
//! thread, without unpacking. An archive within an archive is a section of the same file.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use biodist_process::quote::excerpt;

use crate::stray::is_stray_path;

const BLOCK: u64 = 512;
/// Bytes that the headers of one member may take: a long name is read whole.
const MAX_HEADERS: u64 = 1 << 20;

/// A stretch of a file, itself a whole archive.
#[derive(Clone, Debug)]
pub struct Section {
    file: Arc<File>,
    path: PathBuf,
    offset: u64,
    length: u64,
}

/// A regular file in an archive.
#[derive(Clone, Debug)]
pub struct Member {
    /// Last part of its path.
    pub name: String,
    /// From the beginning of the outermost file.
    pub offset: u64,
    pub length: u64,
}

impl Section {
    /// A file as a whole.
    pub fn open(path: &Path) -> Result<Section> {
        let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
        let metadata = file.metadata().with_context(|| format!("{} cannot be examined", path.display()))?;
        Ok(Section { file: Arc::new(file), path: path.to_owned(), offset: 0, length: metadata.len() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The section that a member takes.
    pub fn member(&self, member: &Member) -> Section {
        Section { offset: member.offset, length: member.length, ..self.clone() }
    }

    /// All bytes of a member of this file.
    pub fn read(&self, member: &Member) -> Result<Vec<u8>> {
        // The lengths were compared with the file's when the archive was listed.
        let mut bytes = vec![0; member.length as usize];
        let read = self.file.read_exact_at(&mut bytes, member.offset);
        read.with_context(|| format!("{} in {} cannot be read", excerpt(&member.name), self.path.display()))?;
        Ok(bytes)
    }

    /// Asks the system to bring a member into memory, without waiting.
    pub fn prefetch(&self, member: &Member) {
        let (offset, length) = (member.offset as libc::off_t, member.length as libc::off_t);
        // SAFETY: the descriptor is open; the call is advice and touches no memory of ours.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), offset, length, libc::POSIX_FADV_WILLNEED) };
    }

    /// Lists the archive's regular files in their order, without what systems leave among them.
    ///
    /// # Errors
    /// Where it is no tar archive, or is cut off: its last member is not whole or the end mark is missing.
    pub fn list(&self, what: &str) -> Result<Vec<Member>> {
        let fail = || format!("{what} cannot be read as a tar archive");
        ensure!(self.length > 0, "{what} is empty; get it again");
        let headers = Cell::new(0);
        let mut archive = tar::Archive::new(Cursor { section: self, position: 0, headers: &headers });
        let mut members = Vec::new();
        let mut end = 0;
        for entry in archive.entries_with_seek().with_context(fail)? {
            let entry = entry.with_context(|| if members.is_empty() { fail() } else { format!("{what} is damaged or cut off") })?;
            headers.set(0);
            let (start, length) = (entry.raw_file_position(), entry.size());
            let stop = start.checked_add(length).filter(|&stop| stop <= self.length);
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let Some(stop) = stop else { bail!("{what} is cut off in its member {}; get it again", excerpt(&path)) };
            end = stop.next_multiple_of(BLOCK);
            if entry.header().entry_type().is_file() && !is_stray_path(&entry.path_bytes()) {
                let name = path.rsplit('/').next().unwrap_or_default().to_owned();
                members.push(Member { name, offset: self.offset + start, length });
            }
        }
        // Without this an archive cut between two members would pass for a shorter one.
        let mut mark = [1; BLOCK as usize];
        let marked = end + BLOCK <= self.length && self.file.read_exact_at(&mut mark, self.offset + end).is_ok();
        ensure!(marked && mark.iter().all(|&byte| byte == 0), "{what} is cut off: its end mark is missing; get it again");
        Ok(members)
    }
}

/// Reads a section from its beginning; the file's own position is left alone. What members contain is passed over, not read.
struct Cursor<'a> {
    section: &'a Section,
    position: u64,
    /// Bytes read since the last member.
    headers: &'a Cell<u64>,
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.section.length.saturating_sub(self.position);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.section.file.read_at(&mut buffer[..wanted], self.section.offset + self.position)?;
        self.position += count as u64;
        self.headers.set(self.headers.get() + count as u64);
        if self.headers.get() > MAX_HEADERS {
            return Err(io::Error::other(format!("the headers of a member take more than {MAX_HEADERS} bytes")));
        }
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.section.length.checked_add_signed(by),
        };
        self.position = position.ok_or_else(|| io::Error::other("seek before the beginning"))?;
        Ok(self.position)
    }
}
