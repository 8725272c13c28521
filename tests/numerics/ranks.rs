//! Several ranks whose parameters are tensors, against one: as threads of this process, without MPI.

use std::sync::{Arc, Barrier, Mutex};

use anyhow::Result;
use biodist::compute::cpu::Arena;
use biodist::compute::device::Device;
use biodist::compute::{Batch, Buffer, Part};
use biodist::config::{Config, ExchangeChoice};
use biodist::exchange::{Handle, Message, Sharing, Single, Span, Transport};
use biodist::learner::Engine;
use biodist::network::{MapId, Maps, Network};
use biodist::rules::Phase;

use crate::support::{Samples, config, distance, norm};

/// What ranks that are threads share: a place for each to show its memory, and a barrier.
struct Meeting {
    shown: Mutex<Vec<usize>>,
    barrier: Barrier,
}

/// One of several ranks that are threads.
struct Thread {
    meeting: Arc<Meeting>,
    rank: usize,
    size: usize,
}

impl Thread {
    /// Shows `own` to all, lets `read` see what every rank shows, and waits until all have read.
    fn meet<T>(&self, own: usize, read: impl FnOnce(&[usize]) -> T) -> T {
        self.meeting.shown.lock().unwrap()[self.rank] = own;
        self.barrier();
        let shown = self.meeting.shown.lock().unwrap().clone();
        let result = read(&shown);
        self.barrier();
        result
    }
}

impl Transport for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn local(&self) -> (usize, usize) {
        (self.rank, self.size)
    }

    fn barrier(&self) {
        self.meeting.barrier.wait();
    }

    fn all_gather_words(&self, own: &[u64]) -> Vec<u64> {
        self.meet(own.as_ptr() as usize, |shown| {
            shown.iter().flat_map(|from| unsafe { std::slice::from_raw_parts(*from as *const u64, own.len()) }).copied().collect()
        })
    }

    unsafe fn begin(&self, _freight: Span, sends: &[Message], receives: &[Message]) -> Handle {
        let own = sends.to_vec();
        self.meet(std::ptr::from_ref(&own) as usize, |shown| {
            let mut taken = vec![0; self.size];
            for to in receives {
                let sends = unsafe { &*(shown[to.rank] as *const Vec<Message>) };
                let mut for_us = sends.iter().filter(|message| message.rank == self.rank).skip(taken[to.rank]);
                let from = for_us.next().expect("what one rank sends, another receives");
                assert_eq!(from.bytes, to.bytes);
                unsafe { std::ptr::copy(from.at, to.at, to.bytes) };
                taken[to.rank] += 1;
            }
        });
        Handle(0)
    }

    fn wait(&self, _journey: Handle) {}

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let own = std::ptr::from_ref(bytes) as usize;
        let first = self.meet(own, |shown| unsafe { (*(shown[0] as *const Vec<u8>)).clone() });
        *bytes = first;
    }

    fn shared(&self, _elements: &[usize]) -> Result<Option<Vec<Arena>>> {
        Ok(None)
    }

    unsafe fn release_shared(&self) {}

    fn finish(&self) {}

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

/// Every tensor that a checkpoint holds.
fn checkpointed(engine: &Engine) -> Vec<(MapId, Part, Buffer)> {
    let mut tensors = Vec::new();
    for (index, map) in engine.maps().all.iter().enumerate().filter(|(_, map)| map.parameters() > 0) {
        let buffers = [Buffer::Weights, Buffer::FirstMoment, Buffer::SecondMoment];
        for buffer in &buffers[..if map.trained() { 3 } else { 1 }] {
            tensors.push((MapId(index), Part::Weight, *buffer));
            if map.biases() > 0 {
                tensors.push((MapId(index), Part::Bias, *buffer));
            }
        }
    }
    tensors
}

/// Trains three steps, through a checkpoint after the first. Returns what the last checkpoint holds (on rank 0) and the checksum.
fn train(config: &Config, samples: &Samples, transport: Arc<dyn Transport>) -> (Vec<Vec<f32>>, u64) {
    let network = Network::new(samples.shape, samples.classes, &config.network).expect("the network can be made");
    let mut engine = Engine::on_tensors(config, &network, transport.clone(), Device::Cpu).expect("the engine can be made");
    engine.initialize().expect("parameters can be set");
    let tensors = checkpointed(&engine);
    let checkpoint = |engine: &Engine| -> Vec<Vec<f32>> {
        engine.gather();
        let all = tensors.iter().filter(|_| transport.rank() == 0);
        all.map(|&(map, part, buffer)| engine.read(map, part, buffer)).collect()
    };
    for step in 0..3u64 {
        let (each, units) = (config.data.batch_size / transport.size(), samples.units());
        let from = step as usize % 2 * config.data.batch_size + transport.rank() * each;
        let pixels = &samples.pixels[from * units..(from + each) * units];
        let (labels, first) = (&samples.labels[from..from + each], transport.rank() * each);
        engine.learn(&Batch { pixels, labels, samples: each, first, step }, Phase::Both, 1.0).expect("the step succeeds");
        if step == 0 {
            for (index, values) in checkpoint(&engine).iter().chain(vec![&Vec::new(); tensors.len()]).take(tensors.len()).enumerate() {
                let mut bytes: Vec<u8> = bytemuck::cast_slice(values).to_vec();
                transport.broadcast(&mut bytes);
                let values: Vec<f32> = bytemuck::pod_collect_to_vec(&bytes);
                let (map, part, buffer) = tensors[index];
                engine.write(map, part, buffer, &vec![0.25; values.len()]).expect("it fits");
                engine.write(map, part, buffer, &values).expect("it fits");
            }
        }
    }
    (checkpoint(&engine), engine.checksum())
}

