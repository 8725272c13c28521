//! Finding a configuration by its name alone: `biodist train imagenet_dtp.toml` works wherever it is typed.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::source::usage;
use crate::key::nearest;

/// `path` if it is there, else the file of that name in `configs/` or among the installed configurations.
pub(super) fn find(path: &Path) -> Result<PathBuf> {
    let mut folders = vec![PathBuf::from("configs")];
    if let Some(beside) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        folders.push(beside.join("../share/biodist/configs"));
        folders.push(beside.join("../../configs"));
    }
    find_in(path, &folders)
}

fn find_in(path: &Path, folders: &[PathBuf]) -> Result<PathBuf> {
    if path.is_dir() {
        return Err(usage(format!("{}: a folder, not a configuration; a run's is its config.toml", path.display())));
    }
    // Where it cannot be looked at, opening it says why.
    if path.try_exists().unwrap_or(true) {
        return Ok(path.to_path_buf());
    }
    if path.is_relative()
        && let Some(found) = folders.iter().map(|folder| folder.join(path)).find(|candidate| candidate.is_file())
    {
        return Ok(found);
    }
    let looked: Vec<_> = folders.iter().filter(|folder| folder.is_dir()).map(|folder| folder.display().to_string()).collect();
    let places =
        if looked.is_empty() { "no configs/ folder was found either".to_owned() } else { format!("nor is it in {}", looked.join(", ")) };
    Err(usage(format!("{}: no such configuration, {places}{}", path.display(), suggestion(path, folders))))
}

fn suggestion(path: &Path, folders: &[PathBuf]) -> String {
    let entries = folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| name.ends_with(".toml")).collect();
    names.sort();
    names.dedup();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    // A name cut short: mnist_fc_dtp for mnist_fc_dtp_parallel and mnist_fc_dtp_alternating.
    let longer: Vec<&str> = names.iter().copied().filter(|name| name.starts_with(&*stem)).collect();
    let meant = if (1..=4).contains(&longer.len()) {
        longer
    } else {
        nearest(&path.file_name().unwrap_or_default().to_string_lossy(), &names).into_iter().collect()
    };
    if meant.is_empty() { String::new() } else { format!("; did you mean {}?", meant.join(" or ")) }
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

        let error = find_in(Path::new("mnist_fc_pb.toml"), &folders).unwrap_err().to_string();
        assert!(error.contains("did you mean mnist_fc_bp.toml?"), "{error}");
        let error = find_in(Path::new("mnist_fc"), &folders).unwrap_err().to_string();
        assert!(error.ends_with("did you mean mnist_fc_bp.toml?"), "{error}");
        assert!(error.contains("first") && error.contains("second"), "{error}");
        assert!(find_in(&root.path().join("mnist_fc_bp.toml"), &folders).is_err(), "an absolute path is taken as it is");
        assert!(find_in(root.path(), &folders).unwrap_err().to_string().contains("a folder"));
    }
}
