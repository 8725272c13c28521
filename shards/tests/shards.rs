//! Shards as they are written, read, and refused.

use std::fs;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use shards::format::{Encoding, HEADER_LENGTH};
use shards::manifest::ShardRecord;
use shards::{Dataset, DatasetWriter, Description, Manifest, PixelSums};

/// Pixels of sample `index`, different for each and easy to tell apart.
fn pixels(index: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (index * 31 + at * 7 + at / 5) as u8).collect()
}

/// A data set of `shards` with raw samples of the frames that `frame` gives for each index, label index % 3.
fn write(folder: &Path, shards: &[usize], frame: impl Fn(usize) -> (u32, u32)) {
    let description = Description {
        channels: 3,
        class_names: ["ant", "bee", "cat"].map(str::to_owned).to_vec(),
        encoding: Encoding::Raw,
        made_by: serde_json::json!({ "program": "test" }),
    };
    let writer = DatasetWriter::begin(folder, description).unwrap();
    let mut index = 0;
    let mut finished = Vec::new();
    for (number, &count) in shards.iter().enumerate() {
        let mut shard = writer.shard(number).unwrap();
        for _ in 0..count {
            let (height, width) = frame(index);
            let bytes = pixels(index, (height * width * 3) as usize);
            shard.add(&bytes, (height, width), index as u32 % 3, &PixelSums::of(&bytes, 3)).unwrap();
            index += 1;
        }
        finished.push(shard.finish().unwrap());
    }
    writer.finish(finished).unwrap();
}

#[test]
fn samples_come_back_in_order_with_their_statistics() {
    let folder = tempfile::tempdir().unwrap();
    // The second shard is empty, and the third exceeds one checksummed block.
    write(folder.path(), &[3, 0, 40], |_| (130, 90));
    let dataset = Dataset::open(folder.path()).unwrap();
    dataset.verify().unwrap();
    assert_eq!((dataset.len(), dataset.shape(), dataset.classes()), (43, Some([130, 90, 3]), 3));
    assert_eq!(dataset.class_names(), ["ant", "bee", "cat"]);
    assert!(dataset.shards()[2].blocks() > 1);
    let mut values: [Vec<f64>; 3] = Default::default();
    for index in 0..43 {
        let sample = dataset.sample(index).unwrap();
        assert_eq!((sample.label, dataset.label(index)), (index as u32 % 3, index as u32 % 3));
        assert_eq!(*sample.pixels, pixels(index, 130 * 90 * 3));
        for pixel in sample.pixels.chunks(3) {
            (0..3).for_each(|c| values[c].push(f64::from(pixel[c]) / 255.0));
        }
    }
    for (c, values) in values.iter().enumerate() {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((dataset.statistics().mean[c] - mean).abs() < 1e-12);
        assert!((dataset.statistics().deviation[c] - variance.sqrt()).abs() < 1e-12);
    }
    assert!(dataset.sample(43).is_err());
}

#[test]
fn many_threads_may_read_one_data_set() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[20, 20], |_| (16, 16));
    let dataset = Dataset::open(folder.path()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dataset = &dataset;
            scope.spawn(move || {
                for index in (thread..40).step_by(4) {
                    dataset.prefetch(&[index]);
                    assert_eq!(*dataset.sample(index).unwrap().pixels, pixels(index, 16 * 16 * 3));
                }
            });
        }
    });
}

#[test]
fn frames_may_differ() {
    let folder = tempfile::tempdir().unwrap();
    let frame = |index: usize| (4 + index as u32 % 3, 9 - index as u32 % 2);
    write(folder.path(), &[4, 1, 2], frame);
    let dataset = Dataset::open(folder.path()).unwrap();
    assert_eq!(dataset.shape(), None);
    for index in 0..7 {
        let sample = dataset.sample(index).unwrap();
        let (height, width) = frame(index);
        assert_eq!((sample.height, sample.width), (height as usize, width as usize));
        assert_eq!(*sample.pixels, pixels(index, (height * width * 3) as usize));
    }
}

