//! A panel of quantised weights against rows of quantised inputs, on each instruction set.
#![allow(unsafe_op_in_unsafe_fn, reason = "pointer arithmetic throughout")]
#![allow(clippy::needless_range_loop, reason = "indices of registers, unrolled")]

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use super::{INPUT_BLOCK, Inputs, NR, QuantFormat, SCALES, scales_of, weight_index};
use crate::dispatch::Path;

const FOUR: u8 = 0;
const EIGHT: u8 = 1;
const EIGHT_BY_16: u8 = 2;

/// Where the 16 results of each row go.
#[derive(Clone, Copy)]
pub(super) struct Out {
    pub(super) at: *mut f32,
    /// Values from row to row.
    pub(super) row: usize,
    /// Results that exist, 16 at most.
    pub(super) columns: usize,
    pub(super) add: bool,
}

impl Out {
    /// # Safety
    /// Row `row` exists.
    unsafe fn put(self, row: usize, values: &[f32; NR]) {
        let out = std::slice::from_raw_parts_mut(self.at.add(row * self.row), self.columns);
        for (out, value) in out.iter_mut().zip(values) {
            *out = if self.add { *out + value } else { *value };
        }
    }
}

/// Rounds a row to eight bits per block of 32, symmetrically; `scales` as in [`Inputs`].
pub(super) fn quantise(path: Path, x: &[f32], q: &mut [i8], scales: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if path >= Path::Avx512 {
        // SAFETY: the path is available.
        return unsafe { quantise_avx512(x, q, scales) };
    }
    #[cfg(target_arch = "aarch64")]
    if path >= Path::Neon {
        // SAFETY: the path is available.
        return unsafe { neon::quantise(x, q, scales) };
    }
    let _ = path;
    let blocks = x.chunks_exact(INPUT_BLOCK).zip(q.chunks_exact_mut(INPUT_BLOCK));
    for ((x, q), scales) in blocks.zip(scales.chunks_exact_mut(4)) {
        // As integers, absolute values keep their order, and NaN is the largest.
        let largest = x.iter().map(|v| v.abs().to_bits()).max().unwrap_or(0);
        let (scale, inverse) = scale_of(f32::from_bits(largest));
        let mut sums = [0i32; 2];
        for (i, (q, x)) in q.iter_mut().zip(x).enumerate() {
            let rounded = (x * inverse).round_ties_even();
            *q = rounded as i8;
            sums[i / 16] += i32::from(*q);
        }
        put_scales(scales, scale, sums);
    }
}

fn scale_of(largest: f32) -> (f32, f32) {
    if largest > 0.0 && largest.is_finite() {
        (largest / 127.0, 127.0 / largest)
    } else {
        // Zeros stay zeros; what is not finite must not pass for a number.
        (largest, 0.0)
    }
}

