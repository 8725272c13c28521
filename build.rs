//! Lets the binary find libtorch without LD_LIBRARY_PATH: the folder it was linked against goes on its rpath.

use std::path::PathBuf;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-changed=build.rs");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let libtorch = std::env::var("LIBTORCH").map_or_else(|_| root.join(".libtorch/torch"), PathBuf::from);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", libtorch.join("lib").display());
}
