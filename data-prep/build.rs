//! Lets the program say what it was built from.

use std::path::Path;

#[path = "../process/commit.rs"]
mod commit;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let commit = commit::commit(&root, &["data-prep/src", "shards/src", "resize/src", "process/src"]);
    println!("cargo:rustc-env=DATA_PREP_COMMIT={}", commit.unwrap_or_else(|| "unknown".to_owned()));
}