fn put_scales(scales: &mut [f32], scale: f32, sums: [i32; 2]) {
    let [first, second] = sums.map(|s| s as f32);
    scales.copy_from_slice(&[scale, scale * (first + second), scale * first, scale * second]);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn quantise_avx512(x: &[f32], q: &mut [i8], scales: &mut [f32]) {
    for (b, scales) in scales.chunks_exact_mut(4).enumerate() {
        let at = x.as_ptr().add(b * INPUT_BLOCK);
        let values = [_mm512_loadu_ps(at), _mm512_loadu_ps(at.add(16))];
        let [low, high] = values.map(|v| _mm512_castps_si512(_mm512_abs_ps(v)));
        let largest = _mm512_reduce_max_epu32(_mm512_max_epu32(low, high));
        let (scale, inverse) = scale_of(f32::from_bits(largest));
        let mut sums = [0; 2];
        for half in 0..2 {
            let rounded = _mm512_cvtps_epi32(_mm512_mul_ps(values[half], _mm512_set1_ps(inverse)));
            sums[half] = _mm512_reduce_add_epi32(rounded);
            let out = q.as_mut_ptr().add(b * INPUT_BLOCK + half * 16);
            _mm_storeu_si128(out.cast(), _mm512_cvtsepi32_epi8(rounded));
        }
        put_scales(scales, scale, sums);
    }
}

/// All rows of `x` against one panel.
///
/// # Safety
/// `path` is available, `panel` holds `x.cols` columns of `format`, and nobody else writes the results.
pub(super) unsafe fn panel(path: Path, format: QuantFormat, panel: &[u8], x: Inputs<'_>, out: Out) {
    #[cfg(target_arch = "x86_64")]
    {
        if path >= Path::Avx512 && is_x86_feature_detected!("avx512vnni") {
            return match format {
                QuantFormat::Four => vnni_rows::<FOUR>(panel, x, out),
                QuantFormat::Eight => vnni_rows::<EIGHT>(panel, x, out),
                QuantFormat::EightBy16 => vnni_rows::<EIGHT_BY_16>(panel, x, out),
            };
        }
        if path >= Path::Avx2 {
            return match format {
                QuantFormat::Four => avx2_rows::<FOUR>(panel, x, out),
                QuantFormat::Eight => avx2_rows::<EIGHT>(panel, x, out),
                QuantFormat::EightBy16 => avx2_rows::<EIGHT_BY_16>(panel, x, out),
            };
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if path >= Path::NeonDot {
            return neon::panel::<true>(format, panel, x, out);
        }
        if path >= Path::Neon {
            return neon::panel::<false>(format, panel, x, out);
        }
    }
    let _ = path;
    portable(format, panel, x, out);
}

/// Plain Rust: the reference of the others.
unsafe fn portable(format: QuantFormat, panel: &[u8], x: Inputs<'_>, out: Out) {
    for row in 0..x.m {
        let q = &x.q[row * x.cols..][..x.cols];
        let scales = &x.scales[row * x.cols / 8..][..x.cols / 8];
        let mut sums = [0.0f32; NR];
        for (b, bytes) in panel.chunks_exact(format.bytes()).enumerate() {
            let [scale, min] = scales_of(bytes);
            let weights = &bytes[SCALES..];
            let first = b * format.block();
            let mut dots = [0i32; NR];
            for (k, &q) in q[first..][..format.block()].iter().enumerate() {
                for (j, dot) in dots.iter_mut().enumerate() {
                    let weight = match format {
                        QuantFormat::Four => {
                            (weights[weight_index(k % 16, j)] >> (k / 16 * 4)) & 15
                        }
                        _ => weights[weight_index(k, j)],
                    };
                    *dot += i32::from(weight) * i32::from(q);
                }
            }
            let input = &scales[first / INPUT_BLOCK * 4..][..4];
            let sum = match format {
                QuantFormat::EightBy16 => input[2 + b % 2],
                _ => input[1],
            };
            for j in 0..NR {
                sums[j] += scale[j] * input[0] * dots[j] as f32;
                sums[j] += min[j] * sum;
            }
        }
        out.put(row, &sums);
    }
}

/// Blocks of a format per block of inputs, and groups of four columns per block.
const fn shape(format: u8) -> (usize, usize) {
    if format == EIGHT_BY_16 { (2, 4) } else { (1, 8) }
}

/// Bytes of a block.
const fn block_bytes(format: u8) -> usize {
    SCALES + if format == EIGHT { 512 } else { 256 }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn vnni_rows<const FORMAT: u8>(panel: &[u8], x: Inputs<'_>, out: Out) {
    let mut row = 0;
    while row < x.m {
        row += match x.m - row {
            8.. => vnni::<FORMAT, 8>(panel, x, row, out),
            4.. => vnni::<FORMAT, 4>(panel, x, row, out),
            2.. => vnni::<FORMAT, 2>(panel, x, row, out),
            _ => vnni::<FORMAT, 1>(panel, x, row, out),
        };
    }
}

/// `M` rows from `row` on; returns `M`.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn vnni<const FORMAT: u8, const M: usize>(
    panel: &[u8],
    x: Inputs<'_>,
    row: usize,
    out: Out,
) -> usize {
    let (halves, groups) = shape(FORMAT);
    let low_bits = _mm512_set1_epi8(15);
    let q: [*const i8; M] = std::array::from_fn(|i| x.q.as_ptr().add((row + i) * x.cols));
    let scales: [*const f32; M] =
        std::array::from_fn(|i| x.scales.as_ptr().add((row + i) * x.cols / 8));
    let mut sums = [_mm512_setzero_ps(); M];
    let mut bytes = panel.as_ptr();
    for b in 0..x.cols / INPUT_BLOCK {
        for half in 0..halves {
            let scale = _mm512_cvtph_ps(_mm256_loadu_si256(bytes.cast()));
            let min = _mm512_cvtph_ps(_mm256_loadu_si256(bytes.add(SCALES / 2).cast()));
            let mut dots = [_mm512_setzero_si512(); M];
            let input = |i: usize, k: usize| {
                _mm512_set1_epi32(q[i].add(b * INPUT_BLOCK + k).cast::<i32>().read_unaligned())
            };
            if FORMAT == FOUR {
                for group in 0..4 {
                    let both = _mm512_loadu_si512(bytes.add(SCALES + group * 64).cast());
                    let low = _mm512_and_si512(both, low_bits);
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low_bits);
                    for i in 0..M {
                        dots[i] = _mm512_dpbusd_epi32(dots[i], low, input(i, group * 4));
                    }
                    for i in 0..M {
                        dots[i] = _mm512_dpbusd_epi32(dots[i], high, input(i, 16 + group * 4));
                    }
                }
            } else {
                for group in 0..groups {
                    let weights = _mm512_loadu_si512(bytes.add(SCALES + group * 64).cast());
                    for i in 0..M {
                        let k = half * 16 + group * 4;
                        dots[i] = _mm512_dpbusd_epi32(dots[i], weights, input(i, k));
                    }
                }
            }
            for i in 0..M {
                let at = scales[i].add(4 * b);
                let sum = if halves == 2 { *at.add(2 + half) } else { *at.add(1) };
                let both = _mm512_mul_ps(scale, _mm512_set1_ps(*at));
                sums[i] = _mm512_fmadd_ps(both, _mm512_cvtepi32_ps(dots[i]), sums[i]);
                sums[i] = _mm512_fmadd_ps(min, _mm512_set1_ps(sum), sums[i]);
            }
            bytes = bytes.add(block_bytes(FORMAT));
        }
    }
    let mask = ((1u32 << out.columns) - 1) as u16;
    for i in 0..M {
        let at = out.at.add((row + i) * out.row);
        let mut value = sums[i];
        if out.add {
            value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, at));
        }
        _mm512_mask_storeu_ps(at, mask, value);
    }
    M
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_rows<const FORMAT: u8>(panel: &[u8], x: Inputs<'_>, out: Out) {
    let mut row = 0;
    while row < x.m {
        row += match x.m - row {
            4.. => avx2::<FORMAT, 4>(panel, x, row, out),
            2.. => avx2::<FORMAT, 2>(panel, x, row, out),
            _ => avx2::<FORMAT, 1>(panel, x, row, out),
        };
    }
}

