//! What the machine can do, measured with all ranks and threads at once, as a step has them.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::compute::cpu::Arena;
use crate::compute::cpu::pool::Pool;
use crate::exchange::{Message, Span, Transport};
use crate::observe::Doing;

/// Bytes that memory bandwidth is measured on: more than caches hold.
const BYTES: usize = 256 << 20;
/// Bytes of a message that the link is measured by.
const LINK_BYTES: usize = 16 << 20;
/// Side of the matrices that are multiplied: the factors fit into a core's second cache and beside it, and a product takes milliseconds.
const SIDE: usize = 640;
/// The best of so many tries of processor and memory counts: a floor is what the machine can do.
const TRIES: usize = 20;

/// This rank's part of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Floating-point operations a second of a large float32 matrix product.
    pub operations: f64,
    /// The same of passes through inverses.
    pub inverse_operations: f64,
    /// Bytes a second between memory and processor, read and written.
    pub bytes: f64,
    /// [`Link::bandwidth`]. Absent for one rank.
    pub link: Option<f64>,
}

impl Machine {
    /// Measures with `threads` threads on each rank. Collective.
    pub fn measure(threads: usize, link: Option<Link>, transport: &dyn Transport) -> Result<Machine> {
        let bytes = bandwidth(threads, transport)?;
        let operations = sgemm(threads, transport)?;
        Ok(Machine { operations, inverse_operations: operations, bytes, link: link.map(Link::bandwidth) })
    }

    /// Least seconds for so much work of one kind: bytes of the exchange go over the link, all others through memory.
    pub fn floor(&self, doing: Doing, operations: f64, bytes: f64) -> f64 {
        match (doing, self.link) {
            (Doing::Device, Some(link)) => bytes / link,
            (Doing::Inverse, _) => (operations / self.inverse_operations).max(bytes / self.bytes),
            _ => (operations / self.operations).max(bytes / self.bytes),
        }
    }
}

/// The best of a few tries, which all ranks begin together.
fn best(transport: &dyn Transport, mut run: impl FnMut()) -> f64 {
    run();
    let time = |_| {
        transport.barrier();
        let started = Instant::now();
        run();
        started.elapsed().as_secs_f64()
    };
    (0..TRIES).map(time).fold(f64::INFINITY, f64::min)
}

/// Ranks divide the memory that is copied, as they divide the machine.
fn bandwidth(threads: usize, transport: &dyn Transport) -> Result<f64> {
    let elements = BYTES / 2 / size_of::<f32>() / transport.local().1;
    let memory = || Arena::new(elements).context("not enough memory to measure its bandwidth");
    let (from, to) = (memory()?, memory()?);
    let pool = Pool::new(threads)?;
    let copy = || {
        // SAFETY: both arenas hold `elements`, of which each thread has others.
        pool.run_ranges(elements, 4 * threads, |range| unsafe {
            std::ptr::copy_nonoverlapping(from.at(range.start), to.at(range.start), range.len());
        });
    };
    // Pages exist once they are written.
    // SAFETY: the arena holds `elements`, of which each thread has others.
    pool.run_ranges(elements, 4 * threads, |range| unsafe { std::ptr::write_bytes(from.at(range.start), 1, range.len()) });
    Ok((2 * elements * size_of::<f32>()) as f64 / best(transport, copy))
}

/// What this rank is reached by: all ranks at once, each with the rank of its place on the next host; within a host with the next rank.
///
/// A link's speed changes while a program runs, by what else the hosts and the network do, to a half or twice. So it is tried between the
/// steps that are timed, and the median of all tries stands beside the median of all steps.
pub struct Link<'a> {
    transport: &'a dyn Transport,
    sent: Arena,
    received: Arena,
    to: usize,
    from: usize,
    seconds: Vec<f64>,
}

