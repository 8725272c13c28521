//! `biodist report`: tables and figures of runs, finished or not.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::exit::Exit;
use crate::job::say;
use crate::report;

/// Make tables and figures of runs, beside the paper's results
///
/// Runs are grouped by what they trained, wherever their folders are: those that differ in experiment.seed alone become a mean with its
/// standard deviation. Runs in progress may be among them, and folders of random searches (biodist sweep).
///
///   biodist report runs/* --out report
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct ReportArgs {
    /// Folders of runs, of several seeds' runs, and of random searches
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
    let document = report::read(&args.runs)?;
    let files = report::write(&document, &args.out).with_context(|| format!("--out {}", args.out.display()))?;
    say(format_args!("{} and {}", files.html.display(), files.markdown.display()));
    Ok(())
}
