//! `biodist bench step`: the time of a training step on random data, phase by phase, beside the least it could take.

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::Training;
use super::machine::{self, Link, Machine, median};
use crate::agreement::{Facts, agree};
use crate::commands::memory;
use crate::commands::overrides::tell_unused;
use crate::compute::{Batch, Pixels};
use crate::config::{Config, Loaded, Output, Purpose};
use crate::cpus;
use crate::data::Form;
use crate::exchange::Transport;
use crate::job::say;
use crate::learner::{Engine, Rates};
use crate::observe::Doing;
use crate::plan::Plan;
use crate::rules::Phase;
use crate::text::{plural, scaled, table};
use crate::watch;

/// Steps between attempts of the link: few of them find caches that an attempt has emptied.
const LINK_EVERY: usize = 10;
/// Attempts in a row: with the fewest steps too, the median is none that made a connection.
const LINK_ATTEMPTS: usize = 4;
/// The phase that waits for other ranks.
const EXCHANGE: &str = "exchange";

/// Time training steps on random data
#[derive(Debug, clap::Args)]
pub struct StepArgs {
    #[command(flatten)]
    training: Training,
}

/// A kind of step: all of them alike, or those of inverse and of forward epochs.
struct Timed {
    seconds: f64,
    /// Of each phase of a step: seconds, operations, bytes.
    phases: [[f64; 3]; Doing::COUNT],
}

/// Prints what a step takes. Collective.
pub fn run(args: StepArgs, transport: Arc<dyn Transport>) -> Result<()> {
    let loaded = Loaded::read(&args.training.config, &args.training.overrides.all(), Purpose::Shapes)?;
    tell_unused(std::slice::from_ref(&loaded), &*transport);
    let config = loaded.config;
    let facts = args.training.input.facts(&config, args.training.classes)?;
    let given = Facts::default()
        .with_config(&config)
        .with("--input and --classes", format!("{:?}, {}", facts.input, facts.classes))
        .with("--steps", args.training.steps.to_string());
    agree(&given, &*transport)?;
    let plan = Plan::new(&config, &facts, transport.size())?;
    memory::refuse_too_large(&plan, &config, &*transport)?;
    watch::watch(&transport, config.parallel.stall_timeout)?;
    let share = cpus::take(&*transport, config.parallel.threads_per_rank)?;
    let mut engine = Engine::new(&config, &plan.network, transport.clone(), share.threads)?;
    engine.initialize()?;
    engine.time_phases();

    let samples = engine.capacity();
    let random = RandomBatch::new(samples, facts.input.iter().product(), facts.classes, transport.rank());
    let random = if engine.form() == Form::Bytes { random.in_bytes(facts.input[2]) } else { random };
    let turns = config.schedule().phases();
    let mut run = Run { engine, random, config: &config, transport: &*transport, step: 0 };
    for phase in turns {
        run.step(*phase)?;
    }
    // Before measuring takes memory of its own.
    let peak = transport.all_gather_words(&[machine::peak_rss()]).into_iter().max().unwrap_or(0);
    let memory = transport.all_gather_words(&[machine::proportional_memory()?]).into_iter().sum();
    let mut link = Link::new(&*transport)?;
    let mut kinds = Vec::with_capacity(turns.len());
    for phase in turns {
        kinds.push(run.time(*phase, args.training.steps as usize, &mut link)?);
    }
    let engine = run.engine;
    let mut machine = Machine::measure(engine.threads(), link, &*transport)?;
    if let Some(Rates { bytes, operations, inverse_operations }) = engine.rates()? {
        (machine.bytes, machine.operations, machine.inverse_operations) = (bytes, operations, inverse_operations);
    }
    let mut report = Report { kinds, machine, batch: config.data.batch_size, peak, memory, ranks: plan.ranks, least_exchange: 0.0 };
    let exchange = report.phases().iter().find(|phase| phase.name == EXCHANGE).map_or(0.0, |phase| phase.seconds);
    let of_ranks = transport.all_gather_words(&[exchange.to_bits()]).into_iter().map(f64::from_bits);
    report.least_exchange = of_ranks.fold(f64::INFINITY, f64::min);
    if transport.rank() == 0 {
        say(if args.training.json { report.to_json(&engine).to_string() } else { report.to_text(&engine) });
    }
    Ok(())
}

/// This rank's training.
struct Run<'a> {
    engine: Engine,
    random: RandomBatch,
    config: &'a Config,
    transport: &'a dyn Transport,
    step: u64,
}

