//! MNIST and Fashion-MNIST from where they are published to shards, in one command.
//!
//! `curl` fetches: it knows proxies, certificates and the rest of a site's network, and is there already. What is fetched stays in
//! `OUT/raw`, checked by its published content and not by where it came from; so files that came by other ways will do as well.

use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail, ensure};
use biodist_process::files::{AtomicFile, open_regular};
use biodist_process::quote::{excerpt, lines};
use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::{Made, idx};

/// Seconds for which a mirror may send next to nothing.
pub const PATIENCE: u32 = 30;
/// Most bytes of an unpacked file.
const MAX_FILE: u64 = 1 << 28;

/// A data set of four idx files.
#[derive(Clone, Debug)]
pub struct Set {
    pub name: &'static str,
    /// Names and SHA-256: images and labels to train, then those to test.
    pub files: [(&'static str, String); 4],
    /// Where the files lie, gzipped.
    pub mirrors: Vec<String>,
}

const FILES: [&str; 4] = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];

impl Set {
    pub fn new(name: &'static str, checksums: [&str; 4], mirrors: &[&str]) -> Set {
        let files = std::array::from_fn(|at| (FILES[at], checksums[at].to_owned()));
        Set { name, files, mirrors: mirrors.iter().map(|mirror| (*mirror).to_owned()).collect() }
    }

    pub fn mnist() -> Set {
        let checksums = [
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ];
        let mirrors = ["https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"];
        Set::new("mnist", checksums, &mirrors)
    }

    pub fn fashion() -> Set {
        let checksums = [
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ];
        let mirrors = [
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion",
        ];
        Set::new("fashion", checksums, &mirrors)
    }
}

/// What `data-prep fetch` is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    pub set: Set,
    pub out: PathBuf,
    pub shard_mib: u32,
    /// Seconds after which a mirror is given up that sends next to nothing.
    pub patience: u32,
}

/// Writes `out/train` and `out/test`. What is there already, of files and of shards, is kept.
///
/// # Errors
/// Where no mirror has a file of the published content, and as [`idx::run`].
pub fn run(options: &Options) -> Result<Made> {
    let raw = options.out.join("raw");
    std::fs::create_dir_all(&raw).with_context(|| format!("--out {} cannot be created", options.out.display()))?;
    for (name, checksum) in &options.set.files {
        provide(&options.set, &raw, name, checksum, options.patience)?;
    }
    let mut made = Made { parts: Vec::new(), before: true };
    for (part, [images, labels]) in [("train", [0, 1]), ("test", [2, 3])] {
        let [images, labels] = [images, labels].map(|at| raw.join(options.set.files[at].0));
        let wanted = idx::Options { images, labels, out: options.out.join(part), classes: None, shard_mib: options.shard_mib };
        let Made { parts, before } = idx::run(&wanted)?;
        made.parts.extend(parts);
        made.before &= before;
    }
    Ok(made)
}

/// Makes `raw/name` the file that is published.
fn provide(set: &Set, raw: &Path, name: &str, checksum: &str, patience: u32) -> Result<()> {
    let (path, packed) = (raw.join(name), raw.join(format!("{name}.gz")));
    if path.exists() {
        let file = open_regular(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        match compare(file, checksum) {
            Ok(()) => return Ok(()),
            Err(error) => tell(&path, &format!("{error:#}; it is replaced")),
        }
    }
    // Put there by hand, or left where an earlier run was ended.
    if packed.exists() {
        match unpack(&packed, &path, checksum) {
            Ok(()) => return Ok(()),
            Err(error) => tell(&packed, &format!("{error:#}; it is removed")),
        }
    }
    let mut failed = anyhow!("there is no mirror");
    for (number, mirror) in set.mirrors.iter().enumerate() {
        if number > 0 {
            tell(&path, &format!("{failed:#}"));
        }
        let url = format!("{mirror}/{name}.gz");
        tell(&path, &format!("fetching {url}"));
        match download(&url, &packed, patience).and_then(|()| unpack(&packed, &path, checksum)) {
            Ok(()) => return Ok(()),
            Err(error) => failed = error.context(url),
        }
    }
    let names: Vec<&str> = set.files.iter().map(|(name, _)| *name).collect();
    Err(failed.context(format!(
        "{name} could not be fetched; try again later, give a mirror by --from URL, or put {} into {} and run the same command again",
        names.join(", "),
        raw.display()
    )))
}

/// One line on stderr; where that is closed, fetching goes on.
fn tell(path: &Path, what: &str) {
    let _ = std::io::stderr().write_all(lines(&format!("{}: {what}\n", path.display())).as_bytes());
}

fn download(url: &str, to: &Path, patience: u32) -> Result<()> {
    let mut curl = Command::new("curl");
    curl.args(["--fail", "--silent", "--show-error", "--location", "--connect-timeout", "15", "--retry", "1", "--speed-limit", "100"]);
    curl.arg("--speed-time").arg(patience.to_string()).arg("--output").arg(to).arg("--").arg(url);
    let output = curl.stdin(Stdio::null()).output().map_err(|error| match error.kind() {
        ErrorKind::NotFound => anyhow!("curl is not here; install it (Debian: curl)"),
        _ => anyhow!("curl cannot be started: {error}"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let _ = std::fs::remove_file(to);
    // Of several tries the last.
    bail!("{}", excerpt(String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default()))
}

/// Unpacks a file to where it belongs, if its content is the one that is published, and removes it in any case.
fn unpack(packed: &Path, path: &Path, checksum: &str) -> Result<()> {
    let unpacked = || -> Result<()> {
        let file = open_regular(packed).with_context(|| format!("{} cannot be read", packed.display()))?;
        let mut bytes = Vec::new();
        let read = MultiGzDecoder::new(file).take(MAX_FILE).read_to_end(&mut bytes);
        read.context("it is no gzip file, or cut off")?;
        compare(&bytes[..], checksum)?;
        let mut file = AtomicFile::create(path)?;
        file.write(&bytes)?;
        file.commit()
    }();
    let _ = std::fs::remove_file(packed);
    unpacked
}

/// Fails where the SHA-256 is another.
fn compare(mut content: impl Read, checksum: &str) -> Result<()> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut content, &mut hasher).context("it cannot be read")?;
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    ensure!(found == checksum, "it is another file than the one published: SHA-256 {found} instead of {checksum}");
    Ok(())
}
