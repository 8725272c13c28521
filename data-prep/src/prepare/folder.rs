//! Class-per-folder trees: DIR/CLASS/**/PHOTO, classes numbered in the order of their folders' names.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::Result;
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use rayon::ThreadPool;
use rayon::prelude::*;
use serde_json::{Value, json};
use shards::random::permutation;

use super::photos::{self, Options as Storing, Part, require_disk};
use super::pipeline::Photos;
use super::tree::Found;
use super::{Made, base_name, made_by};
use crate::output::{COMPARED, Output, hash, require_apart};

/// Larger files are no photos.
const MAX_FILE: u64 = 1 << 30;

/// What `data-prep folder` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub images: PathBuf,
    pub out: PathBuf,
    pub storing: photos::Options,
    /// Store in a random order instead of the order of the names.
    pub shuffle_seed: Option<u64>,
    /// For those who see results on these data.
    pub note: Option<String>,
}

/// Writes one data set into `out`: classes in the order of their names, and in each the files in the order of theirs, as
/// torchvision's `ImageFolder` has them, or shuffled.
///
/// # Errors
/// Where there are no class folders or no photos, and as [`Part::prepare`].
pub fn run(options: &Options) -> Result<Made> {
    let tree = Tree::read(options)?;
    let storing: &Storing = &options.storing;
    let job = json!({
        "command": "folder", "images": base_name(&options.images), "photos": tree.digest(&crate::pool(0)?), "shuffle_seed": options.shuffle_seed,
        "storing": storing.describe(), "note": options.note,
    });
    let made = json!({
        "images": base_name(&options.images), "shuffle_seed": options.shuffle_seed, "storing": storing.describe(),
    });
    let Some(output) = Output::claim(&options.out, &job)? else { return Made::before(&options.out, [options.out.clone()]) };
    let mut made_by = made_by("folder", made);
    if let Some(note) = &options.note {
        made_by["note"] = note.as_str().into();
    }
    let part = Part { label: "photos", folder: &options.out, photos: &tree, class_names: tree.classes.clone(), made_by };
    let bytes = part.bytes_per_photo(storing)?;
    let output = output.admit(|| require_disk(&options.out, part.label, bytes * tree.files.len() as u64, storing))?;
    let manifest = part.prepare(storing, bytes)?;
    output.release(job)?;
    Ok(Made::now(vec![(options.out.clone(), manifest)]))
}

/// The photos of a tree, in the order in which they are stored.
struct Tree {
    root: PathBuf,
    classes: Vec<String>,
    /// Path and class of each.
    files: Vec<(PathBuf, u32)>,
}

impl Tree {
    fn read(options: &Options) -> Result<Tree> {
        let root = &options.images;
        if !root.is_dir() {
            return Err(Exit::Usage.error(format!("--images {} is no folder; give one that holds a folder for each class", root.display())));
        }
        require_apart(&options.out, &[root])?;
        let found = Found::read(root)?;
        found.elsewhere.iter().try_for_each(|folder| require_apart(&options.out, &[folder]))?;
        if found.photos.is_empty() {
            return Err(Exit::Usage.error(format!(
                "--images {} has no photos in class folders: expected are {0}/CLASS/NAME.jpg (or .jpeg, .png)",
                root.display()
            )));
        }
        found.tell(root);
        let Found { classes, photos: mut files, .. } = found;
        if let Some(seed) = options.shuffle_seed {
            files = permutation(seed, files.len()).into_iter().map(|place| files[place].clone()).collect();
        }
        Ok(Tree { root: root.clone(), classes, files })
    }

    /// Stands for the photos in the job, so that a tree that changed is another job: their names and contents, or where those
    /// are large, sizes and times of modification.
    fn digest(&self, pool: &ThreadPool) -> Value {
        let [mut names, mut sizes, mut times, mut contents] = [(); 4].map(|()| crc32fast::Hasher::new());
        // One call per file: many at once hide their latency.
        let metadata: Vec<_> = pool.install(|| self.files.par_iter().map(|(path, _)| path.metadata().ok()).collect());
        let mut bytes = 0;
        for ((path, class), metadata) in self.files.iter().zip(metadata) {
            names.update(path.strip_prefix(&self.root).unwrap_or(path).as_os_str().as_encoded_bytes());
            names.update(&class.to_le_bytes());
            let (length, seconds, nanoseconds) = metadata.map_or((0, 0, 0), |there| (there.len(), there.mtime(), there.mtime_nsec()));
            sizes.update(&length.to_le_bytes());
            times.update(&[seconds.to_le_bytes(), nanoseconds.to_le_bytes()].concat());
            bytes += length;
        }
        let text = |hasher: crc32fast::Hasher| format!("{:08x}", hasher.finalize());
        let mut digest = json!({ "count": self.files.len(), "names": text(names), "sizes": text(sizes) });
        if bytes <= COMPARED {
            for (path, _) in &self.files {
                // What cannot be read is left out when its turn comes.
                let _ = open_regular(path).and_then(|file| hash(&mut contents, file));
            }
            digest["contents"] = text(contents).into();
        } else {
            digest["modification_times"] = text(times).into();
        }
        digest
    }
}

impl Photos for Tree {
    fn count(&self) -> usize {
        self.files.len()
    }

    fn name(&self, number: usize) -> String {
        let path = &self.files[number].0;
        path.strip_prefix(&self.root).unwrap_or(path).to_string_lossy().into_owned()
    }

    fn label(&self, number: usize) -> u32 {
        self.files[number].1
    }

    fn length(&self, number: usize) -> u64 {
        // What cannot be examined cannot be read either, which is told there.
        self.files[number].0.metadata().map_or(0, |metadata| metadata.len())
    }

    fn read(&self, number: usize) -> Result<Result<Vec<u8>, String>> {
        let path = &self.files[number].0;
        let read = || {
            let mut file = open_regular(path)?;
            let length = file.metadata()?.len();
            if length > MAX_FILE {
                return Err(std::io::Error::other(format!("it has {length} bytes, too many for a photo")));
            }
            let mut bytes = Vec::with_capacity(length as usize);
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        Ok(read().map_err(|error| error.to_string()))
    }
}
