//! Where a weight stands in a checkpoint's tensor.
//!
//! Checkpoints use the interchange layouts, the kernels a layout of their own; both are indexed by (block, row, column). With
//! block = position * blocks_per_position + offset, every layout of docs/algorithms.md is a sum of four strides.

/// Name, shape and strides of a weight tensor in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interchange {
    pub name: String,
    pub shape: Vec<usize>,
    /// Elements between positions, offsets within a position, rows and columns.
    pub strides: [usize; 4],
    pub blocks_per_position: usize,
}

impl Interchange {
    /// Index of weight (row, column) of `block` in the flat tensor.
    pub fn index(&self, block: usize, row: usize, column: usize) -> usize {
        let [position, offset, per_row, per_column] = self.strides;
        (block / self.blocks_per_position) * position + (block % self.blocks_per_position) * offset + row * per_row + column * per_column
    }
}
