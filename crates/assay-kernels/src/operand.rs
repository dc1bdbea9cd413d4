//! Operands of the small products inside an attention.
//!
//! In bf16, values are rounded while they are packed for the processor's bf16 products. On a processor
//! without such products, and in `f32`, operands are `f32`.

use crate::dispatch::Path;
use crate::gemm::pack_panel;
use crate::packed::Precision;
use crate::simd::LANES;
use crate::tile::{self, Format};
use crate::values::Values;

/// Inner values of an AMX tile, and the multiple to which bf16 operands are padded.
const STEP: usize = 32;

/// Scratch values that an operand of `rows × columns` needs, whichever of them is the inner side.
pub(crate) const fn scratch_len(rows: usize, columns: usize) -> usize {
    rows.next_multiple_of(STEP) * columns.next_multiple_of(STEP)
}

/// How operands lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    F32,
    /// Pairs of bf16, for `vdpbf16ps`.
    Pairs,
    /// AMX tiles of bf16.
    Tiles,
}

/// Makes operands and multiplies them, on one thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Products {
    /// Also for the work between products.
    pub(crate) path: Path,
    layout: Layout,
}

/// Left operand `[m, k]`.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    data: *const f32,
    /// 32-bit elements from row to row; unused by tiles.
    row: usize,
    /// 32-bit elements along the inner side; for tiles, how many of them lie in a row.
    k: usize,
}

/// Right operand `[k, n]`, in panels of 16 columns.
#[derive(Clone, Copy)]
pub(crate) struct Right {
    data: *const f32,
    /// 32-bit elements from panel to panel.
    panel: usize,
    /// 32-bit elements along the inner side.
    k: usize,
}

impl Products {
    pub(crate) fn new(path: Path, precision: Precision) -> Self {
        let layout = match (precision, path) {
            (Precision::Bf16, Path::Amx) => Layout::Tiles,
            (Precision::Bf16, Path::Avx512Bf16) => Layout::Pairs,
            _ => Layout::F32,
        };
        Products { path, layout }
    }

    /// Whether operands are rounded to bf16.
    pub(crate) fn is_bf16(self) -> bool {
        self.layout != Layout::F32
    }

    /// Left operand from `m` rows of `k` values, `stride` apart.
    pub(crate) fn left(
        self,
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        scratch: &mut [f32],
    ) -> Left {
        #[cfg(target_arch = "x86_64")]
        if self.layout != Layout::F32 {
            let out = words(scratch);
            // SAFETY: the path is available.
            match self.layout {
                Layout::Tiles => unsafe { bf16::left::<true>(rows, stride, (m, k), out) },
                _ => unsafe { bf16::left::<false>(rows, stride, (m, k), out) },
            }
            return self.packed_left(scratch, k);
        }
        let _ = (m, k, scratch);
        Left { data: rows.as_ptr(), row: stride, k: 1 }
    }

    /// Left operand `[m, k]` from its transpose: `k` rows of `m` values, `stride` apart.
    pub(crate) fn left_transposed(
        self,
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        scratch: &mut [f32],
    ) -> Left {
        #[cfg(target_arch = "x86_64")]
        if self.layout != Layout::F32 {
            let out = words(scratch);
            // SAFETY: the path is available.
            match self.layout {
                Layout::Tiles => unsafe {
                    bf16::left_transposed::<true>(rows, stride, (m, k), out)
                },
                _ => unsafe { bf16::left_transposed::<false>(rows, stride, (m, k), out) },
            }
            return self.packed_left(scratch, k);
        }
        let _ = (m, k, scratch);
        Left { data: rows.as_ptr(), row: 1, k: stride }
    }

    #[cfg(target_arch = "x86_64")]
    fn packed_left(self, scratch: &[f32], k: usize) -> Left {
        let padded = k.next_multiple_of(STEP);
        let (row, k) = if self.layout == Layout::Tiles { (0, padded) } else { (padded / 2, 1) };
        Left { data: scratch.as_ptr(), row, k }
    }

    /// Right operand from `k` rows of `n` values, `stride` apart.
    pub(crate) fn right(
        self,
        rows: Values<'_>,
        stride: usize,
        (k, n): (usize, usize),
        scratch: &mut [f32],
    ) -> Right {
        #[cfg(target_arch = "x86_64")]
        if self.layout != Layout::F32 {
            // SAFETY: the path is available.
            match rows {
                Values::F32(rows) => unsafe { bf16::right(rows, stride, (k, n), words(scratch)) },
                Values::Bf16(rows) => unsafe { bf16::right(rows, stride, (k, n), words(scratch)) },
            }
            return packed_right(scratch, k);
        }
        let width = n.next_multiple_of(LANES);
        for (i, out) in scratch.chunks_exact_mut(width).take(k).enumerate() {
            let (out, padding) = out.split_at_mut(n);
            rows.range(i * stride..i * stride + n).widen(out);
            padding.fill(0.0);
        }
        Right { data: scratch.as_ptr(), panel: LANES, k: width }
    }

