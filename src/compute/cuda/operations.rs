//! The operations of [`Backend`] on a GPU: what each launches.

use anyhow::Result;

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::arguments::Operation;
use super::kernels::launches::{self, Launch};
use super::kernels::tables::Input;
use super::marks::Work;
use crate::compute::cpu::Place;
use crate::compute::{Activity, Backend, Batch, Buffer, Measure, Nonlinearity, Part};
use crate::network::{MapId, Output, Shape};
use crate::observe::{Doing, span};

/// What kernels call a nonlinearity.
pub(super) fn code(nonlinearity: Nonlinearity) -> i32 {
    match nonlinearity {
        Nonlinearity::Identity => 0,
        Nonlinearity::Tanh => 1,
        Nonlinearity::Relu => 2,
        Nonlinearity::LeakyRelu => 3,
        Nonlinearity::Gelu => 4,
    }
}

impl CudaBackend {
    /// `operands` are those that the operation takes, in its order, and last where the result goes; of `sloped` it needs the slope.
    fn elementwise<const N: usize>(&mut self, operation: Operation, operands: [Activity; N], scales: [f32; 2], sloped: Option<Activity>) {
        self.elementwise_with_error(operation, operands, scales, sloped, None);
    }

    /// The same with an error that is made on the way.
    fn elementwise_with_error<const N: usize>(
        &mut self,
        operation: Operation,
        operands: [Activity; N],
        scales: [f32; 2],
        sloped: Option<Activity>,
        error: Option<Activity>,
    ) {
        let to = operands[N - 1];
        let elements = self.batch * self.slots[to.0].each;
        let work = Work::new(Doing::Elementwise, None, 0.0, (4 * (N + usize::from(error.is_some())) * elements) as f64);
        self.attempt(work, |this, launches| {
            operands.iter().for_each(|activity| this.read_plainly(*activity));
            let (nonlinearity, pre_activation) = this.slope(sloped);
            // That of a sum is made, of all else read.
            let (argument, kept) = if operation == Operation::Add { (0, pre_activation) } else { (pre_activation, 0) };
            let kept = error.map_or(kept, |error| this.values(error).0);
            let at = |index: usize| if index + 1 < N { this.values(operands[index]).0 } else { 0 };
            launches::elementwise(
                launches,
                &c::Elementwise {
                    a: at(0),
                    b: at(1),
                    c: at(2),
                    d: at(3),
                    argument,
                    out: this.values(to).0,
                    kept,
                    count: elements as i64,
                    s0: scales[0],
                    s1: scales[1],
                    operation: operation as i32,
                    nonlinearity,
                },
            );
            Ok(())
        });
    }

    /// The code of an activity's nonlinearity, and the address of its pre-activation, where the slope comes from that; of none, the
    /// identity's.
    pub(super) fn slope(&self, of: Option<Activity>) -> (i32, u64) {
        let Some(activity) = of else { return (code(Nonlinearity::Identity), 0) };
        let slot = &self.slots[activity.0];
        (code(slot.nonlinearity), slot.pre_activation.map_or(0, |sums| self.values(sums).0))
    }

    /// The batch's pixels, laid out as `input`, to `to`.
    pub(super) fn lay_out(&self, launches: &mut Vec<Launch>, input: &Input, to: Address) {
        let shape = self.slots[0].shape;
        let pixels = input.pixels(shape);
        let (source, destination, samples) = (self.pixels().0, to.0, self.batch as i32);
        let [scale, shift] = self.scaling().map(|at| at.0);
        launches::pixels(launches, &c::Pixels { source, destination, scale, shift, place: self.place().0, samples, ..pixels });
    }

    /// What the output should be, to `destination`: one-hot labels, or the input in one row.
    fn want(&self, launches: &mut Vec<Launch>, destination: Activity) {
        let to = self.values(destination).0;
        match self.output {
            Output::Softmax => {
                let classes = self.slots[destination.0].shape.units() as i32;
                let labels = self.labels().0;
                let (samples, smoothing) = (self.batch as i32, self.label_smoothing);
                launches::one_hot(launches, &c::OneHot { destination: to, labels, samples, classes, smoothing, padding: 0 });
            }
            Output::Linear => self.lay_out(launches, &Input::Dense, Address(to)),
        }
    }
}

