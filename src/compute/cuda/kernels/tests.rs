//! The kernels on a CPU, from the same sources, against float64: values, padding, that nothing outside is written, and the same bits in every
//! batch. And what NVRTC makes of them.

mod ends;
mod memory;
mod normalization;
mod pools;
mod products;
mod program;
mod rows;
mod shares;
mod units;
mod updates;

use std::sync::OnceLock;

use super::emulation::Emulation;
use super::launches::{self, Launch};
use memory::Buffer;

/// Every kernel, compiled once for all tests; nothing where there is no C++ compiler.
fn emulation() -> Option<&'static Emulation> {
    static EMULATION: OnceLock<Option<Emulation>> = OnceLock::new();
    let built = EMULATION.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        Emulation::build(&launches::all(), folder.path()).unwrap()
    });
    built.as_ref()
}

/// Runs launches one after the other; `buffers` are all that they may write, of whose surroundings it sees that nothing did.
fn run(launches: &[Launch], buffers: &[&Buffer]) {
    let emulation = emulation().expect("a test without a compiler returns before");
    for launch in launches {
        // SAFETY: the tests' buffers are of the sizes that their arguments name.
        unsafe { emulation.launch(launch) }.unwrap();
        for buffer in buffers {
            buffer.check(&launch.kernel.to_string());
        }
    }
}

/// Runs what `push` pushes.
fn launch(buffers: &[&Buffer], push: impl FnOnce(&mut Vec<Launch>)) {
    let mut list = Vec::new();
    push(&mut list);
    run(&list, buffers);
}
