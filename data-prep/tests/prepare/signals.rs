//! A terminal that is closed ends a preparation like any signal does: the same command goes on, to the same bytes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::common::{data_prep, jpeg};

const PREPARE: &str = "folder --images photos --size 64 --shard-mib 1 --threads 1 --out";

fn photos(folder: &Path) {
    let photo = jpeg(200, 220, 1);
    for class in ["a", "b"] {
        let class = folder.join("photos").join(class);
        fs::create_dir_all(&class).unwrap();
        (0..250).for_each(|number| fs::write(class.join(format!("{number}.jpg")), &photo).unwrap());
    }
}

fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

/// How a preparation into `out` ends that is sent SIGHUP once it has begun, and was started with that disposition of it.
fn hung_up(folder: &Path, out: &str, disposition: libc::sighandler_t) -> ExitStatus {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-prep"));
    command.current_dir(folder).args(PREPARE.split(' ')).arg(out).stdout(Stdio::null()).stderr(Stdio::null());
    let dispose = move || {
        // SAFETY: the disposition is one of the system's own.
        unsafe { libc::signal(libc::SIGHUP, disposition) };
        Ok(())
    };
    // SAFETY: between fork and exec only signal is called, which may be.
    let mut child = unsafe { command.pre_exec(dispose) }.spawn().unwrap();
    let begun = || fs::read_dir(folder.join(out)).is_ok_and(|mut entries| entries.next().is_some());
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    // SAFETY: kill only takes numbers, and nobody has waited for the child.
    unsafe { libc::kill(child.id().cast_signed(), libc::SIGHUP) };
    child.wait().unwrap()
}

#[test]
fn what_a_closed_terminal_ends_goes_on_and_what_ignores_it_does_not_end() {
    let folder = tempfile::tempdir().unwrap();
    photos(folder.path());
    assert!(data_prep(folder.path(), &format!("{PREPARE} whole")).status.success());
    assert_eq!(hung_up(folder.path(), "parts", libc::SIG_DFL).signal(), Some(libc::SIGHUP));
    assert!(data_prep(folder.path(), &format!("{PREPARE} parts")).status.success());
    assert!(files(&folder.path().join("whole")) == files(&folder.path().join("parts")));
    // As under nohup.
    assert_eq!(hung_up(folder.path(), "ignored", libc::SIG_IGN).code(), Some(0));
    assert!(files(&folder.path().join("whole")) == files(&folder.path().join("ignored")));
}
