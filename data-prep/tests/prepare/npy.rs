//! `data-prep npy` on files as NumPy writes them, and on others.

use std::io::{Cursor, Write};

use crate::common::{expect, open, put};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// A file as numpy.save writes it: the header ends where a multiple of 64 bytes does.
fn npy(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': ({shape}), }}");
    header += &" ".repeat(63 - (10 + header.len()) % 64);
    header += "\n";
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), values].concat()
}

fn bytes(shape: &str, values: &[u8]) -> Vec<u8> {
    npy("'|u1'", "False", shape, values)
}

fn npz(arrays: &[(&str, &[u8])], packing: CompressionMethod) -> Vec<u8> {
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, array) in arrays {
        // As NumPy does, whatever the size.
        writer.start_file(format!("{name}.npy"), SimpleFileOptions::default().compression_method(packing).large_file(true)).unwrap();
        writer.write_all(array).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn layouts_and_types() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..6 * 60).map(|at| (at * 11 % 251) as u8).collect();
    let numbers = [3i64, 1, 0, 4, 1, 2];
    let labels = [
        ("'<i8'", numbers.iter().flat_map(|label| label.to_le_bytes()).collect::<Vec<u8>>()),
        ("'>i2'", numbers.iter().flat_map(|label| (*label as i16).to_be_bytes()).collect()),
        ("'<u4'", numbers.iter().flat_map(|label| (*label as u32).to_le_bytes()).collect()),
        ("'|u1'", numbers.iter().map(|label| *label as u8).collect()),
    ];
    let shapes = [
        ("6, 10, 6", [10, 6, 1], false),
        ("6, 5, 4, 3", [5, 4, 3], false),
        ("6, 3, 10, 2", [10, 2, 3], true),
        ("6L, 1L, 12L, 5L", [12, 5, 1], true),
    ];
    for (at, ((shape, stored, planes), (descr, label_bytes))) in shapes.into_iter().zip(&labels).enumerate() {
        put(folder.path(), "x.npy", &bytes(shape, &values));
        put(folder.path(), "y.npy", &npy(descr, "False", "6,", label_bytes));
        let told = if at == 2 { "--layout chw" } else { "" };
        expect(folder.path(), &format!("npy --images x.npy --labels y.npy {told} --out out{at}"), 0);
        let dataset = open(&folder.path().join(format!("out{at}")));
        assert_eq!((dataset.len(), dataset.shape(), dataset.classes()), (6, Some(stored), 5));
        let [height, width, channels] = stored;
        for index in 0..6 {
            let sample = dataset.sample(index).unwrap();
            assert_eq!(i64::from(sample.label), numbers[index]);
            for (place, value) in sample.pixels.iter().enumerate() {
                let (pixel, channel) = (place / channels, place % channels);
                let from = if planes { channel * height * width + pixel } else { place };
                assert_eq!(*value, values[index * 60 + from], "{shape}: {place}");
            }
        }
    }
    // The third could be either, had it not been told.
    put(folder.path(), "x.npy", &bytes("6, 3, 10, 2", &values));
    let said = expect(folder.path(), "npy --images x.npy --labels y.npy --out either", 2);
    assert!(said.contains("leaves open where the channels are; say --layout hwc (last) or --layout chw (first)"), "{said}");
    expect(folder.path(), "npy --images x.npy --labels y.npy --layout hwc --out either", 0);
    assert_eq!(open(&folder.path().join("either")).shape(), Some([3, 10, 2]));
    assert!(expect(folder.path(), "npy --images x.npy --labels y.npy --layout hwc --out either", 0).contains("made before"));
}

#[test]
fn archives_of_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<u8> = (0..40).collect();
    let images = bytes("2, 4, 5", &values);
    let labels = npy("'<i4'", "False", "2,", &[1, 0, 0, 0, 0, 0, 0, 0]);
    let arrays: [(&str, &[u8]); 2] = [("x_train", &images), ("y_train", &labels)];
    put(folder.path(), "stored.npz", &npz(&arrays, CompressionMethod::Stored));
    put(folder.path(), "packed.npz", &npz(&arrays, CompressionMethod::Deflated));
    put(folder.path(), "one.npz", &npz(&arrays[..1], CompressionMethod::Deflated));
    put(folder.path(), "y.npy", &labels);
    for (out, images, labels) in [
        ("stored", "stored.npz:x_train", "stored.npz:y_train"),
        ("packed", "packed.npz:x_train", "packed.npz:y_train"),
        ("one", "one.npz", "y.npy"),
    ] {
        expect(folder.path(), &format!("npy --images {images} --labels {labels} --out {out}"), 0);
        let dataset = open(&folder.path().join(out));
        assert_eq!((dataset.len(), dataset.label(0)), (2, 1));
        assert_eq!(*dataset.sample(1).unwrap().pixels, values[20..]);
    }
    let said = expect(folder.path(), "npy --images packed.npz --labels y.npy --out x", 2);
    assert!(said.contains("packed.npz holds several arrays; there are x_train, y_train: write --images packed.npz:x_train"), "{said}");
    let said = expect(folder.path(), "npy --images packed.npz:x --labels y.npy --out x", 2);
    assert!(said.contains("packed.npz holds no array x; there are"), "{said}");
    let mut altered = npz(&arrays, CompressionMethod::Stored);
    let at = altered.windows(4).position(|bytes| *bytes == values[..4]).unwrap();
    altered[at] ^= 1;
    put(folder.path(), "altered.npz", &altered);
    let said = expect(folder.path(), "npy --images altered.npz:x_train --labels y.npy --out x", 1);
    assert!(said.contains("altered.npz:x_train") && said.contains("its checksum in the archive differs"), "{said}");
    put(folder.path(), "cut.npz", &altered[..altered.len() - 30]);
    assert!(expect(folder.path(), "npy --images cut.npz:x_train --labels y.npy --out x", 1).contains("cut.npz is no whole .npz file"));
    assert!(!folder.path().join("x").exists());
}

