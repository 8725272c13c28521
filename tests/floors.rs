//! The floors of docs/development.md: what a part of the program imports lies below it, or beside it where the page says so.

use std::path::{Path, PathBuf};

/// From the ground up. Parts of one floor do not import each other.
const FLOORS: [&[&str]; 14] = [
    &["exit", "host", "observe", "quote", "text", "versions"],
    &["network"],
    &["compute"],
    &["exchange"],
    &["job", "rules"],
    &["config", "cpus", "watch"],
    &["data"],
    &["agreement", "plan"],
    &["training"],
    &["search"],
    &["report"],
    &["commands"],
    &["cli"],
    &["lib", "main"],
];

fn floor(part: &str) -> usize {
    let found = FLOORS.iter().position(|parts| parts.contains(&part));
    found.unwrap_or_else(|| panic!("src/{part} is on no floor; docs/development.md and this test say where parts lie"))
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, into);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            into.push(entry);
        }
    }
}

/// The parts of the program that `text` names: `a` and `b` of `crate::a::x`, `crate::{a, b::y}`.
fn named(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for rest in text.split("crate::").skip(1) {
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{').and_then(|list| list.split('}').next()) {
            Some(list) => parts.extend(list.split(',').map(|part| word(part.trim())).filter(|part| !part.is_empty())),
            None => parts.push(word(rest)),
        }
    }
    parts
}

#[test]
fn imports_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 150, "all sources are read");
    let mut up = Vec::new();
    for file in files {
        let within = file.strip_prefix(&root).unwrap();
        let part = within.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned();
        // Tests may use whatever there is.
        if within.components().any(|name| name.as_os_str() == "tests" || name.as_os_str() == "tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let code: String = text
            .split("#[cfg(test)]\nmod tests {")
            .next()
            .unwrap()
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .flat_map(|line| [line, "\n"])
            .collect();
        for other in named(&code) {
            if other != part && floor(&other) >= floor(&part) {
                up.push(format!("{} imports {other}", within.display()));
            }
        }
    }
    assert!(up.is_empty(), "imports that point up: {up:#?}");
}

#[test]
fn names_are_found() {
    assert_eq!(
        named("use crate::exit::Exit;\nuse crate::{job, versions as v};\nlet x = crate::text::table(y);"),
        ["exit", "job", "versions", "text"]
    );
}
