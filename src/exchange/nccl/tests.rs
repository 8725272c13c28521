//! NCCL's use without a GPU: against a stand-in that does an operation not when it is called but when somebody waits for it, as late as a GPU
//! might. It plays all ranks as copies of this one. The library itself where it is found, and one rank's communicator where a GPU is.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tch::{Device, Kind};

use super::*;
use crate::compute::cuda::{Setup, TorchBackend};
use crate::compute::{AdamStep, Backend, Batch, Update};
use crate::config::{Config, Wire};
use crate::exchange::{AdamSteps, Sharing, TensorExchange};
use crate::network::{MapId, Maps, Network};
use crate::rules::{self, Phase, Step};

enum Work {
    AllGather { own: *const c_void, all: *mut c_void, count: usize, element: Element },
    ReduceScatter { all: *const c_void, own: *mut c_void, count: usize, element: Element },
    Mark(Event),
}

#[derive(Default)]
struct Late {
    size: usize,
    /// Calls in order; streams are "libtorch" and "nccl", events numbers.
    log: RefCell<Vec<String>>,
    queue: RefCell<VecDeque<Work>>,
    events: Cell<usize>,
    /// What asynchronous errors say, and whether operations never end.
    error: Cell<i32>,
    stuck: Cell<bool>,
}

const OWN_STREAM: Stream = Stream(8 as *mut _);

impl Late {
    fn new(size: usize) -> Rc<Late> {
        Rc::new(Late { size, ..Late::default() })
    }

    fn say(&self, text: String) {
        self.log.borrow_mut().push(text);
    }

    /// Does what comes before the last mark of `event`.
    fn reach(&self, event: Event) {
        let mut queue = self.queue.borrow_mut();
        let is_mark = |work: &Work| matches!(work, Work::Mark(mark) if *mark == event);
        let Some(last) = queue.iter().rposition(is_mark) else { return };
        for work in queue.drain(..=last) {
            unsafe {
                match work {
                    Work::AllGather { own, all, count, element } => {
                        let bytes = count * if element == Element::F32 { 4 } else { 2 };
                        let own = std::slice::from_raw_parts(own.cast::<u8>(), bytes).to_vec();
                        let all = std::slice::from_raw_parts_mut(all.cast::<u8>(), bytes * self.size);
                        all.chunks_exact_mut(bytes).for_each(|part| part.copy_from_slice(&own));
                    }
                    Work::ReduceScatter { all, own, count, element: Element::F32 } => {
                        for i in 0..count {
                            *own.cast::<f32>().add(i) = *all.cast::<f32>().add(i) * self.size as f32;
                        }
                    }
                    Work::ReduceScatter { all, own, count, element: Element::Bf16 } => {
                        for i in 0..count {
                            // The upper half of a float32.
                            let one = f32::from_bits(u32::from(*all.cast::<u16>().add(i)) << 16);
                            *own.cast::<u16>().add(i) = ((one * self.size as f32).to_bits() >> 16) as u16;
                        }
                    }
                    Work::Mark(_) => {}
                }
            }
        }
    }
}

fn name(stream: Stream) -> &'static str {
    if stream == Stream::LIBTORCH { "libtorch" } else { "nccl" }
}

fn number(event: Event) -> usize {
    event.0 as usize
}

impl Calls for Rc<Late> {
    unsafe fn all_gather(&self, own: *const c_void, all: *mut c_void, count: usize, element: Element, stream: Stream) -> Status {
        self.say(format!("all-gather {count} on {}", name(stream)));
        self.queue.borrow_mut().push_back(Work::AllGather { own, all, count, element });
        Status::SUCCESS
    }

    unsafe fn reduce_scatter(&self, all: *const c_void, own: *mut c_void, count: usize, element: Element, stream: Stream) -> Status {
        self.say(format!("reduce-scatter {count} on {}", name(stream)));
        self.queue.borrow_mut().push_back(Work::ReduceScatter { all, own, count, element });
        Status::SUCCESS
    }

