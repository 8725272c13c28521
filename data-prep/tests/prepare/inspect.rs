//! The commands that look at data sets, on sets that are out of the ordinary.

use std::fs;
use std::process::Command;

use crate::common::{expect, idx, put};
use shards::Manifest;
use shards::manifest::ShardRecord;

#[test]
fn more_shards_than_a_process_may_open_files() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "images", &idx(&[2, 2, 2], &[1, 2, 3, 4, 5, 6, 7, 8]));
    put(folder.path(), "labels", &idx(&[2], &[0, 1]));
    expect(folder.path(), "idx --images images --labels labels --out many", 0);
    let many = folder.path().join("many");
    let mut manifest = Manifest::read(&many).unwrap();
    let first = manifest.shards[0].clone();
    for number in 1..1500 {
        let file = format!("{number:05}.shard");
        fs::copy(many.join(&first.file), many.join(&file)).unwrap();
        manifest.shards.push(ShardRecord { file, ..first.clone() });
    }
    manifest.samples = 3000;
    manifest.write(&many).unwrap();
    for (arguments, says) in [
        ("verify many", "3000 samples in 1500 shards, all intact"),
        ("info many", "samples   3,000"),
        ("stats many", "samples per class: 1500 to 1500"),
        ("show many --out sheet.png", "sheet.png: 36 samples"),
    ] {
        let command = format!("ulimit -n 16; exec \"$0\" {arguments}");
        let output =
            Command::new("bash").args(["-c", &command, env!("CARGO_BIN_EXE_data-prep")]).current_dir(folder.path()).output().unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.code() == Some(0) && said.contains(says), "{arguments}: {said}");
    }
}
