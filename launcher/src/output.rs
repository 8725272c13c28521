//! What the ranks and mpirun write: taken apart by rank, shown, and kept in a file for each.
//!
//! mpirun tags what it passes on, `[JOB,RANK]<stdout>:`. A tag starts a line, or stands in the middle of one where a rank wrote without
//! ending its line; what comes before it belongs to the rank before.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use biodist_process::last_word::LastWord;
use biodist_process::threads;

/// Who wrote a line: a rank, or mpirun itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    Rank(usize),
    Mpirun,
}

/// Takes tagged text apart into whole lines, each with its author.
#[derive(Default)]
struct Demultiplexer {
    /// Text after the last newline.
    rest: Vec<u8>,
    /// Whose text is in `rest`, where a tag has said so.
    author: Option<usize>,
    /// Begun lines of ranks that another one interrupted.
    begun: BTreeMap<usize, Vec<u8>>,
}

impl Demultiplexer {
    fn push(&mut self, bytes: &[u8], mut line: impl FnMut(Author, &[u8])) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let whole = std::mem::take(&mut self.rest);
                self.line(&whole[..whole.len() - 1], &mut line);
            }
        }
    }

    /// One line of the stream, which may hold pieces of several ranks; its end is the end of the last one's line.
    fn line(&mut self, mut text: &[u8], line: &mut impl FnMut(Author, &[u8])) {
        while let Some(tag) = find_tag(text) {
            let before = &text[..tag.start];
            match self.author.replace(tag.rank) {
                Some(rank) => self.begun.entry(rank).or_default().extend_from_slice(before),
                None if before.is_empty() => {}
                None => line(Author::Mpirun, before),
            }
            text = &text[tag.end..];
        }
        match self.author.take() {
            Some(rank) => {
                let mut whole = self.begun.remove(&rank).unwrap_or_default();
                whole.extend_from_slice(text);
                line(Author::Rank(rank), &whole);
            }
            None => line(Author::Mpirun, text),
        }
    }

    fn finish(&mut self, mut line: impl FnMut(Author, &[u8])) {
        if !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.line(&rest, &mut line);
        }
        for (rank, text) in std::mem::take(&mut self.begun) {
            line(Author::Rank(rank), &text);
        }
    }
}

struct Tag {
    rank: usize,
    start: usize,
    end: usize,
}

fn find_tag(text: &[u8]) -> Option<Tag> {
    (0..text.len()).filter(|&start| text[start] == b'[').find_map(|start| {
        let (length, rank) = tag_at(&text[start..])?;
        Some(Tag { rank, start, end: start + length })
    })
}

/// The length of the tag that `text` starts with, and its rank.
fn tag_at(text: &[u8]) -> Option<(usize, usize)> {
    const LONGEST: usize = 48;
    let window = &text[..text.len().min(LONGEST)];
    let end = window.iter().position(|&byte| byte == b':')?;
    let tag = std::str::from_utf8(&window[..end]).ok()?.strip_prefix('[')?;
    let (numbers, stream) = tag.split_once("]<")?;
    let (job, rank) = numbers.split_once(',')?;
    let known = matches!(stream, "stdout>" | "stderr>") && job.parse::<u32>().is_ok();
    known.then_some((end + 1, rank.parse().ok()?))
}

/// Where lines go: the terminal, a file for each rank, and a short memory for the last report.
pub struct Journal {
    folder: Option<PathBuf>,
    files: BTreeMap<Author, File>,
    recent: BTreeMap<Author, VecDeque<String>>,
    /// The last words of ranks, as they came.
    words: Vec<LastWord>,
    /// What mpirun has said and the terminal does not show yet, and since when.
    held: VecDeque<(Instant, String)>,
    file_error: Option<String>,
}

/// Lines of each author that are remembered; mpirun's reports are below 30 lines each.
const REMEMBERED: usize = 100;

