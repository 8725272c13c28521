//! What a person sees of a run: a bar on a terminal, otherwise a dense line an interval. On rank 0.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

use super::metrics::{EvaluationLine, TrainLine};
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
            let bar = ProgressBar::new(last_step).with_position(step);
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
        let mut text = format!("{} after step {} (epoch {}): loss {:.5}", line.split, line.step, line.epoch, sums.mean(sums.loss));
        if line.classifies {
            let (top1, top5) = (100.0 * sums.mean(sums.top1_error), 100.0 * sums.mean(sums.top5_error));
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

fn losses(line: &TrainLine) -> String {
    let sums = &line.sums;
    let mut text = format!("loss {:.5}", sums.mean(sums.loss));
    if let Some(loss) = sums.mean_inverse_loss() {
        text += &format!("  inverse {loss:.5}");
    }
    if line.classifies {
        text += &format!("  error {:.2} %", 100.0 * sums.mean(sums.top1_error));
    }
    text
}
