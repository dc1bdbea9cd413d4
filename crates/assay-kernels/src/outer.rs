//! Sums of outer products of rows: the gradients of weights of low rank.

use crate::dispatch::Path;
use crate::gemm::{Shared, gemm};
use crate::operand::{Products, scratch_len};
use crate::packed::Precision;
use crate::scratch;
use crate::simd::LANES;
use crate::team;
use crate::values::Values;

/// Rows per product. Fixed, since it decides the order of the sums.
const ROWS: usize = 64;
/// Columns of a task are a multiple of this; rows are read best in long pieces.
const COLUMNS: usize = 96;

/// Whether `out` of [`add_outer`] is `[r, n]` or `[n, r]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// `[r, n]`: `zᵀ·y`.
    AsIs,
    /// `[n, r]`: `yᵀ·z`.
    Transposed,
}

/// `out += alpha · zᵀ·y` for `z [t, r]`, narrow, and `y [t, n]`, wide; or its transpose.
///
/// With [`Precision::Bf16`] the factors are rounded to bf16 on processors that multiply it, unless they are so
/// already; sums are `f32`.
///
/// # Panics
/// When a length does not match its shape.
pub fn add_outer(
    alpha: f32,
    z: &[f32],
    y: Values<'_>,
    (t, r, n): (usize, usize, usize),
    precision: Precision,
    layout: Outer,
    out: &mut [f32],
) {
    assert_eq!((z.len(), y.len()), (t * r, t * n), "add_outer: input lengths");
    assert_eq!(out.len(), r * n, "add_outer: output length");
    if let (Precision::F32, Values::F32(y)) = (precision, y) {
        return match layout {
            Outer::AsIs => gemm(alpha, z, true, y, false, 1.0, out, r, n, t),
            Outer::Transposed => gemm(alpha, y, true, z, false, 1.0, out, n, r, t),
        };
    }
    if out.is_empty() {
        return;
    }
    let products = Products::new(Path::current(), precision);
    let out = Shared(out.as_mut_ptr());
    let step = n.div_ceil(2 * rayon::current_num_threads()).next_multiple_of(COLUMNS);
    team::for_each(n.div_ceil(step), |task| {
        let first = task * step;
        let columns = step.min(n - first);
        let width = columns.next_multiple_of(LANES);
        let (left, right) = (scratch_len(r, ROWS), scratch_len(ROWS, columns));
        scratch::with(left + right + r * width, |memory: &mut [f32]| {
            let (left, rest) = memory.split_at_mut(left);
            let (right, sums) = rest.split_at_mut(right);
            sums.fill(0.0);
            for start in (0..t).step_by(ROWS) {
                let rows = ROWS.min(t - start);
                let z = products.left_transposed(&z[start * r..], r, (r, rows), left);
                let y =
                    products.right(y.range(start * n + first..y.len()), n, (rows, columns), right);
                // SAFETY: the operands cover the shape, and the sums have room for it.
                unsafe {
                    let c = (sums.as_mut_ptr(), width);
                    products.multiply((r, columns, rows), z, y, c, true);
                }
            }
            for (i, sums) in sums.chunks_exact(width).enumerate() {
                for (j, sum) in sums[..columns].iter().enumerate() {
                    let at = match layout {
                        Outer::AsIs => i * n + first + j,
                        Outer::Transposed => (first + j) * r + i,
                    };
                    // SAFETY: tasks write disjoint columns.
                    unsafe { *out.get().add(at) += alpha * sum };
                }
            }
        });
    });
}
