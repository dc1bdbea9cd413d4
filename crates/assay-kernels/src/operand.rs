//! Operands of the small products inside an attention.
//!
//! With AMX each value is split into two bf16, `high + low`, and a product is the sum of three:
//! `high·high + high·low + low·high`. That keeps 16 bits of each factor (a relative error near
//! 1e-5) at a third of the tiles' speed, several times that of `f32` vectors (Henry, Tang and
//! Heinecke 2019). On every other path operands are `f32`, multiplied by [`tile::product`].

use crate::dispatch::Path;
use crate::gemm::pack_panel;
use crate::simd::LANES;
use crate::tile::{self, Format};

/// Inner values of an AMX tile.
const STEP: usize = 32;

/// Scratch values that an operand of `rows × columns` needs, whichever of them is the inner side.
pub(crate) const fn scratch_len(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(STEP) * columns.next_multiple_of(STEP)
}

/// Left operand `[m, k]`: `f32` by strides, or AMX tiles.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    data: *const f32,
    row: usize,
    k: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AMX splits"))]
    low: *const f32,
}

/// Right operand `[k, n]`: panels of 16 columns in `f32`, or AMX tiles.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    data: *const f32,
    panel: usize,
    k: usize,
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AMX splits"))]
    low: *const f32,
}

/// Left operand from `m` rows of `k` values, `stride` apart.
pub(crate) fn left(
    path: Path,
    rows: &[f32],
    stride: usize,
    (m, k): (usize, usize),
    scratch: &mut [f32],
) -> Left {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx {
        let (high, low) = halves(scratch, (m, k));
        // SAFETY: the path is available.
        unsafe { amx::left(rows, stride, (m, k), high, low) };
        return Left { data: high.as_ptr().cast(), row: 0, k, low: low.as_ptr().cast() };
    }
    let _ = (path, m, k, scratch);
    Left { data: rows.as_ptr(), row: stride, k: 1, low: std::ptr::null() }
}

/// Left operand `[m, k]` from its transpose: `k` rows of `m` values, `stride` apart.
pub(crate) fn left_transposed(
    path: Path,
    rows: &[f32],
    stride: usize,
    (m, k): (usize, usize),
    scratch: &mut [f32],
) -> Left {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx {
        let (high, low) = halves(scratch, (m, k));
        // SAFETY: the path is available.
        unsafe { amx::left_transposed(rows, stride, (m, k), high, low) };
        return Left { data: high.as_ptr().cast(), row: 0, k, low: low.as_ptr().cast() };
    }
    let _ = (path, m, k, scratch);
    Left { data: rows.as_ptr(), row: 1, k: stride, low: std::ptr::null() }
}

/// Right operand from `k` rows of `n` values, `stride` apart.
pub(crate) fn right(
    path: Path,
    rows: &[f32],
    stride: usize,
    (k, n): (usize, usize),
    scratch: &mut [f32],
) -> Right {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx {
        let (high, low) = halves(scratch, (n, k));
        // SAFETY: the path is available.
        unsafe { amx::right(rows, stride, (k, n), high, low) };
        return Right { data: high.as_ptr().cast(), panel: 0, k, low: low.as_ptr().cast() };
    }
    let _ = path;
    let width = n.next_multiple_of(LANES);
    for (i, out) in scratch.chunks_exact_mut(width).take(k).enumerate() {
        let (out, padding) = out.split_at_mut(n);
        out.copy_from_slice(&rows[i * stride..][..n]);
        padding.fill(0.0);
    }
    Right { data: scratch.as_ptr(), panel: LANES, k: width, low: std::ptr::null() }
}

/// Right operand `[k, n]` from its transpose: `n` rows of `k` values, `stride` apart.
pub(crate) fn right_transposed(
    path: Path,
    rows: &[f32],
    stride: usize,
    (k, n): (usize, usize),
    scratch: &mut [f32],
) -> Right {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx {
        let (high, low) = halves(scratch, (n, k));
        // SAFETY: the path is available.
        unsafe { amx::right_transposed(rows, stride, (k, n), high, low) };
        return Right { data: high.as_ptr().cast(), panel: 0, k, low: low.as_ptr().cast() };
    }
    let _ = path;
    for (p, panel) in scratch.chunks_mut(k * LANES).take(n.div_ceil(LANES)).enumerate() {
        pack_panel(rows, (stride, 1), p * LANES..n.min((p + 1) * LANES), panel);
    }
    Right { data: scratch.as_ptr(), panel: k * LANES, k: LANES, low: std::ptr::null() }
}

