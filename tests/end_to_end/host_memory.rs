//! Ranks of a host share one copy of the parameters where /dev/shm is small, and where each is in a container of its own. Skipped where no
//! namespaces may be made.

use std::process::Command;

use crate::site::{Job, Site, allow_mpirun, prepare, turn};

const PROGRAM: &str = env!("CARGO_BIN_EXE_biodist");
const ALONE: [&str; 2] = ["--user", "--map-root-user"];

/// Trains on one process and by `command`, which ends with the program, and compares. What several ranks say of sharing must be `said`.
/// Nothing where `unshare` is refused these namespaces.
fn compare(namespaces: &[&str], command: &[&str], said: &[&str]) {
    // Some sandboxes allow a namespace of mounts, and no mount.
    let probe: &[&str] = if namespaces.contains(&"--mount") { &["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"] } else { &["true"] };
    if !Command::new("unshare").args(namespaces).args(probe).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no such namespaces may be made here");
        return;
    }
    let site = Site::on_disk();
    // Parameters and moments take 13 MB, activities 3 MB.
    let text = "[data]\ntrain = \"train\"\ntest = \"test\"\nbatch_size = 192\n[[network.layers]]\nkind = \"dense\"\nunits = 1000\n\
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
    let warnings: Vec<&str> = outcome.stderr.lines().filter(|line| line.contains("cannot share memory")).collect();
    assert!(outcome.code == Some(0) && warnings.len() == said.len(), "{outcome:?}");
    assert!(said.iter().all(|said| warnings.iter().any(|line| line.contains(said))), "{outcome:?}");
    site.assert_same("whole", "shared");
}

/// mpirun and the program, with a /dev/shm of `size` around them, each rank started by `starter`.
fn with_dev_shm<'a>(size: &'a str, starter: &[&'a str]) -> Vec<&'a str> {
    let script = "mount -t tmpfs -o size=$0 tmpfs /dev/shm; exec \"$@\"";
    let around = ["unshare", "--mount", "sh", "-e", "-c", script, size];
    [&around, &["mpirun", "--oversubscribe", "-n", "2"][..], starter, &[PROGRAM]].concat()
}

#[test]
fn dev_shm_needs_no_room_for_what_ranks_share() {
    // A container's has 64 MB, which a larger network does not fit; MPI itself wants some of it.
    compare(&["--mount"], &with_dev_shm("12m", &[]), &[]);
}

#[test]
fn ranks_in_containers_of_their_own_share_too() {
    let starter = [&["unshare"][..], &ALONE].concat();
    let mpirun = [&["mpirun", "--oversubscribe", "-n", "2"][..], &starter, &[PROGRAM]].concat();
    compare(&ALONE, &mpirun, &[]);
    let namespaces = [&["--mount"][..], &ALONE].concat();
    // No room for the parameters, and then none for the activities alone: a copy for each rank.
    let lacks = ["Permission denied", "in /dev/shm: No space left"];
    for size in ["12m", "14m"] {
        compare(&namespaces, &with_dev_shm(size, &starter), &lacks);
    }
}
