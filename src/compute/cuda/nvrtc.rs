//! NVIDIA's run-time compiler: the kernels' sources to code for the GPU that is there. It needs no GPU.
//!
//! Each function is called as its library's manual asks: handles are those that the library gave and has not got back, pointers are to
//! values that live through the call, and strings end in a zero byte.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::Path;
use std::ptr;

use anyhow::{Context, Result, bail};
use libloading::os::unix::{Library, RTLD_NOW};

use super::libraries::{bind, folder_of, open};

bind! {
    struct Functions {
        version: "nvrtcVersion" (*mut c_int, *mut c_int);
        create: "nvrtcCreateProgram" (
            *mut *mut c_void, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char
        );
        compile: "nvrtcCompileProgram" (*mut c_void, c_int, *const *const c_char);
        log_size: "nvrtcGetProgramLogSize" (*mut c_void, *mut usize);
        log: "nvrtcGetProgramLog" (*mut c_void, *mut c_char);
        ptx_size: "nvrtcGetPTXSize" (*mut c_void, *mut usize);
        ptx: "nvrtcGetPTX" (*mut c_void, *mut u8);
        cubin_size: "nvrtcGetCUBINSize" (*mut c_void, *mut usize);
        cubin: "nvrtcGetCUBIN" (*mut c_void, *mut u8);
        destroy: "nvrtcDestroyProgram" (*mut *mut c_void);
    }
}

/// The compiler of CUDA 13, which is what libtorch 2.11 comes with.
pub struct Nvrtc {
    functions: Functions,
    pub version: (i32, i32),
}

/// Options beside the architecture. Multiplication and addition are not fused, so that formulas give the bits that they give on a CPU.
pub const OPTIONS: [&CStr; 4] = [c"--fmad=false", c"--std=c++17", c"-default-device", c"--ptxas-options=-v"];

/// A program for one kind of GPU, which needs no compiler any more.
pub struct Cubin {
    pub image: Vec<u8>,
    /// What the assembler said: registers and spills of each kernel.
    pub log: String,
}

/// What the compiler gave for a program, or what it said.
type Compiled<T> = std::result::Result<T, String>;

impl Nvrtc {
    pub fn load() -> Result<Nvrtc> {
        let functions = Functions::bind(open("libnvrtc.so.13")?)?;
        let (mut major, mut minor) = (0, 0);
        if unsafe { (functions.version)(&mut major, &mut minor) } != 0 {
            bail!("libnvrtc.so.13 does not tell its version");
        }
        // The compiler looks for this file by its name alone, and ends the program where that fails: it is opened before, by its path.
        if let Some(folder) = folder_of(functions.version as *mut c_void) {
            open_builtins(&folder.join(format!("libnvrtc-builtins.so.{major}.{minor}")))?;
        }
        Ok(Nvrtc { functions, version: (major, minor) })
    }

    /// PTX of `source`, which messages call `name`, for a compute capability. It ends with a zero byte.
    pub fn compile(&self, name: &str, source: &str, capability: (i32, i32)) -> Result<Vec<u8>> {
        let f = &self.functions;
        let ptx = |program| unsafe { self.output(program, f.ptx_size, f.ptx) };
        self.program(name, source, "compute", capability, ptx)
    }

    /// Code of `source` for GPUs of a compute capability.
    pub fn cubin(&self, name: &str, source: &str, capability: (i32, i32)) -> Result<Cubin> {
        let f = &self.functions;
        let cubin = |program| unsafe { Ok(Cubin { image: self.output(program, f.cubin_size, f.cubin)?, log: self.log(program) }) };
        self.program(name, source, "sm", capability, cubin)
    }

    fn program<T>(
        &self,
        name: &str,
        source: &str,
        architecture: &str,
        (major, minor): (i32, i32),
        output: impl Fn(*mut c_void) -> Compiled<T>,
    ) -> Result<T> {
        let (name_text, source) = (CString::new(name)?, CString::new(source)?);
        let option = CString::new(format!("--gpu-architecture={architecture}_{major}{minor}"))?;
        let options: Vec<_> = OPTIONS.iter().map(|option| option.as_ptr()).chain([option.as_ptr()]).collect();
        let f = &self.functions;
        let mut program = ptr::null_mut();
        unsafe {
            if (f.create)(&mut program, source.as_ptr(), name_text.as_ptr(), 0, ptr::null(), ptr::null()) != 0 {
                bail!("NVRTC could not take in {name}");
            }
            let status = (f.compile)(program, options.len() as c_int, options.as_ptr());
            let compiled = if status == 0 { output(program) } else { Err(self.log(program)) };
            (f.destroy)(&mut program);
            compiled.map_err(|log| anyhow::anyhow!("NVRTC cannot compile {name} for compute capability {major}.{minor}: {log}"))
        }
    }

    unsafe fn output(
        &self,
        program: *mut c_void,
        size_of: unsafe extern "C" fn(*mut c_void, *mut usize) -> c_int,
        read: unsafe extern "C" fn(*mut c_void, *mut u8) -> c_int,
    ) -> Compiled<Vec<u8>> {
        let mut size = 0;
        unsafe {
            if size_of(program, &mut size) != 0 || size == 0 {
                return Err("no code was made".to_owned());
            }
            let mut code = vec![0; size];
            read(program, code.as_mut_ptr());
            Ok(code)
        }
    }

    unsafe fn log(&self, program: *mut c_void) -> String {
        let mut size = 0;
        unsafe {
            (self.functions.log_size)(program, &mut size);
            let mut log = vec![0u8; size.max(1)];
            (self.functions.log)(program, log.as_mut_ptr().cast());
            CStr::from_bytes_until_nul(&log).map_or_else(|_| String::new(), |log| log.to_string_lossy().trim().to_owned())
        }
    }
}

/// The compiler's version, such as "13.0".
pub fn version() -> Result<String> {
    let (major, minor) = Nvrtc::load()?.version;
    Ok(format!("{major}.{minor}"))
}

fn open_builtins(path: &Path) -> Result<()> {
    let library = unsafe { Library::open(Some(path), RTLD_NOW) };
    std::mem::forget(library.with_context(|| format!("{} is needed by NVRTC", path.display()))?);
    Ok(())
}
