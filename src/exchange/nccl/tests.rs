//! NCCL's use without a GPU: against a stand-in that does an operation not when it is called but when somebody waits for it, as late as a
//! GPU might. It plays all ranks as copies of this one. The library itself where it is found, and one rank's communicator where a GPU is.

mod steps;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tch::{Device, Kind, Tensor};

use super::*;
use crate::exchange::torch::Collectives;
use crate::observe::Doing;

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

const FACTORS: Span = Span { doing: Doing::FactorsTransfer, layer: Some(3) };
const GRADIENT: Span = Span { doing: Doing::GradientTransfer, layer: Some(2) };
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
            // SAFETY: the tensors are kept by the operation, which has not been waited for, and have been seen to fit.
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

    /// As if the device passed event n after n * n seconds.
    fn seconds(&self, from: Event, to: Event) -> Result<f64> {
        let at = |event: Event| number(event).pow(2) as f64;
        Ok(at(to) - at(from))
    }
}

fn joined(late: &Rc<Late>, timeout: Duration) -> Nccl<Rc<Late>> {
    Nccl::new(late.clone(), Stream::LIBTORCH, 0, late.size, timeout).unwrap()
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
    let gathered = nccl.all_gather(FACTORS, &[(&a, &all_a), (&b, &all_b)]).unwrap();
    let scattered = nccl.reduce_scatter(GRADIENT, &c, &own_c).unwrap();
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
        "group",
        "reduce-scatter 2 on nccl",
        "end of group",
        "nccl records 3",
        "libtorch waits for 2",
        "libtorch waits for 3",
    ];
    assert_eq!(*late.log.borrow(), wanted);
    // After settling, events are used again, and handles begin anew.
    assert_eq!(nccl.all_gather(FACTORS, &[(&b, &all_b)]).unwrap(), Handle(0));
    assert_eq!(late.events.get(), 3);
    assert!(nccl.wait(Handle(1)).is_err());
}

#[test]
fn a_trace_has_each_operation_from_its_beginning_on_the_device_to_its_end() {
    let late = Late::new(2);
    let mut nccl = joined(&late, Duration::from_secs(60));
    nccl.traced = true;
    nccl.all_gather(FACTORS, &[(&zeros(1), &zeros(2))]).unwrap();
    nccl.reduce_scatter(GRADIENT, &zeros(2), &zeros(1)).unwrap();
    let records: Vec<String> = late.log.borrow().iter().filter(|call| call.starts_with("nccl")).cloned().collect();
    // One event says when libtorch is ready, and is used again.
    let wanted = ["nccl waits for 1", "nccl records 1", "nccl records 2", "nccl waits for 3", "nccl records 3", "nccl records 4"];
    assert_eq!(records, wanted);
    let spans: Vec<_> = nccl.spans().unwrap().iter().map(|(traced, from, to)| (traced.layer, *from, *to)).collect();
    assert_eq!(spans, [(Some(3), 15.0, 12.0), (Some(2), 7.0, 0.0)], "in seconds before the last one's end");
    nccl.settle().unwrap();
    assert_eq!((nccl.spans().unwrap().len(), nccl.free.len()), (0, 4));
}

#[test]
fn tensors_of_other_sizes_are_refused() {
    let mut nccl = joined(&Late::new(2), Duration::from_secs(60));
    assert!(nccl.all_gather(FACTORS, &[(&zeros(2), &zeros(5))]).is_err());
    assert!(nccl.reduce_scatter(GRADIENT, &zeros(4), &zeros(4)).is_err());
    assert!(nccl.reduce_scatter(GRADIENT, &zeros(4), &zeros(2).to_kind(Kind::BFloat16)).is_err());
    assert!(nccl.reduce_scatter(GRADIENT, &zeros(4).to_kind(Kind::Half), &zeros(2).to_kind(Kind::Half)).is_err());
    assert!(nccl.all_gather(FACTORS, &[(&zeros(8).view([2, 4]).transpose(0, 1), &zeros(16))]).is_err(), "not contiguous");
}