/// Splits scratch memory of an operand into the tiles of the high and of the low parts.
#[cfg(target_arch = "x86_64")]
fn halves(scratch: &mut [f32], (outer, inner): (usize, usize)) -> (&mut [u16], &mut [u16]) {
    let len = outer.next_multiple_of(LANES) * inner.next_multiple_of(STEP);
    bytemuck::cast_slice_mut(&mut scratch[..len]).split_at_mut(len)
}

/// `C [m, n] = A · B`, or `+=` when `add`, on this thread. `k` may be less than the operands hold if
/// the left one holds zeros beyond.
///
/// # Safety
/// The operands were made for `path`, cover the shape, and still lie in their memory; C is valid.
pub(crate) unsafe fn multiply(
    path: Path,
    (m, n, k): (usize, usize, usize),
    a: Left,
    b: Right,
    (c, c_row): (*mut f32, usize),
    add: bool,
) {
    #[cfg(target_arch = "x86_64")]
    if path == Path::Amx {
        let product = |left: *const f32, right: *const f32, add| crate::amx::Product {
            m,
            n,
            steps: k.div_ceil(STEP),
            a: left.cast(),
            a_row: a.k.div_ceil(STEP),
            b: right.cast(),
            b_column: b.k.div_ceil(STEP),
            c,
            c_row,
            add,
        };
        // SAFETY: the caller's contract.
        return unsafe {
            crate::amx::products(&[
                product(a.data, b.data, add),
                product(a.data, b.low, true),
                product(a.low, b.data, true),
            ]);
        };
    }
    let p = tile::Product {
        m,
        n,
        k,
        a: a.data,
        a_row: a.row,
        a_k: a.k,
        b: b.data,
        b_panel: b.panel,
        b_k: b.k,
        c,
        c_row,
        alpha: 1.0,
        beta: if add { 1.0 } else { 0.0 },
    };
    // SAFETY: the caller's contract.
    unsafe { tile::product(path, Format::F32, &p) };
}

