//! Lets the program and its tests find libtorch and MPI without LD_LIBRARY_PATH, by rpaths: first where `make install` puts libtorch,
//! relative to the program, then the folders that it was linked against.

use std::path::PathBuf;
use std::process::Command;

/// From `PREFIX/bin` to libtorch as `scripts/install` lays it out.
const INSTALLED_LIBTORCH: &str = "$ORIGIN/../lib/biodist/torch/lib";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=MPICC");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let libtorch = std::env::var("LIBTORCH").map_or_else(|_| root.join(".libtorch/torch"), PathBuf::from);
    rpath(INSTALLED_LIBTORCH);
    rpath(&libtorch.join("lib").display().to_string());
    mpi_library_folders().iter().for_each(|folder| rpath(folder));
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
