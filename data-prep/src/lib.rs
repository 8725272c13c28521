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
