//! `data-prep cifar10` and `cifar100` on small data sets of the published forms.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{expect, files, gzip, open, put, tar};

/// The planes of an image.
fn planes(index: usize) -> Vec<u8> {
    (0..3072).map(|at| (at / 1024 * 80 + at % 32 + index) as u8).collect()
}

/// A text as Python 2 pickles it, with the note that it may be referred to again.
fn text(text: &[u8], number: u8) -> Vec<u8> {
    match u8::try_from(text.len()) {
        Ok(length) => [&[b'U', length], text, &[b'q', number]].concat(),
        Err(_) => [b"T", &(text.len() as u32).to_le_bytes()[..], text, &[b'q', number]].concat(),
    }
}

/// A list that is the value of a key.
fn list(key: &str, items: &[Vec<u8>], number: u8) -> Vec<u8> {
    [text(key.as_bytes(), number), vec![b']', b'q', number + 1, b'('], items.concat(), vec![b'e']].concat()
}

fn pickled(entries: &[Vec<u8>]) -> Vec<u8> {
    [&b"\x80\x02}q\x01("[..], &entries.concat(), b"u."].concat()
}

/// A batch as Python 2 and NumPy pickle it: the array is made empty, and gets its state then.
fn batch(lists: &[(&str, &[u8])], images: &[usize]) -> Vec<u8> {
    let count = images.len() as u8;
    let values: Vec<u8> = images.iter().flat_map(|image| planes(*image)).collect();
    let array = [
        &text(b"data", 40)[..],
        b"cnumpy.core.multiarray\n_reconstruct\nq\x29cnumpy\nndarray\nq\x2aK\x00\x85q\x2bU\x01bq\x2c\x87q\x2dRq\x2e",
        &[b'(', b'K', 1, b'K', count, b'M', 0, 12, 0x86, b'q', 0x2f],
        b"cnumpy\ndtype\nq\x30U\x02u1q\x31K\x00K\x01\x87q\x32Rq\x33(K\x03U\x01|q\x34NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
        &text(&values, 0x35),
        b"tb",
    ]
    .concat();
    let labels = lists
        .iter()
        .zip((4..).step_by(4))
        .map(|((key, labels), number)| list(key, &labels.iter().map(|label| vec![b'K', *label]).collect::<Vec<_>>(), number));
    let names = images.iter().map(|image| text(format!("image_{image}.png").as_bytes(), 60)).collect::<Vec<_>>();
    pickled(
        &[
            &[text(b"batch_label", 2), text(b"one of five", 3)].concat()[..],
            &labels.collect::<Vec<_>>().concat(),
            &array,
            &list("filenames", &names, 61),
        ]
        .map(<[u8]>::to_vec),
    )
}

fn names(key: &str, names: &[&str], number: u8) -> Vec<u8> {
    list(key, &names.iter().map(|name| text(name.as_bytes(), number + 2)).collect::<Vec<_>>(), number)
}

const TEN: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// Two images in each training batch, one in the test batch; the binary version in `bin`, the Python version in `py`.
fn write_ten(folder: &Path) {
    let record = |label: u8, index: usize| [vec![label], planes(index)].concat();
    for number in 1..=5u8 {
        let images = [number.into(), 9];
        put(folder, &format!("bin/data_batch_{number}.bin"), &[record(number, images[0]), record(0, 9)].concat());
        put(folder, &format!("py/data_batch_{number}"), &batch(&[("labels", &[number, 0])], &images));
    }
    put(folder, "bin/test_batch.bin", &record(9, 3));
    put(folder, "py/test_batch", &batch(&[("labels", &[9])], &[3]));
    put(folder, "bin/batches.meta.txt", format!("{}\n\n", TEN.join("\n")).as_bytes());
    put(folder, "py/batches.meta", &pickled(&[[text(b"num_vis", 2), vec![b'M', 0, 12]].concat(), names("label_names", &TEN, 3)]));
}

