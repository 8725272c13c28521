//! The time that phases take.
//!
//! A GPU works behind the program, so its phases are timed between events in its stream, and entered in the profile when a step has ended.

use std::rc::Rc;
use std::time::Instant;

use anyhow::Result;

use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::{Event, Gpu, Stream};
use crate::compute::profile::Profile;
use crate::observe::Doing;

pub struct Clock {
    pub profile: Profile,
    /// Absent where operations are done when they return.
    driver: Option<Rc<Driver>>,
    free: Vec<Event>,
    pending: Vec<Pending>,
}

struct Pending {
    doing: Doing,
    from: Event,
    to: Event,
    operations: f64,
    bytes: f64,
}

/// The beginning of an operation.
pub enum Start {
    Host(Instant),
    Device(Event),
}

impl Clock {
    pub fn new(driver: Option<Rc<Driver>>) -> Clock {
        Clock { profile: Profile::default(), driver, free: Vec::new(), pending: Vec::new() }
    }

    pub fn start(&mut self) -> Result<Start> {
        match self.event()? {
            Some(event) => Ok(Start::Device(event)),
            None => Ok(Start::Host(Instant::now())),
        }
    }

    /// Ends what `start` began: so many floating-point operations, and bytes moved at least.
    pub fn stop(&mut self, start: Start, doing: Doing, operations: f64, bytes: f64) -> Result<()> {
        match start {
            Start::Host(started) => self.profile.add(doing, started.elapsed().as_secs_f64(), operations, bytes),
            Start::Device(from) => {
                let to = self.event()?.expect("a clock with one event makes more");
                self.pending.push(Pending { doing, from, to, operations, bytes });
            }
        }
        Ok(())
    }

    /// Waits for the device and enters what was timed on it.
    pub fn settle(&mut self) -> Result<()> {
        let Some(driver) = &self.driver else { return Ok(()) };
        if let Some(last) = self.pending.last() {
            driver.synchronize(last.to)?;
        }
        for Pending { doing, from, to, operations, bytes } in self.pending.drain(..) {
            self.profile.add(doing, driver.seconds(from, to)?, operations, bytes);
            self.free.extend([from, to]);
        }
        Ok(())
    }

    /// An event recorded now in libtorch's stream, where there is one.
    fn event(&mut self) -> Result<Option<Event>> {
        let Some(driver) = &self.driver else { return Ok(None) };
        let event = match self.free.pop() {
            Some(event) => event,
            None => driver.event()?,
        };
        driver.record(event, Stream::LIBTORCH)?;
        Ok(Some(event))
    }
}
