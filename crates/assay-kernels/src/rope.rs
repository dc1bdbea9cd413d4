//! Rotary position embedding (Su et al. 2021).

use crate::activation::task_len;
use crate::team;

/// Which components of a head rotate together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rope {
    /// `(i, i + d/2)`: Hugging Face's `rotate_half`.
    Halves,
    /// `(2i, 2i + 1)`: Meta's layout, and that of GGUF `llama` files, whose q and k rows are
    /// permuted for it.
    Interleaved,
}

/// Cosines and sines of every position and frequency.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// `[positions, head_dim / 2]`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
}

impl RopeTable {
    /// Table for positions `0..positions` with the standard frequencies
    /// `theta^(-2i / head_dim)`, in `f32` as Hugging Face computes them.
    ///
    /// # Panics
    /// When `head_dim` is odd.
    pub fn new(head_dim: usize, theta: f32, positions: usize) -> Self {
        assert_eq!(head_dim % 2, 0, "head_dim {head_dim} is odd");
        let frequencies: Vec<f32> =
            (0..head_dim / 2).map(|i| 1.0 / theta.powf((2 * i) as f32 / head_dim as f32)).collect();
        Self::from_frequencies(&frequencies, positions)
    }

    /// Table from given angular frequencies `[head_dim / 2]`, in radians per position: for scaled
    /// variants such as Llama 3's.
    pub fn from_frequencies(frequencies: &[f32], positions: usize) -> Self {
        let half = frequencies.len();
        let mut table = Self {
            cos: Vec::with_capacity(positions * half),
            sin: Vec::with_capacity(positions * half),
            half,
        };
        for position in 0..positions {
            for &frequency in frequencies {
                let (sin, cos) = f64::from(position as f32 * frequency).sin_cos();
                table.cos.push(cos as f32);
                table.sin.push(sin as f32);
            }
        }
        table
    }

    /// Number of positions covered.
    pub fn positions(&self) -> usize {
        self.cos.len().checked_div(self.half).unwrap_or(0)
    }

    /// Size of a head.
    pub fn head_dim(&self) -> usize {
        self.half * 2
    }

    /// Cosines and sines of one position.
    pub(crate) fn at(&self, position: u32) -> (&[f32], &[f32]) {
        let start = position as usize * self.half;
        (&self.cos[start..][..self.half], &self.sin[start..][..self.half])
    }
}

/// Rotates `x [t, heads * head_dim]` in place; token `i` has position `positions[i]`.
///
/// # Panics
/// When a length does not match its shape, or a position lies outside the table.
pub fn rope(x: &mut [f32], heads: usize, positions: &[u32], table: &RopeTable, style: Rope) {
    rotate(x, heads, positions, table, style, 1.0);
}

/// Backward of [`rope`]: rotates the gradient `dx` the other way, in place.
///
/// # Panics
/// When a length does not match its shape, or a position lies outside the table.
pub fn rope_backward(
    dx: &mut [f32],
    heads: usize,
    positions: &[u32],
    table: &RopeTable,
    style: Rope,
) {
    rotate(dx, heads, positions, table, style, -1.0);
}

fn rotate(
    x: &mut [f32],
    heads: usize,
    positions: &[u32],
    table: &RopeTable,
    style: Rope,
    sign: f32,
) {
    assert_eq!(x.len(), positions.len() * heads * table.head_dim(), "rope: input length");
    let width = heads * table.head_dim();
    if width == 0 {
        return;
    }
    let rows = task_len(width) / width;
    team::consume(x.chunks_mut(rows * width).zip(positions.chunks(rows)), |(x, positions)| {
        for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
            let (cos, sin) = table.at(position);
            for head in row.chunks_exact_mut(table.head_dim()) {
                rotate_head(head, cos, sin, style, sign);
            }
        }
    });
}

/// Rotates one head. Plain loops: compilers vectorise both, and memory bounds them.
fn rotate_head(head: &mut [f32], cos: &[f32], sin: &[f32], style: Rope, sign: f32) {
    match style {
        Rope::Halves => {
            let (first, second) = head.split_at_mut(cos.len());
            for ((x, y), (c, s)) in first.iter_mut().zip(second).zip(cos.iter().zip(sin)) {
                let (a, b, s) = (*x, *y, s * sign);
                *x = a * c - b * s;
                *y = b * c + a * s;
            }
        }
        Rope::Interleaved => {
            for (pair, (c, s)) in head.as_chunks_mut::<2>().0.iter_mut().zip(cos.iter().zip(sin)) {
                let ([a, b], s) = (*pair, s * sign);
                *pair = [a * c - b * s, b * c + a * s];
            }
        }
    }
}
