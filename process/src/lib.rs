//! What the project's programs share as processes of a system: which signals they listen to, how they speak without waiting for whoever
//! reads, how they show what others wrote, how they open and write files, how they end and tell of it, how they start others, what started
//! them, how they start threads, and what processes before them left behind.
//!
//! `biodist` and `biodist-launch` both need all of it, and neither is a part of the other.

#![deny(clippy::undocumented_unsafe_blocks)]

pub mod ancestors;
pub mod arguments;
pub mod exit;
pub mod files;
pub mod host;
pub mod last_word;
pub mod leftovers;
pub mod quote;
pub mod ranks;
pub mod signals;
pub mod speech;
pub mod start;
pub mod threads;
