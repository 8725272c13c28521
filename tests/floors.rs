//! The floors of docs/development.md: what a part of the program imports lies on a floor below.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The floor of each part, as the page's table has them: `| 5 | `rules`, `job` | ... |`.
fn floors() -> BTreeMap<String, usize> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/development.md")).unwrap();
    let mut floors = BTreeMap::new();
    for row in page.lines() {
        let mut cells = row.trim_start_matches('|').split('|').map(str::trim);
        let Some(floor) = cells.next().and_then(|cell| cell.parse().ok()) else { continue };
        let parts = cells.next().unwrap().split(',').map(|part| part.trim().trim_matches('`').to_owned());
        floors.extend(parts.map(|part| (part, floor)));
    }
    floors
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
    let floors = floors();
    assert!(floors.len() > 20, "the page's table is read: {floors:?}");
    let floor = |part: &str| *floors.get(part).unwrap_or_else(|| panic!("src/{part} is on no floor of docs/development.md"));
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
