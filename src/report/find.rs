//! Where the runs and random searches are: the folders that are named, and whatever lies in them at any depth.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::run::Run;
use super::sweep::Sweep;
use crate::exit::Exit;

/// What was found in some folders.
#[derive(Debug, Default)]
pub struct Found {
    pub runs: Vec<PathBuf>,
    pub sweeps: Vec<PathBuf>,
    /// Folders that hold neither, at any depth, beside those that do; and files that were named.
    pub passed_over: Vec<PathBuf>,
    /// Folders that were looked at, as they are without links: each counts once.
    seen: HashSet<PathBuf>,
}

impl Found {
    /// Searches `folders`. What holds nothing to report is passed over, be it named, as `runs/*` names whatever is there.
    ///
    /// # Errors
    /// [`Exit::Usage`] where one of them does not exist, or none holds anything to report.
    pub fn within(folders: &[PathBuf]) -> Result<Found> {
        let mut found = Found::default();
        for folder in folders {
            let looked = folder.try_exists();
            if !looked.map_err(|error| Exit::Usage.error(format!("{} cannot be looked at: {error}", folder.display())))? {
                return Err(Exit::Usage.error(format!("{}: no such folder", folder.display())));
            }
            if !folder.is_dir() || !found.search(folder, true)? {
                found.passed_over.push(folder.clone());
            }
        }
        if found.runs.is_empty() && found.sweeps.is_empty() {
            let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
            return Err(Exit::Usage.error(format!(
                "{}: nothing to report: of {} looked at none holds a run ({}) or a random search ({})",
                names.join(", "),
                super::counted(found.seen.len(), "folder", "folders"),
                Run::MARK,
                Sweep::MARKS.join(" or ")
            )));
        }
        Ok(found)
    }

    /// Whether `folder` is or holds a run or a random search. Files of their names are enough in one that is `named`; elsewhere they may
    /// be another program's.
    fn search(&mut self, folder: &Path, named: bool) -> Result<bool> {
        let real = folder.canonicalize().with_context(|| format!("{} cannot be read", folder.display()))?;
        if !self.seen.insert(real) {
            return Ok(true);
        }
        if Sweep::is_at(folder) && (named || Sweep::is_certain(folder)) {
            self.sweeps.push(folder.to_owned());
            return Ok(true);
        }
        let is_run = Run::is_at(folder) && (named || Run::is_certain(folder));
        if is_run {
            self.runs.push(folder.to_owned());
        }
        let mut entries = std::fs::read_dir(folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<PathBuf>>>())
            .with_context(|| format!("{} cannot be read", folder.display()))?;
        entries.sort();
        let mut empty = Vec::new();
        let mut any = false;
        for entry in entries {
            let is_folder = match entry.metadata() {
                Ok(there) => there.is_dir(),
                // A link that leads nowhere.
                Err(_) if entry.is_symlink() => {
                    empty.push(entry);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => false,
                Err(error) => return Err(error).with_context(|| format!("{} cannot be looked at", entry.display())),
            };
            if is_folder && !self.search(&entry, false)? {
                empty.push(entry);
            } else {
                any |= is_folder;
            }
        }
        // A run has folders of its own.
        if any && !is_run {
            self.passed_over.extend(empty);
        }
        Ok(any || is_run)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn runs_and_searches_are_found_at_any_depth_and_once() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), text).unwrap();
        };
        for run in ["all/a", "all/deep/er/b", "all/a/inner", "all/search/trials/000"] {
            write(&format!("{run}/config.toml"), "");
            write(&format!("{run}/metrics.jsonl"), "");
        }
        write("all/a/checkpoints/00000000/state.json", "{}");
        write("all/search/sweep.json", "{}");
        write("all/notes/deep/text", "");
        // Another program's, and a run that has lost its configuration.
        write("all/.tool/config.toml", "[build]\n");
        write("all/lost/metrics.jsonl", "");
        write("all/scores/results.jsonl", "{\"score\": 1}\n");
        write("all/text", "");
        symlink(path("all"), path("all/deep/round")).unwrap();
        symlink(path("nowhere"), path("all/gone")).unwrap();
        symlink("round", path("round")).unwrap();

        let found = Found::within(&[path("all"), path("all/a")]).unwrap();
        assert_eq!(found.runs, ["all/a", "all/a/inner", "all/deep/er/b"].map(path));
        assert_eq!(found.sweeps, [path("all/search")]);
        assert_eq!(found.passed_over, ["all/.tool", "all/gone", "all/lost", "all/notes", "all/scores"].map(path));

        // Whatever `all/*` names, there is a run among it.
        let found = Found::within(&["all/a", "all/text", "all/notes"].map(path)).unwrap();
        assert_eq!(
            (found.runs, found.passed_over),
            (["all/a", "all/a/inner"].map(path).to_vec(), ["all/text", "all/notes"].map(path).to_vec())
        );
        for (folders, words) in [
            (
                &["all/notes", "all/text"][..],
                "of 2 folders looked at none holds a run (config.toml) or a random search (sweep.json or results.jsonl)",
            ),
            (&["all/a", "nowhere"], "no such folder"),
            (&["all/a", "round"], "round cannot be looked at: Too many levels of symbolic links"),
        ] {
            let error = Found::within(&folders.iter().map(|folder| path(folder)).collect::<Vec<_>>()).unwrap_err();
            assert!(Exit::of(&error) == Exit::Usage && error.to_string().contains(words), "{error}");
        }
        // Reading it says why it cannot be read.
        std::fs::remove_file(path("all/a/config.toml")).unwrap();
        symlink("config.toml", path("all/a/config.toml")).unwrap();
        assert!(Found::within(&[path("all/a")]).unwrap().runs.contains(&path("all/a")));
    }
}
