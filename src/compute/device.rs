//! Which device a rank computes on.

use std::fmt;
use std::sync::Once;

use anyhow::Result;

use super::cuda::driver;
use super::settings::DeviceChoice;
#[cfg(feature = "torch")]
use super::torch::libtorch::gpus;
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

/// Why this process can compute on no GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// The program was built without libtorch.
    Libtorch,
    /// The loader's reason.
    Driver(String),
    /// libtorch's part for GPUs, or what it needs: the loader's reason.
    Libraries(String),
    /// The driver shows none.
    Gpu,
}

impl fmt::Display for Lack {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Lack::Libtorch => write!(
                out,
                "this biodist was built without libtorch, which computes on GPUs; \
                 `GPU=yes make setup && cargo build --release --features torch` builds it with libtorch"
            ),
            Lack::Driver(reason) => write!(out, "this machine has no NVIDIA driver ({reason})"),
            Lack::Libraries(reason) => {
                write!(out, "libtorch was installed without its NVIDIA libraries ({reason}); `GPU=yes make setup` installs them")
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
            Lack::Libraries(_) => true,
            Lack::Driver(_) | Lack::Gpu => false,
        }
    }
}

#[cfg(not(feature = "torch"))]
fn gpus() -> Result<usize, Lack> {
    Err(Lack::Libtorch)
}

/// GPUs that several processes of this machine can share where `parallel.device` is `choice`.
pub fn shared(choice: DeviceChoice) -> usize {
    if choice == DeviceChoice::Cpu { 0 } else { count() }
}

/// GPUs that this process can compute on.
pub fn count() -> usize {
    gpus().unwrap_or(0)
}

/// The device that `parallel.device` means for number `local_rank` of this host's ranks: with "auto" a GPU where there is one.
///
/// Ranks take GPUs in turn. Where a launcher shows each rank a GPU of its own, that is the only one, and every rank takes it.
pub fn choose(choice: DeviceChoice, local_rank: usize) -> Result<Device> {
    static SAID: Once = Once::new();
    if choice == DeviceChoice::Cpu {
        return Ok(Device::Cpu);
    }
    match gpus() {
        Ok(gpus) => Ok(Device::Cuda(local_rank % gpus)),
        Err(lack) if choice == DeviceChoice::Cuda => {
            Err(Exit::Usage.error(format!("parallel.device = \"cuda\": {lack}; use \"auto\" or \"cpu\" to compute on the CPU")))
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
        assert_eq!(choose(DeviceChoice::Cpu, 3).unwrap(), Device::Cpu);
        if count() > 0 {
            assert!(choose(DeviceChoice::Cuda, 0).unwrap().is_cuda() && choose(DeviceChoice::Auto, 0).unwrap().is_cuda());
            return;
        }
        assert_eq!(choose(DeviceChoice::Auto, 0).unwrap(), Device::Cpu);
        let error = choose(DeviceChoice::Cuda, 0).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().starts_with("parallel.device = \"cuda\": ") && error.to_string().contains("\"cpu\""), "{error}");
    }

    #[test]
    fn each_lack_has_its_advice() {
        let said = |lack: Lack| lack.to_string();
        assert!(said(Lack::Libtorch).contains("--features torch"));
        assert!(said(Lack::Driver("libcuda.so.1: cannot open".into())).contains("no NVIDIA driver (libcuda.so.1"));
        assert!(said(Lack::Libraries("libcudnn.so.9".into())).contains("GPU=yes make setup"));
        assert!(said(Lack::Gpu).contains("CUDA_VISIBLE_DEVICES"));
    }
}
