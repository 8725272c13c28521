//! Reduce-scatter: every rank sends each other its part, and sums what it gets.
//!
//! The sum runs over ranks in their order, so it has the same bits whatever arrives first, and on the pool's threads with vectors, where
//! MPI's own has one thread. A rank receives all others' parts of its range, (N - 1)/N of the buffer where ranges are equal.

use std::ops::Range;

use super::transport::{Handle, Message, Span, Transport, others};
use crate::compute::cpu::pool::Pool;
use crate::compute::cpu::simd::{Isa, Kernel, LANES, Simd};
use crate::observe::{Doing, span};

/// Elements that `rank` of as many ranks as there are `ranges` needs room for.
pub fn recv_elements(ranges: &[Range<usize>], rank: usize) -> usize {
    (ranges.len() - 1) * ranges[rank].len()
}

/// Begins to send every rank its range of `buffer`, and to receive the others' parts of this rank's at `recv`.
///
/// # Safety
/// `buffer` must hold all ranges and `recv` [`recv_elements`], as [`Transport::begin`] asks.
pub unsafe fn begin(transport: &dyn Transport, traced: Span, buffer: *mut f32, ranges: &[Range<usize>], recv: *mut f32) -> Handle {
    let rank = transport.rank();
    let others = || others(rank, transport.size());
    let sends: Vec<Message> = others().map(|to| Message::of(to, buffer, &ranges[to])).collect();
    let receives: Vec<Message> = others().map(|from| Message::of(from, recv, &recv_range(ranges, rank, from))).collect();
    // SAFETY: the caller promises what begin asks for.
    unsafe { transport.begin(traced, &sends, &receives) }
}

/// Where the parts of this rank's range lie, by rank: what was received, and its own in `buffer`. Addresses alone: nothing is read.
pub fn parts(rank: usize, buffer: *const f32, ranges: &[Range<usize>], recv: *const f32) -> Vec<*const f32> {
    let received = |from: usize| recv.wrapping_add(recv_range(ranges, rank, from).start);
    let part = |from: usize| if from == rank { buffer.wrapping_add(ranges[rank].start) } else { received(from) };
    (0..ranges.len()).map(part).collect()
}

/// Adds what was received to this rank's range of `buffer`.
///
/// # Safety
/// As [`begin`], whose transfers have ended.
unsafe fn add(isa: Isa, pool: &Pool, rank: usize, buffer: *mut f32, ranges: &[Range<usize>], recv: *const f32) {
    let parts = Parts { parts: parts(rank, buffer, ranges, recv), to: buffer.wrapping_add(ranges[rank].start) };
    let len = ranges[rank].len();
    // Threads begin at whole vectors.
    let vectors = len.div_ceil(LANES);
    // SAFETY: the parts hold `len` elements each, and no two threads sum the same; the caller promises that
    // nothing else writes to them.
    pool.run_ranges(vectors, (vectors / 256).clamp(1, 4 * pool.threads()), |range| unsafe {
        isa.run(Sum { parts: &parts, begin: range.start * LANES, end: (range.end * LANES).min(len) });
    });
}

/// All of it: the sum over ranks of `buffer`, of which each rank gets its range, in place.
///
/// # Safety
/// `buffer` must hold all ranges.
pub unsafe fn reduce_scatter(transport: &dyn Transport, isa: Isa, pool: &Pool, buffer: *mut f32, ranges: &[Range<usize>]) {
    let _span = span(Doing::ReduceScatter, None);
    let mut recv = vec![0.0f32; recv_elements(ranges, transport.rank())];
    // SAFETY: the caller's buffer holds the ranges, `recv` what arrives, and both are here until the wait.
    unsafe {
        let handle = begin(transport, Span { doing: Doing::ReduceScatter, layer: None }, buffer, ranges, recv.as_mut_ptr());
        transport.wait(handle);
        add(isa, pool, transport.rank(), buffer, ranges, recv.as_ptr());
    }
}

/// Where `from`'s part lands on `rank`.
fn recv_range(ranges: &[Range<usize>], rank: usize, from: usize) -> Range<usize> {
    let place = from - usize::from(from > rank);
    let len = ranges[rank].len();
    place * len..(place + 1) * len
}

/// The same range of all ranks' buffers, one of which takes the sum.
struct Parts {
    parts: Vec<*const f32>,
    to: *mut f32,
}

// SAFETY: threads read the parts, and write to elements of `to` that no other one does.
unsafe impl Sync for Parts {}

/// Sums elements `begin..end`.
struct Sum<'a> {
    parts: &'a Parts,
    begin: usize,
    end: usize,
}

impl Kernel for Sum<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Parts { parts, to } = self.parts;
        let whole = self.begin + (self.end - self.begin) / LANES * LANES;
        // SAFETY: whoever runs it promises that all parts and `to` hold the elements up to `end`.
        unsafe {
            for at in (self.begin..whole).step_by(LANES) {
                let mut sum = S::load(parts[0].add(at));
                for part in &parts[1..] {
                    sum = sum.add(S::load(part.add(at)));
                }
                sum.store(to.add(at));
            }
            for at in whole..self.end {
                *to.add(at) = parts[1..].iter().fold(*parts[0].add(at), |sum, part| sum + *part.add(at));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::equal_ranges;

    #[test]
    fn sums_run_in_the_order_of_ranks() {
        // Of these three numbers, (a + b) + c is 1 and every other order is 0 or differs.
        let values = [1e8f32, -1e8, 1.0];
        for isa in Isa::available() {
            for len in [1, 16, 5000] {
                for rank in 0..3 {
                    let ranges = equal_ranges(3, len);
                    let mut buffer = vec![0.0f32; 3 * len];
                    buffer[ranges[rank].clone()].fill(values[rank]);
                    let recv: Vec<f32> = (0..3).filter(|from| *from != rank).flat_map(|from| vec![values[from]; len]).collect();
                    assert_eq!(recv.len(), recv_elements(&ranges, rank));
                    // SAFETY: both hold what their ranges say, and nobody else knows them.
                    unsafe { add(isa, &Pool::new(2).unwrap(), rank, buffer.as_mut_ptr(), &ranges, recv.as_ptr()) };
                    assert!(buffer[ranges[rank].clone()].iter().all(|sum| *sum == 1.0), "{} {len} {rank}", isa.name());
                }
            }
        }
    }
}
