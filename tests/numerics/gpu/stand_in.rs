//! A GPU on plain memory: kernels are emulated, and streams run as late, or as early, as their waits allow.
//!
//! What is given to a stream waits in its queue. A stream that is early runs at once; one that is late runs only when somebody waits for
//! it, this thread or another stream. A program that forgot a wait gets other numbers with one or the other. In a capture it refuses what
//! CUDA refuses. Its calls are in `calls`, what becomes of them is here.

mod calls;

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use biodist::compute::cuda::kernels::Kernel;
use biodist::compute::cuda::kernels::emulation::Emulation;
use biodist::compute::cuda::kernels::launches::Launch;
use biodist::compute::cuda::{Address, Event, Failure, Stream};

#[derive(Clone)]
enum Operation {
    Upload {
        to: Address,
        from: From,
        bytes: usize,
    },
    Download {
        to: usize,
        from: Address,
        bytes: usize,
    },
    Copy {
        to: Address,
        from: Address,
        bytes: usize,
    },
    Clear {
        at: Address,
        bytes: usize,
    },
    Start(Launch),
    /// An event, and which of its records this is; 0 in a graph, where each replay is another.
    Record(usize, usize),
    Wait(usize, usize),
}

/// Where an upload comes from.
#[derive(Clone)]
enum From {
    /// Fetched when its turn comes.
    PageLocked(usize),
    /// Copied when it was asked for, as the driver does.
    Pageable(Vec<u8>),
}

#[derive(Clone, Copy, Default)]
struct Marker {
    /// Times that it was recorded, and passed.
    recorded: usize,
    passed: usize,
    stream: usize,
}

/// Which streams run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Early {
    All,
    None,
    /// The one that computes: the first that is made.
    Computing,
    Copying,
}

pub struct StandIn {
    pub capability: (i32, i32),
    /// Free and all.
    pub memory: (u64, u64),
    early: Early,
    streams: RefCell<Vec<VecDeque<Operation>>>,
    events: RefCell<Vec<Marker>>,
    graphs: RefCell<Vec<Vec<Operation>>>,
    capture: RefCell<Option<(usize, Vec<Operation>)>>,
    blocks: RefCell<Vec<(usize, Layout)>>,
    page_locked: RefCell<Vec<Range<usize>>>,
    emulations: RefCell<Vec<Arc<Compiled>>>,
    /// What happened, in order: "1 apply...", "2 upload 40".
    pub log: RefCell<Vec<String>>,
    /// A launch that fails, by the beginning of its kernel's name and the times that it goes well before, and how.
    pub fault: RefCell<Option<(&'static str, usize, Failure)>>,
    /// A kernel that does nothing, by its name.
    pub skipped: RefCell<Option<String>>,
    failed: RefCell<Option<Failure>>,
    pub replays: Cell<usize>,
    /// Bytes of the GPU's memory that were taken.
    pub taken: Cell<usize>,
}

impl StandIn {
    pub fn new(early: Early) -> StandIn {
        StandIn {
            capability: (9, 0),
            memory: (1 << 30, 1 << 30),
            early,
            streams: RefCell::default(),
            events: RefCell::default(),
            graphs: RefCell::default(),
            capture: RefCell::default(),
            blocks: RefCell::default(),
            page_locked: RefCell::default(),
            emulations: RefCell::default(),
            log: RefCell::default(),
            fault: RefCell::default(),
            skipped: RefCell::default(),
            failed: RefCell::default(),
            replays: Cell::new(0),
            taken: Cell::new(0),
        }
    }

    /// Bytes of page-locked memory that were taken.
    pub fn page_locked_bytes(&self) -> usize {
        self.page_locked.borrow().iter().map(Range::len).sum()
    }

    fn failure(call: &'static str, status: i32, name: &str) -> anyhow::Error {
        Failure { call, status, name: name.to_owned(), gpu: 0 }.into()
    }

