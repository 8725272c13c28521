//! Parameters and the optimisers' moments of one map on the device, and their interchange form.
//!
//! A map's weights and biases are one flat tensor, so that ranks divide and exchange them in one piece. It is padded to equal parts for
//! all ranks, as NCCL wants them; moments exist for this rank's part alone.

use std::ops::Range;

use anyhow::Result;
use tch::{Device, Kind, TchError, Tensor};

use super::windows::Windows;
use crate::compute::cpu::uniforms;
use crate::compute::{Buffer, Part};
use crate::network::Map;

/// Parts begin on whole lines of memory.
const ALIGNMENT: usize = 64;

pub struct Parameters {
    /// Weights as [`Windows::weights`], then biases, then padding.
    pub values: Tensor,
    /// The optimisers' moments of this rank's part; empty where the map is not trained.
    pub first: Tensor,
    pub second: Tensor,
    /// Elements of `values` that this rank's optimiser owns.
    pub owned: Range<usize>,
    weights: usize,
    biases: usize,
}

impl Parameters {
    /// Zero parameters of `map`, of whose `parts` equal parts this rank owns number `part`.
    pub fn new(map: &Map, part: usize, parts: usize, device: Device) -> Result<Parameters, TchError> {
        let [weights, biases] = [Part::Weight, Part::Bias].map(|part| map.elements(part));
        let each = (weights + biases).div_ceil(parts * ALIGNMENT) * ALIGNMENT;
        let zeros = |len: usize| Tensor::f_zeros([len as i64], (Kind::Float, device));
        let moments = if map.trained() { each } else { 0 };
        let owned = part * each..part * each + moments;
        Ok(Parameters { values: zeros(each * parts)?, first: zeros(moments)?, second: zeros(moments)?, owned, weights, biases })
    }

    /// Elements with padding.
    pub fn padded(&self) -> usize {
        self.values.numel()
    }

    /// The weights within `flat`, a tensor laid out as `values`.
    pub fn weights(&self, flat: &Tensor, windows: &Windows) -> Result<Tensor, TchError> {
        flat.f_narrow(0, 0, self.weights as i64)?.f_view(windows.weights())
    }

    /// The biases within `flat`, [positions or 1, 1, channels], where the map has any.
    pub fn biases(&self, flat: &Tensor, map: &Map) -> Result<Option<Tensor>, TchError> {
        if self.biases == 0 {
            return Ok(None);
        }
        let biases = flat.f_narrow(0, self.weights as i64, self.biases as i64)?;
        Ok(Some(biases.f_view([map.bias_positions() as i64, 1, -1])?))
    }

    /// Glorot uniform weights and zero biases: the numbers that the CPU draws for map number `index` at time `draw`.
    pub fn initialize(&mut self, map: &Map, windows: &Windows, index: usize, seed: u64, draw: u64) -> Result<()> {
        let connectivity = &map.connectivity;
        let drawn = Tensor::f_from_slice(&uniforms(self.weights, map.bound() as f32, seed, index, draw))?;
        let [blocks, rows, columns] = [connectivity.blocks, connectivity.rows, connectivity.columns].map(|size| size as i64);
        let drawn = drawn.f_to_device(self.values.device())?.f_view([blocks, rows, columns])?;
        let ours = if windows.reads { drawn } else { drawn.f_transpose(1, 2)? };
        let _ = self.values.f_zero_()?;
        self.weights(&self.values, windows)?.f_copy_(&ours.f_reshape(windows.weights())?)?;
        Ok(())
    }

    /// Gives the weights the signs of their layer's `forward`, which lie in the same order: there rows are read, and here written.
    pub fn follow_signs(&mut self, forward: &Tensor, equal: Option<f64>) -> Result<(), TchError> {
        let of_weights = |flat: &Tensor| flat.f_narrow(0, 0, self.weights as i64);
        let mut own = of_weights(&self.values)?;
        if let Some(equal) = equal {
            let _ = own.f_fill_(equal)?;
        }
        let _ = own.f_copysign_(&of_weights(forward)?)?;
        Ok(())
    }

    /// A tensor in its interchange layout; `flat` holds the whole buffer, laid out as `values`.
    pub fn read(&self, map: &Map, windows: &Windows, part: Part, flat: &Tensor) -> Result<Vec<f32>, TchError> {
        let on_device = match part {
            Part::Bias => flat.f_narrow(0, self.weights as i64, self.biases as i64)?,
            Part::Weight => {
                let interchange = Tensor::f_empty([self.weights as i64], (Kind::Float, flat.device()))?;
                interchanged(map, &interchange)?.f_copy_(&self.by_block(map, windows, flat)?)?;
                interchange
            }
        };
        to_host(&on_device)
    }

    /// Replaces a tensor of the whole buffer `flat` by `values` in interchange layout.
    pub fn write(&self, map: &Map, windows: &Windows, part: Part, flat: &Tensor, values: &[f32]) -> Result<()> {
        map.check(part, values)?;
        let given = Tensor::f_from_slice(values)?.f_to_device(flat.device())?;
        match part {
            Part::Bias => flat.f_narrow(0, self.weights as i64, self.biases as i64)?.f_copy_(&given)?,
            Part::Weight => self.by_block(map, windows, flat)?.f_copy_(&interchanged(map, &given)?)?,
        }
        Ok(())
    }

    /// The moment that `buffer` names, or the parameters.
    pub fn buffer(&self, buffer: Buffer) -> &Tensor {
        match buffer {
            Buffer::Weights => &self.values,
            Buffer::FirstMoment => &self.first,
            Buffer::SecondMoment => &self.second,
        }
    }

    /// The weights within `flat` as [position, block of the position, row, column].
    fn by_block(&self, map: &Map, windows: &Windows, flat: &Tensor) -> Result<Tensor, TchError> {
        let [positions, blocks, rows, columns] = block_shape(map);
        let weights = flat.f_narrow(0, 0, self.weights as i64)?;
        if windows.reads {
            weights.f_view([positions, blocks, rows, columns])
        } else {
            weights.f_view([positions, blocks, columns, rows])?.f_transpose(2, 3)
        }
    }
}

fn block_shape(map: &Map) -> [i64; 4] {
    let connectivity = &map.connectivity;
    let per_position = connectivity.blocks_per_position;
    [connectivity.blocks / per_position, per_position, connectivity.rows, connectivity.columns].map(|size| size as i64)
}

/// A flat tensor in interchange layout, seen as [position, block of the position, row, column].
fn interchanged(map: &Map, flat: &Tensor) -> Result<Tensor, TchError> {
    flat.f_as_strided(block_shape(map), map.weight.strides.map(|stride| stride as i64), 0)
}

/// The values of a flat tensor.
pub fn to_host(tensor: &Tensor) -> Result<Vec<f32>, TchError> {
    let tensor = tensor.f_contiguous()?;
    let mut values = vec![0.0f32; tensor.numel()];
    tensor.f_copy_data(&mut values, tensor.numel())?;
    Ok(values)
}
