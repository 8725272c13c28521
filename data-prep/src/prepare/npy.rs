//! NumPy's files: .npy holds one array behind a header, which is a Python dictionary as text; .npz is a ZIP archive of such files.
//!
//! The header's dictionary always has the same three entries, written by NumPy itself, so a search for them reads it.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use biodist_process::quote::excerpt;
use crc32fast::Hasher;
use flate2::read::DeflateDecoder;
use serde_json::json;
use zip::{CompressionMethod, ZipArchive};

use super::arrays::{self, Array, BYTE, Layout, Number};
use super::{Made, base_name};
use crate::output::{identity, require_apart};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Larger headers are refused: they are of tables with thousands of columns.
const MAX_HEADER: usize = 1 << 16;
/// NumPy's own limit was 32 for long.
const MAX_DIMENSIONS: usize = 64;
/// Images of more channels than colour and opacity need are told from rows or columns by `--layout` alone.
const COLOURS: std::ops::RangeInclusive<u64> = 1..=4;

/// What `data-prep npy` is asked for. Files are FILE.npy, FILE.npz, or FILE.npz:ARRAY.
#[derive(Clone, Debug)]
pub struct Options {
    /// Unsigned bytes: [N, H, W], [N, H, W, C] or [N, C, H, W].
    pub images: PathBuf,
    /// `[N]` of whole numbers.
    pub labels: PathBuf,
    pub out: PathBuf,
    /// Class count; the largest label and one where absent.
    pub classes: Option<u32>,
    /// Where the channels lie; decided by the shape where absent.
    pub layout: Option<Layout>,
    /// Size of a shard's pixels.
    pub shard_mib: u32,
}

/// Writes the samples in the order of the array.
///
/// # Errors
/// Where a file is missing, foreign, or of values that are no pixels or labels; where the shape leaves open which side the channels
/// are; and as [`arrays::prepare`].
pub fn run(options: &Options) -> Result<Made> {
    let Options { out, classes, shard_mib, .. } = options;
    arrays::check_classes(*classes)?;
    let (images, labels) = (Place::of(&options.images), Place::of(&options.labels));
    require_apart(out, &[&images.file, &labels.file])?;
    let array = images.open("--images")?;
    if array.number != BYTE {
        return Err(Exit::Usage.error(format!(
            "{} holds {}; pixels are unsigned bytes, 0 to 255: save x.astype(numpy.uint8)",
            array.name,
            array.number.name()
        )));
    }
    let layout = layout(&array, options.layout)?;
    let described = |place: &Place| -> Result<_> { Ok(json!({ "file": identity(&place.file)?, "array": place.array })) };
    let planes = layout == Layout::Planes;
    let job = json!({
        "command": "npy", "images": described(&images)?, "labels": described(&labels)?, "classes": classes, "planes": planes,
        "shard_mib": shard_mib,
    });
    let [images_name, labels_name] = [&options.images, &options.labels].map(|path| base_name(path));
    let made = json!({ "images": images_name, "labels": labels_name, "classes": classes, "planes": planes });
    let wanted = arrays::Options { out, classes: *classes, layout, shard_mib: *shard_mib, job, made };
    arrays::prepare(|| images.open("--images"), labels.open("--labels")?, wanted)
}

/// Where the channels lie: as told, else by which side is as short as channels are few.
fn layout(array: &Array, told: Option<Layout>) -> Result<Layout> {
    let [_, first, _, last] = array.dimensions[..] else { return Ok(Layout::Pixels) };
    match (told, COLOURS.contains(&first), COLOURS.contains(&last)) {
        (Some(layout), ..) => Ok(layout),
        (None, false, true) => Ok(Layout::Pixels),
        (None, true, false) => Ok(Layout::Planes),
        _ => Err(Exit::Usage.error(format!(
            "{} has the shape {:?}, which leaves open where the channels are; say --layout hwc (last) or --layout chw (first)",
            array.name, array.dimensions
        ))),
    }
}

/// A file, and the array in it where it holds several.
struct Place {
    file: PathBuf,
    array: Option<String>,
}

impl Place {
    /// FILE.npz:ARRAY, unless a file has just this name.
    fn of(path: &Path) -> Place {
        let named = path.to_str().filter(|_| !path.exists()).and_then(|text| text.rsplit_once(".npz:"));
        match named {
            Some((file, array)) => Place { file: format!("{file}.npz").into(), array: Some(array.to_owned()) },
            None => Place { file: path.to_owned(), array: None },
        }
    }

    fn open(&self, option: &str) -> Result<Array> {
        let path = self.file.display();
        let file = open_regular(&self.file).map_err(|error| Exit::Usage.error(format!("{path} cannot be opened: {error}")))?;
        let mut start = [0; 4];
        let length = (&file).take(4).read(&mut start).with_context(|| format!("{path} cannot be read"))?;
        let file = open_regular(&self.file).with_context(|| format!("{path} cannot be opened"))?;
        match &start[..length] {
            b"PK\x03\x04" | b"PK\x05\x06" => self.open_archived(file, option),
            _ => array(path.to_string(), Box::new(BufReader::with_capacity(1 << 20, file))),
        }
    }

