//! What the project's programs share as processes of a system: which signals they listen to, how they speak without waiting for whoever
//! reads, how they show what others wrote, how they open and write files, what started them, and what processes before them left behind.

pub mod ancestors;
pub mod files;
pub mod host;
pub mod leftovers;
pub mod quote;
pub mod ranks;
pub mod signals;
pub mod speech;
