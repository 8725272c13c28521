//! A test of this program's kernels on the GPU at hand, before anything is trained by them.
//!
//! What compiles may still compute something else on a GPU, a driver or a compiler that nobody has tried. So the first time that a
//! network is to be trained on a GPU, both it and the CPU take a few steps from the same parameters, on images of noise, and must agree.
//! That they did is kept beside the compiled kernels.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;
use shards::random::{below, philox};

use super::engine::Engine;
use crate::compute::cuda::Gpu;
use crate::compute::cuda::kernels::cache::Cache;
use crate::compute::settings::{DeviceChoice, KernelChoice, Precision};
use crate::compute::{Batch, Buffer, Measure, Part, Pixels};
use crate::config::{Config, TransportChoice};
use crate::exchange::Single;
use crate::exit::Exit;
use crate::network::{LayerSpec, MapId, Network, Nonlinearity, Output};
use crate::versions;

/// Steps of a phase: one is done operation by operation, one captured, and one replayed.
const STEPS: usize = 3;
/// The part of the learning rates that is taken: images of noise shall not drive parameters further than a run's own would.
const RATE: f64 = 0.1;

/// The part of its size by which rounding may change a result: what was seen on the emulation, and room.
fn tolerance(precision: Precision) -> f64 {
    match precision {
        Precision::F32 => 0.005,
        Precision::Tf32 => 0.03,
        Precision::Bf16 => 0.2,
    }
}

/// [`run`] for the batch of one of `ranks`, unless it went well here before. `versions` are the compiler's and the driver's.
pub fn once(
    config: &Config,
    network: &Network,
    gpu: &Rc<dyn Gpu>,
    ranks: usize,
    versions: ((i32, i32), i32),
    threads: usize,
) -> Result<()> {
    let mut config = config.clone();
    config.data.batch_size /= ranks;
    let of_arithmetic = ["network.", "learning.", "optimizer.", "parallel.precision", "data.batch_size"];
    let mut settings = config.settings();
    settings.retain(|key, _| of_arithmetic.iter().any(|begins| key.starts_with(begins)));
    // A program that was compiled again is another one.
    let built = std::env::current_exe().and_then(|program| program.metadata()?.modified()).ok();
    let what = format!("{settings:?} {:?} {} {versions:?} {built:?}", network.input, versions::COMMIT);
    let name = gpu.name()?;
    let record = Cache::open().map(|cache| cache.record(&name, &what));
    if record.as_ref().is_some_and(|record| record.read().is_some()) {
        return Ok(());
    }
    log::info!("comparing what {name} computes with what the CPU does, once for this network and machine");
    run(&config, network, gpu, threads)?;
    if let Some(record) = record {
        record.write(&[]);
    }
    Ok(())
}

/// Lets one rank alone take a few steps of `config` on `gpu`, and on the CPU. Fails where they disagree by more than rounding explains.
///
/// Products of less precision are compared in a network without corners: where a unit falls on the other side of one, because of
/// rounding, its errors are others.
pub fn run(config: &Config, network: &Network, gpu: &Rc<dyn Gpu>, threads: usize) -> Result<()> {
    let mut config = config.clone();
    config.training.diagnostics = false;
    // Whatever joins ranks.
    config.parallel.backend = TransportChoice::Auto;
    let precision = std::mem::replace(&mut config.parallel.precision, Precision::F32);
    compare(&config, network, gpu, threads)?;
    if precision != Precision::F32 {
        let mut smooth = network.clone();
        smooth.layers.iter_mut().for_each(|layer| smoothen(&mut layer.kind));
        config.parallel.precision = precision;
        compare(&config, &smooth, gpu, threads)?;
    }
    Ok(())
}

fn smoothen(layer: &mut LayerSpec) {
    match layer {
        LayerSpec::Dense { nonlinearity, .. } | LayerSpec::Local { nonlinearity, .. } | LayerSpec::Conv { nonlinearity, .. } => {
            if matches!(nonlinearity, Nonlinearity::Relu | Nonlinearity::LeakyRelu) {
                *nonlinearity = Nonlinearity::Tanh;
            }
        }
        LayerSpec::MaxPool { kernel, stride, options } => {
            *layer = LayerSpec::AveragePool { kernel: *kernel, stride: *stride, options: *options };
        }
        LayerSpec::AveragePool { .. } => {}
    }
}

