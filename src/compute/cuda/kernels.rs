//! The kernels: their sources, the instances of them that a network needs, and what NVRTC makes of those.
//!
//! A kernel takes one structure ([`arguments`]); [`launches`] knows how its work is divided. The same sources run on a CPU ([`emulation`]).

pub mod arguments;
pub mod cache;
pub mod emulation;
pub mod launches;
pub mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::nvrtc::Nvrtc;
use crate::compute::settings::Precision;
use cache::Cache;

/// Name and source of the kernels that libtorch's backend uses.
pub const SOURCES: [File; 2] = [("adam.cu", include_str!("kernels/adam.cu")), ("noise.cu", include_str!("kernels/noise.cu"))];

const DEVICE: File = ("device.cuh", include_str!("kernels/device.cuh"));
const COMMON: [File; 2] = [("arguments.cuh", include_str!("kernels/arguments.cuh")), ("common.cuh", include_str!("kernels/common.cuh"))];
const PRODUCTS: File = ("products.cuh", include_str!("kernels/products.cuh"));
const APPLY: File = ("apply.cu", include_str!("kernels/apply.cu"));
const UPDATE: File = ("update.cu", include_str!("kernels/update.cu"));
const PLAIN: [File; 5] = [
    ("optimize.cu", include_str!("kernels/optimize.cu")),
    SOURCES[1],
    ("elementwise.cu", include_str!("kernels/elementwise.cu")),
    ("ends.cu", include_str!("kernels/ends.cu")),
    ("normalize.cu", include_str!("kernels/normalize.cu")),
];

/// Name and text.
type File = (&'static str, &'static str);

/// How a product is divided among the threads of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tile {
    /// Warps along rows, and along columns.
    pub wm: usize,
    pub wn: usize,
    /// Rows of a warp, in sixteens.
    pub mt: usize,
    /// Chunks of K in shared memory.
    pub stages: usize,
    /// Blocks that shall fit on a multiprocessor: what limits registers.
    pub blocks: usize,
}

impl Tile {
    pub fn threads(self) -> usize {
        32 * self.wm * self.wn
    }

    pub fn columns(self) -> usize {
        48 * self.wn
    }
}

/// One kernel of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    Apply {
        precision: Precision,
        transposed: bool,
        tile: Tile,
    },
    Update {
        precision: Precision,
        shared: bool,
        tile: Tile,
    },
    /// How fast products can be.
    Peak {
        precision: Precision,
    },
    /// One that is no template.
    Plain(&'static str),
}

impl Kernel {
    /// The division of a product.
    fn tile(self) -> Tile {
        match self {
            Kernel::Apply { tile, .. } | Kernel::Update { tile, .. } => tile,
            Kernel::Peak { .. } | Kernel::Plain(_) => panic!("{self} has no tile"),
        }
    }

    /// What makes an instance of a template; empty for others.
    fn instance(self) -> String {
        let mode = |precision| match precision {
            Precision::F32 => "F32",
            Precision::Tf32 => "TF32",
            Precision::Bf16 => "BF16",
        };
        match self {
            Kernel::Apply { precision, transposed, tile } => {
                let Tile { wm, wn, mt, stages, blocks } = tile;
                let template = format!("apply<{}, {transposed}, {wm}, {wn}, {mt}, {stages}>", mode(precision));
                format!("INSTANCE({self}, Apply, {}, {blocks}, {template})\n", tile.threads())
            }
            Kernel::Update { precision, shared, tile } => {
                let Tile { wm, wn, stages, blocks, .. } = tile;
                let template = format!("update<{}, {shared}, {wm}, {wn}, {stages}, 4>", mode(precision));
                format!("INSTANCE({self}, Update, {}, {blocks}, {template})\n", tile.threads())
            }
            Kernel::Peak { precision } => format!("INSTANCE({self}, Peak, 256, 2, peak<{}>)\n", mode(precision)),
            Kernel::Plain(_) => String::new(),
        }
    }
}

/// A kernel's name in a program.
impl fmt::Display for Kernel {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let word = |precision| match precision {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
        };
        let (name, precision, variant, tile) = match *self {
            Kernel::Apply { precision, transposed, tile } => ("apply", precision, if transposed { "_transposed" } else { "" }, tile),
            Kernel::Update { precision, shared, tile } => ("update", precision, if shared { "_shared" } else { "" }, tile),
            Kernel::Peak { precision } => return write!(out, "peak_{}", word(precision)),
            Kernel::Plain(name) => return out.write_str(name),
        };
        write!(out, "{name}{variant}_{}_{}x{}x{}", word(precision), tile.wm, tile.wn, tile.mt)
    }
}

