//! CIFAR-10 and CIFAR-100 as they are published: in a binary version, whose records are one or two label bytes and 32 x 32 red, green
//! and blue planes, and in a Python version, pickles of the same; each as an archive or unpacked. Both give the same shards.

use std::collections::HashMap;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use flate2::bufread::MultiGzDecoder;
use serde_json::{Value, json};
use shards::format::Encoding;
use shards::writer::{DatasetWriter, Description};

use super::arrays::interleave;
use super::pickle::{self, Item};
use super::stream::Stream;
use super::{Made, made_by};
use crate::output::{Output, identity, require_apart};

const SIDE: usize = 32;
const PIXELS: usize = 3 * SIDE * SIDE;
/// More than any file of them has.
const MAX_FILE: u64 = 1 << 28;
/// More than all files of an archive have.
const MAX_ARCHIVE: u64 = 1 << 30;

/// Which of the data sets, and which of its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    Ten,
    /// A hundred classes.
    Fine,
    /// Twenty classes, of five of those each.
    Coarse,
}

/// What `data-prep cifar10` and `cifar100` are asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub set: Set,
    /// An archive, the folder that comes out of one, or the folder that holds either.
    pub batches: PathBuf,
    pub out: PathBuf,
    pub shard_mib: u32,
}

/// A version of a data set: what its files are called.
struct Version {
    folder: &'static str,
    archive: &'static str,
    /// The parts and their files.
    parts: [(&'static str, &'static [&'static str]); 2],
    /// The file with the classes' names.
    names: &'static str,
    /// Where the label is in the dictionary of a pickle, and the classes' names in that of theirs.
    keys: Option<(&'static str, &'static str)>,
    /// Label bytes of a record, and which of them counts.
    label: (usize, usize),
}

impl Set {
    fn versions(self) -> [Version; 2] {
        let ten = self == Set::Ten;
        let (names, keys, label) = match self {
            Set::Ten => ("batches.meta.txt", ("labels", "label_names"), (1, 0)),
            Set::Fine => ("fine_label_names.txt", ("fine_labels", "fine_label_names"), (2, 1)),
            Set::Coarse => ("coarse_label_names.txt", ("coarse_labels", "coarse_label_names"), (2, 0)),
        };
        let binary: [(_, &[_]); 2] = match ten {
            true => [
                ("train", &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]),
                ("test", &["test_batch.bin"]),
            ],
            false => [("train", &["train.bin"]), ("test", &["test.bin"])],
        };
        let python: [(_, &[_]); 2] = match ten {
            true => {
                [("train", &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"]), ("test", &["test_batch"])]
            }
            false => [("train", &["train"]), ("test", &["test"])],
        };
        let [folders, archives] = match ten {
            true => [["cifar-10-batches-bin", "cifar-10-batches-py"], ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"]],
            false => [["cifar-100-binary", "cifar-100-python"], ["cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"]],
        };
        let meta = if ten { "batches.meta" } else { "meta" };
        [
            Version { folder: folders[0], archive: archives[0], parts: binary, names, keys: None, label },
            Version { folder: folders[1], archive: archives[1], parts: python, names: meta, keys: Some(keys), label },
        ]
    }

    fn command(self) -> &'static str {
        if self == Set::Ten { "cifar10" } else { "cifar100" }
    }

    /// What is not said by the command.
    fn options(self) -> Value {
        match self {
            Set::Ten => json!({}),
            Set::Fine => json!({ "labels": "fine" }),
            Set::Coarse => json!({ "labels": "coarse" }),
        }
    }
}

/// Images with their labels, as one file holds them.
struct Batch {
    file: Vec<u8>,
    /// Where the first image begins, and from there to the next.
    start: usize,
    step: usize,
    labels: Vec<u32>,
}

/// Writes `out/train` and `out/test` in the files' order, as [32, 32, 3].
///
/// # Errors
/// Names the file that is missing, of the wrong length, or has labels beyond the classes.
pub fn run(options: &Options) -> Result<Made> {
    let set = options.set;
    let (version, mut source) = Source::find(set, &options.batches)?;
    require_apart(&options.out, &[&source.path])?;
    let inputs = source.identities(&version)?;
    let class_names = version.class_names(&mut source)?;
    // Everything is read before anything is written: a whole data set is 180 MB.
    let mut parts = Vec::new();
    for (part, files) in version.parts {
        let batches = files.iter().map(|file| version.batch(&mut source, file, class_names.len())).collect::<Result<Vec<_>>>()?;
        parts.push((part, batches));
    }
    let job = json!({ "command": set.command(), "inputs": inputs, "options": set.options(), "shard_mib": options.shard_mib });
    let Some(output) = Output::claim(&options.out, &job)? else {
        return Made::before(&options.out, version.parts.map(|(part, _)| options.out.join(part)));
    };
    let mut written = Vec::new();
    for (part, batches) in parts {
        let folder = options.out.join(part);
        let mut made = set.options();
        made["part"] = part.into();
        let description =
            Description { channels: 3, class_names: class_names.clone(), encoding: Encoding::Raw, made_by: made_by(set.command(), made) };
        let writer = DatasetWriter::begin(&folder, description)?;
        let samples: Vec<(&[u8], u32)> = batches.iter().flat_map(Batch::samples).collect();
        let side = SIDE as u32;
        let stream = Stream { count: samples.len(), frame: (side, side), channels: 3, shard_mib: options.shard_mib };
        let shards = stream.write(&writer, |index, pixels| {
            interleave(samples[index].0, 3, pixels);
            Ok(samples[index].1)
        })?;
        written.push((folder, writer.finish(shards)?));
    }
    output.release(job)?;
    Ok(Made::now(written))
}

impl Batch {
    fn samples(&self) -> impl Iterator<Item = (&[u8], u32)> {
        self.file[self.start..].chunks(self.step).map(|record| &record[..PIXELS]).zip(self.labels.iter().copied())
    }
}

impl Version {
    fn batch(&self, source: &mut Source, name: &str, classes: usize) -> Result<Batch> {
        let path = source.name(name);
        let file = source.take(name)?;
        let batch = match self.keys {
            None => {
                let (labels, which) = self.label;
                let record = labels + PIXELS;
                ensure!(
                    !file.is_empty() && file.len() % record == 0,
                    "{path} has {} bytes, which is no multiple of a record's {record}: it is cut off or no CIFAR batch; get it again",
                    file.len()
                );
                let labels_of = file.chunks_exact(record).map(|record| record[which].into()).collect();
                Batch { file, start: labels, step: record, labels: labels_of }
            }
            Some((key, _)) => pickled(file, key).with_context(|| format!("{path} cannot be used; get it again"))?,
        };
        if let Some(at) = batch.labels.iter().position(|label| *label as usize >= classes) {
            bail!("{path} has label {} in record {at}, but {} names {classes} classes", batch.labels[at], self.names);
        }
        Ok(batch)
    }

    fn class_names(&self, source: &mut Source) -> Result<Vec<String>> {
        let path = source.name(self.names);
        let file = source.take(self.names)?;
        let names: Vec<String> = match self.keys {
            None => {
                let text = String::from_utf8(file).with_context(|| format!("{path} is no text"))?;
                text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
            }
            Some((_, key)) => {
                let entries = pickle::dictionary(&file).with_context(|| format!("{path} cannot be used; get it again"))?;
                let Some(Item::List(names)) = entries.get(key) else { bail!("{path} has no list of {key}; get it again") };
                let name = |item: &Item| match item {
                    Item::Bytes(name) => String::from_utf8_lossy(name).into_owned(),
                    _ => String::new(),
                };
                names.iter().map(name).collect()
            }
        };
        if names.is_empty() || names.len() > 256 {
            return Err(Exit::Usage.error(format!("{path} has {} class names; CIFAR has 10 to 100", names.len())));
        }
        Ok(names)
    }
}

/// The images of a pickle and the labels under `key`.
fn pickled(file: Vec<u8>, key: &str) -> Result<Batch> {
    let entries = pickle::dictionary(&file)?;
    let Some(Item::Bytes(data)) = entries.get("data") else { bail!("it has no array of data") };
    let Some(Item::List(labels)) = entries.get(key) else { bail!("it has no list of {key}") };
    let label = |item: &Item| match item {
        Item::Number(label) => u32::try_from(*label).ok(),
        _ => None,
    };
    let labels: Vec<u32> = labels.iter().map(label).collect::<Option<_>>().with_context(|| format!("its {key} are no whole numbers"))?;
    let found = labels.len();
    ensure!(
        found > 0 && data.len() == found * PIXELS,
        "it has {} bytes of data for {found} labels, expected are {PIXELS} each",
        data.len()
    );
    let start = data.as_ptr() as usize - file.as_ptr() as usize;
    let end = start + data.len();
    drop(entries);
    let mut file = file;
    file.truncate(end);
    Ok(Batch { file, start, step: PIXELS, labels })
}

/// Where the files are.
struct Source {
    path: PathBuf,
    /// The files of an archive; of a folder they are read when they are asked for.
    archived: Option<HashMap<String, Vec<u8>>>,
}

impl Source {
    /// The files behind `--batches`, and which version they are.
    fn find(set: Set, batches: &Path) -> Result<(Version, Source)> {
        let versions = set.versions();
        let archives: Vec<PathBuf> = match batches.is_dir() {
            true => versions.iter().map(|version| batches.join(version.archive)).collect(),
            false => vec![batches.to_owned()],
        };
        let [wanted, other] = versions.each_ref().map(|version| version.archive);
        for version in versions {
            let first = version.parts[0].1[0];
            for folder in [batches.to_owned(), batches.join(version.folder)] {
                if is_there(&folder.join(first)) {
                    return Ok((version, Source { path: folder, archived: None }));
                }
            }
            for path in archives.iter().filter(|path| is_there(path)) {
                let files = version.parts.iter().flat_map(|(_, files)| files.iter()).chain([&version.names]).copied();
                let archived = unpacked(path, &files.collect::<Vec<_>>())?;
                if archived.contains_key(first) {
                    return Ok((version, Source { path: path.clone(), archived: Some(archived) }));
                }
            }
        }
        Err(Exit::Usage.error(format!(
            "--batches {}: {} is not there; give {wanted} or {other} as it is, or the folder that it unpacks to",
            batches.display(),
            if set == Set::Ten { "CIFAR-10" } else { "CIFAR-100" }
        )))
    }

    fn name(&self, file: &str) -> String {
        match self.archived {
            Some(_) => format!("{file} in {}", self.path.display()),
            None => self.path.join(file).display().to_string(),
        }
    }

    /// The bytes of a file, once.
    fn take(&mut self, name: &str) -> Result<Vec<u8>> {
        let path = self.name(name);
        if let Some(archived) = &mut self.archived {
            return archived.remove(name).with_context(|| format!("{path} is missing; get the archive again"));
        }
        let file = open_regular(&self.path.join(name)).map_err(|error| Exit::Usage.error(format!("{path} cannot be opened: {error}")))?;
        let length = file.metadata().with_context(|| format!("{path} cannot be examined"))?.len();
        ensure!(length <= MAX_FILE, "{path} has {length} bytes; no file of CIFAR has more than {MAX_FILE}");
        let mut bytes = Vec::with_capacity(length as usize);
        file.take(MAX_FILE).read_to_end(&mut bytes).with_context(|| format!("{path} cannot be read"))?;
        Ok(bytes)
    }

    fn identities(&self, version: &Version) -> Result<Vec<Value>> {
        if self.archived.is_some() {
            return Ok(vec![identity(&self.path)?]);
        }
        let files = version.parts.iter().flat_map(|(_, files)| files.iter()).chain([&version.names]);
        files.map(|name| identity(&self.path.join(name))).collect()
    }
}

/// Whether this may be a file. What else it is, but a folder, is told when it is opened.
fn is_there(path: &Path) -> bool {
    path.exists() && !path.is_dir()
}

/// The files of these names, wherever in the archive they lie.
fn unpacked(path: &Path, names: &[&str]) -> Result<HashMap<String, Vec<u8>>> {
    let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
    let unpacking = MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file)).take(MAX_ARCHIVE);
    let mut found = HashMap::new();
    let read = || -> std::io::Result<()> {
        let mut archive = tar::Archive::new(unpacking);
        for member in archive.entries()? {
            let member = member?;
            let name = member.path()?.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if member.header().entry_type().is_file() && names.contains(&name.as_str()) && member.size() <= MAX_FILE {
                let mut bytes = Vec::new();
                let size = member.size();
                if member.take(size).read_to_end(&mut bytes)? as u64 != size {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                found.insert(name, bytes);
            }
        }
        // gzip's checksum lies behind tar's end.
        std::io::copy(&mut archive.into_inner(), &mut std::io::sink()).map(drop)
    };
    read().with_context(|| format!("{} is no whole .tar.gz; get it again", path.display()))?;
    Ok(found)
}
