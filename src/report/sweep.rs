//! Random searches: how results spread over the hyperparameters that were drawn, as in the paper's Figure 5, and which came out best.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::chart::{Axis, Chart, Histogram, Panel as ChartPanel, Plot, of_layer, of_method};
use super::data::Data;
use super::document::{ABSENT, Block, Content, Figure, Row, Table};
use super::group::Panel;
use super::history::find_or_add;
use super::paper::Method;
use super::results::count;
use super::run::Run;
use super::spread::figures;
use crate::config::Config;
use crate::config::find::may_be_file;
use crate::search::Epochs;
use crate::search::results::{self, Line as Trial};
use crate::training::CONFIG;
use crate::training::records::Score;

const TRIALS: &str = "trials";
const BEST_CONFIG: &str = "best.toml";
/// Trials that the table shows.
const BEST: usize = 5;
const BINS: usize = 20;
/// Rules that a title names, where a search draws them.
const RULES: usize = 4;

/// Images that a trial was judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Split {
    Validation,
    Test,
}

impl Split {
    fn name(self) -> &'static str {
        if self == Split::Validation { "validation" } else { "test" }
    }

    fn error(self, trial: &Trial) -> Option<f64> {
        if self == Split::Validation { trial.validation_error } else { trial.test_error }
    }

    fn loss(self, trial: &Trial) -> Option<f64> {
        if self == Split::Validation { trial.validation_loss } else { trial.test_loss }
    }
}

/// What all trials of a search share, as far as the values drawn leave it the same.
struct Subject {
    /// "SDTP, parallel"; "DTP", where the schedule is drawn; "BP or DFA", where the rule is.
    name: String,
    /// "MNIST, fully connected".
    place: String,
    method: Option<Method>,
}

/// A random search's folder, read.
pub struct Sweep {
    path: PathBuf,
    subject: Option<Subject>,
    trials: Vec<Trial>,
}

impl Sweep {
    /// Files of which a search has one at least.
    pub const MARKS: [&str; 2] = ["sweep.json", results::FILE_NAME];

    /// Whether `path` may be the folder of a search.
    pub fn is_at(path: &Path) -> bool {
        Sweep::MARKS.iter().any(|name| may_be_file(&path.join(name)))
    }

    /// Whether its files are a search's; other programs have results too.
    pub fn is_certain(path: &Path) -> bool {
        may_be_file(&path.join(Sweep::MARKS[0])) || Sweep::read(path).is_ok_and(|sweep| !sweep.trials.is_empty())
    }

    /// Reads the search in `path`, which may be running, or have no result yet.
    pub fn read(path: &Path) -> Result<Sweep> {
        let mut trials = results::read(path)?;
        let config = configuration(path);
        if config.as_ref().is_some_and(|config| config.training.max_steps.is_some()) {
            trials.iter_mut().for_each(|trial| trial.epochs = trained(path, trial));
        }
        let subject = config.map(|config| subject(&config, &trials));
        Ok(Sweep { path: path.to_owned(), subject, trials })
    }

    fn name(&self) -> String {
        self.subject.as_ref().map_or_else(|| self.path.display().to_string(), |subject| subject.name.clone())
    }

    /// "SDTP, parallel on MNIST, fully connected".
    fn title(&self) -> String {
        let place = self.subject.as_ref().map_or(String::new(), |subject| format!(" on {}", subject.place));
        self.name() + &place
    }

    fn method(&self) -> Option<Method> {
        self.subject.as_ref()?.method
    }

    /// What trials are compared by: images set apart, where there are any.
    fn split(&self) -> Split {
        let validated = self.trials.iter().any(|trial| trial.validation_error.or(trial.validation_loss).is_some());
        if validated { Split::Validation } else { Split::Test }
    }

    fn accuracies(&self) -> Vec<f64> {
        let split = self.split();
        self.trials
            .iter()
            .filter(|trial| trial.counts())
            .filter_map(|trial| split.error(trial))
            .map(|error| 100.0 * (1.0 - error))
            .collect()
    }

    /// Trials that have a result, from the best; of equals the first counts.
    fn ranked(&self) -> Vec<&Trial> {
        let split = self.split();
        let score = |trial: &Trial| Score::of(split.error(trial), split.loss(trial).or(split.error(trial)));
        let mut ranked: Vec<(Score, &Trial)> =
            self.trials.iter().filter(|trial| trial.counts()).filter_map(|trial| Some((score(trial)?, trial))).collect();
        ranked.sort_by(|(a, first), (b, second)| a.partial_cmp(b).unwrap_or(Ordering::Equal).then(first.trial.cmp(&second.trial)));
        ranked.into_iter().map(|(_, trial)| trial).collect()
    }
}

