//! Frozen weights, packed once into column panels.
//!
//! A matrix `W [rows, cols]` serves `y = x·Wᵀ`. Its rows are grouped into panels of [`NR`]; inside
//! a panel, element `k` of all rows is contiguous (for bf16: elements `2k, 2k+1` of each row, as
//! `vdpbf16ps` and AMX want them). `rows` is padded to a multiple of [`NR`] and `cols` to one of
//! [`KB`], with zeros.

use bytemuck::Zeroable;
use half::bf16;
use rayon::prelude::*;

use crate::scratch::Line;

/// Rows of `W` per panel: one AVX-512 register of outputs, one AMX tile.
pub(crate) const NR: usize = 16;
/// Padding of the inner dimension: one AMX tile of bf16.
pub(crate) const KB: usize = 32;

/// Storage precision of packed weights, and of the inputs multiplied with them. Accumulation is
/// always `f32`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats throughout.
    F32,
    /// Weights and inputs rounded to bfloat16 (nearest, ties to even).
    Bf16,
}

/// A frozen weight `[rows, cols]`, packed for `x·Wᵀ` by [`matmul`](crate::matmul).
#[derive(Clone)]
pub struct PackedMatrix {
    lines: Vec<Line>,
    rows: usize,
    cols: usize,
    precision: Precision,
}

impl std::fmt::Debug for PackedMatrix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PackedMatrix[{}, {}; {:?}]", self.rows, self.cols, self.precision)
    }
}

impl PackedMatrix {
    /// Packs `w [rows, cols]`, row-major.
    ///
    /// # Panics
    /// When `w.len() != rows * cols`.
    pub fn pack(w: &[f32], rows: usize, cols: usize, precision: Precision) -> Self {
        assert_eq!(w.len(), rows * cols, "pack: weight length");
        Self::pack_with(rows, cols, precision, |row, out| {
            out.copy_from_slice(&w[row * cols..][..cols]);
        })
    }

    /// Packs `[rows, cols]` from `fill(row, out)`, which writes one row of `cols` values. Rows are
    /// asked for once each, in any order, from several threads; no whole `f32` copy is made.
    pub fn pack_with(
        rows: usize,
        cols: usize,
        precision: Precision,
        fill: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Self {
        let mut packed = Self::zeroed(rows, cols, precision);
        let panel_lines = packed.panel_lines();
        packed.lines.par_chunks_mut(panel_lines.max(1)).enumerate().for_each(|(p, lines)| {
            let mut buffer = vec![0.0f32; cols];
            for (j, row) in (p * NR..rows.min((p + 1) * NR)).enumerate() {
                fill(row, &mut buffer);
                match precision {
                    Precision::F32 => {
                        let panel: &mut [f32] = bytemuck::cast_slice_mut(lines);
                        for (k, &value) in buffer.iter().enumerate() {
                            panel[k * NR + j] = value;
                        }
                    }
                    Precision::Bf16 => {
                        let panel: &mut [u16] = bytemuck::cast_slice_mut(lines);
                        for (k, &value) in buffer.iter().enumerate() {
                            panel[bf16_index(k, j)] = bf16::from_f32(value).to_bits();
                        }
                    }
                }
            }
        });
        packed
    }

    /// Packs the transpose of `w [rows, cols]`: the result is `[cols, rows]` and serves
    /// `dX = dY·W`.
    ///
    /// # Panics
    /// When `w.len() != rows * cols`.
    pub fn pack_transposed(w: &[f32], rows: usize, cols: usize, precision: Precision) -> Self {
        assert_eq!(w.len(), rows * cols, "pack_transposed: weight length");
        Self::pack_with(cols, rows, precision, |col, out| {
            for (row, value) in out.iter_mut().enumerate() {
                *value = w[row * cols + col];
            }
        })
    }

    /// The packed transpose, `[cols, rows]`, without an `f32` copy in between. Exact.
    pub fn transposed(&self) -> Self {
        Self::pack_with(self.cols, self.rows, self.precision, |col, out| {
            for (row, value) in out.iter_mut().enumerate() {
                *value = self.at(row, col);
            }
        })
    }

    /// Rows of `W`: outputs of [`matmul`](crate::matmul).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of `W`: inputs of [`matmul`](crate::matmul).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Storage precision.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Memory held, in bytes, padding included.
    pub fn bytes(&self) -> usize {
        self.lines.len() * size_of::<Line>()
    }

    /// Writes row `row` to `out [cols]`: the embedding lookup of a tied head.
    ///
    /// # Panics
    /// When `row >= rows` or `out.len() != cols`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        assert_eq!(out.len(), self.cols, "row: output length");
        for (col, value) in out.iter_mut().enumerate() {
            *value = self.at(row, col);
        }
    }

    fn zeroed(rows: usize, cols: usize, precision: Precision) -> Self {
        let mut packed = Self { lines: Vec::new(), rows, cols, precision };
        packed.lines = vec![Line::zeroed(); rows.div_ceil(NR) * packed.panel_lines()];
        packed
    }

    fn panel_lines(&self) -> usize {
        let bytes = match self.precision {
            Precision::F32 => 4,
            Precision::Bf16 => 2,
        };
        self.padded_cols() * NR * bytes / size_of::<Line>()
    }

    pub(crate) fn padded_cols(&self) -> usize {
        self.cols.next_multiple_of(KB)
    }

    /// Panel `p` as `[padded_cols, NR]`.
    pub(crate) fn panel_f32(&self, p: usize) -> &[f32] {
        let lines = self.panel_lines();
        bytemuck::cast_slice(&self.lines[p * lines..][..lines])
    }

    /// Panel `p` as `[padded_cols / 2, NR, 2]`.
    pub(crate) fn panel_bf16(&self, p: usize) -> &[u16] {
        let lines = self.panel_lines();
        bytemuck::cast_slice(&self.lines[p * lines..][..lines])
    }

    pub(crate) fn at(&self, row: usize, col: usize) -> f32 {
        let (p, j) = (row / NR, row % NR);
        match self.precision {
            Precision::F32 => self.panel_f32(p)[col * NR + j],
            Precision::Bf16 => bf16::from_bits(self.panel_bf16(p)[bf16_index(col, j)]).to_f32(),
        }
    }
}

/// Index of element `k` of row `j` inside a bf16 panel.
fn bf16_index(k: usize, j: usize) -> usize {
    (k / 2) * NR * 2 + j * 2 + k % 2
}
