//! What NCCL is given of a GPU's memory, and which streams wait: against a stand-in that writes it down.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::time::Duration;

use super::*;
use crate::compute::Backend;
use crate::compute::cuda::kernels::Kernel;
use crate::compute::cuda::kernels::launches::Launch;
use crate::compute::cuda::{Event, Graph, Setup};
use crate::compute::settings::Precision;
use crate::exchange::Single;
use crate::exchange::nccl::{Calls, Element, Nccl, Status, identity};
use crate::network::{LayerSpec, Maps, Needs, Network, Nonlinearity, Output, Spec};

#[derive(Default)]
struct Written {
    calls: RefCell<Vec<String>>,
    events: Cell<usize>,
}

impl Written {
    fn say(&self, what: String) {
        self.calls.borrow_mut().push(what);
    }
}

const MAIN: Stream = Stream(std::ptr::without_provenance_mut(1));
const OWN: Stream = Stream(std::ptr::without_provenance_mut(2));

impl Calls for Rc<Written> {
    unsafe fn all_gather(&self, own: *const c_void, all: *mut c_void, count: usize, _: Element, stream: Stream) -> Status {
        self.say(format!("{}: all-gather {count} from {} to {}", stream.0 as usize, own as usize, all as usize));
        Status::SUCCESS
    }

    unsafe fn reduce_scatter(&self, all: *const c_void, own: *mut c_void, count: usize, _: Element, stream: Stream) -> Status {
        self.say(format!("{}: reduce-scatter {count} from {} to {}", stream.0 as usize, all as usize, own as usize));
        Status::SUCCESS
    }

    fn group_start(&self) -> Status {
        self.say("together".to_owned());
        Status::SUCCESS
    }

    fn group_end(&self) -> Status {
        self.say("end".to_owned());
        Status::SUCCESS
    }

    fn async_error(&self) -> Status {
        Status::SUCCESS
    }

    fn abort(&self) {}

    fn details(&self) -> String {
        String::new()
    }

    fn stream(&self) -> Result<Stream> {
        Ok(OWN)
    }

    fn event(&self) -> Result<Event> {
        self.events.set(self.events.get() + 1);
        Ok(Event(self.events.get() as *mut _))
    }

    fn record(&self, event: Event, stream: Stream) -> Result<()> {
        self.say(format!("{}: event {}", stream.0 as usize, event.0 as usize));
        Ok(())
    }

    fn wait(&self, stream: Stream, event: Event) -> Result<()> {
        self.say(format!("{}: wait for {}", stream.0 as usize, event.0 as usize));
        Ok(())
    }

    fn passed(&self, _: Event) -> Result<bool> {
        Ok(true)
    }

    fn seconds(&self, _: Event, _: Event) -> Result<f64> {
        Ok(0.0)
    }
}

#[test]
fn one_gpu_is_two_where_nccl_is_told_of_two_hosts() {
    let (one, other) = ([7; 16], std::array::from_fn(|at| at as u8));
    assert_ne!(identity(one, None), identity(other, None));
    assert_eq!(identity(one, Some("a")), identity(one, Some("a")));
    assert_ne!(identity(one, Some("a")), identity(one, Some("b")));
    assert_ne!(identity(one, Some("a")), identity(one, None));
}

#[test]
fn nccl_works_in_place_between_what_computes_before_and_after() {
    let written = Rc::new(Written::default());
    let mut nccl = Nccl::new(written.clone(), MAIN, 1, 4, Duration::from_secs(1)).unwrap();
    let traced = Span { doing: Doing::FactorsTransfer, layer: Some(0) };
    let collectives: &mut dyn Collectives = &mut nccl;
    let [one, other] = [4096, 6144].map(|at| Whole { at: Address(at), each: 64, element: Element::F32 });
    let gathered = collectives.all_gather(traced, &[one, other]).unwrap();
    let scattered = collectives.reduce_scatter(traced, &[Whole { at: Address(8192), each: 128, element: Element::Bf16 }]).unwrap();
    collectives.wait(gathered).unwrap();
    collectives.wait(scattered).unwrap();
    collectives.settle().unwrap();
    assert!(collectives.overlap());
    let wanted = [
        "1: event 1",
        "2: wait for 1",
        "together",
        "2: all-gather 16 from 4160 to 4096",
        "2: all-gather 16 from 6208 to 6144",
        "end",
        "2: event 2",
        "1: event 1",
        "2: wait for 1",
        "together",
        "2: reduce-scatter 64 from 8192 to 8320",
        "end",
        "2: event 3",
        "1: wait for 2",
        "1: wait for 3",
    ];
    assert_eq!(*written.calls.borrow(), wanted);
}

