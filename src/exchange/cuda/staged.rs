//! Collective operations through this host's memory and the ranks' transport: for GPUs that NCCL does not join, and for several ranks on
//! one.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;

use super::{Collectives, Whole};
use crate::compute::cpu::pool::Pool;
use crate::compute::cpu::simd::Isa;
use crate::compute::cuda::{Event, Gpu, Stream};
use crate::exchange::nccl::Element;
use crate::exchange::{Handle, Span, Transport, equal_ranges, reduce_scatter};

/// Operations are done, but for their last copy to the GPU, when they return.
pub struct Staged {
    gpu: Rc<dyn Gpu>,
    stream: Stream,
    transport: Arc<dyn Transport>,
    isa: Isa,
    pool: Pool,
    /// Page-locked memory, as much as was needed so far.
    here: (*mut f32, usize),
    copied: Event,
}

impl Staged {
    pub fn new(gpu: Rc<dyn Gpu>, stream: Stream, transport: Arc<dyn Transport>) -> Result<Staged> {
        let copied = gpu.event()?;
        let (isa, pool) = (Isa::available()[0], Pool::new(1)?);
        Ok(Staged { gpu, stream, transport, isa, pool, here: (std::ptr::null_mut(), 0), copied })
    }

    /// Page-locked memory for `floats` that nothing is copied from any more.
    fn room(&mut self, floats: usize) -> Result<*mut f32> {
        self.gpu.synchronize(self.copied)?;
        if self.here.1 < floats {
            self.here = (self.gpu.page_locked(4 * floats)?.cast(), floats);
        }
        Ok(self.here.0)
    }

    /// Copies elements `range` of `whole` here, and waits for them.
    fn fetch(&self, whole: Whole, range: Range<usize>, to: *mut f32) -> Result<()> {
        // SAFETY: the caller has made room for all of it, and the wait follows.
        unsafe { self.gpu.download(to.wrapping_add(range.start).cast(), whole.at.offset(4 * range.start), 4 * range.len(), self.stream)? };
        self.gpu.record(self.copied, self.stream)?;
        self.gpu.synchronize(self.copied)
    }

    /// Copies elements `range` there.
    fn send(&self, whole: Whole, range: Range<usize>, from: *mut f32) -> Result<()> {
        // SAFETY: page-locked memory that stays as it is until `copied`.
        unsafe { self.gpu.upload(whole.at.offset(4 * range.start), from.wrapping_add(range.start).cast(), 4 * range.len(), self.stream)? };
        self.gpu.record(self.copied, self.stream)
    }

    fn reduce_scatter_exact(&mut self, whole: Whole) -> Result<()> {
        let (rank, ranges) = (self.transport.rank(), self.ranges(whole));
        let floats = ranges.last().expect("there are ranks").end;
        let here = self.room(floats)?;
        self.fetch(whole, 0..floats, here)?;
        // SAFETY: there is room for all ranges.
        unsafe { reduce_scatter(&*self.transport, self.isa, &self.pool, here, &ranges) };
        self.send(whole, ranges[rank].clone(), here)
    }

    /// The sum of what ranks have in bf16, made in float32 and rounded again.
    fn reduce_scatter_rounded(&mut self, whole: Whole) -> Result<()> {
        let (rank, words) = (self.transport.rank(), self.ranges(whole));
        let all = words.last().expect("there are ranks").end;
        let here = self.room(all)?;
        self.fetch(whole, 0..all, here)?;
        // SAFETY: so many were fetched just now, each two of bf16.
        let rounded = unsafe { std::slice::from_raw_parts_mut(here.cast::<u16>(), 2 * all) };
        let mut sums: Vec<f32> = rounded.iter().map(|value| f32::from_bits(u32::from(*value) << 16)).collect();
        let ranges: Vec<Range<usize>> = words.iter().map(|words| 2 * words.start..2 * words.end).collect();
        // SAFETY: `sums` holds all ranges.
        unsafe { reduce_scatter(&*self.transport, self.isa, &self.pool, sums.as_mut_ptr(), &ranges) };
        let own = ranges[rank].clone();
        rounded[own.clone()].iter_mut().zip(&sums[own]).for_each(|(to, sum)| *to = bf16(*sum));
        self.send(whole, words[rank].clone(), here)
    }

    fn ranges(&self, whole: Whole) -> Vec<Range<usize>> {
        equal_ranges(self.transport.size(), whole.each / 4)
    }
}

/// Rounded to bf16, ties to even.
fn bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() { 0x7fc0 } else { ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16 }
}

impl Collectives for Staged {
    fn all_gather(&mut self, _traced: Span, wholes: &[Whole]) -> Result<Handle> {
        let rank = self.transport.rank();
        for whole in wholes {
            let ranges = self.ranges(*whole);
            let floats = ranges.last().expect("there are ranks").end;
            let here = self.room(floats)?;
            self.fetch(*whole, ranges[rank].clone(), here)?;
            // SAFETY: there is room for all ranges.
            unsafe { self.transport.all_gather_ranges(here, &ranges) };
            for others in [0..ranges[rank].start, ranges[rank].end..floats].into_iter().filter(|others| !others.is_empty()) {
                self.send(*whole, others, here)?;
            }
        }
        Ok(Handle(0))
    }

    fn reduce_scatter(&mut self, _traced: Span, wholes: &[Whole]) -> Result<Handle> {
        for whole in wholes {
            match whole.element {
                Element::F32 => self.reduce_scatter_exact(*whole)?,
                Element::Bf16 => self.reduce_scatter_rounded(*whole)?,
            }
        }
        Ok(Handle(0))
    }

    fn wait(&mut self, _handle: Handle) -> Result<()> {
        Ok(())
    }

    fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    fn overlap(&self) -> bool {
        false
    }
}
