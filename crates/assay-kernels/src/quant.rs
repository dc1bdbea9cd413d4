//! Products of few rows with weights that stay quantised: what a decoding step spends its time on.
//!
//! A step reads every weight once, so its speed is that of the memory, and weights of four bits pass
//! through it four times as fast as bf16. Weights are unsigned integers with a scale and a minimum per
//! block of a row, as GGUF files hold them; inputs are rounded to eight bits with a scale per
//! [`INPUT_BLOCK`] values, so that the inner loop multiplies integers. llama.cpp computes the same way.
//! The rounding of inputs is an error near 0.4 % of each block's largest value.

use bytemuck::Zeroable;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use crate::dispatch::Path;
use crate::gemm::Shared;
use crate::scratch::{self, Line};
use crate::team;

mod kernel;

/// Inputs that share a scale.
const INPUT_BLOCK: usize = 32;
/// Rows of weights per panel.
const NR: usize = 16;
/// Bytes of a block's scales and minima, all rows of a panel together.
const SCALES: usize = 4 * NR;
/// Bytes of weights below which a product is not worth a second thread.
const TASK_BYTES: usize = 1 << 14;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantFormat {
    /// Integers in 0..16, a scale and a minimum per 32 of a row: Q4_0, Q4_1, Q4_K.
    Four,
    /// Integers in 0..256, a scale and a minimum per 32 of a row: Q8_0, Q5_0, Q5_1, Q5_K.
    Eight,
    /// Integers in 0..256, a scale and a minimum per 16 of a row: Q6_K.
    EightBy16,
}

impl QuantFormat {
    /// Weights of a row that share a scale and a minimum.
    pub fn block(self) -> usize {
        match self {
            QuantFormat::Four | QuantFormat::Eight => 32,
            QuantFormat::EightBy16 => 16,
        }
    }

    /// Bytes of a block of a panel.
    fn bytes(self) -> usize {
        let weights = NR * self.block();
        SCALES + if self == QuantFormat::Four { weights / 2 } else { weights }
    }
}

/// One row of quantised weights, to be filled: `w[k] = scale[k / block]·q[k] + min[k / block]`.
#[derive(Debug)]
pub struct QuantRow<'a> {
    /// `[cols]`, each within its format's range.
    pub q: &'a mut [u8],
    /// `[cols / block]`.
    pub scale: &'a mut [f32],
    /// `[cols / block]`.
    pub min: &'a mut [f32],
}

/// A frozen quantised weight `[rows, cols]` for [`quant_matmul`].
///
/// Panels of 16 rows; a block of a panel is 16 scales, 16 minima (f16) and the integers of 4 columns of 16
/// rows per 64 bytes. With four bits a byte holds column `k` low and column `k + 16` high.
#[derive(Clone)]
pub struct QuantMatrix {
    lines: Vec<Line>,
    rows: usize,
    cols: usize,
    format: QuantFormat,
}

impl std::fmt::Debug for QuantMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "QuantMatrix[{}, {}; {:?}]", self.rows, self.cols, self.format)
    }
}

