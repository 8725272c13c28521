//! Activities, parameters and kernels of one rank on one GPU.
//!
//! An operation is planned, as launches with their addresses, and then given to the stream that computes: at once, or into a graph. Before
//! there is any memory the rule runs once on plans alone, which shows what memory and which kernels it needs. From then on a step takes
//! neither: not the GPU's memory, which is one pool, and no compiler.

mod addresses;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Result;

use super::OLDEST;
use super::gpu::{Address, Event, Gpu, Stream};
use super::inbox::Inbox;
use super::kernels::Kernel;
use super::kernels::arguments as c;
use super::kernels::launches::in_fours;
use super::kernels::tables::Input;
use super::marks::Marks;
use super::normalization;
use super::parameters::Parameters;
use super::pool::{Place, Pool};
use super::tables::{Pass, Table};
use crate::compute::cpu::pool::Pool as Threads;
use crate::compute::profile::Profile;
use crate::compute::settings::Precision;
use crate::compute::{Activity, Buffer, Measure, Nonlinearity};
use crate::exit::Exit;
use crate::network::{Layer, Maps, Network, Output, Shape};

/// What plans have for addresses.
const SOMEWHERE: Address = Address(1 << 40);

/// What a [`CudaBackend`] is made from.
pub struct Setup {
    pub precision: Precision,
    pub seed: u64,
    /// Largest number of samples in a batch of this rank.
    pub capacity: usize,
    /// Ranks, and this one's number.
    pub size: usize,
    pub rank: usize,
    /// By map: this rank's part of the parameters, of which it has moments, and the number of parts.
    pub parts: Vec<(usize, usize)>,
    /// By map: whether ranks gather its factors.
    pub gathered: Vec<bool>,
    /// By map: numbers that its optimiser keeps of a parameter.
    pub moments: Vec<usize>,
    /// By map: whether its optimiser lets weights decay.
    pub decays: Vec<bool>,
    /// Whether what travels between ranks is rounded to bf16.
    pub rounded: bool,
    /// Part of a label that is spread over all classes.
    pub label_smoothing: f32,
    /// Threads that copy batches to page-locked memory.
    pub threads: usize,
}

/// An activity.
pub(super) struct Slot {
    pub shape: Shape,
    /// Floats of a sample at a position.
    pub pitch: usize,
    /// Floats of all positions of a sample.
    pub each: usize,
    /// What maps that lead here end with, and where their sums are kept where its slope comes from them.
    pub nonlinearity: Nonlinearity,
    pub pre_activation: Option<Activity>,
    /// Whether all ranks' values have a place here, this rank's among them.
    gathered: bool,
    place: Option<Place>,
    /// Where all ranks' values travel rounded.
    wire: Option<Place>,
}

/// What planning has found.
#[derive(Default)]
pub(super) struct Plan {
    pub kernels: BTreeSet<Kernel>,
    /// Floats of partial sums, which launches have one after another.
    partial: usize,
    /// Partial sums of the inverse loss of a step.
    measured_parts: usize,
    /// Whether the input is read as an activity like others.
    plain_input: bool,
    /// By map: gradients that are kept at a time.
    kept: BTreeMap<usize, usize>,
}

/// Places that there are besides parameters and activities.
struct Places {
    inbox: Inbox,
    partial: Place,
    /// Of the inverse loss, by part and sample.
    parts: Place,
    /// By measure and sample.
    measured: Place,
    /// The same, page-locked.
    measured_here: *mut f32,
    /// By map: where gradients are kept, room for them.
    gradients: BTreeMap<usize, Place>,
    /// By map of which ranks own parts, where what travels is rounded: where changes travel, and gradients, and the parameters of this rank's
    /// parts before an update.
    wires: BTreeMap<usize, [Place; 2]>,
}

