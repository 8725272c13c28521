//! `manifest.json`: which shards make up a data set, and what they hold. It is written last, so a folder with one is whole.
//!
//! Its last line holds the CRC-32 of all lines before it, so that it stays plain JSON for other programs.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::{open_regular, write_atomically};
use biodist_process::quote::excerpt;
use serde::{Deserialize, Serialize};

use crate::format::{Encoding, MAX_CHANNELS, MAX_CLASSES, VERSION};
use crate::statistics::ChannelStatistics;

/// The manifest's name in its folder.
pub const FILE_NAME: &str = "manifest.json";
/// The folders of a data set's parts.
pub const PARTS: [&str; 3] = ["train", "val", "test"];
/// Larger files are refused unread.
const MAX_LENGTH: u64 = 64 << 20;
/// Bytes of a file name.
const MAX_NAME: usize = 255;
const FORMAT: &str = "biodist shards";
const CHECKSUM_LINE: &str = "\n\"crc32\": \"";

/// What a data set's manifest says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    pub format: String,
    pub version: u32,
    pub samples: u64,
    pub classes: u32,
    /// One name per class.
    pub class_names: Vec<String>,
    pub channels: u32,
    /// [H, W, C] where all samples have one shape.
    pub shape: Option<[u32; 3]>,
    pub encoding: Encoding,
    pub statistics: ChannelStatistics,
    pub shards: Vec<ShardRecord>,
    /// Program, command and options that made the data set, and a note on it.
    pub made_by: serde_json::Value,
}

/// A shard as its manifest knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardRecord {
    /// Name in the manifest's folder.
    pub file: String,
    pub bytes: u64,
    pub samples: u64,
    /// The checksum that ends the shard's header, in hexadecimal.
    pub header_crc32: String,
}

impl Manifest {
    /// A manifest of the present format; the caller fills in the rest.
    pub fn header() -> (String, u32) {
        (FORMAT.to_owned(), VERSION)
    }

