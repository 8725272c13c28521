//! libtorch as this process has it: set up once, with its part for GPUs where the machine has some.

use std::sync::OnceLock;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::compute::cuda::libraries::open;
use crate::compute::device::Lack;

/// GPUs that libtorch can compute on, at least one.
pub fn gpus() -> Result<usize, Lack> {
    set_up()?;
    match tch::Cuda::device_count() {
        1.. => Ok(tch::Cuda::device_count() as usize),
        _ => Err(Lack::Gpu),
    }
}

/// Loads libtorch's CUDA part where the machine has NVIDIA's driver: the program is linked against libtorch's CPU part alone.
///
/// Must come before anything else that calls libtorch: the first question about CUDA settles the answer for the life of the process.
pub(super) fn set_up() -> Result<(), Lack> {
    static FOUND: OnceLock<Result<(), Lack>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let found = load_cuda();
        // Its own threads would compete with ours.
        tch::set_num_threads(1);
        found
    });
    found.clone()
}

fn load_cuda() -> Result<(), Lack> {
    open("libcuda.so.1").map_err(|error| Lack::Driver(error.to_string()))?;
    // Global, for libtorch's CPU part looks its functions up by name; never closed, for the same reason.
    // SAFETY: what libtorch does when it is loaded is what it does in every program that is linked with it.
    let library = unsafe { Library::open(Some("libtorch_cuda.so"), RTLD_NOW | RTLD_GLOBAL) };
    std::mem::forget(library.map_err(|error| Lack::Libraries(error.to_string()))?);
    Ok(())
}
