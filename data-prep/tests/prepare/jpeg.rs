//! JPEGs of every legal form against Pillow's pixels, and files that are damaged or of forms that are not decoded.

use std::collections::BTreeMap;
use std::io::Read;

use data_prep::photo::Photo;
use shards::jpeg::decode_stored;

/// A file, and its height, width and CRC-32 after Pillow decoded it to RGB.
struct Sample {
    file: Vec<u8>,
    frame: (u32, u32),
    checksum: u32,
    form: String,
}

/// What data/make_jpegs.py made.
fn samples() -> Vec<Sample> {
    let packed: &[u8] = include_bytes!("../data/jpegs.tar.gz");
    let mut files = BTreeMap::new();
    for entry in tar::Archive::new(flate2::read::GzDecoder::new(packed)).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(entry.path().unwrap().to_str().unwrap().to_owned(), bytes);
    }
    let frames = String::from_utf8(files.remove("frames.txt").unwrap()).unwrap();
    let sample = |line: &str| {
        let [name, height, width, checksum, form] = line.splitn(5, ' ').collect::<Vec<_>>().try_into().unwrap();
        Sample {
            file: files[name].clone(),
            frame: (height.parse().unwrap(), width.parse().unwrap()),
            checksum: u32::from_str_radix(checksum, 16).unwrap(),
            form: form.trim().to_owned(),
        }
    };
    frames.lines().map(sample).collect()
}

/// Pixels, or why there are none.
fn decode(file: &[u8]) -> Result<Vec<u8>, String> {
    let decoded = Photo::open(file, false).and_then(Photo::decode).map_err(|error| format!("{error:#}"))?;
    Ok(decoded.pixels)
}

/// The first sample of these colours and scans with a frame of several blocks each way.
fn of_form(samples: &[Sample], colours: &str, scans: &str) -> Vec<u8> {
    let fits =
        |sample: &&Sample| sample.form.starts_with(colours) && sample.form.ends_with(scans) && sample.frame.0.min(sample.frame.1) > 16;
    samples.iter().find(fits).unwrap_or_else(|| panic!("no sample is {colours} {scans}")).file.clone()
}

/// Places of a marker.
fn places(file: &[u8], marker: u8) -> Vec<usize> {
    (0..file.len() - 1).filter(|&at| file[at..at + 2] == [0xff, marker]).collect()
}

const START_OF_FRAME: u8 = 0xc0;
const START_OF_SCAN: u8 = 0xda;
const END: [u8; 2] = [0xff, 0xd9];

#[test]
fn every_form_has_pillows_pixels() {
    let samples = samples();
    assert!(samples.len() >= 1000);
    let mut wrong = Vec::new();
    for sample in &samples {
        let (height, width) = sample.frame;
        let pixels = decode(&sample.file).unwrap_or_else(|error| panic!("{}: {error}", sample.form));
        assert_eq!(pixels.len(), height as usize * width as usize * 3, "{}", sample.form);
        let stored = decode_stored(&sample.file, height as usize, width as usize, 3).unwrap();
        if crc32fast::hash(&pixels) != sample.checksum || stored != pixels {
            wrong.push(format!("{height} x {width} {}", sample.form));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ: {wrong:#?}", wrong.len(), samples.len());
}

#[test]
fn photos_that_are_not_whole_are_refused() {
    let samples = samples();
    let interleaved = of_form(&samples, "ycc", "restart");
    let restarts = of_form(&samples, "ycc", "restart 1B");
    let separate = of_form(&samples, "ycc", "restart  0; 1; 2");
    let progressive = of_form(&samples, "ycc", "restart  progressive");
    for file in [&interleaved, &restarts, &separate, &progressive] {
        assert!(decode(file).is_ok());
        let end = file.len() - 2;
        assert_eq!(file[end..], END);
        let whole = decode(file);
        // Cut off, with and without an end mark put behind it.
        for length in [end / 2, end * 9 / 10, end - 12] {
            decode(&file[..length]).unwrap_err();
            decode(&[&file[..length], &END].concat()).unwrap_err();
        }
        // The pixels are all there.
        for beside in [[file, b"more".as_slice()].concat(), [&file[..end], &[0; 40], &END].concat()] {
            assert_eq!(decode(&beside), whole);
        }
        assert_eq!(decode(&[&file[..2], b"\0\0\0junk", &file[2..]].concat()), whole);
        // What is left of a damaged scan.
        decode(&[&file[..end], b"many bytes that nothing has read", &END].concat()).unwrap_err();
    }
    assert_eq!(decode(&interleaved[..interleaved.len() - 2]), decode(&interleaved));
    // Whole scans are missing.
    for file in [&separate, &progressive] {
        for scan in &places(file, START_OF_SCAN)[1..] {
            decode(&[&file[..*scan], &END].concat()).unwrap_err();
        }
    }
    let third = places(&restarts, 0xd2)[0];
    decode(&[&restarts[..third], &restarts[third + 2..]].concat()).unwrap_err();
    let fourth = places(&restarts, 0xd3)[0];
    decode(&[&restarts[..third], &restarts[fourth..]].concat()).unwrap_err();
}

#[test]
fn what_is_not_decoded_is_named() {
    let file = of_form(&samples(), "ycc", "restart");
    let frame = places(&file, START_OF_FRAME)[0];
    // What lies how far behind the start of the frame, and what is said where it has that value.
    let cases: [(usize, u8, &str); 5] = [
        (1, 0xc3, "Unsupported JPEG process: SOF type 0xc3"),
        (1, 0xc9, "arithmetic coding is not implemented"),
        (4, 12, "Unsupported JPEG data precision 12"),
        (6, 0, "Empty JPEG image (DNL not supported)"),
        (5, 0xff, "beyond 134217728 pixels"),
    ];
    for (behind, value, said) in cases {
        let mut file = file.clone();
        file[frame + behind] = value;
        if behind == 6 {
            file[frame + 5] = 0;
        }
        if behind == 5 {
            // As wide as high.
            file[frame + 7] = 0xff;
        }
        let reason = decode(&file).unwrap_err();
        assert!(reason.contains(said), "{reason}");
    }
    let two = two_components();
    assert_eq!(decode(&two).unwrap_err(), "it has 2 components, expected are 1, 3 or 4");
    // A scan may come again; not hours long.
    let separate = of_form(&samples(), "ycc", "restart  0; 1; 2");
    let scan = &separate[places(&separate, START_OF_SCAN)[2]..separate.len() - 2];
    let again = |times| decode(&[&separate[..separate.len() - 2], &scan.repeat(times), &END].concat());
    assert_eq!(again(400), decode(&separate));
    assert_eq!(again(600).unwrap_err(), "it has more than 500 scans");
}

/// A gray JPEG that claims a second component.
fn two_components() -> Vec<u8> {
    let mut file = of_form(&samples(), "gray", "restart");
    let frame = places(&file, START_OF_FRAME)[0];
    file[frame + 3] += 3;
    file[frame + 9] = 2;
    file.splice(frame + 13..frame + 13, [2, 0x11, 0]);
    let scan = places(&file, START_OF_SCAN)[0];
    file[scan + 3] += 2;
    file[scan + 4] = 2;
    file.splice(scan + 7..scan + 7, [2, 0]);
    file
}
