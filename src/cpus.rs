//! This rank's share of the machine's CPUs.
//!
//! `mpirun` binds each rank to one core when there are one or two of them, and to a socket otherwise, so more threads are worth nothing until
//! a rank widens its own mask. What it may use is what its launcher may: a user's `taskset`, Slurm's allocation and a container's limits
//! all show there. Ranks that may use the same CPUs divide them.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;
use biodist_process::{ancestors, ranks};

use crate::exchange::Transport;

/// CPUs that masks are exchanged for, in words of 64.
const WORDS: usize = 16;

/// What this rank got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Compute threads.
    pub threads: usize,
    /// CPUs that the ranks on this machine divide.
    pub cpus: usize,
}

type Mask = [u64; WORDS];

/// Widens this process's mask, takes this rank's share of it, and binds the process to that. Threads started from now on inherit it.
///
/// `wanted` is the number of threads asked for; 0 stands for as many as the share has CPUs. Its messages are moved there too. Collective.
pub fn take(transport: &dyn Transport, wanted: usize) -> Result<Share> {
    if let Some(allowed) = launcher().and_then(mask_of) {
        // Refused where a sandbox forbids it; then what we have is what there is.
        let _ = bind(&allowed);
    }
    let mask = mask_of(0).unwrap_or([0; WORDS]);
    // The same machine, whatever its containers call themselves.
    let machine = std::fs::read("/proc/sys/kernel/random/boot_id").map_or(0, |id| u64::from(crc32fast::hash(&id)));
    let mut words = vec![machine];
    words.extend(mask);
    let all = transport.all_gather_words(&words);
    let sharing: Vec<usize> = all.chunks(WORDS + 1).enumerate().filter(|(_, other)| *other == words).map(|(rank, _)| rank).collect();
    let place = sharing.iter().position(|rank| *rank == transport.rank()).unwrap_or(0);
    // Counts the mask's CPUs, and fewer where a control group limits their time.
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let own = part(cpus, place, sharing.len());
    let ordered = by_core(members(&mask));
    // Where the mask cannot be read it has none.
    let limited = cpus != ordered.len();
    let threads = if wanted > 0 { wanted } else { own.len().max(1) };
    if threads > cpus {
        log::warn!("parallel.threads_per_rank = {threads}, but there are {cpus} CPUs: threads that take turns are slower than fewer ones");
    }
    if !limited && threads <= own.len() {
        let _ = bind(&mask_from(&ordered[own]));
    }
    transport.accompany()?;
    Ok(Share { threads, cpus })
}

/// A part of this process's CPUs, for a process that it starts.
#[derive(Clone, Debug)]
pub struct Part {
    /// Compute threads that it has CPUs for.
    pub threads: usize,
    /// Absent where a control group limits time and not CPUs.
    mask: Option<Mask>,
}

/// Divides what this process may use into `parts`, which have CPUs in common only where there are more parts than CPUs.
pub fn divide(parts: usize) -> Vec<Part> {
    let mask = mask_of(0).unwrap_or([0; WORDS]);
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let ordered = by_core(members(&mask));
    let limited = cpus != ordered.len();
    let one = |place| {
        let own = part(cpus, place, parts);
        let own = if own.is_empty() { place % cpus..place % cpus + 1 } else { own };
        Part { threads: own.len(), mask: (!limited).then(|| mask_from(&ordered[own])) }
    };
    (0..parts).map(one).collect()
}

impl Part {
    /// Binds the process that `command` will start.
    pub fn give(&self, command: &mut Command) {
        if let Some(mask) = self.mask {
            // Refused where a sandbox forbids it: it starts on all of them then.
            let prepare = move || {
                let _ = bind(&mask);
                Ok(())
            };
            // SAFETY: between fork and exec only sched_setaffinity is called, which may be.
            unsafe { command.pre_exec(prepare) };
        }
    }
}

/// The `place`-th of `parts` nearly equal parts of `0..cpus`.
fn part(cpus: usize, place: usize, parts: usize) -> std::ops::Range<usize> {
    cpus * place / parts..cpus * (place + 1) / parts
}

fn members(mask: &Mask) -> Vec<usize> {
    (0..64 * WORDS).filter(|cpu| mask[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

fn mask_from(cpus: &[usize]) -> Mask {
    let mut mask = [0; WORDS];
    for cpu in cpus {
        mask[cpu / 64] |= 1 << (cpu % 64);
    }
    mask
}

/// CPUs in the order of sockets and cores, so that the two threads of a core fall to one rank.
fn by_core(mut cpus: Vec<usize>) -> Vec<usize> {
    cpus.sort_by_key(|cpu| {
        let topology = Path::new("/sys/devices/system/cpu").join(format!("cpu{cpu}/topology"));
        let id = |name: &str| std::fs::read_to_string(topology.join(name)).ok().and_then(|id| id.trim().parse::<i64>().ok()).unwrap_or(0);
        (id("physical_package_id"), id("core_id"), *cpu)
    });
    cpus
}

/// CPUs that process `id` (0: this thread) may run on.
fn mask_of(id: libc::pid_t) -> Option<Mask> {
    let mut mask: Mask = [0; WORDS];
    // SAFETY: the mask is as long as is said.
    let status = unsafe { libc::sched_getaffinity(id, size_of::<Mask>(), mask.as_mut_ptr().cast()) };
    (status == 0).then_some(mask)
}

fn bind(mask: &Mask) -> std::io::Result<()> {
    // SAFETY: the mask is as long as is said.
    match unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), mask.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// The process that started this rank as one of many, and bound it, but is not bound itself: the nearest ancestor that is a launcher. A
/// sweep's trial has none: the sweep, which is this very program, has given it its CPUs.
fn launcher() -> Option<libc::pid_t> {
    let mut line = ancestors::line(std::process::id());
    let own = line.next()?.name;
    let mut above = line.take_while(|ancestor| ancestor.name != own);
    above.find(|ancestor| ranks::starts_ranks(&ancestor.name)).map(|launcher| launcher.id.cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_disjoint_and_complete() {
        for cpus in 1..20 {
            for parts in 1..10 {
                let all: Vec<usize> = (0..parts).flat_map(|place| part(cpus, place, parts)).collect();
                assert_eq!(all, (0..cpus).collect::<Vec<_>>(), "{cpus} CPUs, {parts} ranks");
                let sizes: Vec<usize> = (0..parts).map(|place| part(cpus, place, parts).len()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
            }
        }
    }

    #[test]
    fn parts_for_other_processes_cover_the_cpus() {
        let mask = mask_of(0).unwrap();
        let cpus = std::thread::available_parallelism().unwrap().get();
        for parts in [1, 2, cpus, cpus + 3] {
            let divided = divide(parts);
            assert_eq!(divided.len(), parts);
            assert!(divided.iter().all(|part| part.threads >= 1));
            if parts <= cpus && cpus == members(&mask).len() {
                let mut all: Vec<usize> = divided.iter().flat_map(|part| members(&part.mask.unwrap())).collect();
                all.sort_unstable();
                assert_eq!(all, members(&mask), "{parts} parts");
            }
        }
    }

    #[test]
    fn masks_list_their_members() {
        let cpus = [0, 1, 63, 64, 130, 1023];
        assert_eq!(members(&mask_from(&cpus)), cpus);
    }
}
