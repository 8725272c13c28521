//! Safetensors files, one tensor at a time.
//!
//! The crate's own writer and reader want all tensors at once; networks here have tensors of a gigabyte, and no run should need memory for
//! its parameters twice. The format is a length, a JSON header (the crate's), and the tensors in its order.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use biodist_process::files::open_regular;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::{Deserialize, Serialize};

/// Name and shape of a float32 tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
}

impl Entry {
    fn elements(&self) -> usize {
        self.shape.iter().product()
    }
}

/// What a file must be to be whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    pub bytes: u64,
    pub crc32: u32,
}

/// Writes `entries` to a new file at `path` and syncs it; `read` gives the values of the entry with that index.
pub fn write(path: &Path, entries: &[Entry], mut read: impl FnMut(usize) -> Vec<f32>) -> Result<Fingerprint> {
    let mut end = 0;
    let tensors = entries.iter().map(|entry| {
        let start = end;
        end += 4 * entry.elements();
        let info = TensorInfo { dtype: Dtype::F32, shape: entry.shape.clone(), data_offsets: (start, end) };
        (entry.name.clone(), info)
    });
    // Readers for PyTorch look for this; more than one item would be written in any order.
    let about = [("format".to_owned(), "pt".to_owned())].into();
    let mut header = serde_json::to_vec(&Metadata::new(Some(about), tensors.collect())?)?;
    header.resize(header.len().next_multiple_of(8), b' ');

    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = 0;
    let mut file = File::create_new(path).with_context(|| format!("{} cannot be created", path.display()))?;
    let mut put = |part: &[u8]| {
        hasher.update(part);
        bytes += part.len() as u64;
        file.write_all(part).with_context(|| format!("{} cannot be written", path.display()))
    };
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for (index, entry) in entries.iter().enumerate() {
        let values = read(index);
        assert_eq!(values.len(), entry.elements(), "{}", entry.name);
        put(bytemuck::cast_slice(&values))?;
    }
    file.sync_all().with_context(|| format!("{} cannot be written", path.display()))?;
    Ok(Fingerprint { bytes, crc32: hasher.finalize() })
}

/// Checks that the file at `path` is the one that `fingerprint` was taken of.
pub fn verify(path: &Path, fingerprint: &Fingerprint) -> Result<()> {
    let unreadable = || format!("{} cannot be read", path.display());
    let mut file = open_regular(path).with_context(unreadable)?;
    let bytes = file.metadata().with_context(unreadable)?.len();
    ensure!(bytes == fingerprint.bytes, "{} is damaged: it has {bytes} bytes, and had {} when written", path.display(), fingerprint.bytes);
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut buffer).with_context(unreadable)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    ensure!(hasher.finalize() == fingerprint.crc32, "{} is damaged: its checksum is not the one that was written", path.display());
    Ok(())
}

/// An open file of float32 tensors.
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    /// Where the tensors begin.
    data: u64,
}

impl TensorFile {
    /// Opens the file at `path`, which must hold exactly `entries`: those of another network are refused by name.
    pub fn open(path: &Path, entries: &[Entry]) -> Result<TensorFile> {
        let file = TensorFile::open_any(path)?;
        if let Some(entry) = entries.iter().find(|entry| !file.holds(entry)) {
            bail!("{} is of another network: it has no {}", path.display(), entry.name);
        }
        file.refuse_others(entries)?;
        Ok(file)
    }

    /// Whether it has a tensor of that name.
    pub fn holds(&self, entry: &Entry) -> bool {
        self.metadata.info(&entry.name).is_some()
    }

    /// Opens the file at `path`, whatever its tensors are.
    pub fn open_any(path: &Path) -> Result<TensorFile> {
        let unreadable = || format!("{} cannot be read", path.display());
        let mut file = open_regular(path).with_context(unreadable)?;
        let length = file.metadata().with_context(unreadable)?.len();
        let mut start = [0; 8];
        file.read_exact(&mut start).with_context(unreadable)?;
        let header = u64::from_le_bytes(start);
        ensure!(header <= length.saturating_sub(8), "{} is no safetensors file", path.display());
        let mut json = Vec::new();
        (&mut file).take(header).read_to_end(&mut json).with_context(unreadable)?;
        let metadata: Metadata = serde_json::from_slice(&json).with_context(|| format!("{} is no safetensors file", path.display()))?;
        let whole = 8 + header + metadata.data_len() as u64;
        ensure!(length == whole, "{} is damaged: it has {length} bytes where its header speaks of {whole}", path.display());
        Ok(TensorFile { path: path.to_owned(), file, metadata, data: 8 + header })
    }

