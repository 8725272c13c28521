//! The kernels' sources, and what NVRTC makes of them.

use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::nvrtc::Nvrtc;

/// Name and source of every kernel file.
pub const SOURCES: [(&str, &str); 2] = [("adam.cu", include_str!("kernels/adam.cu")), ("noise.cu", include_str!("kernels/noise.cu"))];

/// [`SOURCES`] compiled for a compute capability, once for the process: its GPUs are of one kind.
pub fn ptx(capability: (i32, i32)) -> Result<Vec<Vec<u8>>> {
    type Compiled = Option<((i32, i32), Vec<Vec<u8>>)>;
    static COMPILED: Mutex<Compiled> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, ptx)) = &*compiled
        && *known == capability
    {
        return Ok(ptx.clone());
    }
    let nvrtc = Nvrtc::load()?;
    let ptx = SOURCES.iter().map(|(file, source)| nvrtc.compile(file, source, capability)).collect::<Result<Vec<_>>>()?;
    *compiled = Some((capability, ptx.clone()));
    Ok(ptx)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compute capabilities of A100 and H100.
    const CAPABILITIES: [(i32, i32); 2] = [(8, 0), (9, 0)];

    #[test]
    fn nvrtc_compiles_every_kernel() {
        let nvrtc = match Nvrtc::load() {
            Ok(nvrtc) => nvrtc,
            Err(error) => return eprintln!("skipped: NVRTC is not here ({error:#})"),
        };
        for (name, source) in SOURCES {
            for capability in CAPABILITIES {
                let ptx = nvrtc.compile(name, source, capability).unwrap();
                let text = String::from_utf8(ptx).unwrap();
                assert!(
                    text.contains(&format!(".target sm_{}{}", capability.0, capability.1)) && text.contains(".visible .entry"),
                    "{name}"
                );
                assert!(!text.contains("fma."), "{name} must not fuse multiplication and addition");
            }
            let error = nvrtc.compile(name, &source.replace("__global__ void", "__global__ vod"), (9, 0)).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("9.0") && error.contains("vod"), "{error}");
        }
    }
}
