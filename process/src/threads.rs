//! Threads, of which a system may have none left to give. Never by `std::thread::spawn`, which panics there.

use std::fmt::Display;
use std::io;
use std::thread::{Builder, JoinHandle, Scope, ScopedJoinHandle};

/// Starts a thread.
///
/// # Errors
/// As [`lack`] has them.
pub fn spawn<T: Send + 'static>(name: &str, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
    Builder::new().name(name.to_owned()).spawn(body).map_err(lack)
}

/// Starts a thread that ends with `scope`.
///
/// # Errors
/// As [`lack`] has them.
pub fn spawn_in<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    body: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).spawn_scoped(scope, body).map_err(lack)
}

/// What the system says where it has no thread to give, with the limits that may be why: it does not say which.
pub fn lack(error: impl Display) -> io::Error {
    let limit = |resource, unit: u64| {
        // SAFETY: `rlimit` is plain numbers, for which zeros are valid, and the call fills it.
        let now = unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(resource, &mut limit);
            limit.rlim_cur
        };
        if now == libc::RLIM_INFINITY { "unlimited".to_owned() } else { (now / unit).to_string() }
    };
    io::Error::other(format!(
        "no thread can be started: {error}; raise the limit that is reached: on processes and threads of this user (`ulimit -u` is {}), \
         on memory in KiB (`ulimit -v` is {}), or its container's",
        limit(libc::RLIMIT_NPROC, 1),
        limit(libc::RLIMIT_AS, 1024)
    ))
}
