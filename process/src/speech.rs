//! Speaking without waiting for whoever reads.
//!
//! A terminal may stand still (Ctrl-S), a pager or a pipe's reader may not read. For a program whose output is all there is, waiting is right,
//! and how it begins here. One that trains, or looks after what trains, must not wait: it has to heed signals, write checkpoints and end.
//! After [`never_wait`] lines go to a thread for each stream, through a bounded queue. What finds no place there is counted, and the count
//! is said where the lines would have been; nothing is lost as long as somebody reads.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Error, ErrorKind, IsTerminal, Result, Write};
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Out,
    Err,
}

impl Stream {
    fn descriptor(self) -> RawFd {
        match self {
            Stream::Out => libc::STDOUT_FILENO,
            Stream::Err => libc::STDERR_FILENO,
        }
    }
}

/// Bytes that wait for a reader at most, beside what a pipe itself holds.
const ROOM: usize = 1 << 20;
/// How long a program that ends waits while nobody reads.
const PATIENCE: Duration = Duration::from_secs(5);

static NEVER_WAITS: AtomicBool = AtomicBool::new(false);
static SPEAKERS: LazyLock<[Speaker; 2]> = LazyLock::new(|| [Speaker::new(ROOM), Speaker::new(ROOM)]);
/// A bar on stderr and lines on stdout are of one terminal, and keep one order.
static ONE_TERMINAL: LazyLock<bool> = LazyLock::new(|| std::io::stdout().is_terminal() && std::io::stderr().is_terminal());

/// What first kept a program that waits for its readers from writing to stdout.
static UNWRITTEN: Mutex<Option<Error>> = Mutex::new(None);

/// From now on this program does not wait for its readers.
pub fn never_wait() {
    NEVER_WAITS.store(true, Ordering::Relaxed);
}

/// Writes `text`, whole lines, soon or at once. A stream that is closed is no reason to end.
pub fn speak(stream: Stream, text: impl Into<Vec<u8>>) {
    let text = text.into();
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    say(stream, text, lines);
}

/// [`speak`] for what is passing, such as a bar on a terminal: not missed where it finds no place.
pub fn show(stream: Stream, text: impl Into<Vec<u8>>) {
    say(stream, text.into(), 0);
}

fn say(stream: Stream, text: Vec<u8>, lines: usize) {
    let said = Said { to: stream.descriptor(), text, lines };
    if !NEVER_WAITS.load(Ordering::Relaxed) {
        let written = write(said.to, &said.text, || {});
        if let Some(error) = written.err().filter(|error| stream == Stream::Out && error.kind() != ErrorKind::BrokenPipe) {
            UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
        return;
    }
    let speaker: &'static Speaker = &SPEAKERS[usize::from(stream == Stream::Err && !*ONE_TERMINAL)];
    speaker.put(said);
}

/// Whether stdout has taken all that a program that waits had for it. A reader that has left, such as `head`, is no error.
pub fn taken() -> Result<()> {
    UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner).take().map_or(Ok(()), Err)
}

/// Waits until all has been written, or nobody has read anything for [`PATIENCE`].
pub fn finish() {
    if NEVER_WAITS.load(Ordering::Relaxed) {
        SPEAKERS.iter().for_each(|speaker| speaker.finish(PATIENCE));
    }
}

