//! `biodist bench scaling`: the speed of training on more and more ranks, each number of them started by mpirun as `bench step`.
//!
//! What one rank has (a GPU, or so many threads) is the same throughout, or the numbers would say nothing about ranks.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use biodist_process::{ranks, start};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::Training;
use crate::compute::device;
use crate::config::{Config, Loaded, Purpose};
use crate::exchange::Transport;
use crate::exit::Exit;
use crate::job::say;
use crate::plan::Plan;
use crate::report::Spread;
use crate::report::chart::{Axis, Chart, Entry, Line, LineChart, Look, Panel, Plot, of_variant};
use crate::text::{plural, table};

/// Time training steps on several numbers of ranks
///
/// Starts mpirun itself, once for each number of ranks, with `biodist bench step`. Weak scaling gives every rank the configuration's batch, so
/// that the global batch grows with the ranks; strong scaling divides that batch among them. Efficiency is the speed divided by that of
/// as many times the first number of ranks. To reach several hosts, give Open MPI its host file: OMPI_MCA_orte_default_hostfile=FILE.
#[derive(Debug, clap::Args)]
pub struct ScalingArgs {
    #[command(flatten)]
    training: Training,
    /// Numbers of ranks, ascending
    #[arg(long, value_name = "N,N,...", value_delimiter = ',', default_value = "1,2,4,8", value_parser = clap::value_parser!(u32).range(1..))]
    ranks: Vec<u32>,
    /// What to measure
    #[arg(long, value_enum, default_value_t = Mode::Both)]
    mode: Mode,
    /// Draw the speeds beside the ideal ones
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Weak,
    Strong,
    Both,
}

impl Mode {
    /// Those that it stands for.
    fn each(self) -> &'static [Mode] {
        match self {
            Mode::Weak => &[Mode::Weak],
            Mode::Strong => &[Mode::Strong],
            Mode::Both => &[Mode::Weak, Mode::Strong],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Weak => "weak",
            Mode::Strong => "strong",
            Mode::Both => "both",
        }
    }
}

/// One number of ranks, as it was measured.
struct Point {
    mode: Mode,
    ranks: usize,
    batch: usize,
    samples_per_second: f64,
    step_seconds: f64,
    exchange_seconds: f64,
    /// Of the speed that as many times the first number of ranks would have.
    efficiency: f64,
    /// What the ranks have to share, where there is not enough for each.
    shared: Option<String>,
}

/// Width of the drawing.
const PLOT_MM: f64 = 130.0;

/// What this machine has for ranks.
struct Machine {
    cpus: usize,
    gpus: usize,
    threads_per_rank: usize,
}

/// Measures and prints. Not for several ranks: it starts them.
pub fn run(args: ScalingArgs, transport: &dyn Transport) -> Result<()> {
    let is_rank = std::env::var_os("OMPI_COMM_WORLD_SIZE").is_some() && ranks::launcher().is_some();
    if transport.size() > 1 || is_rank {
        return Err(Exit::Usage.error("bench scaling starts mpirun itself; start it without"));
    }
    if !args.ranks.is_sorted_by(|a, b| a < b) {
        return Err(Exit::Usage.error("--ranks: the numbers must ascend, for instance 1,2,4,8"));
    }
    let Loaded { config, .. } = Loaded::read(&args.training.config, &args.training.overrides.all(), Purpose::Shapes)?;
    let jobs = plan(&args, &config)?;
    if let Some(path) = &args.plot {
        // Not after minutes of measuring.
        std::fs::write(path, "").with_context(|| format!("--plot {} cannot be written", path.display()))?;
    }
    let machine = machine(&args, &config);
    let mut points: Vec<Point> = Vec::new();
    for (mode, ranks, batch) in jobs {
        let measured = measure(&args, &machine, ranks, batch)?;
        let speed = number(&measured, "/samples_per_second")?;
        let base = points.iter().find(|point| point.mode == mode).map_or((ranks, speed), |first| (first.ranks, first.samples_per_second));
        let point = Point {
            mode,
            ranks,
            batch,
            samples_per_second: speed,
            step_seconds: number(&measured, "/step_seconds")?,
            exchange_seconds: number(&measured, "/phases/exchange/seconds").unwrap_or(0.0),
            efficiency: speed * base.0 as f64 / (base.1 * ranks as f64),
            shared: machine.shared(ranks),
        };
        // Once, also where both modes have so many.
        if let Some(shared) = &point.shared
            && points.iter().all(|point| point.ranks != ranks)
        {
            log::warn!("{shared}: this shows that it works, not how it scales");
        }
        points.push(point);
    }
    say(to_text(&points, &machine));
    if let Some(path) = &args.plot {
        let drawing = drawing(&args_title(&args, &config), &points);
        std::fs::write(path, drawing).with_context(|| format!("--plot {} cannot be written", path.display()))?;
        say(format_args!("plot: {}", path.display()));
    }
    if args.training.json {
        say(to_json(&points, &machine, &args, &config));
    }
    Ok(())
}