#[test]
fn tensors_may_be_of_bf16() {
    let mut nccl = joined(&Late::new(2), Duration::from_secs(60));
    let own = numbers(&[1.5, -2.0]).to_kind(Kind::BFloat16);
    let (all, part) = (zeros(4).to_kind(Kind::BFloat16), zeros(1).to_kind(Kind::BFloat16));
    nccl.all_gather(FACTORS, &[(&own, &all)]).unwrap();
    nccl.reduce_scatter(GRADIENT, &own, &part).unwrap();
    nccl.settle().unwrap();
    assert_eq!(values(&all.to_kind(Kind::Float)), [1.5, -2.0, 1.5, -2.0]);
    assert_eq!(values(&part.to_kind(Kind::Float)), [3.0]);
}

#[test]
fn an_error_elsewhere_aborts_and_is_told() {
    let late = Late::new(2);
    late.stuck.set(true);
    let mut nccl = joined(&late, Duration::from_secs(60));
    nccl.all_gather(FACTORS, &[(&zeros(1), &zeros(2))]).unwrap();
    late.error.set(6);
    let error = nccl.settle().unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Failed);
    assert!(error.to_string().contains("on rank 0: another rank has ended") && error.to_string().ends_with("(details)"), "{error}");
    assert_eq!(late.log.borrow().iter().filter(|call| *call == "abort").count(), 1);
    assert!(nccl.all_gather(FACTORS, &[(&zeros(1), &zeros(2))]).unwrap_err().to_string().contains("aborted"));
}

#[test]
fn an_operation_that_does_not_end_is_aborted_in_time() {
    let late = Late::new(3);
    late.stuck.set(true);
    late.error.set(7); // In progress: not an error.
    let mut nccl = joined(&late, Duration::from_millis(50));
    nccl.reduce_scatter(GRADIENT, &zeros(3), &zeros(1)).unwrap();
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
    if crate::compute::device::count() == 0 {
        eprintln!("skipped: there is no GPU");
        return None;
    }
    let transport: Arc<dyn Transport> = Arc::new(crate::exchange::Single);
    let driver = Rc::new(Driver::new(0).unwrap());
    Some(connect(&driver, Stream::LIBTORCH, &transport, Duration::from_secs(60), true).unwrap().unwrap())
}

#[test]
fn one_rank_on_a_gpu_exchanges_with_itself() {
    let Some(mut nccl) = on_gpu() else { return };
    nccl.traced = true;
    for kind in [Kind::Float, Kind::BFloat16] {
        // Large enough to be under way when the call has returned.
        let own = (Tensor::arange(30_000_000, (Kind::Float, Device::Cuda(0))) * 0.01).sin().to_kind(kind);
        let other = own.narrow(0, 0, 1000).neg();
        let (all, all_of_other, part) = (own.zeros_like(), other.zeros_like(), own.zeros_like());
        for round in 1..=10 {
            let _ = own.shallow_clone().multiply_scalar_(-1.0);
            let gathered = nccl.all_gather(FACTORS, &[(&own, &all), (&other, &all_of_other)]).unwrap();
            nccl.wait(gathered).unwrap();
            // What follows on libtorch's stream sees what was gathered, and the sum sees what libtorch made of it.
            let scattered = nccl.reduce_scatter(GRADIENT, &(&all + &all), &part).unwrap();
            // In place, as new parameters are gathered.
            let in_place = nccl.all_gather(FACTORS, &[(&own, &own)]).unwrap();
            nccl.wait(scattered).unwrap();
            let wanted = &own + &own;
            assert!(part.equal(&wanted) && all_of_other.equal(&other), "{kind:?}, round {round}");
            nccl.wait(in_place).unwrap();
            tch::Cuda::synchronize(0);
            let spans = nccl.spans().unwrap();
            assert!(spans.len() == 3 && spans.iter().all(|(_, from, to)| from > to && *to >= 0.0), "{spans:?}");
            nccl.settle().unwrap();
        }
    }
}
