//! What compilers make of the kernels, and the cache of that.

use std::collections::BTreeSet;

use super::memory::{Buffer, random};
use crate::compute::cuda::kernels::arguments::{Apply, Job, Map, SIZES};
use crate::compute::cuda::kernels::cache::Cache;
use crate::compute::cuda::kernels::emulation::Emulation;
use crate::compute::cuda::kernels::{Kernel, SOURCES, compile_with, launches, program};
use crate::compute::cuda::nvrtc::Nvrtc;
use crate::compute::settings::Precision::Tf32;

/// The compiler, where it is.
fn nvrtc() -> Option<Nvrtc> {
    Nvrtc::load().map_err(|error| eprintln!("skipped: NVRTC is not here ({error:#})")).ok()
}

/// Registers and bytes of spills of each kernel in the assembler's words.
fn registers(log: &str) -> Vec<(String, u32, u32)> {
    let number_before = |line: &str, words: &str| -> Option<u32> {
        line.split_once(words)?.0.split([' ', ',']).rfind(|word| !word.is_empty())?.parse().ok()
    };
    let (mut name, mut spilled, mut all) = (String::new(), 0, Vec::new());
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            name = rest.split('\'').next().unwrap_or_default().to_owned();
        }
        spilled = number_before(line, " bytes spill stores").unwrap_or(spilled);
        if let Some((_, rest)) = line.split_once("Used ") {
            all.push((name.clone(), rest.split(' ').next().unwrap().parse().unwrap(), spilled));
        }
    }
    all
}

/// Compiles every kernel for GPUs of a capability, and prints registers and spills.
fn no_kernel_spills(capability: (i32, i32)) {
    let Some(nvrtc) = nvrtc() else { return };
    let all = launches::all();
    let cubin = nvrtc.cubin("all", &program(super::super::DEVICE, &all), capability).unwrap();
    let registers = registers(&cubin.log);
    for kernel in all {
        assert!(registers.iter().any(|(name, ..)| *name == kernel.to_string()), "{kernel} is not in {registers:?}");
    }
    for (name, registers, spilled) in registers {
        println!("sm_{}{} {name}: {registers} registers, {spilled} bytes spilled", capability.0, capability.1);
        assert!(spilled <= 16, "{name} spills {spilled} bytes of {registers} registers");
    }
}

#[test]
fn no_kernel_spills_on_an_a100() {
    no_kernel_spills((8, 0));
}

#[test]
fn no_kernel_spills_on_an_h100() {
    no_kernel_spills((9, 0));
}

#[test]
fn libtorchs_kernels_compile_and_mistakes_are_told() {
    let Some(nvrtc) = nvrtc() else { return };
    for (name, source) in SOURCES {
        for capability in [(8, 0), (9, 0)] {
            let text = String::from_utf8(nvrtc.compile(name, source, capability).unwrap()).unwrap();
            assert!(text.contains(&format!(".target sm_{}{}", capability.0, capability.1)) && text.contains(".visible .entry"), "{name}");
            assert!(!text.contains("fma."), "{name} must not fuse multiplication and addition");
        }
        let error = nvrtc.compile(name, &source.replace("__global__ void", "__global__ vod"), (9, 0)).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("9.0") && error.contains("vod"), "{error}");
    }
}

