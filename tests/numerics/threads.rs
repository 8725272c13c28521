//! Ranks that are threads of this process, without MPI, and what they train.

use std::sync::{Arc, Barrier, Mutex};

use anyhow::Result;
use biodist::compute::cpu::Arena;
use biodist::compute::{Batch, Buffer, Part};
use biodist::config::Config;
use biodist::exchange::{Handle, Message, Single, Span, Transport};
use biodist::learner::Engine;
use biodist::network::{MapId, Network};
use biodist::rules::Phase;

use crate::support::Samples;

/// What makes a rank's engine.
pub type Make<'a> = &'a (dyn Fn(&Config, &Network, Arc<dyn Transport>) -> Engine + Sync);

/// What ranks that are threads share: a place for each to show its memory, and a barrier.
struct Meeting {
    shown: Mutex<Vec<usize>>,
    barrier: Barrier,
    /// Whether ranks share memory, as those of a host do.
    one_host: bool,
    counts: Mutex<Counts>,
}

/// What all ranks together did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub host_barriers: usize,
    pub messages: usize,
    pub bytes: usize,
}

impl Meeting {
    fn of(size: usize, one_host: bool) -> Arc<Meeting> {
        Arc::new(Meeting { shown: Mutex::new(vec![0; size]), barrier: Barrier::new(size), one_host, counts: Mutex::default() })
    }
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

    fn host_barrier(&self) {
        self.meeting.counts.lock().unwrap().host_barriers += 1;
        self.barrier();
    }

    fn all_gather_words(&self, own: &[u64]) -> Vec<u64> {
        self.meet(own.as_ptr() as usize, |shown| {
            shown.iter().flat_map(|from| unsafe { std::slice::from_raw_parts(*from as *const u64, own.len()) }).copied().collect()
        })
    }

    unsafe fn begin(&self, _traced: Span, sends: &[Message], receives: &[Message]) -> Handle {
        let own = sends.to_vec();
        {
            let mut counts = self.meeting.counts.lock().unwrap();
            counts.messages += own.len();
            counts.bytes += own.iter().map(|message| message.bytes).sum::<usize>();
        }
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

    fn wait(&self, _handle: Handle) {}

    fn broadcast(&self, bytes: &mut Vec<u8>) {
        let own = std::ptr::from_ref(bytes) as usize;
        let first = self.meet(own, |shown| unsafe { (*(shown[0] as *const Vec<u8>)).clone() });
        *bytes = first;
    }

    fn shared(&self, elements: &[usize]) -> Result<Option<Vec<Arena>>> {
        if !self.meeting.one_host {
            return Ok(None);
        }
        // Stays for as long as the process lives, as other ranks may outlive this one.
        let own = if self.rank == 0 { Vec::leak(vec![0.0f32; elements.iter().sum()]).as_mut_ptr() as usize } else { 0 };
        let mut at = self.meet(own, |shown| shown[0] as *mut f32);
        let arena = |len: &usize| {
            let arena = unsafe { Arena::shared(at, *len) };
            at = at.wrapping_add(*len);
            arena
        };
        Ok(Some(elements.iter().map(arena).collect()))
    }

    unsafe fn release_shared(&self) {}

    fn finish(&self) {}

    fn abort(&self, code: i32) -> ! {
        std::process::exit(code)
    }
}

/// A rank that meets nobody.
pub fn lonely(rank: usize, size: usize) -> Arc<dyn Transport> {
    Arc::new(Thread { meeting: Meeting::of(size, false), rank, size })
}

/// Every tensor that a checkpoint holds.
pub fn checkpointed(engine: &Engine) -> Vec<(MapId, Part, Buffer)> {
    let mut tensors = Vec::new();
    for (index, map) in engine.maps().all.iter().enumerate() {
        let buffers = [Buffer::Weights, Buffer::FirstMoment, Buffer::SecondMoment];
        for buffer in &buffers[..if map.trained() { 3 } else { 1 }] {
            tensors.extend(map.tensors().map(|(part, ..)| (MapId(index), part, *buffer)));
        }
    }
    tensors
}

/// Lets a rank's engine learn from its part of a step's batch.
pub fn learn(engine: &mut Engine, config: &Config, samples: &Samples, transport: &dyn Transport, step: u64) {
    let (each, units) = (config.data.batch_size / transport.size(), samples.units());
    let from = step as usize % 2 * config.data.batch_size + transport.rank() * each;
    let pixels = &samples.pixels[from * units..(from + each) * units];
    let (labels, first) = (&samples.labels[from..from + each], transport.rank() * each);
    engine.learn(&Batch { pixels: pixels.into(), labels, samples: each, first, step }, Phase::Both, 1.0).expect("the step succeeds");
}

/// Trains three steps, through a checkpoint after the first. Returns what the last checkpoint holds (on rank 0) and the checksum.
fn train(config: &Config, samples: &Samples, transport: Arc<dyn Transport>, make: Make) -> (Vec<Vec<f32>>, u64) {
    let network = Network::new(samples.shape, samples.classes, &config.network).expect("the network can be made");
    let mut engine = make(config, &network, transport.clone());
    engine.initialize().expect("parameters can be set");
    let tensors = checkpointed(&engine);
    let checkpoint = |engine: &Engine| -> Vec<Vec<f32>> {
        engine.gather();
        let all = tensors.iter().filter(|_| transport.rank() == 0);
        all.map(|&(map, part, buffer)| engine.read(map, part, buffer)).collect()
    };
    for step in 0..3u64 {
        learn(&mut engine, config, samples, &*transport, step);
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

/// What `work` returns on each of `size` ranks.
pub fn on_ranks<T: Send>(size: usize, work: impl Fn(Arc<dyn Transport>) -> T + Sync) -> Vec<T> {
    if size == 1 {
        return vec![work(Arc::new(Single))];
    }
    meet(&Meeting::of(size, false), size, work)
}

fn meet<T: Send>(meeting: &Arc<Meeting>, size: usize, work: impl Fn(Arc<dyn Transport>) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let start = |rank| {
            let (meeting, work) = (meeting.clone(), &work);
            scope.spawn(move || work(Arc::new(Thread { meeting, rank, size })))
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("the rank succeeds")).collect()
    })
}

/// [`train`] on `size` ranks: rank 0's checkpoint. All ranks have the same parameters.
pub fn train_on(size: usize, config: &Config, samples: &Samples, make: Make) -> Vec<Vec<f32>> {
    same(on_ranks(size, |transport| train(config, samples, transport, make)))
}

/// The same on ranks that share memory, or do not, with what they exchanged in all.
pub fn count_on(size: usize, one_host: bool, config: &Config, samples: &Samples, make: Make) -> (Vec<Vec<f32>>, Counts) {
    let meeting = Meeting::of(size, one_host);
    let tensors = same(meet(&meeting, size, |transport| train(config, samples, transport, make)));
    let counts = *meeting.counts.lock().unwrap();
    (tensors, counts)
}

/// Rank 0's checkpoint.
fn same(of_ranks: Vec<(Vec<Vec<f32>>, u64)>) -> Vec<Vec<f32>> {
    assert!(of_ranks.iter().all(|rank| rank.1 == of_ranks[0].1), "replicas differ");
    of_ranks.into_iter().next().expect("there are ranks").0
}
