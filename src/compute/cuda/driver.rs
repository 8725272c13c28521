//! The CUDA driver's streams, events and kernels, beside libtorch, which works on the device's legacy default stream.
//!
//! Each function is called as its library's manual asks: handles are those that the library gave and has not got back, pointers are to
//! values that live through the call, and strings end in a zero byte.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;

use anyhow::{Context, Result, bail, ensure};

use super::libraries::{bind, open};

bind! {
    /// The driver's functions.
    struct Functions {
        init: "cuInit" (c_uint);
        error_name: "cuGetErrorName" (c_int, *mut *const c_char);
        device_get: "cuDeviceGet" (*mut c_int, c_int);
        device_attribute: "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
        device_name: "cuDeviceGetName" (*mut c_char, c_int, c_int);
        device_uuid: "cuDeviceGetUuid_v2" (*mut [u8; 16], c_int);
        retain_context: "cuDevicePrimaryCtxRetain" (*mut *mut c_void, c_int);
        set_context: "cuCtxSetCurrent" (*mut c_void);
        memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
        stream_create: "cuStreamCreate" (*mut *mut c_void, c_uint);
        stream_wait: "cuStreamWaitEvent" (*mut c_void, *mut c_void, c_uint);
        event_create: "cuEventCreate" (*mut *mut c_void, c_uint);
        event_record: "cuEventRecord" (*mut c_void, *mut c_void);
        event_query: "cuEventQuery" (*mut c_void);
        event_synchronize: "cuEventSynchronize" (*mut c_void);
        event_elapsed: "cuEventElapsedTime" (*mut f32, *mut c_void, *mut c_void);
        module_load: "cuModuleLoadData" (*mut *mut c_void, *const c_void);
        module_function: "cuModuleGetFunction" (*mut *mut c_void, *mut c_void, *const c_char);
        launch: "cuLaunchKernel" (
            *mut c_void, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *mut c_void, *mut *mut c_void, *mut *mut c_void
        );
    }
}

bind! {
    /// What it takes to count GPUs.
    struct Census {
        init: "cuInit" (c_uint);
        count: "cuDeviceGetCount" (*mut c_int);
    }
}

/// GPUs that the driver shows this process.
pub fn gpus() -> Result<usize> {
    let census = Census::bind(open("libcuda.so.1")?)?;
    let mut count = 0;
    let status = unsafe {
        match (census.init)(0) {
            0 => (census.count)(&mut count),
            failed => failed,
        }
    };
    ensure!(status == 0, "the NVIDIA driver does not start (error {status})");
    Ok(count.max(0) as usize)
}

const NOT_READY: c_int = 600;
const NON_BLOCKING_STREAM: c_uint = 1;
const COMPUTE_CAPABILITY: [c_int; 2] = [75, 76];

/// A stream; [`Stream::LIBTORCH`] is the one that libtorch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream(pub *mut c_void);

impl Stream {
    pub const LIBTORCH: Stream = Stream(ptr::null_mut());
}

/// A point in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event(pub *mut c_void);

/// A compiled kernel.
#[derive(Clone, Copy)]
pub struct Function(*mut c_void);

/// One GPU and its primary context, which libtorch uses too. Streams, events and kernels live as long as the process.
pub struct Driver {
    functions: Functions,
    device: c_int,
    context: *mut c_void,
}

impl Driver {
    /// The driver on GPU number `index`, made current for the calling thread.
    pub fn new(index: usize) -> Result<Driver> {
        let functions = Functions::bind(open("libcuda.so.1")?)?;
        let mut driver = Driver { functions, device: 0, context: ptr::null_mut() };
        let f = &driver.functions;
        let (mut device, mut context) = (0, ptr::null_mut());
        driver.check("cuInit", unsafe { (f.init)(0) })?;
        driver.check("cuDeviceGet", unsafe { (f.device_get)(&mut device, index as c_int) })?;
        driver.check("cuDevicePrimaryCtxRetain", unsafe { (f.retain_context)(&mut context, device) })?;
        (driver.device, driver.context) = (device, context);
        driver.enter()?;
        Ok(driver)
    }

    fn check(&self, call: &str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        unsafe { (self.functions.error_name)(status, &mut name) };
        let name = if name.is_null() { "unknown error".into() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy() };
        bail!("{call} failed on GPU {}: {name} ({status})", self.device)
    }

    /// Makes the GPU's context the calling thread's.
    pub fn enter(&self) -> Result<()> {
        self.check("cuCtxSetCurrent", unsafe { (self.functions.set_context)(self.context) })
    }