/// A stream as a writer, each of whose writes is whole lines, as loggers have them.
pub struct Lines(pub Stream);

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> Result<usize> {
        speak(self.0, text);
        Ok(text.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

struct Said {
    to: RawFd,
    text: Vec<u8>,
    lines: usize,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Said>,
    bytes: usize,
    /// Lines that found no place after what is waiting, and the stream of the last of them.
    lost: usize,
    lost_of: RawFd,
    writes: bool,
    /// Pieces that a reader has taken.
    taken: u64,
    has_thread: bool,
}

struct Speaker {
    room: usize,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl Speaker {
    fn new(room: usize) -> Speaker {
        Speaker { room, queue: Mutex::default(), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&'static self, said: Said) {
        let mut queue = self.lock();
        if !queue.has_thread {
            let thread = std::thread::Builder::new().name("speech".to_owned());
            queue.has_thread = thread.spawn(move || self.run()).is_ok();
            if !queue.has_thread {
                drop(queue);
                return drop(write(said.to, &said.text, || {}));
            }
        }
        // Something longer than all the room has a place where nothing else waits.
        if queue.lost > 0 || queue.bytes > 0 && queue.bytes + said.text.len() > self.room {
            queue.lost += said.lines;
            queue.lost_of = said.to;
        } else {
            queue.bytes += said.text.len();
            queue.waiting.push_back(said);
        }
        self.changed.notify_all();
    }

    fn run(&self) {
        let mut queue = self.lock();
        loop {
            let said = match queue.waiting.pop_front() {
                Some(said) => said,
                None if queue.lost > 0 => queue.count_of_lost(),
                None => {
                    queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            queue.writes = true;
            drop(queue);
            // One that is gone takes nothing any more.
            let _ = write(said.to, &said.text, || self.lock().taken += 1);
            queue = self.lock();
            queue.bytes = queue.bytes.saturating_sub(said.text.len());
            queue.taken += 1;
            queue.writes = false;
            self.changed.notify_all();
        }
    }

    fn finish(&self, patience: Duration) {
        let mut queue = self.lock();
        let (mut taken, mut since) = (queue.taken, Instant::now());
        while queue.writes || !queue.waiting.is_empty() || queue.lost > 0 {
            if queue.taken != taken {
                (taken, since) = (queue.taken, Instant::now());
            }
            let Some(left) = patience.checked_sub(since.elapsed()) else { return };
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    /// What is said in the place of lines that found none.
    fn count_of_lost(&mut self) -> Said {
        let lines = std::mem::take(&mut self.lost);
        let what = if lines == 1 { "1 line is" } else { &format!("{lines} lines are") };
        let text = format!("({what} missing here: nobody was reading)\n").into_bytes();
        self.bytes += text.len();
        Said { to: self.lost_of, text, lines: 0 }
    }
}

/// Writes all of `text`, however long its reader takes; `taken` is called for each piece.
fn write(to: RawFd, mut text: &[u8], taken: impl Fn()) -> Result<()> {
    // SAFETY: the descriptor is one of the process's own streams, which this does not close.
    let mut file = ManuallyDrop::new(unsafe { File::from_raw_fd(to) });
    while !text.is_empty() {
        match file.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                text = &text[count..];
                taken();
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A pipe that whoever made it has set not to wait.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut ready = libc::pollfd { fd: to, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one entry is passed, and lives here.
                unsafe { libc::poll(&mut ready, 1, -1) };
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::*;

    fn pipe(flags: i32) -> (File, OwnedFd) {
        let mut ends = [0; 2];
        // SAFETY: there is room for both ends, which are owned from here on.
        unsafe {
            assert_eq!(libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC), 0);
            libc::fcntl(ends[1], libc::F_SETFL, flags);
            (File::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
        }
    }

    fn speaker(room: usize) -> &'static Speaker {
        Box::leak(Box::new(Speaker::new(room)))
    }

    fn line(to: &OwnedFd, text: String) -> Said {
        Said { to: to.as_raw_fd(), text: text.into_bytes(), lines: 1 }
    }

    /// So much that pipe and queue are full: the number of lines that were said.
    fn fill(speaker: &'static Speaker, to: &OwnedFd) -> usize {
        let takes_more = || {
            let mut ready = libc::pollfd { fd: to.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
            // SAFETY: one entry is passed, and lives here.
            unsafe { libc::poll(&mut ready, 1, 0) == 1 }
        };
        let more = |number: &usize| {
            speaker.put(line(to, format!("{number:01000}\n")));
            speaker.lock().lost < 10 || takes_more()
        };
        (0..).take_while(more).count() + 1
    }

    #[test]
    fn lines_keep_their_order_and_what_is_read_is_whole() {
        for flags in [0, libc::O_NONBLOCK] {
            let (mut reader, writer) = pipe(flags);
            let speaker = speaker(usize::MAX);
            // Far more than a pipe holds.
            (0..20_000).for_each(|number| speaker.put(line(&writer, format!("line {number}\n"))));
            let reading = std::thread::spawn(move || {
                let mut text = String::new();
                reader.read_to_string(&mut text).unwrap();
                text
            });
            speaker.finish(Duration::from_secs(60));
            drop(writer);
            let text = reading.join().unwrap();
            assert_eq!(text, (0..20_000).map(|number| format!("line {number}\n")).collect::<String>());
        }
    }

    #[test]
    fn nobody_waits_for_a_reader_that_does_not_read_and_what_it_missed_is_counted() {
        let (mut reader, writer) = pipe(0);
        let speaker = speaker(10_000);
        let said = fill(speaker, &writer);
        let since = Instant::now();
        speaker.finish(Duration::from_millis(50));
        assert!(since.elapsed() >= Duration::from_millis(50));
        // It reads on: each line, or in its place one that counts those that are missing there.
        let mut text = String::new();
        let mut next = 0;
        let mut buffer = [0; 4096];
        while next < said {
            let count = reader.read(&mut buffer).unwrap();
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
            while let Some((whole, rest)) = text.split_once('\n') {
                match whole.strip_prefix('(').and_then(|counted| counted.split_once(' ')) {
                    Some((missing, _)) => next += missing.parse::<usize>().unwrap(),
                    None => {
                        assert_eq!(whole, format!("{next:01000}"));
                        next += 1;
                    }
                }
                text = rest.to_owned();
            }
        }
        assert_eq!((next, text.as_str()), (said, ""));
        speaker.finish(Duration::from_secs(60));
        speaker.put(line(&writer, "later\n".to_owned()));
        speaker.finish(Duration::from_secs(60));
        drop(writer);
        let mut later = String::new();
        reader.read_to_string(&mut later).unwrap();
        assert_eq!(later, "later\n");
    }

    #[test]
    fn a_reader_that_is_gone_is_not_waited_for() {
        let (reader, writer) = pipe(0);
        drop(reader);
        let speaker = speaker(1000);
        // SIGPIPE is ignored, as in every Rust program.
        (0..100).for_each(|number| speaker.put(line(&writer, format!("{number}\n"))));
        speaker.finish(Duration::from_secs(60));
        assert_eq!(speaker.lock().waiting.len(), 0);
    }
}
