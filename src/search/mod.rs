//! Random search for hyperparameters (Section 5.3 of the paper), with successive halving for data on which not every trial can be
//! trained to the end.
//!
//! A trial is a plain run of `biodist train` in a process of its own: one that diverges or is killed takes nothing along, and each can be
//! looked at, evaluated and gone on with like any other run. What a sweep knows is in files that are whole or not there, so it goes on where
//! it stopped, whatever stopped it.

mod children;
mod folder;
pub mod results;
mod rungs;
mod space;
mod summary;

pub use children::{Children, Ended, Jobs};
pub use folder::{Fingerprints, SweepFolder};
pub use results::{Ending, Reached, Results, Trial};
pub use rungs::{Epochs, Rung, Rungs};
pub use space::{Domain, Space, Values, assignment};
pub use summary::{describe, percent, summary};