fn pack(folder: &Path, archive: &str, from: &str, inside: &str) {
    let members: Vec<_> = files(&folder.join(from)).into_iter().map(|(name, bytes)| (format!("{inside}/{name}"), bytes)).collect();
    put(folder, archive, &gzip(&tar(&members)));
}

#[test]
fn ten_classes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_ten(path);
    expect(path, "cifar10 --batches bin --out out", 0);
    let [train, test] = ["train", "test"].map(|part| open(&path.join("out").join(part)));
    assert_eq!((train.len(), test.len(), train.shape(), train.classes()), (10, 1, Some([32, 32, 3]), 10));
    assert_eq!(test.class_names(), TEN);
    assert_eq!((0..10).map(|index| train.label(index)).collect::<Vec<_>>(), [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]);
    let sample = train.sample(2).unwrap();
    for (at, pixel) in sample.pixels.chunks(3).enumerate() {
        let x = (at % 32) as u8 + 2;
        assert_eq!(pixel, [x, x + 80, x + 160]);
    }
    let information: serde_json::Value = serde_json::from_str(&expect(path, "info out --json", 0)).unwrap();
    assert_eq!(information["train"]["samples_per_class"][0], 5);
    assert!(
        expect(path, "cifar10 --batches bin --out out", 0)
            .contains("out/test: 1 sample of 32 x 32 x 3, 10 classes: complete, made before\n")
    );

    // Every version, packed or not, below the folder that is given or in it, gives the same shards.
    let expected = files(&path.join("out"));
    pack(path, "a/cifar-10-binary.tar.gz", "bin", "cifar-10-batches-bin");
    pack(path, "b/cifar-10-python.tar.gz", "py", "cifar-10-batches-py");
    fs::create_dir(path.join("c")).unwrap();
    assert!(Command::new("tar").current_dir(path).args(["-xf", "b/cifar-10-python.tar.gz", "-C", "c"]).status().unwrap().success());
    for (at, batches) in ["py", "a", "b", "c", "a/cifar-10-binary.tar.gz", "b/cifar-10-python.tar.gz"].into_iter().enumerate() {
        expect(path, &format!("cifar10 --batches {batches} --out out{at}"), 0);
        assert!(files(&path.join(format!("out{at}"))) == expected, "{batches}");
    }
}

#[test]
fn a_hundred_classes_or_twenty() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let fine: Vec<String> = (0..100).map(|class| format!("fine{class}")).collect();
    let coarse: Vec<String> = (0..20).map(|class| format!("coarse{class}")).collect();
    let [fine, coarse] = [&fine, &coarse].map(|names| names.iter().map(String::as_str).collect::<Vec<_>>());
    for (part, images, labels, groups) in [("train", &[4, 7][..], &[99, 3][..], &[19, 1][..]), ("test", &[5], &[42], &[8])] {
        let records =
            images.iter().zip(labels.iter().zip(groups)).map(|(image, (label, group))| [vec![*group, *label], planes(*image)].concat());
        put(path, &format!("bin/{part}.bin"), &records.collect::<Vec<_>>().concat());
        put(path, &format!("py/{part}"), &batch(&[("fine_labels", labels), ("coarse_labels", groups)], images));
    }
    put(path, "bin/fine_label_names.txt", fine.join("\n").as_bytes());
    put(path, "bin/coarse_label_names.txt", coarse.join("\n").as_bytes());
    put(path, "py/meta", &pickled(&[names("fine_label_names", &fine, 2), names("coarse_label_names", &coarse, 9)]));
    pack(path, "cifar-100-python.tar.gz", "py", "cifar-100-python");
    for (options, names, labels) in [("", &fine, [99, 3]), ("--labels coarse", &coarse, [19, 1])] {
        let mut outputs = Vec::new();
        for batches in ["bin", "py", "cifar-100-python.tar.gz"] {
            let out = format!("out{}{batches}", options.replace(' ', ""));
            expect(path, &format!("cifar100 --batches {batches} {options} --out {out}"), 0);
            outputs.push(files(&path.join(&out)));
            let train = open(&path.join(&out).join("train"));
            assert_eq!(train.class_names(), *names);
            assert_eq!([train.label(0), train.label(1)], labels);
            assert_eq!(train.sample(1).unwrap().pixels[..3], [7, 87, 167]);
        }
        assert!(outputs.iter().all(|output| *output == outputs[0]));
    }
}

