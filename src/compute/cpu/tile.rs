//! The one inner loop: a tile of products held in registers.
//!
//! Forward, inverse, transpose and weight gradient differ only in what they walk over. A sum runs in the order of `depth`, one fused
//! multiply-add after the other, whatever the tile's height, so a value does not depend on how rows were cut into tiles.

use super::simd::Simd;

/// Where the scalar operand lies: element (row r, depth d) at `at + r * row + d * depth`.
#[derive(Clone, Copy)]
pub struct Scalars {
    pub at: *const f32,
    pub row: usize,
    pub depth: usize,
}

/// Where the vector operand lies: vector (v, depth d) at `at + v * vector + d * depth`.
#[derive(Clone, Copy)]
pub struct Vectors {
    pub at: *const f32,
    pub vector: usize,
    pub depth: usize,
}

/// `sums[r][v] += sum over d of scalars(r, d) * vectors(v, d)`.
///
/// # Safety
/// Both operands must be readable in R rows, V vectors and `depth` steps; S inside its kernel.
#[inline(always)]
pub unsafe fn accumulate<S: Simd, const R: usize, const V: usize>(
    sums: &mut [[S; V]; R],
    depth: usize,
    scalars: Scalars,
    vectors: Vectors,
) {
    unsafe {
        let (mut x, mut w) = (scalars.at, vectors.at);
        for _ in 0..depth {
            let mut weights = [S::splat(0.0); V];
            for v in 0..V {
                weights[v] = S::load(w.add(v * vectors.vector));
            }
            for r in 0..R {
                let scalar = S::splat(*x.add(r * scalars.row));
                for v in 0..V {
                    sums[r][v] = scalar.mul_add(weights[v], sums[r][v]);
                }
            }
            x = x.add(scalars.depth);
            w = w.add(vectors.depth);
        }
    }
}