pub struct CudaBackend {
    pub maps: Arc<Maps>,
    pub gpu: Rc<dyn Gpu>,
    pub profile: Profile,
    /// That which computes.
    pub stream: Stream,
    /// Of the operations that this is given.
    pub marks: Marks,
    /// Whether each of them is timed.
    pub timed: bool,
    /// Whether each is waited for, so that one that fails is known.
    pub checked: bool,
    pub(super) precision: Precision,
    pub(super) output: Output,
    pub(super) seed: u64,
    pub(super) label_smoothing: f32,
    pub(super) input: Input,
    pub(super) slots: Vec<Slot>,
    pub(super) parameters: Vec<Parameters>,
    pub(super) capacity: usize,
    pub(super) batch: usize,
    /// What scales the batch, where it came as bytes.
    pub(super) scaled_by: Option<[Vec<f32>; 2]>,
    /// Parts of the inverse loss that this step has so far.
    pub(super) measured_parts: usize,
    pub(super) measures: [Vec<f32>; Measure::COUNT],
    pub(super) failed: Option<anyhow::Error>,
    /// Whole moments of maps of which this rank owns a part.
    pub(super) whole_moments: RefCell<HashMap<(usize, Buffer), Vec<f32>>>,
    pub(super) size: usize,
    pub(super) rank: usize,
    pub(super) threads: Threads,
    pub(super) copies: Stream,
    pub(super) done: Event,
    pool: Pool,
    tables: BTreeMap<(usize, Pass), Table>,
    gathered: Vec<bool>,
    decays: Vec<bool>,
    rounded: bool,
    /// By layer: which place of each window won in the last pass up through a max pool.
    pub(super) winners: Vec<Option<Activity>>,
    /// By normalised layer: rows of numbers of each channel.
    pub(super) numbers: BTreeMap<usize, Place>,
    /// Until memory is taken.
    pub(super) plan: Option<Plan>,
    places: Option<Places>,
    pub(super) loaded: BTreeSet<Kernel>,
    /// What the GPU was given last, in words.
    pub(super) running: RefCell<String>,
}

impl Drop for CudaBackend {
    fn drop(&mut self) {
        self.pool.release(&*self.gpu);
    }
}

impl CudaBackend {
    /// A backend for `maps` of `network` on `gpu`, without memory: [`CudaBackend::allocate`] gives it some, when what it is for was
    /// planned.
    ///
    /// Fails where the GPU is too old.
    pub fn new(network: &Network, maps: Arc<Maps>, gpu: Rc<dyn Gpu>, setup: Setup) -> Result<CudaBackend> {
        let (major, minor) = gpu.capability()?;
        if (major, minor) < OLDEST {
            return Err(Exit::Usage.error(format!(
                "{} has compute capability {major}.{minor}, and these kernels need {}.{} or later: use parallel.device = \"cpu\", or a \
                 program with libtorch and parallel.kernels = \"libtorch\"",
                gpu.name()?,
                OLDEST.0,
                OLDEST.1
            )));
        }
        let mut pool = Pool::default();
        let of = |((map, moments), (part, parts)): ((_, &usize), &(usize, usize))| Parameters::new(map, *moments, *part, *parts, &mut pool);
        let parameters = maps.all.iter().zip(&setup.moments).zip(&setup.parts).map(of).collect();
        let normalized = maps.normalization.iter().zip(&network.layers).enumerate().filter(|(_, (maps, _))| maps.is_some());
        let rows = |(index, (_, layer)): (usize, (_, &Layer))| (index, 4 * normalization::ROWS * in_fours(layer.output.channels));
        let numbers = normalized.map(rows).map(|(index, bytes)| (index, pool.reserve(bytes))).collect();
        let mut backend = CudaBackend {
            stream: gpu.stream()?,
            copies: gpu.stream()?,
            done: gpu.event()?,
            gpu,
            profile: Profile::default(),
            marks: Marks::default(),
            timed: false,
            checked: false,
            precision: setup.precision,
            output: network.output,
            seed: setup.seed,
            label_smoothing: setup.label_smoothing,
            input: Input::choose(maps.get(maps.forward[0])),
            slots: Vec::new(),
            parameters,
            capacity: setup.capacity,
            batch: setup.capacity,
            scaled_by: None,
            measured_parts: 0,
            measures: [const { Vec::new() }; Measure::COUNT],
            failed: None,
            whole_moments: RefCell::default(),
            size: setup.size,
            rank: setup.rank,
            threads: Threads::new(setup.threads)?,
            pool,
            tables: BTreeMap::new(),
            gathered: setup.gathered,
            decays: setup.decays,
            rounded: setup.rounded,
            winners: vec![None; network.depth()],
            numbers,
            plan: Some(Plan::default()),
            places: None,
            loaded: BTreeSet::new(),
            running: RefCell::new("the start".to_owned()),
            maps,
        };
        backend.slot(network.input, Nonlinearity::Identity);
        let maps = backend.maps.clone();
        for map in maps.max_pools() {
            backend.winners[map.layer] = Some(backend.slot(map.destination, Nonlinearity::Identity));
        }
        Ok(backend)
    }