#[test]
fn bad_batches_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_ten(path);
    let refused = |batches: &str, code: i32, parts: &[&str]| {
        let said = expect(path, &format!("cifar10 --batches {batches} --out x"), code);
        assert!(said.lines().count() == 1 && parts.iter().all(|part| said.contains(part)), "{batches}: {said}");
        assert!(!path.join("x").exists());
    };
    put(path, "matlab/data_batch_1.mat", b"MATLAB 5.0");
    for other in ["matlab", "none", "bin/nothing"] {
        refused(other, 2, &["CIFAR-10 is not there; give cifar-10-binary.tar.gz or cifar-10-python.tar.gz as it is"]);
    }
    put(path, "half.tar.gz", &gzip(&tar(&[("x/data_batch_1".to_owned(), vec![7; 5000])]))[..60]);
    refused("half.tar.gz", 1, &["half.tar.gz is no whole .tar.gz"]);
    // Whole, but for the checksum that gzip has behind it.
    let mut altered = gzip(&tar(&[("x/data_batch_1.bin".to_owned(), vec![7; 3073])]));
    let checksum = altered.len() - 8;
    altered[checksum] ^= 1;
    put(path, "altered.tar.gz", &altered);
    refused("altered.tar.gz", 1, &["altered.tar.gz is no whole .tar.gz; get it again"]);
    put(path, "lacks.tar.gz", &gzip(&tar(&[("x/data_batch_1.bin".to_owned(), vec![7; 3073])])));
    refused("lacks.tar.gz", 1, &["batches.meta.txt in lacks.tar.gz is missing"]);

    let record = |label: u8| [vec![label], planes(3)].concat();
    put(path, "bin/data_batch_3.bin", &record(3)[..3000]);
    refused("bin", 1, &["bin/data_batch_3.bin has 3000 bytes"]);
    put(path, "bin/data_batch_3.bin", &record(10));
    refused("bin", 1, &["bin/data_batch_3.bin has label 10 in record 0"]);
    fs::remove_file(path.join("bin/data_batch_3.bin")).unwrap();
    refused("bin", 2, &["bin/data_batch_3.bin cannot be opened"]);

    let sound = batch(&[("labels", &[3, 0])], &[3, 9]);
    let fortran = {
        let at = sound.windows(3).position(|bytes| bytes == b"tb\x89").unwrap();
        [&sound[..at + 2], b"\x88", &sound[at + 3..]].concat()
    };
    let many = [&b"\x80\x02("[..], &vec![b'N'; 3 << 20], b"t."].concat();
    for (damaged, why) in [
        (&sound[..2000], "it is cut off"),
        (b"\x80\x02cos\nsystem\nU\x04echo\x85R.", "it holds no dictionary"),
        (b"data", "it holds the unexpected operation 0x64"),
        (&batch(&[("labels", &[3])], &[3, 9]), "it has 6144 bytes of data for 1 labels"),
        (&batch(&[("fine_labels", &[3, 0])], &[3, 9]), "it has no list of labels"),
        (&fortran, "it holds an array in Fortran's order"),
        (&many, "it holds more than 2097152 values"),
        (b"", "it is cut off"),
        (&[&b"\x80\x02}q\x01(U\x04data("[..], &[b'('; 100_000]].concat(), "it is cut off"),
    ] {
        put(path, "py/data_batch_3", damaged);
        refused("py", 1, &["py/data_batch_3 cannot be used; get it again: ", why]);
    }
}
