//! `biodist report`: tables and figures of runs, finished or not.

use std::path::PathBuf;

use anyhow::{Context, Result};
use biodist_process::quote;

use crate::exit::Exit;
use crate::job::say;
use crate::report::{self, Found};

/// Make tables and figures of runs, beside the paper's results
///
/// Runs are grouped by what they trained, wherever their folders are: those that differ in experiment.seed alone become a mean with its
/// standard deviation. Runs in progress may be among them, and folders of random searches (biodist sweep), whose trials are no runs of their
/// own. Folders are searched to any depth; those beside the runs that hold none are named.
///
///   biodist report runs sweeps --out report
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReportArgs {
    /// Folders of runs and of random searches, or folders that hold some at any depth
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// Folder for report.html (one file with everything), report.md and its figures/
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Reads everything before it writes anything.
pub fn run(args: &ReportArgs) -> Result<()> {
    if args.out.exists() && !args.out.is_dir() {
        return Err(Exit::Usage.error(format!("--out {}: this is a file; a report needs a folder", args.out.display())));
    }
    let found = Found::within(&args.runs)?;
    let document = report::read(&found)?;
    tell_passed_over(&found.passed_over);
    let files = report::write(&document, &args.out).with_context(|| format!("--out {}", args.out.display()))?;
    say(format_args!("{} and {}", files.html.display(), files.markdown.display()));
    Ok(())
}

/// Folders that a message names.
const NAMED: usize = 5;

fn tell_passed_over(folders: &[PathBuf]) {
    let names: Vec<String> = folders.iter().take(NAMED).map(|folder| quote::message(&folder.display().to_string())).collect();
    let more = folders.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    match folders.len() {
        0 => {}
        1 => say(format_args!("passed over 1 folder that holds no run and no random search: {}", names[0])),
        count => say(format_args!("passed over {count} folders that hold no run and no random search: {}{more}", names.join(", "))),
    }
}
