//! Memory for kernels: on 16 bytes, between guards.

use std::cell::UnsafeCell;

use crate::compute::cuda::kernels::arguments::Address;
use crate::compute::cuda::kernels::launches::in_fours;

#[repr(C, align(16))]
#[derive(Clone, Copy)]
struct Quad([u32; 4]);

/// Not a number: what reads it has a NaN.
const GUARD: Quad = Quad([0x7fc0_beef; 4]);
const GUARDS: usize = 16;

/// 32-bit numbers that kernels read and write, with guards before and after.
pub struct Buffer {
    quads: UnsafeCell<Vec<Quad>>,
    len: usize,
}

impl Buffer {
    /// Room for `len` numbers, all of them NaN.
    pub fn new(len: usize) -> Buffer {
        Buffer { quads: UnsafeCell::new(vec![GUARD; len.div_ceil(4) + 2 * GUARDS]), len }
    }

    pub fn of<T: bytemuck::Pod>(values: &[T]) -> Buffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = Buffer::new(bytes.len().div_ceil(4));
        // SAFETY: the room is as large.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.at().cast(), bytes.len()) };
        buffer
    }

    fn at(&self) -> *mut Quad {
        // SAFETY: nobody holds a reference to what is in the cell.
        unsafe { (*self.quads.get()).as_mut_ptr() }.wrapping_add(GUARDS)
    }

    pub fn address(&self) -> Address {
        self.at() as Address
    }

    fn word(&self, index: usize) -> u32 {
        // SAFETY: the callers stay within the vector, and kernels do not run now.
        unsafe { self.at().cast::<u32>().wrapping_offset(index as isize - 4 * GUARDS as isize).read() }
    }

    /// Panics where `writer` has written outside.
    pub fn check(&self, writer: &str) {
        let (first, end) = (4 * GUARDS, 4 * GUARDS + self.len);
        let all = 4 * (self.len.div_ceil(4) + 2 * GUARDS);
        let outside = (0..first).chain(end..all).find(|index| self.word(*index) != GUARD.0[0]);
        assert!(outside.is_none(), "{writer} wrote outside of {} numbers: at {}", self.len, outside.unwrap_or(0) as i64 - first as i64);
    }

    pub fn bits(&self) -> Vec<u32> {
        (0..self.len).map(|index| self.word(4 * GUARDS + index)).collect()
    }

    pub fn floats(&self) -> Vec<f32> {
        self.bits().into_iter().map(f32::from_bits).collect()
    }
}

/// Numbers in (-1, 1), the same for a seed.
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Numbers in rows of `channels`, with the padding that activities and weights have.
pub fn padded(values: &[f32], channels: usize) -> Vec<f32> {
    values
        .chunks_exact(channels)
        .flat_map(|row| row.iter().copied().chain(std::iter::repeat_n(0.0, in_fours(channels) - channels)))
        .collect()
}

/// The same without padding, which must be zero.
pub fn unpadded(values: &[f32], channels: usize) -> Vec<f32> {
    let rows = values.chunks_exact(in_fours(channels));
    assert!(rows.clone().all(|row| row[channels..].iter().all(|x| x.to_bits() & 0x7fff_ffff == 0)), "padding is not zero");
    rows.flat_map(|row| row[..channels].to_vec()).collect()
}

/// Distance of `got` from `wanted`, as a part of the latter's length.
pub fn distance(got: &[f32], wanted: &[f64]) -> f64 {
    assert_eq!(got.len(), wanted.len());
    let off: f64 = got.iter().zip(wanted).map(|(got, wanted)| (f64::from(*got) - wanted).powi(2)).sum();
    let length: f64 = wanted.iter().map(|wanted| wanted * wanted).sum();
    (off / length.max(f64::MIN_POSITIVE)).sqrt()
}
