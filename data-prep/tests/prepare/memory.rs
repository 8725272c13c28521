//! Small files that unpack to much, and large ones: what the commands may take of the memory is bounded, and so are their messages.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{data_prep, expect, gzip, jpeg, put, tar};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};

/// `data-prep` with at most so many MiB of addresses.
fn limited(mib: u32, folder: &Path, arguments: &str) -> Command {
    let script = format!("ulimit -v {} && exec timeout 60 \"$0\" \"$@\"", mib << 10);
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_data-prep")]).args(arguments.split_whitespace());
    // The C library sets addresses aside for each thread.
    command.env("MALLOC_ARENA_MAX", "1").current_dir(folder);
    command
}

fn within(mib: u32, folder: &Path, arguments: &str) -> Output {
    limited(mib, folder, arguments).output().unwrap()
}

/// The one message of a command that fails as it should, within so much memory.
fn refusal(mib: u32, folder: &Path, arguments: &str) -> String {
    let output = within(mib, folder, arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{:?} {said}", output.status);
    assert!(said.len() < 1000 && said.lines().count() == 1, "{said}");
    said
}

/// An element of a MAT-file.
fn element(kind: u32, data: &[u8]) -> Vec<u8> {
    let padding = vec![0; data.len().next_multiple_of(8) - data.len()];
    [&kind.to_le_bytes(), &(data.len() as u32).to_le_bytes(), data, &padding].concat()
}

/// A compressed variable of a MAT-file: `count` values of a class, `data` their element or elements.
fn variable(name: &str, class: u8, count: u32, data: &[u8]) -> Vec<u8> {
    let dimensions = [1_u32.to_le_bytes(), count.to_le_bytes()].concat();
    let parts = [element(6, &[class, 0, 0, 0, 0, 0, 0, 0]), element(5, &dimensions), element(1, name.as_bytes()), data.to_vec()].concat();
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&element(14, &parts)).unwrap();
    let packed = packed.finish().unwrap();
    [&15_u32.to_le_bytes(), &(packed.len() as u32).to_le_bytes(), &packed[..]].concat()
}

const MEBI: usize = 1 << 20;

#[test]
fn development_kits_are_small() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["train.tar", "val.tar"] {
        fs::write(path.join(name), tar(&[])).unwrap();
    }
    let refused = |meta: &[u8], truth: &[u8]| {
        let header = [&b"MATLAB 5.0 MAT-file"[..], &[b' '; 107], b"IM"].concat();
        let files = [("meta.mat", [&header, meta].concat()), ("ILSVRC2012_validation_ground_truth.txt", truth.to_vec())];
        fs::write(path.join("kit.tar.gz"), gzip(&tar(&files.map(|(name, bytes)| (name.to_owned(), bytes))))).unwrap();
        refusal(500, path, "imagenet --train train.tar --val val.tar --devkit kit.tar.gz --out out")
    };
    let bytes = |mib: usize| element(2, &vec![0; mib * MEBI]);
    let large = variable("large", 9, (6 * MEBI) as u32, &bytes(6));
    assert!(refused(&large, b"").contains("it has no variable synsets"));
    // Each would do; all together do not.
    assert!(refused(&large.repeat(8), b"").contains("it unpacks to more than 16777216 bytes"));
    assert!(refused(&variable("synsets", 9, (15 * MEBI) as u32, &bytes(15)), b"").contains("no array of structs"));
    let cells = element(14, &[]).repeat(MEBI);
    assert!(refused(&variable("synsets", 1, MEBI as u32, &cells), b"").contains("no array of structs"));
    let dimensions = element(14, &[element(6, &[9; 8]), element(5, &[1; 4 * MEBI])].concat());
    assert!(refused(&dimensions, b"").contains("an array has 1048576 dimensions"));
    let sound = &include_bytes!("../data/meta.mat")[128..];
    assert!(refused(sound, &vec![b'x'; 8 * MEBI]).contains("x... (8388608 bytes)\" in line 1, which is no class of meta.mat"));
    assert!(refused(sound, &vec![b'1'; 20 * MEBI]).contains("has 20971520 bytes"));
}

/// The header of a name that takes so many bytes.
fn long_name(length: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::GNULongName);
    header.set_size(length);
    header.set_cksum();
    header
}

#[test]
fn names_in_archives_are_short() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let length = 600 * MEBI;
    let mut packed = GzEncoder::new(File::create(path.join("kit.tar.gz")).unwrap(), Compression::fast());
    packed.write_all(long_name(length as u64).as_bytes()).unwrap();
    (0..length / MEBI).for_each(|_| packed.write_all(&[b'x'; MEBI]).unwrap());
    packed.finish().unwrap();
    let command = "imagenet --train train.tar --val val.tar --devkit kit.tar.gz --out out";
    let mut train = File::create(path.join("train.tar")).unwrap();
    train.write_all(long_name(length as u64).as_bytes()).unwrap();
    train.set_len(2 * length as u64).unwrap();
    fs::write(path.join("val.tar"), tar(&[])).unwrap();
    let said = refusal(400, path, command);
    assert!(said.contains("kit.tar.gz is no development kit"), "{said}");
    let meta = include_bytes!("../data/meta.mat").to_vec();
    let files = [("meta.mat", meta), ("ILSVRC2012_validation_ground_truth.txt", b"1\n".to_vec())];
    fs::write(path.join("kit.tar.gz"), gzip(&tar(&files.map(|(name, bytes)| (name.to_owned(), bytes))))).unwrap();
    let said = refusal(400, path, command);
    assert!(said.contains("train.tar cannot be read as a tar archive: the headers of a member take more than"), "{said}");
}

