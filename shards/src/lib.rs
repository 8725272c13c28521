//! Shards of labelled images: what training reads, and whatever prepares them writes.
//!
//! A data set is a folder of shards with a manifest. [`Dataset`] opens one for reading, [`DatasetWriter`] makes one; [`mod@format`]
//! says what the bytes are. [`Augmentation`] is what happens to a sample on its way from there to a network.

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod augment;
mod convert;
pub mod dataset;
pub mod fault;
pub mod format;
pub mod jpeg;
pub mod manifest;
pub mod random;
pub mod shard;
pub mod statistics;
pub mod writer;

pub use augment::{AugmentKey, Augmentation};
pub use dataset::{Dataset, Sample};
pub use fault::install_fault_handler;
pub use manifest::Manifest;
pub use statistics::{ChannelStatistics, PixelSums};
pub use writer::{DatasetWriter, Description, ShardWriter};
