//! AVX-512: one register a vector, 32 of them.

use std::arch::x86_64::*;

use super::{Kernel, Simd, avx2};

#[derive(Clone, Copy)]
pub struct Lanes(__m512);

#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Lanes>() }
}

unsafe impl Simd for Lanes {
    // 24 sums, 3 weights; the activity comes as a broadcast operand.
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;
    const GRADIENT_ROWS: usize = 16;
    const OVERLAPS: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Lanes(_mm512_set1_ps(x)) }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Lanes(_mm512_loadu_ps(from)) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Lanes(_mm512_add_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Lanes(_mm512_sub_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Lanes(_mm512_mul_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Lanes(_mm512_div_ps(self.0, other.0)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Lanes(_mm512_fmadd_ps(self.0, a.0, b.0)) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { Lanes(_mm512_sqrt_ps(self.0)) }
    }
    #[inline(always)]
    unsafe fn clamp(self, bound: f32) -> Self {
        // The second operand is what min and max return for NaN.
        unsafe { Lanes(_mm512_min_ps(_mm512_set1_ps(bound), _mm512_max_ps(_mm512_set1_ps(-bound), self.0))) }
    }
    #[inline(always)]
    unsafe fn where_positive(self, then: Self, otherwise: Self) -> Self {
        unsafe { Lanes(_mm512_mask_blend_ps(_mm512_cmp_ps_mask(self.0, _mm512_setzero_ps(), _CMP_GT_OQ), otherwise.0, then.0)) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        unsafe { avx2::transpose(from, stride, to) }
    }
}
