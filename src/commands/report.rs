//! `biodist report`: tables and figures of runs, finished or not.

use std::path::PathBuf;

use anyhow::{Context, Result};
use biodist_process::quote;

use crate::exit::Exit;
use crate::job::say;
use crate::report::{self, Found, counted};

/// Make tables and figures of runs, beside the paper's results
///
/// For instance `biodist report runs sweeps`. Folders are searched at any depth; what holds no run is passed over and named. Runs are
/// grouped by what they trained, wherever their folders are: those that differ in experiment.seed alone become a mean with its deviation.
/// Runs in progress may be among them, and folders of random searches (biodist sweep), whose trials are no runs of their own. Runs that
/// diverged are listed, and are in no mean.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Folders of runs and of random searches, or folders that hold some at any depth
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for report.html (one file with everything), report.md, and for papers figures/ (SVG, PDF, CSV) and tables/ (LaTeX, CSV)
    #[arg(long, value_name = "DIR", default_value = "report")]
    out: PathBuf,
    /// Width of the figures' files on paper; letters have 8 points at any width
    #[arg(long, value_name = "MM", default_value_t = 180, value_parser = clap::value_parser!(u16).range(60..=1000))]
    width_mm: u16,
}

/// Reads everything before it writes anything.
pub fn run(args: &ReportArgs) -> Result<()> {
    if args.out.exists() && !args.out.is_dir() {
        return Err(Exit::Usage.error(format!("--out {}: this is a file; a report needs a folder", args.out.display())));
    }
    let found = Found::within(&args.runs)?;
    let document = report::read(&found)?;
    tell_passed_over(&found.passed_over);
    let files = report::write(&document, &args.out, f64::from(args.width_mm)).with_context(|| format!("--out {}", args.out.display()))?;
    let told = [
        (found.runs.len(), "run", "runs"),
        (found.sweeps.len(), "sweep", "sweeps"),
        (found.passed_over.len(), "passed over", "passed over"),
    ];
    let told: Vec<String> = told.into_iter().filter(|told| told.0 > 0).map(|(number, one, more)| counted(number, one, more)).collect();
    say(format_args!("{}: {} and {}", told.join(", "), files.html.display(), files.markdown.display()));
    Ok(())
}

/// Names in a message.
const NAMED: usize = 5;

fn tell_passed_over(folders: &[PathBuf]) {
    let names: Vec<String> = folders.iter().take(NAMED).map(|folder| quote::message(&folder.display().to_string())).collect();
    let more = folders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match folders.len() {
        0 => {}
        _ => say(format_args!("passed over, for no run and no random search is there: {}{more}", names.join(", "))),
    }
}
