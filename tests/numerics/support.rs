//! Configurations, samples, and an engine of one process to try them on.

use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use biodist::compute::cuda::Gpu;
use biodist::compute::cuda::driver::{self, Driver};
use biodist::compute::device::Device;
use biodist::compute::{Batch, Buffer, Measure, Part};
#[cfg(feature = "torch")]
use biodist::compute::{device, settings::KernelChoice};
use biodist::config::{self, Config, Rule, Schedule};
use biodist::exchange::{Single, Transport};
use biodist::learner::Engine;
use biodist::network::{MapId, Network};
use biodist::rules::Phase;

use crate::gpu::stand_in::{Early, StandIn};

/// A file of `tests/data`: of the source tree that the variable names, as a program that was built elsewhere needs it.
pub fn data(file: &str) -> PathBuf {
    let root = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    PathBuf::from(root).join("tests/data").join(file)
}

/// The configuration `tests/data/<name>.toml` with `overrides` of the form `key=value`.
pub fn config(name: &str, overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::load(&data(&format!("{name}.toml")), &overrides).unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// Kernels that this machine can run, as `parallel.kernels` names them.
pub fn kernels() -> Vec<&'static str> {
    biodist::compute::cpu::simd::Isa::available().into_iter().map(|isa| isa.name()).collect()
}

/// Devices that libtorch has here.
#[cfg(feature = "torch")]
pub fn devices() -> Vec<Device> {
    let gpu = (device::shared(config::Device::Auto, KernelChoice::Libtorch) > 0).then_some(Device::Cuda(0));
    if gpu.is_none() {
        eprintln!("skipped: there is no GPU");
    }
    [Device::Cpu].into_iter().chain(gpu).collect()
}

/// Numbers in [0, 1) that depend on the seed alone (a linear congruential generator; nothing here is sensitive to its quality).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random.next();
        random
    }

    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1u64 << 24) as f32
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() * end as f32) as usize
    }
}

/// Images with labels.
#[derive(Clone)]
pub struct Samples {
    pub shape: [usize; 3],
    pub classes: usize,
    /// [samples, height, width, channels].
    pub pixels: Vec<f32>,
    pub labels: Vec<u32>,
}

impl Samples {
    pub fn random(shape: [usize; 3], classes: usize, count: usize) -> Samples {
        let mut random = Random::new(count as u64);
        let units: usize = shape.iter().product();
        let pixels = (0..count * units).map(|_| random.next()).collect();
        let labels = (0..count).map(|_| random.below(classes) as u32).collect();
        Samples { shape, classes, pixels, labels }
    }

