//! What a configuration says of computing: device, kernels and precision, of `[parallel]`.

use serde::{Deserialize, Serialize};

use crate::network::Role;

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

impl Precision {
    /// Of the products of passes over maps of this role. A target is told from its activity by the difference of an inverse's values at two
    /// activities that are near each other, and ever nearer as a network learns: of factors with fewer bits nothing would be left.
    pub fn of_passes(self, role: Role) -> Precision {
        if role == Role::Inverse { Precision::F32 } else { self }
    }
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
