//! Data sets of more shards than a process may open files, and shards that are touched or altered while they are trained on.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use shards::Manifest;
use shards::manifest::ShardRecord;

use crate::site::{Site, lines, wait_for, write_images};

#[test]
fn there_may_be_more_shards_than_open_files() {
    let site = Site::new();
    let many = site.path("many");
    write_images(&many, 4, 10);
    let mut manifest = Manifest::read(&many).unwrap();
    let first = manifest.shards[0].clone();
    for number in 1..1500 {
        let file = format!("{number:05}.shard");
        fs::copy(many.join(&first.file), many.join(&file)).unwrap();
        manifest.shards.push(ShardRecord { file, ..first.clone() });
    }
    manifest.samples = 4 * 1500;
    manifest.write(&many).unwrap();
    let config = site.configure("many", "rule = \"bp\"", "[training]\nmax_steps = 60");
    let limited = ["-c", "ulimit -n 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_biodist")];
    for arguments in [&["train", &config, "--set", "data.train=many", "--out", "run"][..], &["eval", "run"]] {
        let outcome = site.run_of(Path::new("bash"), 1, &[&limited, arguments].concat());
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
    }
}

#[test]
fn a_touched_shard_is_trained_on_and_an_altered_one_ends_the_run() {
    let site = Site::new();
    let config = site.configure("data", "rule = \"bp\"", "[training]\nlog_every_steps = 5");
    let shard = || fs::File::options().read(true).write(true).open(site.path("train").join("00000.shard")).unwrap();
    let touch = |seconds| shard().set_modified(SystemTime::now() + Duration::from_secs(seconds)).unwrap();
    let begin = |run: &str, epochs: u32| {
        let job = site.start(1, &["train", &config, "--set", &format!("training.epochs={epochs}"), "--out", run]);
        wait_for("the first measure", || lines(&site.path(run).join("metrics.jsonl")) > 1);
        job
    };
    site.succeed(1, &["train", &config, "--set", "training.epochs=60", "--out", "whole"]);
    let job = begin("touched", 60);
    touch(2);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    site.assert_same("touched", "whole");

    let job = begin("altered", 1_000_000);
    let mut byte = [0];
    shard().read_exact_at(&mut byte, 1000).unwrap();
    shard().write_all_at(&[!byte[0]], 1000).unwrap();
    touch(4);
    let outcome = job.wait();
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    let says = ["00000.shard was written to while it was in use: ", "00000.shard is altered in bytes 64 to "];
    assert!(says.iter().all(|part| outcome.stderr.contains(part)), "{outcome:?}");
}