    pub fn units(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An engine alone, or one of several, with the samples that it learns.
pub struct Learner {
    pub engine: Engine,
    pub samples: Samples,
    transport: Arc<dyn Transport>,
    batch: usize,
    schedule: Schedule,
    /// Steps taken: the next one's number.
    pub step: u64,
}

impl Learner {
    /// On the CPU's kernels, also where there is a GPU; with the initial parameters that the seed gives.
    pub fn new(config: &Config, samples: &Samples, threads: usize) -> Learner {
        Learner::of_rank(config, samples, threads, Arc::new(Single))
    }

    /// [`Learner::new`] of one of several ranks, which each take a part of every batch.
    pub fn of_rank(config: &Config, samples: &Samples, threads: usize, transport: Arc<dyn Transport>) -> Learner {
        let network = Network::new(samples.shape, samples.classes, &config.network).expect("the network can be made");
        let mut config = config.clone();
        config.parallel.device = config::Device::Cpu;
        let engine = Engine::new(&config, &network, transport.clone(), threads).expect("the engine can be made");
        Learner { transport, ..Learner::with(engine, &config, samples) }
    }

    /// [`Learner::new`] on tensors of every device that libtorch has here; on none where the program is built without it.
    #[cfg(feature = "torch")]
    pub fn on_tensors(config: &Config, samples: &Samples) -> Vec<(Device, Learner)> {
        devices().into_iter().map(|device| (device, Learner::on(config, samples, device))).collect()
    }

    #[cfg(not(feature = "torch"))]
    pub fn on_tensors(_: &Config, _: &Samples) -> Vec<(Device, Learner)> {
        Vec::new()
    }

    /// [`Learner::new`] on tensors of `device`.
    #[cfg(feature = "torch")]
    pub fn on(config: &Config, samples: &Samples, device: Device) -> Learner {
        let network = Network::new(samples.shape, samples.classes, &config.network).expect("the network can be made");
        Learner::with(Engine::on_tensors(config, &network, Arc::new(Single), device).expect("the engine can be made"), config, samples)
    }

    /// [`Learner::new`] on our kernels for GPUs: on the GPU where there is one, else on a stand-in.
    pub fn on_own_gpu(config: &Config, samples: &Samples) -> Learner {
        let gpu: Rc<dyn Gpu> = if driver::gpus().is_ok_and(|gpus| gpus > 0) {
            Rc::new(Driver::new(0).expect("the GPU can be used"))
        } else {
            Rc::new(StandIn::new(Early::All))
        };
        Learner::on_stand_in(config, samples, gpu)
    }

    /// [`Learner::new`] on our kernels for GPUs, on a stand-in for one.
    pub fn on_stand_in(config: &Config, samples: &Samples, gpu: Rc<dyn Gpu>) -> Learner {
        let network = Network::new(samples.shape, samples.classes, &config.network).expect("the network can be made");
        Learner::with(Engine::on_gpu(config, &network, Arc::new(Single), gpu).expect("the engine can be made"), config, samples)
    }

    fn with(mut engine: Engine, config: &Config, samples: &Samples) -> Learner {
        engine.initialize().expect("parameters can be set");
        let (samples, transport, schedule) = (samples.clone(), Arc::new(Single), config.learning.schedule);
        Learner { engine, samples, transport, batch: config.data.batch_size, schedule, step: 0 }
    }

    /// One step on the next batch of the samples, in order and round again. Alternating phases last two steps, inverse first.
    /// Returns the means of loss and inverse loss.
    pub fn step(&mut self) -> [f64; 2] {
        let phase = match (self.schedule, self.step / 2 % 2) {
            (Schedule::Parallel, _) => Phase::Both,
            (Schedule::Alternating, 0) => Phase::Inverse,
            (Schedule::Alternating, _) => Phase::Forward,
        };
        let batches = self.samples.labels.len() / self.batch;
        let samples = self.batch / self.transport.size();
        let first = self.transport.rank() * samples;
        let from = self.step as usize % batches * self.batch + first;
        let units = self.samples.units();
        let pixels = (&self.samples.pixels[from * units..(from + samples) * units]).into();
        let batch = Batch { pixels, labels: &self.samples.labels[from..from + samples], samples, first, step: self.step };
        self.engine.learn(&batch, phase, 1.0).expect("the step succeeds");
        self.step += 1;
        [Measure::Loss, Measure::InverseLoss].map(|measure| mean(&self.transport.all_of(self.engine.measure(measure))))
    }

    pub fn steps(&mut self, count: usize) -> Vec<[f64; 2]> {
        (0..count).map(|_| self.step()).collect()
    }

    /// Every tensor by its name in checkpoints: maps in order, weight before bias.
    pub fn tensors(&self) -> Vec<(String, MapId, Part)> {
        let maps = self.engine.maps().all.iter().enumerate();
        maps.flat_map(|(index, map)| map.tensors().map(move |(part, name, _)| (name.to_owned(), MapId(index), part))).collect()
    }

    fn find(&self, name: &str) -> (MapId, Part) {
        let found = self.tensors().into_iter().find(|tensor| tensor.0 == name);
        let (_, map, part) = found.unwrap_or_else(|| panic!("there is no tensor {name}"));
        (map, part)
    }

    pub fn trained(&self, map: MapId) -> bool {
        self.engine.maps().get(map).trained()
    }

    /// What a checkpoint keeps of a map.
    pub fn buffers(&self, map: MapId) -> &'static [Buffer] {
        let all = &[Buffer::Weights, Buffer::FirstMoment, Buffer::SecondMoment];
        if self.trained(map) { all } else { &all[..1] }
    }

    pub fn read(&self, name: &str) -> Vec<f32> {
        let (map, part) = self.find(name);
        self.engine.read(map, part, Buffer::Weights)
    }

    pub fn write(&mut self, name: &str, values: &[f32]) {
        let (map, part) = self.find(name);
        self.engine.write(map, part, Buffer::Weights, values).unwrap_or_else(|error| panic!("{name}: {error:#}"));
    }

    /// The first step's gradient of `name`: Adam's first moment is then (1 - beta1) of it.
    pub fn first_gradient(&self, name: &str, beta1: f64) -> Vec<f64> {
        assert_eq!(self.step, 1, "the first moment holds one gradient after one step alone");
        let (map, part) = self.find(name);
        self.engine.read(map, part, Buffer::FirstMoment).into_iter().map(|moment| f64::from(moment) / (1.0 - beta1)).collect()
    }

    /// The parameters' and losses' bits after `count` steps.
    pub fn bits_after(&mut self, count: usize) -> Vec<u64> {
        let mut bits: Vec<u64> = self.steps(count).into_iter().flatten().map(f64::to_bits).collect();
        bits.push(self.engine.checksum());
        bits
    }
}

fn mean(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64
}

/// Those of the paper.
pub const RULES: [Rule; 7] = [Rule::BP, Rule::FA, Rule::DFA, Rule::TP, Rule::DTP, Rule::SDTP, Rule::AO_SDTP];

pub fn norm(values: impl IntoIterator<Item = f64>) -> f64 {
    values.into_iter().map(|value| value * value).sum::<f64>().sqrt()
}

/// `|| a - b || / || b ||`.
pub fn distance(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    norm(a.iter().zip(b).map(|(a, b)| a - b)) / norm(b.iter().copied())
}
