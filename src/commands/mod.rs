//! The program's commands: each takes its arguments, does its work, and says the rest in its error.

pub mod check;
pub mod image;
mod text;
