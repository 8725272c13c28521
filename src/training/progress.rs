//! What a person sees of a run: a bar on a terminal, otherwise a dense line an interval. On rank 0.
//!
//! The bar is drawn like lines are said, without waiting for a terminal that stands still.

use std::io::{IsTerminal, Result};
use std::sync::{Mutex, PoisonError};

use biodist_process::speech::{self, Stream};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle, TermLike};

use super::metrics::{EvaluationLine, TrainLine};
use crate::compute::Measure;
use crate::job::say;

pub struct Progress {
    bar: Option<ProgressBar>,
    last_step: u64,
}

impl Progress {
    /// Progress from `step` to `last_step`. There is a bar where both outputs are a terminal's.
    pub fn new(step: u64, last_step: u64) -> Progress {
        let terminal = std::io::stderr().is_terminal() && std::io::stdout().is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(last_step), ProgressDrawTarget::term_like(Box::new(Screen::default())));
            bar.set_position(step);
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} {msg}").expect("the template is well formed");
            bar.set_style(style);
            bar.reset_eta();
            bar
        });
        Progress { bar, last_step }
    }

    pub fn step(&self, step: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(step);
        }
    }

    pub fn train(&self, line: &TrainLine) {
        match &self.bar {
            Some(bar) => bar.set_message(losses(line)),
            None => {
                let [load, compute, exchange, update] = line.step_seconds().map(|seconds| seconds * 1e3);
                let digits = self.last_step.to_string().len();
                say(format_args!(
                    "step {:digits$}/{}  epoch {}  {}  {:.0} samples/s  ms/step: load {load:.2} compute {compute:.2} exchange {exchange:.2} update {update:.2}",
                    line.step,
                    self.last_step,
                    line.epoch,
                    losses(line),
                    line.samples_per_second(),
                ));
            }
        }
    }

    pub fn evaluation(&self, line: &EvaluationLine) {
        let sums = &line.sums;
        let mut text = format!("{} after step {} (epoch {}): loss {:.5}", line.split, line.step, line.epoch, sums.mean(Measure::Loss));
        if line.classifies {
            let (top1, top5) = (100.0 * sums.mean(Measure::Top1Error), 100.0 * sums.mean(Measure::Top5Error));
            text += &format!("  top-1 error {top1:.2} %  top-5 error {top5:.2} %");
        }
        self.say(&format!("{text}  {:.1} s", line.seconds));
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
            bar.abandon();
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

fn losses(line: &TrainLine) -> String {
    let sums = &line.sums;
    let told = sums.means(line.classifies).filter_map(|(measure, mean)| match measure {
        Measure::Loss => Some(format!("loss {mean:.5}")),
        Measure::InverseLoss => Some(format!("inverse {mean:.5}")),
        Measure::Top1Error => Some(format!("error {:.2} %", 100.0 * mean)),
        Measure::Top5Error => None,
    });
    told.collect::<Vec<_>>().join("  ")
}
