//! `data-prep folder` and the commands that look at data sets, as a user runs them.

use std::fs;
use std::process::Command;

use crate::common::{colours, data_prep, distance, expect, files, jpeg, open, packed, put, with_orientation};
use jpeg_encoder::ColorType;

fn png(image: impl Into<image::DynamicImage>) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn classes_and_samples_have_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    for (name, kind) in [("bee/2.jpg", 3), ("bee/10.JPEG", 2), ("ant/deep/x.jpeg", 1), ("ant/a.jpg", 0), ("cat/z.png.jpg", 4)] {
        put(folder.path(), &format!("photos/{name}"), &jpeg(30, 40, kind));
    }
    put(folder.path(), "photos/ant/notes.txt", b"no photo");
    put(folder.path(), "photos/ant/.hidden.jpg", b"no photo");
    put(folder.path(), "photos/.git/x.jpg", b"no photo");
    fs::create_dir(folder.path().join("photos/dog")).unwrap();
    let said = expect(folder.path(), "folder --images photos --out out", 0);
    assert!(said.contains("5 samples of 30 x 40 x 3, 4 classes"), "{said}");
    let dataset = open(&folder.path().join("out"));
    assert_eq!(dataset.class_names(), ["ant", "bee", "cat", "dog"]);
    assert_eq!(dataset.shape(), Some([30, 40, 3]));
    for (index, (label, kind)) in [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4)].into_iter().enumerate() {
        let sample = dataset.sample(index).unwrap();
        assert_eq!(sample.label, label);
        let apart = distance(&sample.pixels, &colours(30, 40, kind));
        assert!(apart < 2.0, "sample {index} lies {apart} from what was put there");
    }
}

#[test]
fn every_form_of_photo_becomes_the_same_pixels() {
    let folder = tempfile::tempdir().unwrap();
    let (height, width) = (24, 36);
    let pixels = colours(height, width, 5);
    let gray: Vec<u8> = pixels.chunks(3).map(|pixel| pixel[1]).collect();
    let rgb = image::RgbImage::from_raw(width, height, pixels.clone()).unwrap();
    let deep = image::DynamicImage::from(rgb.clone()).into_rgb16();
    let cmyk: Vec<u8> = pixels.chunks(3).flat_map(|pixel| [255 - pixel[0], 255 - pixel[1], 255 - pixel[2], 0]).collect();
    let plain = jpeg(height, width, 5);
    let junk = [&plain[..2], b"\0\0junk", &plain[2..]].concat();
    put(folder.path(), "p/x/0.jpg", &plain);
    put(folder.path(), "p/x/1.jpg", &packed(&cmyk, height, width, ColorType::Cmyk));
    put(folder.path(), "p/x/2.jpg", &packed(&cmyk, height, width, ColorType::CmykAsYcck));
    put(folder.path(), "p/x/3.JPEG", &png(rgb));
    put(folder.path(), "p/x/4.png", &png(deep));
    put(folder.path(), "p/x/5.jpg", &junk);
    put(folder.path(), "p/x/6.jpg", &with_orientation(&plain, 6));
    put(folder.path(), "p/x/7.jpg", &packed(&gray, height, width, ColorType::Luma));
    expect(folder.path(), "folder --images p --out out", 0);
    let dataset = open(&folder.path().join("out"));
    assert_eq!(dataset.len(), 8);
    for index in 0..7 {
        let apart = distance(&dataset.sample(index).unwrap().pixels, &pixels);
        assert!(apart < 2.5, "photo {index} lies {apart} away");
    }
    let spread: Vec<u8> = gray.iter().flat_map(|&value| [value; 3]).collect();
    assert!(distance(&dataset.sample(7).unwrap().pixels, &spread) < 2.0);

    // Orientation 6: the stored rows are the columns of the photo as it is to be seen, from right to left.
    expect(folder.path(), "folder --images p --out turned --exif-orientation", 0);
    let dataset = open(&folder.path().join("turned"));
    assert_eq!(dataset.shape(), None);
    let turned = dataset.sample(6).unwrap();
    assert_eq!((turned.height, turned.width), (36, 24));
    let (h, w) = (height as usize, width as usize);
    let expected: Vec<u8> =
        (0..w).flat_map(|y| (0..h).flat_map(move |x| (0..3).map(move |c| ((h - 1 - x) * w + y) * 3 + c))).map(|at| pixels[at]).collect();
    assert!(distance(&turned.pixels, &expected) < 2.0);
}

