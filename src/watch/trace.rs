//! A trace of a run in Chrome's format, for Perfetto (ui.perfetto.dev) or chrome://tracing.
//!
//! Each rank keeps its latest spans. When training ends they go to rank 0, one rank at a time, which writes them as they come. Times are the
//! hosts' clocks, which NTP keeps within a millisecond or so of each other.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use crate::exchange::{self, Transport};
use crate::exit::Exit;
use crate::observe::Row;
use crate::observe::trace::{self, Event};

const BEGINNING: &str = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";

/// A trace that is being recorded.
pub struct Trace {
    path: PathBuf,
    /// What a link leads to, or a device, is written itself; another file would take its place.
    in_place: bool,
    /// A named pipe, open for its reader from the beginning: without one, opening it at the end would wait for ever.
    pipe: Option<File>,
}

/// Whether the file may be a trace of before, which a new one replaces.
fn begins_as_a_trace(path: &Path) -> bool {
    let mut beginning = vec![0; BEGINNING.len()];
    File::open(path).and_then(|mut file| file.read_exact(&mut beginning)).is_ok() && beginning == BEGINNING.as_bytes()
}

impl Trace {
    /// Records from now on, for a file at `path`; fails at once on rank 0 where there can be none.
    pub fn begin(path: &Path, rank: usize) -> Result<Trace> {
        let there = std::fs::metadata(path).ok();
        if there.as_ref().is_some_and(std::fs::Metadata::is_dir) {
            return Err(Exit::Usage.error(format!("--trace {} is a folder; name a file in it", path.display())));
        }
        if there.as_ref().is_some_and(|there| there.is_file() && there.len() > 0) && !begins_as_a_trace(path) {
            return Err(Exit::Usage.error(format!("--trace {} is a file that holds no trace; name another", path.display())));
        }
        let is_pipe = there.as_ref().is_some_and(|there| there.file_type().is_fifo());
        let in_place = there.is_some_and(|there| !there.is_file()) || path.is_symlink();
        let mut begun = Trace { path: path.to_owned(), in_place, pipe: None };
        if rank == 0 && is_pipe {
            begun.pipe = Some(open_pipe(path)?);
        }
        if rank == 0 && !in_place {
            begun.create()?;
            std::fs::remove_file(begun.unfinished()).with_context(|| begun.unwritable())?;
        }
        trace::start();
        Ok(begun)
    }

    fn unfinished(&self) -> PathBuf {
        if self.in_place {
            return self.path.clone();
        }
        let mut name = self.path.as_os_str().to_owned();
        name.push(".partial");
        name.into()
    }

    fn unwritable(&self) -> String {
        format!("--trace {} cannot be written", self.path.display())
    }

    fn create(&self) -> Result<File> {
        if let Some(pipe) = &self.pipe {
            return pipe.try_clone().with_context(|| self.unwritable());
        }
        File::create(self.unfinished()).with_context(|| self.unwritable())
    }

    /// Writes what all ranks have recorded. Collective.
    pub fn write(&self, transport: &dyn Transport) -> Result<()> {
        let (own, dropped, clock) = trace::recorded();
        let all = transport.all_gather_words(&[own.len() as u64, dropped, clock]);
        let hosts = exchange::host_names(transport);
        let mut file = if transport.rank() == 0 { Some(Writer::begin(BufWriter::new(self.create()?))) } else { None };
        let beginning = all.chunks_exact(3).map(|rank| rank[2]).min().unwrap_or(0);
        for (rank, (words, host)) in all.chunks_exact(3).zip(&hosts).enumerate() {
            let events = fetch(rank, words[0] as usize, &own, transport);
            if let Some(file) = &mut file {
                let ranks = Process { rank, host, dropped: words[1], offset: words[2] - beginning };
                file.process(&ranks, &events).with_context(|| self.unwritable())?;
            }
        }
        if let Some(file) = file {
            file.end().and_then(|()| std::fs::rename(self.unfinished(), &self.path)).with_context(|| self.unwritable())?;
        }
        Ok(())
    }
}

/// A named pipe for writing, where somebody reads it.
fn open_pipe(path: &Path) -> Result<File> {
    let unread = || format!("--trace {} is a pipe that nobody reads; start its reader first, or name a file", path.display());
    let pipe = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(|_| Exit::Usage.error(unread()))?;
    // From now on a reader that takes its time is waited for.
    // SAFETY: the descriptor is open, and its flags are plain ones.
    unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&pipe), libc::F_SETFL, 0) };
    Ok(pipe)
}

