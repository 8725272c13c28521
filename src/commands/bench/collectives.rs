//! `biodist bench collectives`: bandwidth of the collective operations that training uses, on the transport that it would use.
//!
//! Sizes and bandwidths are those of NVIDIA's nccl-tests, so that figures can be compared: the size is that of the whole buffer, the
//! algorithm's bandwidth that size divided by the time, and the bus bandwidth what each link carries at best.

mod gpu;

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::agreement::{Facts, agree};
use crate::compute::cpu::pool::Pool;
use crate::compute::cpu::simd::Isa;
use crate::compute::device::Device;
use crate::compute::settings::KernelChoice;
use crate::config;
use crate::cpus;
use crate::exchange::{self, NCCL_WITHOUT_GPU, Transport, equal_ranges};
use crate::exit::Exit;
use crate::job::say;
use crate::learner::choose_device;
use crate::text::{scaled, table};
use crate::watch;

/// Measure the collective operations that ranks exchange by
///
/// Start it as training would be: `mpirun -n 8 biodist bench collectives`. Every result is checked. Bandwidths are defined as in NVIDIA's
/// nccl-tests: algorithm = size / time; bus = algorithm x 2 (n - 1) / n for all-reduce, x (n - 1) / n for reduce-scatter and all-gather.
#[derive(Debug, clap::Args)]
pub struct CollectivesArgs {
    /// Smallest buffer, for instance 1K
    #[arg(long, value_name = "BYTES", default_value = "1K", value_parser = parse_bytes)]
    min: usize,
    /// Largest buffer; sizes between go up by factors of 4
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = parse_bytes)]
    max: usize,
    /// Where the buffers are: auto, cpu or cuda
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = parse_key::<config::Device>)]
    device: config::Device,
    /// What joins GPUs: auto, mpi or nccl
    #[arg(long, value_name = "BACKEND", default_value = "auto", value_parser = parse_key::<config::TransportChoice>)]
    backend: config::TransportChoice,
    /// Print one JSON object, as the last line
    #[arg(long)]
    json: bool,
}

/// `1K`, `4M`, `1G`: powers of 1024.
fn parse_bytes(text: &str) -> Result<usize, String> {
    let (digits, factor) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 1 << 10),
        Some((at, 'M')) => (&text[..at], 1 << 20),
        Some((at, 'G')) => (&text[..at], 1 << 30),
        _ => (text, 1),
    };
    let bytes = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(factor)).filter(|bytes| (4..=64 << 30).contains(bytes));
    bytes.ok_or_else(|| "expected bytes, 4 to 64G, such as 512, 1K or 256M".to_owned())
}

/// A value as configurations have it.
fn parse_key<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(json!(text)).map_err(|error| error.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    AllReduce,
    ReduceScatter,
    AllGather,
}

impl Operation {
    const ALL: [Operation; 3] = [Operation::AllReduce, Operation::ReduceScatter, Operation::AllGather];

    fn name(self) -> &'static str {
        match self {
            Operation::AllReduce => "all-reduce",
            Operation::ReduceScatter => "reduce-scatter",
            Operation::AllGather => "all-gather",
        }
    }

    /// Bus bandwidth over algorithm bandwidth, on `n` ranks.
    fn bus(self, n: usize) -> f64 {
        let others = (n - 1) as f64 / n as f64;
        if self == Operation::AllReduce { 2.0 * others } else { others }
    }
}

/// A buffer that all ranks have, and the ways to exchange it.
trait Buffer {
    fn fill(&mut self, value: &dyn Fn(usize) -> f32) -> Result<()>;
    /// All-reduce is a reduce-scatter followed by an all-gather, as in training.
    fn perform(&mut self, operation: Operation) -> Result<()>;
    fn values(&self) -> Result<Vec<f32>>;
}

/// Where buffers are, and what their exchange is done by.
trait Place {
    fn by(&self) -> &'static str;
    /// A buffer of `part` elements for each rank.
    fn buffer(&mut self, part: usize) -> Result<Box<dyn Buffer + '_>>;
}

/// This host's memory, exchanged by MPI.
struct HostMemory {
    transport: Arc<dyn Transport>,
    isa: Isa,
    pool: Arc<Pool>,
}

