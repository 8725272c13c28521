//! Training: the engine that performs steps, and the loop round it.
//!
//! [`Trainer`] is the loop. What it does between steps is beside it: checkpoints, metrics, evaluation, and what a person sees.

mod adam;
mod best;
mod checkpoint;
mod devices;
mod diagnostics;
mod engine;
mod evaluate;
mod executor;
mod identity;
mod metrics;
mod progress;
mod recorder;
pub mod records;
mod replicas;
mod run_folder;
mod schedule;
mod signals;
mod tensor_file;
mod tensorboard;
mod trainer;

pub use best::Best;
pub use checkpoint::{Checkpoints, State};
pub use devices::choose as choose_device;
pub use diagnostics::LayerDiagnostics;
pub use engine::{Engine, OptimizerSteps, Seconds};
pub use evaluate::{Evaluation, evaluate};
pub use metrics::Sums;
pub use run_folder::{CONFIG, RUN, RunFolder, about, holds_run};
pub use schedule::Schedule;
pub use signals::StopRequest;
pub use trainer::{Run, Splits, Trainer};
