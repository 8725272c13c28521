//! Plain arrays: for processors without AVX2, and to check the others against.
//!
//! Multiplication and addition round separately here, because without the instruction a fused one is a slow library call.

use super::{LANES, Simd};

#[derive(Clone, Copy)]
pub struct Lanes([f32; LANES]);

#[inline(always)]
fn zip(a: Lanes, b: Lanes, f: impl Fn(f32, f32) -> f32) -> Lanes {
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = f(a.0[i], b.0[i]);
    }
    Lanes(out)
}

unsafe impl Simd for Lanes {
    const TILE_ROWS: usize = 2;
    const TILE_VECTORS: usize = 1;
    const GRADIENT_ROWS: usize = 2;
    const OVERLAPS: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Lanes([x; LANES])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Lanes(from.cast::<[f32; LANES]>().read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        zip(self, other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        zip(self, other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        zip(self, other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        zip(self, other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        zip(zip(self, a, |a, b| a * b), b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Lanes(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    unsafe fn clamp(self, bound: f32) -> Self {
        Lanes(self.0.map(|x| x.clamp(-bound, bound)))
    }
    #[inline(always)]
    unsafe fn where_positive(self, then: Self, otherwise: Self) -> Self {
        let mut out = otherwise;
        for i in 0..LANES {
            if self.0[i] > 0.0 {
                out.0[i] = then.0[i];
            }
        }
        out
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        for i in 0..LANES {
            for j in 0..LANES {
                unsafe { *to.add(j * LANES + i) = *from.add(i * stride + j) };
            }
        }
    }
}
