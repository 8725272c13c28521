//! The operations of [`Backend`] on the CPU: each is one parallel pass, with its time and work entered in the profile.

use std::marker::PhantomData;
use std::time::Instant;

use anyhow::Result;

use super::apply::{self, Job, Pass};
use super::elementwise::{
    Add, DifferenceTarget, DifferenceThroughNonlinearity, Elementwise, ErrorThroughNonlinearity, MeasuredError, Range, Samples, Sloped,
    StepAlong, ThroughNonlinearity,
};
use super::input::LayOut;
use super::memory::row_stride;
use super::noise::{AddNoise, Place};
use super::nonlinearity::{Through, through};
use super::pooling::{self, Pooling};
use super::simd::LANES;
use super::{CpuBackend, MOST_JOBS};
use crate::compute::profile;
use crate::compute::{Activity, Backend, Batch, Buffer, Measure, Nonlinearity, Part};
use crate::network::{MapId, Pool, Role, Shape};
use crate::observe::{Doing, span};

/// Below this many vectors a pass is done before other threads would have begun.
const PARALLEL_VECTORS: usize = 8192;

impl CpuBackend {
    /// Does `work` and enters its time, and what it takes of operations and bytes, as `doing`; of a layer, where it is one's.
    pub(super) fn timed(&mut self, (doing, layer): (Doing, Option<usize>), operations: f64, bytes: usize, work: impl FnOnce(&CpuBackend)) {
        let started = Instant::now();
        let _span = span(doing, layer);
        work(self);
        self.profile.add(doing, started.elapsed().as_secs_f64(), operations, bytes as f64);
    }

    fn pass(&mut self, map: MapId, jobs: &[(Activity, Activity)], transposed: bool) {
        let spec = self.maps.get(map);
        let phase = (profile::pass(spec.role, transposed), Some(spec.layer));
        let operations = (jobs.len() * self.batch) as f64 * spec.connectivity.operations();
        let bytes = apply::bytes(&spec.connectivity, self.batch, jobs.len());
        self.timed(phase, operations, bytes, |this| this.through_map(map, jobs, transposed));
    }

    fn through_map(&self, map: MapId, jobs: &[(Activity, Activity)], transposed: bool) {
        let spec = self.maps.get(map);
        let (from, to) = (self.place(jobs[0].0), self.place(jobs[0].1));
        let connectivity = &spec.connectivity;
        let ends = (connectivity.sources, connectivity.destinations);
        let (sources, destinations) = if transposed { (ends.1, ends.0) } else { ends };
        assert_eq!((from.shape.positions(), to.shape.positions()), (sources, destinations), "{}", spec.weight.name);
        let (source, destination) = if transposed { (spec.destination, spec.source) } else { (spec.source, spec.destination) };
        assert!(from.shape.lies_as(source) && to.shape.lies_as(destination), "{}", spec.weight.name);
        if let Some(pool) = spec.pool {
            let back = transposed || spec.role == Role::Feedback;
            return jobs.iter().for_each(|job| self.pool_pass(spec.layer, pool, *job, back));
        }
        let nonlinearity = if transposed { Nonlinearity::Identity } else { to.nonlinearity };
        let nowhere = std::ptr::null_mut();
        let mut uses = [Job { source: nowhere, destination: nowhere, pre_activation: nowhere }; MOST_JOBS];
        for (place, (source, destination)) in uses.iter_mut().zip(jobs) {
            self.assert_alike(&[jobs[0].0, *source]);
            self.assert_alike(&[jobs[0].1, *destination]);
            assert!(
                transposed || self.place(*destination).nonlinearity == nonlinearity,
                "{}: one nonlinearity at a time",
                spec.weight.name
            );
            let pre_activation = self.pre_activations(*destination).at(0);
            *place = Job { source: self.values(*source).at(0), destination: self.values(*destination).at(0), pre_activation };
        }
        let pass = Pass {
            connectivity,
            parameters: self.parameters.weights.at(0),
            span: self.parameters.spans[map.0],
            jobs: &uses[..jobs.len()],
            batch: self.batch,
            source_stride: from.stride,
            destination_stride: to.stride,
            nonlinearity,
            transposed,
        };
        let (isa, cut) = (self.isa, pass.cut(self.isa, self.pool.threads()));
        // SAFETY: slots and spans are of the map's sizes, and no two items write the same elements.
        self.pool.run(cut.items, |item| unsafe { pass.run(isa, cut, item) });
    }

