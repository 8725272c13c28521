//! The device of each rank. Ranks choose for themselves, and one whose host has no GPU would go on with the CPU's collectives while the
//! others wait in those of GPUs: so they compare.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::compute::device::{self, Device};
use crate::compute::settings::KernelChoice;
use crate::config;
use crate::exchange::{self, Transport};
use crate::exit::Exit;

/// The device that `choice` means for this rank, with such kernels. Collective.
///
/// # Errors
/// [`Exit::Usage`] where "cuda" was asked for and there is no GPU, or where some ranks have one and others have none.
pub fn choose(choice: config::Device, kernels: KernelChoice, transport: &dyn Transport) -> Result<Device> {
    let device = device::choose(choice, kernels, transport.local().0)?;
    let on_gpu: Vec<bool> = transport.all_gather_words(&[u64::from(device.is_cuda())]).iter().map(|word| *word == 1).collect();
    if on_gpu.contains(&true) && on_gpu.contains(&false) {
        return Err(Exit::Usage.error(differ(&on_gpu, &exchange::host_names(transport))));
    }
    Ok(device)
}

/// What to say of ranks of which some have a GPU.
fn differ(on_gpu: &[bool], hosts: &[String]) -> String {
    let lacking: Vec<&str> = hosts.iter().zip(on_gpu).filter(|(_, on_gpu)| !**on_gpu).map(|(host, _)| host.as_str()).collect();
    let names: BTreeSet<&str> = lacking.iter().copied().collect();
    format!(
        "{} of {} ranks have no GPU (on {}), and the others have one: use hosts that all have GPUs, show every rank one \
         (CUDA_VISIBLE_DEVICES), or choose the device \"cpu\"; with \"cuda\" each host says why it has none",
        lacking.len(),
        on_gpu.len(),
        names.into_iter().collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_a_gpu_are_named_once() {
        let hosts = ["a", "b", "c", "a", "b", "c"].map(str::to_owned);
        let said = differ(&[true, false, false, true, false, false], &hosts);
        assert!(said.starts_with("4 of 6 ranks have no GPU (on b, c), and the others have one"), "{said}");
    }
}
