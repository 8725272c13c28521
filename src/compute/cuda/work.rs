//! How operations come to the GPU: planned, with the addresses of what they work on, then given to the stream, and waited for.

use anyhow::{Result, anyhow};

use super::backend::CudaBackend;
use super::failure::Failure;
use super::kernels::launches::Launch;
use super::marks::Work;
use crate::observe::span_unless_in;

impl CudaBackend {
    /// Gives the stream what `plan` makes, unless an operation has failed before.
    pub(super) fn attempt(&mut self, work: Work, plan: impl FnOnce(&mut Self, &mut Vec<Launch>) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = self.perform(work, plan).err();
        }
    }

    /// Gives the stream what `plan` makes.
    pub(super) fn perform(&mut self, work: Work, plan: impl FnOnce(&mut Self, &mut Vec<Launch>) -> Result<()>) -> Result<()> {
        let mut launches = Vec::new();
        plan(self, &mut launches)?;
        if let Some(planned) = &mut self.plan {
            planned.kernels.extend(launches.iter().map(|launch| launch.kernel));
            return Ok(());
        }
        let _span = span_unless_in(work.doing);
        self.make_ready(&launches)?;
        self.say(work.name());
        for launch in &launches {
            // SAFETY: a plan has the addresses of what it works on, each as large as its shapes say.
            unsafe { self.gpu.start(launch, self.stream) }.map_err(|error| self.explained(error))?;
        }
        if self.checked {
            return self.settle();
        }
        self.marks.add(work, self.timed, &*self.gpu, self.stream)
    }

    /// The same of what stands in no graph, and whose time is in no phase.
    pub(super) fn perform_apart(&mut self, work: Work, plan: impl FnOnce(&mut Self, &mut Vec<Launch>) -> Result<()>) -> Result<()> {
        let timed = std::mem::take(&mut self.timed);
        let done = self.perform(work, plan);
        self.marks.clear();
        self.timed = timed;
        done
    }

    /// Kernels of batches that were not planned for, smaller ones at an evaluation's end, are made when they are first needed.
    fn make_ready(&mut self, launches: &[Launch]) -> Result<()> {
        let new = launches.iter().map(|launch| launch.kernel).filter(|kernel| !self.loaded.contains(kernel)).collect();
        self.gpu.load(&new)?;
        self.loaded.extend(new);
        Ok(())
    }

    /// Notes what the GPU is given, in words, for messages.
    pub fn say(&self, what: String) {
        *self.running.borrow_mut() = what;
    }

    /// Waits until the GPU has done all that it was given.
    pub fn settle(&self) -> Result<()> {
        self.gpu.record(self.done, self.stream).and_then(|()| self.gpu.synchronize(self.done)).map_err(|error| self.explained(error))
    }

    /// With what the GPU was doing.
    pub(super) fn explained(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Failure>() { anyhow!("{error}; it was doing: {}", self.running.borrow()) } else { error }
    }
}
