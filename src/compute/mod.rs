//! What a learning rule asks of a device.
//!
//! A rule sees activities and maps by their handles, never memory, ranks or files. The [`Backend`] owns activities and parameters and does
//! the arithmetic; a rule's formulas read as calls to it. Every operation works on the samples of the batch that was last given.

pub mod cpu;
pub mod cuda;
pub mod device;
mod measure;
mod normalization;
mod pixels;
pub mod profile;
pub mod settings;
#[cfg(feature = "torch")]
pub mod torch;

use anyhow::{Result, ensure};

pub use measure::{Measure, Of};
pub use normalization::{ByChannel, Normalized, Normalizes};
pub use pixels::Pixels;

use crate::network::{MapId, Shape};
pub use crate::network::{Nonlinearity, Part};

/// An activity, target, or error of the current batch, owned by the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Activity(pub usize);

/// The two factors of a map's gradient: presynaptic activity (the map's source) and postsynaptic error (its destination).
/// The gradient is their outer product summed over the global batch, divided by its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    pub map: MapId,
    pub pre: Activity,
    pub post: Activity,
}

impl Update {
    /// Updates, each map's together: they follow one another, and their gradients add up.
    pub fn by_map(updates: &[Update]) -> impl Iterator<Item = &[Update]> {
        updates.chunk_by(|one, next| one.map == next.map)
    }
}

/// One rank's samples.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    pub pixels: Pixels<'a>,
    /// Empty where the network has a linear output.
    pub labels: &'a [u32],
    pub samples: usize,
    /// Place of the first sample in the global batch: with the step, the key of the noise.
    pub first: usize,
    pub step: u64,
}

impl Batch<'_> {
    /// # Errors
    /// Where it is not of so many samples at most, each of `shape`.
    pub fn check(&self, shape: Shape, capacity: usize) -> Result<()> {
        // Where a network reads images as one line, its channels are all that they have.
        let scaled = match self.pixels {
            Pixels::Floats(_) => true,
            Pixels::Bytes { scale, shift, .. } => scale.len() == shift.len() && shape.channels.is_multiple_of(scale.len()),
        };
        let (samples, values) = (self.samples, self.pixels.len());
        let fits = samples <= capacity && values == samples * shape.units() && self.labels.len() <= samples && scaled;
        ensure!(fits, "a batch of {samples} samples and {values} values does not fit {shape}");
        Ok(())
    }
}

/// What becomes of a parameter `w` at one step, given its gradient `g`, which is `scale` times the sum over the global batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerStep {
    /// One over the global batch.
    pub scale: f32,
    /// What weight decay leaves of a parameter: 1 without.
    pub keep: f32,
    pub method: Method,
}

/// The constants of an optimiser at one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// `w = keep * w - size * m / (sqrt(v) * deviation_scale + epsilon)`, which is either form of epsilon; `m` and `v` are the decaying means
    /// of `g` and of its square. Epsilon is above 0.
    Adam { beta1: f32, beta2: f32, size: f32, deviation_scale: f32, epsilon: f32 },
    /// `m = momentum * m + g`, and `w = keep * w - size * m`, or with Nesterov's look ahead `keep * w - size * (g + momentum * m)`.
    Sgd { size: f32, momentum: f32, nesterov: bool },
}

impl Method {
    /// Numbers that it keeps for each parameter.
    pub fn moments(&self) -> usize {
        match self {
            Method::Adam { .. } => 2,
            Method::Sgd { .. } => 1,
        }
    }
}

/// Parameters, or what their optimiser keeps for each of them: SGD its momentum as the first moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Buffer {
    Weights,
    FirstMoment,
    SecondMoment,
}

/// One checksum (FNV-1a) of those of parts, in their order.
fn checksum(parts: impl IntoIterator<Item = u32>) -> u64 {
    parts.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| (hash ^ u64::from(part)).wrapping_mul(0x0100_0000_01b3))
}

/// The arithmetic of learning rules on one device.
///
/// Shapes agree with those the activities were made with; a mismatch is a bug of the caller and panics.
pub trait Backend: Normalizes {
    /// An activity of `shape` for every sample of a batch, zero at first. Maps that lead to it end with `nonlinearity`: `s` below, and its
    /// slope `s'`.
    fn activity_of(&mut self, shape: Shape, nonlinearity: Nonlinearity) -> Activity;

