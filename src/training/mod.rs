//! Training: the engine that performs steps, and the loop round it.

mod adam;
mod engine;
mod executor;

pub use engine::{Engine, OptimizerSteps, Seconds};
