//! What the launcher itself says.

use biodist_process::speech::{Stream, speak};

/// Writes `message`, which may have several lines, to stderr.
pub fn say(message: &str) {
    speak(Stream::Err, format!("biodist-launch: {message}\n"));
}
