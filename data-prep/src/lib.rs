//! Shards of labelled images, and what prepares them.
//!
//! A data set is a folder of shards with a manifest. [`Dataset`] opens one for reading, [`DatasetWriter`] makes one; [`mod@format`]
//! says what the bytes are. The `data-prep` binary beside this library turns images of various origins into such folders.

pub mod archive;
pub mod augment;
mod convert;
pub mod dataset;
pub mod error;
pub mod fault;
pub mod files;
pub mod format;
pub mod inspect;
pub mod jpeg;
pub mod manifest;
pub mod output;
pub mod photo;
pub mod prepare;
pub mod progress;
pub mod random;
pub mod shard;
pub mod statistics;
pub mod stray;
pub mod text;
pub mod writer;

pub use augment::{AugmentKey, Augmentation};
pub use dataset::{Dataset, Sample};
pub use error::UsageError;
pub use fault::install_fault_handler;
pub use manifest::Manifest;
pub use statistics::{ChannelStatistics, PixelSums};
pub use writer::{DatasetWriter, Description, ShardWriter};
