//! Products of many rows with weights of eight bits: what embedding a corpus spends its time on.
//!
//! A weight has a scale per row (an output), the input a scale and a zero point per row of its own, found when
//! it arrives; integers are summed exactly and scaled once. So a row of the result has the same bits alone and
//! in a batch, with any number of threads, and on every instruction set. ONNX Runtime's dynamic quantisation
//! computes likewise, but with one scale for a whole input.

use bytemuck::Zeroable;
use rayon::prelude::*;

use crate::dispatch::Path;
use crate::gemm::{Block, Shared, blocks};
use crate::scratch::{self, Line};
use crate::team;

mod kernel;

/// Rows of weights per panel.
const NR: usize = 16;
/// Columns whose four products are summed at once.
const QUAD: usize = 4;
/// Most columns for which a sum cannot leave 32 bits.
const MAX_COLS: usize = 1 << 16;
/// Values below which rounding the input is not worth a second thread.
const TASK_VALUES: usize = 1 << 16;

/// A frozen weight `[rows, cols]` in integers of -127 to 127 with a scale per row, for [`linear_int8`].
///
/// In panels of 16 rows; within one, four columns of all rows are contiguous.
#[derive(Clone)]
pub struct Int8Matrix {
    lines: Vec<Line>,
    /// Of each row, padded to whole panels.
    scales: Vec<f32>,
    /// Sum of each row's integers, padded likewise.
    sums: Vec<i32>,
    rows: usize,
    cols: usize,
}

impl std::fmt::Debug for Int8Matrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Int8Matrix[{}, {}]", self.rows, self.cols)
    }
}

impl Int8Matrix {
    /// Rounds and packs `w [rows, cols]`, row-major. A row's largest magnitude becomes 127.
    ///
    /// # Panics
    /// When `w.len() != rows * cols`, or there are more than 65,536 columns.
    pub fn pack(w: &[f32], rows: usize, cols: usize) -> Self {
        assert_eq!(w.len(), rows * cols, "Int8Matrix: weight length");
        assert!(cols <= MAX_COLS, "Int8Matrix: {cols} columns");
        let panels = rows.div_ceil(NR);
        let mut packed = Int8Matrix {
            lines: vec![Line::zeroed(); panels * cols.div_ceil(QUAD)],
            scales: vec![0.0; panels * NR],
            sums: vec![0; panels * NR],
            rows,
            cols,
        };
        let panel_lines = cols.div_ceil(QUAD).max(1);
        let panels = packed.lines.par_chunks_mut(panel_lines);
        let panels =
            panels.zip(packed.scales.par_chunks_mut(NR)).zip(packed.sums.par_chunks_mut(NR));
        panels.enumerate().for_each(|(p, ((lines, scales), sums))| {
            let bytes: &mut [i8] = bytemuck::cast_slice_mut(lines);
            for (j, row) in (p * NR..rows.min((p + 1) * NR)).enumerate() {
                let values = &w[row * cols..][..cols];
                let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
                let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
                scales[j] = largest / 127.0;
                for (k, value) in values.iter().enumerate() {
                    let q = (value * inverse).round_ties_even() as i8;
                    bytes[(k / QUAD * NR + j) * QUAD + k % QUAD] = q;
                    sums[j] += i32::from(q);
                }
            }
        });
        packed
    }

    /// Outputs of [`linear_int8`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs of [`linear_int8`].
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Memory held, in bytes, padding included.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>() + 8 * self.scales.len()
    }

    /// 32-bit words of a row of inputs.
    fn words(&self) -> usize {
        self.cols.div_ceil(QUAD)
    }
}

/// One of several products of the same rows, see [`linear_int8`].
#[derive(Debug)]
pub struct Int8Linear<'a> {
    /// `W [rows, cols]`.
    pub w: &'a Int8Matrix,
    /// `[rows]`, added to every row of the result.
    pub bias: Option<&'a [f32]>,
    /// `[m, rows]`.
    pub out: &'a mut [f32],
}

