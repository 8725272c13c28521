//! The kernels' arguments, as arguments.cuh has them: a kernel takes one of these.
//!
//! Addresses are those of the device, or of the host where kernels are emulated. None of the structures has a hole.

use bytemuck::{Pod, Zeroable};

/// Where something lies in a device's memory; 0: nowhere.
pub type Address = u64;

macro_rules! arguments {
    ($($(#[$doc:meta])* struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {
        $($(#[$doc])* #[repr(C)] #[derive(Clone, Copy, Debug, Default, Pod, Zeroable)] pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        })*
        /// Name and bytes of each.
        #[cfg(test)]
        pub const SIZES: &[(&str, usize)] = &[$((stringify!($name), size_of::<$name>())),*];
    };
}

arguments! {
    /// A link within its group.
    struct Link {
        /// -1, in an update: a block without links, whose gradient is zero.
        position: i32,
        block: i32,
    }
    /// Links in groups: those of one position, or of one block.
    struct Map {
        starts: Address,
        links: Address,
        /// Of a block.
        rows: i32,
        /// Of a block, in fours.
        columns: i32,
        /// Floats from one sample of the source to the next.
        pitch: i32,
        /// 0, or floats from one position to the next where a sample's positions are not as many samples apart.
        place: i32,
    }
    /// Factors of all ranks; the sum runs over samples in the order of the global batch.
    struct Factors {
        pre: Address,
        post: Address,
        /// Floats from one rank to the next.
        pre_rank: i64,
        post_rank: i64,
        /// Of the global batch.
        samples: i32,
        per_rank: i32,
        /// Filled in by `launches`.
        reciprocal: u32,
        padding: u32,
    }
    /// Lies in device memory, so that a step can be replayed with other numbers.
    struct Optimizer {
        /// 0: Adam; 1: gradient descent with momentum; 2: Nesterov's form of it.
        method: i32,
        scale: f32,
        keep: f32,
        beta1: f32,
        beta2: f32,
        size: f32,
        deviation_scale: f32,
        epsilon: f32,
    }
    /// An activity on its way through a map.
    struct Job {
        source: Address,
        destination: Address,
        /// Where the pre-activation is kept; 0: nowhere.
        kept: Address,
    }
    struct Apply {
        map: Map,
        job: [Job; 3],
        weights: Address,
        /// 0 for none.
        bias: Address,
        /// 0, or what the one job's sums are multiplied by the slope of.
        y: Address,
        /// The pre-activation of y, where the slope does not follow from that.
        argument: Address,
        /// Where slices of the sums lie until they are added up.
        partial: Address,
        /// Floats from one position's bias to the next; 0 where all share it.
        bias_stride: i32,
        samples: i32,
        jobs: i32,
        /// As `common.cuh` numbers them.
        nonlinearity: i32,
        positions: i32,
        /// This and what follows: filled in by `launches`.
        m_tiles: i32,
        n_tiles: i32,
        slices: i32,
    }
    struct Update {
        map: Map,
        factors: Factors,
        weights: Address,
        first: Address,
        /// 0 where the method has no second moment.
        second: Address,
        /// Where the scaled gradient is stored; 0: the optimiser uses it at once.
        gradients: Address,
        partial: Address,
        optimizer: Address,
        /// This and what follows, but for the grouping: filled in by `launches`. The elements that are made, of a part; the end is 0 for all.
        begin: i64,
        end: i64,
        by_source: i32,
        groups: i32,
        row_tiles: i32,
        column_tiles: i32,
        slices: i32,
        /// Blocks of the whole update before the launch's.
        skipped: u32,
    }
    /// `pre` of the factors is not used.
    struct Bias {
        factors: Factors,
        bias: Address,
        first: Address,
        second: Address,
        gradients: Address,
        partial: Address,
        optimizer: Address,
        /// The elements that are made.
        begin: i64,
        end: i64,
        positions: i32,
        columns: i32,
        /// 1 where all positions have one bias.
        shared: i32,
        /// This and what follows: filled in by `launches`.
        slices: i32,
        /// Positions before those of the launch.
        skipped: i32,
        padding: u32,
    }
    struct Optimize {
        sums: Address,
        /// Floats from one of the `parts` of a sum to the next.
        stride: i64,
        weights: Address,
        first: Address,
        second: Address,
        gradients: Address,
        optimizer: Address,
        count: i64,
        parts: i32,
        /// 1 where the sums are scaled already.
        scaled: i32,
    }
    /// A window's average, or its largest value, channel by channel; or the way back of an error.
    struct Pool {
        /// Of the links by destination; on the way back, by source.
        starts: Address,
        links: Address,
        /// On the way back of an average: where each destination's links start.
        windows: Address,
        source: Address,
        destination: Address,
        /// Of a maximum: the block that won, shaped as what is above.
        winners: Address,
        /// Of the destination.
        positions: i32,
        samples: i32,
        pitch: i32,
        /// 1 for a maximum.
        largest: i32,
        back: i32,
        padding: u32,
    }
    /// Sums over positions of each sample, by channel.
    struct ChannelSums {
        a: Address,
        /// What is multiplied with `a`, as the numbers normalise it; 0: squares are summed.
        b: Address,
        /// What is taken away of each channel before; 0 for nothing.
        around: Address,
        numbers: Address,
        out: Address,
        partial: Address,
        positions: i32,
        samples: i32,
        channels: i32,
        /// Filled in by `launches`.
        slices: i32,
    }
    /// Numbers of each channel, from the sums of the samples of all ranks.
    struct ChannelNumbers {
        /// `post` are the sums; 0: running statistics are taken.
        all: Factors,
        affine: Address,
        statistics: Address,
        numbers: Address,
        /// 0: it is not wanted.
        drift: Address,
        one: Address,
        epsilon: f64,
        positions: i32,
        channels: i32,
    }
    struct MapChannels {
        a: Address,
        /// 0: on the way up.
        delta: Address,
        numbers: Address,
        out: Address,
        /// Where the pre-activation is kept; 0: nowhere.
        kept: Address,
        quads: u32,
        channels: i32,
        nonlinearity: i32,
        padding: u32,
    }
    struct Peak {
        out: Address,
        times: i32,
        padding: u32,
    }
    struct Elementwise {
        a: Address,
        b: Address,
        c: Address,
        d: Address,
        /// The pre-activation, where the slope does not follow from the value.
        argument: Address,
        out: Address,
        /// Where the pre-activation is kept of what is added, or a target's error goes; 0: nowhere.
        kept: Address,
        count: i64,
        s0: f32,
        s1: f32,
        operation: i32,
        nonlinearity: i32,
    }
    struct MeasuredError {
        y: Address,
        target: Address,
        argument: Address,
        error: Address,
        /// \[part]\[sample].
        partial: Address,
        positions: i32,
        samples: i32,
        pitch: i32,
        /// Filled in by `launches`.
        parts: i32,
        nonlinearity: i32,
        padding: u32,
    }
    struct SumMeasure {
        partial: Address,
        out: Address,
        parts: i32,
        samples: i32,
    }
    /// Where a batch stands among all. Lies in device memory.
    struct Place {
        step: u32,
        step_high: u32,
        first: u32,
        /// That bytes are scaled by; 0: pixels are floats.
        colours: u32,
    }
    struct Noise {
        source: Address,
        destination: Address,
        place: Address,
        positions: u32,
        samples: u32,
        channels: u32,
        key_low: u32,
        key_high: u32,
        stream: u32,
        sigma: f32,
        padding: u32,
    }
    /// Floats become bf16, or these floats again.
    struct Wire {
        /// 0: what was rounded is taken.
        source: Address,
        /// What is taken away before, and added afterwards; 0 for nothing.
        base: Address,
        rounded: Address,
        out: Address,
        count: i64,
    }
    struct Signs {
        weights: Address,
        /// The layer's weights.
        layer: Address,
        /// Of the weights.
        blocks: i32,
        rows: i32,
        columns: i32,
        /// The magnitude of all; 0 where it is not one.
        equal: f32,
        /// Of magnitudes that are drawn; 0 where none are.
        bound: f32,
        key_low: u32,
        key_high: u32,
        draw: u32,
        stream: u32,
        padding: u32,
    }
    struct Output {
        pre: Address,
        output: Address,
        /// 0: the output alone is wanted.
        error: Address,
        labels: Address,
        wanted: Address,
        loss: Address,
        top1: Address,
        top5: Address,
        samples: i32,
        units: i32,
        linear: i32,
        /// The part of a label that is spread over all classes.
        smoothing: f32,
    }
    struct OneHot {
        destination: Address,
        labels: Address,
        samples: i32,
        classes: i32,
        smoothing: f32,
        padding: u32,
    }
    struct Concatenate {
        a: Address,
        b: Address,
        destination: Address,
        samples: i32,
        a_channels: i32,
        b_channels: i32,
        padding: u32,
    }
    struct Pixels {
        source: Address,
        destination: Address,
        /// Of bytes, by colour.
        scale: Address,
        shift: Address,
        place: Address,
        samples: i32,
        height: i32,
        width: i32,
        colours: i32,
        /// 1 for lines of each sample, whose layout follows; 0 for an activity.
        rows: i32,
        lines: i32,
        line: i32,
        top: i32,
        left: i32,
        shifts: i32,
    }
}

/// What an elementwise kernel does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `2 (a - b) slope(a)`.
    ErrorThrough,
    /// `a slope(b)`.
    Through,
    /// `(a - b) slope(b)`.
    DifferenceThrough,
    /// `a + s0 b`.
    StepAlong,
    /// `a + (s0 (c - b) + s1 d)`, without `d` where its address is 0; and `a`'s error by it.
    DifferenceTarget,
    /// `f(a + b)`.
    Add,
}
