//! CUDA without libtorch: the driver, NVIDIA's compiler and the kernels that it compiles, found while the program runs; and the backend on
//! them.

mod backend;
pub mod driver;
mod failure;
mod gpu;
mod inbox;
pub mod kernels;
pub mod libraries;
mod marks;
mod normalization;
pub mod nvrtc;
mod operations;
mod parameters;
mod part;
mod passes;
mod pool;
mod rates;
mod tables;
mod transfers;
mod update;
mod wire;
mod work;

pub use backend::{CudaBackend, Setup};
pub use failure::{Failure, old_driver};
pub use gpu::{Address, Event, Function, Gpu, Graph, Stream};
pub use marks::{Marks, Work};
pub use parameters::bytes as bytes_of_parameters;
pub use part::{Course, Meeting, Part};
pub use rates::{memory_rate, product_rate};

/// The oldest compute capability whose kernels are tried: what asynchronous copies and tf32 need.
const OLDEST: (i32, i32) = (8, 0);
