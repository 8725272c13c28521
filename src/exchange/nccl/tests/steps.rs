//! Whole steps of training, whose updates NCCL or its stand-in shares.

use super::*;
use crate::compute::device::Device;
use crate::compute::torch::{Setup, TorchBackend};
use crate::compute::{Activity, Backend, Batch, Method, OptimizerStep, Update};
use crate::config::{Config, Wire};
use crate::exchange::torch::TensorExchange;
use crate::exchange::{Optimizers, Sharing, Single, UpdateExchange};
use crate::network::{MapId, Maps, Network};
use crate::rules::{self, Phase, Step};

const CONFIG: &str = r#"
[data]
train = "unused"
batch_size = 8
[network]
layers = [{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 12 }]
[learning]
rule = "bp"
[optimizer.forward]
learning_rate = 0.1
[training]
max_steps = 1
"#;

/// The parameters of each map after one update of a backend of `samples` samples among `size` ranks that are copies of each other, and
/// what was called.
fn parameters_after_update(size: usize, sharing: Sharing, samples: usize, overlap: bool) -> (Vec<Vec<f32>>, Vec<String>) {
    let late = Late::new(size);
    let collectives: Option<Box<dyn Collectives>> = if size == 1 { None } else { Some(Box::new(joined(&late, Duration::from_secs(60)))) };
    let flats = parameters_after(Case::new(size, sharing, samples, overlap), collectives, &late);
    (flats, late.log.take())
}

#[derive(Clone, Copy)]
struct Case {
    device: Device,
    wire: Wire,
    size: usize,
    sharing: Sharing,
    samples: usize,
    overlap: bool,
}

impl Case {
    /// On the CPU, where float32 travels.
    fn new(size: usize, sharing: Sharing, samples: usize, overlap: bool) -> Case {
        Case { device: Device::Cpu, wire: Wire::F32, size, sharing, samples, overlap }
    }
}

/// The parameters of each map after one update by `collectives`; `late` is told of what happens beside them.
fn parameters_after(case: Case, collectives: Option<Box<dyn Collectives>>, late: &Late) -> Vec<Vec<f32>> {
    let Case { device, wire, size, sharing, samples, overlap } = case;
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), CONFIG).unwrap();
    let config = Config::load(file.path(), &[]).unwrap();
    let network = Network::new([5, 6, 2], 3, &config.network).unwrap();
    let maps = Arc::new(Maps::new(&network, &config.learning.needs()));
    let part = if sharing == Sharing::Gradients { (0, size) } else { (0, 1) };
    let (precision, parts) = (config.parallel.precision, vec![part; maps.all.len()]);
    let setup = Setup { device, precision, seed: 1, capacity: samples, label_smoothing: 0.0, parts };
    let mut backend = TorchBackend::new(&network, maps.clone(), setup).unwrap();
    backend.initialize();
    let rule = rules::build(&config.learning, &network, &maps, &mut backend).unwrap();
    let mut exchange = TensorExchange::over(collectives, Arc::new(Single), vec![sharing; maps.all.len()], size, overlap, wire);
    // Four samples, over and over.
    let pixels: Vec<f32> = (0..samples * 60).map(|i| ((i % 240) as f32 * 0.7).sin()).collect();
    let labels: Vec<u32> = (0..samples as u32).map(|i| i % 4 % 3).collect();
    backend.begin(&Batch { pixels: (&pixels).into(), labels: &labels, samples, first: 0, step: 0 }).unwrap();
    rule.learn(&mut Recorded { backend: &mut backend, exchange: &mut exchange, late }, Phase::Both);
    backend.finish().unwrap();
    late.say("the rule is done".to_owned());
    let method = Method::Adam { beta1: 0.9, beta2: 0.99, size: 0.01, deviation_scale: 1.0, epsilon: 1e-3 };
    let adam = OptimizerStep { scale: 0.125, keep: 1.0, method };
    exchange.commit(&mut backend, Optimizers(&vec![adam; maps.all.len()])).unwrap();
    (0..maps.all.len()).map(|map| values(&backend.flat(MapId(map)).to_device(tch::Device::Cpu))).collect()
}

/// A rule's step whose updates go to the exchange, each after a word in the log.
struct Recorded<'a> {
    backend: &'a mut TorchBackend,
    exchange: &'a mut TensorExchange,
    late: &'a Late,
}

impl Step for Recorded<'_> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    fn update(&mut self, update: Update) {
        self.late.say("an update".to_owned());
        self.exchange.take(self.backend, update).unwrap();
    }

    fn gather(&mut self, _: Activity) -> Vec<f32> {
        unreachable!("no layer is normalised");
    }
}

