//! With libtorch and without: the same bits on CPUs, and one clear word where a GPU is asked for that only libtorch computes on.

use std::process::Command;

use crate::site::Site;

const TWELVE_STEPS: &str = "[training]\nmax_steps = 12\n[parallel]\ndevice = \"cpu\"";

/// CRC-32 of `model.safetensors` after twelve steps, by kernels that fuse multiplication and addition. Neither a build, nor the number of
/// ranks, nor a change of the code may change them without intent.
const CHECKSUMS: [(&str, u32); 7] = [
    ("rule = \"bp\"", 0x5a5e_7d7e),
    ("rule = \"fa\"", 0x4612_e26d),
    ("rule = \"dfa\"", 0x5c9a_40cb),
    ("rule = \"tp\"\nalpha = 0.1\nsigma = 0.2", 0x1c80_b1e8),
    ("rule = \"dtp\"\nalpha = 0.1\nsigma = 0.2\nhybrid = 0.3", 0x79e7_033b),
    ("rule = \"sdtp\"\nalpha = 0.1\nsigma = 0.2", 0x9455_6f9a),
    ("rule = \"ao_sdtp\"\nschedule = \"alternating\"\nsigma = 0.2\nauxiliary_units = 13", 0xd667_9a7d),
];

#[test]
fn every_rule_has_its_bits_in_every_build() {
    if biodist::compute::cpu::simd::Isa::available()[0].name() == "portable" {
        return eprintln!("skipped: this machine's kernels do not fuse multiplication and addition");
    }
    let site = Site::new();
    let local = "network.layers=[{ kind = \"local\", kernel = 3, channels = 5, stride = 2 }, { kind = \"dense\", units = 20 }]";
    let of = |(index, (learning, _)): (usize, &(&'static str, u32))| {
        let config = site.configure("bits", learning, TWELVE_STEPS);
        let on = |ranks: usize| {
            let run = format!("{index}-{ranks}");
            site.succeed(ranks, &["train", &config, "--out", &run, "--set", local]);
            crc32fast::hash(&site.checkpoints(&run)[std::path::Path::new("00000012/model.safetensors")])
        };
        (*learning, on(1), on(2))
    };
    let found: Vec<_> = CHECKSUMS.iter().enumerate().map(of).collect();
    let wanted = CHECKSUMS.map(|(learning, checksum)| (learning, checksum, checksum));
    assert_eq!(found, wanted);
}

#[test]
fn the_version_says_whether_libtorch_is_there() {
    let said = Site::new().succeed(1, &["--version"]).stdout;
    let wanted = if cfg!(feature = "torch") { ", libtorch 2." } else { ", without libtorch, " };
    assert!(said.contains(wanted), "{said}");
}

#[cfg(not(feature = "torch"))]
#[test]
fn a_gpu_is_refused_with_a_command_that_builds_for_one() {
    let site = Site::new();
    let config = site.configure("gpu", "rule = \"bp\"", "[training]\nmax_steps = 2");
    let gpu = |arguments: &[&str]| {
        let outcome = site.run(2, arguments);
        let said: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("biodist: ")).collect();
        assert_eq!((outcome.code, said.len()), (Some(2), 1), "{outcome:?}");
        said[0].to_owned()
    };
    let no_driver = "parallel.device = \"cuda\": this machine has no NVIDIA driver";
    let said = gpu(&["train", &config, "--out", "run", "--set", "parallel.device=cuda"]);
    assert!(said.contains(no_driver), "{said}");
    let said = gpu(&["bench", "collectives", "--max", "4K", "--device", "cuda"]);
    assert!(said.contains(no_driver), "{said}");
    let said = gpu(&["train", &config, "--out", "run", "parallel.device=cuda", "parallel.kernels=libtorch"]);
    assert!(!site.path("run").exists(), "a refused command leaves no folder");
    assert!(said.contains("parallel.device = \"cuda\": this biodist was built without libtorch"), "{said}");

    let advice = said.split('`').nth(1).expect("a command in the message").split(" && ").collect::<Vec<_>>();
    assert_eq!(advice[0], "GPU=libtorch make setup");
    let options = advice[1].strip_prefix("cargo build --release ").expect("cargo builds");
    let mut cargo = Command::new(env!("CARGO"));
    // On a new machine what libtorch's bindings need is yet to be fetched.
    cargo.args(["tree", "--locked", "--invert", "tch", "--depth", "1"]).args(options.split(' '));
    let output = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && tree.contains("biodist v"), "{advice:?}: {output:?}");
}

/// A driver with one GPU, as far as the program asks.
const DRIVER: &str = "int cuInit(unsigned flags) { return flags; } int cuDeviceGetCount(int* count) { *count = 1; return 0; }";
/// What is no compiler of kernels, in the place of one.
const COMPILER: &str = "int nothing;";

#[test]
fn that_a_gpu_stays_idle_is_said_once() {
    let site = Site::new();
    let config = site.configure("idle", "rule = \"bp\"", "[training]\nmax_steps = 2");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_owned());
    for (library, source) in [("libcuda.so.1", DRIVER), ("libnvrtc.so.13", COMPILER)] {
        std::fs::write(site.path("library.c"), source).unwrap();
        let compile = ["-shared", "-fPIC", "-o", library, "library.c"];
        assert!(Command::new(&compiler).args(compile).current_dir(site.path("")).status().unwrap().success());
    }
    let idle = |run: &str, device: &str, driver: bool| {
        let device = format!("parallel.device={device}");
        let mut command = site.command(2, &["train", &config, "--out", run, "--set", &device]);
        if driver {
            command.env("LD_LIBRARY_PATH", site.path(""));
        }
        let outcome = crate::site::Job::start(command, crate::site::turn(2)).wait();
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        outcome.stderr.lines().filter(|line| line.contains("GPU")).map(str::to_owned).collect::<Vec<_>>()
    };
    let said = idle("auto", "auto", true);
    assert_eq!(said.len(), 1, "{said:?}");
    for words in
        ["computing on the CPU, not on this machine's GPU", "NVRTC, which compiles the kernels, is not here (", "`GPU=yes make setup`"]
    {
        assert!(said[0].contains(words), "{said:?}");
    }
    assert!(idle("cpu", "cpu", true).is_empty(), "who chose the CPU knows");
    assert!(idle("none", "auto", false).is_empty(), "there is no GPU");
}