    /// Layer `layer`'s pool of an activity, or the way back of an error.
    fn pool_pass(&self, layer: usize, pool: Pool, (source, destination): (Activity, Activity), back: bool) {
        let pass = Pooling {
            connectivity: &self.maps.get(self.maps.forward[layer]).connectivity,
            pool,
            back,
            source: self.values(source),
            destination: self.values(destination),
            winners: self.values(self.winners[layer].unwrap_or(source)),
            batch: self.batch,
            stride: self.place(source).stride,
        };
        assert_eq!(pass.stride, self.place(destination).stride, "channels are those of the layer below");
        let isa = self.isa;
        // SAFETY: source, destination and winners have the map's shapes, and this thread alone has the samples.
        self.pool.run_ranges(self.batch, 4 * self.pool.threads(), |samples| unsafe {
            isa.run(pooling::Samples { pass: &pass, begin: samples.start, end: samples.end });
        });
    }

    /// Kernels go over activities of one shape side by side.
    fn assert_alike(&self, all: &[Activity]) {
        let of = |activity: &Activity| (self.place(*activity).shape, self.place(*activity).stride);
        let (shape, stride) = of(&all[0]);
        let fits = all.iter().map(of).all(|other| other.0.lies_as(shape) && other.1 == stride);
        assert!(fits, "activities of one shape are needed, found {:?}", all.iter().map(of).collect::<Vec<_>>());
    }

    /// Runs `operation` over all elements of activities shaped as `like`; `operands` counts those read and written.
    fn elementwise(&mut self, like: Activity, operands: usize, operation: impl Elementwise) {
        let elements = self.elements(like);
        debug_assert!(elements.is_multiple_of(LANES));
        let vectors = elements / LANES;
        let parts = if vectors < PARALLEL_VECTORS { 1 } else { 4 * self.pool.threads() };
        self.timed((Doing::Elementwise, None), 0.0, 4 * operands * elements, |this| {
            // SAFETY: all operands are activities of this shape, padded to whole vectors, and no two threads have the
            // same elements.
            this.pool.run_ranges(vectors, parts, |range| unsafe {
                this.isa.run(Range { operation: &operation, begin: range.start, end: range.end });
            });
        });
    }

    /// The error, whose squared norm is entered as the samples' inverse loss.
    fn measured_error<N: Through>(&mut self, y: Activity, operation: &ErrorThroughNonlinearity<N>) {
        let loss = self.measured(Measure::InverseLoss);
        self.timed((Doing::Elementwise, None), 0.0, 12 * self.elements(y), |this| {
            // SAFETY: the operands are activities of this shape, the loss has an element a sample, and this thread
            // alone has the samples.
            this.by_sample(y, |samples| unsafe { this.isa.run(MeasuredError { operation, samples, loss }) });
        });
    }

    fn sloped<N>(&self, y: Activity) -> Sloped<N> {
        Sloped { y: self.values(y), pre_activation: self.pre_activations(y), nonlinearity: PhantomData }
    }

    /// These samples of activities shaped as `like`.
    fn samples(&self, like: Activity, range: std::ops::Range<usize>) -> Samples {
        let slot = self.place(like);
        Samples { positions: slot.shape.positions(), batch: self.batch, stride: slot.stride, begin: range.start, end: range.end }
    }

