//! A million damaged shards, manifests, MAT-files and photos through their parsers: each is refused or read, none panics, and none makes
//! a parser allocate more than the input's own size calls for.
//!
//! Damage that only breaks a checksum says little, so most inputs get sound checksums after they were damaged, and most damage hits the
//! numbers that sizes are computed from.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use data_prep::archive::matlab;
use data_prep::photo::Photo;
use shards::format::{BLOCK_LENGTH, ENTRY_LENGTH, Encoding, Entry, HEADER_LENGTH, Header};
use shards::manifest::Manifest;
use shards::random::{below, philox};
use shards::shard::Tables;

/// The system's allocator, which remembers the largest request of each thread.
struct Watched;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every request is passed on as it is.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Numbers at and beyond the edges of what a field may hold.
const EDGES: [u64; 12] = [0, 1, 2, 0x7f, 0xff, 0xffff, 1 << 20, i32::MAX as u64, u32::MAX as u64, 1 << 32, i64::MAX as u64, u64::MAX];

/// Random numbers of one input.
struct Random {
    input: u64,
    words: u32,
}

impl Random {
    fn word(&mut self) -> u32 {
        self.words += 1;
        philox(0x5eed, [self.input as u32, (self.input >> 32) as u32, self.words, 0])[0]
    }

    fn below(&mut self, count: usize) -> usize {
        below(self.word(), count)
    }

    /// Changes a few places of `bytes`: a bit, a byte, or a number of up to eight bytes; now and then the length.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..1 + self.below(3) {
            if bytes.is_empty() {
                return;
            }
            let at = self.below(bytes.len());
            match self.below(8) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.word() as u8,
                2 => bytes.truncate(at),
                3 => {
                    let copied = bytes[at..(at + 1 + self.below(32)).min(bytes.len())].to_vec();
                    let to = self.below(bytes.len());
                    bytes.splice(to..to, copied);
                }
                _ => {
                    // Numbers lie at multiples of four.
                    let (at, length) = (at / 4 * 4, [4, 8][self.below(2)]);
                    let edge = EDGES[self.below(EDGES.len())].wrapping_add(u64::from(self.word() % 3)).to_le_bytes();
                    let end = (at + length).min(bytes.len());
                    bytes[at..end].copy_from_slice(&edge[..end - at]);
                }
            }
        }
    }
}

/// Gives `count` inputs to `parse`, whose largest allocation may be `factor` times the input and a page. Returns how many were accepted.
fn feed(count: u64, factor: usize, make: impl Fn(&mut Random) -> Vec<u8>, parse: impl Fn(&[u8]) -> bool) -> u64 {
    let mut accepted = 0;
    for input in 0..count {
        let bytes = make(&mut Random { input, words: 0 });
        LARGEST.set(0);
        accepted += u64::from(parse(&bytes));
        let (largest, limit) = (LARGEST.get(), factor * bytes.len() + 4096);
        assert!(largest <= limit, "input {input}: {} bytes made the parser allocate {largest} at once", bytes.len());
    }
    accepted
}

/// Whole shards of a few samples: of one shape, of frames that differ, and of (claimed) JPEGs.
fn shards() -> Vec<Vec<u8>> {
    let shard = |encoding, shared: Option<(u32, u32)>, frames: &[(u32, u32)]| {
        let lengths = frames.iter().map(|(height, width)| u64::from(height * width * 3));
        let data_length: u64 = lengths.clone().sum();
        let mut tables = vec![0; 8 + 16 * 3];
        (0..frames.len() as u32).for_each(|label| tables.extend((label % 2).to_le_bytes()));
        if shared.is_none() || encoding == Encoding::Jpeg {
            let mut offset = 0;
            for ((height, width), length) in frames.iter().zip(lengths) {
                tables.extend(Entry { offset, length, height: *height, width: *width }.to_bytes());
                offset += length;
            }
        }
        let blocks = data_length.div_ceil(u64::from(BLOCK_LENGTH));
        tables.extend(vec![0; 4 * blocks as usize]);
        let (height, width) = shared.unwrap_or_default();
        let header = Header {
            encoding,
            samples: frames.len() as u64,
            data_length,
            channels: 3,
            height,
            width,
            classes: 2,
            block_length: BLOCK_LENGTH,
            tables_crc32: crc32fast::hash(&tables),
        };
        [&header.to_bytes()[..], &vec![7; data_length as usize], &tables].concat()
    };
    vec![
        shard(Encoding::Raw, Some((2, 3)), &[(2, 3); 5]),
        shard(Encoding::Raw, None, &[(2, 3), (1, 1), (4, 2)]),
        shard(Encoding::Jpeg, Some((2, 3)), &[(2, 3); 2]),
    ]
}

/// Makes both checksums of a shard sound again, wherever its header says that the tables begin.
fn seal(shard: &mut [u8]) {
    if shard.len() < HEADER_LENGTH {
        return;
    }
    let data_length = u64::from_le_bytes(shard[24..32].try_into().unwrap());
    let start =
        usize::try_from(data_length).ok().and_then(|length| length.checked_add(HEADER_LENGTH)).filter(|start| *start <= shard.len());
    if let Some(start) = start {
        let checksum = crc32fast::hash(&shard[start..]);
        shard[52..56].copy_from_slice(&checksum.to_le_bytes());
    }
    let checksum = crc32fast::hash(&shard[..HEADER_LENGTH - 4]);
    shard[HEADER_LENGTH - 4..HEADER_LENGTH].copy_from_slice(&checksum.to_le_bytes());
}