    /// Refuses the file where a tensor of it is none of `entries`, by name and shape.
    pub fn refuse_others(&self, entries: &[Entry]) -> Result<()> {
        let other = |what: String| format!("{} is of another network: {what}", self.path.display());
        for name in self.metadata.offset_keys() {
            let info = self.metadata.info(&name).expect("one of its names");
            let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
                bail!(other(format!("it has {name}, which this one has not")));
            };
            if info.shape != entry.shape || info.dtype != Dtype::F32 {
                let (found, wanted) = (&info.shape, &entry.shape);
                bail!(other(format!("{name} is {:?} {found:?} there, and F32 {wanted:?} in this one", info.dtype)))
            }
        }
        Ok(())
    }

    /// The values of `entry`, one of those that the file was opened with.
    pub fn read(&mut self, entry: &Entry) -> Result<Vec<f32>> {
        let start = self.metadata.info(&entry.name).expect("checked when opened").data_offsets.0;
        let mut values = vec![0.0f32; entry.elements()];
        self.file
            .seek(SeekFrom::Start(self.data + start as u64))
            .and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(&mut values)))
            .with_context(|| format!("{}: {} cannot be read", self.path.display(), entry.name))?;
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    fn entries() -> Vec<Entry> {
        vec![Entry { name: "layers.0.weight".into(), shape: vec![3, 2] }, Entry { name: "layers.0.bias".into(), shape: vec![3] }]
    }

    fn values(index: usize) -> Vec<f32> {
        [vec![1.0, -2.0, 3.5, 0.0, -0.0, f32::MIN_POSITIVE], vec![7.0, 8.0, 9.0]][index].clone()
    }

    #[test]
    fn the_crate_reads_what_is_written_and_so_does_this() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let fingerprint = write(&path, &entries(), values).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(fingerprint, Fingerprint { bytes: bytes.len() as u64, crc32: crc32fast::hash(&bytes) });
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let mut file = TensorFile::open(&path, &entries()).unwrap();
        for (index, entry) in entries().iter().enumerate() {
            let view = tensors.tensor(&entry.name).unwrap();
            assert_eq!(view.shape(), entry.shape);
            assert_eq!(view.data(), bytemuck::cast_slice::<f32, u8>(&values(index)));
            assert_eq!(file.read(entry).unwrap(), values(index));
        }
        assert_eq!(tensors.len(), 2);
        verify(&path, &fingerprint).unwrap();
    }

    #[test]
    fn damage_and_foreign_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let fingerprint = write(&path, &entries(), values).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let refused = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let error = verify(&path, &fingerprint).unwrap_err().to_string();
            assert!(error.contains("a.safetensors is damaged"), "{error}");
        };
        for at in [0, 20, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            refused(&flipped);
        }
        refused(&whole[..whole.len() - 1]);
        let open = |bytes: &[u8], entries: &[Entry]| {
            std::fs::write(&path, bytes).unwrap();
            format!("{:#}", TensorFile::open(&path, entries).err().expect("refused"))
        };
        assert!(open(&whole[..whole.len() - 1], &entries()).contains("damaged"));
        assert!(open(b"PK\x03\x04 something else entirely, and long enough", &entries()).contains("no safetensors file"));
        assert!(open(b"", &entries()).contains("cannot be read"));
        let mut other = entries();
        other[0].shape = vec![2, 3];
        assert!(open(&whole, &other).contains("another network: layers.0.weight is F32 [3, 2] there, and F32 [2, 3]"));
        other[0] = Entry { name: "layers.1.weight".into(), shape: vec![3, 2] };
        assert!(open(&whole, &other).contains("it has no layers.1.weight"));
        assert!(open(&whole, &entries()[..1]).contains("it has layers.0.bias"));
    }
}