    /// Major and minor number of the GPU's compute capability.
    pub fn compute_capability(&self) -> Result<(i32, i32)> {
        let mut numbers = [0; 2];
        for (number, attribute) in numbers.iter_mut().zip(COMPUTE_CAPABILITY) {
            self.check("cuDeviceGetAttribute", unsafe { (self.functions.device_attribute)(number, attribute, self.device) })?;
        }
        Ok((numbers[0], numbers[1]))
    }

    /// The GPU's name, such as "NVIDIA H200".
    pub fn name(&self) -> Result<String> {
        let mut name = [0 as c_char; 128];
        let status = unsafe { (self.functions.device_name)(name.as_mut_ptr(), name.len() as c_int, self.device) };
        self.check("cuDeviceGetName", status)?;
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    /// What tells this GPU from every other.
    pub fn uuid(&self) -> Result<[u8; 16]> {
        let mut uuid = [0; 16];
        self.check("cuDeviceGetUuid", unsafe { (self.functions.device_uuid)(&mut uuid, self.device) })?;
        Ok(uuid)
    }

    /// Bytes of the GPU's memory in use, by this process and others.
    pub fn memory_in_use(&self) -> Result<u64> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        self.check("cuMemGetInfo", unsafe { (self.functions.memory_info)(&mut free, &mut total) })?;
        Ok((total - free) as u64)
    }

    /// A stream of its own, which does not wait for libtorch's by itself.
    pub fn stream(&self) -> Result<Stream> {
        self.enter()?;
        let mut stream = ptr::null_mut();
        self.check("cuStreamCreate", unsafe { (self.functions.stream_create)(&mut stream, NON_BLOCKING_STREAM) })?;
        Ok(Stream(stream))
    }

    pub fn event(&self) -> Result<Event> {
        self.enter()?;
        let mut event = ptr::null_mut();
        self.check("cuEventCreate", unsafe { (self.functions.event_create)(&mut event, 0) })?;
        Ok(Event(event))
    }

    /// Puts `event` behind what `stream` has been given so far.
    pub fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuEventRecord", unsafe { (self.functions.event_record)(event.0, stream.0) })
    }

    /// What `stream` is given from now on waits for `event`.
    pub fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.enter()?;
        self.check("cuStreamWaitEvent", unsafe { (self.functions.stream_wait)(stream.0, event.0, 0) })
    }

    /// Whether the GPU has passed `event`; an error that the GPU met before it comes out here.
    pub fn passed(&self, event: Event) -> Result<bool> {
        match unsafe { (self.functions.event_query)(event.0) } {
            NOT_READY => Ok(false),
            status => self.check("cuEventQuery", status).map(|()| true),
        }
    }

    /// Waits on this thread until the GPU has passed `event`.
    pub fn synchronize(&self, event: Event) -> Result<()> {
        self.check("cuEventSynchronize", unsafe { (self.functions.event_synchronize)(event.0) })
    }

    /// Seconds between two events that the GPU has passed.
    pub fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        let mut milliseconds = 0.0f32;
        self.check("cuEventElapsedTime", unsafe { (self.functions.event_elapsed)(&mut milliseconds, from.0, to.0) })?;
        Ok(f64::from(milliseconds) * 1e-3)
    }

    /// The kernel `name` of a module in PTX, which ends with a zero byte.
    pub fn kernel(&self, ptx: &[u8], name: &str) -> Result<Function> {
        self.enter()?;
        let name = CString::new(name).context("a kernel's name has no zero byte")?;
        let (mut module, mut function) = (ptr::null_mut(), ptr::null_mut());
        self.check("cuModuleLoadData", unsafe { (self.functions.module_load)(&mut module, ptx.as_ptr().cast()) })?;
        self.check("cuModuleGetFunction", unsafe { (self.functions.module_function)(&mut function, module, name.as_ptr()) })?;
        Ok(Function(function))
    }

    /// Starts a kernel of `threads` threads on libtorch's stream.
    ///
    /// # Safety
    /// `arguments` must point to values of the kernel's parameters, in order.
    pub unsafe fn launch(&self, kernel: Function, threads: u64, arguments: &mut [*mut c_void]) -> Result<()> {
        const BLOCK: u64 = 256;
        self.enter()?;
        let blocks = u32::try_from(threads.div_ceil(BLOCK)).context("a kernel has too many threads")?;
        let status = unsafe {
            let (stream, arguments) = (Stream::LIBTORCH.0, arguments.as_mut_ptr());
            (self.functions.launch)(kernel.0, blocks, 1, 1, BLOCK as u32, 1, 1, 0, stream, arguments, ptr::null_mut())
        };
        self.check("cuLaunchKernel", status)
    }
}