/// That of the first trial that has one, or of the best where no trial was kept.
fn configuration(path: &Path) -> Option<Config> {
    let trials = std::fs::read_dir(path.join(TRIALS)).into_iter().flatten();
    let mut written: Vec<PathBuf> = trials.filter_map(|entry| Some(entry.ok()?.path().join(CONFIG))).collect();
    written.sort();
    let written = written.into_iter().chain([path.join(BEST_CONFIG)]).find(|written| written.is_file())?;
    Config::load(&written, &[]).ok()
}

/// Of trials of a search like `config`, where what they drew makes no difference.
fn subject(config: &Config, trials: &[Trial]) -> Subject {
    let drawn = |key: &str| -> BTreeSet<String> { trials.iter().filter_map(|trial| Some(trial.values.get(key)?.to_string())).collect() };
    let differs = |key: &str| drawn(key).len() > 1;
    let within = |section: &str| trials.iter().flat_map(|trial| trial.values.keys()).any(|key| key.starts_with(section) && differs(key));
    let networks = within("network.layers") || differs("network.output");
    let method = Method { convolutional: Method::of(config).convolutional && !networks, ..Method::of(config) };
    let rule = |name: &str| name.trim_matches('"').to_uppercase().replace('_', "-");
    let rules: Vec<String> = drawn("learning.rule").iter().map(|name| rule(name)).collect();
    let same = method.rule.has_inverses() && differs("learning.schedule");
    let name = match rules.as_slice() {
        [first @ .., last] if !first.is_empty() && first.len() < RULES => format!("{} or {last}", first.join(", ")),
        [_, _, ..] => format!("{} rules", rules.len()),
        _ if same => rule(method.rule.name()),
        _ => method.name(),
    };
    let panel = Panel::of(config, &Data::of(config, &Value::Null));
    let data = if differs("data.train") { "several data sets".to_owned() } else { panel.data.clone() };
    let network = if networks { "several networks".to_owned() } else { panel.network.clone() };
    Subject { name, place: format!("{data}, {network}"), method: (rules.len() < 2).then_some(method) }
}

/// Passes over the data: a search counts the epochs that a trial began, and `training.max_steps` ends one within an epoch. What was kept
/// of the trial tells how far it came.
fn trained(path: &Path, trial: &Trial) -> Epochs {
    let run = path.join(TRIALS).join(format!("{:03}", trial.trial));
    let part = Run::read(&run).ok().filter(|run| run.steps_per_epoch.is_some() && run.step > 0).map(|run| run.epochs());
    Epochs(part.unwrap_or(trial.epochs.0).min(trial.epochs.0))
}

/// Histograms, one figure for each network on a data set, and a table for each search.
pub fn blocks(sweeps: &[Sweep]) -> Vec<Block> {
    let mut panels: Vec<((String, Split), Vec<&Sweep>)> = Vec::new();
    for sweep in sweeps {
        let title = sweep.subject.as_ref().map_or_else(|| sweep.path.display().to_string(), |subject| subject.place.clone());
        let key = (title, sweep.split());
        find_or_add(&mut panels, |(known, _)| *known == key, || (key.clone(), Vec::new())).1.push(sweep);
    }
    panels.iter_mut().for_each(|(_, sweeps)| sweeps.sort_by_key(|sweep| sweep.method().map(Method::order)));
    let figures: Vec<Block> = panels.iter().fold(Vec::new(), |mut figures, ((title, split), sweeps)| {
        figures.extend(histogram(figures.len() + 1, title, *split, sweeps));
        figures
    });
    let tables = (1..).zip(panels.iter().flat_map(|(_, sweeps)| sweeps)).map(|(number, sweep)| match sweep.trials.is_empty() {
        true => Block::Text(format!("{} has no result yet: no trial of the search has ended.", sweep.path.display())),
        false => Block::Table(table(number, sweep)),
    });
    figures.into_iter().chain(tables).collect()
}

fn histogram(number: usize, panel: &str, split: Split, sweeps: &[&Sweep]) -> Option<Block> {
    let all: Vec<f64> = sweeps.iter().flat_map(|sweep| sweep.accuracies()).collect();
    let (low, high) = bounds(&all)?;
    let x = Axis::linear(&format!("Accuracy (%), {}", split.name()), low, high);
    let (first, last) = x.range();
    let edges: Vec<f64> = (0..=BINS).map(|edge| first + (last - first) * edge as f64 / BINS as f64).collect();
    let most = sweeps.iter().flat_map(|sweep| Histogram::counts(&edges, &sweep.accuracies())).max().unwrap_or(1);
    let of = |(index, sweep): (usize, &&Sweep)| {
        let before = sweeps[..index].iter().filter(|before| before.method() == sweep.method()).count();
        let look = sweep.method().map_or_else(|| of_layer(index, sweeps.len()), |method| of_method(method, before));
        let values = sweep.accuracies();
        let title = match sweep.trials.len() - values.len() {
            0 => format!("{}: {} trials", sweep.name(), values.len()),
            without => format!("{}: {} trials, and {without} without a result", sweep.name(), values.len()),
        };
        let (y, name, unit) = (Axis::counting("Trials", 0.0, most as f64), sweep.name(), " %".to_owned());
        let plot = Plot::Histogram(Histogram { name, x: x.clone(), y, edges: edges.clone(), unit, colour: look.colour, values });
        ChartPanel { title, plot, legend: vec![] }
    };
    let content = Content::Chart(Chart { panels: sweeps.iter().enumerate().map(of).collect(), legend: vec![] });
    let judged = match split {
        Split::Validation => "on images set apart from the training set, where the paper shows test accuracies",
        Split::Test => "on the test set",
    };
    let caption = format!(
        "Number of randomly drawn configurations by the accuracy that they reached, as in Figure 5 of the paper: {judged}, after {}.",
        lengths(sweeps)
    );
    Some(Block::Figure(Figure { name: format!("search-{number}"), title: panel.to_owned(), caption, content }))
}

