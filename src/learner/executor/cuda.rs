//! Our kernels on a GPU, with the exchange on its memory.
//!
//! A step is two graphs, each captured once: what the rule does, up to the measures and, where ranks exchange them, the gradients; and the
//! updates. Between them the host looks at the losses, and ranks exchange. Nobody waits for the updates: the next batch travels meanwhile.
//! Ranks whose layers are normalised meet on the way of the rule too, which then is several graphs.

mod key;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};

use self::key::Key;
use super::{COPIED, Executor, Rates};
use crate::agreement::{Facts, agree};
use crate::compute::cuda::driver::Driver;
use crate::compute::cuda::nvrtc::Nvrtc;
use crate::compute::cuda::{Course, CudaBackend, Gpu, Part, Setup, memory_rate, old_driver, product_rate};
use crate::compute::device::Kernels;
use crate::compute::profile::Profile;
use crate::compute::settings::Precision;
use crate::compute::{Activity, Backend, Update};
use crate::config::{Config, Wire};
use crate::exchange::cuda::CudaExchange;
use crate::exchange::{Optimizers, Sharing, Transport};
use crate::exit::Exit;
use crate::learner::diagnostics::{self, Compared, LayerDiagnostics};
use crate::learner::engine::{self, Engine};
use crate::learner::self_test;
use crate::network::{Maps, Network, Role};
use crate::observe::Doing;
use crate::rules::{self, Comparison, Diagnosis, Phase, Rule, Step};

/// Chunks of products of a warp when their rate is measured.
const PRODUCTS: i32 = 20_000;

impl Engine {
    /// [`Engine::new`] on `gpu`, which may be a stand-in: the way to try what GPUs run without having one.
    pub fn on_gpu(config: &Config, network: &Network, transport: Arc<dyn Transport>, gpu: Rc<dyn Gpu>) -> Result<Engine> {
        let maps = engine::prepare(config, network, &*transport)?;
        let (executor, rule) = OnGpu::new(config, network, maps.clone(), &transport, Chosen { gpu, driver: None, index: 0 }, 1)?;
        Ok(Engine::with(config, Box::new(executor), rule, maps, transport))
    }
}

/// An executor on GPU number `index`, with the rule on its backend. Collective.
pub(super) fn on_device(
    config: &Config,
    network: &Network,
    maps: Arc<Maps>,
    transport: &Arc<dyn Transport>,
    index: usize,
    threads: usize,
) -> Result<(Box<dyn Executor>, Box<dyn Rule>)> {
    let driver = Rc::new(Driver::new(index)?);
    let ((major, minor), nvrtc) = (driver.capability()?, Nvrtc::load()?.version);
    if let Some(old) = old_driver(driver.version()?, nvrtc) {
        return Err(Exit::Usage.error(old));
    }
    // Other kernels, or another compiler's, have other bits.
    let facts = Facts::default()
        .with("the GPU's compute capability", format!("{major}.{minor}"))
        .with("the compiler of kernels (NVRTC)", format!("{}.{}", nvrtc.0, nvrtc.1));
    agree(&facts, &**transport)?;
    let gpu: Rc<dyn Gpu> = driver.clone();
    self_test::once(config, network, &gpu, transport.size(), (nvrtc, driver.version()?), threads)?;
    let (executor, rule) =
        OnGpu::new(config, network, maps, transport, Chosen { gpu: driver.clone(), driver: Some(driver), index }, threads)?;
    Ok((Box::new(executor), rule))
}

/// A GPU, or a stand-in for one.
struct Chosen {
    gpu: Rc<dyn Gpu>,
    /// The same, where it is one.
    driver: Option<Rc<Driver>>,
    index: usize,
}