/// [`train`] on `size` ranks: rank 0's checkpoint. All ranks have the same parameters.
fn train_on(size: usize, config: &Config, samples: &Samples) -> Vec<Vec<f32>> {
    if size == 1 {
        return train(config, samples, Arc::new(Single)).0;
    }
    let meeting = Arc::new(Meeting { shown: Mutex::new(vec![0; size]), barrier: Barrier::new(size) });
    let of_ranks: Vec<(Vec<Vec<f32>>, u64)> = std::thread::scope(|scope| {
        let start = |rank| {
            let transport = Arc::new(Thread { meeting: meeting.clone(), rank, size });
            scope.spawn(move || train(config, samples, transport))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("the rank succeeds")).collect()
    });
    assert!(of_ranks.iter().all(|rank| rank.1 == of_ranks[0].1), "replicas differ");
    of_ranks.into_iter().next().expect("there are ranks").0
}

fn doubles(values: &[f32]) -> Vec<f64> {
    values.iter().map(|value| f64::from(*value)).collect()
}

#[test]
fn maps_are_shared_as_moves_fewer_bytes() {
    let layers = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let config = config("flat", &[layers]);
    let maps = Maps::new(&Network::new([6, 7, 2], 10, &config.network).expect("the network can be made"), &config.learning.needs());
    let plan = |size, choice, samples| Sharing::plan(&maps, size, choice, samples);
    // 114 parameters for 84 + 252 units a sample; 7590 for 252 + 30; 310 for 30 + 10.
    let (factors, gradients) = (Sharing::Activities, Sharing::Gradients);
    assert_eq!(plan(2, ExchangeChoice::Auto, 6), [gradients, factors, factors]);
    assert_eq!(plan(2, ExchangeChoice::Auto, 8), [gradients, factors, gradients]);
    assert_eq!(plan(2, ExchangeChoice::Auto, 64), [gradients; 3]);
    assert_eq!(plan(2, ExchangeChoice::Activities, 64), [factors; 3]);
    assert_eq!(plan(2, ExchangeChoice::Gradients, 1), [gradients; 3]);
    assert_eq!(plan(1, ExchangeChoice::Gradients, 1), [Sharing::None; 3]);
}

#[test]
fn ranks_share_updates_of_tensors_in_every_way() {
    let local = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "dense", units = 30 }]"#;
    let dense = r#"network.layers=[{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 21 }]"#;
    let pools = r#"network.layers=[{ kind = "conv", kernel = 3, channels = 6, stride = 1 }, { kind = "max_pool", kernel = 2, stride = 2 }, { kind = "dense", units = 30 }]"#;
    for (layers, rule) in
        [(local, "bp"), (dense, "bp"), (dense, "dtp"), (dense, "ao_sdtp"), (dense, "kp"), (dense, "l_drl"), (pools, "fa"), (pools, "kp")]
    {
        let rule = format!("learning.rule={rule}");
        let samples = Samples::random([6, 7, 2], 10, 24);
        let settings = |exchange: &str| {
            let exchange = format!("parallel.exchange={exchange}");
            config("flat", &[layers, &rule, &exchange, "data.batch_size=12"])
        };
        let alone = train_on(1, &settings("auto"), &samples);
        for size in [2, 3, 4] {
            for exchange in ["auto", "activities", "gradients"] {
                let together = train_on(size, &settings(exchange), &samples);
                assert_eq!(together.len(), alone.len());
                for (index, (ours, wanted)) in together.iter().zip(&alone).enumerate().filter(|(_, (ours, wanted))| ours != wanted) {
                    let found = distance(&doubles(ours), &doubles(wanted));
                    assert!(found < 1e-4, "{rule}, {exchange} on {size} ranks: tensor {index} is {found:.1e} away");
                }
            }
        }
    }
}

#[test]
fn what_travels_in_bf16_leaves_replicas_equal_and_near() {
    let layers = r#"network.layers=[{ kind = "local", kernel = 3, channels = 4, stride = 2 }, { kind = "dense", units = 21 }]"#;
    let samples = Samples::random([6, 7, 2], 10, 24);
    for exchange in ["activities", "gradients"] {
        let exchange = format!("parallel.exchange={exchange}");
        let of = |wire: &str, size| {
            let wire = format!("parallel.wire={wire}");
            train_on(size, &config("flat", &[layers, "learning.rule=dtp", &exchange, &wire, "data.batch_size=12"]), &samples)
        };
        // That all ranks have the same bits is checked where they train.
        for size in [2, 3] {
            let (exact, rounded) = (of("f32", size), of("bf16", size));
            assert_eq!(rounded.len(), exact.len());
            // How far apart they are, and how large; both are 0 where nothing was learned.
            let apart = |ours: &[f32], wanted: &[f32]| {
                assert_eq!(ours.len(), wanted.len());
                let differences = ours.iter().zip(wanted).map(|(ours, wanted)| f64::from(*ours) - f64::from(*wanted));
                (norm(differences), norm(doubles(wanted)))
            };
            let found: Vec<(f64, f64)> = rounded.iter().zip(&exact).map(|(ours, wanted)| apart(ours, wanted)).collect();
            assert!(found.iter().all(|(apart, of)| *apart <= 0.05 * of), "{exchange} on {size} ranks: {found:?}");
            assert!(found.iter().any(|(apart, of)| *apart > 1e-6 * of), "{exchange} on {size} ranks: nothing was rounded");
        }
    }
}
