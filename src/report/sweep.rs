//! Random searches: how results spread over the hyperparameters that were drawn, as in the paper's Figure 5, and which came out best.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::chart::{Axis, Bars, Histogram, of_method};
use super::data::Data;
use super::document::{ABSENT, Block, Content, Figure, Row, Table};
use super::history::find_or_add;
use super::paper::Method;
use super::results::capitalised;
use super::spread::figures;
use crate::config::Config;
use crate::exit::Exit;
use crate::training::CONFIG;

const RESULTS: &str = "results.jsonl";
const TRIALS: &str = "trials";
/// Trials that the table shows.
const BEST: usize = 5;
const BINS: usize = 20;

/// A trial, as a line of `results.jsonl` has it.
#[derive(Clone, Debug, Deserialize)]
struct Trial {
    trial: u64,
    values: Map<String, Value>,
    validation_error: Option<f64>,
    test_error: Option<f64>,
    epochs: u64,
    status: String,
}

/// A random search's folder, read.
pub struct Sweep {
    path: PathBuf,
    /// Data and method, which all trials share.
    subject: Option<(Data, Method)>,
    trials: Vec<Trial>,
}

impl Sweep {
    /// Whether `path` is the folder of a search.
    pub fn is_at(path: &Path) -> bool {
        path.join("sweep.json").is_file() || path.join(RESULTS).is_file()
    }

    /// Reads the search in `path`. Of several lines about one trial the last counts.
    pub fn read(path: &Path) -> Result<Sweep> {
        let file = path.join(RESULTS);
        let text = match std::fs::read_to_string(&file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Exit::Failed.error(format!("{} has no {RESULTS}: no trial of the search has ended yet", path.display())));
            }
            text => text.with_context(|| format!("{} cannot be read", file.display()))?,
        };
        let mut trials: Vec<Trial> = Vec::new();
        // A last line without its end is being written.
        for (index, line) in text.split_inclusive('\n').enumerate().filter(|(_, line)| line.ends_with('\n')) {
            let damaged = || format!("{} is damaged: line {} is no result of a trial", file.display(), index + 1);
            let trial: Trial = serde_json::from_str(line).with_context(damaged)?;
            for error in [trial.validation_error, trial.test_error].into_iter().flatten() {
                ensure!((0.0..=1.0).contains(&error), "{}: its error is {error}, expected is a fraction", damaged());
            }
            trials.retain(|known| known.trial != trial.trial);
            trials.push(trial);
        }
        ensure!(!trials.is_empty(), "{} has no line: no trial of the search has ended yet", file.display());
        Ok(Sweep { path: path.to_owned(), subject: subject(path), trials })
    }

    fn name(&self) -> String {
        self.subject.as_ref().map_or_else(|| self.path.display().to_string(), |(_, method)| method.name())
    }

    /// "MNIST, 6 x dense 256" is a panel's title elsewhere; here the data set says enough.
    fn panel(&self) -> String {
        self.subject.as_ref().map_or("Random search".to_owned(), |(data, _)| data.name.clone())
    }

    fn accuracies(&self) -> Vec<f64> {
        self.trials.iter().filter_map(|trial| trial.test_error).map(|error| 100.0 * (1.0 - error)).collect()
    }
}

/// From the configuration of the first trial that has one.
fn subject(path: &Path) -> Option<(Data, Method)> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(path.join(TRIALS)).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    let written = folders.into_iter().map(|folder| folder.join(CONFIG)).find(|written| written.is_file())?;
    let config = Config::load(&written, &[]).ok()?;
    Some((Data::of(&config), Method::of(&config)))
}

/// Histograms, one figure for each data set, and a table for each search.
pub fn blocks(sweeps: &[Sweep]) -> Vec<Block> {
    let mut panels: Vec<(String, Vec<&Sweep>)> = Vec::new();
    for sweep in sweeps {
        find_or_add(&mut panels, |(panel, _)| *panel == sweep.panel(), || (sweep.panel(), Vec::new())).1.push(sweep);
    }
    let order = |sweep: &Sweep| sweep.subject.as_ref().map_or(usize::MAX, |(_, method)| method.order());
    panels.iter_mut().for_each(|(_, sweeps)| sweeps.sort_by_key(|sweep| order(sweep)));
    let figures = panels.iter().enumerate().filter_map(|(index, (panel, sweeps))| histogram(index + 1, panel, sweeps));
    let tables = sweeps.iter().map(|sweep| Block::Table(table(sweep)));
    figures.chain(tables).collect()
}

