//! `data-prep imagenet` on archives of the official form: small ones made here, and the real ones where
//! DATA_PREP_IMAGENET names a folder that holds them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{colours, distance, expect, files, gzip, jpeg, open, tar};

const META: &[u8] = include_bytes!("../data/meta.mat");
const COMMAND: &str = "imagenet --train train.tar --val val.tar --devkit kit.tar.gz";
/// The class of each validation photo: the kit's number and the index that it must get.
const TRUTH: [(u32, u32); 5] = [(3, 1), (1, 2), (1, 2), (2, 0), (3, 1)];

fn kit(meta: &[u8], truth: &str) -> Vec<u8> {
    let file = |name: &str, bytes: &[u8]| (format!("ILSVRC2012_devkit_t12/{name}"), bytes.to_vec());
    let files =
        [file("readme.txt", b"a kit"), file("data/ILSVRC2012_validation_ground_truth.txt", truth.as_bytes()), file("data/meta.mat", meta)];
    gzip(&tar(&files))
}

fn truth() -> String {
    TRUTH.iter().map(|(number, _)| format!("{number}\n")).collect()
}

/// Photos of one class as the training archive holds them; `first` makes them differ from other classes'.
fn class(wnid: &str, count: u32, first: u32) -> (String, Vec<u8>) {
    let photos: Vec<_> = (0..count).map(|at| (format!("{wnid}_{at}.JPEG"), jpeg(40 + at % 7, 60, first + at))).collect();
    (format!("{wnid}.tar"), tar(&photos))
}

fn write_archives(folder: &Path, photos: u32) {
    // The classes lie in another order than their WNIDs'.
    let classes = [class("n00000300", photos, 200), class("n00000100", photos, 0), class("n00000200", photos, 100)];
    fs::write(folder.join("train.tar"), tar(&classes)).unwrap();
    // The photos lie in another order than their numbers'.
    let val: Vec<_> =
        [4, 1, 5, 2, 3].map(|number| (format!("ILSVRC2012_val_{number:08}.JPEG"), jpeg(50, 40, 1000 + number))).into_iter().collect();
    fs::write(folder.join("val.tar"), tar(&val)).unwrap();
    fs::write(folder.join("kit.tar.gz"), kit(META, &truth())).unwrap();
}

#[test]
fn labels_frames_and_order() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 6);
    let said = expect(folder.path(), &format!("{COMMAND} --out out --size 32"), 0);
    assert!(said.contains("out/train: 18 samples of 32 x 32 x 3, 3 classes"), "{said}");
    let [train, val] = ["train", "val"].map(|part| open(&folder.path().join("out").join(part)));
    assert_eq!(train.class_names(), ["n00000100 ant", "n00000200 bee, honeybee, Bienchen für Größe", "n00000300 cat, feline"]);
    for (index, (_, label)) in TRUTH.iter().enumerate() {
        assert_eq!(val.label(index), *label);
        // Shrunk to 40 x 32, of which the middle is kept; the colours are smooth enough to compare with every fifth row left out.
        let sample = val.sample(index).unwrap();
        let whole = colours(40, 32, 1001 + index as u32);
        assert!(distance(&sample.pixels, &whole[4 * 32 * 3..36 * 32 * 3]) < 4.0, "{index}");
    }
    // Every training photo is there once, with its own class, and the order is not the archives'.
    let mut seen = Vec::new();
    for index in 0..18 {
        let sample = train.sample(index).unwrap();
        let kinds = (0..3).flat_map(|label| (0..6).map(move |at| (label, label * 100 + at)));
        let near = kinds.map(|(label, kind)| {
            let height = 40 + kind % 100 % 7;
            let (h, w) = (32, 60 * 32 / height);
            let whole = colours(h, w, kind);
            let left = (w - 32) / 2;
            let centre: Vec<u8> = (0..32).flat_map(|y| whole[((y * w + left) * 3) as usize..][..96].to_vec()).collect();
            (distance(&sample.pixels, &centre), label, kind)
        });
        let (apart, label, kind) = near.min_by(|one, two| one.0.total_cmp(&two.0)).unwrap();
        assert!(apart < 5.0, "{apart}");
        assert_eq!(sample.label, label);
        seen.push(kind);
    }
    assert!(!seen.is_sorted());
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 18);

    expect(folder.path(), &format!("{COMMAND} --out seed --size 32 --seed 1"), 0);
    let other = open(&folder.path().join("seed/train"));
    assert!((0..18).any(|index| train.label(index) != other.label(index)));
}