/// Our kernels on one GPU.
pub struct OnGpu {
    backend: CudaBackend,
    exchange: CudaExchange,
    /// Where the configuration asks for it.
    diagnosis: Option<Diagnosis>,
    transport: Arc<dyn Transport>,
    parts: BTreeMap<Key, Part>,
    /// By the models that a step trains: its updates, which are the same in all such steps.
    updates: BTreeMap<(bool, bool), Vec<Update>>,
    /// Of the step that was begun.
    phase: (bool, bool),
    /// Updates that the GPU was given, and whose time is not known yet.
    updating: Option<Key>,
    precision: Precision,
    device: String,
    driver: Option<Rc<Driver>>,
}

impl OnGpu {
    fn new(
        config: &Config,
        network: &Network,
        maps: Arc<Maps>,
        transport: &Arc<dyn Transport>,
        chosen: Chosen,
        threads: usize,
    ) -> Result<(OnGpu, Box<dyn Rule>)> {
        let (size, rank) = (transport.size(), transport.rank());
        let capacity = config.data.batch_size / size;
        let sharing = Sharing::plan(&maps, size, config.parallel.exchange, capacity, Kernels::Own);
        let setup = Setup {
            precision: config.parallel.precision,
            seed: config.experiment.seed,
            label_smoothing: config.learning.label_smoothing as f32,
            moments: maps.all.iter().map(|map| config.optimizer.group(map.role).needed_moments()).collect(),
            decays: maps.all.iter().map(|map| config.optimizer.group(map.role).weight_decay > 0.0).collect(),
            capacity,
            size,
            rank,
            parts: sharing.iter().map(|way| way.part(&**transport, Kernels::Own)).collect(),
            gathered: sharing.iter().map(|way| *way == Sharing::Activities).collect(),
            threads,
            rounded: size > 1 && config.parallel.wire == Wire::Bf16,
        };
        let precision = config.parallel.precision;
        let Chosen { gpu, driver, index } = chosen;
        let device = format!("cuda:{index} ({})", gpu.name()?);
        let mut backend = CudaBackend::new(network, maps.clone(), gpu, setup)?;
        let rule = rules::build(&config.learning, network, &maps, &mut backend)?;
        let diagnosis = config.training.diagnostics.then(|| Diagnosis::new(&*rule, network, &maps, &mut backend));
        // An inverse's own turn comes before the others where it learns several times from a batch.
        let own = (config.inverse_iterations() > 1).then_some(&Phase::Inverse);
        let phases: Vec<Phase> = own.into_iter().chain(config.schedule().phases()).copied().collect();
        backend.allocate(|backend| {
            for phase in &phases {
                let updates = learn(&mut Course::planned(backend), &*rule, (*phase, 0), &sharing)?;
                apply(backend, &updates, &sharing)?;
            }
            backend.follow_signs(0)?;
            if let Some(diagnosis) = &diagnosis {
                let compared = compare(&mut Course::planned(backend), &*rule, diagnosis)?;
                let updates = compared.iter().filter_map(|comparison| comparison.updates).flatten();
                updates.into_iter().try_for_each(|update| backend.keep_whole(&update))?;
            }
            forward(backend, &*rule)
        })?;
        let exchange = CudaExchange::new(&backend, driver.as_ref(), sharing, transport, &config.parallel.exchange())?;
        let (parts, updates) = (BTreeMap::new(), BTreeMap::new());
        let executor = OnGpu {
            backend,
            exchange,
            diagnosis,
            transport: transport.clone(),
            parts,
            updates,
            phase: (false, false),
            updating: None,
            precision,
            device,
            driver,
        };
        Ok((executor, rule))
    }

    /// Waits for the measures, and enters the times of what is done then: of `key` as `doing`.
    fn take_measures(&mut self, key: Key) -> Result<()> {
        self.backend.take_measures()?;
        let gpu = self.backend.gpu.clone();
        for (key, doing) in self.updating.take().map(|key| (key, Doing::UpdateForward)).into_iter().chain([(key, Doing::Forward)]) {
            self.parts[&key].marks.enter(&mut self.backend.profile, doing, &*gpu)?;
        }
        Ok(())
    }
}

