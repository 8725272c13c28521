//! `data-prep fetch`, with a folder in the place of the mirrors.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{expect, files, gzip, idx, open, put};
use data_prep::prepare::fetch::{Options, Set, run};

/// SHA-256 as another program has it.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().next().unwrap().to_owned()
}

/// A small data set: its files in `files`, gzipped in `mirror`.
fn published(folder: &Path) -> Set {
    let names = Set::mnist().files.map(|(name, _)| name);
    let contents = [idx(&[3, 2, 2], &[5; 12]), idx(&[3], &[2, 0, 1]), idx(&[2, 2, 2], &[6; 8]), idx(&[2], &[2, 2])];
    let checksums: Vec<String> = names
        .iter()
        .zip(&contents)
        .map(|(name, content)| {
            put(folder, &format!("files/{name}"), content);
            put(folder, &format!("mirror/{name}.gz"), &gzip(content));
            sha256(&folder.join("files").join(name))
        })
        .collect();
    let mirrors = ["nowhere", "mirror"].map(|mirror| format!("file://{}", folder.join(mirror).display()));
    Set::new("small", std::array::from_fn(|at| checksums[at].as_str()), &mirrors.each_ref().map(String::as_str))
}

#[test]
fn fetched_once_and_prepared() {
    let folder = tempfile::tempdir().unwrap();
    let set = published(folder.path());
    let options = Options { set, out: folder.path().join("out"), shard_mib: 1, patience: 30 };
    let made = run(&options).unwrap();
    assert!(!made.before);
    let [train, test] = ["train", "test"].map(|part| open(&options.out.join(part)));
    assert_eq!((train.len(), test.len(), train.classes(), train.label(0)), (3, 2, 3, 2));
    assert!(files(&options.out.join("raw")) == files(&folder.path().join("files")));
    // Nothing is fetched again.
    fs::rename(folder.path().join("mirror"), folder.path().join("aside")).unwrap();
    assert!(run(&options).unwrap().before);
    // Nor is anything when the shards are gone, or what came by other ways is there, packed or not.
    fs::remove_dir_all(options.out.join("test")).unwrap();
    let [(first, _), (second, _), ..] = &options.set.files;
    fs::copy(folder.path().join("aside").join(format!("{first}.gz")), options.out.join("raw").join(format!("{first}.gz"))).unwrap();
    fs::remove_file(options.out.join("raw").join(first)).unwrap();
    assert!(!run(&options).unwrap().before);
    // What lies there with another content is replaced; where that cannot be, the message says what to do, which works.
    let wrong = options.out.join("raw").join(second);
    fs::write(&wrong, b"damaged").unwrap();
    let said = format!("{:#}", run(&options).err().unwrap());
    assert!(said.starts_with(&format!("{second} could not be fetched; try again later, give a mirror by --from URL, or put ")), "{said}");
    fs::copy(folder.path().join("files").join(second), &wrong).unwrap();
    assert!(run(&options).unwrap().before);
}

#[test]
fn another_file_than_the_one_published_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    published(folder.path());
    let from = format!("file://{}/", folder.path().join("mirror").display());
    let said = expect(folder.path(), &format!("fetch mnist --from {from}"), 1);
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("data-prep: train-images-idx3-ubyte could not be fetched; "), "{said}");
    assert!(last.contains("data/mnist/raw") && last.contains("it is another file than the one published: SHA-256 "), "{said}");
    assert!(files(&folder.path().join("data/mnist/raw")).is_empty());
    // What somebody has put there is not removed without a word.
    put(folder.path(), "data/mnist/raw/train-images-idx3-ubyte.gz", &gzip(b"another"));
    put(folder.path(), "data/mnist/raw/train-images-idx3-ubyte", b"another");
    let said = expect(folder.path(), &format!("fetch mnist --from {from}"), 1);
    for (ending, what) in [(".gz", "it is removed"), ("", "it is replaced")] {
        let told = format!("data/mnist/raw/train-images-idx3-ubyte{ending}: it is another file than the one published: SHA-256 ");
        assert!(said.lines().any(|line| line.starts_with(&told) && line.ends_with(what)), "{said}");
    }
    fs::remove_dir_all(folder.path().join("mirror")).unwrap();
    let said = expect(folder.path(), &format!("fetch fashion --out here --from {from}"), 1);
    assert!(said.contains("curl") && said.contains("here/raw"), "{said}");
}

#[test]
fn a_mirror_that_sends_nothing_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut set = published(folder.path());
    let address = format!("http://{}", silent.local_addr().unwrap());
    // Connections are taken by the system, and nobody answers.
    set.mirrors[0] = address.clone();
    let mut options = Options { set, out: folder.path().join("out"), shard_mib: 1, patience: 1 };
    let begun = Instant::now();
    assert!(!run(&options).unwrap().before);
    options.set.mirrors.truncate(1);
    options.out = folder.path().join("none");
    let said = format!("{:#}", run(&options).err().unwrap());
    assert!(said.starts_with("train-images-idx3-ubyte could not be fetched; "), "{said}");
    assert!(said.contains(&format!("{address}/train-images-idx3-ubyte.gz: curl: (28)")), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60));
}
