//! What the backend asks of a GPU, as the stand-in takes it: refused, answered, or put into a stream's queue.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use biodist::compute::cuda::kernels::Kernel;
use biodist::compute::cuda::kernels::emulation::Emulation;
use biodist::compute::cuda::kernels::launches::Launch;
use biodist::compute::cuda::{Address, Event, Gpu, Graph, Stream};

use super::{COMPILED, Compiled, From, Marker, Operation, StandIn};

impl Gpu for StandIn {
    fn capability(&self) -> Result<(i32, i32)> {
        Ok(self.capability)
    }

    fn name(&self) -> Result<String> {
        Ok("stand-in".to_owned())
    }

    fn uuid(&self) -> Result<[u8; 16]> {
        Ok([0; 16])
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.outside_of_capture("cuMemGetInfo")?;
        Ok(self.memory)
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.outside_of_capture("cuMemAlloc")?;
        self.taken.set(self.taken.get() + bytes);
        // Not a number, wherever it is read before it was written.
        Ok(Address(self.room(bytes, 0xff) as u64))
    }

    fn release(&self, at: Address) -> Result<()> {
        self.outside_of_capture("cuMemFree")?;
        let blocks = self.blocks.borrow();
        let (_, layout) = blocks.iter().find(|(start, _)| *start == at.0 as usize).expect("memory is given back that was taken");
        self.taken.set(self.taken.get() - layout.size());
        // Until the stand-in ends it stays readable, and is not a number.
        // SAFETY: the block is as long as its layout says.
        unsafe { (at.0 as *mut u8).write_bytes(0xff, layout.size()) };
        Ok(())
    }

    fn page_locked(&self, bytes: usize) -> Result<*mut u8> {
        self.outside_of_capture("cuMemHostAlloc")?;
        let at = self.room(bytes, 0);
        self.page_locked.borrow_mut().push(at..at + bytes);
        Ok(at as *mut u8)
    }

    fn stream(&self) -> Result<Stream> {
        let mut streams = self.streams.borrow_mut();
        streams.push(VecDeque::new());
        Ok(Stream(streams.len() as *mut _))
    }

    fn event(&self) -> Result<Event> {
        let mut events = self.events.borrow_mut();
        events.push(Marker::default());
        Ok(Event(events.len() as *mut _))
    }

    fn load(&self, kernels: &BTreeSet<Kernel>) -> Result<()> {
        if kernels.is_empty() {
            return Ok(());
        }
        self.outside_of_capture("cuModuleLoadData")?;
        let mut compiled = COMPILED.lock().unwrap();
        let mut here = self.emulations.borrow_mut();
        let missing = |known: &[Arc<Compiled>]| -> BTreeSet<Kernel> {
            kernels.iter().copied().filter(|kernel| !known.iter().any(|some| some.kernels.contains(kernel))).collect()
        };
        let new = missing(&compiled);
        if !new.is_empty() {
            let folder = tempfile::tempdir()?;
            let Some(emulation) = Emulation::build(&new, folder.path())? else { bail!("there is no C++ compiler") };
            compiled.push(Arc::new(Compiled { kernels: new, emulation }));
        }
        here.clone_from(&compiled);
        Ok(())
    }

    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        let at = from as usize;
        let from = if self.page_locked.borrow().iter().any(|range| range.contains(&at)) {
            From::PageLocked(at)
        } else {
            self.outside_of_capture("cuMemcpyHtoDAsync, from memory that is not page-locked,")?;
            // SAFETY: the caller has so many bytes.
            From::Pageable(unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec())
        };
        self.give(stream, Operation::Upload { to, from, bytes })
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize, stream: Stream) -> Result<()> {
        if !self.page_locked.borrow().iter().any(|range| range.contains(&(to as usize))) {
            self.outside_of_capture("cuMemcpyDtoHAsync, to memory that is not page-locked,")?;
        }
        self.give(stream, Operation::Download { to: to as usize, from, bytes })
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: Stream) -> Result<()> {
        self.give(stream, Operation::Copy { to, from, bytes })
    }

    unsafe fn clear(&self, at: Address, bytes: usize, stream: Stream) -> Result<()> {
        self.give(stream, Operation::Clear { at, bytes })
    }

    unsafe fn start(&self, launch: &Launch, stream: Stream) -> Result<()> {
        self.give(stream, Operation::Start(launch.clone()))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        let event = Self::event_index(event);
        let captured = self.capture.borrow().is_some();
        let times = {
            let marker = &mut self.events.borrow_mut()[event];
            marker.stream = Self::index(stream);
            if !captured {
                marker.recorded += 1;
            }
            marker.recorded
        };
        self.give(stream, Operation::Record(event, if captured { 0 } else { times }))
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        if self.capture.borrow().is_some() {
            return Err(Self::failure("cuStreamWaitEvent", 905, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"));
        }
        let event = Self::event_index(event);
        let times = self.events.borrow()[event].recorded;
        self.give(stream, Operation::Wait(event, times))
    }

    fn passed(&self, event: Event) -> Result<bool> {
        self.synchronize(event).map(|()| true)
    }

    fn synchronize(&self, event: Event) -> Result<()> {
        self.outside_of_capture("cuEventSynchronize")?;
        let event = Self::event_index(event);
        let Marker { recorded, stream, .. } = self.events.borrow()[event];
        if recorded > 0 {
            self.run(stream, Some((event, recorded)))?;
        }
        self.healthy()
    }

    fn seconds(&self, _from: Event, _to: Event) -> Result<f64> {
        self.outside_of_capture("cuEventElapsedTime")?;
        Ok(1.0)
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        self.healthy()?;
        self.outside_of_capture("cuStreamBeginCapture")?;
        *self.capture.borrow_mut() = Some((Self::index(stream), Vec::new()));
        Ok(())
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let Some((captured, operations)) = self.capture.borrow_mut().take() else { bail!("nothing is being captured") };
        ensure!(captured == Self::index(stream), "another stream is being captured");
        let mut graphs = self.graphs.borrow_mut();
        graphs.push(operations);
        Ok(Graph(graphs.len() as *mut _))
    }

    unsafe fn replay(&self, graph: Graph, stream: Stream) -> Result<()> {
        self.outside_of_capture("cuGraphLaunch")?;
        self.replays.set(self.replays.get() + 1);
        let operations = self.graphs.borrow()[graph.0 as usize - 1].clone();
        for operation in operations {
            if let Operation::Record(event, _) = &operation {
                self.events.borrow_mut()[*event].recorded += 1;
            }
            self.give(stream, operation)?;
        }
        Ok(())
    }
}
