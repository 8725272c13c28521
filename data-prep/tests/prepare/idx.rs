//! `data-prep idx` as a user runs it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use shards::Dataset;

use crate::common::{gzip, idx};

/// Runs the command in `folder` on its files `images` and `labels`.
fn run(folder: &Path, out: &str, extra: &[&str]) -> Output {
    command(folder, out, extra).output().unwrap()
}

fn command(folder: &Path, out: &str, extra: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-prep"));
    command.current_dir(folder).args(["idx", "--images", "images", "--labels", "labels", "--out", out]).args(extra);
    command
}

fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn gray_and_colour_gzipped_or_not_keep_their_order() {
    for (dimensions, shape) in [(&[6, 4, 5][..], [4, 5, 1]), (&[6, 4, 5, 3][..], [4, 5, 3])] {
        let length = shape.iter().product::<usize>();
        let values: Vec<u8> = (0..6 * length).map(|at| (at * 11 % 251) as u8).collect();
        for gzipped in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let pack = |bytes: Vec<u8>| if gzipped { gzip(&bytes) } else { bytes };
            fs::write(folder.path().join("images"), pack(idx(dimensions, &values))).unwrap();
            fs::write(folder.path().join("labels"), pack(idx(&[6], &[3, 1, 0, 4, 1, 2]))).unwrap();
            let output = run(folder.path(), "out", &[]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            let dataset = Dataset::open(&folder.path().join("out")).unwrap();
            assert_eq!((dataset.len(), dataset.shape(), dataset.classes()), (6, Some(shape), 5));
            for (index, label) in [3, 1, 0, 4, 1, 2].into_iter().enumerate() {
                let sample = dataset.sample(index).unwrap();
                assert_eq!(sample.label, label);
                assert_eq!(*sample.pixels, values[index * length..][..length]);
            }
        }
    }
}

