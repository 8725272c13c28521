//! For build scripts: what the programs were built from.

use std::path::Path;
use std::process::Command;

/// The commit of the sources, marked where they differ from it. None where they are no git checkout of their own. The build script is
/// run again when the commit changes, or one of these `sources` does.
pub fn commit(root: &Path, sources: &[&str]) -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // Sources unpacked inside somebody else's repository are not of its commits.
    if Path::new(&git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    let head = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in sources.iter().copied().chain([head.as_str(), "Cargo.lock"]) {
        if root.join(path).exists() {
            println!("cargo:rerun-if-changed={}", root.join(path).display());
        }
    }
    git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])
}
