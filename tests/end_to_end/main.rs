//! The program as a user starts it, alone and under a real mpirun, on small data that the tests make.

mod bad_input;
mod bench;
mod disk;
mod launcher;
mod replicas;
mod resume;
mod same_bits;
mod signals;
mod site;
mod stall;
mod trace;
