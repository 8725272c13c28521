//! ImageNet's development kit: which number stands for which class, and the validation photos' numbers.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use biodist_process::exit::Exit;
use biodist_process::files::open_regular;
use biodist_process::quote::excerpt;
use flate2::read::MultiGzDecoder;

use super::matlab::{self, Value};

const META: &str = "meta.mat";
const TRUTH: &str = "ILSVRC2012_validation_ground_truth.txt";
/// More bytes than a file of the kit has, and than all have together.
const MAX_FILE: u64 = 16 << 20;
const MAX_KIT: u64 = 1 << 30;

/// A class of the challenge. Its index, in the order of WNIDs, is its place in [`Devkit::classes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    pub wnid: String,
    /// Its synonyms, separated by commas.
    pub words: String,
}

/// What the kit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devkit {
    /// In the order of their WNIDs, as torchvision numbers them. The kit's own numbers differ.
    pub classes: Vec<Class>,
    /// Class index of each validation photo, in the order of the photos' numbers.
    pub truth: Vec<u32>,
}

impl Devkit {
    /// Reads `ILSVRC2012_devkit_t12.tar.gz`.
    ///
    /// # Errors
    /// Where it is another archive, damaged, or contradicts itself.
    pub fn open(path: &Path) -> Result<Devkit> {
        let file = open_regular(path).map_err(|error| Exit::Usage.error(format!("{} cannot be opened: {error}", path.display())))?;
        let (meta, truth) = read_files(file)
            .with_context(|| format!("{} is no development kit (ILSVRC2012_devkit_t12.tar.gz) or is damaged", path.display()))?;
        Devkit::parse(&meta, &truth).with_context(|| format!("{} cannot be used", path.display()))
    }

    fn parse(meta: &[u8], truth: &[u8]) -> Result<Devkit> {
        let mut numbered = synsets(meta).with_context(|| META.to_owned())?;
        numbered.sort_by(|(_, one), (_, two)| one.wnid.cmp(&two.wnid));
        let truth = std::str::from_utf8(truth).with_context(|| format!("{TRUTH} is not text"))?;
        let indices: HashMap<u32, u32> = numbered.iter().zip(0..).map(|((number, _), index)| (*number, index)).collect();
        let parse = |(line, text): (usize, &str)| {
            let index = text.trim().parse().ok().and_then(|number: u32| indices.get(&number).copied());
            index.with_context(|| format!("{TRUTH} has \"{}\" in line {}, which is no class of {META}", excerpt(text.trim()), line + 1))
        };
        let truth = truth.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()).map(parse).collect::<Result<Vec<_>>>()?;
        Ok(Devkit { classes: numbered.into_iter().map(|(_, class)| class).collect(), truth })
    }
}

fn read_files(file: File) -> Result<(Vec<u8>, Vec<u8>)> {
    let mut archive = tar::Archive::new(MultiGzDecoder::new(BufReader::new(file)).take(MAX_KIT));
    let (mut meta, mut truth) = (None, None);
    // Raw: a name of more than 255 bytes, which would be read whole, is none of the kit's.
    for entry in archive.entries()?.raw(true) {
        let entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let path = entry.path_bytes().into_owned();
        let wanted = match path.rsplit(|&byte| byte == b'/').next() {
            Some(name) if name == META.as_bytes() => &mut meta,
            Some(name) if name == TRUTH.as_bytes() => &mut truth,
            _ => continue,
        };
        ensure!(entry.size() <= MAX_FILE, "{} has {} bytes", String::from_utf8_lossy(&path), entry.size());
        let mut bytes = Vec::new();
        entry.take(MAX_FILE).read_to_end(&mut bytes)?;
        *wanted = Some(bytes);
    }
    // gzip's checksum lies behind tar's end.
    std::io::copy(&mut archive.into_inner(), &mut std::io::sink())?;
    Ok((meta.with_context(|| format!("it has no {META}"))?, truth.with_context(|| format!("it has no {TRUTH}"))?))
}

/// The classes proper, which have no children, with the kit's numbers for them.
fn synsets(meta: &[u8]) -> Result<Vec<(u32, Class)>> {
    let synsets = matlab::variable(meta, "synsets")?.context("it has no variable synsets")?;
    let Value::Structs(fields, rows) = synsets else { bail!("its variable synsets is no array of structs") };
    let column = |name: &str| fields.iter().position(|field| field == name).with_context(|| format!("its synsets have no {name}"));
    let (id, wnid, words, children) = (column("ILSVRC2012_ID")?, column("WNID")?, column("words")?, column("num_children")?);
    let mut classes = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let number = |column: usize| {
            let value = row[column].number().filter(|value| (0.0..=1e6).contains(value) && value.fract() == 0.0);
            value.map(|value| value as u32).with_context(|| format!("its synset {} has no sound {}", at + 1, fields[column]))
        };
        let text = |column: usize| {
            row[column].text().map(str::to_owned).with_context(|| format!("its synset {} has no {}", at + 1, fields[column]))
        };
        if number(children)? == 0 {
            classes.push((number(id)?, Class { wnid: text(wnid)?, words: text(words)? }));
        }
    }
    ensure!(!classes.is_empty(), "its synsets have no class without children");
    let mut seen = HashSet::new();
    for (number, class) in &classes {
        ensure!(seen.insert(number.to_string()) && seen.insert(class.wnid.clone()), "its synsets have {} twice", excerpt(&class.wnid));
    }
    Ok(classes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META_FILE: &[u8] = include_bytes!("../../tests/data/meta.mat");

    #[test]
    fn classes_are_numbered_in_the_order_of_their_wnids() {
        let devkit = Devkit::parse(META_FILE, b"1\n2\n3\n3\n").unwrap();
        let wnids: Vec<&str> = devkit.classes.iter().map(|class| class.wnid.as_str()).collect();
        assert_eq!(wnids, ["n00000100", "n00000200", "n00000300"]);
        assert_eq!(devkit.classes[2].words, "cat, feline");
        assert_eq!(devkit.truth, [2, 0, 1, 1]);
    }

    #[test]
    fn labels_beyond_the_classes_are_refused() {
        // 4 is the number of the parent.
        for (truth, line) in [("1\n4\n", 2), ("0\n", 1), ("1\n1\n-2\n", 3), ("99999999999\n", 1), ("one\n", 1)] {
            let message = format!("{:#}", Devkit::parse(META_FILE, truth.as_bytes()).unwrap_err());
            assert!(message.contains(&format!("in line {line}")), "{message}");
        }
    }
}
