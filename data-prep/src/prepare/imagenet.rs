//! ImageNet from the official archives as they are: the training archive holds an archive for each class, the validation
//! archive holds photos, the development kit holds the classes and the validation photos' labels.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use biodist_process::quote::excerpt;
use rayon::prelude::*;
use serde_json::{Value, json};
use shards::random::permutation;

use super::photos::{self, Part, require_disk};
use super::pipeline::Photos;
use super::{Made, base_name, made_by};
use crate::archive::devkit::Devkit;
use crate::archive::tar::{Member, Section};
use crate::output::{Output, identity, require_apart};

/// Larger members are no photos: the largest of ImageNet has 15 MB.
const MAX_PHOTO: u64 = 1 << 30;

/// What `data-prep imagenet` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// `ILSVRC2012_img_train.tar`
    pub train: PathBuf,
    /// `ILSVRC2012_img_val.tar`
    pub val: PathBuf,
    /// `ILSVRC2012_devkit_t12.tar.gz`
    pub devkit: PathBuf,
    pub out: PathBuf,
    pub storing: photos::Options,
    /// Decides the order of the training photos.
    pub seed: u64,
}

/// Writes `out/train`, shuffled across its shards, and `out/val`, in the order of the photos' numbers. A class's index is
/// its WNID's place in sorted order.
///
/// # Errors
/// Where an archive is another one, cut off or contradicts the development kit, where there is too little disk, and as
/// [`Part::prepare`].
pub fn run(options: &Options) -> Result<Made> {
    let storing = &options.storing;
    let inputs = [&options.train, &options.val, &options.devkit];
    require_apart(&options.out, &inputs.map(PathBuf::as_path))?;
    let identities = inputs.map(|path| identity(path)).into_iter().collect::<Result<Vec<_>>>()?;
    let devkit = Devkit::open(&options.devkit)?;
    let pool = crate::pool(storing.threads())?;
    let train = pool.install(|| training(options, &devkit))?;
    let val = validation(options, &devkit)?;
    let job = json!({ "command": "imagenet", "inputs": identities, "seed": options.seed, "storing": storing.describe() });
    let folders = ["train", "val"].map(|part| options.out.join(part));
    let Some(output) = Output::claim(&options.out, &job)? else { return Made::before(&options.out, folders) };
    let class_names: Vec<String> = devkit.classes.iter().map(|class| format!("{} {}", class.wnid, class.words)).collect();
    let made: [Value; 2] = [&options.train, &options.val]
        .map(|path| made_by("imagenet", json!({ "archive": base_name(path), "devkit": base_name(&options.devkit), "seed": options.seed, "storing": storing.describe() })));
    let [train_made, val_made] = made;
    let part = |label, folder, photos, made_by| Part { label, folder, photos, class_names: class_names.clone(), made_by };
    let parts = [part("train", &folders[0], &train, train_made), part("val", &folders[1], &val, val_made)];
    let mut sizes = Vec::new();
    for part in &parts {
        sizes.push(part.bytes_per_photo(storing)?);
    }
    let bytes = parts.iter().zip(&sizes).map(|(part, size)| part.photos.count() as u64 * size).sum();
    let label = format!("{} training and {} validation photos", train.members.len(), val.members.len());
    let output = output.admit(|| require_disk(&options.out, &label, bytes, storing))?;
    let mut written = Vec::new();
    for (part, size) in parts.into_iter().zip(sizes) {
        let folder = part.folder.to_owned();
        written.push((folder, part.prepare(storing, size)?));
    }
    output.release(job)?;
    Ok(Made::now(written))
}

/// Photos in an archive, with their labels, in the order in which they are stored.
struct Archived {
    section: Section,
    members: Vec<(Member, u32)>,
}

impl Photos for Archived {
    fn count(&self) -> usize {
        self.members.len()
    }

    fn name(&self, number: usize) -> String {
        self.members[number].0.name.clone()
    }

    fn label(&self, number: usize) -> u32 {
        self.members[number].1
    }

    fn length(&self, number: usize) -> u64 {
        self.members[number].0.length
    }

    fn read(&self, number: usize) -> Result<Result<Vec<u8>, String>> {
        let member = &self.members[number].0;
        if member.length > MAX_PHOTO {
            return Ok(Err(format!("it has {} bytes, too many for a photo", member.length)));
        }
        self.section.read(member).map(Ok)
    }

    fn prefetch(&self, number: usize) {
        self.section.prefetch(&self.members[number].0);
    }
}

fn training(options: &Options, devkit: &Devkit) -> Result<Archived> {
    let path = &options.train;
    let section = Section::open(path)?;
    let mut archives = section.list(&path.display().to_string())?;
    archives.sort_by(|one, two| one.name.cmp(&two.name));
    let list = |archive: &Member| -> Result<Vec<(Member, u32)>> {
        let what = format!("{} in {}", excerpt(&archive.name), path.display());
        let class = archive.name.strip_suffix(".tar").and_then(|wnid| devkit.classes.iter().position(|class| class.wnid == wnid));
        let Some(class) = class else {
            bail!("{what} is no archive of a class in {}; give ILSVRC2012_img_train.tar as it is", options.devkit.display())
        };
        let mut photos = section.member(archive).list(&what)?;
        photos.sort_by(|one, two| one.name.cmp(&two.name));
        Ok(photos.into_iter().map(|photo| (photo, class as u32)).collect())
    };
    // A million headers lie scattered over the file: many reads at once hide their latency. Of several wrong archives the
    // first by name is told, whichever was found first.
    let listed: Vec<_> = archives.par_iter().map(list).collect();
    let classes = listed.into_iter().collect::<Result<Vec<_>>>()?;
    let missing = devkit.classes.len() - classes.iter().filter(|photos| !photos.is_empty()).count().min(devkit.classes.len());
    if missing > 0 {
        log::warn!("{} has no photos of {missing} of the {} classes", path.display(), devkit.classes.len());
    }
    let sorted: Vec<(Member, u32)> = classes.into_iter().flatten().collect();
    ensure!(!sorted.is_empty(), "{} holds no photos", path.display());
    let members = permutation(options.seed, sorted.len()).into_iter().map(|place| sorted[place].clone()).collect();
    Ok(Archived { section, members })
}

fn validation(options: &Options, devkit: &Devkit) -> Result<Archived> {
    let path = &options.val;
    let section = Section::open(path)?;
    let photos = section.list(&path.display().to_string())?;
    ensure!(!photos.is_empty(), "{} holds no photos", path.display());
    ensure!(
        photos.len() == devkit.truth.len(),
        "{} holds {} photos, but {} has the labels of {}; the two must belong together",
        path.display(),
        photos.len(),
        options.devkit.display(),
        devkit.truth.len()
    );
    let mut members = vec![None; photos.len()];
    for photo in photos {
        let number = number_of(&photo.name).filter(|number| (1..=members.len()).contains(number));
        let Some(number) = number else {
            bail!("{} holds {}, expected are ILSVRC2012_val_00000001.JPEG to {:08}", path.display(), excerpt(&photo.name), members.len())
        };
        let label = devkit.truth[number - 1];
        ensure!(members[number - 1].is_none(), "{} holds number {number} twice", path.display());
        members[number - 1] = Some((photo, label));
    }
    Ok(Archived { section, members: members.into_iter().flatten().collect() })
}

/// The number of a validation photo: the digits at the end of its name's stem.
fn number_of(name: &str) -> Option<usize> {
    let stem = Path::new(name).file_stem()?.to_str()?;
    stem.rsplit('_').next()?.parse().ok()
}
