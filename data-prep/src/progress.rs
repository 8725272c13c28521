//! How far a long command is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two lines where stderr is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Counts what is done of a known number of things.
pub struct Progress {
    bar: ProgressBar,
    label: String,
    unit: &'static str,
    /// When the last line was written; `None` on a terminal.
    lines: Option<Mutex<Instant>>,
    started: Instant,
    /// What an earlier run did; it says nothing about the rate of this one.
    before: u64,
}

impl Progress {
    /// `label` says what is going on, `unit` what is counted; `before` of `total` were done by an earlier run.
    pub fn new(label: &str, unit: &'static str, total: u64, before: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target = if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = format!("{label} [{{wide_bar}}] {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left");
        bar.set_style(ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
        bar.set_position(before);
        bar.reset_eta();
        let now = Instant::now();
        Progress { bar, label: label.to_owned(), unit, lines: (!terminal).then(|| Mutex::new(now)), started: now, before }
    }

    /// `count` more are done.
    pub fn add(&self, count: u64) {
        self.bar.inc(count);
        let Some(lines) = &self.lines else { return };
        let Ok(mut last) = lines.try_lock() else { return };
        if last.elapsed() >= INTERVAL {
            *last = Instant::now();
            self.line();
        }
    }

    /// Takes the bar off the screen.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self) {
        let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
        let rate = (done - self.before) as f64 / self.started.elapsed().as_secs_f64();
        let left = (total.saturating_sub(done)) as f64 / rate;
        let left = if left.is_finite() { format!(", {} left", HumanDuration(Duration::from_secs_f64(left))) } else { String::new() };
        // A closed stderr is no reason to stop.
        let _ = writeln!(std::io::stderr(), "{}: {done}/{total} {}, {rate:.0}/s{left}", self.label, self.unit);
    }
}
