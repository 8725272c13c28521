//! The operations of [`Backend`] on tensors.

use anyhow::Result;
use tch::{Kind, TchError, Tensor};

use super::{GELU, Slot, TorchBackend, explained, through, to_host};
use crate::compute::cpu::Place;
use crate::compute::{Activity, Backend, Batch, Buffer, ByChannel, Measure, Nonlinearity, Part};
use crate::network::{MapId, Output, Shape};
use crate::observe::Doing;

impl TorchBackend {
    /// A pass over elements: `operation` yields the new values of `destination`; `operands` counts activities read and written.
    fn elementwise(&mut self, destination: Activity, operands: usize, operation: impl FnOnce(&Self) -> Result<Tensor, TchError>) {
        let bytes = (4 * operands * self.slots[destination.0].shape.units() * self.batch) as f64;
        self.attempt(Doing::Elementwise, 0.0, bytes, |this| {
            this.slots[destination.0].values = operation(this)?;
            Ok(())
        });
    }

    /// Gives `destination` what its nonlinearity makes of `sums`.
    fn settle_sums(&mut self, destination: Activity, sums: Tensor) -> Result<()> {
        let slot = &mut self.slots[destination.0];
        if !slot.nonlinearity.slope_follows_from_value() {
            slot.pre_activation = sums.copy();
        }
        slot.values = through(slot.nonlinearity, sums)?;
        Ok(())
    }

    /// A number of each channel, for all positions and samples.
    fn of_channels(&self, values: &[f32]) -> Result<Tensor, TchError> {
        Tensor::from_slice(values).f_view([1, 1, values.len() as i64])?.f_to_device(self.device)
    }

    /// `delta s'(a)`, where a map made `y = s(a)`.
    fn through(&self, y: Activity, delta: &Tensor) -> Result<Tensor, TchError> {
        let Slot { values: y, nonlinearity, pre_activation, .. } = &self.slots[y.0];
        match nonlinearity {
            Nonlinearity::Tanh => delta.f_mul(&Tensor::f_ones([1], (Kind::Float, y.device()))?.f_sub(&y.f_mul(y)?)?),
            Nonlinearity::Relu => delta.f_mul(&y.f_gt(0.0)?),
            Nonlinearity::LeakyRelu => y.f_leaky_relu_backward(delta, f64::from(Nonlinearity::LEAK), true),
            Nonlinearity::Gelu => pre_activation.f_gelu_backward(delta, GELU),
            Nonlinearity::Identity => delta.f_mul_scalar(1.0),
        }
    }

    /// A dense activity as [batch, units].
    fn dense(&self, activity: Activity) -> Result<Tensor, TchError> {
        self.values(activity).f_select(0, 0)
    }

    /// [1, batch, units].
    fn wanted(&self) -> Result<Tensor, TchError> {
        let batch = self.batch as i64;
        match self.output {
            Output::Softmax => {
                let top = self.maps.get(*self.maps.forward.last().expect("a network has layers")).destination;
                let (classes, smoothing) = (top.units() as i64, self.label_smoothing);
                let elsewhere = smoothing / classes as f64;
                let mut wanted = Tensor::f_full([batch, classes], elsewhere, (Kind::Float, self.device))?;
                wanted.f_scatter_value_(1, &self.labels.f_unsqueeze(1)?, elsewhere + 1.0 - smoothing)?.f_unsqueeze(0)
            }
            Output::Linear => self.values(self.input()).f_permute([1, 0, 2])?.f_reshape([1, batch, -1]),
        }
    }

