//! Training with biologically motivated learning rules, data-parallel, on CPUs and GPUs.

pub mod agreement;
pub mod cli;
pub mod commands;
pub mod compute;
pub mod config;
pub mod cpus;
pub mod data;
pub mod exchange;
pub mod exit;
pub mod host;
pub mod job;
pub mod network;
pub mod observe;
pub mod plan;
pub mod quote;
pub mod report;
pub mod rules;
pub mod search;
pub mod text;
pub mod training;
pub mod versions;
pub mod watch;
