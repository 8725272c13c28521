//! The photos below class folders. Links to folders are followed, as torchvision does; what systems leave among photos is not
//! looked into. What is passed over is told, since nobody trains on less than he thinks on purpose.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use biodist_process::exit::Exit;
use biodist_process::quote::plain;

use crate::stray::is_stray;

/// Endings of files that are taken for photos, in any case.
const ENDINGS: [&str; 3] = ["jpg", "jpeg", "png"];
/// Names of each kind that are told.
const NAMED: usize = 3;

/// Device and inode.
type Key = (u64, u64);

/// A tree as it was found.
#[derive(Default)]
pub struct Found {
    /// One per class folder, in the order of their names.
    pub classes: Vec<String>,
    /// Path and class of each photo, in the order of the classes and paths.
    pub photos: Vec<(PathBuf, u32)>,
    /// Where links to folders lead.
    pub elsewhere: Vec<PathBuf>,
    strays: Vec<PathBuf>,
    /// Of another kind.
    others: Vec<PathBuf>,
    beside: Vec<PathBuf>,
    dangling: Vec<PathBuf>,
    again: Vec<PathBuf>,
    /// Class and path of each folder.
    seen: HashMap<Key, (u32, PathBuf)>,
    /// The folders that lead to the one that is being read.
    chain: Vec<Key>,
}

impl Found {
    /// Reads the class folders in `root`.
    ///
    /// # Errors
    /// Where a folder cannot be read, lies in itself or in two classes, or a class's name is no text.
    pub fn read(root: &Path) -> Result<Found> {
        let mut found = Found { chain: vec![key(root)?], ..Found::default() };
        let mut folders = Vec::new();
        for Entry { path, kind } in entries(root)? {
            match kind {
                Kind::Folder { .. } if is_stray(name(&path)) => found.strays.push(path),
                Kind::Folder { link } => folders.push((path, link)),
                _ if is_stray(name(&path)) => {}
                Kind::Nothing => found.dangling.push(path),
                Kind::File => found.beside.push(path),
            }
        }
        for (folder, link) in folders {
            let Some(class) = folder.file_name().and_then(|name| name.to_str()) else {
                return Err(Exit::Usage.error(format!("class folder {folder:?} has a name that is no UTF-8 text; rename it")));
            };
            found.classes.push(class.to_owned());
            let before = found.photos.len();
            found.enter(&folder, link)?;
            found.photos[before..].sort();
            if found.photos.len() == before {
                log::warn!("class folder {} has no photos (.jpg, .jpeg, .png)", plain(&folder.to_string_lossy()));
            }
        }
        Ok(found)
    }

    fn enter(&mut self, folder: &Path, link: bool) -> Result<()> {
        let key = key(folder)?;
        let class = self.classes.len() as u32 - 1;
        if self.chain.contains(&key) {
            return Err(Exit::Usage.error(format!("{} leads back to a folder that it lies in; remove this link", folder.display())));
        }
        if let Some((first_class, first)) = self.seen.get(&key) {
            if *first_class != class {
                return Err(Exit::Usage.error(format!(
                    "{} and {} are one folder, whose photos would be in two classes; remove the link among them",
                    first.display(),
                    folder.display()
                )));
            }
            self.again.push(folder.to_owned());
            return Ok(());
        }
        self.seen.insert(key, (class, folder.to_owned()));
        if link {
            self.elsewhere.push(folder.to_owned());
        }
        self.chain.push(key);
        for Entry { path, kind } in entries(folder)? {
            let photo = path.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)));
            match kind {
                Kind::Folder { link } if !is_stray(name(&path)) => self.enter(&path, link)?,
                Kind::Folder { .. } => self.strays.push(path),
                _ if is_stray(name(&path)) => self.strays.extend(photo.then_some(path)),
                // A photo's link that leads nowhere is an unreadable photo.
                _ if photo => self.photos.push((path, class)),
                Kind::File => self.others.push(path),
                Kind::Nothing => self.dangling.push(path),
            }
        }
        self.chain.pop();
        Ok(())
    }

    /// Tells what was passed over.
    pub fn tell(&self, root: &Path) {
        for (what, paths) in [
            ("hidden files and folders, and those of systems,", &self.strays),
            ("files in class folders that are no .jpg, .jpeg or .png", &self.others),
            ("files beside the class folders", &self.beside),
            ("links that lead nowhere", &self.dangling),
            ("folders to which another path has led before", &self.again),
        ] {
            let mut names: Vec<String> =
                paths.iter().map(|path| plain(&path.strip_prefix(root).unwrap_or(path).to_string_lossy())).collect();
            names.sort();
            let more = names.len().saturating_sub(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            if !names.is_empty() {
                log::warn!("{what} are passed over: {}, namely {}{more}", names.len(), names[..names.len().min(NAMED)].join(", "));
            }
        }
    }
}

struct Entry {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Folder {
        link: bool,
    },
    File,
    /// A link that leads nowhere.
    Nothing,
}

/// What a folder holds, in the order of the names.
fn entries(folder: &Path) -> Result<Vec<Entry>> {
    let read = || -> std::io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            let kind = match (kind.is_symlink(), kind.is_dir()) {
                (false, true) => Kind::Folder { link: false },
                (false, false) => Kind::File,
                (true, _) => match path.metadata() {
                    Ok(metadata) if metadata.is_dir() => Kind::Folder { link: true },
                    Ok(_) => Kind::File,
                    Err(_) => Kind::Nothing,
                },
            };
            entries.push(Entry { path, kind });
        }
        entries.sort_by(|one, two| one.path.cmp(&two.path));
        Ok(entries)
    };
    read().with_context(|| format!("{} cannot be read", folder.display()))
}

fn key(folder: &Path) -> Result<Key> {
    let metadata = folder.metadata().with_context(|| format!("{} cannot be examined", folder.display()))?;
    Ok((metadata.dev(), metadata.ino()))
}

fn name(path: &Path) -> &[u8] {
    path.file_name().map_or(b"", |name| name.as_encoded_bytes())
}
