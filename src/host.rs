//! The machine that a process runs on.

/// Its name, for messages and files' names.
pub fn name() -> String {
    let name = biodist_process::host::name();
    if name.is_empty() { "an unnamed host".to_owned() } else { name }
}
