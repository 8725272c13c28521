//! From shards to batches: which samples (`order`), what the network sees of them (`dataset`), and when (`loader`, on the threads of
//! `pipeline`).

mod dataset;
mod loader;
mod order;
mod pipeline;
#[cfg(test)]
mod tests;

pub use dataset::{DataSet, Form, TrainingData};
pub use loader::{EvaluationBatches, Loader, evaluation_batches, plain_batch};
pub use order::{BatchPlan, Position, batches_per_epoch, evaluation_part, evenly};
pub use pipeline::Loaded;