#[test]
fn every_altered_byte_is_found() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[5], |index| (2 + index as u32, 3));
    for (name, always_at_opening) in [("00000.shard", false), ("manifest.json", true)] {
        let path = folder.path().join(name);
        let sound = fs::read(&path).unwrap();
        for at in 0..sound.len() {
            let mut altered = sound.clone();
            altered[at] ^= 1 << (at % 8);
            fs::write(&path, &altered).unwrap();
            let opened = Dataset::open(folder.path());
            let refused = match &opened {
                Err(error) => format!("{error:#}"),
                Ok(dataset) => format!("{:#}", dataset.verify().expect_err("an altered byte")),
            };
            assert!(refused.contains(name), "byte {at}: {refused}");
            assert!(opened.is_err() || !always_at_opening, "byte {at} of {name}");
        }
        for length in 0..sound.len() {
            fs::write(&path, &sound[..length]).unwrap();
            let error = Dataset::open(folder.path()).err().expect("a truncated file");
            assert!(format!("{error:#}").contains(name), "cut at {length}: {error:#}");
        }
        fs::write(&path, [&sound[..], b"\n"].concat()).unwrap();
        assert!(Dataset::open(folder.path()).is_err());
        fs::write(&path, &sound).unwrap();
        Dataset::open(folder.path()).unwrap();
    }
}

#[test]
fn refusals_say_what_was_found_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |part: &str| {
        let message = format!("{:#}", Dataset::open(folder.path()).err().expect("a refusal"));
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    };
    refused("has no manifest.json");
    write(folder.path(), &[2, 2], |_| (2, 2));
    let path = folder.path().join("00001.shard");
    let sound = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    refused("is missing");
    fs::write(&path, b"\xff\xd8\xff\xe0 a photo and no shard at all, long enough for a header .............").unwrap();
    refused("it is not a shard (it begins with ff d8 ff e0");
    let mut newer = sound.clone();
    newer[8] = 2;
    fs::write(&path, newer).unwrap();
    refused("format version 2, this program reads version 1");
    // A sound shard of the same size, but another one.
    fs::copy(folder.path().join("00000.shard"), &path).unwrap();
    refused("belongs to another data set");
    fs::write(&path, &sound).unwrap();
    Dataset::open(folder.path()).unwrap();
    let manifest = folder.path().join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"version\": 1", "\"version\": 7")).unwrap();
    refused("format version 7");
}

/// Gives a file a time of modification that it never had, however coarse the file system's clock.
fn touch(path: &Path, seconds: u64) {
    let file = fs::File::options().append(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_shard_that_is_written_to_while_it_is_open_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.shard");
    let open = || {
        // The data take two blocks: samples 0 to 5 lie in the first, 8 to 11 in the second.
        write(folder.path(), &[12], |_| (200, 250));
        let dataset = Dataset::open(folder.path()).unwrap();
        dataset.sample(3).unwrap();
        dataset
    };
    let refused = |dataset: &Dataset, sample: usize, part: &str| {
        let message = format!("{:#}", dataset.sample(sample).expect_err("a changed shard"));
        assert!(message.contains(part) && message.contains("00000.shard"), "{message}");
    };
    let dataset = open();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(100).unwrap();
    refused(&dataset, 3, "has 100 bytes");
    let (data, tables) = (12 * 200 * 250 * 3, 8 + 16 * 3 + 5);
    for (at, samples, part) in [
        (HEADER_LENGTH + 7, 0..6, "is altered in bytes 64 to"),
        (HEADER_LENGTH + data - 7, 8..12, "is altered in bytes 1048640 to"),
        (HEADER_LENGTH + data + tables, 0..12, "its header or tables are altered"),
        (20, 0..12, "its header or tables are altered"),
    ] {
        let dataset = open();
        let file = fs::File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, at as u64).unwrap();
        file.write_all_at(&[!byte[0]], at as u64).unwrap();
        touch(&path, 2);
        for sample in 0..12 {
            match dataset.sample(sample) {
                Ok(found) => assert!(!samples.contains(&sample) && *found.pixels == pixels(sample, 200 * 250 * 3), "{at}: {sample}"),
                Err(_) => refused(&dataset, sample, "was written to while it was in use: "),
            }
        }
        samples.for_each(|sample| refused(&dataset, sample, part));
    }
}

#[test]
fn a_shard_whose_bytes_are_the_same_stays_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("00000.shard");
    write(folder.path(), &[12], |_| (200, 250));
    let dataset = Dataset::open(folder.path()).unwrap();
    let all_there = || (0..12).for_each(|index| assert_eq!(*dataset.sample(index).unwrap().pixels, pixels(index, 200 * 250 * 3)));
    for seconds in [2, 4] {
        touch(&path, seconds);
        all_there();
    }
    let bytes = fs::read(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().write_all(&bytes).unwrap();
    touch(&path, 6);
    all_there();
    // The map holds what was opened, whatever has its name.
    fs::write(folder.path().join("other"), b"another file").unwrap();
    fs::rename(folder.path().join("other"), &path).unwrap();
    all_there();
    dataset.verify().unwrap();
    fs::remove_file(&path).unwrap();
    let error = dataset.sample(0).unwrap_err().to_string();
    assert!(error.contains("00000.shard was removed while it was in use"), "{error}");
}

