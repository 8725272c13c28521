//! What the program says of itself.

use std::process::Command;

use crate::common::expect;

fn said(columns: usize, arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_data-prep")).env("COLUMNS", columns.to_string()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_fits_terminals_and_breaks_no_example() {
    let general = said(80, &["--help"]);
    let commands: Vec<&str> = general
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .lines()
        .map_while(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split(' ').next())
        .filter(|word| !word.is_empty())
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for columns in [80, 120] {
        for command in &commands {
            let help = if *command == "help" { said(columns, &["--help"]) } else { said(columns, &[*command, "--help"]) };
            // The line of usage is never broken.
            let mut lines = help.lines().filter(|line| !line.starts_with("Usage: "));
            assert!(lines.all(|line| line.chars().count() <= columns), "{command}: {help}");
            assert!(help.contains("Usage: data-prep"), "{help}");
        }
    }
    let examples = general.split("Examples:\n").nth(1).unwrap();
    assert_eq!(examples, said(120, &["--help"]).split("Examples:\n").nth(1).unwrap());
    // An example goes on behind a backslash alone.
    let lines: Vec<&str> = examples.lines().take_while(|line| !line.is_empty()).collect();
    for (before, line) in lines.iter().zip(&lines[1..]) {
        assert_eq!(line.starts_with("  data-prep "), !before.ends_with('\\'), "{line}");
    }
}

#[test]
fn the_version_names_the_commit() {
    let version = said(80, &["--version"]);
    let commit = version.strip_prefix(concat!("data-prep ", env!("CARGO_PKG_VERSION"), " (commit ")).unwrap().strip_suffix(")\n").unwrap();
    assert!(commit == "unknown" || commit.trim_end_matches("-dirty").len() >= 12, "{version}");
    let folder = tempfile::tempdir().unwrap();
    assert!(expect(folder.path(), "info none", 2).starts_with("data-prep: "));
}
