//! Batches of a data set, loaded ahead by threads of their own.
//!
//! What a batch holds depends on the plan and its position alone, never on threads or ranks.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::{Arc, Mutex};

use anyhow::Result;

use super::dataset::{DataSet, Draw, Form};
use super::order::{BatchPlan, Position, batches_per_epoch, epoch_order, evaluation_part};
use super::pipeline::{Loaded, Pipeline, Source};
use crate::exit::Exit;

/// Batches between the one that is loaded and the one that the system is asked to bring into memory.
const PREFETCH: u64 = 4;

/// This rank's part of one training batch after the other, over epochs without end.
pub struct Loader {
    pipeline: Pipeline,
}

impl Loader {
    /// Begins to load this rank's parts of the batches from `start` on. The incomplete last batch of an epoch is left out.
    ///
    /// One thread loads; others come to its help, up to the number of CPUs that this process may use, while training waits for data.
    /// What is wrong with the plan is an error of the first [`Loader::next`].
    pub fn train(data: Arc<DataSet>, plan: BatchPlan, start: Position, form: Form) -> Loader {
        Loader::with_threads(data, plan, start, form, 1..=available_threads())
    }

    /// As [`Loader::train`], with this range for the number of threads.
    ///
    /// # Panics
    /// Where the ranks do not divide the batch, which [`config::Data::samples_per_rank`](crate::config::Data::samples_per_rank) refuses.
    pub fn with_threads(data: Arc<DataSet>, plan: BatchPlan, start: Position, form: Form, threads: RangeInclusive<usize>) -> Loader {
        assert!(plan.batch_size.is_multiple_of(plan.world_size), "ranks divide the batch");
        let per_epoch = batches_per_epoch(data.len(), plan.batch_size);
        let first = start.batches_before(per_epoch);
        Loader { pipeline: Pipeline::new(Training { data, plan, form, per_epoch, first, orders: Mutex::default() }, threads) }
    }

    /// The next batch; waits where it is not ready.
    ///
    /// # Errors
    /// Where a sample cannot be read, a loading thread panicked, or there is not one whole batch in the data. Each later call fails too.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Loaded> {
        let batch = self.pipeline.next()?;
        Ok(batch.expect("training batches never end"))
    }

    /// Takes a batch's buffers back, for another one.
    pub fn recycle(&mut self, batch: Loaded) {
        self.pipeline.recycle(batch);
    }

    /// Threads that load.
    pub fn threads(&self) -> usize {
        self.pipeline.threads()
    }
}

/// CPUs that this process may use.
fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

struct Training {
    data: Arc<DataSet>,
    plan: BatchPlan,
    form: Form,
    per_epoch: usize,
    /// Batches of training before the loader's first.
    first: u64,
    /// The latest epochs' orders; loading ahead needs two at the turn of an epoch.
    orders: Mutex<VecDeque<(u64, Arc<Vec<usize>>)>>,
}

impl Source for Training {
    fn batches(&self) -> Option<u64> {
        None
    }

    fn fill(&self, number: u64, batch: &mut Loaded) -> Result<()> {
        if self.per_epoch == 0 {
            let (batch_size, samples) = (self.plan.batch_size, self.data.len());
            return Err(Exit::Usage.error(format!("data.batch_size = {batch_size} is more than the {samples} samples of data.train")));
        }
        let ahead = if number == 0 { 0..=PREFETCH } else { number + PREFETCH..=number + PREFETCH };
        for number in ahead {
            let (_, places) = self.samples(number);
            self.data.prefetch(places);
        }
        let (position, places) = self.samples(number);
        batch.position = position;
        self.data.fill(places, Some(Draw { seed: self.plan.seed, epoch: position.epoch }), self.form, batch)
    }
}

impl Training {
    /// Position and this rank's samples of a batch, numbered as in the data set.
    fn samples(&self, number: u64) -> (Position, impl ExactSizeIterator<Item = usize> + use<>) {
        let position = Position::after(self.first + number, self.per_epoch);
        let order = self.order(position.epoch);
        let start = position.batch as usize * self.plan.batch_size;
        (position, self.plan.part().map(move |place| order[start + place]))
    }

    fn order(&self, epoch: u64) -> Arc<Vec<usize>> {
        let mut orders = self.orders.lock().expect("no thread panics while it makes an order");
        if let Some((_, order)) = orders.iter().find(|(of, _)| *of == epoch) {
            return Arc::clone(order);
        }
        let samples = self.data.len();
        let order = Arc::new(if self.plan.shuffle { epoch_order(self.plan.seed, epoch, samples) } else { (0..samples).collect() });
        if orders.len() == 2 {
            orders.pop_front();
        }
        orders.push_back((epoch, Arc::clone(&order)));
        order
    }
}

/// The samples at `places` of `data`, as they are without augmentation.
pub fn plain_batch(data: &DataSet, places: impl ExactSizeIterator<Item = usize>, form: Form) -> Result<Loaded> {
    let mut batch = Loaded::default();
    data.fill(places, None, form, &mut batch)?;
    Ok(batch)
}

/// Every sample of `data` once, as it is without augmentation: this rank's contiguous part in batches of `capacity` samples, the last
/// one smaller. Each comes with the places of its samples in the data set.
pub fn evaluation_batches(data: Arc<DataSet>, rank: usize, world_size: usize, capacity: usize, form: Form) -> EvaluationBatches {
    let part = evaluation_part(data.len(), rank, world_size);
    let source = Evaluation { data, part: part.clone(), capacity, form };
    EvaluationBatches { pipeline: Pipeline::new(source, 1..=available_threads()), start: part.start, end: part.end }
}

/// An iterator over the batches of an evaluation; see [`evaluation_batches`].
pub struct EvaluationBatches {
    pipeline: Pipeline,
    /// Places of the samples still to come.
    start: usize,
    end: usize,
}

impl EvaluationBatches {
    /// Takes a batch's buffers back, for another one.
    pub fn recycle(&mut self, batch: Loaded) {
        self.pipeline.recycle(batch);
    }
}

impl Iterator for EvaluationBatches {
    type Item = Result<(Range<usize>, Loaded)>;

    /// Nothing comes after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.start == self.end {
            return None;
        }
        match self.pipeline.next() {
            Ok(batch) => {
                let batch = batch?;
                let places = self.start..self.start + batch.labels.len();
                self.start = places.end;
                Some(Ok((places, batch)))
            }
            Err(error) => {
                self.start = self.end;
                Some(Err(error))
            }
        }
    }
}

struct Evaluation {
    data: Arc<DataSet>,
    part: Range<usize>,
    capacity: usize,
    form: Form,
}

impl Evaluation {
    fn places(&self, number: u64) -> Range<usize> {
        let start = (self.part.start + number as usize * self.capacity).min(self.part.end);
        start..(start + self.capacity).min(self.part.end)
    }
}

impl Source for Evaluation {
    fn batches(&self) -> Option<u64> {
        Some(self.part.len().div_ceil(self.capacity) as u64)
    }

    fn fill(&self, number: u64, batch: &mut Loaded) -> Result<()> {
        let ahead = self.places(if number == 0 { 0 } else { number + PREFETCH }).start..self.places(number + PREFETCH).end;
        self.data.prefetch(ahead);
        batch.position = Position { epoch: 0, batch: number };
        self.data.fill(self.places(number), None, self.form, batch)
    }
}