fn near(ours: &[f32], wanted: &[f32]) {
    assert!(ours.len() <= wanted.len());
    assert!(ours.iter().zip(wanted).all(|(ours, wanted)| (ours - wanted).abs() < 1e-6), "{ours:?} for {wanted:?}");
}

#[test]
fn updates_wait_for_what_they_use() {
    let (wanted, _) = parameters_after_update(1, Sharing::None, 8, true);
    for overlap in [false, true] {
        let (by_factors, log) = parameters_after_update(2, Sharing::Activities, 4, overlap);
        for (ours, wanted) in by_factors.iter().zip(&wanted) {
            near(ours, wanted);
        }
        // All factors are on their way before the first is waited for; each once: h_0 to h_2 and an error a layer.
        let first_wait = log.iter().position(|call| call.starts_with("libtorch waits")).unwrap();
        let gathers = |calls: &[String]| calls.iter().filter(|call| call.starts_with("all-gather")).count();
        assert_eq!((gathers(&log[..first_wait]), gathers(&log)), (6, 6));
        let (by_gradients, log) = parameters_after_update(2, Sharing::Gradients, 4, overlap);
        for (ours, wanted) in by_gradients.iter().zip(&wanted) {
            let (own, copied) = ours.split_at(ours.len() / 2);
            near(own, wanted);
            assert_eq!(own, copied, "the other rank's part is the copy of this one's");
        }
        let calls = |kind: &str| log.iter().filter(|call| call.starts_with(kind)).count();
        assert_eq!((calls("reduce-scatter"), calls("all-gather"), calls("libtorch waits")), (3, 3, 6));
        let last_scatter = log.iter().rposition(|call| call.starts_with("reduce-scatter")).unwrap();
        assert!(log[..last_scatter].iter().all(|call| !call.starts_with("libtorch waits")), "gradients are made while others travel");
    }
}

#[test]
fn what_an_update_needs_begins_to_travel_as_the_rule_hands_it_out() {
    let operations = |sharing, overlap| -> Vec<String> {
        let (_, log) = parameters_after_update(2, sharing, 4, overlap);
        let kind = |call: String| match call.split(' ').next() {
            Some("an" | "the" | "group" | "all-gather" | "reduce-scatter") => {
                Some(call.split_once(|c: char| c.is_ascii_digit()).map_or(call.as_str(), |(kind, _)| kind.trim()).to_owned())
            }
            _ => None,
        };
        let calls = log.into_iter().filter_map(kind);
        calls.take_while(|call| call != "the rule is done").collect()
    };
    // bp goes down: the top's h_2 and error, then h_1 and h_0 with an error each.
    let pair = ["an update", "group", "all-gather", "all-gather"];
    assert_eq!(operations(Sharing::Activities, true), pair.repeat(3));
    // A gradient is whole when another map's updates begin; the last, when the rule is done.
    let gradient = ["an update", "group", "reduce-scatter"];
    assert_eq!(operations(Sharing::Gradients, true), [&["an update"], &gradient.repeat(2)[..]].concat());
    assert_eq!(operations(Sharing::Gradients, false), ["an update"].repeat(3));
}

#[test]
fn steps_of_one_rank_are_those_of_none() {
    let gpu = on_gpu().map(|_| Device::Cuda(0));
    for device in [Device::Cpu].into_iter().chain(gpu) {
        let late = Late::new(1);
        let wanted = parameters_after(Case { device, ..Case::new(1, Sharing::None, 8, true) }, None, &late);
        for (wire, overlap, sharing) in [Wire::F32, Wire::Bf16].into_iter().flat_map(|wire| {
            [false, true].into_iter().flat_map(move |overlap| [Sharing::Activities, Sharing::Gradients].map(|way| (wire, overlap, way)))
        }) {
            let collectives: Box<dyn Collectives> = match device {
                Device::Cpu => Box::new(joined(&late, Duration::from_secs(60))),
                _ => Box::new(on_gpu().expect("it was there before")),
            };
            let case = Case { device, wire, ..Case::new(1, sharing, 8, overlap) };
            let ours = parameters_after(case, Some(collectives), &late);
            let mut farthest = 0.0f32;
            for (ours, wanted) in ours.iter().zip(&wanted) {
                assert_eq!(ours.len(), wanted.len());
                farthest = ours.iter().zip(wanted).map(|(ours, wanted)| (ours - wanted).abs()).fold(farthest, f32::max);
            }
            // Adam's step is 0.01 at most.
            let near = if wire == Wire::F32 { farthest < 1e-6 } else { (1e-6..1e-3).contains(&farthest) };
            assert!(near, "{sharing:?}, {wire:?}, overlap {overlap}, on {device:?}: {farthest} away");
        }
    }
}
