//! Operations that treat every unit alike, and the errors that also measure a loss.

use std::marker::PhantomData;

use super::nonlinearity::Through;
use super::simd::{Kernel, LANES, Simd};

/// One vector's worth of an operation; the vector begins at element `i` of every operand.
pub trait Elementwise: Sync {
    /// # Safety
    /// The operands must reach to `i + LANES`.
    unsafe fn at<S: Simd>(&self, i: usize);
}

/// An operation on vectors `begin..end` of its operands.
pub struct Range<'a, E> {
    pub operation: &'a E,
    pub begin: usize,
    pub end: usize,
}

impl<E: Elementwise> Kernel for Range<'_, E> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        for vector in self.begin..self.end {
            unsafe { self.operation.at::<S>(vector * LANES) };
        }
    }
}

/// Memory of an activity, readable by all threads.
#[derive(Clone, Copy)]
pub struct Values(pub *mut f32);

unsafe impl Sync for Values {}
unsafe impl Send for Values {}

impl Values {
    #[inline(always)]
    pub fn at(self, i: usize) -> *mut f32 {
        unsafe { self.0.add(i) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(self, i: usize) -> S {
        unsafe { S::load(self.0.add(i)) }
    }
}

/// Samples `begin..end` of an activity of `[position][batch][stride]`.
#[derive(Clone, Copy)]
pub struct Samples {
    pub positions: usize,
    pub batch: usize,
    pub stride: usize,
    pub begin: usize,
    pub end: usize,
}

impl Samples {
    /// The element where a sample's channels begin.
    #[inline(always)]
    pub fn row(&self, position: usize, sample: usize) -> usize {
        (position * self.batch + sample) * self.stride
    }

    /// Calls `f(element, sample, channel)` for the place where each vector begins, in the order of memory.
    #[inline(always)]
    pub fn each(&self, mut f: impl FnMut(usize, usize, usize)) {
        for position in 0..self.positions {
            for sample in self.begin..self.end {
                let row = self.row(position, sample);
                (0..self.stride).step_by(LANES).for_each(|channel| f(row + channel, sample, channel));
            }
        }
    }
}

/// `y = s(a)`, and a where the slope does not follow from y.
pub struct Sloped<N> {
    pub y: Values,
    pub pre_activation: Values,
    pub nonlinearity: PhantomData<N>,
}

impl<N: Through> Sloped<N> {
    /// y and `s'(a)`.
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) -> (S, S) {
        unsafe {
            let y = self.y.load::<S>(i);
            (y, N::slope(if N::NONLINEARITY.slope_follows_from_value() { y } else { self.pre_activation.load(i) }))
        }
    }
}

/// `delta *= s'(a)`.
pub struct ThroughNonlinearity<N> {
    pub delta: Values,
    pub y: Sloped<N>,
}

impl<N: Through> Elementwise for ThroughNonlinearity<N> {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe {
            let (_, slope) = self.y.at::<S>(i);
            self.delta.load::<S>(i).mul(slope).store(self.delta.0.add(i));
        }
    }
}

/// `out = (target - y) s'(a)`.
pub struct DifferenceThroughNonlinearity<N> {
    pub target: Values,
    pub y: Sloped<N>,
    pub out: Values,
}

impl<N: Through> Elementwise for DifferenceThroughNonlinearity<N> {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe {
            let (y, slope) = self.y.at::<S>(i);
            self.target.load::<S>(i).sub(y).mul(slope).store(self.out.0.add(i));
        }
    }
}

/// `out = s(a + b)`.
pub struct Add<N> {
    pub a: Values,
    pub b: Values,
    pub out: Sloped<N>,
}

impl<N: Through> Elementwise for Add<N> {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe {
            let sum = self.a.load::<S>(i).add(self.b.load(i));
            if !N::NONLINEARITY.slope_follows_from_value() {
                sum.store(self.out.pre_activation.0.add(i));
            }
            N::value(sum).store(self.out.y.0.add(i));
        }
    }
}

/// `out = y + scale * change`.
pub struct StepAlong {
    pub y: Values,
    pub scale: f32,
    pub change: Values,
    pub out: Values,
}

impl Elementwise for StepAlong {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe { self.change.load::<S>(i).mul_add(S::splat(self.scale), self.y.load(i)).store(self.out.0.add(i)) }
    }
}

/// `out = h + hybrid * back + share * (of_target - of_activity)`; without `back`, `out = h + share * (of_target - of_activity)`.
pub struct DifferenceTarget {
    pub h: Values,
    pub of_activity: Values,
    pub of_target: Values,
    pub share: f32,
    pub back: Option<(f32, Values)>,
    pub out: Values,
}

impl Elementwise for DifferenceTarget {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe {
            let difference = self.of_target.load::<S>(i).sub(self.of_activity.load(i)).mul(S::splat(self.share));
            let change = match self.back {
                None => difference,
                Some((hybrid, back)) => back.load::<S>(i).mul_add(S::splat(hybrid), difference),
            };
            self.h.load::<S>(i).add(change).store(self.out.0.add(i));
        }
    }
}

/// `error = 2 (y - target) s'(a)`.
pub struct ErrorThroughNonlinearity<N> {
    pub y: Sloped<N>,
    pub target: Values,
    pub error: Values,
}

impl<N: Through> ErrorThroughNonlinearity<N> {
    /// Returns `y - target`.
    #[inline(always)]
    unsafe fn difference<S: Simd>(&self, i: usize) -> S {
        unsafe {
            let (y, slope) = self.y.at::<S>(i);
            let difference = y.sub(self.target.load(i));
            difference.add(difference).mul(slope).store(self.error.0.add(i));
            difference
        }
    }
}

impl<N: Through> Elementwise for ErrorThroughNonlinearity<N> {
    #[inline(always)]
    unsafe fn at<S: Simd>(&self, i: usize) {
        unsafe { self.difference::<S>(i) };
    }
}

/// [`ErrorThroughNonlinearity`] for some samples, adding `|| y - target ||^2` to each sample's loss. A sample's sum has one order whatever
/// thread computes it.
pub struct MeasuredError<'a, N> {
    pub operation: &'a ErrorThroughNonlinearity<N>,
    pub samples: Samples,
    pub loss: Values,
}

impl<N: Through> Kernel for MeasuredError<'_, N> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let samples = self.samples;
        for sample in samples.begin..samples.end {
            unsafe {
                let mut sum = S::splat(0.0);
                for position in 0..samples.positions {
                    let row = samples.row(position, sample);
                    for i in (row..row + samples.stride).step_by(LANES) {
                        let difference = self.operation.difference::<S>(i);
                        sum = difference.mul_add(difference, sum);
                    }
                }
                *self.loss.0.add(sample) += sum.sum();
            }
        }
    }
}