#[test]
fn killed_at_any_moment_it_goes_on_to_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 60);
    // One photo of the training archive is broken.
    let path = folder.path().join("train.tar");
    let mut train = fs::read(&path).unwrap();
    let at = train.windows(15).position(|bytes| bytes == b"n00000200_7.JPE").unwrap();
    train[at + 512 + 300..at + 512 + 700].fill(0xff);
    fs::write(&path, train).unwrap();
    // Shards of 25 photos.
    let command = |out: &str, threads: u32| format!("{COMMAND} --out {out} --size 118 --shard-mib 1 --threads {threads}");
    expect(folder.path(), &command("whole", 3), 0);
    let expected = files(&folder.path().join("whole"));
    let report = fs::read_to_string(folder.path().join("whole/train/unreadable.txt")).unwrap();
    assert!(report.starts_with("n00000200_7.JPEG: ") && report.lines().count() == 1, "{report}");
    assert_eq!(open(&folder.path().join("whole/train")).len(), 179);
    let mut killed = 0;
    for round in 0..12 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_data-prep"))
            .current_dir(folder.path())
            .args(command("part", 1 + round % 3).split_whitespace())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(10 + 7 * u64::from(round)) && child.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A child that has ended already cannot be killed.
        let _ = child.kill();
        if child.wait().unwrap().success() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0);
    expect(folder.path(), &command("part", 2), 0);
    assert!(
        expect(folder.path(), &command("part", 2), 0)
            .contains("part/train: 179 samples of 118 x 118 x 3, 3 classes: complete, made before\n")
    );
    let found = files(&folder.path().join("part"));
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found), names(&expected));
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        assert!(found == expected, "{name} differs");
    }
}

#[test]
fn what_systems_leave_in_archives_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 2);
    expect(folder.path(), &format!("{COMMAND} --out clean --size 8"), 0);
    let with_strays = |files: Vec<(String, Vec<u8>)>| {
        let strays = files.iter().map(|(name, _)| (format!("._{name}"), b"\0\x05\x16\x07".to_vec()));
        let others = [".DS_Store", "__MACOSX/._x", "__MACOSX/photo_1.JPEG", "lost+found/n00000900.tar", "Thumbs.db"];
        let others = others.map(|name| (name.to_owned(), b"no photo".to_vec()));
        let strays: Vec<_> = strays.chain(others).collect();
        tar(&[strays, files.into_iter().map(|(name, bytes)| (format!("./{name}"), bytes)).collect()].concat())
    };
    let members = |archive: &[u8]| -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            found.push((entry.path().unwrap().to_str().unwrap().to_owned(), bytes));
        }
        found
    };
    let [train, val] = ["train.tar", "val.tar"].map(|name| fs::read(folder.path().join(name)).unwrap());
    let classes = members(&train).into_iter().map(|(name, archive)| (name, with_strays(members(&archive)))).collect();
    fs::write(folder.path().join("train.tar"), with_strays(classes)).unwrap();
    fs::write(folder.path().join("val.tar"), with_strays(members(&val))).unwrap();
    let meta = |name: &str| (name.to_owned(), b"no meta".to_vec());
    let truth = ("k/ILSVRC2012_validation_ground_truth.txt".to_owned(), truth().into_bytes());
    let kit = [meta(".DS_Store"), meta("k/data/._meta.mat"), ("k/data/meta.mat".to_owned(), META.to_vec()), truth, meta("k/._meta.mat")];
    fs::write(folder.path().join("kit.tar.gz"), gzip(&tar(&kit))).unwrap();
    expect(folder.path(), &format!("{COMMAND} --out strays --size 8"), 0);
    assert!(files(&folder.path().join("strays")) == files(&folder.path().join("clean")));
}

#[test]
fn a_part_that_was_damaged_since_is_not_taken_for_one_that_is_made() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 2);
    let command = format!("{COMMAND} --out out --size 8");
    expect(folder.path(), &command, 0);
    let path = |name: &str| folder.path().join("out").join(name);
    let whole = files(&path(""));
    // As it is where it was interrupted in the second part.
    let mut job: serde_json::Value = serde_json::from_slice(&fs::read(path("job.json")).unwrap()).unwrap();
    job.as_object_mut().unwrap().remove("complete").unwrap();
    fs::write(path("job.json"), job.to_string()).unwrap();
    fs::remove_file(path("val/manifest.json")).unwrap();
    fs::File::options().write(true).open(path("train/00000.shard")).unwrap().set_len(500).unwrap();
    let said = expect(folder.path(), &command, 1);
    let advice =
        "data-prep: out/train was prepared by this command, but is damaged since; delete out/train and run the same command again: ";
    assert!(said.starts_with(advice) && said.contains("shard out/train/00000.shard cannot be used"), "{said}");
    fs::remove_dir_all(path("train")).unwrap();
    expect(folder.path(), &command, 0);
    assert!(files(&path("")) == whole);
}

