//! Training: the loop round a [learner](crate::learner), which performs the steps.
//!
//! [`Trainer`] is the loop. What it does between steps is beside it: checkpoints, metrics, evaluation, and what a person sees.

mod best;
mod checkpoint;
mod doubts;
mod evaluate;
mod identity;
mod initial;
mod metrics;
mod progress;
mod recorder;
pub mod records;
mod run_folder;
mod schedule;
mod signals;
mod state;
mod tally;
mod tensor_file;
mod tensorboard;
mod trainer;

pub use best::Best;
pub use checkpoint::Checkpoints;
pub use doubts::{doubts, longer};
pub use evaluate::{Evaluation, evaluate};
pub use initial::Initial;
pub use run_folder::{CONFIG, DIVERGED, RUN, RunFolder, about, holds_run};
pub use schedule::Schedule;
pub use signals::StopRequest;
pub use state::State;
pub use tally::Sums;
pub use trainer::{Run, Splits, Trainer};
