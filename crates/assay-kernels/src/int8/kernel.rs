//! The inner kernels: a tile of 32-bit sums in registers, and the rounding of one row of inputs.
#![allow(unsafe_op_in_unsafe_fn, reason = "pointer arithmetic throughout")]
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use super::{NR, QUAD, Step};
use crate::dispatch::Path;

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
mod neon;

/// `C [m, n] = step · scale · (X · Wᵀ - zero · sum) + bias`, or `+=`.
pub(super) struct Product<'a> {
    pub(super) m: usize,
    pub(super) n: usize,
    /// 32-bit words of a row of X, and lines of a panel of W.
    pub(super) k: usize,
    /// `[m, k]`, four unsigned bytes each.
    pub(super) x: &'a [u32],
    /// `[m]`.
    pub(super) steps: &'a [Step],
    /// Panels `[k, 16]` of four signed bytes each.
    pub(super) w: &'a [u32],
    /// Of the rows of W, in whole panels.
    pub(super) scales: &'a [f32],
    pub(super) sums: &'a [i32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
    pub(super) add: bool,
}

/// Runs a product on one thread.
///
/// # Safety
/// `path` is available and C is valid for the shape.
pub(super) unsafe fn product(path: Path, p: &Product<'_>) {
    assert!(p.x.len() >= p.m * p.k && p.steps.len() >= p.m, "int8: rows of the input");
    assert!(p.w.len() >= p.n.div_ceil(NR) * p.k * NR, "int8: panels");
    assert!(p.scales.len() >= p.n.next_multiple_of(NR) && p.sums.len() >= p.scales.len().min(p.n));
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Amx | Path::Avx512Bf16 | Path::Avx512 => x86::avx512(p),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => x86::avx2(p),
        #[cfg(target_arch = "aarch64")]
        Path::NeonDot | Path::NeonBf16 => neon::sdot(p),
        _ => run::<Portable>(p),
    }
}

/// Sixteen 32-bit sums. Every method is unsafe: the caller runs inside a function compiled for the
/// instruction set.
trait Sums: Copy {
    /// Most rows of a tile, so that it stays in registers with [`Self::PANELS`].
    const ROWS: usize;
    /// Panels in a tile.
    const PANELS: usize;
    /// What is subtracted from every input before [`Self::dot`] multiplies it.
    const SHIFT: i32 = 0;
    /// Four weights of sixteen rows.
    type Weights: Copy;

    unsafe fn zero() -> Self;
    unsafe fn load(p: *const u32) -> Self::Weights;
    /// Adds the products of four unsigned bytes with the four signed ones of each lane.
    unsafe fn dot(self, x: u32, w: Self::Weights) -> Self;
    unsafe fn lanes(self) -> [i32; NR];
}

#[inline(always)]
unsafe fn run<S: Sums>(p: &Product<'_>) {
    let panels = p.n.div_ceil(NR);
    let mut panel = 0;
    while panel < panels {
        // Four are two and two: a single panel leaves half of the multipliers waiting.
        if S::PANELS == 3 && panels - panel >= 3 && panels - panel != 4 {
            rows::<S, 3>(p, panel);
            panel += 3;
        } else if S::PANELS >= 2 && panels - panel >= 2 {
            rows::<S, 2>(p, panel);
            panel += 2;
        } else {
            rows::<S, 1>(p, panel);
            panel += 1;
        }
    }
}

/// All rows against `P` panels, in tiles of nearly equal height.
#[inline(always)]
unsafe fn rows<S: Sums, const P: usize>(p: &Product<'_>, panel: usize) {
    let mut row = 0;
    while row < p.m {
        let left = p.m - row;
        let height = match left {
            _ if left >= 2 * S::ROWS => S::ROWS,
            _ if left > S::ROWS => left.div_ceil(2),
            _ => left,
        };
        match height {
            9 if S::ROWS >= 9 => tile::<S, 9, P>(p, row, panel),
            8 if S::ROWS >= 9 => tile::<S, 8, P>(p, row, panel),
            7 if S::ROWS >= 9 => tile::<S, 7, P>(p, row, panel),
            6 if S::ROWS >= 9 => tile::<S, 6, P>(p, row, panel),
            5 if S::ROWS >= 9 => tile::<S, 5, P>(p, row, panel),
            4 => tile::<S, 4, P>(p, row, panel),
            3 => tile::<S, 3, P>(p, row, panel),
            2 => tile::<S, 2, P>(p, row, panel),
            _ => tile::<S, 1, P>(p, row, panel),
        }
        row += height;
    }
}

#[inline(always)]
unsafe fn tile<S: Sums, const R: usize, const P: usize>(p: &Product<'_>, row: usize, panel: usize) {
    let mut acc = [[S::zero(); P]; R];
    let x = p.x.as_ptr().add(row * p.k);
    let w = p.w.as_ptr().add(panel * p.k * NR);
    for k in 0..p.k {
        let weights: [S::Weights; P] = std::array::from_fn(|j| S::load(w.add((j * p.k + k) * NR)));
        for i in 0..R {
            let quad = *x.add(i * p.k + k);
            for j in 0..P {
                acc[i][j] = acc[i][j].dot(quad, weights[j]);
            }
        }
    }
    for i in 0..R {
        for j in 0..P {
            finish(p, row + i, panel + j, S::SHIFT, acc[i][j].lanes());
        }
    }
}