impl Backend for CudaBackend {
    fn activity_of(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        self.slot(shape, nonlinearity)
    }

    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]) {
        self.pass(map, jobs, false, None);
    }

    fn apply_transposed(&mut self, map: MapId, source: Activity, destination: Activity) {
        self.pass(map, &[(source, destination)], true, None);
    }

    fn lead_back(&mut self, (map, transposed): (MapId, bool), source: Activity, destination: Activity, y: Activity) {
        let sloped = Some(y).filter(|y| self.slots[y.0].nonlinearity != Nonlinearity::Identity);
        self.pass(map, &[(source, destination)], transposed, sloped);
    }

    fn wanted_output(&mut self, destination: Activity) {
        self.attempt(Work::new(Doing::Output, None, 0.0, 0.0), |this, launches| {
            this.want(launches, destination);
            Ok(())
        });
    }

    fn output_and_error(&mut self, pre_activation: Activity, output: Activity, error: Activity) {
        let units = self.slots[output.0].shape.units();
        let work = Work::new(Doing::Output, None, 0.0, (12 * self.batch * units) as f64);
        self.attempt(work, |this, launches| {
            let linear = this.output == Output::Linear;
            if linear {
                // The error's own memory holds the wanted output until it is read.
                this.want(launches, error);
            }
            let [loss, top1, top5] = [Measure::Loss, Measure::Top1Error, Measure::Top5Error].map(|measure| this.measured(measure).0);
            let [pre, output, error] = [pre_activation, output, error].map(|activity| this.values(activity).0);
            launches::output(
                launches,
                &c::Output {
                    pre,
                    output,
                    error,
                    labels: this.labels().0,
                    wanted: error,
                    loss,
                    top1,
                    top5,
                    samples: this.batch as i32,
                    units: units as i32,
                    linear: i32::from(linear),
                    smoothing: this.label_smoothing,
                },
            );
            Ok(())
        });
    }

    fn output(&mut self, pre_activation: Activity, output: Activity) {
        let units = self.slots[output.0].shape.units();
        let work = Work::new(Doing::Output, None, 0.0, (8 * self.batch * units) as f64);
        self.attempt(work, |this, launches| {
            let [pre, output] = [pre_activation, output].map(|activity| this.values(activity).0);
            let linear = i32::from(this.output == Output::Linear);
            let samples = this.batch as i32;
            launches::output(launches, &c::Output { pre, output, samples, units: units as i32, linear, ..c::Output::default() });
            Ok(())
        });
    }

    fn add_noise(&mut self, source: Activity, destination: Activity, sigma: f32, layer: usize) {
        let work = Work::new(Doing::Noise, Some(layer), 0.0, (8 * self.batch * self.slots[source.0].each) as f64);
        self.attempt(work, |this, launches| {
            this.read_plainly(source);
            let shape = this.slots[source.0].shape;
            // The step's part of the stream is where the step is: see `Place`.
            let stream = Place { seed: this.seed, step: 0, layer, first: 0 }.stream();
            launches::noise(
                launches,
                &c::Noise {
                    source: this.values(source).0,
                    destination: this.values(destination).0,
                    place: this.place().0,
                    positions: shape.positions() as u32,
                    samples: this.batch as u32,
                    channels: shape.channels as u32,
                    key_low: this.seed as u32,
                    key_high: (this.seed >> 32) as u32,
                    stream,
                    sigma,
                    ..c::Noise::default()
                },
            );
            Ok(())
        });
    }

    fn error_through_nonlinearity(&mut self, y: Activity, target: Activity, error: Activity, measured: bool) {
        if !measured {
            return self.elementwise(Operation::ErrorThrough, [y, target, error], [0.0; 2], Some(y));
        }
        let work = Work::new(Doing::Elementwise, None, 0.0, (12 * self.batch * self.slots[y.0].each) as f64);
        self.attempt(work, |this, launches| {
            [y, target].into_iter().for_each(|activity| this.read_plainly(activity));
            let (positions, pitch) = (this.slots[y.0].shape.positions(), this.slots[y.0].pitch);
            let (nonlinearity, argument) = this.slope(Some(y));
            let [y, target, error] = [y, target, error].map(|activity| this.values(activity).0);
            let parts = launches::measure_parts(positions, pitch);
            let partial = this.parts_of_inverse_loss(parts);
            launches::measured_error(
                launches,
                &c::MeasuredError {
                    y,
                    target,
                    argument,
                    error,
                    partial: partial.0,
                    positions: positions as i32,
                    samples: this.batch as i32,
                    pitch: pitch as i32,
                    nonlinearity,
                    ..c::MeasuredError::default()
                },
            );
            Ok(())
        });
    }

    fn through_nonlinearity(&mut self, delta: Activity, y: Activity) {
        if self.slots[y.0].nonlinearity != Nonlinearity::Identity {
            self.elementwise(Operation::Through, [delta, y, delta], [0.0; 2], Some(y));
        }
    }

    fn difference_through_nonlinearity(&mut self, target: Activity, y: Activity, destination: Activity) {
        self.elementwise(Operation::DifferenceThrough, [target, y, destination], [0.0; 2], Some(y));
    }

    fn add(&mut self, a: Activity, b: Activity, destination: Activity) {
        self.elementwise(Operation::Add, [a, b, destination], [0.0; 2], Some(destination));
    }

    fn step_along(&mut self, y: Activity, scale: f32, change: Activity, destination: Activity) {
        self.elementwise(Operation::StepAlong, [y, change, destination], [scale, 0.0], None);
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
        let (operation, sloped) = (Operation::DifferenceTarget, error.map(|_| h));
        match back {
            None => self.elementwise_with_error(operation, [h, of_activity, of_target, target], [share, 0.0], sloped, error),
            Some((hybrid, back)) => {
                self.elementwise_with_error(operation, [h, of_activity, of_target, back, target], [share, hybrid], sloped, error);
            }
        }
    }

    fn concatenate(&mut self, a: Activity, b: Activity, destination: Activity) {
        let work = Work::new(Doing::Elementwise, None, 0.0, (8 * self.batch * self.slots[destination.0].each) as f64);
        self.attempt(work, |this, launches| {
            [a, b].into_iter().for_each(|activity| this.read_plainly(activity));
            let [a_channels, b_channels] = [a, b].map(|activity| this.slots[activity.0].shape.channels as i32);
            let [a, b, destination] = [a, b, destination].map(|activity| this.values(activity).0);
            let samples = this.batch as i32;
            launches::concatenate(launches, &c::Concatenate { a, b, destination, samples, a_channels, b_channels, padding: 0 });
            Ok(())
        });
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        batch.check(self.slots[0].shape, self.capacity)?;
        self.failed.take().map_or(Ok(()), Err)?;
        let _span = span(Doing::Input, None);
        self.batch = batch.samples;
        self.receive(batch).map_err(|error| self.explained(error))
    }

    fn measure(&self, measure: Measure) -> &[f32] {
        &self.measures[measure as usize]
    }

    fn read_activity(&self, activity: Activity) -> Result<Vec<f32>> {
        self.values_here(activity)
    }

    fn read_parameter(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        self.parameter_here(map, part, buffer)
    }

    fn write_parameter(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        self.set_parameter(map, part, buffer, values)
    }
}
