//! AVX-512: one register a vector, 32 of them; and the same with products in bf16 where the processor has AVX512-BF16.

use std::arch::x86_64::*;
use std::mem::transmute;

use super::{Kernel, Simd, avx2};

/// With `BF16`, products take pairs of bf16 and add them up in float32; everything else stays float32.
#[derive(Clone, Copy)]
pub struct Lanes<const BF16: bool>(__m512);

#[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
pub unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Lanes<false>>() }
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512bf16,avx2,fma")]
pub unsafe fn enter_bf16<K: Kernel>(kernel: K) -> K::Output {
    unsafe { kernel.run::<Lanes<true>>() }
}

unsafe impl<const BF16: bool> Simd for Lanes<BF16> {
    const PAIRS: bool = BF16;
    // 24 sums, 3 weights; the activity comes as a broadcast operand.
    const TILE_ROWS: usize = 8;
    const TILE_VECTORS: usize = 3;
    const GRADIENT_ROWS: usize = 16;

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
    unsafe fn product(self, a: Self, b: Self) -> Self {
        unsafe {
            if BF16 {
                let (x, y) = (transmute::<__m512, __m512bh>(self.0), transmute::<__m512, __m512bh>(a.0));
                Lanes(_mm512_dpbf16_ps(b.0, x, y))
            } else {
                self.mul_add(a, b)
            }
        }
    }
    #[inline(always)]
    unsafe fn pair(self, other: Self) -> Self {
        const INTERLEAVE: [i16; 32] = {
            let mut places = [0; 32];
            let mut i = 0;
            while i < 32 {
                places[i] = (i / 2 + i % 2 * 16) as i16;
                i += 1;
            }
            places
        };
        unsafe {
            let halves = transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(other.0, self.0));
            let places = _mm512_loadu_si512(INTERLEAVE.as_ptr().cast());
            Lanes(_mm512_castsi512_ps(_mm512_permutexvar_epi16(places, halves)))
        }
    }
    #[inline(always)]
    unsafe fn pair_neighbours(self, next: Self) -> Self {
        unsafe { Lanes(transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(next.0, self.0))) }
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
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32) {
        unsafe { avx2::transpose(from, stride, to) }
    }
}
