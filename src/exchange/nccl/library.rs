//! NCCL's functions, and one rank's membership among the ranks that they join.
//!
//! Each function is called as its library's manual asks: handles are those that the library gave and has not got back, pointers are to
//! values that live through the call, and strings end in a zero byte.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::rc::Rc;

use anyhow::{Result, bail};

use super::{Calls, Element, Status};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::libraries::{bind, open};
use crate::compute::cuda::{Event, Gpu, Stream};

/// What the first rank tells the others, that they may find each other.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Id(pub [u8; Id::BYTES]);

impl Id {
    pub const BYTES: usize = 128;
}

bind! {
    struct Functions {
        version: "ncclGetVersion" (*mut c_int);
        id: "ncclGetUniqueId" (*mut Id);
        join: "ncclCommInitRank" (*mut *mut c_void, c_int, Id, c_int);
        all_gather: "ncclAllGather" (*const c_void, *mut c_void, usize, c_int, *mut c_void, *mut c_void);
        reduce_scatter: "ncclReduceScatter" (*const c_void, *mut c_void, usize, c_int, c_int, *mut c_void, *mut c_void);
        group_start: "ncclGroupStart" ();
        group_end: "ncclGroupEnd" ();
        async_error: "ncclCommGetAsyncError" (*mut c_void, *mut c_int);
        abort: "ncclCommAbort" (*mut c_void);
        last_error: "ncclGetLastError" (*mut c_void) -> *const c_char;
    }
}

/// `ncclDataType_t`.
fn code(element: Element) -> c_int {
    match element {
        Element::F32 => 7,
        Element::Bf16 => 9,
    }
}

const SUM: c_int = 0;

/// NCCL, loaded.
pub struct Library {
    functions: Functions,
}

impl Library {
    /// By the name that NCCL's wheel and libtorch have; libtorch's CUDA part has opened it already where that is loaded.
    pub fn load() -> Result<Library> {
        Ok(Library { functions: Functions::bind(open("libnccl.so.2")?)? })
    }

    /// As NCCL counts: 22809 for 2.28.9.
    pub fn version(&self) -> Result<i32> {
        let mut version = 0;
        match Status(unsafe { (self.functions.version)(&mut version) }) {
            Status::SUCCESS => Ok(version),
            status => bail!("NCCL does not tell its version: {}", status.meaning()),
        }
    }

    /// A new id, for one set of ranks.
    pub fn id(&self) -> Result<Id> {
        let mut id = Id([0; Id::BYTES]);
        match Status(unsafe { (self.functions.id)(&mut id) }) {
            Status::SUCCESS => Ok(id),
            status => bail!("NCCL cannot be reached by other ranks: {}{}", status.meaning(), self.details(ptr::null_mut())),
        }
    }

    fn details(&self, communicator: *mut c_void) -> String {
        let text = unsafe { (self.functions.last_error)(communicator) };
        let text = if text.is_null() { "".into() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy() };
        if text.trim().is_empty() { String::new() } else { format!(" ({})", text.trim()) }
    }
}

/// One rank on one GPU, joined with the others. Lives as long as the process: taking leave is a collective call, which could wait for ever.
pub struct Communicator {
    library: Library,
    driver: Rc<Driver>,
    communicator: *mut c_void,
}

impl Communicator {
    /// Joins `size` ranks that have the same `id`. Collective: returns when all have called it.
    pub fn join(library: Library, driver: Rc<Driver>, id: Id, rank: usize, size: usize) -> Result<Communicator> {
        driver.enter()?;
        let mut communicator = ptr::null_mut();
        let status = Status(unsafe { (library.functions.join)(&mut communicator, size as c_int, id, rank as c_int) });
        if status != Status::SUCCESS {
            bail!("NCCL cannot join rank {rank} with the others: {}{}", status.meaning(), library.details(ptr::null_mut()));
        }
        Ok(Communicator { library, driver, communicator })
    }
}

impl Calls for Communicator {
    unsafe fn all_gather(&self, own: *const c_void, all: *mut c_void, count: usize, element: Element, stream: Stream) -> Status {
        Status(unsafe { (self.library.functions.all_gather)(own, all, count, code(element), self.communicator, stream.0) })
    }

    unsafe fn reduce_scatter(&self, all: *const c_void, own: *mut c_void, count: usize, element: Element, stream: Stream) -> Status {
        Status(unsafe { (self.library.functions.reduce_scatter)(all, own, count, code(element), SUM, self.communicator, stream.0) })
    }

    fn group_start(&self) -> Status {
        Status(unsafe { (self.library.functions.group_start)() })
    }

    fn group_end(&self) -> Status {
        Status(unsafe { (self.library.functions.group_end)() })
    }

    fn async_error(&self) -> Status {
        let mut error = 0;
        match Status(unsafe { (self.library.functions.async_error)(self.communicator, &mut error) }) {
            Status::SUCCESS => Status(error),
            status => status,
        }
    }

    fn abort(&self) {
        unsafe { (self.library.functions.abort)(self.communicator) };
    }

    fn details(&self) -> String {
        self.library.details(self.communicator)
    }

    fn stream(&self) -> Result<Stream> {
        self.driver.stream()
    }

    fn event(&self) -> Result<Event> {
        self.driver.event()
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.driver.record(event, stream)
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.driver.wait(stream, event)
    }

    fn passed(&self, event: Event) -> Result<bool> {
        self.driver.passed(event)
    }

    fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        self.driver.seconds(from, to)
    }
}