/// Every job with its global batch; refused before any is started where one cannot be.
fn plan(args: &ScalingArgs, config: &Config) -> Result<Vec<(Mode, usize, usize)>> {
    let mut jobs = Vec::new();
    for mode in args.mode.each() {
        for ranks in args.ranks.iter().map(|ranks| *ranks as usize) {
            let batch = if *mode == Mode::Weak { config.data.batch_size * ranks } else { config.data.batch_size };
            let mut of_job = config.clone();
            of_job.data.batch_size = batch;
            Plan::new(&of_job, &args.training.input.facts(&of_job, args.training.classes)?, ranks)?;
            jobs.push((*mode, ranks, batch));
        }
    }
    Ok(jobs)
}

fn machine(args: &ScalingArgs, config: &Config) -> Machine {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let gpus = device::shared(config.parallel.device, config.parallel.kernels);
    let most = args.ranks.iter().map(|ranks| *ranks as usize).filter(|ranks| *ranks <= cpus).max().unwrap_or(1);
    let threads_per_rank = if config.parallel.threads_per_rank > 0 { config.parallel.threads_per_rank } else { cpus / most };
    Machine { cpus, gpus, threads_per_rank }
}

impl Machine {
    /// What is short for so many ranks. Those that mpirun sends to other hosts are not counted: only it knows where.
    fn shared(&self, ranks: usize) -> Option<String> {
        let (here, what) = match self.gpus {
            0 => (self.cpus / self.threads_per_rank, format!("{} CPU{}", self.cpus, plural(self.cpus))),
            gpus => (gpus, format!("{gpus} GPU{}", plural(gpus))),
        };
        let hosts = ["OMPI_MCA_orte_default_hostfile", "SLURM_JOB_ID"].iter().any(|name| std::env::var_os(name).is_some());
        let each =
            if self.gpus == 0 && self.threads_per_rank > 1 { format!(" of {} threads", self.threads_per_rank) } else { String::new() };
        (ranks > here.max(1) && !hosts).then(|| format!("{ranks} ranks{each} share {what}"))
    }
}

