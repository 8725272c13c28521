//! Where output goes: folders that another process works in, disks that fill up, and pipes in the place of files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{expect, files, idx, jpeg, put};

const IDX: &str = "idx --images images --labels labels --out";

fn write_idx(folder: &Path, samples: u32) {
    let values: Vec<u8> = (0..samples * 400 * 400).map(|at| (at % 253) as u8).collect();
    put(folder, "images", &idx(&[samples, 400, 400], &values));
    put(folder, "labels", &idx(&[samples], &vec![7; samples as usize]));
}

/// Runs data-prep, but not for ever.
fn bounded(folder: &Path, arguments: &str) -> Output {
    let program = env!("CARGO_BIN_EXE_data-prep");
    Command::new("timeout").arg("20").arg(program).args(arguments.split_whitespace()).current_dir(folder).output().unwrap()
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_folder_that_another_process_works_in_is_left_to_it() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 2);
    put(folder.path(), "out/job.json", b"{}");
    put(folder.path(), "out/00000.shard", b"of the other");
    let before = files(&folder.path().join("out"));
    let job = fs::File::open(folder.path().join("out/job.json")).unwrap();
    job.try_lock().unwrap();
    let said = expect(folder.path(), &format!("{IDX} out"), 1);
    assert_eq!(said, "data-prep: another data-prep is at work in out; wait until it ends, or give another folder\n");
    assert!(files(&folder.path().join("out")) == before);
    drop(job);
    let said = expect(folder.path(), &format!("{IDX} out"), 2);
    assert!(said.contains("holds another preparation that was interrupted"), "{said}");
}

#[test]
fn of_many_that_begin_at_once_one_prepares() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 40);
    expect(folder.path(), &format!("{IDX} whole --shard-mib 1"), 0);
    let start = |shard_mib: usize| {
        let arguments = format!("{IDX} out --shard-mib {shard_mib}");
        Command::new(env!("CARGO_BIN_EXE_data-prep"))
            .args(arguments.split_whitespace())
            .current_dir(folder.path())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..6).map(|number| start(1 + number % 2)).collect();
    let ends: Vec<Output> = children.into_iter().map(|child| child.wait_with_output().unwrap()).collect();
    let made = |end: &&Output| end.status.success() && !String::from_utf8_lossy(&end.stdout).contains("made before");
    assert_eq!(ends.iter().filter(made).count(), 1, "{ends:?}");
    for end in ends.iter().filter(|end| !end.status.success()) {
        let said = String::from_utf8_lossy(&end.stderr);
        assert!(said.contains("at work in out") || said.contains("holds another data set (shard_mib is"), "{said}");
    }
    expect(folder.path(), "verify out", 0);
}

#[test]
fn a_job_that_made_nothing_is_no_obstacle() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 8);
    // The first shard exceeds the longest file that is allowed.
    let limited = format!("ulimit -f 512; exec \"$0\" {IDX} out");
    let output = Command::new("bash").args(["-c", &limited, env!("CARGO_BIN_EXE_data-prep")]).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("00000.shard cannot be written: File too large"), "{output:?}");
    assert!(said.contains("raise `ulimit -f` and run the same command again"), "{said}");
    assert!(!folder.path().join("out").exists());
    // Killed while it writes its first shard, which has to be seen.
    let killed = || {
        let mut child =
            Command::new(env!("CARGO_BIN_EXE_data-prep")).args(format!("{IDX} out").split(' ')).current_dir(folder.path()).spawn();
        let child = child.as_mut().unwrap();
        while !folder.path().join("out/00000.shard.partial").exists() && child.try_wait().unwrap().is_none() {}
        let _ = child.kill();
        let nothing = child.wait().unwrap().code().is_none() && !folder.path().join("out/00000.shard").exists();
        if !nothing {
            fs::remove_dir_all(folder.path().join("out")).unwrap();
        }
        nothing
    };
    write_idx(folder.path(), 100);
    assert!((0..50).any(|_| killed()));
    expect(folder.path(), &format!("{IDX} out --shard-mib 1"), 0);
}

#[test]
fn output_and_input_are_kept_apart() {
    let folder = tempfile::tempdir().unwrap();
    write_idx(folder.path(), 2);
    put(folder.path(), "p/a/1.jpg", &jpeg(9, 9, 0));
    put(folder.path(), "b/data_batch_1.bin", b"");
    put(folder.path(), "tars/train.tar", b"");
    std::os::unix::fs::symlink("p", folder.path().join("link")).unwrap();
    let archives = "--train tars/train.tar --val tars/train.tar --devkit tars/train.tar";
    for arguments in [
        "folder --images p --out p",
        "folder --images p --out p/x/y",
        "folder --images link --out p/x",
        "folder --images p --out link/x",
        "folder --images p/a --out p",
        "cifar10 --batches b --out b/x",
        "cifar10 --batches b --out .",
        "idx --images images --labels labels --out .",
        &format!("imagenet {archives} --out tars"),
    ] {
        let said = expect(folder.path(), arguments, 2);
        assert!(said.contains("give a folder outside of it") || said.contains("give another folder for the output"), "{arguments}: {said}");
    }
    assert!(!folder.path().join("p/x").exists() && !folder.path().join("b/x").exists());
}

