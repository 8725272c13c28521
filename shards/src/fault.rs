//! What happens when a mapped shard loses its bytes: a message that names it, instead of death by SIGBUS.
//!
//! Reading a mapped page that the file no longer has (it was truncated, its disk failed, its server forgot it) raises SIGBUS.
//! Lengths are compared before each access, which catches almost all of it; the handler is for what happens in between.
//! A handler may neither allocate nor lock, so the maps are kept in a list of nodes that are never freed, only used again.

use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

struct Node {
    start: AtomicUsize,
    /// Zero while the node is free.
    length: AtomicUsize,
    /// The shard's path; paths are never freed.
    path: AtomicPtr<c_char>,
    next: AtomicPtr<Node>,
}

static NODES: AtomicPtr<Node> = AtomicPtr::new(null_mut());
/// Serialises registrations; the handler does not take it.
static REGISTERING: Mutex<()> = Mutex::new(());
/// How messages begin; installed with the handler.
static PROGRAM: OnceLock<&str> = OnceLock::new();
static mut PREVIOUS: std::mem::MaybeUninit<libc::sigaction> = std::mem::MaybeUninit::uninit();

/// A range of memory that the handler knows to belong to a shard, until this is dropped.
pub(crate) struct Registration(&'static Node);

impl Registration {
    pub(crate) fn new(start: usize, length: usize, path: &Path) -> Registration {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap_or_default().into_raw();
        let _guard = REGISTERING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut node = NODES.load(Ordering::Acquire);
        // SAFETY: nodes are leaked boxes, so every pointer in the list stays valid.
        while let Some(free) = unsafe { node.as_ref() } {
            if free.length.load(Ordering::Acquire) == 0 {
                free.set(start, length, path);
                return Registration(free);
            }
            node = free.next.load(Ordering::Acquire);
        }
        let new: &'static mut Node = Box::leak(Box::new(Node {
            start: AtomicUsize::new(0),
            length: AtomicUsize::new(0),
            path: AtomicPtr::new(null_mut()),
            next: AtomicPtr::new(NODES.load(Ordering::Acquire)),
        }));
        new.set(start, length, path);
        NODES.store(new, Ordering::Release);
        Registration(new)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.0.length.store(0, Ordering::Release);
    }
}

impl Node {
    fn set(&self, start: usize, length: usize, path: *mut c_char) {
        self.start.store(start, Ordering::Release);
        self.path.store(path, Ordering::Release);
        self.length.store(length, Ordering::Release);
    }
}

/// Makes a fault in a mapped shard print which shard it was and end the process with 1. Other faults go where they went
/// before. Call it once, early, in `main`; further calls do nothing. `program` begins the message.
pub fn install_fault_handler(program: &'static str) {
    PROGRAM.get_or_init(|| {
        // SAFETY: the action is fully initialised, and `handle` restricts itself to async-signal-safe calls.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handle as extern "C" fn(_, _, _) as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaction(libc::SIGBUS, &action, (&raw mut PREVIOUS).cast());
        }
        program
    });
}

extern "C" fn handle(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid siginfo for SIGBUS; nodes and paths are never freed; write, sigaction and _exit are
    // async-signal-safe.
    unsafe {
        let address = (*info).si_addr() as usize;
        let mut node = NODES.load(Ordering::Acquire);
        while let Some(map) = node.as_ref() {
            let length = map.length.load(Ordering::Acquire);
            if address.wrapping_sub(map.start.load(Ordering::Acquire)) < length {
                let path = map.path.load(Ordering::Acquire);
                say(PROGRAM.get().map_or(b"error", |program| program.as_bytes()));
                say(b": ");
                say(std::slice::from_raw_parts(path.cast(), libc::strlen(path)));
                say(b" can no longer be read: it became shorter or its disk failed while it was in use; restore it and run again\n");
                libc::_exit(1);
            }
            node = map.next.load(Ordering::Acquire);
        }
        // Not ours: the instruction faults again and the earlier handler sees it.
        libc::sigaction(libc::SIGBUS, (&raw const PREVIOUS).cast(), null_mut());
    }
}

unsafe fn say(bytes: &[u8]) {
    // SAFETY: the pointer and length are a slice's. A failed write cannot be reported anywhere.
    unsafe { libc::write(2, bytes.as_ptr().cast(), bytes.len()) };
}
