//! The program's commands: each takes its arguments, does its work, and says the rest in its error.

pub mod bench;
pub mod check;
pub mod configs;
pub mod eval;
pub mod image;
pub mod keys;
mod memory;
mod overrides;
pub mod report;
mod room;
pub mod sweep;
pub mod train;