#[test]
fn unreadable_photos_are_left_out_and_listed() {
    let folder = tempfile::tempdir().unwrap();
    let whole = jpeg(64, 64, 1);
    put(folder.path(), "p/a/1.jpg", &whole);
    put(folder.path(), "p/a/2.jpg", &whole[..whole.len() / 2]);
    put(folder.path(), "p/a/3.jpg", b"");
    put(folder.path(), "p/b/4.jpg", b"GIF89a, in truth");
    put(folder.path(), "p/b/5.jpg", &whole);
    fs::create_dir_all(folder.path().join("p/b/6.jpg")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("p/b/7.jpg")).unwrap();
    for other in ["p/b/9.webp", "p/a/8.gif", "p/a/.DS_Store"] {
        put(folder.path(), other, b"of another kind");
    }
    let output = data_prep(folder.path(), "folder --images p --out out --note copies");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("4 of 6 photos left out, listed in out/unreadable.txt"), "{said}");
    assert!(said.contains("files in class folders that are no .jpg, .jpeg or .png are passed over: 2, namely a/8.gif, b/9.webp"), "{said}");
    let report = fs::read_to_string(folder.path().join("out/unreadable.txt")).unwrap();
    let names: Vec<&str> = report.lines().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(names, ["a/2.jpg", "a/3.jpg", "b/4.jpg", "b/7.jpg"], "{report}");
    let dataset = open(&folder.path().join("out"));
    assert_eq!((dataset.len(), dataset.classes()), (2, 2));
    let info = expect(folder.path(), "info out", 0);
    assert!(info.contains("left out  4 unreadable photos") && info.contains("note      copies"), "{info}");
    assert_eq!(dataset.manifest().note(), Some("copies"));
    let strict = expect(folder.path(), "folder --images p --out strict --strict", 1);
    assert!(strict.contains("a/2.jpg cannot be used"), "{strict}");
    assert!(!folder.path().join("strict").exists());
    expect(folder.path(), "folder --images p --out strict --note copies", 0);
    assert!(files(&folder.path().join("strict")) == files(&folder.path().join("out")));
    fs::remove_file(folder.path().join("p/a/1.jpg")).unwrap();
    fs::remove_file(folder.path().join("p/b/5.jpg")).unwrap();
    let none = expect(folder.path(), "folder --images p --out none", 1);
    assert!(none.contains("none of the 4 photos could be used"), "{none}");
    assert!(expect(folder.path(), "folder --images p/a/2.jpg --out x", 2).contains("is no folder"));
    fs::create_dir(folder.path().join("empty")).unwrap();
    assert!(expect(folder.path(), "folder --images empty --out x", 2).contains("no photos in class folders"));
}

#[test]
fn sizes_stores_and_threads() {
    let folder = tempfile::tempdir().unwrap();
    for kind in 0..40 {
        put(folder.path(), &format!("p/c{}/{kind:02}.jpg", kind % 3), &jpeg(60 + kind, 130 - 2 * kind, kind));
    }
    for (name, options) in
        [("square", "--size 32"), ("full", "--size 32 --full-frame"), ("jpeg", "--size 32 --store jpeg"), ("own", "--shuffle-seed 4")]
    {
        let command = |out: &str, threads| format!("folder --images p --out {out} {options} --threads {threads} --shard-mib 1");
        expect(folder.path(), &command(name, 1), 0);
        expect(folder.path(), &command("again", 5), 0);
        assert!(files(&folder.path().join(name)) == files(&folder.path().join("again")), "{name}");
        fs::remove_dir_all(folder.path().join("again")).unwrap();
        expect(folder.path(), &format!("verify {name}"), 0);
    }
    let [square, full, jpeg, own] = ["square", "full", "jpeg", "own"].map(|name| open(&folder.path().join(name)));
    assert_eq!((square.shape(), jpeg.shape()), (Some([32, 32, 3]), Some([32, 32, 3])));
    assert_eq!((full.shape(), own.shape()), (None, None));
    for index in 0..40 {
        let (square, full, jpeg) = (square.sample(index).unwrap(), full.sample(index).unwrap(), jpeg.sample(index).unwrap());
        assert_eq!(full.height.min(full.width), 32);
        assert!(distance(&square.pixels, &jpeg.pixels) < 4.0);
        // The square is the full frame's centre.
        let (top, left) = ((full.height - 32) / 2, (full.width - 32) / 2);
        let centre: Vec<u8> = (0..32).flat_map(|y| full.pixels[((top + y) * full.width + left) * 3..][..96].to_vec()).collect();
        assert!(distance(&square.pixels, &centre) < 6.0, "{index}");
    }
    // Statistics are those of what a reader sees.
    let seen: Vec<f64> = (0..40)
        .flat_map(|index| jpeg.sample(index).unwrap().pixels.iter().step_by(3).map(|&x| f64::from(x) / 255.0).collect::<Vec<_>>())
        .collect();
    let mean = seen.iter().sum::<f64>() / seen.len() as f64;
    assert!((jpeg.statistics().mean[0] - mean).abs() < 1e-12);
    let labels: Vec<u32> = (0..40).map(|index| own.label(index)).collect();
    assert!(!labels.is_sorted());
}

