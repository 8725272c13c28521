//! The report on runs: tables like the paper's with its figures beside ours, and charts like its figures, as Markdown and as one page of
//! HTML.
//!
//! Folders are read into [`run::Run`]s and [`sweep::Sweep`]s, runs are sorted into [`group::Group`]s, and everything that has data becomes
//! a section of a [`document::Document`], which knows nothing of formats. Numbers come from the runs' own files alone, and from
//! [`paper`], which holds what the paper printed.

mod chart;
mod curves;
mod data;
pub mod document;
mod find;
mod group;
mod history;
mod html;
mod label;
mod markdown;
mod paper;
mod reconstructions;
mod results;
mod run;
#[cfg(test)]
mod samples;
mod spread;
mod sweep;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::files::{read_regular, write_atomically};
use serde_json::Value;

pub use find::Found;
pub use spread::Spread;

use document::{ABSENT, Block, Content, Document, Row, Section, Table};
use group::{Group, Panel, group};
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
    let runs: Vec<Run> = found.runs.iter().map(|folder| Run::read(folder)).collect::<Result<_>>()?;
    let sweeps: Vec<Sweep> = found.sweeps.iter().map(|folder| Sweep::read(folder)).collect::<Result<_>>()?;
    Ok(describe(&runs, &sweeps))
}

/// Writes the report into the folder `out`, made where there is none; figures of an earlier report there go.
pub fn write(document: &Document, out: &Path) -> Result<Files> {
    let files = Files { html: out.join("report.html"), markdown: out.join("report.md") };
    let figures = out.join(markdown::FIGURES);
    let earlier = read_regular(&files.markdown).unwrap_or_default();
    for name in markdown::figures_of(&String::from_utf8_lossy(&earlier)) {
        // One that is not there any more is gone already.
        let _ = std::fs::remove_file(figures.join(name));
    }
    std::fs::create_dir_all(&figures).with_context(|| format!("{} cannot be created", figures.display()))?;
    for block in document.sections.iter().flat_map(|section| &section.blocks) {
        let Block::Figure(figure) = block else { continue };
        let bytes = match &figure.content {
            Content::Svg(svg) => svg.as_bytes(),
            Content::Png(png, _) => png,
        };
        write_atomically(&figures.join(markdown::file_name(figure)), bytes)?;
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
    let mut autoencoders = Vec::new();
    if let Some(table) = results::autoencoder_table(&groups) {
        autoencoders
            .push(Block::Text("Losses are squared errors, summed over the values of an image and averaged over images.".to_owned()));
        autoencoders.push(Block::Table(table));
        autoencoders.extend(curves::reconstruction_curves(&groups));
        autoencoders.extend(reconstructions::blocks(&groups));
    }
    let sections = [
        Section::new("Results", results),
        Section::new("Learning curves", curves::learning_curves(&groups)),
        Section::new("Auxiliary outputs", curves::auxiliary_study(&groups)),
        Section::new("Autoencoders", autoencoders),
        Section::new("Random searches", sweep::blocks(sweeps)),
        Section::new("Inside the network", curves::layer_diagnostics(&groups)),
        Section::new("Runs", if runs.is_empty() { vec![] } else { vec![Block::Table(list(&groups, runs))] }),
    ];
    Document { title: "Training report".to_owned(), lead: lead(runs, sweeps), sections: sections.into_iter().flatten().collect() }
}

fn lead(runs: &[Run], sweeps: &[Sweep]) -> String {
    let count = |number: usize, what: &str, plural: &str| format!("{number} {}", if number == 1 { what } else { plural });
    let mut parts = Vec::new();
    if !runs.is_empty() {
        let running = runs.iter().filter(|run| !run.finished).count();
        let running = if running > 0 { format!(" ({running} not finished)") } else { String::new() };
        parts.push(count(runs.len(), "run", "runs") + &running);
    }
    if !sweeps.is_empty() {
        parts.push(count(sweeps.len(), "random search", "random searches"));
    }
    format!(
        "{}, beside the results of Bartunov et al. 2018, Assessing the Scalability of Biologically-Motivated Deep Learning Algorithms and \
         Architectures. Made by biodist {} (commit {}).",
        parts.join(" and "),
        versions::CRATE,
        versions::COMMIT
    )
}

/// Every run with its folder and how it was trained.
fn list(groups: &[Group], runs: &[Run]) -> Table {
    let titles = ["Folder", "Method", "Network", "Device", "Seed", "Steps", "Epochs", "State"];
    let mut table = Table { columns: vec![(String::new(), titles.map(str::to_owned).to_vec())], text_columns: 4, ..Table::default() };
    let measured = groups.iter().flat_map(|group| group.runs.iter().map(|run| (*run, group.label.clone(), group.panel.title())));
    let begun = runs.iter().filter(|run| !run.has_result());
    let begun = begun.map(|run| (run, run.method().name(), Panel::of(&run.config, &run.data).title()));
    for (run, label, network) in measured.chain(begun) {
        let about = |key: &str| run.about.get(key).and_then(Value::as_str).unwrap_or(ABSENT).to_owned();
        table.rows.push(Row::Cells(vec![
            run.path.display().to_string(),
            label,
            network,
            about("kernels"),
            run.config.experiment.seed.to_string(),
            run.step.to_string(),
            results::count(run.epochs()),
            state(run),
        ]));
    }
    table
}

/// How far a run has come; whether it is still being trained its folder does not tell.
fn state(run: &Run) -> String {
    match run.planned_epochs() {
        _ if run.finished => "finished".to_owned(),
        _ if !run.has_result() => "no result yet".to_owned(),
        Some(planned) => format!("{} of {} epochs", results::count(run.epochs()), results::count(planned)),
        None => "not finished".to_owned(),
    }
}
