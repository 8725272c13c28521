//! The backend for GPUs, on a stand-in for one.

pub mod stand_in;
