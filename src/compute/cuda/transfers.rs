//! What goes to the GPU and comes back: batches, measures, parameters.

use std::ops::Range;
use std::time::Instant;

use anyhow::{Result, ensure};

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::marks::Work;
use crate::compute::{self, Activity, Batch, Buffer, Measure, OptimizerStep, Part, Pixels};
use crate::network::MapId;
use crate::observe::Doing;

impl CudaBackend {
    /// Sends a batch. [`CudaBackend::lay_out_input`] makes an activity of it.
    pub(super) fn receive(&mut self, batch: &Batch) -> Result<()> {
        let started = Instant::now();
        self.scaled_by = match batch.pixels {
            Pixels::Floats(_) => None,
            Pixels::Bytes { scale, shift, .. } => Some([scale, shift].map(<[f32]>::to_vec)),
        };
        self.inbox().send(batch, self.pool(), &self.threads, &*self.gpu, [self.stream, self.copies])?;
        self.profile.add(Doing::Input, started.elapsed().as_secs_f64(), 0.0, (2 * batch.pixels.bytes().len()) as f64);
        Ok(())
    }

    /// Lays the batch out as the lowest layer reads it.
    pub fn lay_out_input(&mut self) -> Result<()> {
        let bytes = 4 * self.batch * (self.slots[0].shape.units() + self.slots[0].each);
        self.perform(Work::new(Doing::Input, None, 0.0, bytes as f64), |this, launches| {
            this.lay_out(launches, &this.input, this.values(Activity(0)));
            Ok(())
        })
    }

    /// Samples of the batch.
    pub fn samples(&self) -> usize {
        self.batch
    }

    /// Forgets what was measured. First in a step.
    pub fn forget_measures(&mut self) -> Result<()> {
        self.measured_parts = 0;
        if self.is_planning() {
            return Ok(());
        }
        // SAFETY: the rows of all measures.
        unsafe { self.gpu.clear(self.measured(Measure::ALL[0]), 4 * Measure::COUNT * self.capacity, self.stream) }
    }