#[test]
fn interrupted_preparation_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // Many shards of at most one MiB: it is killed between the first and the last.
    let values: Vec<u8> = (0..256 * 400 * 400).map(|at| (at % 253) as u8).collect();
    fs::write(folder.path().join("images"), idx(&[256, 400, 400], &values)).unwrap();
    fs::write(folder.path().join("labels"), idx(&[256], &[7; 256])).unwrap();
    let whole = run(folder.path(), "whole", &["--shard-mib", "1"]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let expected = files(&folder.path().join("whole"));
    assert_eq!(expected.len(), 45);

    let part = folder.path().join("part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("note"), b"mine").unwrap();
    let refused = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    fs::remove_file(part.join("note")).unwrap();

    let mut child = command(folder.path(), "part", &["--shard-mib", "1"]).stderr(Stdio::null()).spawn().unwrap();
    while !part.join("00000.shard").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended without a shard");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(part.join("job.json").exists() && !part.join("manifest.json").exists());

    let other = run(folder.path(), "part", &["--shard-mib", "2"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("shard_mib is 1 there, 2 here"), "{other:?}");

    // Got again, the content is what it was. A shard that was damaged since is made again.
    let images = folder.path().join("images");
    let bytes = fs::read(&images).unwrap();
    let mut altered = bytes.clone();
    altered[1000] ^= 1;
    fs::write(&images, altered).unwrap();
    let other = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("interrupted (images.content is "), "{other:?}");
    fs::write(&images, bytes).unwrap();
    fs::write(part.join("00030.shard.partial"), b"half").unwrap();
    fs::File::options().write(true).open(part.join("00000.shard")).unwrap().set_len(1000).unwrap();
    let resumed = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    assert!(files(&part) == expected);
}

#[test]
fn what_was_cut_off_is_got_again_and_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..20 * 400 * 400).map(|at| (at % 253) as u8).collect();
    let whole = gzip(&idx(&[20, 400, 400], &values));
    fs::write(folder.path().join("labels"), idx(&[20], &[7; 20])).unwrap();
    for damaged in [&whole[..whole.len() - 9], &whole[..whole.len() / 2], &gzip(&idx(&[20, 400, 400], &values[..9]))] {
        fs::write(folder.path().join("images"), damaged).unwrap();
        let failed = run(folder.path(), "out", &["--shard-mib", "1"]);
        let said = String::from_utf8_lossy(&failed.stderr);
        assert!(failed.status.code() == Some(1) && said.contains("data-prep: images ") && said.contains("get it again"), "{failed:?}");
        assert!(!folder.path().join("out").exists());
    }
    fs::write(folder.path().join("images"), whole).unwrap();
    let done = run(folder.path(), "out", &["--shard-mib", "1"]);
    assert_eq!(done.status.code(), Some(0), "{done:?}");
    let again = run(folder.path(), "out", &["--shard-mib", "1"]);
    let said = String::from_utf8_lossy(&again.stdout).into_owned();
    assert!(again.status.code() == Some(0) && said == "out: 20 samples of 400 x 400 x 1, 8 classes: complete, made before\n", "{again:?}");
    let other = run(folder.path(), "out", &["--shard-mib", "2"]);
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(other.status.code() == Some(2) && said.contains("holds another data set (shard_mib is 1 there, 2 here)"), "{said}");
    fs::remove_file(folder.path().join("out/00001.shard")).unwrap();
    let damaged = run(folder.path(), "out", &["--shard-mib", "1"]);
    let said = String::from_utf8_lossy(&damaged.stderr).into_owned();
    assert!(damaged.status.code() == Some(1) && said.contains("delete out and run the same command again"), "{said}");
    // What it advises.
    fs::remove_dir_all(folder.path().join("out")).unwrap();
    assert_eq!(run(folder.path(), "out", &["--shard-mib", "1"]).status.code(), Some(0));
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = idx(&[2, 2, 2], &[9; 8]);
    let labels = idx(&[2], &[0, 1]);
    let mut float = images.clone();
    float[2] = 0x0d;
    let truncated_gzip = {
        let whole = gzip(&images);
        whole[..whole.len() - 6].to_vec()
    };
    /// Images, labels, further arguments, part of the message.
    type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a str], &'a str, i32);
    let cases: [Case; 13] = [
        (b"\x89PNG....", &labels, &[], "images is no idx file", 1),
        (b"", &labels, &[], "images is no idx file", 1),
        (&float, &labels, &[], "images holds values of idx type 0x0d", 1),
        (&labels, &labels, &[], "images has 1 dimensions", 2),
        (&images, &images, &[], "labels has 3 dimensions", 2),
        (&images[..images.len() - 1], &labels, &[], "images is cut off", 1),
        (&truncated_gzip, &labels, &[], "images", 1),
        (&[&images[..], b"x"].concat(), &labels, &[], "images has more bytes", 1),
        (&images, &labels[..9], &[], "labels is cut off", 1),
        (&images, &idx(&[3], &[0; 3]), &[], "2 images, but labels has 3 labels", 2),
        (&idx(&[0, 2, 2], &[]), &idx(&[0], &[]), &[], "holds no images", 1),
        (&images, &labels, &["--classes", "1"], "labels has label 1 at number 1, but --classes is 1", 2),
        (&idx(&[2, u32::MAX, u32::MAX], &[]), &labels, &[], "cannot be stored", 1),
    ];
    for (at, (images, labels, extra, part, code)) in cases.into_iter().enumerate() {
        fs::write(folder.path().join("images"), images).unwrap();
        fs::write(folder.path().join("labels"), labels).unwrap();
        let out = format!("out{at}");
        let output = run(folder.path(), &out, extra);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{part}: {message}");
        assert!(message.starts_with("data-prep: ") && message.contains(part), "{part}: {message}");
        assert!(!folder.path().join(out).exists());
    }
    fs::remove_file(folder.path().join("images")).unwrap();
    let missing = run(folder.path(), "missing", &[]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}