impl<'a> Link<'a> {
    /// None for one rank.
    ///
    /// # Errors
    ///
    /// Where there is no memory for two messages.
    pub fn new(transport: &'a dyn Transport) -> Result<Option<Link<'a>>> {
        let (rank, size, local) = (transport.rank(), transport.size(), transport.local().1);
        if size == 1 {
            return Ok(None);
        }
        let distance = if transport.uniform() && local < size { local } else { 1 };
        let memory = || Arena::new(LINK_BYTES / size_of::<f32>()).context("not enough memory to measure the link between ranks");
        let (sent, received) = (memory()?, memory()?);
        for arena in [&sent, &received] {
            // SAFETY: the arena's own length, and nobody else has it.
            unsafe { std::ptr::write_bytes(arena.at(0), 1, arena.len()) };
        }
        let (to, from) = ((rank + distance) % size, (rank + size - distance) % size);
        Ok(Some(Link { transport, sent, received, to, from, seconds: Vec::new() }))
    }

    /// Sends a message and receives one. Collective.
    pub fn attempt(&mut self) {
        let message = |rank: usize, arena: &Arena| Message { rank, at: arena.at(0).cast(), bytes: LINK_BYTES };
        let (to, from) = (message(self.to, &self.sent), message(self.from, &self.received));
        self.transport.barrier();
        let started = Instant::now();
        // SAFETY: each arena holds LINK_BYTES, and they are used for nothing else; waited for at once.
        let handle = unsafe { self.transport.begin(Span { doing: Doing::AllGather, layer: None }, &[to], &[from]) };
        self.transport.wait(handle);
        self.seconds.push(started.elapsed().as_secs_f64());
    }

    /// Bytes a second that a rank receives by large messages while it sends as many, the median of the attempts; the slowest rank's, which
    /// all wait for. Collective.
    fn bandwidth(self) -> f64 {
        let (bytes, transport) = (LINK_BYTES as f64, self.transport);
        let all = transport.all_gather_words(&[(bytes / median(self.seconds)).to_bits()]);
        all.into_iter().map(f64::from_bits).fold(f64::INFINITY, f64::min)
    }
}

/// Of at least one value.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { (values[middle - 1] + values[middle]) / 2.0 } else { values[middle] }
}

/// Each thread makes a product of its own of two matrices that all read, as fast as the crate `matrixmultiply` can: nothing of this
/// program's kernels, which the floor is to judge.
fn sgemm(threads: usize, transport: &dyn Transport) -> Result<f64> {
    let values = |seed: usize| (0..SIDE * SIDE).map(|index| (index % seed) as f32).collect::<Vec<f32>>();
    let (a, b, products) = (values(13), values(17), vec![0.0f32; threads * SIDE * SIDE]);
    let pool = Pool::new(threads)?;
    let at = products.as_ptr() as usize;
    let seconds = best(transport, || {
        // SAFETY: all matrices have SIDE x SIDE elements, and `products` one for each thread.
        pool.run_ranges(threads, threads, |range| unsafe {
            let (rows, own) = (SIDE as isize, (at as *mut f32).add(range.start * SIDE * SIDE));
            matrixmultiply::sgemm(SIDE, SIDE, SIDE, 1.0, a.as_ptr(), rows, 1, b.as_ptr(), rows, 1, 0.0, own, rows, 1);
        });
    });
    Ok(threads as f64 * 2.0 * (SIDE as f64).powi(3) / seconds)
}

/// The largest resident memory that this process has had, in bytes.
pub fn peak_rss() -> u64 {
    // SAFETY: it is made of integers, for which zeros are values, and lives here.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    usage.ru_maxrss as u64 * 1024
}

/// This process's part of the memory that it and others use: a page that n processes share counts 1/n. Whole where the kernel (gVisor's, an
/// old one) does not tell.
pub fn proportional_memory() -> Result<u64> {
    kilobytes("/proc/self/smaps_rollup", "Pss:").or_else(|_| kilobytes("/proc/self/status", "VmRSS:")).map(|kilobytes| kilobytes * 1024)
}

/// The number of kB after `name` in a file of /proc.
fn kilobytes(path: &str, name: &str) -> Result<u64> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{path} cannot be read"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("{path} has no {name}"))?;
    line.trim().trim_end_matches("kB").trim().parse().with_context(|| format!("{path}: {name} is {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![7.0]), 7.0);
    }

    #[test]
    fn both_files_of_proc_tell_the_memory() {
        let taken = vec![1u8; 64 << 20];
        let [shared, whole] = [("/proc/self/smaps_rollup", "Pss:"), ("/proc/self/status", "VmRSS:")];
        for (path, name) in [shared, whole].into_iter().filter(|(path, _)| std::path::Path::new(path).exists()) {
            let found = kilobytes(path, name).unwrap();
            assert!((taken.len() as u64 / 1024..1 << 30).contains(&found), "{path}: {found}");
        }
        assert!(kilobytes(whole.0, "Pss:").unwrap_err().to_string().contains("has no Pss:"));
        assert!(std::hint::black_box(taken).iter().all(|byte| *byte == 1));
    }
}