    /// Reads and checks the manifest of `folder`.
    pub fn read(folder: &Path) -> Result<Manifest> {
        let path = folder.join(FILE_NAME);
        let mut file = match open_regular(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(folder)),
            Err(error) => return Err(error).with_context(|| format!("{} cannot be opened", path.display())),
        };
        let mut bytes = Vec::new();
        let read = file.by_ref().take(MAX_LENGTH + 1).read_to_end(&mut bytes);
        read.with_context(|| format!("{} cannot be read", path.display()))?;
        ensure!(bytes.len() as u64 <= MAX_LENGTH, "{} is no manifest: it has more than {MAX_LENGTH} bytes", path.display());
        Manifest::parse(&bytes).with_context(|| format!("{} cannot be used; prepare the data set again", path.display()))
    }

    /// Reads a manifest from its bytes. Checks its checksum and that its parts agree, not the shards.
    pub fn parse(bytes: &[u8]) -> Result<Manifest> {
        let text = std::str::from_utf8(bytes).map_err(|_| anyhow::anyhow!("it is not text"))?;
        // The version first: another version's checksum may be another kind.
        #[derive(Deserialize)]
        struct Version {
            format: String,
            version: u32,
        }
        let version: Version = serde_json::from_str(text).map_err(reason).context("it is not a whole manifest of shards")?;
        ensure!(version.format == FORMAT, "its format is \"{}\", expected is {FORMAT:?}", excerpt(&version.format));
        ensure!(version.version == VERSION, "it has format version {}, this program reads version {VERSION}", version.version);
        let Some(at) = text.rfind(CHECKSUM_LINE) else { bail!("its last line has no checksum") };
        let (body, last) = text.split_at(at + 1);
        let computed = crc32fast::hash(body.as_bytes());
        let expected = format!("\"crc32\": \"{computed:08x}\"}}\n");
        ensure!(last == expected, "it is altered: its checksum is {computed:08x}, where its last line is \"{}\"", excerpt(last.trim_end()));
        let mut value: serde_json::Map<_, _> = serde_json::from_str(text).map_err(reason)?;
        value.remove("crc32");
        let manifest: Manifest = serde_json::from_value(value.into()).map_err(reason)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest's bytes, checksum included.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest has text keys and finite numbers");
        let open = text.strip_suffix("\n}").expect("pretty JSON ends in a line of its own").len();
        text.truncate(open);
        text.push_str(",\n");
        let checksum = crc32fast::hash(text.as_bytes());
        text.push_str(&format!("\"crc32\": \"{checksum:08x}\"}}\n"));
        text.into_bytes()
    }

    /// Puts the manifest into `folder`, which makes the data set whole.
    pub fn write(&self, folder: &Path) -> Result<()> {
        self.check()?;
        write_atomically(&folder.join(FILE_NAME), &self.to_bytes())
    }

    /// What whoever sees results on these data must know.
    pub fn note(&self) -> Option<&str> {
        self.made_by["note"].as_str()
    }

    /// Stands for all that the shards hold, in their order: a CRC-32 of their headers' checksums, which cover those of labels and pixels.
    pub fn fingerprint(&self) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        self.shards.iter().for_each(|record| hasher.update(record.header_crc32.as_bytes()));
        hasher.finalize()
    }

    fn check(&self) -> Result<()> {
        ensure!((1..=MAX_CHANNELS).contains(&self.channels), "channels is {}, allowed are 1 to {MAX_CHANNELS}", self.channels);
        ensure!((1..=MAX_CLASSES).contains(&self.classes), "classes is {}, allowed are 1 to {MAX_CLASSES}", self.classes);
        ensure!(self.samples > 0, "samples is 0: the data set is empty");
        let names = self.class_names.len();
        ensure!(names == self.classes as usize, "class_names has {names} entries for {} classes", self.classes);
        if let Some(shape) = self.shape {
            ensure!(shape[2] == self.channels && shape[0] > 0 && shape[1] > 0, "shape is {shape:?} with {} channels", self.channels);
        }
        let statistics = &self.statistics;
        for (key, values) in [("mean", &statistics.mean), ("deviation", &statistics.deviation)] {
            let (count, channels) = (values.len(), self.channels);
            ensure!(count == channels as usize, "statistics.{key} has {count} values for {channels} channels");
            ensure!(values.iter().all(|x| (0.0..=1.0).contains(x)), "statistics.{key} is {values:?}, allowed are 0 to 1");
        }
        let mut samples = 0u64;
        let mut seen = HashSet::new();
        for shard in &self.shards {
            let name = &shard.file;
            // The reader must not be led out of the folder.
            let plain = (1..=MAX_NAME).contains(&name.len()) && !name.starts_with('.') && !name.contains(['/', '\\', '\0']);
            ensure!(plain, "shards lists \"{}\", which is no plain file name", excerpt(name));
            ensure!(seen.insert(name.as_str()), "shards lists \"{}\" twice", excerpt(name));
            ensure!(shard.header_crc32.len() == 8, "shards lists \"{}\" for the checksum of {name:?}", excerpt(&shard.header_crc32));
            samples = samples.saturating_add(shard.samples);
        }
        ensure!(samples == self.samples, "samples is {}, but the shards listed have {samples}", self.samples);
        Ok(())
    }
}

/// What is wrong with the JSON: the library's messages quote the text.
fn reason(error: serde_json::Error) -> anyhow::Error {
    anyhow::anyhow!(excerpt(&error.to_string()))
}

fn missing(folder: &Path) -> anyhow::Error {
    if !folder.exists() {
        return Exit::Usage.error(format!("{} does not exist; give a folder that data-prep made", folder.display()));
    }
    let parts: Vec<String> = PARTS
        .iter()
        .map(|part| folder.join(part))
        .filter(|part| part.join(FILE_NAME).exists())
        .map(|part| part.display().to_string())
        .collect();
    if !parts.is_empty() {
        return Exit::Usage.error(format!("{} holds several data sets; name one: {}", folder.display(), parts.join(", ")));
    }
    Exit::Usage.error(format!(
        "{} has no {FILE_NAME}: it was not made by data-prep, or its preparation was interrupted (the same command goes on)",
        folder.display()
    ))
}