#[test]
fn shards_are_read_or_refused() {
    let sound = shards();
    for shard in &sound {
        Tables::parse(shard).unwrap();
    }
    let make = |random: &mut Random| {
        let mut shard = sound[random.below(sound.len())].clone();
        random.damage(&mut shard);
        if random.below(8) > 0 {
            seal(&mut shard);
        }
        shard
    };
    let parse = |bytes: &[u8]| {
        let Ok(tables) = Tables::parse(bytes) else { return false };
        // What is accepted keeps the promise that its reader relies on: every sample lies inside the data.
        let data = tables.header.data_length;
        assert!(tables.entries.iter().all(|entry| entry.offset.checked_add(entry.length).is_some_and(|end| end <= data)));
        assert!(HEADER_LENGTH as u64 + data <= bytes.len() as u64);
        assert!(tables.labels.len() as u64 == tables.header.samples && tables.labels.iter().all(|label| *label < tables.header.classes));
        true
    };
    let accepted = feed(600_000, ENTRY_LENGTH, make, parse);
    // Some damage is harmless (a pixel, a label that exists); most is not.
    assert!((6_000..300_000).contains(&accepted), "{accepted} accepted");
}

#[test]
fn manifests_are_read_or_refused() {
    let sound = r#"{
"format": "biodist shards", "version": 1, "samples": 3, "classes": 2, "class_names": ["ant", "bee"], "channels": 1, "shape": [2, 2, 1],
"encoding": "raw", "statistics": {"mean": [0.5], "deviation": [0.25]}, "shards": [{"file": "00000.shard", "bytes": 100, "samples": 3,
"header_crc32": "0123abcd"}], "made_by": {"program": "test"},"#;
    let seal = |body: &[u8]| {
        let body = [body, b"\n"].concat();
        let last = format!("\"crc32\": \"{:08x}\"}}\n", crc32fast::hash(&body));
        [body, last.into_bytes()].concat()
    };
    Manifest::parse(&seal(sound.as_bytes())).unwrap();
    let snippets =
        ["[", "]", "{", "}", ",", "null", "-1", "1e400", "4294967296", "\"../x\"", "\"\\u0000\"", "[[[[[[[[", "99999999999999999999"];
    let make = |random: &mut Random| {
        let mut body = sound.as_bytes().to_vec();
        if random.below(2) == 0 {
            random.damage(&mut body);
        } else {
            let at = random.below(body.len());
            let end = (at + random.below(12)).min(body.len());
            body.splice(at..end, snippets[random.below(snippets.len())].bytes());
        }
        seal(&body)
    };
    let parse = |bytes: &[u8]| {
        let Ok(manifest) = Manifest::parse(bytes) else { return false };
        assert!(
            manifest.shards.iter().all(|shard| !shard.file.contains('/') && !shard.file.contains('\0') && !shard.file.starts_with('.'))
        );
        true
    };
    // A JSON number takes as little as two bytes of text, and one of serde_json's values over thirty in memory.
    let accepted = feed(300_000, 64, make, parse);
    assert!((300..150_000).contains(&accepted), "{accepted} accepted");
}

#[test]
fn mat_files_are_read_or_refused() {
    // Uncompressed, so that the damage reaches the parser and not the compression's checksum.
    let sound: &[u8] = include_bytes!("data/plain.mat");
    let make = |random: &mut Random| {
        let (header, mut elements) = (sound[..128].to_vec(), sound[128..].to_vec());
        random.damage(&mut elements);
        [header, elements].concat()
    };
    // A number of one byte becomes one of eight.
    let accepted = feed(100_000, 64, make, |bytes| matches!(matlab::variable(bytes, "synsets"), Ok(Some(_))));
    assert!((100..100_000).contains(&accepted), "{accepted} accepted");
}

#[test]
fn photos_are_decoded_or_refused() {
    let (height, width) = (24, 40);
    let pixels: Vec<u8> = (0..height * width * 3).map(|at| (at * at / 7) as u8).collect();
    let jpeg = |progressive, restarts| {
        let mut bytes = Vec::new();
        let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, 80);
        encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
        encoder.set_progressive(progressive);
        encoder.set_restart_interval(restarts);
        encoder.encode(&pixels, width as u16, height as u16, jpeg_encoder::ColorType::Rgb).unwrap();
        bytes
    };
    let mut png = std::io::Cursor::new(Vec::new());
    image::RgbImage::from_raw(width, height, pixels.clone()).unwrap().write_to(&mut png, image::ImageFormat::Png).unwrap();
    let sound = [jpeg(false, 0), jpeg(true, 0), jpeg(false, 1), png.into_inner()];
    let accepted = (0..40_000).filter(|&input| {
        let mut random = Random { input, words: 0 };
        let mut file = sound[random.below(sound.len())].clone();
        random.damage(&mut file);
        let Ok(photo) = Photo::open(&file, true) else { return false };
        let (height, width) = photo.frame();
        let count = u64::from(height) * u64::from(width);
        assert!(photo.memory() >= 3 * count);
        // Large frames are sound, and would take long.
        if count > 1 << 16 {
            return false;
        }
        photo.decode().is_ok_and(|picture| picture.pixels.len() as u64 == 3 * count)
    });
    // A value that changes, or what no decoder reads.
    let accepted = accepted.count();
    assert!((2_000..30_000).contains(&accepted), "{accepted} accepted");
}