    /// By sample, of logits [batch, classes]: cross-entropy, and the number of classes that rank before the label. Equal logits rank by
    /// class; nothing ranks behind a NaN.
    fn cross_entropy(&self, logits: &Tensor) -> Result<(Tensor, Tensor), TchError> {
        let classes = logits.size()[1];
        let label = self.labels.f_unsqueeze(1)?;
        let loss = logits.f_log_softmax(1, Kind::Float)?.f_gather(1, &label, false)?.f_neg()?.f_squeeze_dim(1)?;
        let own = logits.f_gather(1, &label, false)?;
        let class = Tensor::f_arange(classes, (Kind::Int64, self.device))?.f_unsqueeze(0)?;
        let tied = logits.f_eq_tensor(&own)?.f_logical_and(&class.f_lt_tensor(&label)?)?;
        let before = logits.f_gt_tensor(&own)?.f_logical_or(&tied)?.f_logical_or(&own.f_isnan()?)?;
        Ok((loss, before.f_sum_dim_intlist([1].as_slice(), false, Kind::Int64)?))
    }

    /// The row of a measure, to be written.
    fn row(&self, measure: Measure) -> Result<Tensor, TchError> {
        self.measured.f_select(0, measure as i64)
    }
}

impl Backend for TorchBackend {
    fn activity_of(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity {
        self.slot(shape, nonlinearity)
    }

    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]) {
        self.timed_pass(map, jobs, false);
    }

    fn apply_transposed(&mut self, map: MapId, source: Activity, destination: Activity) {
        self.timed_pass(map, &[(source, destination)], true);
    }

    fn wanted_output(&mut self, destination: Activity) {
        self.attempt(Doing::Output, 0.0, 0.0, |this| {
            this.slots[destination.0].values = this.wanted()?;
            Ok(())
        });
    }

    fn output_and_error(&mut self, pre_activation: Activity, output: Activity, error: Activity) {
        let bytes = (12 * self.batch * self.slots[output.0].shape.units()) as f64;
        self.attempt(Doing::Output, 0.0, bytes, |this| {
            let logits = this.dense(pre_activation)?;
            let (h, delta) = match this.output {
                Output::Softmax => {
                    let (loss, before) = this.cross_entropy(&logits)?;
                    this.row(Measure::Loss)?.f_copy_(&loss)?;
                    this.row(Measure::Top1Error)?.f_copy_(&before.f_ge(1)?)?;
                    this.row(Measure::Top5Error)?.f_copy_(&before.f_ge(5)?)?;
                    let p = logits.f_softmax(1, Kind::Float)?.f_unsqueeze(0)?;
                    let delta = p.f_sub(&this.wanted()?)?;
                    (p, delta)
                }
                Output::Linear => {
                    let h = this.values(pre_activation).f_contiguous()?;
                    let difference = h.f_sub(&this.wanted()?)?;
                    let squares = difference.f_mul(&difference)?;
                    this.row(Measure::Loss)?.f_copy_(&squares.f_sum_dim_intlist([0, 2].as_slice(), false, Kind::Float)?)?;
                    (h, difference.f_mul_scalar(2.0)?)
                }
            };
            this.slots[output.0].values = h;
            this.slots[error.0].values = delta;
            Ok(())
        });
    }

    fn output(&mut self, pre_activation: Activity, output: Activity) {
        let bytes = (8 * self.batch * self.slots[output.0].shape.units()) as f64;
        self.attempt(Doing::Output, 0.0, bytes, |this| {
            let a = this.values(pre_activation);
            this.slots[output.0].values = match this.output {
                Output::Softmax => a.f_softmax(2, Kind::Float)?,
                Output::Linear => a.shallow_clone(),
            };
            Ok(())
        });
    }

    fn add_noise(&mut self, source: Activity, destination: Activity, sigma: f32, layer: usize) {
        let bytes = (8 * self.batch * self.slots[source.0].shape.units()) as f64;
        self.attempt(Doing::Noise, 0.0, bytes, |this| {
            let place = Place { seed: this.seed, step: this.step, layer, first: this.first };
            this.slots[destination.0].values = this.kernels.add_noise(this.values(source), sigma, place)?;
            Ok(())
        });
    }

    fn error_through_nonlinearity(&mut self, y: Activity, target: Activity, error: Activity, measured: bool) {
        self.elementwise(error, 3, |this| {
            let difference = this.values(y).f_sub(this.values(target))?;
            if measured {
                let squares = difference.f_mul(&difference)?.f_sum_dim_intlist([0, 2].as_slice(), false, Kind::Float)?;
                let _ = this.row(Measure::InverseLoss)?.f_add_(&squares)?;
            }
            this.through(y, &difference)?.f_mul_scalar(2.0)
        });
    }

    fn through_nonlinearity(&mut self, delta: Activity, y: Activity) {
        self.elementwise(delta, 3, |this| this.through(y, this.values(delta)));
    }

    fn difference_through_nonlinearity(&mut self, target: Activity, y: Activity, destination: Activity) {
        self.elementwise(destination, 3, |this| {
            let difference = this.values(target).f_sub(this.values(y))?;
            this.through(y, &difference)
        });
    }

    fn add(&mut self, a: Activity, b: Activity, destination: Activity) {
        let bytes = (12 * self.slots[destination.0].shape.units() * self.batch) as f64;
        self.attempt(Doing::Elementwise, 0.0, bytes, |this| this.settle_sums(destination, this.values(a).f_add(this.values(b))?));
    }

    fn step_along(&mut self, y: Activity, scale: f32, change: Activity, destination: Activity) {
        self.elementwise(destination, 3, |this| {
            let change = this.values(change).f_mul_scalar(f64::from(scale))?;
            this.values(y).f_add(&change)
        });
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
        self.elementwise(target, 4, |this| {
            let difference = this.values(of_target).f_sub(this.values(of_activity))?.f_mul_scalar(f64::from(share))?;
            let change = match back {
                None => difference,
                Some((hybrid, back)) => difference.f_add(&this.values(back).f_mul_scalar(f64::from(hybrid))?)?,
            };
            this.values(h).f_add(&change)
        });
        if let Some(error) = error {
            self.error_through_nonlinearity(h, target, error, false);
        }
    }

    fn concatenate(&mut self, a: Activity, b: Activity, destination: Activity) {
        self.elementwise(destination, 2, |this| Tensor::f_cat(&[this.values(a), this.values(b)], 2));
    }

    fn begin(&mut self, batch: &Batch) -> Result<()> {
        let shape = self.slots[0].shape;
        batch.check(shape, self.capacity)?;
        (self.batch, self.first, self.step) = (batch.samples, batch.first, batch.step);
        self.failed.take().map_or(Ok(()), |error| Err(explained(error)))?;
        let labels: Vec<i64> = batch.labels.iter().map(|label| i64::from(*label)).collect();
        let samples = batch.samples as i64;
        let pixels = batch.pixels.scaled();
        let loaded = self.timed(Doing::Input, 0.0, (8 * batch.pixels.len()) as f64, |this| {
            let pixels = match &this.staging {
                None => Tensor::f_from_slice(&pixels)?.f_to_device(this.device)?,
                Some(staging) => {
                    // Free to be written: the step before ended when the GPU had done all that it was given.
                    let staged = staging.f_narrow(0, 0, batch.pixels.len() as i64)?;
                    // SAFETY: the part of the staging tensor has as many float32s, in the host's memory, one after another.
                    let room = unsafe { std::slice::from_raw_parts_mut(staged.data_ptr().cast(), batch.pixels.len()) };
                    room.copy_from_slice(&pixels);
                    staged.f_to_device_(this.device, Kind::Float, true, false)?
                }
            };
            let by_sample = pixels.f_view([samples, shape.positions() as i64, shape.channels as i64])?;
            this.slots[0].values = by_sample.f_permute([1, 0, 2])?.f_contiguous()?;
            this.labels = Tensor::f_from_slice(&labels)?.f_to_device(this.device)?;
            this.measured = Tensor::f_zeros([Measure::COUNT as i64, samples], (Kind::Float, this.device))?;
            Ok(())
        });
        loaded.map_err(explained)
    }

    fn measure(&self, measure: Measure) -> &[f32] {
        &self.measures[measure as usize]
    }

    fn read_activity(&self, activity: Activity) -> Result<Vec<f32>> {
        Ok(to_host(&self.values(activity).f_permute([1, 0, 2])?.f_contiguous()?)?)
    }

    fn read_parameter(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        let (spec, windows, parameters) = (self.maps.get(map), &self.windows[map.0], &self.parameters[map.0]);
        let own = parameters.buffer(buffer);
        let gathered = self.gathered.borrow();
        let whole = if own.numel() == parameters.padded() { Some(own) } else { gathered.get(&(map.0, buffer)) };
        let whole = whole.expect("moments that ranks share are gathered before they are read");
        self.here(map, parameters.read(spec, windows, part, whole))
    }

    fn write_parameter(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        let (spec, windows, parameters) = (self.maps.get(map), &self.windows[map.0], &self.parameters[map.0]);
        let own = parameters.buffer(buffer);
        if own.numel() == parameters.padded() {
            return parameters.write(spec, windows, part, own, values);
        }
        // This rank's part is cut from the whole.
        let whole = parameters.values.f_zeros_like()?;
        let cut = |whole: &Tensor| whole.f_narrow(0, parameters.owned.start as i64, parameters.owned.len() as i64);
        cut(&whole)?.f_copy_(own)?;
        parameters.write(spec, windows, part, &whole, values)?;
        parameters.buffer(buffer).shallow_clone().f_copy_(&cut(&whole)?)?;
        Ok(())
    }
}

