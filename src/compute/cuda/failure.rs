//! What goes wrong on a GPU, in words.

use std::fmt;

/// What to say of a driver that serves CUDA up to `served`, 12040 for 12.4, and knows less than the compiler, NVRTC of version `compiler`.
pub fn old_driver(served: i32, (major, minor): (i32, i32)) -> Option<String> {
    let own = (served / 1000, served % 1000 / 10);
    (own.0 < major).then(|| {
        format!(
            "the NVIDIA driver serves CUDA {}.{}, and the compiler of kernels that was found (NVRTC) is of CUDA {major}.{minor}: \
             update the driver, or use parallel.device = \"cpu\"",
            own.0, own.1
        )
    })
}

/// A call of the driver that failed: of its own, or because of what the GPU met before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub call: &'static str,
    pub status: i32,
    /// As the driver calls the status.
    pub name: String,
    /// The GPU's number.
    pub gpu: i32,
}

impl Failure {
    pub const OUT_OF_MEMORY: i32 = 2;
    pub const ECC: i32 = 214;
    const ILLEGAL_ADDRESS: i32 = 700;

    fn meaning(&self) -> Option<&'static str> {
        Some(match self.status {
            Self::OUT_OF_MEMORY => "the GPU's memory is full; make data.batch_size smaller, or use more GPUs",
            100 => "the driver shows no GPU (CUDA_VISIBLE_DEVICES may hide it)",
            209 | 222 => "the driver is older than the CUDA libraries that the program found; update the driver",
            Self::ECC => {
                "its memory has an error that cannot be corrected (ECC): the last checkpoint is good; `nvidia-smi -q -d ECC` counts such \
                 errors, and a GPU that has them again needs service"
            }
            Self::ILLEGAL_ADDRESS => "a kernel reached outside of its memory: a mistake in this program, or a GPU that fails",
            702 => "a kernel took longer than this GPU's display allows",
            715..=719 => "a kernel failed: a mistake in this program, or a GPU that fails",
            802 | 803 => "the driver's parts are of different versions; restart the machine after an update",
            _ => return None,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let Failure { call, status, name, gpu } = self;
        match self.meaning() {
            Some(meaning) => write!(out, "GPU {gpu}: {meaning} ({call}: {name}, {status})"),
            None => write!(out, "{call} failed on GPU {gpu}: {name} ({status})"),
        }
    }
}

impl std::error::Error for Failure {}
