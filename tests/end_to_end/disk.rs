//! Folders that cannot be written: a full disk, and a read-only mount. Skipped where nothing may be mounted.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::site::Site;

/// A file system of its own, unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn tmpfs(at: &Path, options: &str) -> Option<Mount> {
        std::fs::create_dir_all(at).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Mount(at.to_owned()));
        }
        eprintln!("skipped: nothing may be mounted here");
        None
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_whole() {
    let site = Site::new();
    // A checkpoint takes about 28 kB in 4 kB pages: step 0 fits, and then one or two more.
    let Some(_mount) = Mount::tmpfs(&site.path("small"), "size=96k") else { return };
    let more = "[training]\nmax_steps = 60\ncheckpoint_every_steps = 5\nkeep_checkpoints = 100";
    let config = site.configure("full", "rule = \"bp\"", more);
    for (run, ranks) in [("small/alone", 1), ("small/two", 2)] {
        let outcome = site.run(ranks, &["train", &config, "--out", run]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        assert!(said.len() == 1 && said[0].contains("No space left on device"), "{outcome:?}");
        let left = site.checkpoint_names(run);
        assert!(!left.is_empty() && !site.path(run).join("checkpoint.partial").exists(), "{left:?}");
        // What is there is whole.
        for name in &left {
            site.succeed(
                1,
                &["eval", run, "--checkpoint", name.trim_start_matches('0').get(..).filter(|step| !step.is_empty()).unwrap_or("0")],
            );
        }
        std::fs::remove_dir_all(site.path(run)).unwrap();
    }
}

#[test]
fn a_read_only_folder_is_one_clear_error() {
    let site = Site::new();
    let Some(_mount) = Mount::tmpfs(&site.path("sealed"), "ro") else { return };
    let config = site.configure("short", "rule = \"bp\"", "[training]\nmax_steps = 3");
    for ranks in [1, 2] {
        let outcome = site.run(ranks, &["train", &config, "--out", "sealed/run"]);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        assert!(said.len() == 1 && said[0].contains("sealed/run") && said[0].contains("Read-only file system"), "{outcome:?}");
    }
}
