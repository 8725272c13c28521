//! What a person sees of a run: a bar on a terminal, otherwise a line every ten seconds; and a line for each evaluation, or for each epoch
//! where there is none. On rank 0.
//!
//! The bar is drawn like lines are said, without waiting for a terminal that stands still.

use std::io::{IsTerminal, Result};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use biodist_process::speech::{self, Stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::metrics::{EvaluationLine, TrainLine};
use super::schedule::Schedule;
use crate::compute::Measure;
use crate::job::say;
use crate::text::{duration, plural, shell_word};

/// Between two lines. The first comes sooner: it says how long the run will take.
const INTERVAL: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_secs(2);
/// Between two pictures of the bar's numbers.
const REDRAWN: Duration = Duration::from_millis(200);

pub struct Progress {
    bar: Option<ProgressBar>,
    schedule: Schedule,
    batch_size: usize,
    /// When the run went on, and after how many steps.
    began: (Instant, u64),
    /// When something was last shown, and after how many steps.
    shown: (Instant, u64),
    losses: String,
    /// Of the last evaluation, on the test set where there is one.
    result: Option<String>,
}

impl Progress {
    /// Progress from `step` on. There is a bar where both outputs are a terminal's.
    pub fn new(step: u64, schedule: Schedule, batch_size: usize) -> Progress {
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = terminal.then(|| {
            let target = ProgressDrawTarget::term_like(Box::new(Screen::default()));
            let bar = ProgressBar::with_draw_target(Some(schedule.last_step()), target);
            bar.set_position(step);
            let style =
                ProgressStyle::with_template("{percent:>3} % {wide_bar} step {pos}/{len}{msg}").expect("the template is well formed");
            bar.set_style(style);
            bar
        });
        let now = (Instant::now(), step);
        Progress { bar, schedule, batch_size, began: now, shown: now, losses: String::new(), result: None }
    }

    /// After `step` steps.
    pub fn step(&mut self, step: u64) {
        let since = self.shown.0.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_position(step);
            if since >= REDRAWN {
                bar.set_message(self.numbers(step));
                self.shown = (Instant::now(), step);
            }
            return;
        }
        let interval = if self.shown == self.began { FIRST } else { INTERVAL };
        if since >= interval || self.schedule.every_epochs(1, step) && !self.schedule.evaluates(step) {
            let last = self.schedule.last_step();
            say(format_args!("{:3} %  step {step}{}", 100 * step / last.max(1), self.numbers(step)));
            self.shown = (Instant::now(), step);
        }
    }

    /// What is known at `step`: losses, speed since the last time, time left.
    fn numbers(&self, step: u64) -> String {
        let (since, before) = self.shown;
        let speed = ((step - before) * self.batch_size as u64) as f64 / since.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
        let left = self.left(step).map_or(String::new(), |left| format!("  {left} left"));
        format!("{}  {speed:.0} samples/s{left}", self.losses)
    }

    /// How long the steps after `step` will take, evaluations included.
    fn left(&self, step: u64) -> Option<String> {
        let (began, first) = self.began;
        let each = began.elapsed().as_secs_f64() / step.checked_sub(first).filter(|steps| *steps > 0)? as f64;
        let left = self.schedule.last_step().checked_sub(step).filter(|left| *left > 0)?;
        Some(duration(left as f64 * each))
    }

    pub fn train(&mut self, line: &TrainLine) {
        self.losses = losses(line);
    }

    pub fn evaluation(&mut self, line: &EvaluationLine) {
        let mut text = format!("epoch {}, step {}: {}", line.epoch, line.step, result(line));
        if line.classifies {
            text += &format!("  top-5 {:.2} %", 100.0 * line.sums.mean(Measure::Top5Error));
        }
        let left = self.left(line.step).map_or(String::new(), |left| format!("  {left} left"));
        self.say(&format!("{text}  loss {:.4}  in {:.1} s{left}", line.sums.mean(Measure::Loss), line.seconds));
        self.result = Some(result(line));
        // Speed is that of training.
        self.shown = (Instant::now(), line.step);
    }

    /// That the run in `folder` is over, `seconds` after it began.
    pub fn done(&self, folder: &Path, seconds: f64) {
        self.finish();
        let result = self.result.as_ref().map_or(String::new(), |result| format!(", {result}"));
        let (folder, steps) = (folder.display(), self.schedule.last_step());
        let (s, typed) = (plural(steps as usize), shell_word(&folder.to_string()));
        say(format_args!("done: {folder}, {steps} step{s} in {}{result}; biodist report {typed} shows it", duration(seconds)));
    }

    /// A line of its own, above the bar.
    pub fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(line)),
            None => say(line),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The terminal at stderr, one picture of the bar after the other.
#[derive(Debug, Default)]
struct Screen {
    picture: Mutex<String>,
}

impl Screen {
    fn add(&self, text: &str) -> Result<()> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }

    /// ESC [ `count` `direction`, by which terminals move their cursor.
    fn move_cursor(&self, count: usize, direction: char) -> Result<()> {
        if count > 0 { self.add(&format!("\x1b[{count}{direction}")) } else { Ok(()) }
    }
}

impl TermLike for Screen {
    fn width(&self) -> u16 {
        let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the size is filled in, or left as it is.
        unsafe { libc::ioctl(libc::STDERR_FILENO, libc::TIOCGWINSZ, &mut size) };
        if size.ws_col > 0 { size.ws_col } else { 80 }
    }

    fn move_cursor_up(&self, count: usize) -> Result<()> {
        self.move_cursor(count, 'A')
    }

    fn move_cursor_down(&self, count: usize) -> Result<()> {
        self.move_cursor(count, 'B')
    }

    fn move_cursor_right(&self, count: usize) -> Result<()> {
        self.move_cursor(count, 'C')
    }

    fn move_cursor_left(&self, count: usize) -> Result<()> {
        self.move_cursor(count, 'D')
    }

    fn write_line(&self, text: &str) -> Result<()> {
        self.add(text)?;
        self.add("\n")
    }

    fn write_str(&self, text: &str) -> Result<()> {
        self.add(text)
    }

    fn clear_line(&self) -> Result<()> {
        self.add("\r\x1b[2K")
    }

    fn flush(&self) -> Result<()> {
        let picture = std::mem::take(&mut *self.picture.lock().unwrap_or_else(PoisonError::into_inner));
        speech::show(Stream::Err, picture);
        Ok(())
    }
}

/// "test error 2.91 %", or the loss where nothing is classified.
fn result(line: &EvaluationLine) -> String {
    match line.classifies {
        true => format!("{} error {:.2} %", line.split, 100.0 * line.sums.mean(Measure::Top1Error)),
        false => format!("{} loss {:.5}", line.split, line.sums.mean(Measure::Loss)),
    }
}

fn losses(line: &TrainLine) -> String {
    let sums = &line.sums;
    let told = sums.means(line.classifies).filter_map(|(measure, mean)| match measure {
        Measure::Loss => Some(format!("  loss {mean:.4}")),
        Measure::InverseLoss => Some(format!("  inverse {mean:.4}")),
        Measure::Top1Error => Some(format!("  error {:.2} %", 100.0 * mean)),
        Measure::Top5Error => None,
    });
    told.collect()
}
