//! The report on runs: tables like the paper's with its figures beside ours, and charts like its figures, as Markdown and as one page of
//! HTML.
//!
//! Folders are read into [`run::Run`]s and [`sweep::Sweep`]s, runs are sorted into [`group::Group`]s, and everything that has data becomes
//! a section of a [`document::Document`], which knows nothing of formats. Numbers come from the runs' own files alone, and from
//! [`paper`], which holds what the paper printed.

mod auxiliary;
pub mod chart;
mod curves;
mod data;
pub mod document;
mod find;
mod foreign;
mod group;
mod history;
mod html;
mod label;
mod layers;
mod markdown;
mod paper;
mod range;
mod reconstructions;
mod results;
mod run;
#[cfg(test)]
mod samples;
mod spread;
mod sweep;
mod tables;
mod variant;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::files::{read_regular, write_atomically};

pub use find::Found;
pub use spread::Spread;

use document::{ABSENT, Block, Content, Document, Facts, Figure, Row, Section, Table};
use group::{Group, Panel, group};
use history::find_or_add;
use run::Run;
use sweep::Sweep;

use crate::versions;

/// The files of a report.
pub struct Files {
    pub html: PathBuf,
    pub markdown: PathBuf,
}

/// Reads the runs and random searches that were found, and makes a report of them.
///
/// # Errors
/// Names the first folder whose files are missing or damaged.
pub fn read(found: &Found) -> Result<Document> {
    foreign::make_known(&found.runs);
    let runs: Vec<Run> = found.runs.iter().map(|folder| Run::read(folder)).collect::<Result<_>>()?;
    let sweeps: Vec<Sweep> = found.sweeps.iter().map(|folder| Sweep::read(folder)).collect::<Result<_>>()?;
    Ok(describe(&runs, &sweeps))
}

/// Writes the report into the folder `out`, made where there is none, with figures of `mm` width; figures and tables of an earlier
/// report there go.
pub fn write(document: &Document, out: &Path, mm: f64) -> Result<Files> {
    let files = Files { html: out.join("report.html"), markdown: out.join("report.md") };
    let earlier = read_regular(&files.markdown).unwrap_or_default();
    for file in markdown::files_of(&String::from_utf8_lossy(&earlier)) {
        // One that is not there any more is gone already.
        let _ = std::fs::remove_file(out.join(file));
    }
    for folder in [markdown::FIGURES, markdown::TABLES] {
        std::fs::create_dir_all(out.join(folder)).with_context(|| format!("{} cannot be created", out.join(folder).display()))?;
    }
    let write =
        |folder: &str, name: &str, ending: &str, bytes: &[u8]| write_atomically(&out.join(folder).join(format!("{name}.{ending}")), bytes);
    for block in document.sections.iter().flat_map(|section| &section.blocks) {
        match block {
            Block::Figure(Figure { name, title, content: Content::Chart(chart), .. }) => {
                let (svg, pdf) = chart.files(title, mm);
                write(markdown::FIGURES, name, "svg", svg.as_bytes())?;
                write(markdown::FIGURES, name, "pdf", &pdf)?;
                write(markdown::FIGURES, name, "csv", tables::csv(&chart.table()).as_bytes())?;
            }
            Block::Figure(Figure { name, content: Content::Png(png, _), .. }) => write(markdown::FIGURES, name, "png", png)?,
            Block::Table(table) => {
                write(markdown::TABLES, &table.name, "csv", tables::csv(&tables::rows(table)).as_bytes())?;
                write(markdown::TABLES, &table.name, "tex", tables::latex(table).as_bytes())?;
            }
            Block::Text(_) | Block::Facts(_) => {}
        }
    }
    write_atomically(&files.markdown, markdown::write(document).as_bytes())?;
    write_atomically(&files.html, html::write(document).as_bytes())?;
    Ok(files)
}

fn describe(runs: &[Run], sweeps: &[Sweep]) -> Document {
    let groups = group(runs);
    let mut results = vec![];
    let paper_tables = results::paper_tables(&groups);
    if groups.iter().any(|group| group.panel.classifies) {
        results.push(Block::Text(results::reading(&groups)));
    }
    let others = results::other_table(&groups);
    results.extend(
        paper_tables
            .into_iter()
            .chain(others.map(|table| Table { title: "Without a cell in the paper (%)".to_owned(), ..table }))
            .map(Block::Table),
    );
    results.extend(all_diverged(&groups, runs).map(Block::Text));
    let mut autoencoders = Vec::new();
    if let Some(table) = results::autoencoder_table(&groups) {
        autoencoders.push(Block::Text(
            "Losses are squared errors, summed over the values of an image and averaged over images; a figure's axis says of what."
                .to_owned(),
        ));
        autoencoders.push(Block::Table(table));
        autoencoders.extend(curves::reconstruction_curves(&groups));
        autoencoders.extend(reconstructions::blocks(&groups));
    }
    let sections = [
        Section::new("Results", results),
        Section::new("Learning curves", curves::learning_curves(&groups)),
        Section::new("Auxiliary outputs", auxiliary::study(&groups)),
        Section::new("Autoencoders", autoencoders),
        Section::new("Random searches", sweep::blocks(sweeps)),
        Section::new("Inside the network", layers::diagnostics(&groups)),
        Section::new("Runs", list(&groups, runs)),
    ];
    Document { title: "Training report".to_owned(), lead: lead(runs, sweeps), sections: sections.into_iter().flatten().collect() }
}

