//! A run's folder, read: what was trained, how far it has come, and what was measured.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::files::read_if_there;
use serde_json::Value;

use super::data::Data;
use super::history::{History, Point};
use super::paper::{Cell, Method};
use crate::compute::Measure;
use crate::config::Config;
use crate::config::find::may_be_file;
use crate::rules::is_built_in;
use crate::text::shell_word;
use crate::training::{CONFIG, Checkpoints, DIVERGED, RUN, Schedule, records};

/// A run, finished or in progress.
pub struct Run {
    /// As the user named it.
    pub path: PathBuf,
    pub config: Config,
    pub data: Data,
    pub history: History,
    /// Steps done.
    pub step: u64,
    /// From `run.json`, so that a folder whose checkpoints were cleared away still tells how far the run has come; else from a checkpoint.
    pub steps_per_epoch: Option<u64>,
    pub finished: bool,
    /// The step at which a loss or a parameter was not finite, which ended the run.
    pub diverged: Option<u64>,
    /// What `run.json` says; null where it is not there.
    pub about: Value,
}

impl Run {
    /// The file that every run has.
    pub const MARK: &str = CONFIG;

    /// Whether `path` may be the folder of a run.
    pub fn is_at(path: &Path) -> bool {
        may_be_file(&path.join(CONFIG))
    }

    /// Whether its config.toml is a run's; other programs have one too.
    pub fn is_certain(path: &Path) -> bool {
        [RUN, records::FILE_NAME, "checkpoints"].iter().any(|name| path.join(name).exists())
            || Config::load(&path.join(CONFIG), &[]).is_ok()
    }

    /// Reads the run in `path`. One that is being trained meanwhile may be read too.
    ///
    /// # Errors
    /// Names the file that is missing or damaged.
    pub fn read(path: &Path) -> Result<Run> {
        let config = Config::load(&path.join(CONFIG), &[])?;
        let history = History::read(path)?;
        let state = Checkpoints::of(path).newest_state()?;
        let about_path = path.join(RUN);
        let about = match read_if_there(&about_path).with_context(|| format!("{} cannot be read", about_path.display()))? {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", about_path.display()))?,
        };
        let told = about["steps_per_epoch"].as_u64();
        let steps_per_epoch = told.or(state.as_ref().map(|state| state.steps_per_epoch)).map(|steps| steps.max(1));
        let step = history.last_step.max(state.map_or(0, |state| state.step));
        let diverged = about[DIVERGED].as_u64().or(history.not_finite);
        let finished = diverged.is_none() && steps_per_epoch.is_some_and(|steps| is_finished(&config, &history, step, steps));
        let data = Data::of(&config, &about["data"]);
        Ok(Run { path: path.to_owned(), data, config, history, step, steps_per_epoch, finished, diverged, about })
    }

    /// Whether anything was measured yet that says how well it does: what one that diverged had reached before does not.
    pub fn has_result(&self) -> bool {
        self.history.last_step > 0 && self.diverged.is_none()
    }

    pub fn method(&self) -> Method {
        Method::of(&self.config)
    }

    /// The program that trained it, where its rule is no other's.
    pub fn program(&self) -> Option<&str> {
        self.about["program"].as_str().filter(|_| !is_built_in(self.config.learning.rule.name()))
    }

    /// How it came about, as far as its run.json tells.
    pub fn provenance(&self) -> Vec<(&'static str, String)> {
        let about = &self.about;
        let list = |value: &Value, show: fn(&str) -> String| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(show).collect()
        };
        let joined = |words: &[String], between: &str| (!words.is_empty()).then(|| words.join(between));
        // Each process tells its host.
        let mut hosts = list(&about["hosts"], str::to_owned);
        hosts.dedup();
        let version = |of: &str| about["versions"][of].as_str().map(|version| format!(", {of} {version}")).unwrap_or_default();
        let number = |key: &str| about[key].as_u64();
        let ranks = number("world_size").zip(number("threads_per_rank"));
        [
            ("Command", joined(&list(&about["command"], shell_word), " ")),
            ("Program", self.program().map(str::to_owned)),
            ("Commit", about["commit"].as_str().map(|commit| format!("{commit}{}{}", version("libtorch"), version("mpi")))),
            ("Started", number("started_unix_seconds").map(date)),
            ("Hosts", joined(&hosts, ", ")),
            (
                "Processes",
                ranks.map(|(ranks, threads)| format!("{ranks}, of {threads} {}", if threads == 1 { "thread" } else { "threads" })),
            ),
        ]
        .into_iter()
        .filter_map(|(name, fact)| Some((name, fact?)))
        .collect()
    }

    /// The paper's cell that it belongs to.
    pub fn cell(&self) -> Option<Cell> {
        self.data.paper.and_then(|data| Cell::of(&self.config, data))
    }

    /// Passes over the data so far.
    pub fn epochs(&self) -> f64 {
        match self.steps_per_epoch {
            Some(steps) => self.step as f64 / steps as f64,
            None => self.history.train.last().map_or(0.0, |point| point.epoch as f64),
        }
    }

    /// Passes over the data that it was started for.
    pub fn planned_epochs(&self) -> Option<f64> {
        let steps = self.steps_per_epoch?;
        Some(Schedule::new(&self.config, steps as usize).last_step() as f64 / steps as f64)
    }

    /// The last test evaluation, with the passes over the data until then.
    pub fn tested(&self) -> Option<(f64, &Point)> {
        let point = self.history.test.last()?;
        Some((self.steps_per_epoch.map_or(point.epoch as f64, |steps| point.step as f64 / steps as f64), point))
    }

    /// The test evaluation where the run did best on validation, chosen as `best.json` is.
    pub fn chosen_by_validation(&self) -> Option<&Point> {
        let scored = self.history.validation.iter().filter_map(|point| Some((point.measured.score()?, point.step)));
        let (_, step) = scored.reduce(|best, other| if other.0 < best.0 { other } else { best })?;
        self.history.test.iter().find(|point| point.step == step)
    }
}

