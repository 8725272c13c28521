//! Training with biologically motivated learning rules, data-parallel, on CPUs and GPUs.

pub mod config;
pub mod exit;
pub mod network;