/// `out = x · Wᵀ + bias`, or `+=` when `add`, for several weights with the same input `x [m, cols]`, which is
/// rounded once: to 256 steps between its least and its greatest value of a row, 0 included. A value that is
/// not finite makes its row of the result meaningless, and no other.
///
/// # Panics
/// When a length does not match its shape, or the weights differ in columns.
pub fn linear_int8(x: &[f32], m: usize, products: &mut [Int8Linear<'_>], add: bool) {
    let Some(first) = products.first() else { return };
    let (k, words) = (first.w.cols, first.w.words());
    assert_eq!(x.len(), m * k, "linear_int8: input length");
    for p in &*products {
        assert_eq!(p.w.cols, k, "linear_int8: weights differ");
        assert_eq!(p.out.len(), m * p.w.rows, "linear_int8: output length");
        assert!(p.bias.is_none_or(|bias| bias.len() == p.w.rows), "linear_int8: bias length");
    }
    if m == 0 {
        return;
    }
    let path = Path::current();
    scratch::with(m * words, |rounded: &mut [u32]| {
        scratch::with(m, |steps: &mut [Step]| {
            round(path, x, (k, words), rounded, steps);
            let (rounded, steps) = (&*rounded, &*steps);
            let parts: Vec<_> =
                products.iter_mut().map(|p| (p.w, p.bias, Shared(p.out.as_mut_ptr()))).collect();
            // Four products are one instruction.
            let tasks = parts.iter().flat_map(|part| {
                let panels = part.0.rows.div_ceil(NR);
                blocks(m, panels, k * NR / QUAD, 6).into_iter().map(move |block| (part, block))
            });
            team::consume(tasks.collect::<Vec<_>>().into_iter(), |(part, block)| {
                let (w, bias, out) = *part;
                let input = (&rounded[block.rows.start * words..], &steps[block.rows.start..]);
                // SAFETY: the path is available, the blocks are disjoint, and the lengths were checked.
                unsafe { product(path, input, w, bias, out.get(), &block, add) };
            });
        });
    });
}

/// How a row of inputs was rounded: `x ≈ scale · (q - zero)`.
#[derive(Clone, Copy, Debug, PartialEq, Zeroable)]
#[repr(C)]
pub(crate) struct Step {
    pub(crate) scale: f32,
    pub(crate) zero: i32,
}

// SAFETY: two words of any bits.
unsafe impl bytemuck::Pod for Step {}

fn round(path: Path, x: &[f32], (k, words): (usize, usize), out: &mut [u32], steps: &mut [Step]) {
    let rows = TASK_VALUES.checked_div(k).unwrap_or(steps.len()).max(1);
    let tasks: Vec<_> =
        steps.chunks_mut(rows).enumerate().zip(out.chunks_mut((rows * words).max(1))).collect();
    team::consume(tasks.into_iter(), |((task, steps), out)| {
        for (i, (step, out)) in steps.iter_mut().zip(out.chunks_mut(words)).enumerate() {
            let row = &x[(task * rows + i) * k..][..k];
            // SAFETY: the path is available.
            *step = unsafe { kernel::round(path, row, bytemuck::cast_slice_mut(out)) };
        }
    });
}

/// One block of a product.
///
/// # Safety
/// `path` is available, and nobody else writes the block of `out [_, w.rows]`.
unsafe fn product(
    path: Path,
    (x, steps): (&[u32], &[Step]),
    w: &Int8Matrix,
    bias: Option<&[f32]>,
    out: *mut f32,
    block: &Block,
    add: bool,
) {
    let column = block.panels.start * NR;
    let p = kernel::Product {
        m: block.rows.len(),
        n: w.rows.min(block.panels.end * NR) - column,
        k: w.words(),
        x,
        steps,
        w: bytemuck::cast_slice(&w.lines[block.panels.start * w.words()..]),
        scales: &w.scales[column..],
        sums: &w.sums[column..],
        bias: bias.map(|bias| &bias[column..]),
        // SAFETY: the block lies in the output.
        c: unsafe { out.add(block.rows.start * w.rows + column) },
        c_row: w.rows,
        add,
    };
    // SAFETY: the caller's contract.
    unsafe { kernel::product(path, &p) };
}