impl QuantMatrix {
    /// Packs `[rows, cols]` from `fill(row, out)`, called once per row, in any order, from several
    /// threads. Scales and minima are rounded to f16, in which most files hold them.
    ///
    /// # Panics
    /// When `cols` is not a multiple of 32, or an integer is out of its format's range.
    pub fn pack_with(
        rows: usize,
        cols: usize,
        format: QuantFormat,
        fill: impl Fn(usize, QuantRow<'_>) + Sync,
    ) -> Self {
        assert_eq!(cols % INPUT_BLOCK, 0, "QuantMatrix: columns in whole blocks");
        let (block, blocks) = (format.block(), cols / format.block());
        let panel_lines = blocks * format.bytes() / size_of::<Line>();
        let mut lines = vec![Line::zeroed(); rows.div_ceil(NR) * panel_lines];
        lines.par_chunks_mut(panel_lines.max(1)).enumerate().for_each(|(p, lines)| {
            let panel: &mut [u8] = bytemuck::cast_slice_mut(lines);
            let mut q = vec![0; cols];
            let (mut scale, mut min) = (vec![0.0; blocks], vec![0.0; blocks]);
            for (j, row) in (p * NR..rows.min((p + 1) * NR)).enumerate() {
                fill(row, QuantRow { q: &mut q, scale: &mut scale, min: &mut min });
                for (b, bytes) in panel.chunks_mut(format.bytes()).enumerate() {
                    let (scales, weights) = bytes.split_at_mut(SCALES);
                    scales[2 * j..][..2].copy_from_slice(&f16::from_f32(scale[b]).to_le_bytes());
                    let at = 2 * (NR + j);
                    scales[at..][..2].copy_from_slice(&f16::from_f32(min[b]).to_le_bytes());
                    for (k, &q) in q[b * block..][..block].iter().enumerate() {
                        if format == QuantFormat::Four {
                            assert!(q < 16, "QuantMatrix: four bits hold 0 to 15, not {q}");
                            let (k, shift) = (k % 16, k / 16 * 4);
                            weights[weight_index(k, j)] |= q << shift;
                        } else {
                            weights[weight_index(k, j)] = q;
                        }
                    }
                }
            }
        });
        Self { lines, rows, cols, format }
    }

    /// Rows of the matrix: outputs of [`quant_matmul`].
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of the matrix: inputs of [`quant_matmul`].
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    fn panel_bytes(&self) -> usize {
        self.cols / self.format.block() * self.format.bytes()
    }

    fn panel(&self, p: usize) -> &[u8] {
        let bytes = self.panel_bytes();
        &bytemuck::cast_slice(&self.lines)[p * bytes..][..bytes]
    }
}

/// Byte of column `k` of row `j` within a block's weights.
fn weight_index(k: usize, j: usize) -> usize {
    k / 4 * 4 * NR + j * 4 + k % 4
}

/// `out [m, rows] = x [m, cols] · Wᵀ` for several `W` with the same input, or `+=` when `add`.
///
/// A row of a result has the same bits whatever the other rows are.
///
/// # Panics
/// When a length does not match its shape.
pub fn quant_matmul(x: &[f32], m: usize, products: &mut [(&QuantMatrix, &mut [f32])], add: bool) {
    let Some(cols) = products.first().map(|(w, _)| w.cols) else { return };
    assert_eq!(x.len(), m * cols, "quant_matmul: input length");
    for (w, out) in products.iter() {
        assert_eq!(w.cols, cols, "quant_matmul: the matrices differ in columns");
        assert_eq!(out.len(), m * w.rows, "quant_matmul: output length");
    }
    if m == 0 {
        return;
    }
    let path = Path::current();
    // Values and, per block of inputs, a scale and scaled sums: of the block and of its halves.
    let blocks = cols / INPUT_BLOCK;
    scratch::with(m * cols / 4, |q: &mut [i32]| {
        scratch::with(m * blocks * 4, |scales: &mut [f32]| {
            let q: &mut [i8] = bytemuck::cast_slice_mut(q);
            let rows = Shared(q.as_mut_ptr());
            let row_scales = Shared(scales.as_mut_ptr());
            let quantise = |row: usize| {
                // SAFETY: each row writes its own part.
                let (q, scales) = unsafe {
                    (
                        std::slice::from_raw_parts_mut(rows.get().add(row * cols), cols),
                        std::slice::from_raw_parts_mut(
                            row_scales.get().add(row * blocks * 4),
                            blocks * 4,
                        ),
                    )
                };
                kernel::quantise(path, &x[row * cols..][..cols], q, scales);
            };
            if m < 8 {
                (0..m).for_each(quantise);
            } else {
                team::for_each(m, quantise);
            }
            multiply(path, Inputs { q, scales, cols, m }, products, add);
        });
    });
}

/// Quantised inputs.
#[derive(Clone, Copy)]
struct Inputs<'a> {
    /// `[m, cols]`.
    q: &'a [i8],
    /// `[m, cols / 32, 4]`: scale, scaled sum, scaled sums of the first and the second half.
    scales: &'a [f32],
    cols: usize,
    m: usize,
}

fn multiply(path: Path, x: Inputs<'_>, products: &mut [(&QuantMatrix, &mut [f32])], add: bool) {
    struct Part<'a> {
        w: &'a QuantMatrix,
        out: Shared<f32>,
        panels: std::ops::Range<usize>,
    }
    let bytes: usize = products.iter().map(|(w, _)| w.bytes()).sum();
    let threads = rayon::current_num_threads();
    let tasks = (bytes * x.m.min(8) / TASK_BYTES).clamp(1, 4 * threads);
    let step = bytes.div_ceil(tasks);
    let mut parts = Vec::new();
    for (w, out) in products.iter_mut() {
        let (w, out) = (*w, Shared(out.as_mut_ptr()));
        let panels = w.rows.div_ceil(NR);
        let per_part = (step / w.panel_bytes().max(1)).clamp(1, panels.max(1));
        for first in (0..panels).step_by(per_part) {
            parts.push(Part { w, out, panels: first..panels.min(first + per_part) });
        }
    }
    let run = |i: usize| {
        let part = &parts[i];
        for p in part.panels.clone() {
            let columns = NR.min(part.w.rows - p * NR);
            // SAFETY: the path is available, parts write disjoint columns, and lengths were checked.
            unsafe {
                let out = part.out.get().add(p * NR);
                let out = kernel::Out { at: out, row: part.w.rows, columns, add };
                kernel::panel(path, part.w.format, part.w.panel(p), x, out);
            }
        }
    };
    if tasks == 1 { (0..parts.len()).for_each(run) } else { team::for_each(parts.len(), run) }
}

/// The 16 scales and 16 minima at the front of a block.
fn scales_of(block: &[u8]) -> [[f32; NR]; 2] {
    let mut bits = [f16::ZERO; 2 * NR];
    for (bits, bytes) in bits.iter_mut().zip(block.chunks_exact(2)) {
        *bits = f16::from_le_bytes([bytes[0], bytes[1]]);
    }
    let mut scales = [[0.0; NR]; 2];
    bits[..NR].convert_to_f32_slice(&mut scales[0]);
    bits[NR..].convert_to_f32_slice(&mut scales[1]);
    scales
}