/// A GPU that does nothing, and says which kernels it was given.
struct Idle(Rc<Written>);

impl Gpu for Idle {
    fn capability(&self) -> Result<(i32, i32)> {
        Ok((9, 0))
    }

    fn name(&self) -> Result<String> {
        Ok("idle".to_owned())
    }

    fn uuid(&self) -> Result<[u8; 16]> {
        Ok([0; 16])
    }

    fn memory(&self) -> Result<(u64, u64)> {
        Ok((1 << 30, 1 << 30))
    }

    fn allocate(&self, _: usize) -> Result<Address> {
        Ok(Address(1 << 20))
    }

    fn release(&self, _: Address) -> Result<()> {
        Ok(())
    }

    fn page_locked(&self, bytes: usize) -> Result<*mut u8> {
        Ok(Vec::leak(vec![0u64; bytes.div_ceil(8)]).as_mut_ptr().cast())
    }

    fn stream(&self) -> Result<Stream> {
        Ok(MAIN)
    }

    fn event(&self) -> Result<Event> {
        Ok(Event(std::ptr::null_mut()))
    }

    fn load(&self, _: &BTreeSet<Kernel>) -> Result<()> {
        Ok(())
    }

    unsafe fn upload(&self, _: Address, _: *const u8, _: usize, _: Stream) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, _: *mut u8, _: Address, _: usize, _: Stream) -> Result<()> {
        Ok(())
    }

    unsafe fn copy(&self, _: Address, _: Address, _: usize, _: Stream) -> Result<()> {
        self.0.say("copy".to_owned());
        Ok(())
    }

    unsafe fn clear(&self, _: Address, _: usize, _: Stream) -> Result<()> {
        Ok(())
    }

    unsafe fn start(&self, launch: &Launch, _: Stream) -> Result<()> {
        self.0.say(launch.kernel.to_string());
        Ok(())
    }

    fn record(&self, _: Event, _: Stream) -> Result<()> {
        Ok(())
    }

    fn wait(&self, _: Stream, _: Event) -> Result<()> {
        Ok(())
    }

    fn passed(&self, _: Event) -> Result<bool> {
        Ok(true)
    }

    fn synchronize(&self, _: Event) -> Result<()> {
        Ok(())
    }

    fn seconds(&self, _: Event, _: Event) -> Result<f64> {
        Ok(0.0)
    }

    fn begin_capture(&self, _: Stream) -> Result<()> {
        Ok(())
    }

    fn end_capture(&self, _: Stream) -> Result<Graph> {
        Ok(Graph(std::ptr::null_mut()))
    }

    unsafe fn replay(&self, _: Graph, _: Stream) -> Result<()> {
        Ok(())
    }
}