/// Scales the sums of a row and a panel, and writes them. Multiplication and addition are rounded apart, so
/// that every instruction set gives the same bits.
#[inline(always)]
unsafe fn finish(p: &Product<'_>, row: usize, panel: usize, shift: i32, acc: [i32; NR]) {
    let column = panel * NR;
    let Step { scale, zero } = p.steps[row];
    let zero = zero - shift;
    let scales = p.scales.as_ptr().add(column).cast::<[f32; NR]>().read_unaligned();
    let sums = p.sums.as_ptr().add(column).cast::<[i32; NR]>().read_unaligned();
    let mut values: [f32; NR] = std::array::from_fn(|j| {
        acc[j].wrapping_sub(zero.wrapping_mul(sums[j])) as f32 * (scale * scales[j])
    });
    let c = p.c.add(row * p.c_row + column);
    if column + NR <= p.n {
        if let Some(bias) = p.bias {
            let bias = bias.as_ptr().add(column).cast::<[f32; NR]>().read_unaligned();
            values = std::array::from_fn(|j| values[j] + bias[j]);
        }
        let c = c.cast::<[f32; NR]>();
        if p.add {
            let old = c.read_unaligned();
            values = std::array::from_fn(|j| values[j] + old[j]);
        }
        c.write_unaligned(values);
    } else {
        for (j, value) in values.into_iter().enumerate().take(p.n - column) {
            let value = p.bias.map_or(value, |bias| value + bias[column + j]);
            let old = if p.add { *c.add(j) } else { 0.0 };
            *c.add(j) = value + old;
        }
    }
}

/// Plain integers, for any processor.
#[derive(Clone, Copy)]
struct Portable([i32; NR]);

impl Sums for Portable {
    const ROWS: usize = 4;
    const PANELS: usize = 1;
    type Weights = [[i8; QUAD]; NR];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Portable([0; NR])
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self::Weights {
        p.cast::<Self::Weights>().read_unaligned()
    }
    #[inline(always)]
    unsafe fn dot(self, x: u32, w: Self::Weights) -> Self {
        let x = x.to_ne_bytes().map(i32::from);
        let sum = |w: [i8; QUAD]| (0..QUAD).map(|i| x[i] * i32::from(w[i])).sum::<i32>();
        Portable(std::array::from_fn(|j| self.0[j] + sum(w[j])))
    }
    #[inline(always)]
    unsafe fn lanes(self) -> [i32; NR] {
        self.0
    }
}

/// Rounds a row to bytes; those beyond it meet weights that are 0.
///
/// # Safety
/// `path` is available.
pub(super) unsafe fn round(path: Path, row: &[f32], out: &mut [u8]) -> Step {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn avx512(row: &[f32], out: &mut [u8]) -> Step {
        round_row(row, out)
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(row: &[f32], out: &mut [u8]) -> Step {
        round_row(row, out)
    }
    match path {
        #[cfg(target_arch = "x86_64")]
        Path::Amx | Path::Avx512Bf16 | Path::Avx512 => avx512(row, out),
        #[cfg(target_arch = "x86_64")]
        Path::Avx2 => avx2(row, out),
        _ => round_row(row, out),
    }
}

#[inline(always)]
fn round_row(row: &[f32], out: &mut [u8]) -> Step {
    // Sixteen apart, so that the compiler finds lanes.
    let (mut low, mut high, mut odd) = ([0.0f32; NR], [0.0f32; NR], [0.0f32; NR]);
    let (whole, rest) = row.as_chunks::<NR>();
    for values in whole {
        for j in 0..NR {
            low[j] = if values[j] < low[j] { values[j] } else { low[j] };
            high[j] = if values[j] > high[j] { values[j] } else { high[j] };
            odd[j] += values[j] * 0.0;
        }
    }
    for (j, &value) in rest.iter().enumerate() {
        low[j] = low[j].min(value);
        high[j] = high[j].max(value);
        odd[j] += value * 0.0;
    }
    let low = low.into_iter().fold(0.0, f32::min);
    let high = high.into_iter().fold(0.0, f32::max);
    let range = high - low;
    if odd.into_iter().sum::<f32>() != 0.0 || !range.is_finite() {
        out.fill(0);
        return Step { scale: f32::NAN, zero: 0 };
    }
    let inverse = if range > f32::MIN_POSITIVE { 255.0 / range } else { 0.0 };
    let zero = (-low * inverse).round_ties_even();
    let zero = zero as i32;
    // Adding 1.5 · 2^23 rounds to an integer, in the low bits.
    let byte = |value: f32| {
        let rounded = (value * inverse + 12_582_912.0).to_bits() as i32 - 0x4b40_0000;
        (rounded + zero).clamp(0, 255) as u8
    };
    let (bytes, padding) = out.split_at_mut(row.len());
    bytes.iter_mut().zip(row).for_each(|(byte_out, &value)| *byte_out = byte(value));
    padding.fill(0);
    Step { scale: range / 255.0, zero }
}
