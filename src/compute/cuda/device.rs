//! Which device a rank computes on.

use anyhow::Result;
use tch::Device;

use super::libraries::{Cuda, load_libtorch_cuda};
use crate::config;
use crate::exit::Exit;

/// The device that `parallel.device` means for number `local_rank` of this host's ranks: with "auto" a GPU where there is one.
///
/// Ranks take GPUs in turn. Where a launcher shows each rank a GPU of its own, that is the only one, and every rank takes it.
pub fn choose(choice: config::Device, local_rank: usize) -> Result<Device> {
    if choice == config::Device::Cpu {
        return Ok(Device::Cpu);
    }
    let cuda = load_libtorch_cuda();
    let gpus = count();
    match (gpus, absent(cuda)) {
        (0, reason) if choice == config::Device::Cuda => {
            Err(Exit::Usage.error(format!("parallel.device = \"cuda\": {reason}; use \"auto\" or \"cpu\" to compute on the CPU")))
        }
        (0, reason) => {
            if let Cuda::NoLibtorch(_) = cuda {
                log::warn!("computing on the CPU: {reason}");
            }
            Ok(Device::Cpu)
        }
        (gpus, _) => Ok(Device::Cuda(local_rank % gpus)),
    }
}

/// GPUs that this process can use.
pub fn count() -> usize {
    if *load_libtorch_cuda() == Cuda::Loaded { tch::Cuda::device_count().max(0) as usize } else { 0 }
}

/// Why no GPU can be used.
fn absent(cuda: &Cuda) -> String {
    match cuda {
        Cuda::NoDriver(reason) => format!("this machine has no NVIDIA driver ({reason})"),
        Cuda::NoLibtorch(reason) => {
            format!("libtorch was installed without its NVIDIA libraries ({reason}); `GPU=yes make setup` installs them")
        }
        Cuda::Loaded => "the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_gpu_auto_is_the_cpu_and_cuda_an_error() {
        assert_eq!(choose(config::Device::Cpu, 3).unwrap(), Device::Cpu);
        if *load_libtorch_cuda() == Cuda::Loaded && tch::Cuda::device_count() > 0 {
            assert!(choose(config::Device::Cuda, 0).unwrap().is_cuda() && choose(config::Device::Auto, 0).unwrap().is_cuda());
            return;
        }
        assert_eq!(choose(config::Device::Auto, 0).unwrap(), Device::Cpu);
        let error = choose(config::Device::Cuda, 0).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        assert!(error.to_string().starts_with("parallel.device = \"cuda\": ") && error.to_string().contains("\"cpu\""), "{error}");
    }

    #[test]
    fn each_lack_has_its_advice() {
        assert!(absent(&Cuda::NoDriver("libcuda.so.1: cannot open".into())).contains("no NVIDIA driver (libcuda.so.1"));
        assert!(absent(&Cuda::NoLibtorch("libcudnn.so.9".into())).contains("GPU=yes make setup"));
        assert!(absent(&Cuda::Loaded).contains("CUDA_VISIBLE_DEVICES"));
    }
}