    /// Refuses `call` in a capture.
    fn outside_of_capture(&self, call: &'static str) -> Result<()> {
        match *self.capture.borrow() {
            None => Ok(()),
            Some(_) => Err(Self::failure(call, 900, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")),
        }
    }

    fn healthy(&self) -> Result<()> {
        self.failed.borrow().clone().map_or(Ok(()), |failure| Err(failure.into()))
    }

    fn room(&self, bytes: usize, fill: u8) -> usize {
        let layout = Layout::from_size_align(bytes.max(1), 256).unwrap();
        // SAFETY: it has a size.
        let at = unsafe { std::alloc::alloc(layout) };
        // SAFETY: just taken, with as many bytes.
        unsafe { at.write_bytes(fill, layout.size()) };
        self.blocks.borrow_mut().push((at as usize, layout));
        at as usize
    }

    fn index(stream: Stream) -> usize {
        stream.0 as usize - 1
    }

    fn give(&self, stream: Stream, operation: Operation) -> Result<()> {
        self.healthy()?;
        let stream = Self::index(stream);
        if let Some((captured, operations)) = &mut *self.capture.borrow_mut() {
            ensure!(*captured == stream, "another stream is being captured");
            operations.push(operation);
            return Ok(());
        }
        self.streams.borrow_mut()[stream].push_back(operation);
        let early = match self.early {
            Early::All => true,
            Early::None => false,
            Early::Computing => stream == 0,
            Early::Copying => stream != 0,
        };
        if early { self.run(stream, None) } else { Ok(()) }
    }

    /// Does what `stream` was given, all of it or until an event was passed so many times.
    fn run(&self, stream: usize, until: Option<(usize, usize)>) -> Result<()> {
        loop {
            if until.is_some_and(|(event, times)| self.events.borrow()[event].passed >= times) {
                return Ok(());
            }
            let Some(operation) = self.streams.borrow_mut()[stream].pop_front() else {
                assert!(until.is_none(), "an event that is waited for was given to its stream");
                return Ok(());
            };
            self.perform(stream, operation)?;
        }
    }

    fn perform(&self, stream: usize, operation: Operation) -> Result<()> {
        let say = |what: String| self.log.borrow_mut().push(format!("{} {what}", stream + 1));
        // SAFETY: the backend promises what each call asks for; addresses here are those of memory.
        unsafe {
            match operation {
                Operation::Upload { to, from, bytes } => {
                    say(format!("upload {bytes}"));
                    let from = match &from {
                        From::PageLocked(at) => *at as *const u8,
                        From::Pageable(copy) => copy.as_ptr(),
                    };
                    std::ptr::copy_nonoverlapping(from, to.0 as *mut u8, bytes);
                }
                Operation::Download { to, from, bytes } => {
                    say(format!("download {bytes}"));
                    std::ptr::copy_nonoverlapping(from.0 as *const u8, to as *mut u8, bytes);
                }
                Operation::Copy { to, from, bytes } => {
                    say(format!("copy {bytes}"));
                    std::ptr::copy_nonoverlapping(from.0 as *const u8, to.0 as *mut u8, bytes);
                }
                Operation::Clear { at, bytes } => {
                    say(format!("clear {bytes}"));
                    (at.0 as *mut u8).write_bytes(0, bytes);
                }
                Operation::Start(launch) => {
                    let name = launch.kernel.to_string();
                    say(name.clone());
                    if let Some((begins, times, failure)) = &mut *self.fault.borrow_mut()
                        && name.starts_with(*begins)
                    {
                        if *times == 0 {
                            *self.failed.borrow_mut() = Some(failure.clone());
                            return Ok(());
                        }
                        *times -= 1;
                    }
                    if self.failed.borrow().is_none() && self.skipped.borrow().as_ref() != Some(&name) {
                        let emulations = self.emulations.borrow();
                        let emulation = emulations.iter().find(|emulation| emulation.kernels.contains(&launch.kernel));
                        emulation.expect("kernels are loaded before they are launched").emulation.launch(&launch)?;
                    }
                }
                Operation::Record(event, times) => {
                    let marker = &mut self.events.borrow_mut()[event];
                    marker.passed = if times == 0 { marker.recorded } else { marker.passed.max(times) };
                }
                Operation::Wait(event, times) => {
                    let Marker { passed, stream: other, .. } = self.events.borrow()[event];
                    if passed < times {
                        self.run(other, Some((event, times)))?;
                    }
                }
            }
        }
        Ok(())
    }

    fn event_index(event: Event) -> usize {
        event.0 as usize - 1
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        for (at, layout) in self.blocks.get_mut().drain(..) {
            // SAFETY: taken with this layout, and given back once.
            unsafe { std::alloc::dealloc(at as *mut u8, layout) };
        }
    }
}

struct Compiled {
    kernels: BTreeSet<Kernel>,
    emulation: Emulation,
}

/// Kernels that were compiled for this process.
static COMPILED: Mutex<Vec<Arc<Compiled>>> = Mutex::new(Vec::new());