impl ByChannel for TorchBackend {
    fn fill(&mut self, destination: Activity, values: &[f32]) {
        self.elementwise(destination, 1, |this| {
            let shape = this.slots[destination.0].shape;
            let size = [shape.positions() as i64, this.batch as i64, shape.channels as i64];
            this.of_channels(values)?.f_expand(size, false)?.f_contiguous()
        });
    }

    fn channel_sums(&mut self, a: Activity, around: &[f32], b: Option<(Activity, [&[f32]; 2])>, destination: Activity) {
        self.elementwise(destination, 2, |this| {
            let a = this.values(a).f_sub(&this.of_channels(around)?)?;
            let products = match b {
                None => a.f_mul(&a)?,
                Some((b, [subtract, scale])) => {
                    a.f_mul(&this.values(b).f_sub(&this.of_channels(subtract)?)?.f_mul(&this.of_channels(scale)?)?)?
                }
            };
            let sums = [products, a].iter().map(|of| of.f_sum_dim_intlist(0, true, Kind::Float)).collect::<Result<Vec<_>, _>>()?;
            Tensor::f_cat(&sums, 2)
        });
    }

    fn map_channels(&mut self, a: Activity, [subtract, scale, shift]: [&[f32]; 3], destination: Activity) {
        let bytes = (8 * self.slots[destination.0].shape.units() * self.batch) as f64;
        self.attempt(Doing::Elementwise, 0.0, bytes, |this| {
            let scaled = this.values(a).f_sub(&this.of_channels(subtract)?)?.f_mul(&this.of_channels(scale)?)?;
            this.settle_sums(destination, scaled.f_add(&this.of_channels(shift)?)?)
        });
    }

    fn through_channels(&mut self, delta: Activity, a: Activity, of_channels: [&[f32]; 4], destination: Activity) {
        self.elementwise(destination, 3, |this| {
            let [factor, mean, around, slope] = of_channels.map(|values| this.of_channels(values));
            let along = this.values(a).f_sub(&around?)?.f_mul(&slope?)?;
            let error = this.values(delta).f_sub(&mean?)?.f_sub(&along)?;
            error.f_mul(&factor?)
        });
    }
}
