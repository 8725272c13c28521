//! What this rank is doing, for those who ask: the watchdog, which ends a job that no longer moves, and the [`trace`] of a run.
//!
//! Code says what it does by opening a [`Span`]; the innermost open one, and a count of those begun and ended, lie in the rank's [`Heartbeat`],
//! which other processes read. That costs a few unordered stores, so it is always on. Threads that help the main one open no spans.

mod doing;
pub mod heartbeat;
pub mod trace;

pub use doing::{Doing, Row};
pub use heartbeat::{Heartbeat, Reading, Span, leave, loaded, span, span_unless_in, step, transferred};
