//! `data-prep idx` as a user runs it.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use data_prep::Dataset;
use flate2::{Compression, write::GzEncoder};

fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Runs the command in `folder` on its files `images` and `labels`.
fn run(folder: &Path, out: &str, extra: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-prep"));
    command.current_dir(folder).args(["idx", "--images", "images", "--labels", "labels", "--out", out]).args(extra).output().unwrap()
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
    // Four shards of at most one MiB.
    let values: Vec<u8> = (0..20 * 400 * 400).map(|at| (at % 253) as u8).collect();
    // Packed without compression: where the file is damaged, unpacking ends at once instead of yielding other values for a while.
    let mut stored = GzEncoder::new(Vec::new(), Compression::none());
    stored.write_all(&idx(&[20, 400, 400], &values)).unwrap();
    fs::write(folder.path().join("images"), stored.finish().unwrap()).unwrap();
    fs::write(folder.path().join("labels"), idx(&[20], &[7; 20])).unwrap();
    let whole = run(folder.path(), "whole", &["--shard-mib", "1"]);
    assert_eq!(whole.status.code(), Some(0), "{whole:?}");
    let expected = files(&folder.path().join("whole"));
    assert_eq!(expected.len(), 5);

    let part = folder.path().join("part");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("note"), b"mine").unwrap();
    let refused = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(refused.status.code(), Some(2));
    fs::remove_file(part.join("note")).unwrap();

    let full = fs::read(folder.path().join("images")).unwrap();
    let modified = fs::metadata(folder.path().join("images")).unwrap().modified().unwrap();
    let touch = |bytes: &[u8]| {
        fs::write(folder.path().join("images"), bytes).unwrap();
        let file = fs::OpenOptions::new().write(true).open(folder.path().join("images")).unwrap();
        file.set_modified(modified).unwrap();
    };
    // An input that breaks off ends the run in the third shard; the same length and time make it the same job.
    let mut broken = full.clone();
    broken[full.len() / 2..].fill(0);
    touch(&broken);
    let failed = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let left = files(&part).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert!(left.contains(&"job.json".to_owned()) && left.contains(&"00000.shard".to_owned()), "{left:?}");
    assert!(!left.contains(&"manifest.json".to_owned()));

    let other = run(folder.path(), "part", &["--shard-mib", "2"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&other.stderr).contains("shard_mib"), "{other:?}");

    touch(&full);
    fs::write(part.join("00002.shard.partial"), b"half").unwrap();
    let resumed = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(resumed.status.code(), Some(0), "{resumed:?}");
    assert!(files(&part) == expected);

    let again = run(folder.path(), "part", &["--shard-mib", "1"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&again.stderr).contains("is not empty"), "{again:?}");
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
    type Case<'a> = (&'a [u8], &'a [u8], &'a [&'a str], &'a str);
    let cases: [Case; 13] = [
        (b"\x89PNG....", &labels, &[], "images is no idx file"),
        (b"", &labels, &[], "images is no idx file"),
        (&float, &labels, &[], "images holds values of idx type 0x0d"),
        (&labels, &labels, &[], "images has 1 dimensions"),
        (&images, &images, &[], "labels has 3 dimensions"),
        (&images[..images.len() - 1], &labels, &[], "images is cut off"),
        (&truncated_gzip, &labels, &[], "images"),
        (&[&images[..], b"x"].concat(), &labels, &[], "images has more bytes"),
        (&images, &labels[..9], &[], "labels is cut off"),
        (&images, &idx(&[3], &[0; 3]), &[], "2 images, but labels has 3 labels"),
        (&idx(&[0, 2, 2], &[]), &idx(&[0], &[]), &[], "holds no images"),
        (&images, &labels, &["--classes", "1"], "labels has label 1 at number 1, but --classes is 1"),
        (&idx(&[2, u32::MAX, u32::MAX], &[]), &labels, &[], "cannot be stored"),
    ];
    for (at, (images, labels, extra, part)) in cases.into_iter().enumerate() {
        fs::write(folder.path().join("images"), images).unwrap();
        fs::write(folder.path().join("labels"), labels).unwrap();
        let out = format!("out{at}");
        let output = run(folder.path(), &out, extra);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{part}: {message}");
        assert!(message.starts_with("error: ") && message.contains(part), "{part}: {message}");
        assert!(!folder.path().join(out).join("manifest.json").exists());
    }
    fs::remove_file(folder.path().join("images")).unwrap();
    let missing = run(folder.path(), "missing", &[]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
}
