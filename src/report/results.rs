//! Tables of results: the paper's, with ours beside the figure of the same cell, and those of runs that the paper has no cell for.

use super::document::{ABSENT, Row, Table};
use super::group::{Curve, Group};
use super::paper::{Cell, DataSet, EPOCHS, METHODS, Network};
use super::spread::Spread;
use super::tables::raised;
use crate::compute::Measure;

const READING: &str = "Errors are in per cent: mean ± sample standard deviation where several runs differ in their seed alone. A train \
     error is the mean over an epoch's steps, each measured before its update; the few that share a line of metrics with the next \
     epoch's count there. “Last epoch” is what a run has come to.";
const CHOSEN_BY_VALIDATION: &str = " “Chosen by validation” is the test error at the epoch with the least error on images set apart from the \
     training set.";
const CHOSEN_BY_TEST: &str = "“Minimum” is the least value over all epochs: a test error there was chosen by that test error itself, which \
     makes it optimistic.";
const READINGS: &str = "Texts of the paper differ on MNIST's fully connected network: six layers of 256, or five. Both are set beside the same \
     figures.";

/// A measured column: its title, and where it comes from.
struct Column {
    title: &'static str,
    curve: Curve,
    measure: Measure,
}

const TRAIN: Column = Column { title: "train", curve: Curve::Train, measure: Measure::Top1Error };
const TEST: Column = Column { title: "test", curve: Curve::Test, measure: Measure::Top1Error };
const TOP_1: Column = Column { title: "top-1", curve: Curve::Test, measure: Measure::Top1Error };
const TOP_5: Column = Column { title: "top-5", curve: Curve::Test, measure: Measure::Top5Error };
const TRAIN_LOSS: Column = Column { title: "train", curve: Curve::Train, measure: Measure::Loss };
const TEST_LOSS: Column = Column { title: "test", curve: Curve::Test, measure: Measure::Loss };

/// The columns that rows have in common.
struct Columns {
    measured: [Column; 2],
    /// Whether any run has set images apart.
    validation: bool,
    format: fn(Spread) -> String,
}

impl Columns {
    fn new(groups: &[&Group], measured: [Column; 2], format: fn(Spread) -> String) -> Columns {
        Columns { measured, validation: any_validated(groups.iter().copied()), format }
    }

    fn titles(&self) -> Vec<(String, Vec<String>)> {
        let both: Vec<String> = self.measured.iter().map(|column| column.title.to_owned()).collect();
        let mut titles = vec![("Last epoch".to_owned(), both.clone())];
        if self.validation {
            titles.push(("Chosen by validation".to_owned(), self.tested().map(|column| column.title.to_owned()).collect()));
        }
        titles.push(("Minimum".to_owned(), both));
        titles.push((String::new(), vec!["epochs".to_owned(), "seeds".to_owned()]));
        titles
    }

    /// Columns that come from test evaluations.
    fn tested(&self) -> impl Iterator<Item = &Column> {
        self.measured.iter().filter(|column| column.curve != Curve::Train)
    }

    fn cells(&self, group: Option<&Group>) -> Vec<String> {
        let Some(group) = group else {
            return self.titles().iter().flat_map(|(_, titles)| titles).map(|_| ABSENT.to_owned()).collect();
        };
        let text = |spread: Option<Spread>| spread.map_or(ABSENT.to_owned(), self.format);
        let mut cells: Vec<String> = self.measured.iter().map(|column| text(group.last(column.curve, column.measure))).collect();
        if self.validation {
            cells.extend(self.tested().map(|column| text(group.spread(|run| run.chosen_by_validation()?.measured.get(column.measure)))));
        }
        cells.extend(self.measured.iter().map(|column| text(group.least(column.curve, column.measure))));
        cells.push(epochs(group));
        cells.push(group.runs.len().to_string());
        cells
    }
}

