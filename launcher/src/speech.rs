//! What the launcher itself says, in a thread of its own: a terminal that stands still (a pager, Ctrl-S) must not keep it from passing on a
//! request to stop, or from ending a job.

use std::io::Write;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

enum Said {
    Line(String),
    /// Answered when everything before has been written.
    All(Sender<()>),
}

static SPEAKER: OnceLock<Sender<Said>> = OnceLock::new();

/// Writes `message`, which may have several lines, to stderr, soon.
pub fn say(message: &str) {
    let _ = speaker().send(Said::Line(format!("biodist-launch: {message}\n")));
}

/// Waits until all has been said.
pub fn finish() {
    let (sender, done) = channel();
    if speaker().send(Said::All(sender)).is_ok() {
        let _ = done.recv();
    }
}

fn speaker() -> &'static Sender<Said> {
    SPEAKER.get_or_init(|| {
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for said in said {
                match said {
                    // A terminal that is gone is no reason to end a training run.
                    Said::Line(line) => drop(std::io::stderr().write_all(line.as_bytes())),
                    Said::All(done) => drop(done.send(())),
                }
            }
        });
        sender
    })
}
