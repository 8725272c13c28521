//! AVX2 with FMA: two registers a vector, 16 of them.

use std::arch::x86_64::*;

use super::{Kernel, Simd};

#[derive(Clone, Copy)]
pub struct Lanes(__m256, __m256);

#[target_feature(enable = "avx2,fma")]
pub unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Lanes>() }
}

/// A 16x16 transpose as four 8x8 ones.
#[inline(always)]
pub unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
    unsafe {
        for (i, j) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            transpose8(from.add(i * stride + j), stride, to.add(j * 16 + i));
        }
    }
}

#[inline(always)]
unsafe fn transpose8(from: *const f32, stride: usize, to: *mut f32) {
    unsafe {
        // No closure here: it would be compiled without the instruction set.
        let (r0, r1) = (_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(stride)));
        let (r2, r3) = (_mm256_loadu_ps(from.add(2 * stride)), _mm256_loadu_ps(from.add(3 * stride)));
        let (r4, r5) = (_mm256_loadu_ps(from.add(4 * stride)), _mm256_loadu_ps(from.add(5 * stride)));
        let (r6, r7) = (_mm256_loadu_ps(from.add(6 * stride)), _mm256_loadu_ps(from.add(7 * stride)));
        let (t0, t1) = (_mm256_unpacklo_ps(r0, r1), _mm256_unpackhi_ps(r0, r1));
        let (t2, t3) = (_mm256_unpacklo_ps(r2, r3), _mm256_unpackhi_ps(r2, r3));
        let (t4, t5) = (_mm256_unpacklo_ps(r4, r5), _mm256_unpackhi_ps(r4, r5));
        let (t6, t7) = (_mm256_unpacklo_ps(r6, r7), _mm256_unpackhi_ps(r6, r7));
        let (s0, s1) = (_mm256_shuffle_ps(t0, t2, 0x44), _mm256_shuffle_ps(t0, t2, 0xee));
        let (s2, s3) = (_mm256_shuffle_ps(t1, t3, 0x44), _mm256_shuffle_ps(t1, t3, 0xee));
        let (s4, s5) = (_mm256_shuffle_ps(t4, t6, 0x44), _mm256_shuffle_ps(t4, t6, 0xee));
        let (s6, s7) = (_mm256_shuffle_ps(t5, t7, 0x44), _mm256_shuffle_ps(t5, t7, 0xee));
        _mm256_storeu_ps(to, _mm256_permute2f128_ps(s0, s4, 0x20));
        _mm256_storeu_ps(to.add(16), _mm256_permute2f128_ps(s1, s5, 0x20));
        _mm256_storeu_ps(to.add(32), _mm256_permute2f128_ps(s2, s6, 0x20));
        _mm256_storeu_ps(to.add(48), _mm256_permute2f128_ps(s3, s7, 0x20));
        _mm256_storeu_ps(to.add(64), _mm256_permute2f128_ps(s0, s4, 0x31));
        _mm256_storeu_ps(to.add(80), _mm256_permute2f128_ps(s1, s5, 0x31));
        _mm256_storeu_ps(to.add(96), _mm256_permute2f128_ps(s2, s6, 0x31));
        _mm256_storeu_ps(to.add(112), _mm256_permute2f128_ps(s3, s7, 0x31));
    }
}

unsafe impl Simd for Lanes {
    // 12 sums, 2 weights, 1 activity: 15 of the 16 registers. One more and the sums spill, at half the speed.
    const TILE_ROWS: usize = 6;
    const TILE_VECTORS: usize = 1;
    const GRADIENT_ROWS: usize = 6;
    const OVERLAPS: bool = false;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe {
            let v = _mm256_set1_ps(x);
            Lanes(v, v)
        }
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Lanes(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        unsafe { Lanes(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        unsafe { Lanes(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        unsafe { Lanes(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        unsafe { Lanes(_mm256_div_ps(self.0, other.0), _mm256_div_ps(self.1, other.1)) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        unsafe { Lanes(_mm256_fmadd_ps(self.0, a.0, b.0), _mm256_fmadd_ps(self.1, a.1, b.1)) }
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        unsafe { Lanes(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1)) }
    }
    #[inline(always)]
    unsafe fn clamp(self, bound: f32) -> Self {
        unsafe {
            let (low, high) = (_mm256_set1_ps(-bound), _mm256_set1_ps(bound));
            // The second operand is what min and max return for NaN.
            Lanes(_mm256_min_ps(high, _mm256_max_ps(low, self.0)), _mm256_min_ps(high, _mm256_max_ps(low, self.1)))
        }
    }
    #[inline(always)]
    unsafe fn where_positive(self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let zero = _mm256_setzero_ps();
            let (low, high) = (_mm256_cmp_ps(self.0, zero, _CMP_GT_OQ), _mm256_cmp_ps(self.1, zero, _CMP_GT_OQ));
            Lanes(_mm256_blendv_ps(otherwise.0, then.0, low), _mm256_blendv_ps(otherwise.1, then.1, high))
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        unsafe { transpose(from, stride, to) }
    }
}