    fn group_start(&self) -> Status {
        self.say("group".to_owned());
        Status::SUCCESS
    }

    fn group_end(&self) -> Status {
        self.say("end of group".to_owned());
        Status::SUCCESS
    }

    fn async_error(&self) -> Status {
        Status(self.error.get())
    }

    fn abort(&self) {
        self.say("abort".to_owned());
    }

    fn details(&self) -> String {
        " (details)".to_owned()
    }

    fn stream(&self) -> Result<Stream> {
        Ok(OWN_STREAM)
    }

    fn event(&self) -> Result<Event> {
        self.events.set(self.events.get() + 1);
        Ok(Event(self.events.get() as *mut _))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.say(format!("{} records {}", name(stream), number(event)));
        if stream == OWN_STREAM {
            self.queue.borrow_mut().push_back(Work::Mark(event));
        }
        Ok(())
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.say(format!("{} waits for {}", name(stream), number(event)));
        if stream == Stream::LIBTORCH {
            self.reach(event);
        }
        Ok(())
    }

    fn passed(&self, event: Event) -> Result<bool> {
        if !self.stuck.get() {
            self.reach(event);
        }
        Ok(!self.stuck.get())
    }
}

fn joined(late: &Rc<Late>, timeout: Duration) -> Nccl<Rc<Late>> {
    Nccl::new(late.clone(), 0, late.size, timeout).unwrap()
}

fn numbers(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

fn zeros(len: i64) -> Tensor {
    Tensor::zeros([len], (Kind::Float, Device::Cpu))
}

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor).unwrap()
}

#[test]
fn operations_follow_libtorchs_work_and_precede_what_waits() {
    let late = Late::new(2);
    let mut nccl = joined(&late, Duration::from_secs(60));
    let (a, b, c) = (numbers(&[1.0, 2.0]), numbers(&[3.0]), numbers(&[4.0, 5.0, 6.0, 7.0]));
    let (all_a, all_b, own_c) = (zeros(4), zeros(2), zeros(2));
    let gathered = nccl.all_gather(&[(&a, &all_a), (&b, &all_b)]).unwrap();
    let scattered = nccl.reduce_scatter(&c, &own_c).unwrap();
    assert_eq!(values(&all_a), [0.0; 4], "nothing is done yet");
    nccl.wait(gathered).unwrap();
    assert_eq!((values(&all_a), values(&all_b), values(&own_c)), (vec![1.0, 2.0, 1.0, 2.0], vec![3.0, 3.0], vec![0.0; 2]));
    nccl.wait(scattered).unwrap();
    assert_eq!(values(&own_c), [8.0, 10.0]);
    nccl.settle().unwrap();
    let wanted = [
        "libtorch records 1",
        "nccl waits for 1",
        "group",
        "all-gather 2 on nccl",
        "all-gather 1 on nccl",
        "end of group",
        "nccl records 2",
        "libtorch records 1",
        "nccl waits for 1",
        "reduce-scatter 2 on nccl",
        "nccl records 3",
        "libtorch waits for 2",
        "libtorch waits for 3",
    ];
    assert_eq!(*late.log.borrow(), wanted);
    // After settling, events are used again, and tickets begin anew.
    assert_eq!(nccl.all_gather(&[(&b, &all_b)]).unwrap(), Ticket(0));
    assert_eq!(late.events.get(), 3);
    assert!(nccl.wait(Ticket(1)).is_err());
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let mut nccl = joined(&Late::new(2), Duration::from_secs(60));
    assert!(nccl.all_gather(&[(&zeros(2), &zeros(5))]).is_err());
    assert!(nccl.reduce_scatter(&zeros(4), &zeros(4)).is_err());
    assert!(nccl.reduce_scatter(&zeros(4), &zeros(2).to_kind(Kind::BFloat16)).is_err());
    assert!(nccl.reduce_scatter(&zeros(4).to_kind(Kind::Half), &zeros(2).to_kind(Kind::Half)).is_err());
    assert!(nccl.all_gather(&[(&zeros(8).view([2, 4]).transpose(0, 1), &zeros(16))]).is_err(), "not contiguous");
}