/// `M` rows from `row` on; returns `M`. Products of bytes go through 16 bits, so eight-bit weights are
/// multiplied as two halves of four bits, which cannot overflow.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const FORMAT: u8, const M: usize>(
    panel: &[u8],
    x: Inputs<'_>,
    row: usize,
    out: Out,
) -> usize {
    let (halves, groups) = shape(FORMAT);
    let (low_bits, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let sixteens = _mm256_set1_epi16(16);
    let mut results = [[0.0f32; NR]; M];
    // Eight of the panel's sixteen rows at a time.
    for side in 0..2 {
        let mut sums = [_mm256_setzero_ps(); M];
        let mut bytes = panel.as_ptr();
        for b in 0..x.cols / INPUT_BLOCK {
            for half in 0..halves {
                let f16s =
                    |at: usize| _mm256_cvtph_ps(_mm_loadu_si128(bytes.add(at + side * NR).cast()));
                let (scale, min) = (f16s(0), f16s(SCALES / 2));
                let mut dots = [_mm256_setzero_si256(); M];
                let groups = if FORMAT == FOUR { 4 } else { groups };
                for group in 0..groups {
                    let at = bytes.add(SCALES + group * 64 + side * 32);
                    let both = _mm256_loadu_si256(at.cast());
                    let low = _mm256_and_si256(both, low_bits);
                    let high = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low_bits);
                    // Four bits: the high halves are 16 columns on. Eight: they count sixteenfold.
                    let k = if FORMAT == FOUR { group * 4 } else { half * 16 + group * 4 };
                    let (high_k, factor) =
                        if FORMAT == FOUR { (16 + k, ones) } else { (k, sixteens) };
                    for i in 0..M {
                        let q = x.q.as_ptr().add((row + i) * x.cols + b * INPUT_BLOCK);
                        let input =
                            |k: usize| _mm256_set1_epi32(q.add(k).cast::<i32>().read_unaligned());
                        let a = _mm256_madd_epi16(_mm256_maddubs_epi16(low, input(k)), ones);
                        let h = _mm256_maddubs_epi16(high, input(high_k));
                        let c = _mm256_madd_epi16(h, factor);
                        dots[i] = _mm256_add_epi32(dots[i], _mm256_add_epi32(a, c));
                    }
                }
                for i in 0..M {
                    let at = x.scales.as_ptr().add((row + i) * x.cols / 8 + 4 * b);
                    let sum = if halves == 2 { *at.add(2 + half) } else { *at.add(1) };
                    let both = _mm256_mul_ps(scale, _mm256_set1_ps(*at));
                    sums[i] = _mm256_fmadd_ps(both, _mm256_cvtepi32_ps(dots[i]), sums[i]);
                    sums[i] = _mm256_fmadd_ps(min, _mm256_set1_ps(sum), sums[i]);
                }
                bytes = bytes.add(block_bytes(FORMAT));
            }
        }
        for i in 0..M {
            _mm256_storeu_ps(results[i].as_mut_ptr().add(side * 8), sums[i]);
        }
    }
    for (i, result) in results.iter().enumerate() {
        out.put(row + i, result);
    }
    M
}
