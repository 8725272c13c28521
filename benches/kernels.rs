//! Single kernels of the CPU, by shape, beside the least that they could take: `cargo bench --bench kernels -- [--threads N] [--batch N] [WORD]`.
//!
//! Whole steps are timed by `biodist bench step`. This is for those who change a kernel: each line is the median of many passes over one
//! map's weights, or over one activity, and its ratio to the floor: the larger of the arithmetic at the speed of a matrix product and
//! the bytes at that of memory, both measured first. A word chooses the lines that hold it.

use std::sync::Arc;

use anyhow::{Context, Result};
use biodist::commands::bench::machine::Machine;
use biodist::compute::cpu::{self, CpuBackend, simd::Isa};
use biodist::compute::settings::{KernelChoice, Precision};
use biodist::compute::{Activity, Backend, Batch, Method, Nonlinearity, OptimizerStep, Update};
use biodist::exchange::settings::ExchangeChoice;
use biodist::exchange::{self, Exchange, Optimizers, ParameterMemory, Single, Transport, UpdateExchange};
use biodist::network::{Inverses, LayerSpec, MapId, Maps, Needs, Network, Output, Spec};
use biodist::observe::Doing;

/// Times each kernel runs, after once that is not counted.
const RUNS: usize = 30;

fn main() -> Result<()> {
    let (threads, batch, word) = arguments()?;
    let isa = Isa::choose(KernelChoice::Auto, Precision::F32)?;
    let machine = Machine::measure(threads, None, &Single)?;
    println!(
        "{}, {threads} threads, batch {batch}; matrix product {:.0} GFLOP/s, memory {:.1} GB/s",
        isa.name(),
        machine.operations / 1e9,
        machine.bytes / 1e9
    );
    println!("{:<34} {:<16} {:>9} {:>9} {:>6}", "layer", "kernel", "ms", "floor ms", "ratio");
    let nonlinearity = Nonlinearity::Tanh;
    let local = |kernel, channels, stride| LayerSpec::local(kernel, channels, stride, nonlinearity);
    let dense = |units| LayerSpec::dense(units, nonlinearity);
    let cases = [
        ("dense 256 to 256", [1, 1, 784], [dense(256), dense(256)]),
        ("dense 1024 to 1024", [1, 1, 3072], [dense(1024), dense(1024)]),
        ("local 16x16x64, 3x3, to 8x8x64", [32, 32, 3], [local(5, 64, 2), local(3, 64, 2)]),
        ("local 28x28x48, 5x5, to 14x14x96", [56, 56, 3], [local(5, 48, 2), local(5, 96, 2)]),
    ];
    for (title, input, layers) in cases {
        let mut bench = Bench::new(input, &layers, isa, threads, batch)?;
        for (kernel, doing, run) in KERNELS {
            let name = format!("{title:<34} {kernel:<16}");
            if word.as_ref().is_some_and(|word| !name.contains(word.as_str())) {
                continue;
            }
            let (seconds, floor) = bench.time(doing, run, &machine)?;
            println!("{name} {:>9.3} {:>9.3} {:>6.2}", 1e3 * seconds, 1e3 * floor, seconds / floor);
        }
    }
    Ok(())
}

/// A network of two hidden layers: the kernels run on the second, on what lies below and above it.
struct Bench {
    backend: CpuBackend,
    exchange: Exchange,
    forward: MapId,
    inverse: MapId,
    below: [Activity; 3],
    above: [Activity; 3],
}

type Kernel = fn(&mut Bench) -> Result<()>;

