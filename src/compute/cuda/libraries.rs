//! NVIDIA's libraries, found while the program runs, so that one binary serves machines with and without them.
//!
//! Each is bound by `libloading` to the few functions that are used. (cudarc binds all of them, but looks for NCCL under names that its
//! wheel does not have, and panics where a library is missing.) Names are tried as the loader knows them, which finds what libtorch has
//! opened already, then in the folders of NVIDIA's Python wheels.
//!
//! A library does when it is opened what it does in every program that links it, and each function is bound with its manual's signature.

#![allow(clippy::undocumented_unsafe_blocks)]

use std::ffi::{CStr, c_void};
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use libloading::os::unix::{Library, RTLD_NOW};

/// Opens the library `name`.
pub(crate) fn open(name: &str) -> Result<Library> {
    let by_loader = unsafe { Library::open(Some(name), RTLD_NOW) };
    by_loader.or_else(|error| {
        let beside = wheels().into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
        let Some(path) = beside else { return Err(anyhow!("{error}")) };
        unsafe { Library::open(Some(&path), RTLD_NOW) }.map_err(|error| anyhow!("{error}"))
    })
}

/// Address of the function that a library open in this process exports under the name `symbol`.
pub(crate) fn symbol(symbol: &CStr) -> Option<*mut c_void> {
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, symbol.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// The folder that a function of an open library came from.
pub(super) fn folder_of(function: *mut c_void) -> Option<PathBuf> {
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    if unsafe { libc::dladdr(function, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Path::new(name.to_str().ok()?).parent().map(Path::to_owned)
}

/// Library folders of NVIDIA's wheels, `nvidia/*/lib`: beside the `torch` folder, where libtorch came as a wheel; where `make install` puts
/// them; and in `.nvidia` of the sources that this program was built from.
fn wheels() -> Vec<PathBuf> {
    let libtorch = symbol(c"_ZN2at13globalContextEv").and_then(folder_of);
    let beside = libtorch.as_deref().and_then(|lib| lib.ancestors().nth(2)).map(Path::to_owned);
    let program = std::env::current_exe().ok();
    let installed = program.as_deref().and_then(|program| program.ancestors().nth(2)).map(|prefix| prefix.join("lib/biodist"));
    let sites = beside.into_iter().chain(installed).chain([Path::new(env!("CARGO_MANIFEST_DIR")).join(".nvidia")]);
    let entries = sites.filter_map(|site| std::fs::read_dir(site.join("nvidia")).ok()).flatten().flatten();
    entries.map(|entry| entry.path().join("lib")).filter(|folder| folder.is_dir()).collect()
}

/// A library bound to functions, which return a status (0 for success) unless another type is given.
macro_rules! bind {
    ($(#[$doc:meta])* $visibility:vis struct $name:ident {
        $($field:ident: $symbol:literal ($($argument:ty),* $(,)?) $(-> $result:ty)?;)*
    }) => {
        $(#[$doc])*
        $visibility struct $name {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> $crate::compute::cuda::libraries::bind!(@ $($result)?),)*
            _library: libloading::os::unix::Library,
        }

        impl $name {
            /// Binds the functions of an open library.
            fn bind(library: libloading::os::unix::Library) -> anyhow::Result<$name> {
                unsafe {
                    Ok($name {
                        $($field: *library
                            .get($symbol.as_bytes())
                            .map_err(|error| anyhow::anyhow!("{}: {error}", $symbol))?,)*
                        _library: library,
                    })
                }
            }
        }
    };
    (@) => { std::ffi::c_int };
    (@ $result:ty) => { $result };
}

pub(crate) use bind;