impl Place for HostMemory {
    fn by(&self) -> &'static str {
        "MPI, in the hosts' memory"
    }

    fn buffer(&mut self, part: usize) -> Result<Box<dyn Buffer + '_>> {
        Ok(Box::new(InMemory { memory: self, values: vec![0.0; part * self.transport.size()], part }))
    }
}

struct InMemory<'a> {
    memory: &'a HostMemory,
    values: Vec<f32>,
    part: usize,
}

impl Buffer for InMemory<'_> {
    fn fill(&mut self, value: &dyn Fn(usize) -> f32) -> Result<()> {
        self.values.iter_mut().enumerate().for_each(|(index, place)| *place = value(index));
        Ok(())
    }

    fn perform(&mut self, operation: Operation) -> Result<()> {
        let HostMemory { transport, isa, pool } = self.memory;
        let ranges = equal_ranges(transport.size(), self.part);
        let buffer = self.values.as_mut_ptr();
        if operation != Operation::AllGather {
            // SAFETY: the buffer holds all ranges.
            unsafe { exchange::reduce_scatter(&**transport, *isa, pool, buffer, &ranges) };
        }
        if operation != Operation::ReduceScatter {
            // SAFETY: the buffer holds all ranges.
            unsafe { transport.all_gather_ranges(buffer, &ranges) };
        }
        Ok(())
    }

    fn values(&self) -> Result<Vec<f32>> {
        Ok(self.values.clone())
    }
}

/// One size of one operation.
struct Measured {
    operation: Operation,
    bytes: usize,
    seconds: f64,
}

/// Measures and prints. Collective.
pub fn run(args: CollectivesArgs, transport: Arc<dyn Transport>) -> Result<()> {
    let size = transport.size();
    if size < 2 {
        return Err(Exit::Usage.error("bench collectives needs at least two ranks: mpirun -n 2 biodist bench collectives"));
    }
    if args.min > args.max {
        return Err(Exit::Usage.error(format!("--min {} is above --max {}", args.min, args.max)));
    }
    let facts = Facts::default()
        .with("--min", args.min.to_string())
        .with("--max", args.max.to_string())
        .with("--device", format!("{:?}", args.device))
        .with("--backend", format!("{:?}", args.backend));
    agree(&facts, &*transport)?;
    watch::watch(&transport, 300.0)?;
    let mut place = place(&args, &transport)?;
    let mut results = Vec::new();
    for bytes in sizes(args.min, args.max) {
        // As many elements for each rank.
        let part = (bytes / size_of::<f32>()).div_ceil(size);
        for operation in Operation::ALL {
            let seconds = time(&mut *place.buffer(part)?, operation, part, &*transport)?;
            results.push(Measured { operation, bytes: part * size * size_of::<f32>(), seconds });
        }
    }
    let mut hosts = exchange::host_names(&*transport);
    if transport.rank() == 0 {
        hosts.sort();
        hosts.dedup();
        say(to_text(&results, size, place.by(), &hosts));
        if args.json {
            say(to_json(&results, size, place.by(), &hosts));
        }
    }
    Ok(())
}

/// Where training would have its buffers, and what would join them. Collective.
fn place(args: &CollectivesArgs, transport: &Arc<dyn Transport>) -> Result<Box<dyn Place>> {
    match choose_device(args.device, KernelChoice::Auto, &**transport)? {
        Device::Cpu => {
            ensure!(args.backend != config::TransportChoice::Nccl, Exit::Usage.error(NCCL_WITHOUT_GPU));
            let pool = Arc::new(Pool::new(cpus::take(&**transport, 0)?.threads)?);
            Ok(Box::new(HostMemory { transport: transport.clone(), isa: Isa::available()[0], pool }))
        }
        Device::Cuda(index) => Ok(Box::new(gpu::Gpu::join(index, args.backend, transport)?)),
    }
}

fn sizes(min: usize, max: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(min), |size| size.checked_mul(4)).take_while(move |size| *size <= max)
}

