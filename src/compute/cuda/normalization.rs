//! Batch normalisation on a GPU, where the numbers of each channel stay, so that graphs have it.

use super::backend::CudaBackend;
use super::gpu::Address;
use super::kernels::arguments as c;
use super::kernels::launches;
use super::marks::Work;
use super::operations::code;
use crate::compute::normalization::EPSILON;
use crate::compute::{Activity, Normalized, Normalizes};
use crate::observe::Doing;

/// Rows of numbers that a layer has, as normalize.cu names them.
pub(super) const ROWS: usize = 6;

impl CudaBackend {
    fn work_of_channels(&self, like: Activity, operands: usize, layer: &Normalized) -> Work {
        let bytes = 4 * operands * self.batch * self.slots[like.0].each;
        Work::new(Doing::Elementwise, Some(self.maps.get(layer.affine).layer), 0.0, bytes as f64)
    }

    /// A layer's rows of numbers.
    fn numbers(&self, layer: &Normalized) -> u64 {
        self.at(self.numbers[&self.maps.get(layer.affine).layer]).0
    }

    /// The sums of `a`, or of its products with x, to `destination`.
    fn sum_channels(&mut self, layer: &Normalized, a: Activity, products: bool, destination: Activity) {
        self.attempt(self.work_of_channels(a, 1 + usize::from(products), layer), |this, launches| {
            let shape = this.slots[a.0].shape;
            let (b, around) = match products {
                true => (this.values(layer.sums), Address::NULL),
                // The running mean, so that little is lost where squares are taken from each other.
                false => (Address::NULL, this.parameters_at(layer.statistics)),
            };
            let sums = c::ChannelSums {
                a: this.values(a).0,
                b: b.0,
                around: around.0,
                numbers: this.numbers(layer),
                out: this.values(destination).0,
                positions: shape.positions() as i32,
                samples: this.batch as i32,
                channels: shape.channels as i32,
                ..c::ChannelSums::default()
            };
            let partial = this.partial(launches::channel_partial(&sums)).0;
            launches::channel_sums(launches, &c::ChannelSums { partial, ..sums });
            Ok(())
        });
    }

    /// The numbers of each channel: from the `sums` of all ranks' samples, or from running statistics.
    fn make_numbers(&mut self, layer: &Normalized, sums: Option<Activity>, down: bool) {
        self.attempt(self.work_of_channels(sums.unwrap_or(layer.one), 1, layer), |this, launches| {
            let (shape, batch) = (this.slots[layer.sums.0].shape, this.batch as i32);
            let of_ranks = sums.map_or(Address::NULL, |sums| this.all_values(sums));
            let training = |activity: Activity| if sums.is_some() { this.values(activity).0 } else { 0 };
            let all = c::Factors {
                post: of_ranks.0,
                post_rank: sums.map_or(0, |sums| (this.capacity * this.slots[sums.0].each) as i64),
                samples: this.size as i32 * batch,
                per_rank: batch,
                ..c::Factors::default()
            };
            let numbers = c::ChannelNumbers {
                all,
                affine: this.parameters_at(layer.affine).0,
                statistics: this.parameters_at(layer.statistics).0,
                numbers: this.numbers(layer),
                drift: training(layer.drift),
                one: training(layer.one),
                epsilon: EPSILON,
                positions: shape.positions() as i32,
                channels: shape.channels as i32,
            };
            launches::channel_numbers(launches, &numbers, down);
            Ok(())
        });
    }

    /// What the numbers make of the layer's sums, or of the error `delta`.
    fn map_channels(&mut self, layer: &Normalized, delta: Option<Activity>, destination: Activity) {
        self.attempt(self.work_of_channels(destination, 2 + usize::from(delta.is_some()), layer), |this, launches| {
            let slot = &this.slots[destination.0];
            let map = c::MapChannels {
                a: this.values(layer.sums).0,
                delta: delta.map_or(0, |delta| this.values(delta).0),
                numbers: this.numbers(layer),
                out: this.values(destination).0,
                kept: slot.pre_activation.map_or(0, |kept| this.values(kept).0),
                quads: u32::try_from(this.batch * slot.each / 4).expect("an activity has fewer fours than 2^32"),
                channels: slot.shape.channels as i32,
                nonlinearity: code(slot.nonlinearity),
                padding: 0,
            };
            launches::map_channels(launches, &map);
            Ok(())
        });
    }
}

impl Normalizes for CudaBackend {
    fn normalize_by_running(&mut self, layer: &Normalized, destination: Activity) {
        self.make_numbers(layer, None, false);
        self.map_channels(layer, None, destination);
    }

    fn sum_moments(&mut self, layer: &Normalized) {
        self.sum_channels(layer, layer.sums, false, layer.moments);
    }

    fn normalize(&mut self, layer: &Normalized, _: &[f32], destination: Activity) {
        self.make_numbers(layer, Some(layer.moments), false);
        self.map_channels(layer, None, destination);
    }

    fn sum_products(&mut self, layer: &Normalized, delta: Activity) {
        self.sum_channels(layer, delta, true, layer.products);
    }

    fn through_normalization(&mut self, layer: &Normalized, delta: Activity, _: &[f32]) {
        self.make_numbers(layer, Some(layer.products), true);
        self.map_channels(layer, Some(delta), layer.error);
    }
}