/// What NCCL and the GPU are given for one step, in order, by the second of four ranks: two maps by activities, one by gradients.
fn step(rounded: bool) -> Vec<String> {
    let layer = |units| LayerSpec::dense(units, Nonlinearity::Tanh);
    let spec = Spec { output: Output::Softmax, nonlinearity: Nonlinearity::Tanh, layers: vec![layer(20), layer(30)] };
    let network = Network::new([4, 4, 4], 10, &spec).unwrap();
    let maps = Arc::new(Maps::new(&network, &Needs::NONE));
    let sharing = vec![Sharing::Activities, Sharing::Gradients, Sharing::Activities];
    let written = Rc::new(Written::default());
    let setup = Setup {
        precision: Precision::F32,
        seed: 0,
        capacity: 2,
        size: 4,
        rank: 1,
        parts: vec![(1, 4); 3],
        gathered: sharing.iter().map(|way| *way == Sharing::Activities).collect(),
        moments: vec![2; 3],
        decays: vec![false; 3],
        rounded,
        label_smoothing: 0.0,
        threads: 1,
    };
    let mut backend = CudaBackend::new(&network, maps.clone(), Rc::new(Idle(written.clone())), setup).unwrap();
    let mut activity = |map: usize| backend.activity_of(maps.all[map].destination, Nonlinearity::Tanh);
    let (below, errors): (Vec<_>, Vec<_>) = (0..3).map(|map| (activity(map), activity(map))).unzip();
    let pre = [Activity(0), below[0], below[1]];
    // From the top down, as a rule hands them out; the lowest map has two, of the same factors.
    let mut updates: Vec<Update> = (0..3).rev().map(|map| Update { map: MapId(map), pre: pre[map], post: errors[map] }).collect();
    updates.push(updates[2]);
    backend.allocate(|backend| updates.iter().try_for_each(|update| backend.update(update, Some(0)))).unwrap();
    let nccl = Nccl::new(written.clone(), MAIN, 1, 4, Duration::from_secs(1)).unwrap();
    let (collectives, transport): (Box<dyn Collectives>, Arc<dyn Transport>) = (Box::new(nccl), Arc::new(Single));
    let collectives = Some(collectives);
    let mut exchange = CudaExchange { transport, sharing, collectives, overlap: true, rounded, under_way: None, waited: Marks::default() };
    written.calls.take();
    exchange.begin_early(&mut backend, &updates).unwrap();
    written.say("measures".to_owned());
    let new = exchange.bring(&mut backend, &updates).unwrap();
    written.say("updates".to_owned());
    exchange.share_parameters(&mut backend, new).unwrap();
    // Without addresses, events and streams.
    let kind = |call: String| {
        let call = call.split_once(": ").map_or(call.as_str(), |(_, call)| call);
        call.split(" from ").next().unwrap().to_owned()
    };
    written.calls.take().into_iter().map(kind).filter(|call| !call.starts_with("event")).collect()
}

#[test]
fn a_step_is_three_operations_however_many_maps_there_are() {
    // Factors of two samples: 64 inputs, the top's 30 inputs and ten outputs, the lowest map's 20, in fours. Parts of 20 x 30 weights and
    // 30 biases, in lines of 64; then of all maps.
    let operations = [
        &["wait for 1", "together", "all-gather 64", "all-gather 24", "all-gather 128", "all-gather 40", "end"][..],
        &["wait for 1", "together", "reduce-scatter 192", "reduce-scatter 64", "end"],
        &["measures", "wait for 2", "wait for 3", "updates", "wait for 1", "together"],
        &["all-gather 128", "all-gather 64", "all-gather 192", "all-gather 64", "all-gather 320", "all-gather 64", "end", "wait for 4"],
    ];
    assert_eq!(step(false), operations.concat());
    let found = step(true);
    let of_nccl = |call: &&String| !["wire", "copy"].contains(&call.as_str());
    assert_eq!(found.iter().filter(of_nccl).cloned().collect::<Vec<String>>(), operations.concat());
    let counts = |calls: &[String]| ["wire", "copy"].map(|kind| calls.iter().filter(|call| *call == kind).count());
    let position = |what: &str| found.iter().position(|call| call == what).unwrap();
    // Four factors and a gradient are rounded before; they are taken, and what will change is kept, before the updates; changes are rounded
    // before they are gathered, and added after that.
    let [begun, updated] = [position("together"), position("updates")];
    let gathering = found.iter().rposition(|call| call == "together").unwrap();
    assert_eq!(counts(&found[..begun]), [5, 0]);
    assert_eq!(counts(&found[begun..updated]), [4 + 2, 6]);
    assert_eq!(counts(&found[updated..gathering]), [6, 0]);
    assert_eq!(counts(&found[gathering..]), [5 + 5 + 5, 0]);
}