/// What the columns of the tables mean.
pub fn reading(groups: &[Group]) -> String {
    READING.to_owned() + if any_validated(groups) { CHOSEN_BY_VALIDATION } else { "" }
}

/// Whether any run has set images apart.
fn any_validated<'a>(groups: impl IntoIterator<Item = &'a Group<'a>>) -> bool {
    groups.into_iter().flat_map(|group| &group.runs).any(|run| run.chosen_by_validation().is_some())
}

/// "500", "12 of 500", "10 to 12 of 500"; whether it goes on a folder does not tell.
pub fn epochs(group: &Group) -> String {
    let done: Vec<f64> = group.runs.iter().map(|run| run.epochs()).collect();
    let (least, most) = done.iter().fold((f64::INFINITY, 0f64), |(least, most), epochs| (least.min(*epochs), most.max(*epochs)));
    let mut text = count(most);
    if least < most {
        text = format!("{} to {text}", count(least));
    }
    match group.runs[0].planned_epochs() {
        _ if group.finished() => text,
        Some(planned) => format!("{text} of {}", count(planned)),
        None => format!("{text}, not finished"),
    }
}

/// Whole epochs, or two decimals of one.
pub fn count(epochs: f64) -> String {
    if (epochs - epochs.round()).abs() < 1e-9 { format!("{epochs:.0}") } else { format!("{epochs:.2}") }
}

/// Tables 1 and 2 of the paper, where there are runs for them.
pub fn paper_tables(groups: &[Group]) -> Vec<Table> {
    [DataSet::Mnist, DataSet::Cifar10, DataSet::ImageNet].into_iter().filter_map(|data| paper_table(data, groups)).collect()
}

fn paper_table(data: DataSet, groups: &[Group]) -> Option<Table> {
    let ours: Vec<(Cell, &Group)> =
        groups.iter().filter_map(|group| Some((group.cell()?, group))).filter(|(cell, _)| cell.data == data).collect();
    if ours.is_empty() {
        return None;
    }
    let of_table: Vec<&Group> = ours.iter().map(|(_, group)| *group).collect();
    let measured = if data == DataSet::ImageNet { [TOP_1, TOP_5] } else { [TRAIN, TEST] };
    let paper_titles = measured.iter().map(|column| column.title.to_owned()).collect();
    let columns = Columns::new(&of_table, measured, Spread::percent);
    let mut table = Table {
        name: format!("errors-{}", data.name().to_lowercase()),
        title: format!(
            "{} of the paper: {} errors on {} (%)",
            data.place().0,
            if data == DataSet::ImageNet { "test" } else { "train and test" },
            data.name()
        ),
        columns: vec![(String::new(), vec!["Method".to_owned()]), ("Paper".to_owned(), paper_titles)],
        text_columns: 1,
        ..Table::default()
    };
    table.columns.extend(columns.titles());
    let mut remarks = Remarks::default();
    for network in Network::ALL {
        if ours.iter().all(|(cell, _)| cell.network != network) {
            continue;
        }
        table.rows.push(Row::Heading(capitalised(network.name())));
        for method in METHODS {
            let cell = Cell { data, network, method };
            let of_cell: Vec<&Group> = ours.iter().filter(|(of, _)| *of == cell).map(|(_, group)| *group).collect();
            let figures = cell.figures();
            let paper = (0..2).map(|column| figures.map_or(ABSENT.to_owned(), |figures| format!("{:.2}", figures[column])));
            let row = |label: String, group: Option<&Group>| {
                Row::Cells(std::iter::once(label).chain(paper.clone()).chain(columns.cells(group)).collect())
            };
            if of_cell.is_empty() && figures.is_some() {
                table.rows.push(row(method.name(), None));
            }
            for group in of_cell {
                table.rows.push(row(group.label.clone() + &remarks.mark(group), Some(group)));
            }
        }
    }
    let chosen = format!(
        "The paper's figures are the least errors of {EPOCHS} epochs and of 60 sets of hyperparameters; it mentions no images set apart to \
         choose by. {CHOSEN_BY_TEST}"
    );
    let readings = ours.iter().any(|(cell, _)| cell.network == Network::FiveLayers).then_some(READINGS);
    table.notes = remarks.into_notes(readings.into_iter().map(str::to_owned).chain([chosen]));
    Some(table)
}

