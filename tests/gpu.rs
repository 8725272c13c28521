//! What `scripts/gpu_check` runs of whole runs: the programs, data and a begun run that it packs, checked where they were carried.
//!
//! The folder that was packed, with the program, is named by GPU_CHECK, the device by DEVICE. Without them each check makes its own here,
//! with the program that was built beside it, on the CPU: all but the GPU itself is rehearsed by every `cargo test`. A check prints its
//! figures as a line of JSON, and as a line for the script's table.

#[path = "end_to_end/site.rs"]
#[allow(dead_code)]
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

/// Steps of the run that a CPU begins, and that it has after it was resumed.
const BEGUN: u64 = 20;
const RESUMED: u64 = 60;
/// A GPU's sums are in another order; after so many steps losses are this far apart at most.
const FARTHEST: f64 = 1e-4;
const PHOTOS: usize = 160;

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Where the checks work.
struct Place {
    folder: PathBuf,
    program: PathBuf,
    device: String,
    _temporary: Option<TempDir>,
}

impl Place {
    /// The packed folder, or an empty one.
    fn find() -> Place {
        let device = variable("DEVICE").unwrap_or("cpu".to_owned());
        match variable("GPU_CHECK").map(PathBuf::from) {
            Some(folder) => Place { program: folder.join("biodist"), folder, device, _temporary: None },
            None => {
                let temporary = tempfile::tempdir().unwrap();
                let program = PathBuf::from(env!("CARGO_BIN_EXE_biodist"));
                Place { folder: temporary.path().to_owned(), program, device, _temporary: Some(temporary) }
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn batch(&self) -> usize {
        variable("BATCH").map_or(16, |batch| batch.parse().unwrap())
    }

    /// What the program prints, which must end well. It is started in this project's folder, where the configurations are.
    fn run(&self, arguments: &[String]) -> String {
        let output = Command::new(&self.program).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        eprint!("{errors}");
        assert!(output.status.success(), "{arguments:?}: {}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The settings of a device; on a GPU with the kernels that KERNELS names.
    fn on(&self, device: &str) -> [String; 2] {
        let kernels = variable("KERNELS").filter(|_| device == "cuda").unwrap_or("auto".to_owned());
        [format!("parallel.device=\"{device}\""), format!("parallel.kernels=\"{kernels}\"")]
    }

    /// The command of the small run up to a step, on a device.
    fn small_run(&self, out: &str, steps: u64, device: &str) -> Vec<String> {
        let data = self.path("data").display().to_string();
        let sets = [
            "training.log_every_steps=1".to_owned(),
            format!("data.train=\"{data}\""),
            format!("data.test=\"{data}\""),
            format!("training.max_steps={steps}"),
            "training.keep_checkpoints=1".to_owned(),
        ];
        let sets = sets.into_iter().chain(self.on(device));
        let train = ["train", "configs/mnist_fc_dtp_parallel.toml", "--out"].map(str::to_owned);
        let out = self.path(out).display().to_string();
        train.into_iter().chain([out]).chain(sets.into_iter().flat_map(|set| ["--set".to_owned(), set])).collect()
    }

    /// A run that a CPU has begun, and its data: images of ten classes, each a pattern under noise.
    fn begin(&self) {
        ["data", "begun"].iter().for_each(|name| drop(fs::remove_dir_all(self.path(name))));
        let mut random = Random(1);
        let patterns: Vec<Vec<u8>> = (0..10).map(|_| (0..28 * 28).map(|_| random.below(160)).collect()).collect();
        let image = |label: usize, random: &mut Random| patterns[label].iter().map(|value| value + random.below(96)).collect();
        let samples: Vec<(usize, Vec<u8>)> = (0..2000)
            .map(|_| {
                let label = usize::from(random.below(10));
                (label, image(label, &mut random))
            })
            .collect();
        site::write_samples(&self.path("data"), [28, 28, 1], 10, &samples);
        self.run(&self.small_run("begun", BEGUN, "cpu"));
        // From here nobody goes on, and what is carried shall be small.
        fs::remove_dir_all(self.path("begun/checkpoints/00000000")).expect("a run begins with a checkpoint");
    }

    /// Photos of 256x256 pixels, stored as JPEG: soft colours under noise, whose files are about as large as those of real photos.
    fn take_photos(&self) {
        const SIDE: usize = 256;
        ["photos", "raw"].iter().for_each(|name| drop(fs::remove_dir_all(self.path(name))));
        let mut random = Random(2);
        for photo in 0..PHOTOS {
            let folder = self.path("raw").join((photo % 10).to_string());
            fs::create_dir_all(&folder).unwrap();
            let slopes: [[usize; 2]; 3] = std::array::from_fn(|_| [usize::from(random.below(100)), usize::from(random.below(100))]);
            let mut pixels = Vec::with_capacity(3 * SIDE * SIDE);
            for (y, x) in (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (y, x))) {
                pixels.extend(slopes.map(|[across, down]| ((x * across + y * down) / SIDE) as u8 + random.below(32)));
            }
            let file = fs::File::create(folder.join(format!("{photo}.png"))).unwrap();
            let mut encoder = png::Encoder::new(file, SIDE as u32, SIDE as u32);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_compression(png::Compression::Fast);
            encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_biodist")).with_file_name("data-prep");
        assert!(program.exists(), "{} is not built: cargo build --release --workspace", program.display());
        let mut prepare = Command::new(program);
        prepare.arg("folder").arg("--images").arg(self.path("raw")).args(["--size", "256", "--store", "jpeg", "--out"]);
        let output = prepare.arg(self.path("photos")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        fs::remove_dir_all(self.path("raw")).unwrap();
    }

    fn is_packed(&self) -> bool {
        self.path("begun").exists()
    }
}

/// Numbers that are the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u8 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % bound) as u8
    }
}

/// What a check has found. Not on the line that the test's name begins.
fn tell(figures: &Value) {
    println!("\n{figures}\nfigures: {}", summary(figures));
}

/// A row's figures, as far as they are there.
fn summary(figures: &Value) -> String {
    let number = |key: &str| figures[key].as_f64();
    let milliseconds = |phase: &Value| 1e3 * phase["seconds"].as_f64().or(phase.as_f64()).unwrap_or(0.0);
    // The longest first.
    let phases = |key: &str| {
        let mut all: Vec<(&String, f64)> =
            figures[key].as_object().into_iter().flatten().map(|(name, phase)| (name, milliseconds(phase))).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.iter().take(5).map(|(name, time)| format!("{name} {time:.1}")).collect::<Vec<_>>().join(", ")
    };
    let mut parts = Vec::new();
    parts.extend(number("samples_per_second").map(|speed| format!("{speed:.0} samples/s")));
    parts.extend(number("step_seconds").map(|step| format!("step {:.1} ms ({})", 1e3 * step, phases("phases"))));
    parts.extend(number("device_memory_bytes").filter(|bytes| *bytes > 0.0).map(|bytes| format!("{:.1} GiB", bytes / f64::from(1 << 30))));
    parts.extend(figures["seconds"].is_object().then(|| format!("a step in ms: {}", phases("seconds"))));
    parts.extend(number("farthest").map(|farthest| format!("{} losses, {farthest:.1e} away at most", figures["losses"])));
    parts.join("; ")
}

fn lines(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Makes what the other checks need, for `scripts/gpu_check pack`.
#[test]
#[ignore = "scripts/gpu_check"]
fn pack() {
    let place = Place::find();
    place.begin();
    place.take_photos();
}

/// Goes on with the begun run on a CPU and on the device, and compares the losses of each step.
#[test]
fn resume() {
    let place = Place::find();
    if !place.is_packed() {
        place.begin();
    }
    let losses = |to: &str, device: &str| {
        let run = place.path(to);
        let _ = fs::remove_dir_all(&run);
        assert!(Command::new("cp").arg("-r").arg(place.path("begun")).arg(&run).status().unwrap().success());
        place.run(&[place.small_run(to, RESUMED, device), vec!["--resume".to_owned()]].concat());
        let mut losses = BTreeMap::new();
        for line in lines(&run) {
            for key in ["loss", "inverse_loss"] {
                losses.extend(line[key].as_f64().map(|loss| ((line["step"].as_u64().unwrap(), key), loss)));
            }
        }
        losses
    };
    let (ours, theirs) = (losses("run-cpu", "cpu"), losses("run-device", &place.device));
    assert!(ours.len() as u64 >= RESUMED && ours.keys().eq(theirs.keys()), "{} and {} losses", ours.len(), theirs.len());
    let farthest = ours.iter().map(|(at, loss)| (theirs[at] - loss).abs() / loss.abs().max(1e-3)).fold(0.0, f64::max);
    tell(&json!({ "losses": ours.len(), "farthest": farthest }));
    assert!(farthest <= if place.device == "cpu" { 0.0 } else { FARTHEST }, "{farthest}");
}

/// Trains twice on the device, once with a stop in the middle: the same bits.
#[test]
fn twice() {
    let place = Place::find();
    if !place.is_packed() {
        place.begin();
    }
    let end = |to: &str| {
        let folder = place.path(to).join("checkpoints").join(format!("{RESUMED:08}"));
        ["model.safetensors", "optimizer.safetensors"].map(|file| fs::read(folder.join(file)).unwrap())
    };
    for to in ["run-once", "run-again"] {
        let _ = fs::remove_dir_all(place.path(to));
    }
    place.run(&place.small_run("run-once", RESUMED, &place.device));
    place.run(&place.small_run("run-again", BEGUN, &place.device));
    place.run(&[place.small_run("run-again", RESUMED, &place.device), vec!["--resume".to_owned()]].concat());
    assert!(end("run-once") == end("run-again"), "a run that was resumed has other bits");
    tell(&json!({ "losses": lines(&place.path("run-again")).len(), "farthest": 0.0 }));
}

/// Trains with two ranks that share the device, as one does. NCCL joins them on a GPU where it is told that they are on two hosts.
#[test]
fn ranks() {
    const STEPS: u64 = 40;
    let place = Place::find();
    if !place.is_packed() {
        place.begin();
    }
    let on_gpu = place.device != "cpu";
    let losses = |to: &str, ranks: usize, exchange: &str| -> Vec<f64> {
        let _ = fs::remove_dir_all(place.path(to));
        let backend = if on_gpu { "nccl" } else { "auto" };
        let sets = [
            "--set".to_owned(),
            format!("parallel.exchange=\"{exchange}\""),
            "--set".to_owned(),
            format!("parallel.backend=\"{backend}\""),
        ];
        let arguments = [place.small_run(to, STEPS, &place.device), sets.to_vec()].concat();
        if ranks == 1 {
            place.run(&arguments);
        } else {
            let mut command = Command::new(variable("MPIRUN").unwrap_or("mpirun".to_owned()));
            command.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "none", "sh", "-c"]);
            command.arg("NCCL_HOSTID=host$OMPI_COMM_WORLD_RANK exec \"$0\" \"$@\"").arg(&place.program).args(arguments);
            command.envs([("NCCL_SOCKET_IFNAME", "lo"), ("NCCL_IB_DISABLE", "1"), ("NCCL_P2P_DISABLE", "1"), ("NCCL_SHM_DISABLE", "1")]);
            site::allow_mpirun(&mut command);
            let output = command.output().unwrap();
            eprint!("{}", String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{exchange}: {}", output.status);
        }
        let losses: Vec<f64> = lines(&place.path(to)).iter().filter_map(|line| line["loss"].as_f64()).collect();
        assert!(losses.len() as u64 >= STEPS, "{} losses", losses.len());
        losses
    };
    let alone = losses("run-alone", 1, "activities");
    let farthest = |exchange: &str| {
        let together = losses("run-ranks", 2, exchange);
        assert_eq!(together.len(), alone.len());
        together.iter().zip(&alone).map(|(ours, wanted)| (ours - wanted).abs() / wanted.abs().max(1e-3)).fold(0.0, f64::max)
    };
    let [by_activities, by_gradients] = ["activities", "gradients"].map(farthest);
    tell(&json!({ "losses": 2 * alone.len(), "farthest": by_activities.max(by_gradients) }));
    // Libtorch's products are divided by the number of samples.
    let same = !on_gpu || variable("KERNELS").is_some_and(|kernels| kernels == "cuda");
    assert!(if same { by_activities == 0.0 } else { by_activities <= FARTHEST }, "activities: {by_activities}");
    assert!(by_gradients <= FARTHEST, "gradients: {by_gradients}");
}

/// Trains on photos from their shards: whether loading keeps up with the network, evaluation and checkpoints left out.
#[test]
fn photos() {
    let place = Place::find();
    if !place.is_packed() {
        place.take_photos();
    }
    let (config, crop) = if place.device == "cpu" { ("cifar_fc_bp", 32) } else { ("imagenet_bp", 224) };
    let (data, run) = (place.path("photos").display().to_string(), place.path("run-photos"));
    let _ = fs::remove_dir_all(&run);
    let sets = [
        format!("data.train=\"{data}\""),
        format!("data.test=\"{data}\""),
        format!("data.crop=[{crop}, {crop}]"),
        "data.augment=[\"random_crop\", \"horizontal_flip\"]".to_owned(),
        format!("data.batch_size={}", place.batch()),
        "training.max_steps=40".to_owned(),
        "training.log_every_steps=20".to_owned(),
        "training.eval_every_epochs=0".to_owned(),
        "training.checkpoint_every_epochs=0".to_owned(),
    ];
    let sets = sets.into_iter().chain(place.on(&place.device));
    let train = ["train".to_owned(), format!("configs/{config}.toml"), "--out".to_owned(), run.display().to_string()];
    place.run(&train.into_iter().chain(sets.into_iter().flat_map(|set| ["--set".to_owned(), set])).collect::<Vec<_>>());
    let last = lines(&run).into_iter().rfind(|line| line["split"] == "train").unwrap();
    assert_eq!(last["step"], 40);
    tell(&json!({ "samples_per_second": last["samples_per_second"], "seconds": last["seconds"] }));
}

/// Samples a second on random data, the longest phases, and the GPU's memory in use: of the configuration CONFIG in PRECISION.
#[test]
#[ignore = "scripts/gpu_check"]
fn speed() {
    let place = Place::find();
    let name = variable("CONFIG").unwrap();
    let (shape, classes) = match name.split('_').next() {
        Some("mnist") => ("28x28x1", "10"),
        Some("cifar") => ("32x32x3", "10"),
        _ => ("224x224x3", "1000"),
    };
    let config = format!("configs/{name}.toml");
    let steps = variable("STEPS").unwrap_or("20".to_owned());
    let bench = ["bench", "step", &config, "--input", shape, "--classes", classes, "--steps", &steps, "--json"].map(str::to_owned);
    let sets = [format!("data.batch_size={}", place.batch()), format!("parallel.precision=\"{}\"", variable("PRECISION").unwrap())];
    let sets = sets.into_iter().chain(place.on(&place.device));
    let said = place.run(&bench.into_iter().chain(sets.into_iter().flat_map(|set| ["--set".to_owned(), set])).collect::<Vec<_>>());
    tell(&serde_json::from_str(said.lines().last().unwrap()).unwrap());
}

#[test]
fn kernels_are_listed_as_nsight_compute_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let table = [
        "==PROF== Profiling \"apply\"",
        "\"ID\",\"Kernel Name\",\"Metric Name\",\"Metric Unit\",\"Metric Value\"",
        "\"0\",\"apply\",\"dram__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"80\"",
        "\"0\",\"apply\",\"gpu__time_duration.sum\",\"nsecond\",\"3,000,000\"",
        "\"0\",\"apply\",\"sm__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"10\"",
        "\"1\",\"update\",\"dram__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"90\"",
        "\"1\",\"update\",\"gpu__time_duration.sum\",\"nsecond\",\"5,000,000\"",
        "\"1\",\"update\",\"sm__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"30\"",
        "\"2\",\"apply\",\"dram__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"40\"",
        "\"2\",\"apply\",\"gpu__time_duration.sum\",\"nsecond\",\"1,000,000\"",
        "\"2\",\"apply\",\"sm__throughput.avg.pct_of_peak_sustained_elapsed\",\"%\",\"50\"",
    ];
    fs::write(folder.path().join("table"), table.join("\n")).unwrap();
    let ncu = folder.path().join("ncu");
    fs::write(&ncu, "#!/bin/sh\ncat \"$(dirname \"$0\")/table\"\n").unwrap();
    fs::set_permissions(&ncu, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let run = || Command::new("python3").args(["scripts/gpu_kernels.py", "biodist"]).env("PATH", &path).output().unwrap();
    let said = String::from_utf8(run().stdout).unwrap();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[0], "kernel: update: 1 times, 5.000 ms, 90 % of the memory's rate, 30 % of the processors'");
    assert_eq!(lines[1], "kernel: apply: 2 times, 4.000 ms, 70 % of the memory's rate, 20 % of the processors'");
    assert_eq!(lines[3], "figures: 2 kernels, 9.0 ms in all");
    fs::write(folder.path().join("table"), "").unwrap();
    assert!(!run().status.success());
    fs::write(folder.path().join("table"), "==ERROR== ERR_NVGPUCTRPERM - no permission").unwrap();
    assert_eq!(run().stdout, b"figures: this machine lets nobody but its administrator read counters\n");
}

#[test]
fn rows_have_the_figures_that_are_there() {
    let step = json!({
        "samples_per_second": 2360.4, "step_seconds": 0.0271, "device_memory_bytes": 1u64 << 34,
        "phases": { "load": { "seconds": 0.0078, "floor_seconds": 1.0 }, "inverse": { "seconds": 0.0082 } },
    });
    assert_eq!(summary(&step), "2360 samples/s; step 27.1 ms (inverse 8.2, load 7.8); 16.0 GiB");
    assert_eq!(summary(&json!({ "losses": 80, "farthest": 1.5e-6 })), "80 losses, 1.5e-6 away at most");
    assert_eq!(summary(&json!({ "samples_per_second": 10, "seconds": { "load": 0.002 } })), "10 samples/s; a step in ms: load 2.0");
}
