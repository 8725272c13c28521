//! What a part of a step does, and the time that it takes there.
//!
//! A graph is timed as a whole, between two events round it. Where phases are asked for, events stand in it behind every operation, which a
//! small network feels.

use anyhow::Result;

use super::gpu::{Event, Gpu, Stream};
use crate::compute::profile::Profile;
use crate::observe::Doing;

/// An operation: what it is, and its floating-point operations and bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    pub doing: Doing,
    pub layer: Option<usize>,
    pub operations: f64,
    pub bytes: f64,
}

impl Work {
    pub fn new(doing: Doing, layer: Option<usize>, operations: f64, bytes: f64) -> Work {
        Work { doing, layer, operations, bytes }
    }

    /// In words: "forward of layer 3".
    pub fn name(&self) -> String {
        match self.layer {
            Some(layer) => format!("{} of layer {layer}", self.doing.name()),
            None => self.doing.name().to_owned(),
        }
    }
}

/// The works of one part, in their order.
#[derive(Default)]
pub struct Marks {
    works: Vec<(Work, Option<Event>)>,
    /// Before the first and behind the last.
    round: Option<[Event; 2]>,
}

impl Marks {
    /// Enters `work`, which the stream was just given; `timed` where its end is marked.
    pub fn add(&mut self, work: Work, timed: bool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        let event = if timed { Some(gpu.event()?) } else { None };
        event.map_or(Ok(()), |event| gpu.record(event, stream))?;
        self.works.push((work, event));
        Ok(())
    }

    /// Takes over the works of `other`.
    pub fn take_works(&mut self, other: &mut Marks) {
        self.works = std::mem::take(&mut other.works);
    }

    /// Forgets the works, for others.
    pub fn clear(&mut self) {
        self.works.clear();
    }

    /// Marks the beginning, or the end, of the whole.
    pub fn edge(&mut self, end: bool, gpu: &dyn Gpu, stream: Stream) -> Result<()> {
        let round = match self.round {
            Some(round) => round,
            None => [gpu.event()?, gpu.event()?],
        };
        self.round = Some(round);
        gpu.record(round[usize::from(end)], stream)
    }

    /// Enters in `profile` what was done, now that the GPU has: by operation, or all of it as `whole`.
    pub fn enter(&self, profile: &mut Profile, whole: Doing, gpu: &dyn Gpu) -> Result<()> {
        let Some([from, to]) = self.round else { return Ok(()) };
        if self.works.iter().any(|(_, event)| event.is_none()) || self.works.is_empty() {
            let (operations, bytes) =
                self.works.iter().fold((0.0, 0.0), |(operations, bytes), (work, _)| (operations + work.operations, bytes + work.bytes));
            profile.add(whole, gpu.seconds(from, to)?, operations, bytes);
            return Ok(());
        }
        let mut before = from;
        for (work, event) in &self.works {
            let event = event.expect("all are marked");
            profile.add(work.doing, gpu.seconds(before, event)?, work.operations, work.bytes);
            before = event;
        }
        Ok(())
    }
}