    /// Adds up what was measured in parts, and sends it here. Last in a step: what the batch is read by comes before.
    pub fn send_measures(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)?;
        if self.measured_parts > 0 {
            self.perform(Work::new(Doing::Elementwise, None, 0.0, 0.0), |this, launches| {
                let (partial, out) = (this.first_part().0, this.measured(Measure::InverseLoss).0);
                let (parts, samples) = (this.measured_parts as i32, this.batch as i32);
                super::kernels::launches::sum_measure(launches, &c::SumMeasure { partial, out, parts, samples });
                Ok(())
            })?;
        }
        if self.is_planning() {
            return Ok(());
        }
        let bytes = 4 * Measure::COUNT * self.capacity;
        // SAFETY: page-locked memory of as much, which is read when the stream was waited for.
        unsafe { self.gpu.download(self.measures_here().cast(), self.measured(Measure::ALL[0]), bytes, self.stream) }
    }

    /// Waits for the measures of the current batch.
    pub fn take_measures(&mut self) -> Result<()> {
        self.settle()?;
        for measure in Measure::ALL {
            let at = self.measures_here().wrapping_add(measure as usize * self.capacity);
            // SAFETY: the row of a measure, which the GPU has written.
            let row = unsafe { std::slice::from_raw_parts(at, self.batch) };
            self.measures[measure as usize].clear();
            self.measures[measure as usize].extend_from_slice(row);
        }
        Ok(())
    }

    /// Sends the constants of each map's optimiser.
    pub fn tell(&self, steps: &[OptimizerStep]) -> Result<()> {
        let optimizers: Vec<c::Optimizer> = steps.iter().copied().map(c::Optimizer::from).collect();
        self.inbox().tell(&optimizers, self.pool(), &*self.gpu, self.stream).map_err(|error| self.explained(error))
    }

    /// `floats` from `at`, when the GPU has done what it was given.
    fn here(&self, at: Address, floats: usize) -> Result<Vec<f32>> {
        let mut values = vec![0.0f32; floats];
        // SAFETY: there are so many on both sides, and the wait follows.
        let asked = unsafe { self.gpu.download(values.as_mut_ptr().cast(), at, 4 * floats, self.stream) };
        asked.map_err(|error| self.explained(error)).and_then(|()| self.settle())?;
        Ok(values)
    }

    /// The first gradient that is kept of a map, or this rank's parts of it, when the GPU has made it.
    pub fn gradient_here(&self, map: MapId, part: bool) -> Result<Vec<f32>> {
        let parameters = &self.parameters[map.0];
        if !part {
            return self.here(self.gradients(map), parameters.padded);
        }
        let parts = parameters.parts().map(|(own, _)| self.here(self.gradients(map).offset(4 * own.start), own.len()));
        Ok(parts.into_iter().collect::<Result<Vec<_>>>()?.concat())
    }

    /// Puts `values` to `at`, when the GPU has done what it was given.
    fn put(&self, at: Address, values: &[f32]) -> Result<()> {
        // SAFETY: the caller has an address of as many floats, and the wait follows.
        let sent = unsafe { self.gpu.upload(at, values.as_ptr().cast(), 4 * values.len(), self.stream) };
        sent.map_err(|error| self.explained(error)).and_then(|()| self.settle())
    }

    /// Initial parameters, from the seed: those that the CPU backend draws.
    pub fn initialize(&mut self) {
        for (index, map) in self.maps.clone().all.iter().enumerate() {
            let values = self.parameters[index].initial(map, index, self.seed, 0);
            if let Err(error) = self.put(self.at(self.parameters[index].values), &values) {
                self.failed = Some(error);
                return;
            }
        }
    }

    /// [samples, units in H, W, C order].
    pub(super) fn values_here(&self, activity: Activity) -> Result<Vec<f32>> {
        let slot = &self.slots[activity.0];
        let (positions, channels, units) = (slot.shape.positions(), slot.shape.channels, slot.shape.units());
        if activity == Activity(0) {
            let count = self.batch * units;
            let Some([scale, shift]) = &self.scaled_by else { return self.here(self.pixels(), count) };
            let stored = self.here(self.pixels(), count.div_ceil(4))?;
            let values = &bytemuck::cast_slice(&stored)[..count];
            return Ok(Pixels::Bytes { values, scale, shift }.scaled().into_owned());
        }
        let laid_out = self.here(self.values(activity), self.batch * slot.each)?;
        let mut values = vec![0.0; self.batch * units];
        for position in 0..positions {
            for sample in 0..self.batch {
                let from = &laid_out[(position * self.batch + sample) * slot.pitch..][..channels];
                values[sample * units + position * channels..][..channels].copy_from_slice(from);
            }
        }
        Ok(values)
    }

    /// This rank's part of a buffer: all of it, or of moments what this rank owns.
    pub fn part(&self, map: MapId, buffer: Buffer) -> Vec<f32> {
        let place = self.parameters[map.0].buffer(buffer);
        self.here(self.at(place), place.bytes / 4)
            .unwrap_or_else(|error| panic!("{} cannot be read: {error:#}", self.maps.get(map).weight.name))
    }

    /// Whether this rank has all of a buffer.
    fn is_whole(&self, map: MapId, buffer: Buffer) -> bool {
        let parameters = &self.parameters[map.0];
        parameters.buffer(buffer).bytes == 4 * parameters.padded
    }

    pub(super) fn parameter_here(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32> {
        let (spec, parameters) = (self.maps.get(map), &self.parameters[map.0]);
        if parameters.buffer(buffer).bytes == 0 {
            return parameters.read(spec, part, &vec![0.0; parameters.padded]);
        }
        if self.is_whole(map, buffer) {
            return parameters.read(spec, part, &self.part(map, buffer));
        }
        let gathered = self.whole_moments.borrow();
        parameters.read(spec, part, gathered.get(&(map.0, buffer)).expect("moments that ranks share are gathered before they are read"))
    }

    pub(super) fn set_parameter(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()> {
        let (spec, parameters) = (self.maps.get(map), &self.parameters[map.0]);
        if parameters.buffer(buffer).bytes == 0 {
            // A checkpoint may hold what no step needs.
            return parameters.write(spec, part, &mut vec![0.0; parameters.padded], values);
        }
        let mut own = self.part(map, buffer);
        if self.is_whole(map, buffer) {
            parameters.write(spec, part, &mut own, values)?;
        } else {
            let mut whole = vec![0.0; parameters.padded];
            parameters.parts().into_iter().for_each(|(among_all, at)| whole[among_all].copy_from_slice(&own[at]));
            parameters.write(spec, part, &mut whole, values)?;
            parameters.parts().into_iter().for_each(|(among_all, at)| own[at].copy_from_slice(&whole[among_all]));
        }
        self.put(self.at(parameters.buffer(buffer)), &own)
    }

    /// This rank's parts of a map among all its elements, and where [`CudaBackend::part`] has them.
    pub fn parts(&self, map: MapId) -> [(Range<usize>, Range<usize>); 2] {
        self.parameters[map.0].parts()
    }

    /// Whole moments of a map for [`Backend::read_parameter`](crate::compute::Backend::read_parameter), where this rank owns a part of
    /// them.
    pub fn keep_gathered(&self, map: MapId, buffer: Buffer, whole: Vec<f32>) {
        self.whole_moments.borrow_mut().insert((map.0, buffer), whole);
    }

    /// A checksum of all parameters, the same for equal parameters on every rank.
    pub fn checksum(&self) -> u64 {
        let values = |map| self.part(MapId(map), Buffer::Weights);
        compute::checksum((0..self.parameters.len()).map(|map| crc32fast::hash(bytemuck::cast_slice(&values(map)))))
    }

    pub fn parameters_at(&self, map: MapId) -> Address {
        self.at(self.parameters[map.0].values)
    }

    /// Where all ranks' values are, and the bytes of each, of an activity that ranks gather.
    pub fn gathered(&self, activity: Activity) -> Result<(Address, usize)> {
        ensure!(self.batch == self.capacity, "factors are gathered of whole batches");
        Ok((self.all_values(activity), 4 * self.capacity * self.slots[activity.0].each))
    }
}