#[test]
fn too_few_files_at_a_time_are_told() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 2);
    let limited = |limits: &str| {
        let command = format!("ulimit {limits}; exec \"$0\" {COMMAND} --out out --size 8");
        let output =
            Command::new("bash").args(["-c", &command, env!("CARGO_BIN_EXE_data-prep")]).current_dir(folder.path()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = limited("-n 4");
    assert!(code == Some(2) && said.contains("this process may have 4 files open: let the administrator raise that"), "{said}");
    let (code, said) = limited("-Sn 4; ulimit -Hn 32");
    assert!(code == Some(2) && said.contains("this process may have 4 files open: raise that with `ulimit -n`, up to 32"), "{said}");
    let (code, said) = limited("-n 32");
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn wrong_archives_are_named() {
    let folder = tempfile::tempdir().unwrap();
    write_archives(folder.path(), 2);
    let path = |name: &str| folder.path().join(name);
    let refused = |code: i32, parts: &[&str]| {
        let message = expect(folder.path(), &format!("{COMMAND} --out out --size 8"), code);
        assert!(parts.iter().all(|part| message.contains(part)), "{message:?} lacks one of {parts:?}");
        assert!(!path("out/train/manifest.json").exists());
        message
    };
    let with = |name: &str, bytes: &[u8], code: i32, parts: &[&str]| {
        let sound = fs::read(path(name)).unwrap();
        fs::write(path(name), bytes).unwrap();
        refused(code, parts);
        fs::write(path(name), sound).unwrap();
    };
    let [train, val, devkit] = ["train.tar", "val.tar", "kit.tar.gz"].map(|name| fs::read(path(name)).unwrap());
    with("train.tar", b"", 1, &["train.tar is empty"]);
    with("train.tar", &[7; 2000], 1, &["train.tar cannot be read as a tar archive"]);
    with("train.tar", &val, 1, &["ILSVRC2012_val_00000001.JPEG in train.tar is no archive of a class in kit.tar.gz"]);
    with("train.tar", &tar(&[class("n00000900", 1, 0)]), 1, &["n00000900.tar in train.tar is no archive of a class"]);
    with("val.tar", &train, 1, &["val.tar holds 3 photos, but kit.tar.gz has the labels of 5"]);
    with("kit.tar.gz", &val, 1, &["kit.tar.gz is no development kit"]);
    with("kit.tar.gz", &gzip(&val), 1, &["kit.tar.gz is no development kit", "it has no meta.mat"]);
    with("kit.tar.gz", &devkit[..devkit.len() / 2], 1, &["kit.tar.gz is no development kit"]);
    with("kit.tar.gz", &kit(b"MATLAB 7.3", &truth()), 1, &["kit.tar.gz cannot be used: meta.mat: it is no MAT-file of level 5"]);
    with("kit.tar.gz", &kit(META, "1\n2\n9\n1\n1\n"), 1, &["\"9\" in line 3"]);
    let renamed: Vec<_> = (0..5).map(|at| (format!("photo_{at}.JPEG"), vec![1])).collect();
    with("val.tar", &tar(&renamed), 1, &["val.tar holds photo_0.JPEG, expected are ILSVRC2012_val_00000001.JPEG to 00000005"]);
    // The end mark is two blocks of zeros; the first alone will do.
    for cut in (1..train.len() - 512).step_by(191) {
        with("train.tar", &train[..cut], 1, &["train.tar"]);
    }
    fs::remove_file(path("val.tar")).unwrap();
    refused(2, &["val.tar cannot be opened"]);
}

#[test]
fn the_real_archives() {
    let Some(source) = std::env::var_os("DATA_PREP_IMAGENET") else { return };
    let source = Path::new(&source);
    let folder = tempfile::tempdir().unwrap();
    let archives = [("train", "img_train.tar"), ("val", "img_val.tar"), ("devkit", "devkit_t12.tar.gz")]
        .map(|(option, name)| format!("--{option} {}", source.join(format!("ILSVRC2012_{name}")).display()))
        .join(" ");
    expect(folder.path(), &format!("imagenet {archives} --out out --size 64 --store jpeg"), 0);
    expect(folder.path(), "verify out", 0);
    let [train, val] = ["train", "val"].map(|part| open(&folder.path().join("out").join(part)));
    assert!(train.class_names().is_sorted() && train.classes() == val.classes());
    let labels: std::collections::HashSet<u32> = (0..train.len()).map(|index| train.label(index)).collect();
    assert_eq!(labels.len(), train.classes());
}