/// What `bench step` prints of so many ranks with so large a global batch.
fn measure(args: &ScalingArgs, machine: &Machine, ranks: usize, batch: usize) -> Result<Value> {
    let program = std::env::current_exe().context("this program's own path is unknown")?;
    let [height, width, channels] = args.training.input.0;
    let mut command = Command::new("mpirun");
    command
        .args(["--oversubscribe", "--bind-to", "none", "-n", &ranks.to_string()])
        .arg(program)
        .args(["bench", "step"])
        .arg(&args.training.config);
    command.args(["--input", &format!("{height}x{width}x{channels}"), "--steps", &args.training.steps.to_string(), "--json"]);
    if let Some(classes) = args.training.classes {
        command.args(["--classes", &classes.to_string()]);
    }
    for set in args.training.overrides.all() {
        command.args(["--set", &set]);
    }
    command.args(["--set", &format!("data.batch_size={batch}")]);
    command.args(["--set", &format!("parallel.threads_per_rank={}", machine.threads_per_rank)]);
    command.envs(start::MPIRUN_FOR_ROOT.into_iter().filter(|_| start::is_root()));
    let (name, value) = start::MPIRUN_PARAMETER;
    let name = start::MPIRUN_PREFIX.to_owned() + name;
    if std::env::var_os(&name).is_none() {
        command.env(name, value);
    }
    let output = start::as_no_rank(&mut command).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.context("mpirun cannot be started: install Open MPI, or load your cluster's module")?;
    if !output.status.success() {
        bail!("{ranks} ranks: mpirun ended with {}", output.status);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{ranks} ranks: bench step printed no result, but {line:?}"))
}

fn number(value: &Value, pointer: &str) -> Result<f64> {
    value.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("bench step printed no {pointer}"))
}

fn args_title(args: &ScalingArgs, config: &Config) -> String {
    let [height, width, channels] = args.training.input.0;
    format!("{}, images of {height}x{width}x{channels}", config.experiment.name)
}

/// Speeds against ranks, each mode's beside as many times its first one's; hollow where ranks had to share. On axes on which equal factors are
/// equal distances, ideal lines are straight.
fn drawing(title: &str, points: &[Point]) -> String {
    let of = |mode: Mode| points.iter().filter(move |point| point.mode == mode);
    let at = |ranks: usize, speed: f64| (ranks as f64, Spread { mean: speed, deviation: None });
    let mut lines = Vec::new();
    for (index, mode) in Mode::Both.each().iter().enumerate() {
        let Some(first) = of(*mode).next() else { continue };
        let batch = if *mode == Mode::Weak { "batch grows" } else { "one batch" };
        let name = format!("{} ({batch})", mode.name());
        let look = of_variant(index);
        let ideal = of(*mode).map(|point| at(point.ranks, first.samples_per_second * point.ranks as f64 / first.ranks as f64));
        let marked = Look { filled: true, ..look };
        let mut add = |name: String, look: &Look, points: Vec<_>| {
            if !points.is_empty() {
                lines.push(Line { name, look: look.clone(), points });
            }
        };
        add(name.clone(), &marked, of(*mode).map(|point| at(point.ranks, point.samples_per_second)).collect());
        let shared = of(*mode).filter(|point| point.shared.is_some()).map(|point| at(point.ranks, point.samples_per_second)).collect();
        add(format!("{name}, ranks share CPUs or GPUs"), &Look { filled: false, ..marked.clone() }, shared);
        add(format!("{name}, ideal"), &Look { filled: false, dashed: true, ..marked.clone() }, ideal.collect());
    }
    let all = || lines.iter().flat_map(|line| &line.points);
    let ranks: Vec<f64> = all().map(|(ranks, _)| *ranks).collect();
    let speeds = all().map(|(_, speed)| speed.mean);
    let (low, high) = speeds.fold((f64::INFINITY, 0.0f64), |(low, high), speed| (low.min(speed), high.max(speed)));
    let marks: Vec<f64> = (0..64).map(|power| low.floor().max(1.0) * 2f64.powi(power)).take_while(|mark| *mark <= 2.0 * high).collect();
    let legend = Entry::of(&lines);
    let x = Axis::log2("Ranks", &ranks);
    let plot = LineChart { x, y: Axis::log2("Samples a second", &marks), x_name: "ranks:".to_owned(), unit: String::new(), lines };
    Chart { panels: vec![Panel { title: title.to_owned(), plot: Plot::Lines(plot), legend: vec![] }], legend }.files(title, PLOT_MM).0
}