fn histogram(number: usize, panel: &str, sweeps: &[&Sweep]) -> Option<Block> {
    let all: Vec<f64> = sweeps.iter().flat_map(|sweep| sweep.accuracies()).collect();
    let low = all.iter().copied().reduce(f64::min)?;
    let high = all.iter().copied().fold(low, f64::max);
    let x = Axis::linear("Test accuracy at the end of a trial (%)", low, high.min(100.0));
    let (first, last) = x.range();
    let edges = (0..=BINS).map(|edge| first + (last - first) * edge as f64 / BINS as f64).collect();
    let bars = |(index, sweep): (usize, &&Sweep)| {
        let method = sweep.subject.as_ref().map(|(_, method)| *method);
        let before = sweeps[..index].iter().filter(|before| before.subject.as_ref().map(|(_, method)| *method) == method).count();
        let look = of_method(method.unwrap_or(super::paper::METHODS[8]), before);
        let (values, without) = (sweep.accuracies(), sweep.trials.iter().filter(|trial| trial.test_error.is_none()).count());
        let remark = match without {
            0 => format!("{} trials", values.len()),
            without => format!("{} trials, and {without} without a result", values.len()),
        };
        Bars { name: sweep.name(), look, values, remark }
    };
    let rows = sweeps.iter().enumerate().map(bars).collect();
    let title = format!("{panel}: test accuracies under different hyperparameters");
    let chart = Histogram { title: title.clone(), x, edges, unit: " %".to_owned(), rows };
    let caption = "Number of randomly drawn configurations by the test accuracy that they came to, as in Figure 5 of the paper.".to_owned();
    Some(Block::Figure(Figure { name: format!("search-{number}"), title, caption, content: Content::Svg(chart.svg()) }))
}

/// The best trials: by validation error, where there is one.
fn table(sweep: &Sweep) -> Table {
    let validated = sweep.trials.iter().any(|trial| trial.validation_error.is_some());
    let key = |trial: &&Trial| if validated { trial.validation_error } else { trial.test_error };
    let mut ranked: Vec<&Trial> = sweep.trials.iter().filter(|trial| key(trial).is_some()).collect();
    ranked.sort_by(|a, b| key(a).unwrap_or(f64::MAX).total_cmp(&key(b).unwrap_or(f64::MAX)));
    let mut keys: Vec<&String> = Vec::new();
    for key in ranked.iter().flat_map(|trial| trial.values.keys()) {
        find_or_add(&mut keys, |known| *known == key, || key);
    }
    let percent = |error: Option<f64>| error.map_or(ABSENT.to_owned(), |error| format!("{:.2}", 100.0 * error));
    let row = |trial: &&Trial| {
        let mut cells = vec![trial.trial.to_string(), trial.status.clone()];
        cells.extend([percent(trial.validation_error), percent(trial.test_error), trial.epochs.to_string()]);
        cells.extend(keys.iter().map(|key| trial.values.get(*key).map_or(ABSENT.to_owned(), value_text)));
        Row::Cells(cells)
    };
    let chosen = if validated { "validation" } else { "test" };
    let mut table = Table {
        title: format!(
            "{}: the best of {} trials by {chosen} error, {}",
            capitalised(&sweep.name()),
            sweep.trials.len(),
            sweep.path.display()
        ),
        columns: vec![
            (String::new(), vec!["Trial".to_owned(), "Status".to_owned()]),
            ("Error (%)".to_owned(), vec!["validation".to_owned(), "test".to_owned()]),
            (String::new(), vec!["epochs".to_owned()]),
            (
                "Values drawn".to_owned(),
                keys.iter().map(|key| key.trim_start_matches("optimizer.").trim_start_matches("learning.").to_owned()).collect(),
            ),
        ],
        rows: ranked.iter().take(BEST).map(row).collect(),
        text_columns: 2,
        notes: Vec::new(),
    };
    if !validated {
        table.notes.push(
            "No images were set apart for validation, so these trials were chosen by the test error shown, which is too good.".to_owned(),
        );
    }
    table
}

fn value_text(value: &Value) -> String {
    match value.as_f64() {
        Some(0.0) => "0".to_owned(),
        Some(number) if !(1e-2..1e6).contains(&number.abs()) => format!("{number:.2e}"),
        Some(number) if number.fract() == 0.0 => format!("{number:.0}"),
        Some(number) => figures(number),
        None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(lines: &str) -> Result<Sweep> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(RESULTS), lines).unwrap();
        Sweep::read(folder.path())
    }

    #[test]
    fn trials_are_ranked_by_validation_and_the_last_line_counts() {
        let sweep = sweep(
            r#"{"trial":0,"values":{"learning.sigma":0.1},"validation_error":0.5,"test_error":0.1,"epochs":3,"status":"done"}
{"trial":1,"values":{"learning.sigma":0.2},"validation_error":0.9,"test_error":0.9,"epochs":1,"status":"stopped"}
{"trial":2,"values":{"learning.sigma":0.3},"epochs":1,"status":"diverged"}
{"trial":1,"values":{"learning.sigma":0.2},"validation_error":0.25,"test_error":0.3,"epochs":3,"status":"done"}
{"trial":4,"val"#,
        )
        .unwrap();
        assert_eq!(sweep.accuracies(), [90.0, 70.0]);
        let table = table(&sweep);
        let Row::Cells(best) = &table.rows[0] else { panic!("{table:?}") };
        assert_eq!(best, &["1", "done", "25.00", "30.00", "3", "0.2000"]);
        assert_eq!(table.rows.len(), 2);
    }

    #[test]
    fn damage_is_named() {
        for (lines, words) in [
            ("{\"trial\":0}\n", "line 1 is no result"),
            ("{\"trial\":0,\"values\":{},\"test_error\":43.5,\"epochs\":1,\"status\":\"done\"}\n", "43.5"),
            ("", "no trial"),
        ] {
            let error = format!("{:#}", sweep(lines).err().unwrap());
            assert!(error.contains(words) && error.contains(RESULTS), "{error}");
        }
    }
}