impl Run<'_> {
    /// Seconds of a step. Collective.
    fn step(&mut self, phase: Phase) -> Result<f64> {
        let batch = self.random.batch(self.config.network.output, self.transport.rank(), self.step);
        self.engine.reset_profile();
        self.transport.barrier();
        let started = Instant::now();
        self.engine.learn(&batch, phase, 1.0)?;
        self.step += 1;
        Ok(started.elapsed().as_secs_f64())
    }

    /// Medians over `steps` steps of one kind, with attempts of the link between them. Collective.
    fn time(&mut self, phase: Phase, steps: usize, link: &mut Option<Link>) -> Result<Timed> {
        let mut seconds = Vec::with_capacity(steps);
        let mut phases = [const { [const { Vec::new() }; 3] }; Doing::COUNT];
        for index in 0..steps {
            if index.is_multiple_of(LINK_EVERY)
                && let Some(link) = link
            {
                (0..LINK_ATTEMPTS).for_each(|_| link.attempt());
            }
            seconds.push(self.step(phase)?);
            for (measured, doing) in phases.iter_mut().zip(Doing::all()) {
                let account = self.engine.profile().get(doing);
                for (values, value) in measured.iter_mut().zip([account.seconds, account.operations, account.bytes]) {
                    values.push(value);
                }
            }
        }
        Ok(Timed { seconds: median(seconds), phases: phases.map(|measured| measured.map(median)) })
    }
}

/// One rank's made-up samples. Speed does not depend on what they are, as long as they are no zeros or denormals.
struct RandomBatch {
    samples: usize,
    pixels: Vec<f32>,
    /// The same to a byte, with what scales them by channel, where the device takes bytes.
    bytes: Option<(Vec<u8>, [Vec<f32>; 2])>,
    labels: Vec<u32>,
}

impl RandomBatch {
    fn new(samples: usize, units: usize, classes: usize, rank: usize) -> RandomBatch {
        // Knuth's MMIX generator; its high bits are good.
        let mut state = rank as u64 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u32
        };
        let pixels = (0..samples * units).map(|_| next() as f32 / (1 << 24) as f32).collect();
        let labels = (0..samples).map(|_| next() % classes as u32).collect();
        RandomBatch { samples, pixels, bytes: None, labels }
    }

    fn in_bytes(self, channels: usize) -> RandomBatch {
        let bytes = self.pixels.iter().map(|pixel| (pixel * 256.0) as u8).collect();
        RandomBatch { bytes: Some((bytes, [vec![1.0 / 255.0; channels], vec![0.0; channels]])), ..self }
    }

    fn batch(&self, output: Output, rank: usize, step: u64) -> Batch<'_> {
        let labels: &[u32] = if output == Output::Softmax { &self.labels } else { &[] };
        let pixels = match &self.bytes {
            None => Pixels::Floats(&self.pixels),
            Some((values, [scale, shift])) => Pixels::Bytes { values, scale, shift },
        };
        Batch { pixels, labels, samples: self.samples, first: rank * self.samples, step }
    }
}

/// What was measured, on rank 0.
struct Report {
    kinds: Vec<Timed>,
    machine: Machine,
    batch: usize,
    ranks: usize,
    peak: u64,
    memory: u64,
    /// Seconds of exchange on the rank that has the fewest.
    least_exchange: f64,
}

/// Name, seconds and floor of a phase.
struct PhaseReport {
    name: &'static str,
    seconds: f64,
    floor: f64,
    operations: f64,
    bytes: f64,
}

impl Report {
    /// The mean over the kinds of steps: alternating, each is half of all.
    fn step_seconds(&self) -> f64 {
        self.kinds.iter().map(|kind| kind.seconds).sum::<f64>() / self.kinds.len() as f64
    }

    /// Phases that a step has.
    fn phases(&self) -> Vec<PhaseReport> {
        let kinds = self.kinds.len() as f64;
        let all = Doing::all().filter_map(|doing| {
            let (name, index) = (doing.phase()?, doing as usize);
            let mean = |what: usize| self.kinds.iter().map(|kind| kind.phases[index][what]).sum::<f64>() / kinds;
            let floor =
                self.kinds.iter().map(|kind| self.machine.floor(doing, kind.phases[index][1], kind.phases[index][2])).sum::<f64>() / kinds;
            Some(PhaseReport { name, seconds: mean(0), floor, operations: mean(1), bytes: mean(2) })
        });
        all.filter(|phase| phase.seconds > 0.0).collect()
    }

