//! The backend on libtorch, for GPUs: its tensors, with kernels of our own where libtorch would pass over memory more than once.
//!
//! It works on any device that libtorch knows, and is tested on the CPU against [`super::cpu`], which is how all of it but
//! [`super::cuda`] is checked where there is no GPU; docs/gpu.md has its speed on one.
//!
//! Activities are [positions, batch, channels], weights as `windows` describes, so that a map of any kind is one batched product. Tensors
//! never ask for gradients: rules make their own. Operations return before a GPU has done them; a failure is kept and comes out of
//! [`TorchBackend::finish`], as the operations of [`Backend`](super::Backend) cannot fail.

mod clock;
mod kernels;
pub mod libtorch;
mod operations;
mod parameters;
mod passes;
mod precision;
#[cfg(test)]
mod tests;
mod update;
mod windows;

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use tch::{Kind, TchError, Tensor};

use self::clock::Clock;
use self::kernels::Kernels;
use self::parameters::{Parameters, to_host};
use self::precision::Products;
use self::windows::Windows;
use super::cuda::Gpu;
use super::cuda::driver::Driver;
use super::device::Device;
use super::profile::Profile;
use super::settings::Precision;
use super::{Activity, Buffer, Measure, Nonlinearity};
use crate::network::{Magnitude, MapId, Maps, Network, Output, Plasticity, Shape};
use crate::observe::{Doing, span_unless_in};

/// What a [`TorchBackend`] is made from.
pub struct Setup {
    pub device: Device,
    pub precision: Precision,
    pub seed: u64,
    /// Largest number of samples in a batch of this rank.
    pub capacity: usize,
    /// Part of a label that is spread over all classes.
    pub label_smoothing: f64,
    /// By map: this rank's part of the optimiser's work, and the number of parts.
    pub parts: Vec<(usize, usize)>,
}

impl From<Device> for tch::Device {
    fn from(device: Device) -> tch::Device {
        match device {
            Device::Cpu => tch::Device::Cpu,
            Device::Cuda(index) => tch::Device::Cuda(index),
        }
    }
}

struct Slot {
    shape: Shape,
    values: Tensor,
    /// What maps that lead here end with, and their sums where its slope comes from them.
    nonlinearity: Nonlinearity,
    pre_activation: Tensor,
}

/// Which gelu, as libtorch names it.
const GELU: &str = "tanh";

/// What a nonlinearity makes of `sums`, in their memory where it can.
fn through(nonlinearity: Nonlinearity, mut sums: Tensor) -> Result<Tensor, TchError> {
    match nonlinearity {
        Nonlinearity::Tanh => sums.f_tanh_(),
        Nonlinearity::Relu => sums.f_relu_(),
        Nonlinearity::LeakyRelu => sums.f_leaky_relu_(),
        Nonlinearity::Gelu => sums.f_gelu(GELU),
        Nonlinearity::Identity => Ok(sums),
    }
}

/// The parameters of all maps, and the activities of one rank, on one device.
pub struct TorchBackend {
    pub maps: Arc<Maps>,
    device: tch::Device,
    driver: Option<Rc<Driver>>,
    kernels: Kernels,
    products: Products,
    clock: Clock,
    output: Output,
    label_smoothing: f64,
    seed: u64,
    windows: Vec<Windows>,
    parameters: Vec<Parameters>,
    slots: Vec<Slot>,
    capacity: usize,
    batch: usize,
    first: usize,
    step: u64,
    labels: Tensor,
    /// Page-locked memory through which batches reach a GPU: it fetches them from there while the program goes on.
    staging: Option<Tensor>,
    /// By [`Measure`] and sample, on the device and as [`TorchBackend::finish`] brought them here.
    measured: Tensor,
    measures: [Vec<f32>; Measure::COUNT],
    /// Whole moments of maps of which this rank owns a part.
    gathered: RefCell<HashMap<(usize, Buffer), Tensor>>,
    /// By layer: which place of each window won in the last pass up through a max pool.
    winners: HashMap<usize, Tensor>,
    failed: Option<anyhow::Error>,
}