/// Least and greatest of some accuracies; of a single value its surroundings, as far as there can be accuracies.
fn bounds(accuracies: &[f64]) -> Option<(f64, f64)> {
    let low = accuracies.iter().copied().reduce(f64::min)?;
    let high = accuracies.iter().copied().fold(low, f64::max);
    Some(if high > low { (low, high) } else { ((low - 0.5).max(0.0), (high + 0.5).min(100.0)) })
}

/// How long trials were trained: "3, 10 or 40 epochs".
fn lengths(sweeps: &[&Sweep]) -> String {
    let trials = sweeps.iter().flat_map(|sweep| &sweep.trials).filter(|trial| trial.counts());
    let lengths: BTreeSet<Epochs> = trials.map(|trial| trial.epochs).collect();
    let mut words: Vec<String> = lengths.iter().map(|epochs| count(epochs.0)).collect();
    let last = words.pop().unwrap_or_default();
    let before = if words.is_empty() { String::new() } else { words.join(", ") + " or " };
    format!("{before}{last} {}", if before.is_empty() && last == "1" { "epoch" } else { "epochs" })
}

/// The best trials.
fn table(number: usize, sweep: &Sweep) -> Table {
    let (ranked, split) = (sweep.ranked(), sweep.split());
    let classifies = ranked.iter().any(|trial| split.error(trial).is_some());
    let mut keys: Vec<&String> = Vec::new();
    for key in ranked.iter().flat_map(|trial| trial.values.keys()) {
        find_or_add(&mut keys, |known| *known == key, || key);
    }
    // What all trials share was not drawn, and would push what was out of sight.
    let first = ranked.first().map(|trial| &trial.values);
    keys.retain(|key| ranked.len() == 1 || ranked.iter().any(|trial| trial.values.get(*key) != first.and_then(|values| values.get(*key))));
    let measured = |trial: &Trial, split: Split| {
        let text =
            if classifies { split.error(trial).map(|error| format!("{:.2}", 100.0 * error)) } else { split.loss(trial).map(figures) };
        text.unwrap_or(ABSENT.to_owned())
    };
    let row = |trial: &&Trial| {
        let mut cells = vec![trial.trial.to_string(), trial.status.clone()];
        cells.extend([measured(trial, Split::Validation), measured(trial, Split::Test), count(trial.epochs.0)]);
        cells.extend(keys.iter().map(|key| trial.values.get(*key).map_or(ABSENT.to_owned(), value_text)));
        Row::Cells(cells)
    };
    let titles = |titles: &[&str]| titles.iter().map(|title| title.to_string()).collect::<Vec<_>>();
    let short = |key: &&String| key.trim_start_matches("optimizer.").trim_start_matches("learning.").to_owned();
    let mut table = Table {
        name: format!("search-{number}"),
        title: format!("{}: the best of {} trials, by {}", sweep.title(), sweep.trials.len(), split.name()),
        columns: vec![
            (String::new(), titles(&["Trial", "Status"])),
            (if classifies { "Error (%)" } else { "Loss" }.to_owned(), titles(&["validation", "test"])),
            (String::new(), titles(&["epochs"])),
            ("Values drawn".to_owned(), keys.iter().map(short).collect()),
        ],
        rows: ranked.iter().take(BEST).map(row).collect(),
        text_columns: 0,
        notes: vec![format!("From {}.", sweep.path.display())],
    };
    table.columns.retain(|(_, columns)| !columns.is_empty());
    if split == Split::Test {
        table.notes.push(
            "No images were set apart for validation: these trials were chosen by the test error shown, which makes it optimistic."
                .to_owned(),
        );
    }
    table
}

fn value_text(value: &Value) -> String {
    match value.as_f64() {
        Some(0.0) => "0".to_owned(),
        Some(number) if !(1e-2..1e6).contains(&number.abs()) => format!("{number:.2e}"),
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) => figures(number).trim_end_matches('0').to_owned(),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests;
