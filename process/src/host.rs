//! The machine that a process runs on.

/// Its name; empty where the system tells none.
pub fn name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}
