//! Which device a rank computes on.

use std::fmt;
use std::sync::Once;

use anyhow::Result;

use super::cuda::driver;
use super::cuda::nvrtc::Nvrtc;
use super::settings::{DeviceChoice, KernelChoice};
use crate::exit::Exit;

/// Where a rank computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl Device {
    pub fn is_cuda(self) -> bool {
        self != Device::Cpu
    }
}

/// Whose kernels compute on GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// This program's.
    Own,
    Libtorch,
}

impl Kernels {
    /// What `parallel.kernels` means on a GPU.
    pub fn on_gpu(choice: KernelChoice) -> Kernels {
        if choice == KernelChoice::Libtorch { Kernels::Libtorch } else { Kernels::Own }
    }
}

/// Why this process can compute on no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// libtorch's kernels were asked for, and the program was built without it.
    Libtorch,
    /// The loader's reason.
    Driver(String),
    /// libtorch's part for GPUs, or what it needs: the loader's reason.
    Libraries(String),
    /// What compiles this program's kernels: the loader's reason.
    Compiler(String),
    /// The driver shows none.
    Gpu,
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Lack::Libtorch => write!(
                out,
                "this biodist was built without libtorch; `GPU=libtorch make setup && cargo build --release --features torch` builds it \
                 with libtorch, and parallel.kernels = \"cuda\" needs none"
            ),
            Lack::Driver(reason) => write!(out, "this machine has no NVIDIA driver ({reason})"),
            Lack::Libraries(reason) => {
                write!(out, "libtorch was installed without its NVIDIA libraries ({reason}); `GPU=libtorch make setup` installs them")
            }
            Lack::Compiler(reason) => {
                write!(out, "NVRTC, which compiles the kernels, is not here ({reason}); `GPU=yes make setup` installs it")
            }
            Lack::Gpu => write!(out, "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it)"),
        }
    }
}

impl Lack {
    /// Whether there are GPUs all the same.
    fn idles_gpus(&self) -> bool {
        match self {
            Lack::Libtorch => driver::gpus().is_ok_and(|gpus| gpus > 0),
            Lack::Libraries(_) | Lack::Compiler(_) => true,
            Lack::Driver(_) | Lack::Gpu => false,
        }
    }
}

/// GPUs that kernels of `kernels` can compute on, at least one.
fn gpus(kernels: KernelChoice) -> Result<usize, Lack> {
    match Kernels::on_gpu(kernels) {
        Kernels::Own => gpus_of_driver(),
        Kernels::Libtorch => gpus_of_libtorch(),
    }
}

#[cfg(feature = "torch")]
fn gpus_of_libtorch() -> Result<usize, Lack> {
    super::torch::libtorch::gpus()
}

#[cfg(not(feature = "torch"))]
fn gpus_of_libtorch() -> Result<usize, Lack> {
    Err(Lack::Libtorch)
}

fn gpus_of_driver() -> Result<usize, Lack> {
    match driver::gpus().map_err(|error| Lack::Driver(format!("{error:#}")))? {
        0 => Err(Lack::Gpu),
        gpus => Nvrtc::load().map(|_| gpus).map_err(|error| Lack::Compiler(format!("{error:#}"))),
    }
}

/// GPUs that several processes of this machine can share where `parallel.device` is `choice`, and `parallel.kernels` `kernels`.
pub fn shared(choice: DeviceChoice, kernels: KernelChoice) -> usize {
    if choice == DeviceChoice::Cpu || kernels.of_cpu() { 0 } else { gpus(kernels).unwrap_or(0) }
}

/// GPUs that this process computes on unless it is told otherwise.
pub fn count() -> usize {
    shared(DeviceChoice::Auto, KernelChoice::Auto)
}

/// The device that `parallel.device` means for number `local_rank` of this host's ranks, with such kernels: with "auto" a GPU where there
/// is one.
///
/// Ranks take GPUs in turn. Where a launcher shows each rank a GPU of its own, that is the only one, and every rank takes it.
pub fn choose(choice: DeviceChoice, kernels: KernelChoice, local_rank: usize) -> Result<Device> {
    static SAID: Once = Once::new();
    if choice == DeviceChoice::Cpu || kernels.of_cpu() {
        return Ok(Device::Cpu);
    }
    match gpus(kernels) {
        Ok(gpus) => Ok(Device::Cuda(local_rank % gpus)),
        Err(lack) if choice == DeviceChoice::Cuda => {
            Err(Exit::Usage.error(format!("parallel.device = \"cuda\": {lack}; use \"auto\" or \"cpu\" to compute on the CPU")))
        }
        Err(lack) if kernels == KernelChoice::Cuda => {
            Err(Exit::Usage.error(format!("parallel.kernels = \"cuda\": {lack}; use \"auto\" to compute on the CPU")))
        }
        Err(lack) => {
            if local_rank == 0 && lack.idles_gpus() {
                SAID.call_once(|| log::warn!("computing on the CPU, not on this machine's GPU: {lack}"));
            }
            Ok(Device::Cpu)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_auto_is_the_cpu_and_cuda_an_error() {
        assert_eq!(choose(DeviceChoice::Cpu, KernelChoice::Auto, 3).unwrap(), Device::Cpu);
        if count() > 0 {
            assert!(
                choose(DeviceChoice::Cuda, KernelChoice::Auto, 0).unwrap().is_cuda()
                    && choose(DeviceChoice::Auto, KernelChoice::Auto, 0).unwrap().is_cuda()
            );
            return;
        }
        assert_eq!(choose(DeviceChoice::Auto, KernelChoice::Auto, 0).unwrap(), Device::Cpu);
        let error = choose(DeviceChoice::Cuda, KernelChoice::Auto, 0).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().starts_with("parallel.device = \"cuda\": ") && error.to_string().contains("\"cpu\""), "{error}");
        let error = choose(DeviceChoice::Auto, KernelChoice::Cuda, 0).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().starts_with("parallel.kernels = \"cuda\": "), "{error}");
    }

    #[test]
    fn kernels_of_the_cpu_compute_there_whatever_gpus_there_are() {
        for kernels in [KernelChoice::Avx512, KernelChoice::Avx2, KernelChoice::Portable] {
            assert_eq!((choose(DeviceChoice::Auto, kernels, 0).unwrap(), shared(DeviceChoice::Auto, kernels)), (Device::Cpu, 0));
        }
    }

    #[test]
    fn each_lack_has_its_advice() {
        let said = |lack: Lack| lack.to_string();
        assert!(said(Lack::Libtorch).contains("--features torch"));
        assert!(said(Lack::Driver("libcuda.so.1: cannot open".into())).contains("no NVIDIA driver (libcuda.so.1"));
        assert!(said(Lack::Libraries("libcudnn.so.9".into())).contains("`GPU=libtorch make setup`"));
        assert!(said(Lack::Compiler("libnvrtc.so.13".into())).contains("`GPU=yes make setup`"));
        assert!(said(Lack::Gpu).contains("CUDA_VISIBLE_DEVICES"));
    }
}