#[test]
fn labels_are_fewer_than_an_idx_header_can_say() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let sparse = |name: &str, header: &[u8]| {
        let mut file = File::create(path.join(name)).unwrap();
        file.write_all(header).unwrap();
        file.set_len(1 << 33).unwrap();
    };
    sparse("labels", &[&[0, 0, 8, 1][..], &[0xff; 4]].concat());
    sparse("images", &[&[0, 0, 8, 3][..], &[0xff; 4], &[0, 0, 0, 1, 0, 0, 0, 1]].concat());
    let said = refusal(400, path, "idx --images images --labels labels --out out");
    assert!(said.contains("labels announces 4294967295 labels; data-prep takes up to 268435456"), "{said}");
    // The same of names.
    fs::create_dir(path.join("batches")).unwrap();
    for name in ["batches.meta.txt", "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"] {
        sparse(&format!("batches/{name}"), b"");
    }
    fs::write(path.join("batches/test_batch.bin"), b"").unwrap();
    let said = refusal(400, path, "cifar10 --batches batches --out out");
    assert!(said.contains("batches.meta.txt has 8589934592 bytes"), "{said}");
    fs::write(path.join("batches/batches.meta.txt"), b"ant\nbee\n").unwrap();
    let said = refusal(400, path, "cifar10 --batches batches --out out");
    assert!(said.contains("data_batch_1.bin has 8589934592 bytes"), "{said}");
}

#[test]
fn messages_quote_the_beginning_of_what_is_long() {
    let folder = tempfile::tempdir().unwrap();
    let long = "x".repeat(4 * MEBI);
    let seal = |body: &str| format!("{body}\n\"crc32\": \"{:08x}\"}}\n", crc32fast::hash(format!("{body}\n").as_bytes()));
    let start = r#"{"format": "biodist shards", "version": 1,"#;
    let sound = r#"{"format": "biodist shards", "version": 1, "samples": 3, "classes": 1, "class_names": ["ant"], "channels": 1, "shape": null,
"encoding": "raw", "statistics": {"mean": [0.5], "deviation": [0.25]}, "made_by": {},
"shards": [{"file": "00000.shard", "bytes": 100, "samples": 3, "header_crc32": "0123abcd"}],"#;
    let texts = [
        format!(r#"{{"format": "{long}", "version": 1}}"#),
        format!(r#"{{"format": "biodist shards", "version": "{long}"}}"#),
        format!("{start}\n\"crc32\": \"{long}\"}}\n"),
        seal(&format!(r#"{start} "{long}": 1,"#)),
        seal(&format!(r#"{start} "samples": "{long}","#)),
        seal(&sound.replace("00000.shard", &long)),
        seal(&sound.replace("0123abcd", &long)),
    ];
    for text in texts {
        fs::write(folder.path().join("manifest.json"), text).unwrap();
        let said = refusal(200, folder.path(), "info .");
        assert!(said.contains("xxx... (") && said.contains("manifest.json cannot be used; prepare the data set again"), "{said}");
    }
}

#[test]
fn large_photos_are_decoded_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos/class");
    fs::create_dir_all(&photos).unwrap();
    // Eight bytes for each of 32 million pixels.
    let (height, width) = (4000, 8000);
    let mut file = File::create(photos.join("0.png")).unwrap();
    let encoder = image::codecs::png::PngEncoder::new(&mut file);
    let pixels = vec![0; height as usize * width as usize * 8];
    image::ImageEncoder::write_image(encoder, &pixels, width, height, image::ExtendedColorType::Rgba16).unwrap();
    drop(pixels);
    for number in 1..8 {
        fs::hard_link(photos.join("0.png"), photos.join(format!("{number}.png"))).unwrap();
    }
    // All at once would take 2.8 GB.
    let output = within(1700, folder.path(), "folder --images photos --out out --size 8 --threads 8");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!folder.path().join("out/unreadable.txt").exists());
    let said = expect(folder.path(), "info out", 0);
    assert!(said.contains("samples") && said.contains('8'), "{said}");
    assert!(data_prep(folder.path(), "verify out").status.success());
}

#[test]
fn threads_that_cannot_be_had_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let photo = jpeg(2000, 2000, 0);
    (0..12).for_each(|number| put(folder.path(), &format!("p/a/{number}.jpg"), &photo));
    expect(folder.path(), "folder --images p --size 8 --out out", 0);
    // Seven threads, which have begun with a photo each, leave no room for the next.
    for arguments in ["verify out --threads 12", "folder --images p --size 8 --out new --threads 12"] {
        let output = limited(4000, folder.path(), arguments).env("RUST_MIN_STACK", (512 << 20).to_string()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap();
        assert!(output.status.code() == Some(1) && !said.contains("panicked"), "{output:?}");
        assert!(last.starts_with("data-prep: no thread can be started: ") && last.contains("(`ulimit -v` is 4096000)"), "{said}");
    }
    assert!(!folder.path().join("new").exists());
}