#[test]
fn resized_pixels_are_near_pillows() {
    // 12 x 9 pixels, value (y * 37 + x * 91 + c * 53 + x * y * 13) mod 256, resized by Pillow 13's LANCZOS to 5 x 4
    // (torchvision drops the fraction of 4 * 12 / 9).
    let value = |y: u32, x: u32, c: u32| ((y * 37 + x * 91 + c * 53 + x * y * 13) % 256) as u8;
    let image = image::RgbImage::from_fn(9, 12, |x, y| image::Rgb([0, 1, 2].map(|c| value(y, x, c))));
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "p/a/0.png", &png(image));
    expect(folder.path(), "folder --images p --out out --size 4 --full-frame", 0);
    let dataset = open(&folder.path().join("out"));
    assert_eq!(dataset.shape(), Some([5, 4, 3]));
    let expected: [u8; 60] = [
        103, 129, 148, 135, 153, 116, 100, 168, 156, 162, 101, 164, 140, 148, 153, 150, 126, 119, 150, 112, 162, 153, 115, 163, 142, 145,
        131, 126, 106, 157, 143, 118, 142, 146, 125, 120, 115, 105, 111, 143, 138, 127, 149, 129, 153, 152, 130, 129, 102, 147, 165, 105,
        113, 149, 117, 147, 109, 165, 93, 130,
    ];
    let sample = dataset.sample(0).unwrap();
    let worst = sample.pixels.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(1), "{:?}", sample.pixels);
}

#[test]
fn looking_at_a_data_set() {
    let folder = tempfile::tempdir().unwrap();
    for kind in 0..6 {
        put(folder.path(), &format!("p/class {}/{kind}.jpg", kind % 2), &jpeg(40, 50, kind));
    }
    expect(folder.path(), "folder --images p --out out", 0);
    assert!(expect(folder.path(), "stats out", 0).contains("height x width: from 40 x 50 to 40 x 50"));
    let numbers: serde_json::Value = serde_json::from_str(&expect(folder.path(), "stats out --json", 0)).unwrap();
    assert_eq!(numbers["fewest_in_a_class"], 3);
    let sheet = |arguments: &str| {
        expect(folder.path(), &format!("show out --out sheet.png {arguments}"), 0);
        image::open(folder.path().join("sheet.png")).unwrap().into_rgb8()
    };
    let whole = sheet("1 4");
    // Enlarged three times; the first picture lies at (8, 8).
    let stored = open(&folder.path().join("out")).sample(1).unwrap().pixels.into_owned();
    assert_eq!(whole.get_pixel(8, 8).0, stored[..3]);
    assert_eq!(whole.get_pixel(8 + 3 * 49, 8 + 3 * 39).0, stored[stored.len() - 3..]);
    // Something is written under it.
    let text = whole.enumerate_pixels().filter(|(_, y, pixel)| *y > 8 + 120 && pixel.0 == [20; 3]).count();
    assert!(text > 100, "{text}");
    assert_eq!(sheet("--count 3").dimensions(), sheet("--count 3 --augment horizontal_flip,random_crop --crop 40 50").dimensions());
    assert_ne!(sheet("0 1 2 3 4 5"), sheet("0 1 2 3 4 5 --augment horizontal_flip"));
    assert!(expect(folder.path(), "show out 6 --out x.png", 2).contains("samples 0 to 5, asked was number 6"));
    assert!(expect(folder.path(), "show out --crop 99 99 --out x.png", 2).contains("does not fit a frame of 40 x 50"));
    assert!(expect(folder.path(), "info nothing", 2).contains("does not exist"));
    assert!(expect(folder.path(), "show out 3 --out sheet.gif", 2).contains("end its name in .png or .jpg"));
    assert_eq!(expect(folder.path(), "show out 3 --out sheet.JPG", 0), "sheet.JPG: 1 sample\n");
    let bytes = fs::read(folder.path().join("sheet.JPG")).unwrap();
    let jpeg = data_prep::photo::Photo::open(&bytes, false).unwrap();
    assert!(bytes.starts_with(&[0xff, 0xd8]) && jpeg.frame() == (sheet("3").height(), sheet("3").width()));
    assert_eq!(expect(folder.path(), "verify out", 0), "out: 6 samples in 1 shard, all intact\n");

    let path = folder.path().join("out/00000.shard");
    let mut bytes = fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    fs::write(&path, bytes).unwrap();
    let altered = expect(folder.path(), "verify out", 1);
    assert!(altered.contains("00000.shard is altered in bytes 64 to"), "{altered}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "p/a/0.jpg", &jpeg(8, 8, 0));
    expect(folder.path(), "folder --images p --out out", 0);
    // Nobody reads when it begins to write.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_data-prep"));
    let output = command.current_dir(folder.path()).args(["info", "out"]).stdout(writer).output().unwrap();
    assert!(output.status.code() == Some(0) && output.stderr.is_empty(), "{output:?}");
}
