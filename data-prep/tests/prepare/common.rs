//! Photos, archives and commands for the tests, all made on the spot.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use shards::Dataset;

/// Runs `data-prep` with arguments separated by blanks, in `folder`.
pub fn data_prep(folder: &Path, arguments: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_data-prep")).current_dir(folder).args(arguments.split_whitespace()).output().unwrap()
}

/// Runs it and checks the exit code; returns stdout or, where it fails, stderr.
pub fn expect(folder: &Path, arguments: &str, code: i32) -> String {
    let output = data_prep(folder, arguments);
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert_eq!(output.status.code(), Some(code), "{arguments}\n{out}{err}");
    assert!(!err.contains("panicked"), "{err}");
    if code == 0 { out } else { err }
}

/// Puts a file into `folder`, in folders that are made for it.
pub fn put(folder: &Path, name: &str, bytes: &[u8]) {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// An idx file of unsigned bytes.
pub fn idx(dimensions: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dimensions.len() as u8];
    bytes.extend(dimensions.iter().flat_map(|size| size.to_be_bytes()));
    bytes.extend(values);
    bytes
}

/// Smooth colours, so that a JPEG keeps them nearly; different for each `kind`.
pub fn colours(height: u32, width: u32, kind: u32) -> Vec<u8> {
    let mut pixels = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let (y, x, turn) = (y as f32 / height as f32, x as f32 / width as f32, kind as f32 * 0.7);
            for c in 0..3 {
                pixels.push((127.0 + 90.0 * ((3.0 * x + 2.0 * c as f32 + turn).sin() * (2.0 * y + turn).cos())) as u8);
            }
        }
    }
    pixels
}

/// A JPEG of [`colours`] without chroma subsampling.
pub fn jpeg(height: u32, width: u32, kind: u32) -> Vec<u8> {
    packed(&colours(height, width, kind), height, width, ColorType::Rgb)
}

pub fn packed(pixels: &[u8], height: u32, width: u32, colour: ColorType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, 98);
    encoder.set_sampling_factor(SamplingFactor::F_1_1);
    encoder.encode(pixels, width as u16, height as u16, colour).unwrap();
    bytes
}

/// The same JPEG with an EXIF segment that holds nothing but an orientation.
pub fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let exif = [b"Exif\0\0MM\0*\0\0\0\x08".as_slice(), &[0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0, 0, 0, 0, 0]].concat();
    let length = (exif.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, 0xe1], &length, &exif, &jpeg[2..]].concat()
}

/// A tar archive of the files.
pub fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// All files below a folder with their bytes, in the order of their names; what a preparation notes of its inputs is left out.
pub fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
        } else if name != "job.json" {
            found.push((name, fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

pub fn open(folder: &Path) -> Dataset {
    Dataset::open(folder).unwrap()
}

/// Mean absolute difference of two images of the same size.
pub fn distance(one: &[u8], two: &[u8]) -> f64 {
    assert_eq!(one.len(), two.len());
    one.iter().zip(two).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / one.len() as f64
}
