//! Ranks of a host share one copy of the parameters where /dev/shm is small, and where each is in a container of its own. Skipped where no
//! namespaces may be made.

use std::process::Command;

use crate::site::{Job, Site, allow_mpirun, prepare, turn};

const PROGRAM: &str = env!("CARGO_BIN_EXE_biodist");

/// Trains on one process and by `command`, whose last arguments are biodist's and name the folder "shared", and compares; nothing where
/// `unshare` is refused these namespaces.
fn compare(namespaces: &[&str], command: &[&str]) {
    if !Command::new("unshare").args(namespaces).arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no namespaces may be made here");
        return;
    }
    let site = Site::new();
    // Parameters and moments take 13 MB.
    let text = "[data]\ntrain = \"train\"\ntest = \"test\"\nbatch_size = 16\n[[network.layers]]\nkind = \"dense\"\nunits = 1000\n\
                [[network.layers]]\nkind = \"dense\"\nunits = 1000\n[learning]\nrule = \"bp\"\n[optimizer.forward]\nlearning_rate = 0.001\n\
                [training]\nmax_steps = 12\ncheckpoint_every_steps = 4\n";
    std::fs::write(site.path("wide.toml"), text).unwrap();
    site.succeed(1, &["train", "wide.toml", "--out", "whole"]);
    let mut job = Command::new(command[0]);
    job.args(&command[1..]).args(["train", "wide.toml", "--out", "shared"]).current_dir(site.path(""));
    prepare(&mut job);
    allow_mpirun(&mut job);
    // Ranks in namespaces of their own may not read each other's memory.
    job.env("OMPI_MCA_btl_vader_single_copy_mechanism", "none");
    let outcome = Job::start(job, turn(2)).wait();
    assert!(outcome.code == Some(0) && !outcome.stderr.contains("cannot share memory"), "{outcome:?}");
    site.assert_same("whole", "shared");
}

#[test]
fn dev_shm_needs_no_room_for_what_ranks_share() {
    // A container's has 64 MB, which a larger network does not fit; MPI itself wants some of it.
    let script = "mount -t tmpfs -o size=12m tmpfs /dev/shm; exec \"$@\"";
    let mpirun = ["mpirun", "--oversubscribe", "-n", "2", PROGRAM];
    compare(&["--mount"], &[&["unshare", "--mount", "sh", "-e", "-c", script, "sh"][..], &mpirun].concat());
}

#[test]
fn ranks_in_containers_of_their_own_share_too() {
    let alone = ["--user", "--map-root-user"];
    compare(&alone, &[&["mpirun", "--oversubscribe", "-n", "2", "unshare"][..], &alone, &[PROGRAM]].concat());
}
