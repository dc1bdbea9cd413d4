//! The one inner kernel under every dense product: a tile of accumulators in registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "pointer arithmetic throughout")]
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

use crate::dispatch::Path;
#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{LANES, Portable, Vector};

/// How the vectors of B are multiplied.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `f32` times `f32`.
    F32,
    /// B holds pairs of bf16, widened; A is `f32`.
    Widened,
    /// A and B hold pairs of bf16 in each 32-bit element.
    Pairs,
}

const F32: u8 = 0;
const WIDENED: u8 = 1;
const PAIRS: u8 = 2;

/// A [m, k] and B [k, n]. Strides and `k` count 32-bit elements; in the bf16 formats one element of B is
/// a pair, so `k` counts pairs, and in [`Format::Widened`] A has `2k` values.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub(crate) k: usize,
    pub(crate) a: *const f32,
    pub(crate) a_row: usize,
    pub(crate) a_k: usize,
    /// Columns come in groups of 16, `b_panel` apart; all 16 are readable even past `n`.
    pub(crate) b: *const f32,
    pub(crate) b_panel: usize,
    pub(crate) b_k: usize,
}

/// `C [m, n] = alpha · (bias + A · B + A' · B') + beta · C`.
#[derive(Clone, Copy)]
pub(crate) struct Product {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) operands: Operands,
    /// A second product of the same shape and format, summed in the same registers.
    pub(crate) more: Option<Operands>,
    /// `n` values that are added to every row, or null.
    pub(crate) bias: *const f32,
    pub(crate) c: *mut f32,
    pub(crate) c_row: usize,
    pub(crate) alpha: f32,
    pub(crate) beta: f32,
}

/// Runs a product on one thread. Each element of C sums over `k` in order, whatever `m` and `n`.
///
/// # Safety
/// `path` is available and all pointers are valid for the shape; `Pairs` needs a bf16 path.
pub(crate) unsafe fn product(path: Path, format: Format, p: &Product) {
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,avx512bf16")]
    unsafe fn avx512_bf16(p: &Product) {
        run::<Avx512, PAIRS>(p);
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    unsafe fn avx512(format: Format, p: &Product) {
        match format {
            Format::F32 => run::<Avx512, F32>(p),
            Format::Widened => run::<Avx512, WIDENED>(p),
            Format::Pairs => unreachable!("dispatched above"),
        }
    }
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(format: Format, p: &Product) {
        match format {
            Format::F32 => run::<Avx2, F32>(p),
            Format::Widened => run::<Avx2, WIDENED>(p),
            Format::Pairs => unreachable!("this path has no bf16 products"),
        }
    }
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "bf16")]
    unsafe fn neon_bf16(p: &Product) {
        run::<Neon, PAIRS>(p);
    }
    match (path, format) {
        #[cfg(target_arch = "aarch64")]
        (Path::NeonBf16, Format::Pairs) => neon_bf16(p),
        #[cfg(target_arch = "aarch64")]
        (Path::Neon | Path::NeonDot | Path::NeonBf16, Format::F32) => run::<Neon, F32>(p),
        #[cfg(target_arch = "aarch64")]
        (Path::Neon | Path::NeonDot | Path::NeonBf16, Format::Widened) => run::<Neon, WIDENED>(p),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx512Bf16 | Path::Amx, Format::Pairs) => avx512_bf16(p),
        #[cfg(target_arch = "x86_64")]
        (Path::Amx | Path::Avx512Bf16 | Path::Avx512, _) => avx512(format, p),
        #[cfg(target_arch = "x86_64")]
        (Path::Avx2, _) => avx2(format, p),
        (_, Format::F32) => run::<Portable, F32>(p),
        (_, Format::Widened) => run::<Portable, WIDENED>(p),
        (_, Format::Pairs) => unreachable!("this path has no bf16 products"),
    }
}

#[inline(always)]
unsafe fn run<V: Vector, const FORMAT: u8>(p: &Product) {
    let panels = p.n.div_ceil(LANES);
    let mut panel = 0;
    while panel < panels {
        // Four are two and two: a single panel leaves half of the multipliers waiting.
        if V::PANELS == 3 && panels - panel >= 3 && panels - panel != 4 {
            rows::<V, FORMAT, 3>(p, panel);
            panel += 3;
        } else if V::PANELS >= 2 && panels - panel >= 2 {
            rows::<V, FORMAT, 2>(p, panel);
            panel += 2;
        } else {
            rows::<V, FORMAT, 1>(p, panel);
            panel += 1;
        }
    }
}