fn compare(config: &Config, network: &Network, gpu: &Rc<dyn Gpu>, threads: usize) -> Result<()> {
    let mut on_cpu = config.clone();
    (on_cpu.parallel.device, on_cpu.parallel.kernels, on_cpu.parallel.precision) = (DeviceChoice::Cpu, KernelChoice::Auto, Precision::F32);
    let mut cpu = Engine::new(&on_cpu, network, Arc::new(Single), threads)?;
    let mut own = Engine::on_gpu(config, network, Arc::new(Single), gpu.clone())?;
    [&mut cpu, &mut own].into_iter().try_for_each(Engine::initialize)?;

    let comparison = Comparison { config, gpu: gpu.name()? };
    let initial = parameters(&cpu);
    let mut images = Images::new(network, config.data.batch_size);
    for phase in config.schedule().phases() {
        for _ in 0..STEPS {
            images.draw();
            cpu.learn(&images.batch(Pixels::Floats(&images.pixels().scaled())), *phase, RATE)?;
            own.learn(&images.batch(images.pixels()), *phase, RATE)?;
            for (name, measure) in [("the loss", Measure::Loss), ("the inverse loss", Measure::InverseLoss)] {
                let [theirs, ours] = [&cpu, &own].map(|engine| engine.measure(measure));
                comparison.agree(name, ours, theirs, &[])?;
            }
        }
    }
    for (tensor, began) in initial {
        let Tensor { map, part, .. } = tensor;
        let [theirs, ours] = [&cpu, &own].map(|engine| engine.read(map, part, Buffer::Weights));
        comparison.agree(&format!("the change of {}", tensor.name), &ours, &theirs, &began)?;
        let group = config.optimizer.group(cpu.maps().get(map).role);
        for buffer in &group.moments()[..group.needed_moments()] {
            let [theirs, ours] = [&cpu, &own].map(|engine| engine.read(map, part, *buffer));
            comparison.agree(&format!("a moment of {}", tensor.name), &ours, &theirs, &[])?;
        }
    }
    Ok(())
}

struct Tensor {
    name: String,
    map: MapId,
    part: Part,
}

/// What is trained, and its values.
fn parameters(engine: &Engine) -> Vec<(Tensor, Vec<f32>)> {
    let trained = engine.maps().all.iter().enumerate().filter(|(_, map)| map.trained());
    let tensors = trained
        .flat_map(|(index, map)| map.tensors().map(move |(part, name, _)| Tensor { name: name.to_owned(), map: MapId(index), part }));
    tensors
        .map(|tensor| {
            let values = engine.read(tensor.map, tensor.part, Buffer::Weights);
            (tensor, values)
        })
        .collect()
}

struct Comparison<'a> {
    config: &'a Config,
    gpu: String,
}

impl Comparison<'_> {
    /// Compares what became of `began`, which is zero where it is empty.
    fn agree(&self, what: &str, ours: &[f32], theirs: &[f32], began: &[f32]) -> Result<()> {
        let squares = |of: &dyn Fn(usize) -> f64| (0..theirs.len()).map(|index| of(index).powi(2)).sum::<f64>().sqrt();
        let began = |index: usize| began.get(index).map_or(0.0, |began| f64::from(*began));
        let difference = squares(&|index| f64::from(ours[index]) - f64::from(theirs[index]));
        let size = squares(&|index| f64::from(theirs[index]) - began(index));
        // What is added to a large number is rounded as that is.
        let rounding = f64::from(f32::EPSILON) * STEPS as f64 * squares(&began);
        let tolerance = tolerance(self.config.parallel.precision);
        if difference <= tolerance * size + rounding {
            return Ok(());
        }
        Err(Exit::Failed.error(format!(
            "{} does not compute what the CPU does: after a few steps of {} {what} differs by {:.2} of its size, and rounding explains {tolerance}. \
             Nothing was trained. Use parallel.kernels = \"libtorch\", in a program with libtorch, or parallel.device = \"cpu\"",
            self.gpu,
            self.config.learning.rule.name(),
            difference / size,
        )))
    }
}

/// Images of noise.
struct Images {
    /// Bytes of a batch, and its labels: none for a network that shall return its input.
    bytes: Vec<u8>,
    labels: Vec<u32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
    classes: usize,
    samples: usize,
    step: u64,
}

impl Images {
    fn new(network: &Network, samples: usize) -> Images {
        let channels = if network.input.positions() == 1 { 1 } else { network.input.channels };
        let top = network.layers.last().expect("a network has layers").output.units();
        let labels = if network.output == Output::Softmax { samples } else { 0 };
        Images {
            bytes: vec![0; samples * network.input.units()],
            labels: vec![0; labels],
            scale: vec![1.0 / 255.0; channels],
            shift: vec![0.0; channels],
            classes: top,
            samples,
            step: 0,
        }
    }

    /// The next batch.
    fn draw(&mut self) {
        let words = |index: usize, of: u32| philox(self.step, [index as u32, of, 0, 0]);
        for (index, bytes) in self.bytes.chunks_mut(16).enumerate() {
            bytes.copy_from_slice(&bytemuck::cast::<_, [u8; 16]>(words(index, 0))[..bytes.len()]);
        }
        for (index, label) in self.labels.iter_mut().enumerate() {
            *label = below(words(index, 1)[0], self.classes) as u32;
        }
        self.step += 1;
    }

    fn pixels(&self) -> Pixels<'_> {
        Pixels::Bytes { values: &self.bytes, scale: &self.scale, shift: &self.shift }
    }

    fn batch<'a>(&'a self, pixels: Pixels<'a>) -> Batch<'a> {
        Batch { pixels, labels: &self.labels, samples: self.samples, first: 0, step: self.step }
    }
}