    /// An activity that is what maps make it: targets, errors, and pre-activations.
    fn activity(&mut self, shape: Shape) -> Activity {
        self.activity_of(shape, Nonlinearity::Identity)
    }

    /// `destination = s(map(source))` for each (source, destination), s the nonlinearity of all destinations: they share one reading of
    /// the weights.
    fn apply(&mut self, map: MapId, jobs: &[(Activity, Activity)]);

    /// `destination = W^T source`, without bias: from the map's destination back to its source.
    fn apply_transposed(&mut self, map: MapId, source: Activity, destination: Activity);

    /// `destination = map(source)`, or `W^T source` of the `transposed` map, times `s'(a)`, where a map made `y = s(a)`: an error on its way
    /// down. The destination has no nonlinearity.
    fn lead_back(&mut self, (map, transposed): (MapId, bool), source: Activity, destination: Activity, y: Activity) {
        match transposed {
            true => self.apply_transposed(map, source, destination),
            false => self.apply(map, &[(source, destination)]),
        }
        self.through_nonlinearity(destination, y);
    }

    /// The input of the current batch, the first activity of all.
    fn input(&self) -> Activity {
        Activity(0)
    }

    /// What the output should be: one-hot labels, or the input, flattened.
    fn wanted_output(&mut self, destination: Activity);

    /// From the output's pre-activation: the output (softmax, or itself), the gradient of the per-sample loss by the pre-activation
    /// (`p - y`, or `2 (h - x)`), and the measures.
    fn output_and_error(&mut self, pre_activation: Activity, output: Activity, error: Activity);

    /// The output alone, of a pre-activation that is not the network's (a corrupted copy's).
    fn output(&mut self, pre_activation: Activity, output: Activity);

    /// `destination = source + sigma * eps`; `layer` and the batch's place choose the noise. A rule with several noises on a layer adds
    /// multiples of the network's depth to its number; in all these are below 2^16.
    fn add_noise(&mut self, source: Activity, destination: Activity, sigma: f32, layer: usize);

    /// `error = 2 (y - target) s'(a)`: gradient of `|| y - target ||^2` by a, where a map made `y = s(a)`. With `measured`, the squared norm
    /// is added to [`Measure::InverseLoss`].
    fn error_through_nonlinearity(&mut self, y: Activity, target: Activity, error: Activity, measured: bool);

    /// `delta *= s'(a)`, where a map made `y = s(a)`.
    fn through_nonlinearity(&mut self, delta: Activity, y: Activity);

    /// `destination = (target - y) s'(a)`, where a map made `y = s(a)`.
    fn difference_through_nonlinearity(&mut self, target: Activity, y: Activity, destination: Activity);

    /// `destination = s(a + b)`, s the destination's nonlinearity, which may be one of them.
    fn add(&mut self, a: Activity, b: Activity, destination: Activity);

    /// `destination = y + scale * change`; y may be the input.
    fn step_along(&mut self, y: Activity, scale: f32, change: Activity, destination: Activity);

    /// `target = h + share * (of_target - of_activity) + hybrid * back`; without `back`, hybrid is 0. Where it is asked for also the error of
    /// `h` by it, as [`Backend::error_through_nonlinearity`] makes it.
    fn difference_target(
        &mut self,
        h: Activity,
        of_activity_and_target: [Activity; 2],
        share: f32,
        back: Option<(f32, Activity)>,
        target: Activity,
        error: Option<Activity>,
    );

    /// `destination = [a, b]`, channel after channel, of dense activities.
    fn concatenate(&mut self, a: Activity, b: Activity, destination: Activity);

    /// Gives the backend the samples that everything after works on.
    fn begin(&mut self, batch: &Batch) -> Result<()>;

    /// The measure of the samples of the current batch.
    fn measure(&self, measure: Measure) -> &[f32];

    /// The values of an activity for the current batch: [samples, units in H, W, C order].
    fn read_activity(&self, activity: Activity) -> Result<Vec<f32>>;

    /// A tensor in its interchange layout, as checkpoints have it. Moments exist for trained maps alone.
    fn read_parameter(&self, map: MapId, part: Part, buffer: Buffer) -> Vec<f32>;

    /// Replaces a tensor by `values` in its interchange layout; an error where their number is wrong.
    fn write_parameter(&mut self, map: MapId, part: Part, buffer: Buffer, values: &[f32]) -> Result<()>;
}
