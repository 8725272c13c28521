//! The program as a user starts it. One program of tests: linked once, where each file by itself would be.

mod cifar;
mod common;
mod fetch;
mod folder;
mod help;
mod idx;
mod imagenet;
mod inspect;
mod jpeg;
mod memory;
mod npy;
mod output;
mod signals;
mod tree;