    /// Runs `body` over ranges of samples of activities shaped as `like`, in parallel where these are large.
    pub(super) fn by_sample(&self, like: Activity, body: impl Fn(Samples) + Sync) {
        let parts = if self.elements(like) / LANES < PARALLEL_VECTORS / 4 { 1 } else { 4 * self.pool.threads() };
        self.pool.run_ranges(self.batch, parts, |range| body(self.samples(like, range)));
    }
}

impl Backend for CpuBackend {
    fn activity_of(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        self.slot(shape, row_stride(shape.channels), nonlinearity)
    }

    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]) {
        self.pass(map, jobs, false);
    }

    fn apply_transposed(&mut self, map: MapId, source: Activity, destination: Activity) {
        self.pass(map, &[(source, destination)], true);
    }

    fn wanted_output(&mut self, destination: Activity) {
        self.give_wanted_output(destination);
    }

    fn output_and_error(&mut self, pre_activation: Activity, output: Activity, error: Activity) {
        self.give_output_and_error(pre_activation, output, error);
    }

    fn output(&mut self, pre_activation: Activity, output: Activity) {
        self.give_output(pre_activation, output);
    }

    fn add_noise(&mut self, source: Activity, destination: Activity, sigma: f32, layer: usize) {
        let place = Place { seed: self.seed, step: self.step, layer, first: self.first };
        let channels = self.place(destination).shape.channels;
        self.assert_alike(&[source, destination]);
        let (from, to) = (self.values(source), self.values(destination));
        self.timed((Doing::Noise, Some(layer)), 0.0, 8 * self.elements(source), |this| {
            // SAFETY: source and destination have one shape, and this thread alone has the samples.
            this.pool.run_ranges(this.batch, 4 * this.pool.threads(), |range| unsafe {
                let samples = this.samples(destination, range);
                this.isa.run(AddNoise { source: from, destination: to, samples, channels, sigma, place });
            });
        });
    }

    fn error_through_nonlinearity(&mut self, y: Activity, target: Activity, error: Activity, measured: bool) {
        self.assert_alike(&[y, target, error]);
        through!(self.place(y).nonlinearity, N => {
            let operation = ErrorThroughNonlinearity::<N> { y: self.sloped(y), target: self.values(target), error: self.values(error) };
            if measured { self.measured_error(y, &operation) } else { self.elementwise(y, 3, operation) }
        });
    }

    fn through_nonlinearity(&mut self, delta: Activity, y: Activity) {
        self.assert_alike(&[y, delta]);
        match self.place(y).nonlinearity {
            Nonlinearity::Identity => {}
            nonlinearity => through!(nonlinearity, N => {
                let operation = ThroughNonlinearity::<N> { delta: self.values(delta), y: self.sloped(y) };
                self.elementwise(y, 3, operation);
            }),
        }
    }

    fn difference_through_nonlinearity(&mut self, target: Activity, y: Activity, destination: Activity) {
        self.assert_alike(&[y, target, destination]);
        through!(self.place(y).nonlinearity, N => {
            let out = self.values(destination);
            self.elementwise(y, 3, DifferenceThroughNonlinearity::<N> { target: self.values(target), y: self.sloped(y), out });
        });
    }

    fn add(&mut self, a: Activity, b: Activity, destination: Activity) {
        self.assert_alike(&[destination, a, b]);
        through!(self.place(destination).nonlinearity, N => {
            let operation = Add::<N> { a: self.values(a), b: self.values(b), out: self.sloped(destination) };
            self.elementwise(destination, 3, operation);
        });
    }

    fn step_along(&mut self, y: Activity, scale: f32, change: Activity, destination: Activity) {
        if self.place(y).stride != self.place(destination).stride {
            return self.step_from_input(y, scale, change, destination);
        }
        self.assert_alike(&[y, change, destination]);
        let operation = StepAlong { y: self.values(y), scale, change: self.values(change), out: self.values(destination) };
        self.elementwise(y, 3, operation);
    }

    fn difference_target(
        &mut self,
        h: Activity,
        [of_activity, of_target]: [Activity; 2],
        share: f32,
        back: Option<(f32, Activity)>,
        target: Activity,
        error: Option<Activity>,
    ) {
        self.assert_alike(&[h, of_activity, of_target, target]);
        back.iter().for_each(|(_, back)| self.assert_alike(&[h, *back]));
        let operation = DifferenceTarget {
            h: self.values(h),
            of_activity: self.values(of_activity),
            of_target: self.values(of_target),
            share,
            back: back.map(|(hybrid, back)| (hybrid, self.values(back))),
            out: self.values(target),
        };
        self.elementwise(h, 4, operation);
        if let Some(error) = error {
            self.error_through_nonlinearity(h, target, error, false);
        }
    }

    fn concatenate(&mut self, a: Activity, b: Activity, destination: Activity) {
        let (from, to) = ([self.place(a), self.place(b)], self.place(destination));
        assert_eq!(from.map(|from| from.shape.units()).iter().sum::<usize>(), to.shape.units(), "the destination is as wide as both");
        let (a, b, out) = (self.values(a), self.values(b), self.values(destination));
        for sample in 0..self.batch {
            // SAFETY: the destination is as wide as both, and other than they; the backend is borrowed by this alone.
            unsafe {
                let (head, tail) = self.dense_row(out, to, sample).split_at_mut(from[0].shape.channels);
                head.copy_from_slice(self.dense_row(a, from[0], sample));
                tail.copy_from_slice(self.dense_row(b, from[1], sample));
            }
        }
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let slot = self.place(self.input());
        batch.check(slot.shape, self.capacity)?;
        self.batch = batch.samples;
        self.first = batch.first;
        self.step = batch.step;
        self.labels.clear();
        self.labels.extend_from_slice(batch.labels);
        self.measures[Measure::InverseLoss as usize].fill(0.0);
        let (positions, channels) = (slot.shape.positions(), slot.shape.channels);
        let (to, samples, stride) = (self.values(self.input()), batch.samples, slot.stride);
        let parts = if batch.pixels.len() < LANES * PARALLEL_VECTORS / 4 { 1 } else { 4 * self.pool.threads() };
        // SAFETY: the input has room for the batch, as was seen above, and no two threads have the same positions of the same samples.
        self.timed((Doing::Input, None), 0.0, 8 * batch.pixels.len(), |this| unsafe {
            let pixels = batch.pixels.scaled();
            let layout = LayOut { pixels: &pixels, to, samples, positions, channels, stride };
            // Of an image few positions at a time stay in the cache.
            if positions >= 4 * parts {
                this.pool.run_ranges(positions, parts, |some| layout.run(some, 0..samples));
            } else {
                this.pool.run_ranges(samples, parts, |some| layout.run(0..positions, some));
            }
        });
        Ok(())
    }

    fn measure(&self, measure: Measure) -> &[f32] {
        &self.measures[measure as usize][..self.batch]
    }

    fn read_activity(&self, activity: Activity) -> Result<Vec<f32>> {
        let slot = self.place(activity);
        let values = self.values(activity);
        // [position][sample][channel] becomes [sample][position][channel].
        let mut all = Vec::with_capacity(self.batch * slot.shape.units());
        for sample in 0..self.batch {
            for position in 0..slot.shape.positions() {
                let at = values.at((position * self.batch + sample) * slot.stride);
                // SAFETY: each position of a sample has so many channels.
                all.extend_from_slice(unsafe { std::slice::from_raw_parts(at, slot.shape.channels) });
            }
        }
        Ok(all)
    }

    fn read_parameter(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        self.parameters.read(&self.maps, map, part, buffer, &self.pool)
    }

    fn write_parameter(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        self.parameters.write(&self.maps, map, part, buffer, values, &self.pool)
    }
}