/// Packing into AMX tiles: `[outer / 16][inner / 32]` tiles of 512 values, zero along the inner side
/// beyond its end.
#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::x86_64::*;

    use super::{LANES, STEP};

    /// Values of a tile.
    const TILE: usize = LANES * STEP;

    /// Rounds 32 values to bf16, and what that loses again.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn split(first: __m512, second: __m512) -> (__m512i, __m512i) {
        let round = |first, second| {
            // SAFETY: a reinterpretation of 512 bits.
            unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
        };
        let high = round(first, second);
        let widen = |half: __m256i| {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        };
        let first = _mm512_sub_ps(first, widen(_mm512_castsi512_si256(high)));
        let second = _mm512_sub_ps(second, widen(_mm512_extracti64x4_epi64::<1>(high)));
        (high, round(first, second))
    }

    /// Loads up to 16 values, zeros beyond; `values` may be empty.
    #[target_feature(enable = "avx512f")]
    fn load(values: &[f32]) -> __m512 {
        let mask = if values.len() >= LANES { !0 } else { (1u16 << values.len()) - 1 };
        // SAFETY: masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
    }

    /// Up to 32 values from `start` of a row of `len`.
    #[target_feature(enable = "avx512f")]
    fn load_pair(row: &[f32], start: usize) -> (__m512, __m512) {
        let row = &row[start.min(row.len())..];
        (load(row), load(&row[LANES.min(row.len())..]))
    }

    #[target_feature(enable = "avx512f")]
    fn store(value: __m512i, out: &mut [u16]) {
        assert!(out.len() >= STEP);
        // SAFETY: 32 values fit.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), value) };
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn left(
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        high: &mut [u16],
        low: &mut [u16],
    ) {
        let steps = k.div_ceil(STEP);
        for i in 0..m {
            let row = &rows[i * stride..][..k];
            for s in 0..steps {
                let (first, second) = load_pair(row, s * STEP);
                let at = ((i / LANES) * steps + s) * TILE + i % LANES * STEP;
                let (h, l) = split(first, second);
                store(h, &mut high[at..]);
                store(l, &mut low[at..]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn left_transposed(
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        high: &mut [u16],
        low: &mut [u16],
    ) {
        let steps = k.div_ceil(STEP);
        for block in (0..m).step_by(LANES) {
            let columns = block..m.min(block + LANES);
            for s in 0..steps {
                let [mut first, mut second] = [[_mm512_setzero_ps(); LANES]; 2];
                for i in 0..LANES {
                    for (half, out) in [&mut first, &mut second].into_iter().enumerate() {
                        let row = s * STEP + half * LANES + i;
                        if row < k {
                            out[i] = load(&rows[row * stride..][columns.clone()]);
                        }
                    }
                }
                transpose(&mut first);
                transpose(&mut second);
                for i in 0..LANES {
                    let at = ((block / LANES) * steps + s) * TILE + i * STEP;
                    let (h, l) = split(first[i], second[i]);
                    store(h, &mut high[at..]);
                    store(l, &mut low[at..]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn right(
        rows: &[f32],
        stride: usize,
        (k, n): (usize, usize),
        high: &mut [u16],
        low: &mut [u16],
    ) {
        // Interleaves the two halves of a register of 16-bit values.
        let order: [u16; STEP] = std::array::from_fn(|i| (i / 2 + i % 2 * LANES) as u16);
        // SAFETY: a reinterpretation of 512 bits.
        let order: __m512i = unsafe { std::mem::transmute(order) };
        let steps = k.div_ceil(STEP);
        for pair in 0..steps * LANES {
            let row = |i: usize| if i < k { &rows[i * stride..][..n] } else { &[] };
            let (even, odd) = (row(2 * pair), row(2 * pair + 1));
            for panel in 0..n.div_ceil(LANES) {
                let even = load(&even[(panel * LANES).min(even.len())..]);
                let odd = load(&odd[(panel * LANES).min(odd.len())..]);
                let (h, l) = split(even, odd);
                let at = (panel * steps + pair / LANES) * TILE + pair % LANES * STEP;
                store(_mm512_permutexvar_epi16(order, h), &mut high[at..]);
                store(_mm512_permutexvar_epi16(order, l), &mut low[at..]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn right_transposed(
        rows: &[f32],
        stride: usize,
        (k, n): (usize, usize),
        high: &mut [u16],
        low: &mut [u16],
    ) {
        let steps = k.div_ceil(STEP);
        for block in (0..n).step_by(LANES) {
            for s in 0..steps {
                let [mut highs, mut lows] = [[_mm512_setzero_ps(); LANES]; 2];
                for i in 0..LANES.min(n - block) {
                    let row = &rows[(block + i) * stride..][..k];
                    let (first, second) = load_pair(row, s * STEP);
                    let (h, l) = split(first, second);
                    highs[i] = _mm512_castsi512_ps(h);
                    lows[i] = _mm512_castsi512_ps(l);
                }
                transpose(&mut highs);
                transpose(&mut lows);
                for i in 0..LANES {
                    let at = ((block / LANES) * steps + s) * TILE + i * STEP;
                    store(_mm512_castps_si512(highs[i]), &mut high[at..]);
                    store(_mm512_castps_si512(lows[i]), &mut low[at..]);
                }
            }
        }
    }

    /// Transposes 16 × 16 32-bit values: within 4 × 4 blocks, then the blocks.
    #[target_feature(enable = "avx512f")]
    fn transpose(r: &mut [__m512; LANES]) {
        for g in 0..4 {
            let [a, b, c, d] = [r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]];
            let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            r[4 * g] = _mm512_shuffle_ps::<0x44>(ab_low, cd_low);
            r[4 * g + 1] = _mm512_shuffle_ps::<0xee>(ab_low, cd_low);
            r[4 * g + 2] = _mm512_shuffle_ps::<0x44>(ab_high, cd_high);
            r[4 * g + 3] = _mm512_shuffle_ps::<0xee>(ab_high, cd_high);
        }
        for i in 0..4 {
            // Lane j of rows i, 4 + i, 8 + i, 12 + i makes row 4j + i.
            let [a, b, c, d] = [r[i], r[4 + i], r[8 + i], r[12 + i]];
            let ab_low = _mm512_shuffle_f32x4::<0x44>(a, b);
            let ab_high = _mm512_shuffle_f32x4::<0xee>(a, b);
            let cd_low = _mm512_shuffle_f32x4::<0x44>(c, d);
            let cd_high = _mm512_shuffle_f32x4::<0xee>(c, d);
            r[i] = _mm512_shuffle_f32x4::<0x88>(ab_low, cd_low);
            r[4 + i] = _mm512_shuffle_f32x4::<0xdd>(ab_low, cd_low);
            r[8 + i] = _mm512_shuffle_f32x4::<0x88>(ab_high, cd_high);
            r[12 + i] = _mm512_shuffle_f32x4::<0xdd>(ab_high, cd_high);
        }
    }
}