impl Journal {
    /// Keeps files in `folder`, which is made here; none where it is `None`.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn new(folder: Option<PathBuf>) -> Result<Journal> {
        if let Some(folder) = &folder {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make the folder for logs {}", folder.display()))?;
        }
        Ok(Journal { folder, files: BTreeMap::new(), recent: BTreeMap::new(), words: Vec::new(), held: VecDeque::new(), file_error: None })
    }

    /// The last lines of `author`, oldest first.
    pub fn recent(&self, author: Author) -> impl Iterator<Item = &str> {
        self.recent.get(&author).into_iter().flatten().map(String::as_str)
    }

    /// What ranks have said of their ends, in the order in which it came.
    pub fn words(&self) -> &[LastWord] {
        &self.words
    }

    /// mpirun's lines that the terminal has not shown, those that came at least `ago` ago; each is given once. At the end of a job mpirun
    /// has paragraphs on what ranks say in a line, so they are held until it is known whether anybody needs them.
    pub fn release(&mut self, ago: Duration) -> String {
        let due = self.held.iter().take_while(|(since, _)| since.elapsed() >= ago).count();
        self.held.drain(..due).map(|(_, line)| line).collect()
    }

    /// The first reason for which a line could not be kept in its file: training goes on without.
    pub fn file_error(&self) -> Option<&str> {
        self.file_error.as_deref()
    }

    /// Takes a line; returns what the terminal shows of it.
    fn add(&mut self, author: Author, line: &[u8]) -> String {
        let (said, word) = LastWord::take(line);
        self.words.extend(word);
        // A word alone, whole or not.
        if said.is_empty() && !line.is_empty() {
            return String::new();
        }
        let line = said;
        if let Err(error) = self.keep(author, line) {
            self.file_error.get_or_insert(format!("{error:#}"));
        }
        let text = String::from_utf8_lossy(line).into_owned();
        let shown = match author {
            Author::Rank(0) => format!("{text}\n"),
            Author::Rank(rank) => format!("[rank {rank}] {text}\n"),
            Author::Mpirun => {
                self.held.push_back((Instant::now(), format!("{text}\n")));
                String::new()
            }
        };
        let recent = self.recent.entry(author).or_default();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(text);
        shown
    }

    fn keep(&mut self, author: Author, line: &[u8]) -> Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let name = match author {
            Author::Rank(rank) => format!("rank-{rank}.log"),
            Author::Mpirun => "mpirun.log".to_owned(),
        };
        let path = folder.join(name);
        let mut write = || -> std::io::Result<()> {
            let file = match self.files.entry(author) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => place.insert(File::create(&path)?),
            };
            file.write_all(&[line, b"\n"].concat())
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Reads `stream` to its end in a thread of its own, for `journal` and `terminal`.
pub fn follow(
    mut stream: impl Read + Send + 'static,
    mut terminal: impl Write + Send + 'static,
    journal: Arc<Mutex<Journal>>,
) -> std::io::Result<std::thread::JoinHandle<()>> {
    threads::spawn("follow", move || {
        let mut demultiplexer = Demultiplexer::default();
        let mut add = |author: Author, line: &[u8]| {
            let shown = journal.lock().expect("no thread panics with it").add(author, line);
            // Without the lock, for a terminal may stand still (a pager, Ctrl-S), and the supervisor looks into the journal. One that is
            // gone is no reason to end a training run.
            let _ = terminal.write_all(shown.as_bytes()).and_then(|()| terminal.flush());
        };
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            demultiplexer.push(&buffer[..count], &mut add);
        }
        demultiplexer.finish(&mut add);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines that `text` is taken apart into when it arrives in pieces of `size` bytes.
    fn lines(text: &str, size: usize) -> Vec<(Author, String)> {
        let mut found = Vec::new();
        let mut add = |author: Author, line: &[u8]| found.push((author, String::from_utf8(line.to_vec()).unwrap()));
        let mut demultiplexer = Demultiplexer::default();
        text.as_bytes().chunks(size).for_each(|piece| demultiplexer.push(piece, &mut add));
        demultiplexer.finish(&mut add);
        found
    }

    fn rank(rank: usize, text: &str) -> (Author, String) {
        (Author::Rank(rank), text.to_owned())
    }

    #[test]
    fn lines_go_to_their_authors_however_they_arrive() {
        let text = "[1,0]<stdout>:step 1\n[1,12]<stderr>:warning: [1,2] is odd\n--------\nmpirun noticed\n[1,0]<stdout>:\n";
        let expected = [
            rank(0, "step 1"),
            rank(12, "warning: [1,2] is odd"),
            (Author::Mpirun, "--------".to_owned()),
            (Author::Mpirun, "mpirun noticed".to_owned()),
            rank(0, ""),
        ];
        for size in [1, 7, 1000] {
            assert_eq!(lines(text, size), expected, "pieces of {size}");
        }
    }

    #[test]
    fn begun_lines_are_put_together() {
        // As Open MPI 4.1.4 writes them when ranks end without a newline.
        let text = "[1,0]<stdout>:a\n[1,0]<stdout>:no newline[1,2]<stdout>:b\n[1,2]<stdout>:half[1,0]<stdout>:, whole\n";
        assert_eq!(lines(text, 1000), [rank(0, "a"), rank(2, "b"), rank(0, "no newline, whole"), rank(2, "half")]);
        assert_eq!(lines("warning[1,1]<stderr>:b\n", 1000), [(Author::Mpirun, "warning".to_owned()), rank(1, "b")]);
    }

    #[test]
    fn a_journal_keeps_a_file_for_each_rank_and_remembers_the_last_lines() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Some(folder.path().join("logs"))).unwrap();
        for number in 0..REMEMBERED {
            journal.add(Author::Rank(0), number.to_string().as_bytes());
        }
        let last: [(Author, &[u8]); 3] = [(Author::Rank(0), b"100"), (Author::Rank(3), b"error"), (Author::Mpirun, b"ended")];
        assert_eq!(last.map(|(author, line)| journal.add(author, line)), ["100\n", "[rank 3] error\n", ""]);
        assert_eq!((journal.release(Duration::from_secs(60)).as_str(), journal.release(Duration::ZERO).as_str()), ("", "ended\n"));
        assert_eq!(journal.release(Duration::ZERO), "");
        let read = |name: &str| std::fs::read_to_string(folder.path().join("logs").join(name)).unwrap();
        assert_eq!(read("rank-0.log").lines().count(), REMEMBERED + 1);
        assert_eq!(read("rank-3.log"), "error\n");
        assert_eq!(read("mpirun.log"), "ended\n");
        assert_eq!(journal.recent(Author::Rank(0)).next(), Some("1"));
        assert_eq!(journal.file_error(), None);
    }

    #[test]
    fn last_words_are_kept_apart_whatever_comes_between() {
        let word = |rank: usize| format!("biodist-ended {{\"code\":76,\"rank\":{rank},\"host\":\"n{rank}\",\"cause\":\"rank 3 is late\"}}");
        let (first, second) = (word(1), word(2));
        // Two ranks at once, over two connections: cut in the middle, one of them in two places, the last word of a third not whole.
        let text = format!(
            "[1,1]<stderr>:biodist: stalled\n[1,1]<stderr>:{}[1,2]<stderr>:{}[1,1]<stderr>:{}\n[1,2]<stderr>:{}\n[1,3]<stderr>:{}\n",
            &first[..20],
            &second[..50],
            &first[20..],
            &second[50..],
            &first[..60]
        );
        for size in [1, 7, 1000] {
            let mut journal = Journal::new(None).unwrap();
            let mut shown = String::new();
            let mut demultiplexer = Demultiplexer::default();
            text.as_bytes().chunks(size).for_each(|piece| demultiplexer.push(piece, |author, line| shown += &journal.add(author, line)));
            assert_eq!(journal.words().iter().map(|word| (word.rank, word.host.as_str())).collect::<Vec<_>>(), [(1, "n1"), (2, "n2")]);
            assert_eq!(shown, "[rank 1] biodist: stalled\n");
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_does_not_stop_the_run() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(Some(folder.path().to_path_buf())).unwrap();
        std::fs::create_dir(folder.path().join("rank-1.log")).unwrap();
        assert_eq!(journal.add(Author::Rank(1), b"text"), "[rank 1] text\n");
        assert!(journal.file_error().unwrap().contains("rank-1.log"));
        assert!(Journal::new(Some("/proc/none".into())).err().unwrap().to_string().contains("/proc/none"));
    }

    /// A terminal that takes nothing until the test ends.
    struct Stuck(std::sync::mpsc::Receiver<()>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_terminal_that_stands_still_leaves_the_journal_open() {
        let journal = Arc::new(Mutex::new(Journal::new(None).unwrap()));
        let (release, stuck) = std::sync::mpsc::channel();
        let follower = follow(&b"the job has been aborted\n"[..], Stuck(stuck), Arc::clone(&journal)).unwrap();
        let heard = || journal.try_lock().is_ok_and(|journal| journal.recent(Author::Mpirun).count() == 1);
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !heard() {
            assert!(std::time::Instant::now() < until, "the journal is locked");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        drop(release);
        follower.join().unwrap();
    }
}