/// Seconds since 1970 as "2026-11-30 04:41 UTC".
fn date(seconds: u64) -> String {
    let (days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    // Years that begin in March, in cycles of 400 years: the day that leap years add is their last.
    let day = days + 719_468;
    let (cycle, day) = (day / 146_097, day % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (month, day) = (if month < 10 { month + 3 } else { month - 9 }, day - (153 * month + 2) / 5 + 1);
    let year = 400 * cycle + year + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", minutes / 60, minutes % 60)
}

fn is_finished(config: &Config, history: &History, step: u64, steps_per_epoch: u64) -> bool {
    let schedule = Schedule::new(config, steps_per_epoch as usize);
    let evaluated = config.data.test.is_none() || !schedule.evaluates(step) || history.test.last().is_some_and(|point| point.step == step);
    step >= schedule.last_step() && evaluated
}

/// The first point with the least of a measure.
pub fn least(points: &[Point], measure: Measure) -> Option<&Point> {
    let measured = points.iter().filter_map(|point| Some((point.measured.get(measure)?, point)));
    measured.min_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, point)| point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), text);
        }
    }

    #[test]
    fn validation_chooses_by_error_then_loss_then_the_earliest() {
        let point = |split: &str, step: u64, error: f64, loss: f64| samples::line(split, step, Some(error), loss);
        let scores = [(0.5, 1.0), (0.25, 0.9), (0.25, 0.8), (0.25, 0.8), (0.375, 0.1)];
        let lines: String = (1u64..)
            .zip(scores)
            .map(|(epoch, (error, loss))| point("validation", 10 * epoch, error, loss) + &point("test", 10 * epoch, 0.5, loss))
            .collect();
        let run = samples::run("mnist_fc_bp", &[], &lines);
        assert_eq!(run.chosen_by_validation().unwrap().step, 30);
        // An autoencoder has losses alone.
        let lines: String = (1u64..)
            .zip([3.0, 2.0, 2.0])
            .flat_map(|(epoch, loss)| ["validation", "test"].map(|split| samples::line(split, 10 * epoch, None, loss)))
            .collect();
        assert_eq!(samples::run("mnist_autoencoder_bp", &[], &lines).chosen_by_validation().unwrap().step, 20);
    }

    /// Programs of old recorded what was not finite, and went on.
    #[test]
    fn a_run_whose_last_losses_are_not_finite_diverged() {
        let line = |step: u64, loss: f64| samples::line("test", step, Some(0.9), loss).replace("NaN", "null");
        let run = samples::run("mnist_fc_bp", &[], &[line(10, 1.0), line(20, f64::NAN), line(30, f64::NAN)].concat());
        assert_eq!((run.diverged, run.has_result(), run.finished), (Some(20), false, false));
        let run = samples::run("mnist_fc_bp", &[], &[line(10, 1.0), line(20, f64::NAN), line(30, 2.0)].concat());
        assert_eq!((run.diverged, run.has_result()), (None, true));
    }

    #[test]
    fn the_last_test_has_its_own_place() {
        let lines = samples::line("test", 20, Some(0.5), 1.0) + &samples::line("train", 25, Some(0.5), 1.0);
        let run = samples::run("mnist_fc_bp", &[], &lines);
        assert_eq!(run.epochs(), 2.5);
        assert_eq!(run.tested().map(|(epochs, point)| (epochs, point.step)), Some((2.0, 20)));
    }
}
