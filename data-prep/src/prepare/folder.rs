//! Class-per-folder trees: DIR/CLASS/**/PHOTO, classes numbered in the order of their folders' names.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;

use super::photos::{self, Options as Storing, Part, require_disk};
use super::pipeline::Photos;
use super::{base_name, made_by};
use crate::error::usage;
use crate::manifest::Manifest;
use crate::output::{Output, identity};
use crate::random::permutation;

/// Endings of files that are taken for photos, in any case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
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
}

/// Writes one data set into `out`: classes in the order of their names, and in each the files in the order of theirs, as
/// torchvision's `ImageFolder` has them, or shuffled.
///
/// # Errors
/// Where there are no class folders or no photos, and as [`Part::prepare`].
pub fn run(options: &Options) -> Result<Manifest> {
    let tree = Tree::read(options)?;
    let storing: &Storing = &options.storing;
    let job = json!({
        "command": "folder", "images": identity(&options.images)?, "photos": tree.digest(), "shuffle_seed": options.shuffle_seed,
        "storing": storing.describe(),
    });
    let made = json!({
        "images": base_name(&options.images), "shuffle_seed": options.shuffle_seed, "storing": storing.describe(),
    });
    let output = Output::claim(&options.out, &job)?;
    let part =
        Part { label: "photos", folder: &options.out, photos: &tree, class_names: tree.classes.clone(), made_by: made_by("folder", made) };
    let bytes = part.bytes_per_photo(storing)?;
    let output = output.admit(|| require_disk(&options.out, part.label, bytes * tree.files.len() as u64, storing))?;
    let manifest = part.prepare(storing, bytes)?;
    output.release()?;
    Ok(manifest)
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
            return Err(usage(format!("--images {} is no folder; give one that holds a folder for each class", root.display())));
        }
        let mut folders: Vec<PathBuf> = entries(root)?.into_iter().filter(|path| path.is_dir() && !hidden(path)).collect();
        folders.sort();
        let mut classes = Vec::new();
        let (mut files, mut passed_over) = (Vec::new(), Vec::new());
        for folder in folders {
            let before = files.len();
            let mut found = Vec::new();
            collect(&folder, &mut found, &mut passed_over)?;
            found.sort();
            let class = classes.len() as u32;
            files.extend(found.into_iter().map(|path| (path, class)));
            if files.len() == before {
                log::warn!("class folder {} has no photos (.jpg, .jpeg, .png)", folder.display());
            }
            classes.push(base_name(&folder));
        }
        if files.is_empty() {
            return Err(usage(format!(
                "--images {} has no photos in class folders: expected are {0}/CLASS/NAME.jpg (or .jpeg, .png)",
                root.display()
            )));
        }
        if let Some(first) = passed_over.iter().min() {
            let (count, first) = (passed_over.len(), first.strip_prefix(root).unwrap_or(first).display());
            log::warn!("files in class folders that are no .jpg, .jpeg or .png are passed over: {count}, the first is {first}");
        }
        if let Some(seed) = options.shuffle_seed {
            files = permutation(seed, files.len()).into_iter().map(|place| files[place].clone()).collect();
        }
        Ok(Tree { root: root.clone(), classes, files })
    }

    /// Stands for the names in the job, so that a tree that changed is another job.
    fn digest(&self) -> String {
        let mut hasher = crc32fast::Hasher::new();
        for (path, class) in &self.files {
            hasher.update(path.as_os_str().as_encoded_bytes());
            hasher.update(&class.to_le_bytes());
        }
        format!("{} photos, {:08x}", self.files.len(), hasher.finalize())
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
            let metadata = path.metadata()?;
            if !metadata.is_file() {
                return Err(std::io::Error::other("it is no file"));
            }
            if metadata.len() > MAX_FILE {
                return Err(std::io::Error::other(format!("it has {} bytes, too many for a photo", metadata.len())));
            }
            std::fs::read(path)
        };
        Ok(read().map_err(|error| error.to_string()))
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = std::fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    read.with_context(|| format!("{} cannot be read", folder.display()))
}

/// The photos below a class folder, and the other files there. Links to folders are not followed: they may lead in a circle.
fn collect(folder: &Path, found: &mut Vec<PathBuf>, passed_over: &mut Vec<PathBuf>) -> Result<()> {
    for path in entries(folder)? {
        let kind = path.symlink_metadata().with_context(|| format!("{} cannot be examined", path.display()))?.file_type();
        if kind.is_dir() {
            collect(&path, found, passed_over)?;
        } else if !hidden(&path) {
            let is_photo = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)));
            if is_photo { found.push(path) } else { passed_over.push(path) }
        }
    }
    Ok(())
}

fn hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
}