    pub(super) fn slot(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        assert!(self.places.is_none(), "activities are made before memory is taken");
        let follows = nonlinearity.slope_follows_from_value();
        let pre_activation = (!follows).then(|| self.slot(shape, Nonlinearity::Identity));
        let pitch = in_fours(shape.channels);
        let each = shape.positions() * pitch;
        self.slots.push(Slot { shape, pitch, each, nonlinearity, pre_activation, gathered: false, place: None, wire: None });
        Activity(self.slots.len() - 1)
    }

    /// Takes memory and kernels for what `use_it` does, which is all that will be done: it is run on plans, and computes nothing.
    pub fn allocate(&mut self, use_it: impl Fn(&mut CudaBackend) -> Result<()>) -> Result<()> {
        use_it(self)?;
        if self.plan.as_ref().is_some_and(|plan| plan.plain_input) && self.input != Input::Activity {
            self.input = Input::Activity;
            self.plan = Some(Plan::default());
            self.tables.clear();
            use_it(self)?;
        }
        let plan = self.plan.take().expect("memory is taken once");
        let (size, capacity, units) = (self.size, self.capacity, self.slots[0].shape.units());
        self.slots[0].each = self.input.floats(self.slots[0].shape);
        for slot in &mut self.slots {
            let ranks = if slot.gathered { size } else { 1 };
            slot.place = Some(self.pool.reserve(4 * ranks * capacity * slot.each));
            slot.wire = (slot.gathered && self.rounded).then(|| self.pool.reserve(2 * ranks * capacity * slot.each));
        }
        self.tables.values_mut().for_each(|table| table.reserve(&mut self.pool));
        let measures = 4 * Measure::COUNT * capacity;
        let kept = plan.kept.iter().map(|(map, gradients)| (*map, 4 * gradients * self.parameters[*map].padded));
        let shared = self.parameters.iter().enumerate().filter(|(_, one)| self.rounded && one.owned() < one.padded);
        let wires = shared.map(|(map, one)| (map, [2 * one.padded, 4 * one.owned()].map(|bytes| self.pool.reserve(bytes)))).collect();
        let places = Places {
            wires,
            inbox: Inbox::new([capacity, units, self.slots[0].shape.channels, self.maps.all.len()], &mut self.pool, &*self.gpu)?,
            partial: self.pool.reserve(4 * plan.partial),
            parts: self.pool.reserve(4 * plan.measured_parts * capacity),
            measured: self.pool.reserve(measures),
            measured_here: self.gpu.page_locked(measures)?.cast(),
            gradients: kept.map(|(map, bytes)| (map, self.pool.reserve(bytes))).collect(),
        };
        self.pool.take(&*self.gpu, capacity)?;
        let (base, bytes) = self.pool.whole();
        // SAFETY: all of the pool, which nothing uses yet.
        unsafe { self.gpu.clear(base, bytes, self.stream)? };
        for table in self.tables.values_mut() {
            table.fill(&self.pool, &*self.gpu, self.stream)?;
        }
        self.places = Some(places);
        let mut kernels = plan.kernels;
        kernels.extend(self.rounded.then_some(Kernel::Plain("wire")));
        self.gpu.load(&kernels)?;
        self.loaded = kernels;
        // Gradients that ranks exchange are scaled before the first optimiser is told.
        let scaled = c::Optimizer { scale: 1.0 / (capacity * size) as f32, ..c::Optimizer::default() };
        self.inbox().tell(&vec![scaled; self.maps.all.len()], &self.pool, &*self.gpu, self.stream)?;
        self.settle()
    }

    /// Bytes of the GPU's memory that this takes.
    pub fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    pub(super) fn is_planning(&self) -> bool {
        self.plan.is_some()
    }

    fn places(&self) -> &Places {
        self.places.as_ref().expect("memory is taken before the first step")
    }

    pub(super) fn inbox(&self) -> &Inbox {
        &self.places().inbox
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }
}