#[test]
fn compiled_kernels_are_kept_on_disk() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (cache, kernels) = (Cache::at(&folder.path().join("kernels")), BTreeSet::from([Kernel::Plain("noise")]));
    let compiled = || compile_with(&nvrtc, Some(&cache), &kernels, (8, 0)).unwrap().remove(0).image;
    let image = compiled();
    assert!(image.starts_with(b"\x7fELF"));
    let files = || -> Vec<std::path::PathBuf> {
        std::fs::read_dir(folder.path().join("kernels")).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let [file] = &files()[..] else { panic!("one file is kept: {:?}", files()) };
    // What is read is what lies there: an image of another content, well kept, comes back.
    let entry = cache.entry("noise", &program(super::super::DEVICE, &kernels), nvrtc.version, (8, 0));
    entry.write(b"another");
    assert_eq!(compiled(), b"another");
    // Damaged, cut short, or of another key: compiled again, and kept again.
    let whole = std::fs::read(file).unwrap();
    let mut changed = whole.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut other_key = whole.clone();
    other_key[0] ^= 1;
    for bad in [&changed[..], &whole[..7], &other_key[..], &[]] {
        std::fs::write(file, bad).unwrap();
        assert_eq!(compiled(), image);
        assert_eq!(entry.read().as_ref(), Some(&image));
    }
    assert_eq!(files().len(), 1, "nothing else is left: {:?}", files());
    // Other sources, another version or another GPU have files of their own.
    let source = program(super::super::DEVICE, &kernels);
    let others = [
        cache.entry("noise", &format!("{source} "), nvrtc.version, (8, 0)),
        cache.entry("noise", &source, (nvrtc.version.0, nvrtc.version.1 + 1), (8, 0)),
        cache.entry("noise", &source, nvrtc.version, (9, 0)),
    ];
    assert!(others.iter().all(|other| other.read().is_none()));
    // A cache that cannot be written is passed over.
    let blocked = Cache::at(&file.join("kernels"));
    assert_eq!(compile_with(&nvrtc, Some(&blocked), &kernels, (8, 0)).unwrap()[0].image, image);
    assert_eq!(compile_with(&nvrtc, None, &kernels, (8, 0)).unwrap()[0].image, image);
}

#[test]
fn several_ranks_may_keep_a_kernel_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let image = vec![7u8; 1 << 20];
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let entry = cache.entry("apply", "source", (13, 0), (9, 0));
                for _ in 0..20 {
                    entry.write(&image);
                    assert!(entry.read().as_ref() == Some(&image), "half a file was read");
                }
            });
        }
    });
}

#[test]
fn both_sides_agree_on_the_arguments() {
    let names: Vec<String> = SIZES.iter().map(|(name, size)| format!("static_assert(sizeof({name}) == {size});\n")).collect();
    let text = program(super::super::emulation::HEADER, &BTreeSet::from([Kernel::Plain("noise")])) + &names.concat();
    let folder = tempfile::tempdir().unwrap();
    Emulation::compile(&text, folder.path()).unwrap();
}

/// What a product gives whose source is changed.
fn with(from: &str, to: &str) -> Option<anyhow::Result<Vec<f32>>> {
    let (x, w) = (Buffer::of(&random(1, 64 * 64)), Buffer::of(&random(2, 64 * 48)));
    let (starts, links, out) = (Buffer::of(&[0, 1]), Buffer::of(&[0, 0]), Buffer::new(64 * 48));
    let mut apply = Apply {
        map: Map { starts: starts.address(), links: links.address(), rows: 64, columns: 48, pitch: 64, place: 0 },
        weights: w.address(),
        samples: 64,
        jobs: 1,
        positions: 1,
        ..Apply::default()
    };
    apply.job[0] = Job { source: x.address(), destination: out.address(), kept: 0 };
    let mut list = Vec::new();
    launches::apply(&mut list, Tf32, false, 1, &apply);
    let text = program(super::super::emulation::HEADER, &BTreeSet::from([list[0].kernel]));
    assert!(text.contains(from), "the source has no {from}");
    let folder = tempfile::tempdir().unwrap();
    let emulation = Emulation::compile(&text.replace(from, to), folder.path()).unwrap()?;
    // SAFETY: the buffers are of the sizes that the argument names.
    Some(unsafe { emulation.launch(&list[0]) }.map(|()| out.floats()))
}

#[test]
fn the_emulation_shows_what_a_gpu_might_hide() {
    let wrong = |values: anyhow::Result<Vec<f32>>| values.unwrap().iter().any(|x| x.is_nan());
    let Some(right) = with("arrived<STAGES - 2>();", "arrived<STAGES - 2>();") else { return };
    assert!(!wrong(right));
    assert!(wrong(with("arrived<STAGES - 2>();", "arrived<STAGES - 1>();").unwrap()), "a wait too short");
    assert!(wrong(with("arrived<STAGES - 2>();\n        __syncthreads();", "arrived<STAGES - 2>();").unwrap()), "no barrier");
    let unaligned = with("p.job[job].source +", "p.job[job].source + 1 +").unwrap().unwrap_err();
    assert!(unaligned.to_string().contains("16 bytes"), "{unaligned}");
    let stuck = with("__syncthreads();", "if (threadIdx.x != 3) __syncthreads();").unwrap().unwrap_err();
    assert!(stuck.to_string().contains("wait for each other for ever"), "{stuck}");
}