/// A data set of `count` shards that are copies of one with two samples.
fn write_many(folder: &Path, count: usize) {
    write(folder, &[2], |_| (2, 2));
    let mut manifest = Manifest::read(folder).unwrap();
    let first = manifest.shards[0].clone();
    for number in 1..count {
        let file = format!("{number:05}.shard");
        fs::copy(folder.join(&first.file), folder.join(&file)).unwrap();
        manifest.shards.push(ShardRecord { file, ..first.clone() });
    }
    manifest.samples = 2 * count as u64;
    manifest.write(folder).unwrap();
}

/// The part of the next test that runs out of descriptors; it runs in a process of its own.
#[test]
#[ignore = "started by more_shards_than_a_process_may_open_files"]
fn descriptors() {
    let Ok(folder) = std::env::var("SHARDS_MANY_FOLDER") else { return };
    let dataset = Dataset::open(Path::new(&folder)).unwrap();
    dataset.verify().unwrap();
    assert_eq!(*dataset.sample(2999).unwrap().pixels, pixels(1, 12));
    println!("{} samples", dataset.len());
}

#[test]
fn more_shards_than_a_process_may_open_files() {
    let folder = tempfile::tempdir().unwrap();
    write_many(folder.path(), 1500);
    let command = "ulimit -n 16; exec \"$0\" --exact descriptors --ignored --nocapture --test-threads=1";
    let output = Command::new("bash")
        .args(["-c", command])
        .arg(std::env::current_exe().unwrap())
        .env("SHARDS_MANY_FOLDER", folder.path())
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("3000 samples"), "{output:?}");
}

/// The part of the next test that runs out of maps; it runs in a process of its own.
#[test]
#[ignore = "started by more_shards_than_a_process_may_have_maps"]
fn maps() {
    let Ok(folder) = std::env::var("SHARDS_MAPS_FOLDER") else { return };
    // SAFETY: the memory is ours alone and never used: every second page of it differs from its neighbours, so each is a map.
    unsafe {
        let page = 4096;
        let length = page << 17;
        let start = libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        let protect = |number: usize, how| libc::mprotect(start.byte_add(number * page), page, how) == 0;
        let taken = (1..1 << 17).step_by(2).take_while(|&number| protect(number, libc::PROT_READ)).count();
        // Room for the manifest and a few shards.
        (0..taken).rev().take(20).for_each(|number| assert!(protect(2 * number + 1, libc::PROT_NONE)));
    }
    println!("{:#}", Dataset::open(Path::new(&folder)).err().expect("no room for a hundred maps"));
}

#[test]
fn more_shards_than_a_process_may_have_maps() {
    let Ok(most) = fs::read_to_string("/proc/sys/vm/max_map_count") else { return };
    if most.trim().parse::<usize>().unwrap() > 1 << 17 {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    write_many(folder.path(), 100);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "maps", "--ignored", "--nocapture", "--test-threads=1"])
        .env("SHARDS_MAPS_FOLDER", folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stdout);
    let expected = format!("a process may have {} maps (vm.max_map_count)", most.trim());
    assert!(message.contains(&expected) && message.contains("larger --shard-mib"), "{message} {output:?}");
}

/// The part of the next test that dies; it runs in a process of its own.
#[test]
#[ignore = "started by a_fault_names_the_shard"]
fn fault() {
    let Ok(folder) = std::env::var("SHARDS_FAULT_FOLDER") else { return };
    shards::install_fault_handler("shards");
    let folder = Path::new(&folder);
    let dataset = Dataset::open(folder).unwrap();
    let sample = dataset.sample(0).unwrap();
    fs::OpenOptions::new().write(true).open(folder.join("00000.shard")).unwrap().set_len(HEADER_LENGTH as u64).unwrap();
    // Far behind the last page that the file still has.
    println!("{}", sample.pixels[100_000]);
}

#[test]
fn a_fault_names_the_shard() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[1], |_| (200, 200));
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "fault", "--ignored", "--nocapture"])
        .env("SHARDS_FAULT_FOLDER", folder.path())
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("shards: ") && message.contains("00000.shard can no longer be read"), "{message}");
}