impl TorchBackend {
    /// A backend for `maps` of `network` with zero parameters. Activities are made next.
    ///
    /// Fails where the device lacks the precision, or memory for the parameters.
    pub fn new(network: &Network, maps: Arc<Maps>, setup: Setup) -> Result<TorchBackend> {
        // Whether it finds GPUs matters to who chooses among them.
        let _ = libtorch::set_up();
        let device = tch::Device::from(setup.device);
        let driver = match setup.device {
            Device::Cpu => None,
            Device::Cuda(index) => Some(Rc::new(Driver::new(index)?)),
        };
        let capability = driver.as_ref().map(|driver| driver.capability()).transpose()?;
        let kernels = match &driver {
            None => Kernels::Plain,
            Some(driver) => Kernels::compile(driver.clone()).unwrap_or_else(|error| {
                log::warn!(
                    "noise is drawn on the CPU and optimisers take several passes, both slowly, as kernels cannot be compiled: {error:#}"
                );
                Kernels::Plain
            }),
        };
        let mut backend = TorchBackend {
            device,
            kernels,
            products: Products::new(setup.precision, device, capability)?,
            clock: Clock::new(driver.clone()),
            driver,
            output: network.output,
            label_smoothing: setup.label_smoothing,
            seed: setup.seed,
            windows: Vec::with_capacity(maps.all.len()),
            parameters: Vec::with_capacity(maps.all.len()),
            slots: Vec::new(),
            capacity: setup.capacity,
            batch: setup.capacity,
            first: 0,
            step: 0,
            labels: Tensor::new(),
            staging: None,
            measured: Tensor::new(),
            measures: [const { Vec::new() }; Measure::COUNT],
            gathered: RefCell::default(),
            winners: HashMap::new(),
            failed: None,
            maps,
        };
        for (map, (part, parts)) in backend.maps.all.iter().zip(setup.parts) {
            backend.windows.push(Windows::new(map, device).map_err(|error| explained(error.into()))?);
            let parameters = Parameters::new(map, part, parts, device);
            backend.parameters.push(parameters.with_context(|| format!("no room for {}", map.weight.name)).map_err(explained)?);
        }
        backend.slot(network.input, Nonlinearity::Identity);
        if backend.driver.is_some() {
            // Where a system grants no such memory, batches go through pages that the driver has to copy first.
            let values = (setup.capacity * network.input.units()) as i64;
            backend.staging = Tensor::zeros([values], (Kind::Float, tch::Device::Cpu)).f_pin_memory(device).ok();
        }
        Ok(backend)
    }

    fn slot(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        let zero = Tensor::zeros([1, 1, 1], (Kind::Float, self.device));
        let values = zero.expand([shape.positions() as i64, self.capacity as i64, shape.channels as i64], false);
        self.slots.push(Slot { shape, values, nonlinearity, pre_activation: Tensor::new() });
        Activity(self.slots.len() - 1)
    }

    /// Initial parameters, from the seed: those that the CPU backend draws.
    pub fn initialize(&mut self) {
        for (index, map) in self.maps.all.iter().enumerate().filter(|(_, map)| map.parameters() > 0) {
            if let Err(error) = self.parameters[index].initialize(map, &self.windows[index], index, self.seed, 0) {
                self.failed = Some(error);
                return;
            }
        }
    }

    /// Gives weights that follow the signs of their layer's these signs; `draw` is the number of steps before.
    pub fn follow_signs(&mut self, draw: u64) -> Result<()> {
        let maps = self.maps.clone();
        for (index, map) in maps.all.iter().enumerate() {
            let Plasticity::Signs(magnitude) = map.plasticity else { continue };
            let forward = self.flat(maps.forward[map.layer]).shallow_clone();
            let own = &mut self.parameters[index];
            if magnitude == Magnitude::Redrawn {
                own.initialize(map, &self.windows[index], index, self.seed, draw)?;
            }
            own.follow_signs(&forward, (magnitude == Magnitude::Uniform).then(|| map.deviation()))?;
        }
        Ok(())
    }