    fn to_json(&self, engine: &Engine) -> Value {
        let phases = self.phases();
        let mut by_name: Map<String, Value> =
            phases.iter().map(|phase| (phase.name.to_owned(), json!({ "seconds": phase.seconds, "floor_seconds": phase.floor }))).collect();
        if let (Some(exchange), Some(measured)) = (by_name.get_mut(EXCHANGE), phases.iter().find(|phase| phase.name == EXCHANGE)) {
            exchange["bytes_received"] = json!(measured.bytes);
            exchange["least_seconds"] = json!(self.least_exchange);
        }
        json!({
            "samples_per_second": self.batch as f64 / self.step_seconds(),
            "step_seconds": self.step_seconds(),
            "world_size": self.ranks,
            "threads_per_rank": engine.threads(),
            "kernels": engine.kernels(),
            "device": engine.device(),
            "device_memory_bytes": engine.device_memory(),
            "phases": by_name,
            "floor_seconds": phases.iter().map(|phase| phase.floor).sum::<f64>(),
            "peak_rss_bytes": self.peak,
            "memory_bytes": self.memory,
            "sgemm_flops_per_rank": self.machine.operations,
            "memory_bytes_per_second_per_rank": self.machine.bytes,
            "link_bytes_per_second_per_rank": self.machine.link,
        })
    }

    /// What to make of a step that was faster than its floor. On a GPU, whose caches hold small networks, that is no wonder.
    fn doubt(step: f64, floor: f64, device: &str) -> &'static str {
        if floor <= step || device != "cpu" {
            return "";
        }
        "\na floor above the step: other work was slowing the machine down when its rates were measured, so repeat it when the machine is idle"
    }

    fn to_text(&self, engine: &Engine) -> String {
        let milliseconds = |seconds: f64| format!("{:.3}", 1e3 * seconds);
        let heading = ["phase", "ms", "floor ms", "GFLOP/s", "GB/s"].map(str::to_owned).to_vec();
        let mut rows = vec![heading];
        let phases = self.phases();
        for phase in &phases {
            let rate = |amount: f64| if amount > 0.0 { format!("{:.1}", 1e-9 * amount / phase.seconds) } else { "-".to_owned() };
            let (name, floor) = (phase.name.to_owned(), milliseconds(phase.floor));
            rows.push(vec![name, milliseconds(phase.seconds), floor, rate(phase.operations), rate(phase.bytes)]);
        }
        let floor: f64 = phases.iter().map(|phase| phase.floor).sum();
        rows.push(vec!["step".to_owned(), milliseconds(self.step_seconds()), milliseconds(floor)]);
        let threads = engine.threads();
        let waiting = match self.ranks {
            1 => String::new(),
            _ => {
                let least = milliseconds(self.least_exchange);
                format!(
                    "\nexchange on rank 0; {least} ms on the rank that waits least, and what others take longer is waiting for slower ones"
                )
            }
        };
        format!(
            "{}{waiting}\n{:.0} samples/s: {} rank{} x {threads} thread{}, batch {}, kernels {}\n\
             machine, a rank: {}{}B/s (memory){}\nmemory: {}B for all ranks, {}B at most in one{}",
            table(&rows, 1),
            self.batch as f64 / self.step_seconds(),
            self.ranks,
            plural(self.ranks),
            plural(threads),
            self.batch,
            engine.kernels(),
            if self.machine.operations.is_finite() {
                format!("{}FLOP/s (products), ", scaled(self.machine.operations))
            } else {
                String::new()
            },
            scaled(self.machine.bytes),
            self.machine.link.map_or(String::new(), |link| format!(", {}B/s received (link)", scaled(link))),
            scaled(self.memory as f64),
            scaled(self.peak as f64),
            Self::doubt(self.step_seconds(), floor, &engine.device()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_above_the_step_is_explained() {
        assert!(Report::doubt(0.9, 1.1, "cpu").contains("when the machine is idle"));
        assert_eq!((Report::doubt(1.1, 0.9, "cpu"), Report::doubt(0.9, 1.1, "cuda:0")), ("", ""));
    }

    #[test]
    fn random_batches_have_values_and_labels_in_range() {
        let random = RandomBatch::new(100, 20, 7, 0);
        assert!(random.pixels.iter().all(|x| (0.0..1.0).contains(x)));
        assert!(random.labels.iter().all(|label| *label < 7));
        let mean = random.pixels.iter().sum::<f32>() / 2000.0;
        assert!((mean - 0.5).abs() < 0.03, "{mean}");
        assert_ne!(random.pixels, RandomBatch::new(100, 20, 7, 1).pixels);
    }
}