    /// Right operand `[k, n]` from its transpose: `n` rows of `k` values, `stride` apart.
    pub(crate) fn right_transposed(
        self,
        rows: &[f32],
        stride: usize,
        (k, n): (usize, usize),
        scratch: &mut [f32],
    ) -> Right {
        #[cfg(target_arch = "x86_64")]
        if self.layout != Layout::F32 {
            // SAFETY: the path is available.
            unsafe { bf16::right_transposed(rows, stride, (k, n), words(scratch)) };
            return packed_right(scratch, k);
        }
        for (p, panel) in scratch.chunks_mut(k * LANES).take(n.div_ceil(LANES)).enumerate() {
            pack_panel(rows, (stride, 1), p * LANES..n.min((p + 1) * LANES), panel);
        }
        Right { data: scratch.as_ptr(), panel: k * LANES, k: LANES }
    }

    /// `C [m, n] = A · B`, or `+=` when `add`. `k` may be less than the operands hold if the left one
    /// holds zeros beyond.
    ///
    /// # Safety
    /// The operands are this layout's, cover the shape, and still lie in their memory; C is valid.
    pub(crate) unsafe fn multiply(
        self,
        (m, n, k): (usize, usize, usize),
        a: Left,
        b: Right,
        (c, c_row): (*mut f32, usize),
        add: bool,
    ) {
        #[cfg(target_arch = "x86_64")]
        if self.layout == Layout::Tiles {
            let product = crate::amx::Product {
                m,
                n,
                steps: k.div_ceil(STEP),
                a: a.data.cast(),
                a_row: a.k / STEP,
                b: b.data.cast(),
                b_column: b.panel / (LANES * LANES),
                c,
                c_row,
                add,
            };
            // SAFETY: the caller's contract.
            return unsafe { crate::amx::products(&[product]) };
        }
        let (format, k) = match self.layout {
            Layout::F32 => (Format::F32, k),
            _ => (Format::Pairs, k.div_ceil(2)),
        };
        let p = tile::Product {
            m,
            n,
            operands: tile::Operands {
                k,
                a: a.data,
                a_row: a.row,
                a_k: a.k,
                b: b.data,
                b_panel: b.panel,
                b_k: b.k,
            },
            more: None,
            bias: std::ptr::null(),
            c,
            c_row,
            alpha: 1.0,
            beta: if add { 1.0 } else { 0.0 },
        };
        // SAFETY: the caller's contract.
        unsafe { tile::product(self.path, format, &p) };
    }
}

#[cfg(target_arch = "x86_64")]
fn packed_right(scratch: &[f32], k: usize) -> Right {
    Right { data: scratch.as_ptr(), panel: k.next_multiple_of(STEP) / 2 * LANES, k: LANES }
}

#[cfg(target_arch = "x86_64")]
fn words(scratch: &mut [f32]) -> &mut [u16] {
    bytemuck::cast_slice_mut(scratch)
}

/// Packing into pairs of bf16, zero along the inner side beyond its end.
///
/// A right operand is `[n / 16][k / 2][16]` pairs, for `vdpbf16ps` and for AMX alike. A left one is
/// `[m][k / 2]` pairs, or in tiles `[m / 16][k / 32][16][16]`.
#[cfg(target_arch = "x86_64")]
mod bf16 {
    use std::arch::x86_64::*;

    use super::{LANES, STEP};

    /// Values of a tile.
    const TILE: usize = LANES * STEP;

