//! Finding a configuration by its name alone: `biodist train imagenet_dtp.toml` works wherever it is typed.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Result;
use biodist_process::quote;

use super::source::usage;
use crate::key::nearest;

/// A run's configuration, in its folder.
pub const OF_RUN: &str = "config.toml";

/// `path` if it is there, with or without its ending, or the configuration of the run in that folder; else the file of that name in `configs/`
/// or among the installed configurations.
pub(super) fn find(path: &Path) -> Result<PathBuf> {
    find_in(path, &folders())
}

/// The configuration that comes with the project under this name, whatever lies where the program is started.
pub fn shipped(name: &str) -> Option<PathBuf> {
    folders().iter().rev().map(|folder| folder.join(name)).find(|path| may_be_file(path))
}

/// Every configuration that a name alone finds, by its name.
pub fn all() -> BTreeMap<String, PathBuf> {
    configurations(&folders())
}

/// Where names are looked for, in words.
pub fn places() -> String {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.display().to_string())).unwrap_or_default();
    let shipped = SHIPPED.map(|at| format!("{beside}/{at}"));
    format!("{HERE}, {}", shipped.join(" or "))
}

/// Of the working directory.
const HERE: &str = "configs";
/// Beside the program: as it is installed, and as it is built.
const SHIPPED: [&str; 2] = ["../share/biodist/configs", "../../configs"];

/// Where names are looked for, the first to win at the front.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from(HERE)];
    if let Some(beside) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.extend(SHIPPED.iter().filter_map(|at| beside.join(at).canonicalize().ok()));
    }
    folders
}

fn find_in(path: &Path, folders: &[PathBuf]) -> Result<PathBuf> {
    if path.is_dir() {
        let own = path.join(OF_RUN);
        return if may_be_file(&own) {
            Ok(own)
        } else {
            Err(usage(format!("{}: a folder without {OF_RUN}, so neither a configuration nor a run", path.display())))
        };
    }
    // Where it cannot be looked at, opening it says why.
    if path.try_exists().unwrap_or(true) {
        return Ok(path.to_path_buf());
    }
    let ended = if path.extension().is_some_and(|ending| ending == "toml") { path.to_owned() } else { with_ending(path) };
    let named = folders.iter().filter(|_| path.is_relative()).map(|folder| folder.join(&ended));
    if let Some(found) = std::iter::once(ended.clone()).chain(named).find(|candidate| may_be_file(candidate)) {
        return Ok(found);
    }
    let looked: Vec<_> = folders.iter().filter(|folder| folder.is_dir()).map(|folder| folder.display().to_string()).collect();
    let elsewhere = if looked.is_empty() {
        format!("nor is there a folder of configurations: {}", places())
    } else {
        format!("nor is it in {}", looked.join(", "))
    };
    Err(usage(format!("{}: no such configuration, {elsewhere}{}", path.display(), suggestion(path, folders))))
}

/// Whether a file is there, or something that cannot be looked at: reading it says why.
pub fn may_be_file(path: &Path) -> bool {
    let there = path.metadata().map(|there| there.is_file());
    there.unwrap_or_else(|error| !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

fn with_ending(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".toml");
    name.into()
}

/// The folder, among configurations, of those of rules that came after the paper.
const BEYOND: &str = "beyond";

fn configurations(folders: &[PathBuf]) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    for (folder, prefix) in folders.iter().flat_map(|folder| [(folder.clone(), String::new()), (folder.join(BEYOND), format!("{BEYOND}/"))])
    {
        for path in folder.read_dir().into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.extension().is_some_and(|ending| ending == "toml")
                && let Some(stem) = path.file_stem().and_then(|stem| stem.to_str())
            {
                found.entry(format!("{prefix}{stem}")).or_insert(path);
            }
        }
    }
    found
}

/// Whether every part of `typed` is one of the parts of `name`, or begins one: mnist_dtp means mnist_fc_dtp_parallel and others.
pub fn means(typed: &str, name: &str) -> bool {
    let mut parts = name.split(['_', '/']);
    typed.split(['_', '/', ' ']).all(|typed| parts.any(|part| part.starts_with(typed)))
}

/// Names that a message suggests.
const SUGGESTED: usize = 4;

fn suggestion(path: &Path, folders: &[PathBuf]) -> String {
    let known = configurations(folders);
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".toml").unwrap_or(&name);
    let meant: Vec<&str> = names.iter().copied().filter(|name| means(stem, name)).collect();
    match meant.len() {
        0 => nearest(stem, &names).map_or(String::new(), |near| format!("; did you mean {near}?")),
        1..=SUGGESTED => format!("; did you mean {}?", meant.join(" or ")),
        many => format!("; biodist configs {} shows {many} that it may mean", quote::part(stem, 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_for_in_the_folders_in_order() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().join("first"), root.path().join("second")];
        for folder in &folders {
            std::fs::create_dir(folder).unwrap();
            std::fs::write(folder.join("both_here.toml"), "").unwrap();
        }
        std::fs::write(folders[1].join("mnist_fc_bp.toml"), "").unwrap();
        assert_eq!(find_in(Path::new("both_here.toml"), &folders).unwrap(), folders[0].join("both_here.toml"));
        assert_eq!(find_in(Path::new("mnist_fc_bp.toml"), &folders).unwrap(), folders[1].join("mnist_fc_bp.toml"));

        assert_eq!(find_in(Path::new("mnist_fc_bp"), &folders).unwrap(), folders[1].join("mnist_fc_bp.toml"), "without its ending");

        let refused = |name: &str| find_in(Path::new(name), &folders).unwrap_err().to_string();
        let error = refused("mnist_fc_pb.toml");
        assert!(error.contains("did you mean mnist_fc_bp?"), "{error}");
        assert!(error.contains("first") && error.contains("second"), "{error}");
        for typed in ["mnist_fc", "mnist_bp.toml", "mnist_b"] {
            assert!(refused(typed).ends_with("did you mean mnist_fc_bp?"), "{}", refused(typed));
        }
        for number in 0..5 {
            std::fs::write(folders[1].join(format!("mnist_fc_dtp_{number}.toml")), "").unwrap();
        }
        assert!(
            refused("mnist_dtp.toml").ends_with("; biodist configs mnist_dtp shows 5 that it may mean"),
            "{}",
            refused("mnist_dtp.toml")
        );
        assert!(find_in(&root.path().join("mnist_fc_bp.toml"), &folders).is_err(), "an absolute path is taken as it is");
        assert!(refused(root.path().to_str().unwrap()).contains("a folder without config.toml"));
        std::fs::write(root.path().join(OF_RUN), "").unwrap();
        assert_eq!(find_in(root.path(), &folders).unwrap(), root.path().join(OF_RUN), "a run's folder");
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        let root = tempfile::tempdir().unwrap();
        let folders = [root.path().join("configs"), root.path().join("run")];
        for (folder, name) in folders.iter().zip(["round.toml", OF_RUN]) {
            std::fs::create_dir(folder).unwrap();
            std::os::unix::fs::symlink(name, folder.join(name)).unwrap();
        }
        assert_eq!(find_in(Path::new("round"), &folders).unwrap(), folders[0].join("round.toml"));
        assert_eq!(find_in(&folders[1], &folders).unwrap(), folders[1].join(OF_RUN));
    }
}
