//! The device of each rank. Ranks choose for themselves, and one whose host has no GPU would go on with the CPU's collectives while the
//! others wait in those of GPUs: so they compare.

use anyhow::Result;
use tch::Device;

use crate::compute::cuda::device;
use crate::config;
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job;

/// The device that `choice` means for this rank. Collective.
///
/// # Errors
/// [`Exit::Usage`] where "cuda" was asked for and there is no GPU, or where some ranks have one and others have none.
pub fn choose(choice: config::Device, transport: &dyn Transport) -> Result<Device> {
    let device = device::choose(choice, transport.local().0)?;
    let on_gpu: Vec<bool> = transport.all_gather_words(&[u64::from(device.is_cuda())]).iter().map(|word| *word == 1).collect();
    if on_gpu.contains(&true) && on_gpu.contains(&false) {
        return Err(Exit::Usage.error(differ(&on_gpu, &job::host_names(transport))));
    }
    Ok(device)
}

/// What to say of ranks of which some have a GPU.
fn differ(on_gpu: &[bool], hosts: &[String]) -> String {
    let without = |host: &&String| hosts.iter().zip(on_gpu).any(|(name, on_gpu)| name == *host && !on_gpu);
    let mut lacking: Vec<&String> = hosts.iter().filter(without).collect();
    lacking.dedup();
    let names: Vec<&str> = lacking.iter().map(|host| host.as_str()).collect();
    format!(
        "{} of {} ranks have no GPU, those on {}, and the others have one; start ranks on hosts with GPUs alone, or use \
         parallel.device = \"cpu\" (\"cuda\" says on each host why it has none)",
        on_gpu.iter().filter(|on_gpu| !**on_gpu).count(),
        on_gpu.len(),
        names.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_a_gpu_are_named_once() {
        let hosts = ["a", "a", "b", "b"].map(str::to_owned);
        let said = differ(&[true, true, false, false], &hosts);
        assert!(said.starts_with("2 of 4 ranks have no GPU, those on b, and the others have one"), "{said}");
    }
}