    /// An activity of the current batch, [positions, batch, channels].
    pub fn values(&self, activity: Activity) -> &Tensor {
        &self.slots[activity.0].values
    }

    /// All parameters of a map in one tensor, padded to equal parts for the ranks that share its update.
    pub fn flat(&self, map: MapId) -> &Tensor {
        &self.parameters[map.0].values
    }

    /// Elements of [`TorchBackend::flat`] that this rank's optimiser owns.
    pub fn owned(&self, map: MapId) -> Range<usize> {
        self.parameters[map.0].owned.clone()
    }

    pub fn profile(&self) -> &Profile {
        &self.clock.profile
    }

    pub fn reset_profile(&mut self) {
        self.clock.profile.reset();
    }

    /// "cuda:0 (NVIDIA H200)", or "cpu".
    pub fn describe(&self) -> String {
        match (self.device, &self.driver) {
            (tch::Device::Cuda(index), Some(driver)) => {
                format!("cuda:{index} ({})", driver.name().unwrap_or_else(|_| "of unknown name".to_owned()))
            }
            _ => "cpu".to_owned(),
        }
    }

    /// The GPU's driver, where there is one.
    pub fn driver(&self) -> Option<&Rc<Driver>> {
        self.driver.as_ref()
    }

    /// Does `operation`, timed as `doing`, unless one has failed before.
    fn attempt(&mut self, doing: Doing, operations: f64, bytes: f64, operation: impl FnOnce(&mut Self) -> Result<()>) {
        if self.failed.is_none() {
            self.failed = self.timed(doing, operations, bytes, operation).err();
        }
    }

    /// Does `operation` and enters its time as `doing`.
    pub fn timed<T>(&mut self, doing: Doing, operations: f64, bytes: f64, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let _span = span_unless_in(doing);
        let start = self.clock.start()?;
        let result = operation(self)?;
        self.clock.stop(start, doing, operations, bytes)?;
        Ok(result)
    }

    /// Waits for the operations since the last call: the first failure among them, or this batch's measures on this side.
    pub fn finish(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), |error| Err(explained(error)))?;
        let measured = to_host(&self.measured).map_err(|error| explained(error.into()))?;
        for (measure, values) in self.measures.iter_mut().zip(measured.chunks_exact(self.batch)) {
            measure.clear();
            measure.extend_from_slice(values);
        }
        self.clock.settle()
    }

    /// Waits until an update is done.
    pub fn settle(&mut self) -> Result<()> {
        self.clock.settle()
    }

    /// Whole moments of a map for [`Backend::read_parameter`](super::Backend::read_parameter), where this rank owns a part of them.
    pub fn keep_gathered(&self, map: MapId, buffer: Buffer, whole: &[f32]) {
        self.gathered.borrow_mut().insert((map.0, buffer), Tensor::from_slice(whole));
    }

    /// This rank's part of a moment.
    pub fn part(&self, map: MapId, buffer: Buffer) -> Vec<f32> {
        self.here(map, to_host(self.parameters[map.0].buffer(buffer)))
    }

    /// A checksum of all parameters, the same for equal parameters on every rank.
    pub fn checksum(&self) -> u64 {
        let values = |map| self.here(map, to_host(self.flat(map)));
        super::checksum((0..self.parameters.len()).map(|map| crc32fast::hash(bytemuck::cast_slice(&values(MapId(map))))))
    }

    /// What came from the device, which fails only where the device itself does.
    fn here(&self, map: MapId, values: Result<Vec<f32>, tch::TchError>) -> Vec<f32> {
        values.unwrap_or_else(|error| panic!("{} cannot be read: {}", self.maps.get(map).weight.name, explained(error.into())))
    }
}

/// The first line of libtorch's message, which a trace of its C++ functions follows; and what to do where memory is short.
fn explained(error: anyhow::Error) -> anyhow::Error {
    let text = format!("{error:#}");
    let line = text.lines().next().unwrap_or_default();
    if text.contains("out of memory") {
        return anyhow!("the GPU's memory is full; make data.batch_size smaller, or use more GPUs ({line})");
    }
    anyhow!("libtorch: {line}")
}
