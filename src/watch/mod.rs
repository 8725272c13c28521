//! Looking after all ranks: the watchdog, which ends a job that no longer moves, and the file of a trace.
//!
//! Both read what [`observe`](crate::observe) keeps on each rank, and reach the others by the exchange that they watch.

mod board;
mod guard;
mod judge;
mod link;
mod trace;
mod watchdog;

pub use trace::Trace;
pub use watchdog::watch;
