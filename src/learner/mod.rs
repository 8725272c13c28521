//! One rank's learner: a rule on a device, with optimisers and its part in the exchange. It performs steps, and knows neither files nor
//! when to do what.

mod devices;
mod diagnostics;
mod engine;
mod executor;
mod optimizer;
pub mod replicas;
pub mod self_test;

pub use devices::choose as choose_device;
pub use diagnostics::LayerDiagnostics;
pub use engine::{Engine, OptimizerSteps, Seconds};
pub use executor::Rates;