impl PartialOrd for Kernel {
    fn partial_cmp(&self, other: &Kernel) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// By name.
impl Ord for Kernel {
    fn cmp(&self, other: &Kernel) -> std::cmp::Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

/// The text of a program with `kernels`, behind `device`, which stands for the device.
fn program<'a>(device: File, kernels: impl IntoIterator<Item = &'a Kernel> + Clone) -> String {
    let any = |which: fn(&Kernel) -> bool| kernels.clone().into_iter().any(which);
    let mut files = vec![device];
    files.extend(COMMON);
    if any(|kernel| matches!(kernel, Kernel::Plain(_))) {
        files.extend(PLAIN);
    }
    if any(|kernel| !matches!(kernel, Kernel::Plain(_))) {
        files.push(PRODUCTS);
    }
    if any(|kernel| matches!(kernel, Kernel::Apply { .. })) {
        files.push(APPLY);
    }
    if any(|kernel| matches!(kernel, Kernel::Update { .. })) {
        files.push(UPDATE);
    }
    let files = files.into_iter().map(|(name, text)| format!("#line 1 \"{name}\"\n{text}"));
    files.chain(kernels.clone().into_iter().map(|kernel| kernel.instance())).collect()
}

/// Code for a GPU, and the kernels that it has.
pub struct Module {
    pub kernels: Vec<Kernel>,
    pub image: Vec<u8>,
}

/// The code of `kernels` for GPUs of a compute capability: from the cache, or compiled now and kept there.
///
/// Each product is a program of its own, so that networks share what they have in common; the other kernels, all small, are one.
pub fn compile(kernels: &BTreeSet<Kernel>, capability: (i32, i32)) -> Result<Vec<Module>> {
    compile_with(&Nvrtc::load()?, Cache::open().as_ref(), kernels, capability)
}

fn compile_with(nvrtc: &Nvrtc, cache: Option<&Cache>, kernels: &BTreeSet<Kernel>, capability: (i32, i32)) -> Result<Vec<Module>> {
    let (plain, products): (Vec<Kernel>, Vec<Kernel>) = kernels.iter().partition(|kernel| matches!(kernel, Kernel::Plain(_)));
    let programs = std::iter::once(plain).chain(products.into_iter().map(|kernel| vec![kernel]));
    let mut modules = Vec::new();
    let mut missing = Vec::new();
    for kernels in programs.filter(|kernels| !kernels.is_empty()) {
        let name = if kernels.len() == 1 { kernels[0].to_string() } else { "plain".to_owned() };
        let source = program(DEVICE, &kernels);
        let entry = cache.map(|cache| cache.entry(&name, &source, nvrtc.version, capability));
        match entry.as_ref().and_then(cache::Entry::read) {
            Some(image) => modules.push(Module { kernels, image }),
            None => missing.push((kernels, name, source, entry)),
        }
    }
    if !missing.is_empty() {
        let (major, minor) = capability;
        log::info!("compiling {} kernels for compute capability {major}.{minor}, once for this machine", missing.len());
    }
    for (kernels, name, source, entry) in missing {
        let image = nvrtc.cubin(&name, &source, capability)?.image;
        if let Some(entry) = entry {
            entry.write(&image);
        }
        modules.push(Module { kernels, image });
    }
    Ok(modules)
}

/// PTX of [`SOURCES`] for a compute capability, once for the process: its GPUs are of one kind.
pub fn ptx(capability: (i32, i32)) -> Result<Vec<Vec<u8>>> {
    type Compiled = Option<((i32, i32), Vec<Vec<u8>>)>;
    static COMPILED: Mutex<Compiled> = Mutex::new(None);
    let mut compiled = COMPILED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((known, ptx)) = &*compiled
        && *known == capability
    {
        return Ok(ptx.clone());
    }
    let nvrtc = Nvrtc::load()?;
    let ptx = SOURCES.iter().map(|(file, source)| nvrtc.compile(file, source, capability)).collect::<Result<Vec<_>>>()?;
    *compiled = Some((capability, ptx.clone()));
    Ok(ptx)
}
