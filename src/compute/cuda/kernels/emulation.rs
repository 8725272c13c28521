//! The kernels on a CPU: the same sources behind emulation.h, compiled by the machine's C++ compiler. For tests.
//!
//! Memory is the host's. What emulation.h does more than a GPU: copies arrive as late as they may, and what has not arrived is NaN.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::collections::BTreeSet;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

use super::launches::Launch;
use super::{Kernel, program};

pub(super) const HEADER: (&str, &str) = ("emulation.h", include_str!("emulation.h"));

type Emulate = unsafe extern "C" fn(*const c_char, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, *const *const c_void) -> c_int;

/// Compiled kernels.
pub struct Emulation {
    emulate: Emulate,
    _library: Library,
}

impl Emulation {
    /// Compiles `kernels` in `folder`, which is no longer needed then; nothing where there is no C++ compiler.
    pub fn build(kernels: &BTreeSet<Kernel>, folder: &Path) -> Result<Option<Emulation>> {
        Emulation::compile(&program(HEADER, kernels), folder)
    }

    pub(super) fn compile(source: &str, folder: &Path) -> Result<Option<Emulation>> {
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        if Command::new(&compiler).arg("--version").output().is_err() {
            eprintln!("skipped: there is no C++ compiler ({compiler})");
            return Ok(None);
        }
        let (text, library) = (folder.join("kernels.cpp"), folder.join("kernels.so"));
        std::fs::write(&text, source)?;
        let options = [
            "-std=c++17",
            "-O1",
            "-march=native",
            "-ffp-contract=off",
            "-fno-strict-aliasing",
            "-Wno-unknown-pragmas",
            "-shared",
            "-fPIC",
            "-o",
        ];
        let output = Command::new(&compiler).args(options).arg(&library).arg(&text).output()?;
        ensure!(output.status.success(), "{compiler} cannot compile the kernels: {}", String::from_utf8_lossy(&output.stderr));
        let library = unsafe { Library::open(Some(&library), RTLD_NOW | RTLD_LOCAL) }.context("the compiled kernels cannot be opened")?;
        let emulate = unsafe { *library.get::<Emulate>(b"emulate")? };
        Ok(Some(Emulation { emulate, _library: library }))
    }

    /// Runs a kernel to its end. One runs at a time.
    ///
    /// # Safety
    /// The addresses in its argument must be those of memory of the sizes that it names, and begin on 16 bytes.
    pub unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        let name = CString::new(launch.kernel.to_string())?;
        let ([x, y, z], arguments) = (launch.grid, [launch.argument()]);
        match unsafe { (self.emulate)(name.as_ptr(), x, y, z, launch.block, 1, 1, launch.shared, arguments.as_ptr()) } {
            0 => Ok(()),
            1 => bail!("{} was not compiled", launch.kernel),
            2 => bail!("threads of {} wait for each other for ever", launch.kernel),
            _ => bail!("{} copies what does not begin on 16 bytes", launch.kernel),
        }
    }
}
