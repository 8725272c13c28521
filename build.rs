//! Lets the program and its tests find libtorch and MPI without LD_LIBRARY_PATH, by rpaths: first where `make install` puts libtorch,
//! relative to the program, then the folders that it was linked against; libtorch only where the program is built with it. And lets the program say what it was built from.

use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "process/commit.rs"]
mod commit;

/// From `PREFIX/bin` to libtorch as `scripts/install` lays it out.
const INSTALLED_LIBTORCH: &str = "$ORIGIN/../lib/biodist/torch/lib";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=MPICC");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    if std::env::var_os("CARGO_FEATURE_TORCH").is_some() {
        let libtorch = std::env::var("LIBTORCH").map_or_else(|_| root.join(".libtorch/torch"), PathBuf::from);
        rpath(INSTALLED_LIBTORCH);
        rpath(&libtorch.join("lib").display().to_string());
        println!("cargo:rustc-env=BIODIST_LIBTORCH={}", libtorch_version(&libtorch).unwrap_or_else(|| "unknown".to_owned()));
    }
    mpi_library_folders().iter().for_each(|folder| rpath(folder));
    println!(
        "cargo:rustc-env=BIODIST_COMMIT={}",
        commit::commit(&root, &["src", "shards/src", "resize/src", "process/src"]).unwrap_or_else(|| "unknown".to_owned())
    );
}

/// The version that libtorch's headers give.
fn libtorch_version(libtorch: &Path) -> Option<String> {
    let headers = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    let text = headers.iter().find_map(|header| std::fs::read_to_string(libtorch.join(header)).ok())?;
    let part = |name: &str| {
        let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(name))?;
        line.split_whitespace().nth(2).map(str::to_owned)
    };
    Some(format!("{}.{}.{}", part("TORCH_VERSION_MAJOR")?, part("TORCH_VERSION_MINOR")?, part("TORCH_VERSION_PATCH")?))
}

fn rpath(folder: &str) {
    println!("cargo:rustc-link-arg=-Wl,-rpath,{folder}");
}

/// Where MPI's compiler wrapper links from: a cluster's module, say, that is not loaded any more when the program starts. Empty where
/// the wrapper cannot be asked; the bindings to MPI then say what is wrong.
fn mpi_library_folders() -> Vec<String> {
    let wrapper = std::env::var("MPICC").unwrap_or_else(|_| "mpicc".to_owned());
    let Ok(output) = Command::new(wrapper).arg("-show").output() else { return Vec::new() };
    let line = String::from_utf8_lossy(&output.stdout).into_owned();
    line.split_whitespace().filter_map(|word| word.strip_prefix("-L")).map(|folder| folder.trim_matches(['"', '\'']).to_owned()).collect()
}
