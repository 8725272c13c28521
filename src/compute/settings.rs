//! What a configuration says of computing: device, kernels and precision, of `[parallel]`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    Auto,
    Cpu,
    Cuda,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    F32,
    Tf32,
    Bf16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelChoice {
    Auto,
    Avx512,
    Avx2,
    Portable,
    /// Our kernels on a GPU.
    Cuda,
    /// libtorch's, on any device.
    Libtorch,
}

impl KernelChoice {
    /// Whether they compute on CPUs alone.
    pub fn of_cpu(self) -> bool {
        matches!(self, KernelChoice::Avx512 | KernelChoice::Avx2 | KernelChoice::Portable)
    }
}