#[test]
fn bad_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let images = bytes("2, 2, 2", &[9; 8]);
    let labels = bytes("2,", &[0, 1]);
    let long = [&b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..], &[b' '; 100]].concat();
    for (at, (images, labels, code, part)) in [
        (&b"\x89PNG...."[..], &labels[..], 2, "x.npy is no .npy file"),
        (b"", &labels, 2, "x.npy is no .npy file"),
        (&npy("'<f4'", "False", "2, 2, 2", &[0; 32]), &labels, 2, "x.npy holds values of type <f4"),
        (&npy("'<i8'", "False", "2, 2, 2", &[0; 64]), &labels, 2, "x.npy holds int64; pixels are unsigned bytes"),
        (&npy("'|O'", "False", "2, 2, 2", b"\x80\x02."), &labels, 2, "x.npy holds values of type |O"),
        (&npy("[('a', '<i4'), ('b', '|u1')]", "False", "2,", &[0; 10]), &labels, 2, "x.npy is a table of several columns"),
        (&npy("'|u1'", "True", "2, 2, 2", &[9; 8]), &labels, 2, "x.npy is in Fortran's order; save numpy.ascontiguousarray(x)"),
        (&bytes("2, 2, 2, 1, 1", &[9; 8]), &labels, 2, "x.npy has 5 dimensions"),
        (&bytes("2, 2", &[9; 4]), &labels, 2, "x.npy has 2 dimensions"),
        (&bytes("-2, 2, 2", &[9; 8]), &labels, 1, "x.npy has a header that NumPy does not write"),
        (&bytes(&"1, ".repeat(70), &[9]), &labels, 1, "x.npy has a header that NumPy does not write"),
        (&long, &labels, 1, "x.npy has a header of 4294967295 bytes"),
        (&images[..30], &labels, 1, "x.npy is cut off in its header"),
        (&images[..images.len() - 1], &labels, 1, "x.npy is cut off"),
        (&[&images[..], b"x"].concat(), &labels, 1, "x.npy has more bytes"),
        (&bytes("2, 4294967296, 4294967296", &[]), &labels, 1, "which cannot be stored"),
        (&bytes("18446744073709551615, 60000, 60000", &[]), &labels, 2, "but y.npy has 2 labels"),
        (&images, &bytes("18446744073709551615,", &[]), 1, "y.npy announces 18446744073709551615 labels"),
        (&images, &bytes("200000000,", &[0, 1]), 1, "y.npy is cut off: its header announces 200000000 labels, 2 are there"),
        (&images, &bytes("2, 1", &[0, 1]), 2, "y.npy has 2 dimensions; labels have one"),
        (&images, &npy("'|i1'", "False", "2,", &[0, 255]), 1, "y.npy has label -1 at number 1"),
        (&images, &npy("'<i8'", "False", "2,", &[255; 16]), 1, "y.npy has label -1 at number 0"),
        (&images, &npy("'<u8'", "False", "2,", &[255; 16]), 1, "y.npy has label 18446744073709551615 at number 0"),
        (&images, &bytes("3,", &[0, 1, 2]), 2, "2 images, but y.npy has 3 labels"),
    ]
    .into_iter()
    .enumerate()
    {
        put(folder.path(), "x.npy", images);
        put(folder.path(), "y.npy", labels);
        let said = expect(folder.path(), &format!("npy --images x.npy --labels y.npy --out out{at}"), code);
        assert!(said.starts_with("data-prep: ") && said.lines().count() == 1 && said.contains(part), "{part}: {said}");
        assert!(!folder.path().join(format!("out{at}")).exists());
    }
    put(folder.path(), "x.npy", &images);
    put(folder.path(), "y.npy", &labels);
    assert!(expect(folder.path(), "npy --images x.npy --labels y.npy --classes 1 --out x", 2).contains("but --classes is 1"));
    assert!(expect(folder.path(), "npy --images none.npy --labels y.npy --out x", 2).contains("none.npy cannot be opened"));
}