    /// 32 values as bf16.
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    fn round(first: __m512, second: __m512) -> __m512i {
        // SAFETY: a reinterpretation of 512 bits.
        unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) }
    }

    /// What can be read as bf16.
    pub(super) trait Halves: Sized {
        /// Twice sixteen masked values; what is masked out is not read and zero.
        unsafe fn load_two(rows: [(*const Self, u16); 2]) -> __m512i;
    }

    impl Halves for f32 {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
        unsafe fn load_two(
            [(first, first_mask), (second, second_mask)]: [(*const f32, u16); 2],
        ) -> __m512i {
            // SAFETY: the caller's contract.
            unsafe {
                round(
                    _mm512_maskz_loadu_ps(first_mask, first),
                    _mm512_maskz_loadu_ps(second_mask, second),
                )
            }
        }
    }

    impl Halves for half::bf16 {
        #[inline]
        #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
        unsafe fn load_two(rows: [(*const half::bf16, u16); 2]) -> __m512i {
            // SAFETY: the caller's contract; a bf16 is its bits.
            unsafe {
                let [first, second] = rows.map(|(row, mask)| {
                    _mm512_castsi512_si256(_mm512_maskz_loadu_epi16(u32::from(mask), row.cast()))
                });
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(first), second)
            }
        }
    }

    /// Loads up to 16 values, zeros beyond; `values` may be empty.
    #[target_feature(enable = "avx512f")]
    fn load(values: &[f32]) -> __m512 {
        let mask = if values.len() >= LANES { !0 } else { (1u16 << values.len()) - 1 };
        // SAFETY: masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask, values.as_ptr()) }
    }

    /// Up to 32 values from `start` of a row.
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

    /// Where the values of row `i` from `s * STEP` on lie in a left operand of `steps` steps.
    fn left_index<const TILES: bool>(i: usize, s: usize, steps: usize) -> usize {
        if TILES {
            ((i / LANES) * steps + s) * TILE + i % LANES * STEP
        } else {
            (i * steps + s) * STEP
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn left<const TILES: bool>(
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        out: &mut [u16],
    ) {
        let steps = k.div_ceil(STEP);
        for i in 0..m {
            let row = &rows[i * stride..][..k];
            for s in 0..steps {
                let (first, second) = load_pair(row, s * STEP);
                store(round(first, second), &mut out[left_index::<TILES>(i, s, steps)..]);
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn left_transposed<const TILES: bool>(
        rows: &[f32],
        stride: usize,
        (m, k): (usize, usize),
        out: &mut [u16],
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
                for i in 0..columns.len() {
                    let at = left_index::<TILES>(block + i, s, steps);
                    store(round(first[i], second[i]), &mut out[at..]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn right<T: Halves>(
        rows: &[T],
        stride: usize,
        (k, n): (usize, usize),
        out: &mut [u16],
    ) {
        // Interleaves the two halves of a register of 16-bit values.
        let order: [u16; STEP] = std::array::from_fn(|i| (i / 2 + i % 2 * LANES) as u16);
        // SAFETY: a reinterpretation of 512 bits.
        let order: __m512i = unsafe { std::mem::transmute(order) };
        let (pairs, panels) = (k.div_ceil(STEP) * LANES, n.div_ceil(LANES));
        assert!(
            out.len() >= panels * pairs * STEP && (k == 0 || rows.len() >= (k - 1) * stride + n)
        );
        for pair in 0..pairs {
            // Rows beyond the end are zeros.
            let lanes = [2 * pair < k, 2 * pair + 1 < k].map(|there| if there { !0 } else { 0 });
            let at = rows.as_ptr().wrapping_add(2 * pair * stride);
            for panel in 0..panels {
                let rest = n - panel * LANES;
                let columns = if rest < LANES { (1u16 << rest) - 1 } else { !0 };
                let at = at.wrapping_add(panel * LANES);
                // SAFETY: masked lanes are not read; the lengths were checked.
                unsafe {
                    let next = at.wrapping_add(stride);
                    let both = T::load_two([(at, lanes[0] & columns), (next, lanes[1] & columns)]);
                    let mixed = _mm512_permutexvar_epi16(order, both);
                    let out = out.as_mut_ptr().add((panel * pairs + pair) * STEP);
                    _mm512_storeu_si512(out.cast(), mixed);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    pub(super) unsafe fn right_transposed(
        rows: &[f32],
        stride: usize,
        (k, n): (usize, usize),
        out: &mut [u16],
    ) {
        let steps = k.div_ceil(STEP);
        for block in (0..n).step_by(LANES) {
            for s in 0..steps {
                let mut pairs = [_mm512_setzero_ps(); LANES];
                for i in 0..LANES.min(n - block) {
                    let row = &rows[(block + i) * stride..][..k];
                    let (first, second) = load_pair(row, s * STEP);
                    pairs[i] = _mm512_castsi512_ps(round(first, second));
                }
                transpose(&mut pairs);
                for (i, pairs) in pairs.into_iter().enumerate() {
                    let at = ((block / LANES) * steps + s) * TILE + i * STEP;
                    store(_mm512_castps_si512(pairs), &mut out[at..]);
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
