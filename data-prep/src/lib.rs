//! What prepares images of various origins as shards, and looks at shards. The `data-prep` binary beside this library is its command
//! line; the format itself, which training reads as well, is the crate `shards`.

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod archive;
pub mod inspect;
pub mod output;
pub mod photo;
pub mod prepare;
pub mod progress;
pub mod stray;

/// Threads for work in parallel; 0 stands for one per processor. Not rayon's own ones, which it panics for where there are none.
///
/// # Errors
/// Threads that the system has not to give.
pub fn pool(threads: usize) -> std::io::Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().map_err(biodist_process::threads::lack)
}
