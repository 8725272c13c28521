//! Bytes to normalised floats, or to bytes again for a device that normalises them itself: the loader's inner loop. Reads each byte once and
//! writes each value once.

/// Values that one step converts: a multiple of 2, 3, 4, 6, 8, 12 and 16 channels, and of a vector register.
const STEP: usize = 48;

/// The part of a frame that is taken, and whether it is mirrored. Places outside the frame are black.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub top: isize,
    pub left: isize,
    pub height: usize,
    pub width: usize,
    pub mirror_horizontally: bool,
    pub mirror_vertically: bool,
}

/// What becomes of a frame's bytes.
pub(crate) trait Conversion {
    type Value;

    fn channels(&self) -> usize;

    fn convert(&self, source: &[u8], out: &mut [Self::Value]);

    /// Writes pixels of the padding.
    fn black(&self, out: &mut [Self::Value]);
}

/// Bytes stay as they are, of so many channels.
pub(crate) struct Unchanged(pub usize);

impl Conversion for Unchanged {
    type Value = u8;

    #[inline(always)]
    fn channels(&self) -> usize {
        self.0
    }

    #[inline(always)]
    fn convert(&self, source: &[u8], out: &mut [u8]) {
        out.copy_from_slice(source);
    }

    #[inline(always)]
    fn black(&self, out: &mut [u8]) {
        out.fill(0);
    }
}

/// x ↦ x * scale + shift, per channel.
pub(crate) struct Affine {
    channels: usize,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    /// The coefficients are repeated, so that a step finds them where it finds the values; where the channels do not divide
    /// a step, a step is a multiple of them.
    pub(crate) fn new(scale: &[f32], shift: &[f32]) -> Affine {
        let channels = scale.len();
        let length = if STEP.is_multiple_of(channels) { STEP } else { channels };
        let repeat = |values: &[f32]| values.iter().copied().cycle().take(length).collect();
        Affine { channels, scale: repeat(scale), shift: repeat(shift) }
    }
}

impl Conversion for Affine {
    type Value = f32;

    #[inline(always)]
    fn channels(&self) -> usize {
        self.channels
    }

    #[inline(always)]
    fn convert(&self, source: &[u8], out: &mut [f32]) {
        convert(source, out, self);
    }

    #[inline(always)]
    fn black(&self, out: &mut [f32]) {
        out.chunks_mut(self.shift.len()).for_each(|part| part.copy_from_slice(&self.shift[..part.len()]));
    }
}

/// Converts the part of a [height, width, C] frame that `view` names, mirrored as it says. `out` is [H, W, C] of the view's
/// size.
pub(crate) fn convert_rows<C: Conversion>(pixels: &[u8], frame: [usize; 2], view: &View, conversion: &C, out: &mut [C::Value]) {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has AVX2.
        return unsafe { convert_rows_avx2(pixels, frame, view, conversion, out) };
    }
    convert_rows_portable(pixels, frame, view, conversion, out);
}

/// The same code compiled for AVX2. No operation is fused, so the results are the same bits.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn convert_rows_avx2<C: Conversion>(pixels: &[u8], frame: [usize; 2], view: &View, conversion: &C, out: &mut [C::Value]) {
    convert_rows_with(pixels, frame, view, conversion, out, |from, to| mirror_rgb_avx2(from, to));
}

fn convert_rows_portable<C: Conversion>(pixels: &[u8], frame: [usize; 2], view: &View, conversion: &C, out: &mut [C::Value]) {
    convert_rows_with(pixels, frame, view, conversion, out, mirror::<3>);
}

