//! What this program was built from, and what it runs with.

use std::sync::LazyLock;

/// Version of the crate.
pub const CRATE: &str = env!("CARGO_PKG_VERSION");
/// Commit of the sources, `-dirty` where they had changed; "unknown" where they came without their history.
pub const COMMIT: &str = env!("BIODIST_COMMIT");
/// libtorch that the program was linked against, where it was.
pub const LIBTORCH: Option<&str> = option_env!("BIODIST_LIBTORCH");

/// The MPI library that the program found: its name and version.
pub fn mpi() -> String {
    let text = mpi::environment::library_version().unwrap_or_default();
    let text = text.trim_matches(['\0', '\n', ' ']);
    // Open MPI says everything about itself on one line, others on many; the first item names it.
    text.split([',', '\n']).next().unwrap_or("unknown").trim().to_owned()
}

/// All of them, for `--version`.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let libtorch = LIBTORCH.map_or("without libtorch".to_owned(), |version| format!("libtorch {version}"));
        format!("{CRATE} (commit {COMMIT}, {libtorch}, {})", mpi())
    });
    &TEXT
}