/// A step whose updates are taken down.
struct Taking<'a, 'b> {
    course: &'a mut Course<'b>,
    updates: Vec<Update>,
    iteration: usize,
}

impl Step for Taking<'_, '_> {
    fn backend(&mut self) -> &mut dyn Backend {
        self.course.backend
    }

    fn update(&mut self, update: Update) {
        self.updates.push(update);
    }

    fn gather(&mut self, activity: Activity) -> Vec<f32> {
        self.course.gather(activity);
        Vec::new()
    }

    fn iteration(&self) -> usize {
        self.iteration
    }
}

/// What `rule` does in a step, and the gradients that ranks exchange. Returns the updates.
fn learn(course: &mut Course, rule: &dyn Rule, (phase, iteration): (Phase, usize), sharing: &[Sharing]) -> Result<Vec<Update>> {
    course.backend.lay_out_input()?;
    course.backend.forget_measures()?;
    let mut step = Taking { course, updates: Vec::new(), iteration };
    rule.learn(&mut step, phase);
    let (mut updates, backend) = (step.updates, &mut *course.backend);
    updates.retain(|update| backend.maps.get(update.map).trained());
    backend.send_measures()?;
    for of_map in Update::by_map(&updates).filter(|of_map| sharing[of_map[0].map.0] == Sharing::Gradients) {
        keep(backend, of_map)?;
        if of_map.len() > 1 {
            backend.add_gradients(of_map[0].map, of_map.len())?;
        }
    }
    Ok(updates)
}

/// Keeps the gradients of a map's updates.
fn keep(backend: &mut CudaBackend, of_map: &[Update]) -> Result<()> {
    of_map.iter().enumerate().try_for_each(|(number, update)| backend.update(update, Some(number)))
}

/// The change of the parameters by all updates: those of a map follow one another, and add up.
fn apply(backend: &mut CudaBackend, updates: &[Update], sharing: &[Sharing]) -> Result<()> {
    for of_map in Update::by_map(updates) {
        let map = of_map[0].map;
        match (sharing[map.0], of_map) {
            (Sharing::Gradients, _) => backend.optimize(map, 1)?,
            (_, [update]) => backend.update(update, None)?,
            (_, several) => {
                keep(backend, several)?;
                backend.optimize(map, several.len())?;
            }
        }
    }
    Ok(())
}

fn forward(backend: &mut CudaBackend, rule: &dyn Rule) -> Result<()> {
    backend.lay_out_input()?;
    backend.forget_measures()?;
    rule.forward().run(backend);
    backend.send_measures()
}

/// Runs `rule` and back-propagation on the batch.
fn compare(course: &mut Course, rule: &dyn Rule, diagnosis: &Diagnosis) -> Result<Vec<Comparison>> {
    course.backend.lay_out_input()?;
    course.backend.forget_measures()?;
    let mut step = Taking { course, updates: Vec::new(), iteration: 0 };
    let comparisons = diagnosis.run(rule, &mut step, |step| std::mem::take(&mut step.updates));
    // Says what has failed.
    course.backend.send_measures()?;
    Ok(comparisons)
}

impl Compared for OnGpu {
    fn backend(&self) -> &dyn Backend {
        &self.backend
    }

    fn products(&mut self, [rule, backprop]: [Update; 2]) -> Result<[f64; 3]> {
        let mut of = |update| self.exchange.gradient(&mut self.backend, update);
        let own = diagnostics::products(&of(&rule)?, &of(&backprop)?);
        if self.exchange.sharing()[rule.map.0] != Sharing::Gradients {
            return Ok(own);
        }
        let parts = self.transport.all_gather_words(&own.map(f64::to_bits));
        Ok(std::array::from_fn(|which| parts.chunks_exact(own.len()).map(|part| f64::from_bits(part[which])).sum()))
    }
}

impl Executor for OnGpu {
    fn backend(&mut self) -> &mut dyn Backend {
        &mut self.backend
    }

    fn state(&self) -> &dyn Backend {
        &self.backend
    }