/// Seconds of one operation on parts of `part` elements, the slowest rank's mean. Collective.
fn time(buffer: &mut dyn Buffer, operation: Operation, part: usize, transport: &dyn Transport) -> Result<f64> {
    check(buffer, operation, part, transport)?;
    let bytes = part * transport.size() * size_of::<f32>();
    let repetitions = ((128 << 20) / bytes).clamp(4, 400);
    buffer.perform(operation)?;
    transport.barrier();
    let started = Instant::now();
    for _ in 0..repetitions {
        buffer.perform(operation)?;
    }
    let own = started.elapsed().as_secs_f64() / repetitions as f64;
    let all = transport.all_gather_words(&[own.to_bits()]);
    Ok(all.into_iter().map(f64::from_bits).fold(0.0, f64::max))
}

/// Fails where a result is wrong. Small whole numbers have exact sums in any order. Collective.
fn check(buffer: &mut dyn Buffer, operation: Operation, part: usize, transport: &dyn Transport) -> Result<()> {
    let (rank, size) = (transport.rank(), transport.size());
    let of = |rank: usize, index: usize| ((rank + 1) * (index % 13 + 1)) as f32;
    let sum = |index: usize| (1..=size).map(|rank| of(rank - 1, index)).sum::<f32>();
    buffer.fill(&|index| of(rank, index))?;
    buffer.perform(operation)?;
    let values = buffer.values()?;
    for (index, value) in values.iter().enumerate() {
        let expected = match operation {
            Operation::AllReduce => sum(index),
            Operation::AllGather => of(index / part, index),
            // The others' parts are whatever they are.
            Operation::ReduceScatter if index / part != rank => continue,
            Operation::ReduceScatter => sum(index),
        };
        ensure!(
            *value == expected,
            "rank {rank}: {} of {} elements is wrong: element {index} is {value}, expected {expected}",
            operation.name(),
            values.len()
        );
    }
    Ok(())
}

impl Measured {
    fn algorithm(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

fn to_text(results: &[Measured], size: usize, by: &str, hosts: &[String]) -> String {
    let heading = ["operation", "bytes", "microseconds", "algorithm GB/s", "bus GB/s"].map(str::to_owned).to_vec();
    let mut rows = vec![heading];
    for operation in Operation::ALL {
        for result in results.iter().filter(|result| result.operation == operation) {
            rows.push(vec![
                operation.name().to_owned(),
                format!("{}B", scaled(result.bytes as f64)),
                format!("{:.1}", 1e6 * result.seconds),
                format!("{:.3}", 1e-9 * result.algorithm()),
                format!("{:.3}", 1e-9 * result.algorithm() * operation.bus(size)),
            ]);
        }
    }
    format!("{}{size} ranks on {} by {by}; every result was right", table(&rows, 1), hosts.join(", "))
}

fn to_json(results: &[Measured], size: usize, by: &str, hosts: &[String]) -> Value {
    let of = |result: &Measured| {
        json!({
            "operation": result.operation.name(),
            "bytes": result.bytes,
            "seconds": result.seconds,
            "algorithm_bytes_per_second": result.algorithm(),
            "bus_bytes_per_second": result.algorithm() * result.operation.bus(size),
        })
    };
    json!({ "ranks": size, "transport": by, "hosts": hosts, "results": results.iter().map(of).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bus_bandwidth_is_that_of_nccl_tests() {
        assert_eq!(Operation::AllReduce.bus(2), 1.0);
        assert_eq!(Operation::AllReduce.bus(8), 1.75);
        assert_eq!((Operation::ReduceScatter.bus(4), Operation::AllGather.bus(4)), (0.75, 0.75));
    }

    #[test]
    fn sizes_go_up_to_the_largest() {
        let from = |min, max| sizes(parse_bytes(min).unwrap(), parse_bytes(max).unwrap()).collect::<Vec<_>>();
        assert_eq!(from("1K", "256M").len(), 10);
        assert_eq!(from("512", "4k"), [512, 2048]);
        for wrong in ["", "K", "1T", "-1", "3", "1.5M", "99999999999G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_key("cuda"), Ok(config::Device::Cuda));
        assert!(parse_key::<config::TransportChoice>("gloo").unwrap_err().contains("nccl"));
    }
}