/// The `words` words that `rank` has recorded, on rank 0. Collective.
fn fetch(rank: usize, words: usize, own: &[u64], transport: &dyn Transport) -> Vec<Event> {
    let mut message = if transport.rank() == rank { own.to_vec() } else { vec![0; if transport.rank() == 0 { words } else { 0 }] };
    if rank > 0 {
        // The transport moves float32s, and does not look at them.
        let range = |of: usize| if of == rank { 0..2 * words } else { 0..0 };
        let ranges: Vec<_> = (0..transport.size()).map(range).collect();
        // SAFETY: on rank 0 the message has room for all words of `rank`, on `rank` it is them, and the other ranges
        // are empty.
        unsafe { transport.gather_ranges(message.as_mut_ptr().cast(), &ranges) };
    }
    if transport.rank() == 0 { message.chunks_exact(Event::WORDS).map(Event::of_words).collect() } else { Vec::new() }
}

/// What a trace says of one rank, beside its events.
struct Process<'a> {
    rank: usize,
    host: &'a str,
    dropped: u64,
    /// Nanoseconds from the trace's beginning to this rank's.
    offset: u64,
}

/// The file, a line for each event.
struct Writer<W> {
    out: W,
    separator: &'static str,
}

impl<W: Write> Writer<W> {
    fn begin(out: W) -> Writer<W> {
        Writer { out, separator: BEGINNING }
    }

    fn put(&mut self, event: &serde_json::Value) -> std::io::Result<()> {
        write!(self.out, "{}{event}", self.separator)?;
        self.separator = ",\n";
        Ok(())
    }

    fn process(&mut self, process: &Process, events: &[Event]) -> std::io::Result<()> {
        let Process { rank, host, dropped, offset } = process;
        let lost = if *dropped > 0 { format!(", without the first {dropped} spans") } else { String::new() };
        let name = format!("rank {rank} on {host}{lost}");
        self.put(&json!({ "ph": "M", "name": "process_name", "pid": rank, "args": { "name": name } }))?;
        self.put(&json!({ "ph": "M", "name": "process_sort_index", "pid": rank, "args": { "sort_index": rank } }))?;
        for (row, name) in Row::ALL {
            self.put(&json!({ "ph": "M", "name": "thread_name", "pid": rank, "tid": row as u8, "args": { "name": name } }))?;
            self.put(
                &json!({ "ph": "M", "name": "thread_sort_index", "pid": rank, "tid": row as u8, "args": { "sort_index": row as u8 } }),
            )?;
        }
        for event in events {
            let (name, row) = (event.doing.name(), event.doing.row());
            let microseconds = |nanoseconds: u64| nanoseconds as f64 / 1e3;
            let mut value = json!({
                "ph": "X", "name": name, "pid": rank, "tid": row as u8,
                "ts": microseconds(offset + event.started), "dur": microseconds(event.nanoseconds),
                "args": { "step": event.step },
            });
            if let Some(layer) = event.layer {
                value["name"] = json!(format!("{name} {layer}"));
                value["args"]["layer"] = json!(layer);
            }
            self.put(&value)?;
        }
        Ok(())
    }

    fn end(mut self) -> std::io::Result<()> {
        self.out.write_all(b"\n]}\n")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Doing;

    #[test]
    fn a_pipe_is_opened_where_it_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the name is a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(open_pipe(&path).unwrap_err().to_string().contains("start its reader first, or name a file"));
        let reader = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read_to_string(path).unwrap()
        });
        let mut pipe = loop {
            match open_pipe(&path) {
                Ok(pipe) => break pipe,
                Err(_) => std::thread::yield_now(),
            }
        };
        pipe.write_all(b"trace").unwrap();
        drop(pipe);
        assert_eq!(reader.join().unwrap(), "trace");
    }

    #[test]
    fn events_become_json() {
        let event = Event { started: 5_000, nanoseconds: 1_500, step: 1 << 33, doing: Doing::Forward, layer: Some(3) };
        let without = Event { layer: None, doing: Doing::Step, ..event };
        let mut text = Vec::new();
        let mut writer = Writer::begin(&mut text);
        writer.process(&Process { rank: 2, host: "n1", dropped: 4, offset: 1_000 }, &[event, without]).unwrap();
        writer.end().unwrap();
        let value: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let events = value["traceEvents"].as_array().unwrap();
        assert_eq!(events[0]["args"]["name"], "rank 2 on n1, without the first 4 spans");
        let forward = &events[events.len() - 2];
        let expected = json!({
            "ph": "X", "name": "forward 3", "pid": 2, "tid": Row::Compute as u8, "ts": 6.0, "dur": 1.5,
            "args": { "step": 1u64 << 33, "layer": 3 },
        });
        assert_eq!(forward, &expected);
    }
}
