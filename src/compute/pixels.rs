//! What a batch shows a network.

use std::borrow::Cow;

/// The images of a batch, [samples, height, width, channels].
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// The network's input.
    Floats(&'a [f32]),
    /// A quarter of the memory, for a device that scales them itself: x of channel c stands for `x * scale[c] + shift[c]`, rounded after
    /// each operation.
    Bytes { values: &'a [u8], scale: &'a [f32], shift: &'a [f32] },
}

impl<'a> Pixels<'a> {
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        match self {
            Pixels::Floats(values) => values.len(),
            Pixels::Bytes { values, .. } => values.len(),
        }
    }

    /// As they lie in memory.
    pub fn bytes(&self) -> &'a [u8] {
        match *self {
            Pixels::Floats(values) => bytemuck::cast_slice(values),
            Pixels::Bytes { values, .. } => values,
        }
    }

    /// The network's input.
    pub fn scaled(&self) -> Cow<'a, [f32]> {
        match *self {
            Pixels::Floats(values) => Cow::Borrowed(values),
            Pixels::Bytes { values, scale, shift } => {
                let coefficients = scale.iter().zip(shift).cycle();
                Cow::Owned(values.iter().zip(coefficients).map(|(x, (scale, shift))| f32::from(*x) * scale + shift).collect())
            }
        }
    }
}

impl<'a> From<&'a [f32]> for Pixels<'a> {
    fn from(values: &'a [f32]) -> Pixels<'a> {
        Pixels::Floats(values)
    }
}

impl<'a> From<&'a Vec<f32>> for Pixels<'a> {
    fn from(values: &'a Vec<f32>) -> Pixels<'a> {
        Pixels::Floats(values)
    }
}