    fn open_archived(&self, file: File, option: &str) -> Result<Array> {
        let path = self.file.display();
        let mut archive = ZipArchive::new(BufReader::new(file)).with_context(|| format!("{path} is no whole .npz file; get it again"))?;
        let names: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect();
        let name = match (&self.array, &names[..]) {
            (Some(array), _) if names.contains(array) => array.clone(),
            (None, [only]) => only.clone(),
            (_, []) => bail!("{path} holds no arrays"),
            (wanted, [first, ..]) => {
                let missing = wanted.as_ref().map_or("several arrays".to_owned(), |wanted| format!("no array {}", excerpt(wanted)));
                let names = excerpt(&names.join(", "));
                return Err(
                    Exit::Usage.error(format!("{path} holds {missing}; there are {names}: write {option} {path}:{}", excerpt(first)))
                );
            }
        };
        let index = archive.index_for_name(&format!("{name}.npy")).context("the archive has lost a name")?;
        let (start, length, packing, checksum) = {
            let member = archive.by_index_raw(index).with_context(|| format!("{path} cannot be read"))?;
            let start = member.data_start().with_context(|| format!("{path} is no whole .npz file; get it again"))?;
            (start, member.compressed_size(), member.compression(), member.crc32())
        };
        let mut file = archive.into_inner();
        file.seek(SeekFrom::Start(start)).with_context(|| format!("{path} cannot be read"))?;
        let stored = file.take(length);
        let content: Box<dyn Read> = match packing {
            CompressionMethod::Stored => Box::new(stored),
            CompressionMethod::Deflated => Box::new(BufReader::with_capacity(1 << 20, DeflateDecoder::new(stored))),
            other => bail!("{path} is packed by {other}, which NumPy does not do; save it again with numpy.savez"),
        };
        array(format!("{path}:{}", excerpt(&name)), Box::new(Checked { content, hasher: Hasher::new(), checksum }))
    }
}

/// A member of an archive, whose checksum is compared at its end.
struct Checked {
    content: Box<dyn Read>,
    hasher: Hasher,
    checksum: u32,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.content.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        if length == 0 && !buffer.is_empty() && self.hasher.clone().finalize() != self.checksum {
            return Err(io::Error::other("it is altered: its checksum in the archive differs"));
        }
        Ok(length)
    }
}

/// The array whose .npy file `content` is.
fn array(name: String, mut content: Box<dyn Read>) -> Result<Array> {
    let mut start = [0; 8];
    let read = content.read_exact(&mut start);
    if read.is_err() || !start.starts_with(MAGIC) {
        return Err(Exit::Usage.error(format!("{name} is no .npy file: NumPy's begin with \\x93NUMPY; save it with numpy.save")));
    }
    let cut_off = || format!("{name} is cut off in its header; get it again");
    let mut length = [0; 4];
    content.read_exact(&mut length[..if start[6] == 1 { 2 } else { 4 }]).with_context(cut_off)?;
    let length = u32::from_le_bytes(length) as usize;
    ensure!(length <= MAX_HEADER, "{name} has a header of {length} bytes, at most {MAX_HEADER} are expected");
    let mut header = vec![0; length];
    content.read_exact(&mut header).with_context(cut_off)?;
    let header = String::from_utf8_lossy(&header);
    let strange = || format!("{name} has a header that NumPy does not write: {}", excerpt(header.trim()));
    let entry = |key: &str| Some(header.split_once(&format!("'{key}':"))?.1.trim_start());
    let refuse = |what: String| Err(Exit::Usage.error(format!("{name} {what}")));
    let descr = entry("descr").with_context(strange)?;
    let Some((descr, _)) = descr.strip_prefix('\'').and_then(|descr| descr.split_once('\'')) else {
        return refuse("is a table of several columns; save the column that is meant".to_owned());
    };
    let Some(number) = Number::of(descr) else {
        return refuse(format!("holds values of type {}; whole numbers of 1 to 8 bytes are expected, such as numpy.uint8", excerpt(descr)));
    };
    if entry("fortran_order").with_context(strange)?.starts_with('T') {
        return refuse("is in Fortran's order; save numpy.ascontiguousarray(x)".to_owned());
    }
    let shape = entry("shape").and_then(|shape| shape.strip_prefix('(')?.split_once(')')).with_context(strange)?.0;
    let sizes = shape.split(',').map(|size| size.trim().trim_end_matches('L')).filter(|size| !size.is_empty());
    let dimensions = sizes.take(MAX_DIMENSIONS + 1).map(|size| size.parse().ok()).collect::<Option<Vec<u64>>>().with_context(strange)?;
    ensure!(dimensions.len() <= MAX_DIMENSIONS, "{}", strange());
    Ok(Array { name, dimensions, number, content })
}

impl Number {
    /// NumPy's name of the type: order of bytes, kind, and size.
    fn of(descr: &str) -> Option<Number> {
        let [order @ (b'<' | b'>' | b'|' | b'='), kind @ (b'u' | b'i'), size @ (b'1' | b'2' | b'4' | b'8')] = *descr.as_bytes() else {
            return None;
        };
        let bytes = usize::from(size - b'0');
        Some(Number { bytes, signed: kind == b'i', big_endian: order == b'>' && bytes > 1 })
    }

    fn name(self) -> String {
        format!("{}int{}", if self.signed { "" } else { "u" }, 8 * self.bytes)
    }
}
