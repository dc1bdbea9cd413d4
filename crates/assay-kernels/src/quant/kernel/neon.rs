//! NEON, with `sdot` where the processor has it.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{
    EIGHT, EIGHT_BY_16, FOUR, INPUT_BLOCK, Inputs, NR, Out, QuantFormat, SCALES, block_bytes,
    put_scales, scale_of, shape,
};

pub(super) unsafe fn quantise(x: &[f32], q: &mut [i8], scales: &mut [f32]) {
    for (b, scales) in scales.chunks_exact_mut(4).enumerate() {
        let at = x.as_ptr().add(b * INPUT_BLOCK);
        let values: [float32x4_t; 8] = std::array::from_fn(|i| vld1q_f32(at.add(4 * i)));
        let mut largest = vdupq_n_u32(0);
        for value in values {
            largest = vmaxq_u32(largest, vreinterpretq_u32_f32(vabsq_f32(value)));
        }
        let (scale, inverse) = scale_of(f32::from_bits(vmaxvq_u32(largest)));
        let mut sums = [0; 2];
        for half in 0..2 {
            let rounded =
                |i: usize| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(values[4 * half + i], inverse)));
            let low = vqmovn_s16(vcombine_s16(rounded(0), rounded(1)));
            let high = vqmovn_s16(vcombine_s16(rounded(2), rounded(3)));
            let all = vcombine_s8(low, high);
            sums[half] = i32::from(vaddlvq_s8(all));
            vst1q_s8(q.as_mut_ptr().add(b * INPUT_BLOCK + half * 16), all);
        }
        put_scales(scales, scale, sums);
    }
}

/// All rows of `x` against one panel.
///
/// # Safety
/// As [`super::panel`]; `SDOT` needs the feature `dotprod`.
pub(super) unsafe fn panel<const SDOT: bool>(
    format: QuantFormat,
    panel: &[u8],
    x: Inputs<'_>,
    out: Out,
) {
    #[target_feature(enable = "dotprod")]
    unsafe fn with_sdot<const FORMAT: u8>(panel: &[u8], x: Inputs<'_>, out: Out) {
        all_rows::<FORMAT, true>(panel, x, out);
    }
    match (format, SDOT) {
        (QuantFormat::Four, true) => with_sdot::<FOUR>(panel, x, out),
        (QuantFormat::Eight, true) => with_sdot::<EIGHT>(panel, x, out),
        (QuantFormat::EightBy16, true) => with_sdot::<EIGHT_BY_16>(panel, x, out),
        (QuantFormat::Four, false) => all_rows::<FOUR, false>(panel, x, out),
        (QuantFormat::Eight, false) => all_rows::<EIGHT, false>(panel, x, out),
        (QuantFormat::EightBy16, false) => all_rows::<EIGHT_BY_16, false>(panel, x, out),
    }
}

#[inline(always)]
unsafe fn all_rows<const FORMAT: u8, const SDOT: bool>(panel: &[u8], x: Inputs<'_>, out: Out) {
    let mut row = 0;
    while row < x.m {
        row += match x.m - row {
            4.. => rows::<FORMAT, SDOT, 4>(panel, x, row, out),
            2.. => rows::<FORMAT, SDOT, 2>(panel, x, row, out),
            _ => rows::<FORMAT, SDOT, 1>(panel, x, row, out),
        };
    }
}

/// `M` rows from `row` on; returns `M`. Both factors of a product are signed, so weights of eight bits
/// lose 128 and the sum of their inputs makes up for it.
#[inline(always)]
unsafe fn rows<const FORMAT: u8, const SDOT: bool, const M: usize>(
    panel: &[u8],
    x: Inputs<'_>,
    row: usize,
    out: Out,
) -> usize {
    let (halves, groups) = shape(FORMAT);
    let (low_bits, sign) = (vdupq_n_u8(15), vdupq_n_u8(128));
    let q: [*const i8; M] = std::array::from_fn(|i| x.q.as_ptr().add((row + i) * x.cols));
    let scales: [*const f32; M] =
        std::array::from_fn(|i| x.scales.as_ptr().add((row + i) * x.cols / 8));
    let mut sums = [[vdupq_n_f32(0.0); 4]; M];
    let mut bytes = panel.as_ptr();
    for b in 0..x.cols / INPUT_BLOCK {
        for half in 0..halves {
            // Four columns of a row, as often as a register has rows of weights.
            let input = |i: usize, k: usize| {
                let four = q[i].add(b * INPUT_BLOCK + half * 16 + k).cast::<i32>();
                vreinterpretq_s8_s32(vdupq_n_s32(four.read_unaligned()))
            };
            let mut dots = [[vdupq_n_s32(0); 4]; M];
            if FORMAT == FOUR {
                for group in 0..4 {
                    let (low_k, high_k) = (group * 4, 16 + group * 4);
                    for r in 0..4 {
                        let both = vld1q_u8(bytes.add(SCALES + group * 64 + r * 16));
                        let low = vreinterpretq_s8_u8(vandq_u8(both, low_bits));
                        let high = vreinterpretq_s8_u8(vshrq_n_u8::<4>(both));
                        for i in 0..M {
                            dots[i][r] = dot::<SDOT>(dots[i][r], low, input(i, low_k));
                            dots[i][r] = dot::<SDOT>(dots[i][r], high, input(i, high_k));
                        }
                    }
                }
            } else {
                for i in 0..M {
                    let mut sum = 0;
                    for first in (0..groups * 4).step_by(16) {
                        let at = q[i].add(b * INPUT_BLOCK + half * 16 + first);
                        sum += i32::from(vaddlvq_s8(vld1q_s8(at)));
                    }
                    dots[i] = [vdupq_n_s32(128 * sum); 4];
                }
                for group in 0..groups {
                    for r in 0..4 {
                        let weights = vld1q_u8(bytes.add(SCALES + group * 64 + r * 16));
                        let weights = vreinterpretq_s8_u8(veorq_u8(weights, sign));
                        for i in 0..M {
                            dots[i][r] = dot::<SDOT>(dots[i][r], weights, input(i, group * 4));
                        }
                    }
                }
            }
            for r in 0..4 {
                let f16s = |at: usize| {
                    let bits = vld1_u16(bytes.add(at + r * 8).cast());
                    vcvt_f32_f16(vreinterpret_f16_u16(bits))
                };
                let (scale, min) = (f16s(0), f16s(SCALES / 2));
                for i in 0..M {
                    let at = scales[i].add(4 * b);
                    let sum = if halves == 2 { *at.add(2 + half) } else { *at.add(1) };
                    let both = vmulq_n_f32(scale, *at);
                    sums[i][r] = vfmaq_f32(sums[i][r], both, vcvtq_f32_s32(dots[i][r]));
                    sums[i][r] = vfmaq_n_f32(sums[i][r], min, sum);
                }
            }
            bytes = bytes.add(block_bytes(FORMAT));
        }
    }
    for i in 0..M {
        let mut result = [0.0f32; NR];
        for r in 0..4 {
            vst1q_f32(result.as_mut_ptr().add(4 * r), sums[i][r]);
        }
        out.put(row + i, &result);
    }
    M
}

/// Adds to each of four sums the products of its four bytes.
///
/// Without `sdot` two products are added in 16 bits: inputs are within ±127 and weights within ±128,
/// so they fit.
#[inline(always)]
unsafe fn dot<const SDOT: bool>(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    if SDOT {
        // The intrinsic `vdotq_s32` is not stable.
        asm!(
            "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
            acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
        acc
    } else {
        let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(a, b)))
    }
}