#[test]
fn tensors_may_be_of_bf16() {
    let mut nccl = joined(&Late::new(2), Duration::from_secs(60));
    let own = numbers(&[1.5, -2.0]).to_kind(Kind::BFloat16);
    let (all, part) = (zeros(4).to_kind(Kind::BFloat16), zeros(1).to_kind(Kind::BFloat16));
    nccl.all_gather(&[(&own, &all)]).unwrap();
    nccl.reduce_scatter(&own, &part).unwrap();
    nccl.settle().unwrap();
    assert_eq!(values(&all.to_kind(Kind::Float)), [1.5, -2.0, 1.5, -2.0]);
    assert_eq!(values(&part.to_kind(Kind::Float)), [3.0]);
}

#[test]
fn an_error_elsewhere_aborts_and_is_told() {
    let late = Late::new(2);
    late.stuck.set(true);
    let mut nccl = joined(&late, Duration::from_secs(60));
    nccl.all_gather(&[(&zeros(1), &zeros(2))]).unwrap();
    late.error.set(6);
    let error = nccl.settle().unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Failed);
    assert!(error.to_string().contains("on rank 0: another rank has ended") && error.to_string().ends_with("(details)"), "{error}");
    assert_eq!(late.log.borrow().iter().filter(|call| *call == "abort").count(), 1);
    assert!(nccl.all_gather(&[(&zeros(1), &zeros(2))]).unwrap_err().to_string().contains("aborted"));
}

#[test]
fn an_operation_that_does_not_end_is_aborted_in_time() {
    let late = Late::new(3);
    late.stuck.set(true);
    late.error.set(7); // In progress: not an error.
    let mut nccl = joined(&late, Duration::from_millis(50));
    nccl.reduce_scatter(&zeros(3), &zeros(1)).unwrap();
    let error = nccl.settle().unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Stalled);
    assert!(error.to_string().contains("stall_timeout"), "{error}");
    assert_eq!(late.log.borrow().last().unwrap(), "abort");
}

#[test]
fn every_status_has_a_meaning() {
    let meanings: Vec<String> = (0..9).map(|status| Status(status).meaning()).collect();
    assert!(meanings[2].contains("NCCL_SOCKET_IFNAME") && meanings[6].contains("another rank") && meanings[8] == "error 8");
}

#[test]
fn ranks_that_cannot_be_joined_are_named() {
    agree(&[22809, 22809], &[[1, 2], [1, 3]]).unwrap();
    let refusal = |versions: &[u64], gpus: &[[u64; 2]]| {
        let error = agree(versions, gpus).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage);
        error.to_string()
    };
    let shared = refusal(&[22809; 3], &[[1, 2], [1, 3], [1, 2]]);
    assert!(shared.contains("ranks 0 and 2") && shared.contains("parallel.backend = \"mpi\""), "{shared}");
    assert!(refusal(&[22809, 22703], &[[1, 2], [1, 3]]).contains("rank 1 has 22703"));
}

#[test]
fn the_library_tells_its_version() {
    let library = match Library::load() {
        Ok(library) => library,
        Err(error) => {
            return eprintln!(
                "skipped: NCCL is not here ({error:#}); `GPU=yes make setup` installs it, or LD_LIBRARY_PATH names its folder"
            );
        }
    };
    let version = library.version().unwrap();
    println!("NCCL answers {version}");
    assert!((22_000..30_000).contains(&version), "2.20 or newer, and known: {version}");
}

/// A communicator of one rank, where there is a GPU.
fn on_gpu() -> Option<Nccl<Communicator>> {
    crate::compute::cuda::libraries::load_libtorch_cuda();
    if !tch::Cuda::is_available() {
        eprintln!("skipped: there is no GPU");
        return None;
    }
    let transport: Arc<dyn Transport> = Arc::new(crate::exchange::Single);
    let driver = Rc::new(Driver::new(0).unwrap());
    Some(connect(&driver, &transport, Duration::from_secs(60), true).unwrap().unwrap())
}