    fn initialize(&mut self) {
        self.backend.initialize();
    }

    fn follow_signs(&mut self, steps: u64) -> Result<()> {
        self.backend.follow_signs(steps)
    }

    fn evaluate(&mut self, rule: &dyn Rule) -> Result<()> {
        let key = Key::Forward(self.backend.samples());
        self.parts
            .entry(key)
            .or_default()
            .run(&mut self.backend, &mut self.exchange, &key.name(), |course| forward(course.backend, rule))?;
        self.take_measures(key)
    }

    fn learn(&mut self, rule: &dyn Rule, phase: Phase, iteration: usize) -> Result<()> {
        let models = (phase.trains_forward(), phase.trains_inverse());
        let key = Key::Learning(models.0, models.1, iteration);
        let sharing = self.exchange.sharing().to_vec();
        let mut updates = None;
        self.parts.entry(key).or_default().run(&mut self.backend, &mut self.exchange, &key.name(), |course| {
            updates = Some(learn(course, rule, (phase, iteration), &sharing)?);
            Ok(())
        })?;
        updates.map(|updates| self.updates.insert(models, updates));
        self.phase = models;
        self.exchange.begin_early(&mut self.backend, &self.updates[&models])?;
        self.take_measures(key)
    }

    fn commit(&mut self, steps: Optimizers) -> Result<()> {
        let updates = &self.updates[&self.phase];
        self.backend.tell(steps.0)?;
        let new = self.exchange.bring(&mut self.backend, updates)?;
        let key = Key::Updates(self.phase.0, self.phase.1);
        let sharing = self.exchange.sharing().to_vec();
        let part = self.parts.entry(key).or_default();
        part.run(&mut self.backend, &mut self.exchange, &key.name(), |course| apply(course.backend, updates, &sharing))?;
        self.updating = Some(key);
        self.exchange.share_parameters(&mut self.backend, new)
    }

    fn settle(&mut self) {
        self.exchange.settle();
    }

    fn diagnose(&mut self, rule: &dyn Rule) -> Result<Vec<LayerDiagnostics>> {
        let diagnosis = self.diagnosis.as_ref().context("training.diagnostics was off when the engine was made")?;
        // Too seldom for a graph: operation by operation, which names one that fails.
        self.backend.checked = true;
        let course = &mut Course::of_operations(&mut self.backend, &mut self.exchange);
        let measured = compare(course, rule, diagnosis).and_then(|comparisons| {
            let (transport, samples) = (self.transport.clone(), self.backend.samples());
            diagnostics::measure(self, &*transport, samples, &comparisons)
        });
        self.backend.checked = false;
        measured
    }

    fn scales_pixels(&self) -> bool {
        true
    }

    fn gather_moments(&self) {
        self.exchange.gather_moments(&self.backend);
    }

    fn checksum(&self) -> u64 {
        self.backend.checksum()
    }

    fn profile(&self) -> &Profile {
        &self.backend.profile
    }

    fn reset_profile(&mut self) {
        self.backend.profile.reset();
    }

    fn time_phases(&mut self) {
        self.backend.timed = true;
        (self.updating, self.parts) = (None, BTreeMap::new());
    }

    fn kernels(&self) -> &'static str {
        "cuda"
    }

    fn device(&self) -> String {
        self.device.clone()
    }

    fn device_memory(&self) -> Option<u64> {
        self.driver.as_ref()?.memory_in_use().ok()
    }

    fn rates(&self) -> Result<Option<Rates>> {
        let (gpu, stream) = (&*self.backend.gpu, self.backend.stream);
        let products = |precision| product_rate(gpu, stream, precision, PRODUCTS);
        let (bytes, operations) = (memory_rate(gpu, stream, COPIED)?, products(self.precision)?);
        let of_inverses = self.precision.of_passes(Role::Inverse);
        let inverse_operations = if of_inverses == self.precision { operations } else { products(of_inverses)? };
        Ok(Some(Rates { bytes, operations, inverse_operations }))
    }
}