#[inline(always)]
fn convert_rows_with<C: Conversion>(
    pixels: &[u8],
    [height, width]: [usize; 2],
    view: &View,
    conversion: &C,
    out: &mut [C::Value],
    mirror_rgb: impl Fn(&[u8], &mut [u8]),
) {
    let channels = conversion.channels();
    // Columns of the view that lie in the frame; the others are black.
    let first = (-view.left).clamp(0, view.width as isize) as usize;
    let last = (width as isize - view.left).clamp(first as isize, view.width as isize) as usize;
    let source_left = (view.left + first as isize).max(0) as usize;
    let length = (last - first) * channels;
    // A row in reverse order; it stays in the first-level cache.
    let mut mirrored = vec![0; if view.mirror_horizontally { length } else { 0 }];
    for (y, row) in out.chunks_exact_mut(view.width * channels).enumerate() {
        let from = if view.mirror_vertically { view.height - 1 - y } else { y };
        let from = view.top + from as isize;
        if !(0..height as isize).contains(&from) || first == last {
            conversion.black(row);
            continue;
        }
        let start = (from as usize * width + source_left) * channels;
        let mut source = &pixels[start..start + length];
        // A mirrored row begins with what lies right of the view's last column in the frame.
        let before = if view.mirror_horizontally { view.width - last } else { first };
        if view.mirror_horizontally {
            match channels {
                1 => mirror::<1>(source, &mut mirrored),
                3 => mirror_rgb(source, &mut mirrored),
                _ => mirror_any(source, &mut mirrored, channels),
            }
            source = &mirrored;
        }
        let (left, rest) = row.split_at_mut(before * channels);
        let (inside, right) = rest.split_at_mut(length);
        conversion.black(left);
        conversion.convert(source, inside);
        conversion.black(right);
    }
}

#[inline(always)]
fn convert(source: &[u8], out: &mut [f32], affine: &Affine) {
    let length = affine.scale.len();
    if let (Ok(scale), Ok(shift)) = (<&[f32; STEP]>::try_from(&affine.scale[..]), <&[f32; STEP]>::try_from(&affine.shift[..])) {
        let (steps, rest) = source.as_chunks::<STEP>();
        let (out_steps, out_rest) = out.as_chunks_mut::<STEP>();
        for (from, to) in steps.iter().zip(out_steps) {
            for i in 0..STEP {
                to[i] = f32::from(from[i]) * scale[i] + shift[i];
            }
        }
        scalar(rest, out_rest, &affine.scale, &affine.shift);
    } else {
        source.chunks(length).zip(out.chunks_mut(length)).for_each(|(from, to)| scalar(from, to, &affine.scale, &affine.shift));
    }
}

#[inline(always)]
fn scalar(source: &[u8], out: &mut [f32], scale: &[f32], shift: &[f32]) {
    for (((from, to), scale), shift) in source.iter().zip(out).zip(scale).zip(shift) {
        *to = f32::from(*from) * scale + shift;
    }
}

/// The pixels in reverse order.
#[inline(always)]
fn mirror<const C: usize>(source: &[u8], out: &mut [u8]) {
    for (from, to) in source.as_chunks::<C>().0.iter().rev().zip(out.as_chunks_mut::<C>().0) {
        *to = *from;
    }
}

fn mirror_any(source: &[u8], out: &mut [u8], channels: usize) {
    for (from, to) in source.chunks_exact(channels).rev().zip(out.chunks_exact_mut(channels)) {
        to.copy_from_slice(from);
    }
}

/// Five pixels of three bytes at a time: a register's last byte belongs to the next five, which overwrite it.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn mirror_rgb_avx2(source: &[u8], out: &mut [u8]) {
    use std::arch::x86_64::{_mm_loadu_si128, _mm_setr_epi8, _mm_shuffle_epi8, _mm_storeu_si128};
    let order = _mm_setr_epi8(13, 14, 15, 10, 11, 12, 7, 8, 9, 4, 5, 6, 1, 2, 3, 0);
    let mut end = source.len();
    let mut to = 0;
    while end >= 16 {
        let (from, into) = (&source[end - 16..end], &mut out[to..to + 16]);
        // SAFETY: both slices have the sixteen bytes of a register; unaligned access is allowed.
        unsafe {
            let pixels = _mm_shuffle_epi8(_mm_loadu_si128(from.as_ptr().cast()), order);
            _mm_storeu_si128(into.as_mut_ptr().cast(), pixels);
        }
        end -= 15;
        to += 15;
    }
    mirror::<3>(&source[..end], &mut out[to..]);
}
