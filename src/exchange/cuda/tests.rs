//! What NCCL is given of a GPU's memory, and which streams wait: against a stand-in that writes it down.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::time::Duration;

use super::*;
use crate::compute::cuda::Event;
use crate::exchange::nccl::{Calls, Element, Nccl, Status, identity};

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
        Status::SUCCESS
    }

    fn group_end(&self) -> Status {
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
    let gathered = collectives.all_gather(traced, &[Whole { at: Address(4096), each: 64, element: Element::F32 }]).unwrap();
    let scattered = collectives.reduce_scatter(traced, Whole { at: Address(8192), each: 128, element: Element::Bf16 }).unwrap();
    collectives.wait(gathered).unwrap();
    collectives.wait(scattered).unwrap();
    collectives.settle().unwrap();
    assert!(collectives.overlap());
    let wanted = [
        "1: event 1",
        "2: wait for 1",
        "2: all-gather 16 from 4160 to 4096",
        "2: event 2",
        "1: event 1",
        "2: wait for 1",
        "2: reduce-scatter 64 from 8192 to 8320",
        "2: event 3",
        "1: wait for 2",
        "1: wait for 3",
    ];
    assert_eq!(*written.calls.borrow(), wanted);
}
