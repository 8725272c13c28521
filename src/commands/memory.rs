//! Memory of this machine: what cannot fit is refused before it is tried, as a system that has promised too much kills without a word.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::config::Config;
use crate::exchange::{self, Transport};
use crate::exit::Exit;
use crate::learner::choose_device;
use crate::plan::Plan;
use crate::text::scaled;

/// Refuses a plan that needs more than a host has, where its ranks compute on CPUs: what a GPU has not is refused when it is asked for. Collective:
/// all ranks come to the same verdict.
///
/// # Errors
/// [`Exit::Usage`] with what is needed and what is there, or a device that cannot be had.
pub fn refuse_too_large(plan: &Plan, config: &Config, transport: &dyn Transport) -> Result<()> {
    if choose_device(config.parallel.device, config.parallel.kernels, transport)?.is_cuda() {
        return Ok(());
    }
    let hosts = exchange::host_names(transport);
    let ranks = hosts.iter().filter(|host| **host == hosts[transport.rank()]).count();
    let there = limit().unwrap_or(u64::MAX);
    let all = transport.all_gather_words(&[plan.memory_of(ranks), there]);
    let Some(rank) = all.chunks_exact(2).position(|host| host[0] > host[1]) else { return Ok(()) };
    let bytes = |index: usize| scaled(all[2 * rank + index] as f64);
    Err(Exit::Usage.error(format!(
        "this network needs {}B of memory for the ranks on {}, which has {}B: smaller layers or a smaller data.batch_size need less",
        bytes(0),
        hosts[rank],
        bytes(1)
    )))
}

/// Bytes that processes here can have: the machine's, or fewer where a control group limits them. None where the system does not tell.
pub fn limit() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kibibytes: u64 = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()?;
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let limits = limits_above(&Path::new("/sys/fs/cgroup").join(own));
    limits.into_iter().chain([1024 * kibibytes]).min()
}

/// The limits of a control group and of those that it lies in.
fn limits_above(group: &Path) -> Vec<u64> {
    let files = group.ancestors().map(|group| group.join("memory.max")).collect::<Vec<PathBuf>>();
    files.iter().filter_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts() {
        let folder = tempfile::tempdir().unwrap();
        let group = folder.path().join("job/step");
        std::fs::create_dir_all(&group).unwrap();
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        std::fs::write(folder.path().join("job/memory.max"), "1000\n").unwrap();
        assert_eq!(limits_above(&group), [1000]);
        assert!(limit().is_some_and(|bytes| bytes > 1 << 28), "{:?}", limit());
    }
}
