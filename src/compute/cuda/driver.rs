//! The CUDA driver: a [`Gpu`] that is one.
//!
//! Each function is called as its library's manual asks: handles are those that the library gave and has not got back, pointers are to
//! values that live through the call, and strings end in a zero byte.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::ptr;

use anyhow::{Context, Result, ensure};

use super::failure::Failure;
use super::gpu::{Address, Event, Function, Gpu, Graph, Stream};
use super::kernels::launches::Launch;
use super::kernels::{self, Kernel};
use super::libraries::{bind, open};

bind! {
    /// The driver's functions.
    struct Functions {
        init: "cuInit" (c_uint);
        version: "cuDriverGetVersion" (*mut c_int);
        error_name: "cuGetErrorName" (c_int, *mut *const c_char);
        device_get: "cuDeviceGet" (*mut c_int, c_int);
        device_attribute: "cuDeviceGetAttribute" (*mut c_int, c_int, c_int);
        device_name: "cuDeviceGetName" (*mut c_char, c_int, c_int);
        device_uuid: "cuDeviceGetUuid_v2" (*mut [u8; 16], c_int);
        retain_context: "cuDevicePrimaryCtxRetain" (*mut *mut c_void, c_int);
        set_context: "cuCtxSetCurrent" (*mut c_void);
        memory_info: "cuMemGetInfo_v2" (*mut usize, *mut usize);
        allocate: "cuMemAlloc_v2" (*mut u64, usize);
        release: "cuMemFree_v2" (u64);
        allocate_host: "cuMemHostAlloc" (*mut *mut c_void, usize, c_uint);
        upload: "cuMemcpyHtoDAsync_v2" (u64, *const c_void, usize, *mut c_void);
        download: "cuMemcpyDtoHAsync_v2" (*mut c_void, u64, usize, *mut c_void);
        copy: "cuMemcpyDtoDAsync_v2" (u64, u64, usize, *mut c_void);
        set_words: "cuMemsetD32Async" (u64, c_uint, usize, *mut c_void);
        stream_create: "cuStreamCreate" (*mut *mut c_void, c_uint);
        stream_wait: "cuStreamWaitEvent" (*mut c_void, *mut c_void, c_uint);
        begin_capture: "cuStreamBeginCapture_v2" (*mut c_void, c_int);
        end_capture: "cuStreamEndCapture" (*mut c_void, *mut *mut c_void);
        instantiate: "cuGraphInstantiateWithFlags" (*mut *mut c_void, *mut c_void, u64);
        destroy_graph: "cuGraphDestroy" (*mut c_void);
        launch_graph: "cuGraphLaunch" (*mut c_void, *mut c_void);
        is_capturing: "cuStreamIsCapturing" (*mut c_void, *mut c_int);
        event_create: "cuEventCreate" (*mut *mut c_void, c_uint);
        event_record: "cuEventRecordWithFlags" (*mut c_void, *mut c_void, c_uint);
        event_query: "cuEventQuery" (*mut c_void);
        event_synchronize: "cuEventSynchronize" (*mut c_void);
        event_elapsed: "cuEventElapsedTime" (*mut f32, *mut c_void, *mut c_void);
        module_load: "cuModuleLoadData" (*mut *mut c_void, *const c_void);
        module_function: "cuModuleGetFunction" (*mut *mut c_void, *mut c_void, *const c_char);
        function_attribute: "cuFuncSetAttribute" (*mut c_void, c_int, c_int);
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
    // No GPU is what the second finding says, however the driver puts it.
    ensure!(status == 0 || status == NO_DEVICE, "the NVIDIA driver does not start (error {status})");
    Ok(count.max(0) as usize)
}

const NO_DEVICE: c_int = 100;
const NOT_READY: c_int = 600;
const NON_BLOCKING_STREAM: c_uint = 1;
const COMPUTE_CAPABILITY: [c_int; 2] = [75, 76];
/// `CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES`.
const SHARED_BYTES: c_int = 8;
/// Shared memory that a kernel may use unasked.
const SHARED_UNASKED: u32 = 48 << 10;
/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: other threads, of libraries, may do what they like.
const CAPTURE_OF_THIS_THREAD: c_int = 1;
/// `CU_EVENT_RECORD_EXTERNAL`: an event that a graph records each time it is replayed.
const RECORD_IN_GRAPH: c_uint = 1;

/// Kernels that were loaded together.
#[derive(Clone, Copy)]
pub struct Module(*mut c_void);

/// One GPU and its primary context, which libtorch uses too. Streams, events, kernels and graphs live as long as the process.
pub struct Driver {
    functions: Functions,
    device: c_int,
    context: *mut c_void,
    /// Of the kernels that were loaded, with the shared memory that they were granted.
    functions_of: RefCell<BTreeMap<Kernel, (Function, u32)>>,
}

impl Driver {
    /// The driver on GPU number `index`, made current for the calling thread.
    pub fn new(index: usize) -> Result<Driver> {
        let functions = Functions::bind(open("libcuda.so.1")?).context("the NVIDIA driver is too old")?;
        let mut driver = Driver { functions, device: 0, context: ptr::null_mut(), functions_of: RefCell::default() };
        let f = &driver.functions;
        let (mut device, mut context) = (0, ptr::null_mut());
        driver.check("cuInit", unsafe { (f.init)(0) })?;
        driver.check("cuDeviceGet", unsafe { (f.device_get)(&mut device, index as c_int) })?;
        driver.check("cuDevicePrimaryCtxRetain", unsafe { (f.retain_context)(&mut context, device) })?;
        (driver.device, driver.context) = (device, context);
        driver.enter()?;
        Ok(driver)
    }

    fn check(&self, call: &'static str, status: c_int) -> Result<()> {
        if status == 0 {
            return Ok(());
        }
        let mut name = ptr::null();
        unsafe { (self.functions.error_name)(status, &mut name) };
        let name = if name.is_null() { "unknown error".into() } else { unsafe { CStr::from_ptr(name) }.to_string_lossy() };
        Err(Failure { call, status, name: name.into_owned(), gpu: self.device }.into())
    }

    /// Makes the GPU's context the calling thread's.
    pub fn enter(&self) -> Result<()> {
        self.check("cuCtxSetCurrent", unsafe { (self.functions.set_context)(self.context) })
    }

    /// The CUDA version that the driver serves: 13000 for 13.0.
    pub fn version(&self) -> Result<i32> {
        let mut version = 0;
        self.check("cuDriverGetVersion", unsafe { (self.functions.version)(&mut version) })?;
        Ok(version)
    }

    /// Bytes of the GPU's memory in use, by this process and others.
    pub fn memory_in_use(&self) -> Result<u64> {
        let (free, total) = self.memory()?;
        Ok(total - free)
    }

    /// A module of `image`: a cubin, or PTX that ends with a zero byte.
    pub fn module(&self, image: &[u8]) -> Result<Module> {
        self.enter()?;
        let mut module = ptr::null_mut();
        self.check("cuModuleLoadData", unsafe { (self.functions.module_load)(&mut module, image.as_ptr().cast()) })?;
        Ok(Module(module))
    }

    /// The kernel `name` of a module.
    pub fn kernel(&self, module: Module, name: &str) -> Result<Function> {
        let symbol = CString::new(name).context("a kernel's name has no zero byte")?;
        let mut function = ptr::null_mut();
        self.check("cuModuleGetFunction", unsafe { (self.functions.module_function)(&mut function, module.0, symbol.as_ptr()) })?;
        Ok(Function(function))
    }

    /// Starts a kernel of `threads` threads on libtorch's stream.
    ///
    /// # Safety
    /// `arguments` must point to values of the kernel's parameters, in order.
    pub unsafe fn launch(&self, kernel: Function, threads: u64, arguments: &mut [*mut c_void]) -> Result<()> {
        const BLOCK: u64 = 256;
        let blocks = u32::try_from(threads.div_ceil(BLOCK)).context("a kernel has too many threads")?;
        unsafe { self.give(kernel, [blocks, 1, 1], [BLOCK as u32, 1, 1], 0, arguments, Stream::LIBTORCH) }
    }

    unsafe fn give(
        &self,
        kernel: Function,
        [gx, gy, gz]: [u32; 3],
        [bx, by, bz]: [u32; 3],
        shared: u32,
        arguments: &mut [*mut c_void],
        stream: Stream,
    ) -> Result<()> {
        self.enter()?;
        let status = unsafe {
            let arguments = arguments.as_mut_ptr();
            (self.functions.launch)(kernel.0, gx, gy, gz, bx, by, bz, shared, stream.0, arguments, ptr::null_mut())
        };
        self.check("cuLaunchKernel", status)
    }
}

impl Gpu for Driver {
    fn capability(&self) -> Result<(i32, i32)> {
        let mut numbers = [0; 2];
        for (number, attribute) in numbers.iter_mut().zip(COMPUTE_CAPABILITY) {
            self.check("cuDeviceGetAttribute", unsafe { (self.functions.device_attribute)(number, attribute, self.device) })?;
        }
        Ok((numbers[0], numbers[1]))
    }

    fn name(&self) -> Result<String> {
        let mut name = [0 as c_char; 128];
        let status = unsafe { (self.functions.device_name)(name.as_mut_ptr(), name.len() as c_int, self.device) };
        self.check("cuDeviceGetName", status)?;
        Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn uuid(&self) -> Result<[u8; 16]> {
        let mut uuid = [0; 16];
        self.check("cuDeviceGetUuid", unsafe { (self.functions.device_uuid)(&mut uuid, self.device) })?;
        Ok(uuid)
    }

    fn memory(&self) -> Result<(u64, u64)> {
        self.enter()?;
        let (mut free, mut total) = (0, 0);
        self.check("cuMemGetInfo", unsafe { (self.functions.memory_info)(&mut free, &mut total) })?;
        Ok((free as u64, total as u64))
    }

    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        let mut at = 0;
        self.check("cuMemAlloc", unsafe { (self.functions.allocate)(&mut at, bytes.max(1)) })?;
        Ok(Address(at))
    }

    fn release(&self, at: Address) -> Result<()> {
        self.enter()?;
        self.check("cuMemFree", unsafe { (self.functions.release)(at.0) })
    }

    fn page_locked(&self, bytes: usize) -> Result<*mut u8> {
        self.enter()?;
        let mut at = ptr::null_mut();
        self.check("cuMemHostAlloc", unsafe { (self.functions.allocate_host)(&mut at, bytes.max(1), 0) })?;
        unsafe { ptr::write_bytes(at.cast::<u8>(), 0, bytes) };
        Ok(at.cast())
    }

    fn stream(&self) -> Result<Stream> {
        self.enter()?;
        let mut stream = ptr::null_mut();
        self.check("cuStreamCreate", unsafe { (self.functions.stream_create)(&mut stream, NON_BLOCKING_STREAM) })?;
        Ok(Stream(stream))
    }

    fn event(&self) -> Result<Event> {
        self.enter()?;
        let mut event = ptr::null_mut();
        self.check("cuEventCreate", unsafe { (self.functions.event_create)(&mut event, 0) })?;
        Ok(Event(event))
    }

    fn load(&self, kernels: &BTreeSet<Kernel>) -> Result<()> {
        let mut functions = self.functions_of.borrow_mut();
        let new: BTreeSet<Kernel> = kernels.iter().copied().filter(|kernel| !functions.contains_key(kernel)).collect();
        if new.is_empty() {
            return Ok(());
        }
        for compiled in kernels::compile(&new, self.capability()?)? {
            let module = self.module(&compiled.image)?;
            for kernel in compiled.kernels {
                functions.insert(kernel, (self.kernel(module, &kernel.to_string())?, 0));
            }
        }
        Ok(())
    }

    unsafe fn upload(&self, to: Address, from: *const u8, bytes: usize, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuMemcpyHtoDAsync", unsafe { (self.functions.upload)(to.0, from.cast(), bytes, stream.0) })
    }

    unsafe fn download(&self, to: *mut u8, from: Address, bytes: usize, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuMemcpyDtoHAsync", unsafe { (self.functions.download)(to.cast(), from.0, bytes, stream.0) })
    }

    unsafe fn copy(&self, to: Address, from: Address, bytes: usize, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuMemcpyDtoDAsync", unsafe { (self.functions.copy)(to.0, from.0, bytes, stream.0) })
    }

    unsafe fn clear(&self, at: Address, bytes: usize, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuMemsetD32Async", unsafe { (self.functions.set_words)(at.0, 0, bytes / 4, stream.0) })
    }

    unsafe fn start(&self, launch: &Launch, stream: Stream) -> Result<()> {
        let mut functions = self.functions_of.borrow_mut();
        let (function, shared) = functions.get_mut(&launch.kernel).with_context(|| format!("{} is not loaded", launch.kernel))?;
        if launch.shared > SHARED_UNASKED.max(*shared) {
            self.enter()?;
            self.check("cuFuncSetAttribute", unsafe {
                (self.functions.function_attribute)(function.0, SHARED_BYTES, launch.shared as c_int)
            })?;
            *shared = launch.shared;
        }
        let mut argument = [launch.argument().cast_mut()];
        unsafe { self.give(*function, launch.grid, [launch.block, 1, 1], launch.shared, &mut argument, stream) }
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.enter()?;
        let mut capturing = 0;
        self.check("cuStreamIsCapturing", unsafe { (self.functions.is_capturing)(stream.0, &mut capturing) })?;
        let flags = if capturing == 0 { 0 } else { RECORD_IN_GRAPH };
        self.check("cuEventRecord", unsafe { (self.functions.event_record)(event.0, stream.0, flags) })
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.enter()?;
        self.check("cuStreamWaitEvent", unsafe { (self.functions.stream_wait)(stream.0, event.0, 0) })
    }

    fn passed(&self, event: Event) -> Result<bool> {
        match unsafe { (self.functions.event_query)(event.0) } {
            NOT_READY => Ok(false),
            status => self.check("cuEventQuery", status).map(|()| true),
        }
    }

    fn synchronize(&self, event: Event) -> Result<()> {
        self.check("cuEventSynchronize", unsafe { (self.functions.event_synchronize)(event.0) })
    }

    fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        let mut milliseconds = 0.0f32;
        self.check("cuEventElapsedTime", unsafe { (self.functions.event_elapsed)(&mut milliseconds, from.0, to.0) })?;
        Ok(f64::from(milliseconds) * 1e-3)
    }

    fn begin_capture(&self, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuStreamBeginCapture", unsafe { (self.functions.begin_capture)(stream.0, CAPTURE_OF_THIS_THREAD) })
    }

    fn end_capture(&self, stream: Stream) -> Result<Graph> {
        let (mut graph, mut executable) = (ptr::null_mut(), ptr::null_mut());
        self.check("cuStreamEndCapture", unsafe { (self.functions.end_capture)(stream.0, &mut graph) })?;
        self.check("cuGraphInstantiate", unsafe { (self.functions.instantiate)(&mut executable, graph, 0) })?;
        self.check("cuGraphDestroy", unsafe { (self.functions.destroy_graph)(graph) })?;
        Ok(Graph(executable))
    }

    unsafe fn replay(&self, graph: Graph, stream: Stream) -> Result<()> {
        self.enter()?;
        self.check("cuGraphLaunch", unsafe { (self.functions.launch_graph)(graph.0, stream.0) })
    }
}
