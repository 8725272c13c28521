//! CUDA beside libtorch: the driver, NVIDIA's compiler and the kernels that it compiles, found while the program runs.

pub mod driver;
pub mod kernels;
pub mod libraries;
pub mod nvrtc;
