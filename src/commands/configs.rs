//! `biodist configs`: the configurations that come with the program.

use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::Result;
use biodist_process::files::open_regular;
use biodist_process::quote;

use crate::config::find;
use crate::exit::Exit;
use crate::job::say;
use crate::text::table;

/// Show the configurations that can be named without a path
///
/// Those whose names have all of WORDS, which may be cut short, or all: `biodist configs mnist dtp`.
#[derive(Debug, clap::Args)]
pub struct ConfigsArgs {
    /// Parts of a name
    words: Vec<String>,
}

pub fn run(args: &ConfigsArgs) -> Result<()> {
    let typed = args.words.join("_");
    let found = find::all().into_iter().filter(|(name, _)| args.words.is_empty() || find::means(&typed, name));
    let rows: Vec<Vec<String>> = found.map(|(name, path)| vec![name, about(&path)]).collect();
    if rows.is_empty() && find::all().is_empty() {
        return Err(Exit::Usage.error(format!(
            "no configurations were found in {}; start where a configs folder is, or name the file of one by its path",
            find::places()
        )));
    }
    if rows.is_empty() {
        let typed = quote::part(&args.words.join(" "), 80);
        return Err(Exit::Usage.error(format!("no configuration has {typed:?} in its name; biodist configs shows all")));
    }
    say(table(&rows, 2).trim_end());
    Ok(())
}

/// What the first line says, where it is a comment.
fn about(path: &Path) -> String {
    let Ok(file) = open_regular(path) else { return String::new() };
    let first = BufReader::new(file).lines().next().and_then(Result::ok).unwrap_or_default();
    first.strip_prefix('#').map_or(String::new(), |about| quote::part(about.trim(), 200))
}