/// All rows against `P` panels, in tiles of nearly equal height.
#[inline(always)]
unsafe fn rows<V: Vector, const FORMAT: u8, const P: usize>(p: &Product, panel: usize) {
    let mut row = 0;
    while row < p.m {
        let left = p.m - row;
        let height = match left {
            _ if left >= 2 * V::ROWS => V::ROWS,
            _ if left > V::ROWS => left.div_ceil(2),
            _ => left,
        };
        match height {
            9 if V::ROWS >= 9 => tile::<V, FORMAT, 9, P>(p, row, panel),
            8 if V::ROWS >= 9 => tile::<V, FORMAT, 8, P>(p, row, panel),
            7 if V::ROWS >= 9 => tile::<V, FORMAT, 7, P>(p, row, panel),
            6 if V::ROWS >= 6 => tile::<V, FORMAT, 6, P>(p, row, panel),
            5 if V::ROWS >= 6 => tile::<V, FORMAT, 5, P>(p, row, panel),
            4 if V::ROWS >= 4 => tile::<V, FORMAT, 4, P>(p, row, panel),
            3 => tile::<V, FORMAT, 3, P>(p, row, panel),
            2 => tile::<V, FORMAT, 2, P>(p, row, panel),
            _ => tile::<V, FORMAT, 1, P>(p, row, panel),
        }
        row += height;
    }
}

#[inline(always)]
unsafe fn tile<V: Vector, const FORMAT: u8, const R: usize, const P: usize>(
    p: &Product,
    row: usize,
    panel: usize,
) {
    let mut acc = [[V::splat(0.0); P]; R];
    if !p.bias.is_null() {
        for j in 0..P {
            let column = (panel + j) * LANES;
            let (at, rest) = (p.bias.add(column), p.n - column);
            let bias = if rest >= LANES { V::load(at) } else { V::load_partial(at, rest) };
            acc.iter_mut().for_each(|row| row[j] = bias);
        }
    }
    accumulate::<V, FORMAT, R, P>(&p.operands, row, panel, &mut acc);
    if let Some(more) = &p.more {
        accumulate::<V, FORMAT, R, P>(more, row, panel, &mut acc);
    }
    for i in 0..R {
        for j in 0..P {
            let column = (panel + j) * LANES;
            let c = p.c.add((row + i) * p.c_row + column);
            finish(acc[i][j], c, p.n - column, p.alpha, p.beta);
        }
    }
}

#[inline(always)]
unsafe fn accumulate<V: Vector, const FORMAT: u8, const R: usize, const P: usize>(
    p: &Operands,
    row: usize,
    panel: usize,
    acc: &mut [[V; P]; R],
) {
    let (a_row, a_k, b_panel, b_k) = (p.a_row, p.a_k, p.b_panel, p.b_k);
    let mut a = p.a.add(row * a_row);
    let mut b = p.b.add(panel * b_panel);
    for _ in 0..p.k {
        if FORMAT == WIDENED {
            let mut pairs = [(V::splat(0.0), V::splat(0.0)); P];
            for (j, pair) in pairs.iter_mut().enumerate() {
                *pair = V::load_pairs(b.add(j * b_panel));
            }
            for i in 0..R {
                let first = V::splat(*a.add(i * a_row));
                let second = V::splat(*a.add(i * a_row + a_k));
                for j in 0..P {
                    acc[i][j] = first.mul_add(pairs[j].0, acc[i][j]);
                    acc[i][j] = second.mul_add(pairs[j].1, acc[i][j]);
                }
            }
            a = a.add(2 * a_k);
        } else {
            let mut vectors = [V::splat(0.0); P];
            for (j, vector) in vectors.iter_mut().enumerate() {
                *vector = V::load(b.add(j * b_panel));
            }
            for i in 0..R {
                let scalar = V::splat(*a.add(i * a_row));
                for j in 0..P {
                    acc[i][j] = if FORMAT == PAIRS {
                        V::dot_pairs(acc[i][j], scalar, vectors[j])
                    } else {
                        scalar.mul_add(vectors[j], acc[i][j])
                    };
                }
            }
            a = a.add(a_k);
        }
        b = b.add(b_k);
    }
}

/// `c = alpha · acc + beta · c` over the first `columns` lanes (all, if more).
#[inline(always)]
unsafe fn finish<V: Vector>(acc: V, c: *mut f32, columns: usize, alpha: f32, beta: f32) {
    let mut value = if alpha == 1.0 { acc } else { acc.mul(V::splat(alpha)) };
    if columns >= LANES {
        if beta != 0.0 {
            value = V::load(c).mul_add(V::splat(beta), value);
        }
        value.store(c);
    } else {
        if beta != 0.0 {
            value = V::load_partial(c, columns).mul_add(V::splat(beta), value);
        }
        value.store_partial(c, columns);
    }
}