const KERNELS: [(&str, Doing, Kernel); 7] = [
    ("forward", Doing::Forward, |this| this.apply(this.forward, &[(this.below[0], this.above[0])])),
    ("forward, 2 jobs", Doing::Forward, |this| this.apply(this.forward, &[(this.below[0], this.above[0]), (this.below[1], this.above[1])])),
    ("inverse, 3 jobs", Doing::Inverse, |this| {
        let jobs: Vec<_> = this.above.iter().copied().zip(this.below).collect();
        this.apply(this.inverse, &jobs)
    }),
    ("transpose", Doing::Transpose, |this| {
        this.backend.apply_transposed(this.forward, this.above[0], this.below[1]);
        Ok(())
    }),
    ("update with Adam", Doing::UpdateForward, |this| {
        this.exchange.take(&mut this.backend, Update { map: this.forward, pre: this.below[0], post: this.above[0] })?;
        let method = Method::Adam { beta1: 0.9, beta2: 0.999, size: 1e-4, deviation_scale: 1.0, epsilon: 1e-8 };
        let adam = OptimizerStep { scale: 1e-2, keep: 1.0, method };
        this.exchange.commit(&mut this.backend, Optimizers(&[adam; 2]))
    }),
    ("noise", Doing::Noise, |this| {
        this.backend.add_noise(this.below[0], this.below[1], 0.1, 1);
        Ok(())
    }),
    ("elementwise", Doing::Elementwise, |this| {
        this.backend.difference_through_nonlinearity(this.below[0], this.below[1], this.below[2]);
        Ok(())
    }),
];

impl Bench {
    fn new(input: [usize; 3], layers: &[LayerSpec], isa: Isa, threads: usize, batch: usize) -> Result<Bench> {
        let network =
            Network::new(input, 10, &Spec { output: Output::Softmax, nonlinearity: Nonlinearity::Tanh, layers: layers.to_vec() })?;
        let needs = Needs { inverses: Inverses::HiddenAndOutput, ..Needs::NONE };
        let maps = Arc::new(Maps::new(&network, &needs));
        let (_, sizes) = cpu::spans(&maps);
        let parameters = exchange::parameters(&maps, ParameterMemory::new(sizes, &Single, ExchangeChoice::Auto)?);
        let setup = cpu::Setup { isa, threads, seed: 1, capacity: batch, label_smoothing: 0.0 };
        let mut backend = CpuBackend::new(&network, maps.clone(), parameters, &setup).unwrap();
        let [below, above] = [1, 2].map(|l| [(); 3].map(|()| backend.activity_of(network.shape(l), network.nonlinearity(l))));
        let alone: Arc<dyn Transport> = Arc::new(Single);
        let exchange = Exchange::new(&mut backend, false, &alone, ExchangeChoice::Auto, true)?;
        backend.initialize();
        let pixels: Vec<f32> = (0..batch * input.iter().product::<usize>()).map(|i| (i as f32 * 0.7).sin()).collect();
        backend.begin(&Batch { pixels: (&pixels).into(), labels: &vec![0; batch], samples: batch, first: 0, step: 0 })?;
        // Neither zeros nor denormals, at whose speed nothing trains.
        let image = backend.input();
        below.iter().for_each(|activity| backend.apply(maps.forward[0], &[(image, *activity)]));
        below.iter().zip(above).for_each(|(from, to)| backend.apply(maps.forward[1], &[(*from, to)]));
        let inverse = maps.inverse[1].context("the second layer has an inverse")?;
        Ok(Bench { backend, exchange, forward: maps.forward[1], inverse, below, above })
    }

    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]) -> Result<()> {
        self.backend.apply(map, jobs);
        Ok(())
    }

    /// Median seconds of `run`, which the backend enters as `doing`, and the floor.
    fn time(&mut self, doing: Doing, run: Kernel, machine: &Machine) -> Result<(f64, f64)> {
        let mut seconds = Vec::with_capacity(RUNS);
        for turn in 0..=RUNS {
            self.backend.profile.reset();
            run(self)?;
            if turn > 0 {
                seconds.push(self.backend.profile.get(doing).seconds);
            }
        }
        seconds.sort_by(f64::total_cmp);
        let account = self.backend.profile.get(doing);
        Ok((seconds[RUNS / 2], machine.floor(doing, account.operations, account.bytes)))
    }
}

fn arguments() -> Result<(usize, usize, Option<String>)> {
    let (mut threads, mut batch, mut word) = (std::thread::available_parallelism()?.get(), 64, None);
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|text| text.parse().ok()).filter(|number| *number > 0);
        match argument.as_str() {
            "--threads" => threads = number().context("--threads takes a number above 0")?,
            "--batch" => batch = number().context("--batch takes a number above 0")?,
            _ => word = Some(argument),
        }
    }
    Ok((threads, batch, word))
}
