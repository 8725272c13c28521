//! The hyperbolic tangent on vectors.

use super::simd::Simd;

/// tanh as a rational function (odd of degree 13 over even of degree 6), constant beyond 7.9, where it is within
/// 2.7e-7 of its limit.
///
/// The error against float64 stays under 4 units in the last place; the tests measure it.
///
/// # Safety
/// S inside its kernel.
#[inline(always)]
pub unsafe fn tanh<S: Simd>(x: S) -> S {
    // As published; the last digits round away.
    #[allow(clippy::excessive_precision)]
    const NUMERATOR: [f32; 7] =
        [-2.760_768_4e-16, 2.000_188e-13, -8.604_671_5e-11, 5.122_297_1e-8, 1.485_722_4e-5, 6.372_619_3e-4, 4.893_524_6e-3];
    #[allow(clippy::excessive_precision)]
    const DENOMINATOR: [f32; 4] = [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525_2e-3];
    unsafe {
        let x = x.clamp(7.905_311);
        let square = x.mul(x);
        let mut numerator = S::splat(NUMERATOR[0]);
        for coefficient in &NUMERATOR[1..] {
            numerator = numerator.mul_add(square, S::splat(*coefficient));
        }
        let mut denominator = S::splat(DENOMINATOR[0]);
        for coefficient in &DENOMINATOR[1..] {
            denominator = denominator.mul_add(square, S::splat(*coefficient));
        }
        numerator.mul(x).div(denominator)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, Kernel, LANES};
    use super::*;

    struct Tanh<'a>(&'a mut [f32]);

    impl Kernel for Tanh<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for lanes in self.0.chunks_exact_mut(LANES) {
                unsafe { tanh(S::load(lanes.as_ptr())).store(lanes.as_mut_ptr()) };
            }
        }
    }

    #[test]
    fn tanh_is_within_four_units_in_the_last_place() {
        let inputs: Vec<f32> = (-160_000..160_000).map(|i| i as f32 * 6.25e-5).collect();
        for isa in Isa::available() {
            let mut outputs = inputs.clone();
            unsafe { isa.run(Tanh(&mut outputs)) };
            for (x, y) in inputs.iter().zip(&outputs) {
                let exact = f64::from(*x).tanh();
                let unit = f64::from(f32::EPSILON) * exact.abs().max(f64::from(f32::MIN_POSITIVE)) / 2.0;
                assert!((f64::from(*y) - exact).abs() <= 8.0 * unit, "{}: tanh({x}) = {y}, exactly {exact}", isa.name());
            }
            let mut special = [f32::NAN, f32::INFINITY, -f32::INFINITY, 0.0, -0.0, 1e-30, 100.0, -100.0, 0., 0., 0., 0., 0., 0., 0., 0.];
            unsafe { isa.run(Tanh(&mut special)) };
            assert!(special[0].is_nan(), "{special:?}");
            for (value, limit) in [(1, 1.0f64), (2, -1.0), (6, 1.0), (7, -1.0)] {
                assert!((f64::from(special[value]) - limit).abs() <= 4.0 * f64::from(f32::EPSILON) / 2.0, "{special:?}");
            }
            assert_eq!(special[3..5], [0.0, 0.0]);
        }
    }
}