/// "1 run", "15 runs".
pub fn counted(number: usize, what: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { what } else { plural })
}

fn lead(runs: &[Run], sweeps: &[Sweep]) -> String {
    let mut parts = Vec::new();
    if !runs.is_empty() {
        let diverged = runs.iter().filter(|run| run.diverged.is_some()).count();
        let running = runs.iter().filter(|run| !run.finished).count() - diverged;
        let states = [(running, "not finished"), (diverged, "diverged")].into_iter().filter(|(number, _)| *number > 0);
        let states: Vec<String> = states.map(|(number, state)| format!("{number} {state}")).collect();
        let states = if states.is_empty() { String::new() } else { format!(" ({})", states.join(", ")) };
        parts.push(counted(runs.len(), "run", "runs") + &states);
    }
    if !sweeps.is_empty() {
        parts.push(counted(sweeps.len(), "random search", "random searches"));
    }
    format!(
        "{}, beside the results of Bartunov et al. 2018, Assessing the Scalability of Biologically-Motivated Deep Learning Algorithms and \
         Architectures. Made by biodist {} (commit {}).",
        parts.join(" and "),
        versions::CRATE,
        versions::COMMIT
    )
}

/// What has a row in no table because every seed of it diverged.
fn all_diverged(groups: &[Group], runs: &[Run]) -> Option<String> {
    let mut lost: Vec<(String, usize)> = Vec::new();
    for run in runs.iter().filter(|run| run.diverged.is_some() && !groups.iter().any(|group| group.is_of(run))) {
        let name = format!("{} on {}", run.method().name(), Panel::of(&run.config, &run.data).title());
        find_or_add(&mut lost, |(known, _)| *known == name, || (name.clone(), 0)).1 += 1;
    }
    let list: Vec<String> = lost.iter().map(|(name, number)| format!("{name} ({})", counted(*number, "run", "runs"))).collect();
    (!list.is_empty()).then(|| format!("In no table, for every run of the experiment diverged: {}.", list.join("; ")))
}

/// Every run with its folder and how it was trained.
fn list(groups: &[Group], runs: &[Run]) -> Vec<Block> {
    let titles = ["Folder", "Method", "Network", "Device", "Seed", "Steps", "Epochs", "State"];
    let columns = vec![(String::new(), titles.map(str::to_owned).to_vec())];
    let mut table = Table { name: "runs".to_owned(), columns, text_columns: 4, ..Table::default() };
    let mut grouped: Vec<(&Run, String)> = Vec::new();
    for group in groups {
        grouped.extend(group.runs.iter().chain(&group.diverged).map(|run| (*run, group.label.clone())));
    }
    let is_grouped = |run: &Run| grouped.iter().any(|(known, _)| std::ptr::eq(*known, run));
    let others = runs.iter().filter(|run| !run.has_result() && !is_grouped(run)).map(|run| (run, run.method().name()));
    let mut facts = Vec::new();
    for (run, label) in grouped.iter().cloned().chain(others) {
        let kernels = run.about["kernels"].as_str().unwrap_or(ABSENT).to_owned();
        facts.push(Block::Facts(Facts { title: run.path.display().to_string(), facts: run.provenance(), text: run.config.to_toml() }));
        table.rows.push(Row::Cells(vec![
            run.path.display().to_string(),
            label,
            Panel::of(&run.config, &run.data).title(),
            kernels,
            run.config.experiment.seed.to_string(),
            run.step.to_string(),
            results::count(run.epochs()),
            state(run),
        ]));
    }
    if runs.is_empty() { vec![] } else { std::iter::once(Block::Table(table)).chain(facts).collect() }
}

/// How far a run has come; whether it is still being trained its folder does not tell.
fn state(run: &Run) -> String {
    match (run.diverged, run.planned_epochs()) {
        (Some(step), _) => format!("diverged at step {step}"),
        _ if run.finished => "finished".to_owned(),
        _ if !run.has_result() => "no result yet".to_owned(),
        (None, Some(planned)) => format!("{} of {} epochs", results::count(run.epochs()), results::count(planned)),
        (None, None) => "not finished".to_owned(),
    }
}
