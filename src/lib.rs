//! Training with biologically motivated learning rules, data-parallel, on CPUs and GPUs.

pub mod commands;
pub mod compute;
pub mod config;
pub mod data;
pub mod exchange;
pub mod exit;
pub mod network;
pub mod plan;
pub mod rules;
pub mod training;
