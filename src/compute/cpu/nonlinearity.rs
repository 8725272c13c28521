//! Nonlinearities on vectors, each a type of its own, so that kernels are compiled for it and no loop asks which it is.

use super::elementary::tanh;
use super::simd::Simd;
use crate::network::Nonlinearity;

/// `y = s(a)` and `s'(a)`.
///
/// # Safety
/// S inside its kernel.
#[allow(clippy::missing_safety_doc)]
pub trait Through: Sync {
    const NONLINEARITY: Nonlinearity;

    unsafe fn value<S: Simd>(a: S) -> S;

    /// The slope, of y where that is enough, else of a.
    unsafe fn slope<S: Simd>(known: S) -> S;
}

pub struct Tanh;
pub struct Relu;
pub struct LeakyRelu;
pub struct Gelu;
pub struct Identity;

impl Through for Tanh {
    const NONLINEARITY: Nonlinearity = Nonlinearity::Tanh;

    #[inline(always)]
    unsafe fn value<S: Simd>(a: S) -> S {
        unsafe { tanh(a) }
    }

    #[inline(always)]
    unsafe fn slope<S: Simd>(y: S) -> S {
        unsafe { S::splat(1.0).sub(y.mul(y)) }
    }
}

impl Through for Relu {
    const NONLINEARITY: Nonlinearity = Nonlinearity::Relu;

    #[inline(always)]
    unsafe fn value<S: Simd>(a: S) -> S {
        // Asked of -a, so that what is not a number stays so.
        unsafe { S::splat(0.0).sub(a).where_positive(S::splat(0.0), a) }
    }

    #[inline(always)]
    unsafe fn slope<S: Simd>(y: S) -> S {
        unsafe { y.where_positive(S::splat(1.0), S::splat(0.0)) }
    }
}

impl Through for LeakyRelu {
    const NONLINEARITY: Nonlinearity = Nonlinearity::LeakyRelu;

    #[inline(always)]
    unsafe fn value<S: Simd>(a: S) -> S {
        unsafe { a.where_positive(a, a.mul(S::splat(Nonlinearity::LEAK))) }
    }

    #[inline(always)]
    unsafe fn slope<S: Simd>(y: S) -> S {
        unsafe { y.where_positive(S::splat(1.0), S::splat(Nonlinearity::LEAK)) }
    }
}

/// sqrt(2 / pi).
const INNER: f32 = std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;

/// The tanh in gelu of `a`, whose square is `square`. At its ends it is 1 and -1: what tanh lacks there would be multiplied by a, and by its
/// square in the slope.
#[inline(always)]
unsafe fn tanh_in_gelu<S: Simd>(a: S, square: S) -> S {
    const END: f32 = 7.9;
    unsafe {
        let inner = square.mul_add(S::splat(INNER * Nonlinearity::CUBE), S::splat(INNER)).mul(a);
        let end = S::splat(END);
        let below = S::splat(0.0).sub(inner).sub(end).where_positive(S::splat(-1.0), tanh(inner));
        inner.sub(end).where_positive(S::splat(1.0), below)
    }
}

impl Through for Gelu {
    const NONLINEARITY: Nonlinearity = Nonlinearity::Gelu;

    #[inline(always)]
    unsafe fn value<S: Simd>(a: S) -> S {
        unsafe {
            let half = a.mul(S::splat(0.5));
            half.mul_add(tanh_in_gelu(a, a.mul(a)), half)
        }
    }

    #[inline(always)]
    unsafe fn slope<S: Simd>(a: S) -> S {
        unsafe {
            let square = a.mul(a);
            let t = tanh_in_gelu(a, square);
            let of_inner = square.mul_add(S::splat(3.0 * INNER * Nonlinearity::CUBE), S::splat(INNER));
            let one = S::splat(1.0);
            a.mul(one.sub(t.mul(t))).mul_add(of_inner, one.add(t)).mul(S::splat(0.5))
        }
    }
}

impl Through for Identity {
    const NONLINEARITY: Nonlinearity = Nonlinearity::Identity;

    #[inline(always)]
    unsafe fn value<S: Simd>(a: S) -> S {
        a
    }

    #[inline(always)]
    unsafe fn slope<S: Simd>(_: S) -> S {
        unsafe { S::splat(1.0) }
    }
}