/// A table of the classifiers that the paper has no cell for.
pub fn other_table(groups: &[Group]) -> Option<Table> {
    let others: Vec<&Group> = groups.iter().filter(|group| group.panel.classifies && group.cell().is_none()).collect();
    plain_table("other-errors", &others, [TRAIN, TEST], Spread::percent)
}

/// A table of the autoencoders: losses, which are squared errors summed over an image's values.
pub fn autoencoder_table(groups: &[Group]) -> Option<Table> {
    let autoencoders: Vec<&Group> = groups.iter().filter(|group| !group.panel.classifies).collect();
    plain_table("autoencoders", &autoencoders, [TRAIN_LOSS, TEST_LOSS], Spread::loss)
}

fn plain_table(name: &str, groups: &[&Group], measured: [Column; 2], format: fn(Spread) -> String) -> Option<Table> {
    if groups.is_empty() {
        return None;
    }
    let columns = Columns::new(groups, measured, format);
    let first = (String::new(), vec!["Method".to_owned()]);
    let mut table = Table { name: name.to_owned(), columns: vec![first], text_columns: 1, ..Table::default() };
    table.columns.extend(columns.titles());
    let mut remarks = Remarks::default();
    let mut panel = None;
    for group in groups {
        if panel.replace(&group.panel) != Some(&group.panel) {
            table.rows.push(Row::Heading(capitalised(&group.panel.title())));
        }
        let label = group.label.clone() + &remarks.mark(group);
        table.rows.push(Row::Cells(std::iter::once(label).chain(columns.cells(Some(group))).collect()));
    }
    table.notes = remarks.into_notes([CHOSEN_BY_TEST.to_owned()]);
    Some(table)
}

pub fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or(String::new(), |first| first.to_uppercase().chain(characters).collect())
}

/// Remarks below a table, each with a number at the rows that it is about.
#[derive(Default)]
struct Remarks {
    notes: Vec<String>,
    /// Whether any of them tells other values than a cell's configuration has.
    departs: bool,
}

impl Remarks {
    fn mark(&mut self, group: &Group) -> String {
        let mut signs = Vec::new();
        if let Some(remark) = group.departures() {
            self.departs = true;
            signs.push(self.sign(&remark));
        }
        for remark in group.runs[0].data.remarks() {
            signs.push(self.sign(&capitalised(&remark)));
        }
        if let Some(remark) = group.divergence() {
            signs.push(self.sign(&remark));
        }
        if !group.repeated.is_empty() {
            let folders: Vec<String> = group.repeated.iter().map(|path| path.display().to_string()).collect();
            signs.push(self.sign(&format!("Without {}: another run of the same seed has come further, or as far", folders.join(", "))));
        }
        if signs.is_empty() { String::new() } else { format!("\u{a0}{}", signs.join("\u{a0}")) }
    }

    fn sign(&mut self, remark: &str) -> String {
        let note = |index: usize| format!("{} {remark}.", raised(index + 1));
        let index = (0..self.notes.len()).find(|index| self.notes[*index] == note(*index)).unwrap_or_else(|| {
            self.notes.push(note(self.notes.len()));
            self.notes.len() - 1
        });
        raised(index + 1)
    }

    fn into_notes(self, last: impl IntoIterator<Item = String>) -> Vec<String> {
        let departs = "Values in brackets are those of the configuration that comes with the project for this cell, where a run was trained \
                       with others.";
        self.notes.into_iter().chain(self.departs.then(|| departs.to_owned())).chain(last).collect()
    }
}