fn to_text(points: &[Point], machine: &Machine) -> String {
    let heading = ["scaling", "ranks", "batch", "samples/s", "ms/step", "exchange ms", "efficiency", ""].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for point in points {
        rows.push(vec![
            point.mode.name().to_owned(),
            point.ranks.to_string(),
            point.batch.to_string(),
            format!("{:.0}", point.samples_per_second),
            format!("{:.3}", 1e3 * point.step_seconds),
            format!("{:.3}", 1e3 * point.exchange_seconds),
            format!("{:.0} %", 100.0 * point.efficiency),
            point.shared.clone().unwrap_or_default(),
        ]);
    }
    let has = match machine.gpus {
        0 => format!("{} thread(s) of {} CPUs on this machine", machine.threads_per_rank, machine.cpus),
        gpus => format!("one of {gpus} GPUs on this machine"),
    };
    format!("{}each rank has {has}", table(&rows, 1))
}

fn to_json(points: &[Point], machine: &Machine, args: &ScalingArgs, config: &Config) -> Value {
    let of_point = |point: &Point| {
        json!({
            "mode": point.mode.name(),
            "ranks": point.ranks,
            "batch_size": point.batch,
            "samples_per_second": point.samples_per_second,
            "step_seconds": point.step_seconds,
            "exchange_seconds": point.exchange_seconds,
            "efficiency": point.efficiency,
            "oversubscribed": point.shared.is_some(),
        })
    };
    json!({
        "experiment": config.experiment.name,
        "input": args.training.input.0,
        "classes": args.training.classes,
        "steps": args.training.steps,
        "cpus": machine.cpus,
        "gpus": machine.gpus,
        "threads_per_rank": machine.threads_per_rank,
        "points": points.iter().map(of_point).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ideal_speeds_lie_on_a_straight_line() {
        let point = |mode, ranks, speed, shared: bool| Point {
            mode,
            ranks,
            batch: 8,
            samples_per_second: speed,
            step_seconds: 1.0,
            exchange_seconds: 0.0,
            efficiency: 1.0,
            shared: shared.then(String::new),
        };
        let points = [point(Mode::Weak, 1, 1000.0, false), point(Mode::Weak, 2, 1900.0, false), point(Mode::Weak, 4, 2000.0, true)];
        let svg = drawing("a < b", &points);
        assert!(svg.contains("a &lt; b") && svg.contains("ideal</text>") && svg.contains("ranks share CPUs or GPUs</text>"), "{svg}");
        // The last line's last point is the first speed times the ranks.
        assert!(svg.contains("ideal, ranks: 4: 4000"), "{svg}");
        let (ideal, _) = svg.split_once("stroke-dasharray").unwrap();
        let path = ideal.rsplit_once("d=\"M").unwrap().1.split('"').next().unwrap();
        let places: Vec<f64> = path.split(['L', ' ']).map(|number| number.parse().unwrap()).collect();
        let [x0, y0, x1, y1, x2, y2] = places[..] else { panic!("{path}") };
        assert!((x2 - x1 - (x1 - x0)).abs() < 0.3 && (y2 - y1 - (y1 - y0)).abs() < 0.3, "{path}");
    }

    #[test]
    fn it_says_when_ranks_outnumber_what_there_is() {
        let machine = |cpus, gpus, threads_per_rank| Machine { cpus, gpus, threads_per_rank };
        assert_eq!(machine(8, 0, 2).shared(4), None);
        assert_eq!(machine(8, 0, 2).shared(5).unwrap(), "5 ranks of 2 threads share 8 CPUs");
        assert_eq!(machine(2, 0, 1).shared(4).unwrap(), "4 ranks share 2 CPUs");
        assert_eq!(machine(64, 4, 1).shared(8).unwrap(), "8 ranks share 4 GPUs");
        assert_eq!(machine(64, 8, 1).shared(8), None);
    }
}