#[test]
fn one_rank_on_a_gpu_exchanges_with_itself() {
    let Some(mut nccl) = on_gpu() else { return };
    for kind in [Kind::Float, Kind::BFloat16] {
        // Large enough to be under way when the call has returned.
        let own = (Tensor::arange(30_000_000, (Kind::Float, Device::Cuda(0))) * 0.01).sin().to_kind(kind);
        let other = own.narrow(0, 0, 1000).neg();
        let (all, all_of_other, part) = (own.zeros_like(), other.zeros_like(), own.zeros_like());
        for round in 1..=10 {
            let _ = own.shallow_clone().multiply_scalar_(-1.0);
            let gathered = nccl.all_gather(&[(&own, &all), (&other, &all_of_other)]).unwrap();
            nccl.wait(gathered).unwrap();
            // What follows on libtorch's stream sees what was gathered, and the sum sees what libtorch made of it.
            let scattered = nccl.reduce_scatter(&(&all + &all), &part).unwrap();
            // In place, as new parameters are gathered.
            let in_place = nccl.all_gather(&[(&own, &own)]).unwrap();
            nccl.wait(scattered).unwrap();
            let wanted = &own + &own;
            assert!(part.equal(&wanted) && all_of_other.equal(&other), "{kind:?}, round {round}");
            nccl.wait(in_place).unwrap();
            nccl.settle().unwrap();
        }
    }
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
    let maps = Arc::new(Maps::new(&network, &config.learning.rule, 0));
    let part = if sharing == Sharing::Gradients { (0, size) } else { (0, 1) };
    let setup = Setup { device, precision: config.parallel.precision, seed: 1, capacity: samples, parts: vec![part; maps.all.len()] };
    let mut backend = TorchBackend::new(&network, maps.clone(), setup).unwrap();
    backend.initialize();
    let rule = rules::build(&config.learning, &network, &maps, &mut backend).unwrap();
    let mut exchange = TensorExchange::over(collectives, vec![sharing; maps.all.len()], size, overlap, wire);
    // Four samples, over and over.
    let pixels: Vec<f32> = (0..samples * 60).map(|i| ((i % 240) as f32 * 0.7).sin()).collect();
    let labels: Vec<u32> = (0..samples as u32).map(|i| i % 4 % 3).collect();
    backend.begin(&Batch { pixels: &pixels, labels: &labels, samples, first: 0, step: 0 }).unwrap();
    let mut step = Recorded { backend: &mut backend, exchange: &mut exchange, late, updates: Vec::new() };
    rule.learn(&mut step, Phase::Both);
    let updates = step.updates;
    backend.finish().unwrap();
    late.say("the rule is done".to_owned());
    let adam = AdamStep { scale: 0.125, beta1: 0.9, beta2: 0.99, size: 0.01, deviation_scale: 1.0, epsilon: 1e-3 };
    exchange.update(&mut backend, &updates, AdamSteps { forward: adam, inverse: adam }).unwrap();
    (0..maps.all.len()).map(|map| values(&backend.flat(MapId(map)).to_device(Device::Cpu))).collect()
}

/// A rule's step whose updates go to the exchange, each after a word in the log.
struct Recorded<'a> {
    backend: &'a mut TorchBackend,
    exchange: &'a mut TensorExchange,
    late: &'a Late,
    updates: Vec<Update>,
}

impl Step for Recorded<'_> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.backend
    }

    fn update(&mut self, update: Update) {
        self.late.say("an update".to_owned());
        self.updates.push(update);
        self.exchange.take(self.backend, update).unwrap();
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
    assert_eq!(operations(Sharing::Gradients, true), ["an update", "reduce-scatter"].repeat(3));
    assert_eq!(operations(Sharing::Gradients, false), ["an update"].repeat(3));
}