/// `$body` with `$type` for the type of nonlinearity `$nonlinearity`.
macro_rules! through {
    ($nonlinearity:expr, $type:ident => $body:expr) => {{
        use $crate::compute::cpu::nonlinearity::{Gelu, Identity, LeakyRelu, Relu, Tanh};
        use $crate::network::Nonlinearity;
        match $nonlinearity {
            Nonlinearity::Tanh => {
                type $type = Tanh;
                $body
            }
            Nonlinearity::Relu => {
                type $type = Relu;
                $body
            }
            Nonlinearity::LeakyRelu => {
                type $type = LeakyRelu;
                $body
            }
            Nonlinearity::Gelu => {
                type $type = Gelu;
                $body
            }
            Nonlinearity::Identity => {
                type $type = Identity;
                $body
            }
        }
    }};
}
pub(super) use through;

#[cfg(test)]
mod tests {
    use super::super::simd::{Isa, Kernel, LANES};
    use super::*;

    /// Values, then slopes.
    struct Both<'a>(Nonlinearity, &'a [f32], [&'a mut [f32]; 2]);

    impl Kernel for Both<'_> {
        type Output = ();
        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            let Both(nonlinearity, inputs, [values, slopes]) = self;
            through!(nonlinearity, N => for i in (0..inputs.len()).step_by(LANES) {
                unsafe {
                    let a = S::load(inputs[i..].as_ptr());
                    let y = N::value(a);
                    y.store(values[i..].as_mut_ptr());
                    N::slope(if N::NONLINEARITY.slope_follows_from_value() { y } else { a }).store(slopes[i..].as_mut_ptr());
                }
            });
        }
    }

    fn of(isa: Isa, nonlinearity: Nonlinearity, inputs: &[f32]) -> [Vec<f32>; 2] {
        let [mut values, mut slopes] = [vec![0.0; inputs.len()], vec![0.0; inputs.len()]];
        unsafe { isa.run(Both(nonlinearity, inputs, [&mut values, &mut slopes])) };
        [values, slopes]
    }

    /// Each with its formula and, but at a kink, the slope in float64.
    type Formula = fn(f64) -> (f64, f64);
    const FORMULAS: [(Nonlinearity, Formula); 5] = [
        (Nonlinearity::Tanh, |a| (a.tanh(), 1.0 / a.cosh().powi(2))),
        (Nonlinearity::Relu, |a| if a > 0.0 { (a, 1.0) } else { (0.0, 0.0) }),
        (Nonlinearity::LeakyRelu, |a| if a > 0.0 { (a, 1.0) } else { (0.01 * a, 0.01) }),
        (Nonlinearity::Gelu, |a| {
            let factor = (2.0 / std::f64::consts::PI).sqrt();
            let t = (factor * (a + 0.044715 * a.powi(3))).tanh();
            (0.5 * a * (1.0 + t), 0.5 * (1.0 + t) + 0.5 * a * (1.0 - t * t) * factor * (1.0 + 3.0 * 0.044715 * a * a))
        }),
        (Nonlinearity::Identity, |a| (a, 1.0)),
    ];

    #[test]
    fn values_and_slopes_are_those_of_the_formulas() {
        let inputs: Vec<f32> = (-80_000..80_000).map(|i| i as f32 * 1.25e-4).collect();
        for isa in Isa::available() {
            for (nonlinearity, formula) in FORMULAS {
                let [values, slopes] = of(isa, nonlinearity, &inputs);
                for ((a, value), slope) in inputs.iter().zip(&values).zip(&slopes) {
                    let exact = formula(f64::from(*a));
                    let apart = [f64::from(*value) - exact.0, f64::from(*slope) - exact.1];
                    let allowed = 2e-6 * f64::from(a.abs()).max(1.0);
                    assert!(apart.iter().all(|apart| apart.abs() < allowed), "{} {nonlinearity:?} of {a}: {value}, {slope}", isa.name());
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_so() {
        for isa in Isa::available() {
            for (nonlinearity, _) in FORMULAS {
                let [values, _] = of(isa, nonlinearity, &[f32::NAN; LANES]);
                assert!(values.iter().all(|value| value.is_nan()), "{} {nonlinearity:?}", isa.name());
            }
            assert_eq!(of(isa, Nonlinearity::Relu, &[f32::NEG_INFINITY; LANES])[0], [0.0; LANES]);
            assert_eq!(of(isa, Nonlinearity::Gelu, &[-1000.0; LANES]), [[0.0; LANES], [0.0; LANES]]);
            assert_eq!(of(isa, Nonlinearity::Gelu, &[1000.0; LANES]), [[1000.0; LANES], [1.0; LANES]]);
        }
    }
}