#[test]
fn a_full_disk_is_no_end_of_a_preparation_and_of_a_sheet_no_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&small).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: nothing may be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        write_idx(folder.path(), 40);
        let command = format!("{IDX} small/out --shard-mib 1");
        let said = expect(folder.path(), &command, 1);
        let advice = "No space left on device (os error 28); free some space and run the same command again, it goes on";
        assert!(said.contains(".shard cannot be written: ") && said.contains(advice), "{said}");
        expect(folder.path(), &format!("{IDX} whole --shard-mib 1"), 0);
        while fs::OpenOptions::new().append(true).create(true).open(small.join("rest")).and_then(|file| fs_fill(&file)).is_ok() {}
        let said = expect(folder.path(), "show whole --out small/sheet.png", 1);
        assert!(said.contains("sheet.png cannot be written: No space left on device (os error 28)\n"), "{said}");
        fs::remove_file(small.join("rest")).unwrap();
        assert!(Command::new("mount").args(["-o", "remount,size=30m"]).arg(&small).status().unwrap().success());
        expect(folder.path(), &command, 0);
        assert!(files(&small.join("out")) == files(&folder.path().join("whole")));
    });
    Command::new("umount").arg("--lazy").arg(&small).status().unwrap();
    outcome.unwrap();
}

/// Writes a page, which a full disk has no room for.
fn fs_fill(mut file: &fs::File) -> std::io::Result<()> {
    std::io::Write::write_all(&mut file, &[0; 4096])
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_idx(folder.path(), 2);
    mkfifo(&path("pipe"));
    for number in 0..3 {
        put(folder.path(), &format!("p/a/{number}.jpg"), &jpeg(9, 9, number));
    }
    expect(folder.path(), "folder --images p --out out", 0);
    mkfifo(&path("p/a/9.jpg"));
    let output = bounded(folder.path(), "folder --images p --out with-pipe");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_to_string(path("with-pipe/unreadable.txt")).unwrap(), "a/9.jpg: this is a named pipe, not a file\n");

    let refused = |arguments: &str, name: &str, why: &str| {
        let output = bounded(folder.path(), arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments}: {output:?}");
        assert!(said.starts_with("data-prep: ") && said.contains(name) && said.contains(why), "{arguments}: {said}");
    };
    let why = "this is a named pipe, not a file";
    refused("idx --images pipe --labels labels --out x", "pipe cannot be opened", why);
    refused("idx --images images --labels pipe --out x", "pipe cannot be opened", why);
    refused("idx --images images --labels /dev/null --out x", "/dev/null cannot be opened", "this is a device, not a file");
    refused("idx --images images --labels p --out x", "p cannot be opened", "this is a folder, not a file");
    refused("imagenet --train pipe --val pipe --devkit images --out x", "pipe cannot be opened", why);
    refused("imagenet --train images --val images --devkit pipe --out x", "pipe cannot be opened", why);
    refused("cifar10 --batches pipe --out x", "pipe cannot be opened", why);
    fs::create_dir(path("b")).unwrap();
    mkfifo(&path("b/data_batch_1.bin"));
    refused("cifar10 --batches b --out x", "data_batch_1.bin cannot be opened", why);
    refused("folder --images pipe --out x", "pipe", "is no folder");
    refused(&format!("{IDX} pipe"), "--out pipe", "is a file");
    fs::create_dir(path("taken")).unwrap();
    mkfifo(&path("taken/job.json"));
    refused(&format!("{IDX} taken"), "taken/job.json cannot be opened", why);

    refused("show out --out pipe", "pipe cannot be written", "nobody reads from the other end of it");
    mkfifo(&path("sheet.png.partial"));
    refused("show out --out sheet.png", "sheet.png.partial cannot be created", why);
    for (name, commands) in [("00000.shard", 4), ("manifest.json", 4)] {
        let (file, aside) = (path("out").join(name), path("aside"));
        fs::rename(&file, &aside).unwrap();
        mkfifo(&file);
        for command in &["info out", "stats out", "verify out", "show out --out s.png"][..commands] {
            refused(command, &format!("{name} cannot be opened"), why);
        }
        fs::rename(&aside, &file).unwrap();
    }
    assert!(!path("x").exists());
    // A pipe with a reader is written.
    let reader =
        Command::new("timeout").args(["20", "cat", "pipe"]).current_dir(folder.path()).stdout(std::process::Stdio::piped()).spawn();
    let opened = std::time::Instant::now();
    let written = loop {
        let output = bounded(folder.path(), "show out --out pipe");
        if output.status.success() || opened.elapsed().as_secs() > 20 {
            break output;
        }
    };
    assert!(written.status.success(), "{written:?}");
    assert!(reader.unwrap().wait_with_output().unwrap().stdout.starts_with(b"\x89PNG"));
}
