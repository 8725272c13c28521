//! The program as a user starts it, alone and under a real mpirun, on small data that the tests make.

mod bad_input;
mod bench;
mod best;
mod cells;
mod diagnostics;
mod disk;
mod host_memory;
mod launcher;
mod own_rule;
mod photos;
mod reading;
mod replicas;
mod report;
mod resume;
mod same_bits;
mod seeds;
mod shards;
mod signals;
mod site;
mod spans;
mod stall;
mod sweep;
mod tensorboard;
mod trace;
