//! NEON: four 128-bit registers.
#![allow(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic")]

use std::arch::aarch64::*;
use std::arch::asm;

use super::{LANES, Vector};

/// Four 128-bit registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 4]);

/// The same intrinsic on each register of its operands.
macro_rules! each {
    ($f:ident, $($v:expr),+) => {
        Self([$f($($v.0[0]),+), $f($($v.0[1]),+), $f($($v.0[2]),+), $f($($v.0[3]),+)])
    };
}

impl Vector for Neon {
    // With four rows, a product of widened bf16 pairs still fits into 32 registers.
    const ROWS: usize = 4;
    const PANELS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([vdupq_n_f32(value); 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self([vld1q_f32(p), vld1q_f32(p.add(4)), vld1q_f32(p.add(8)), vld1q_f32(p.add(12))])
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        for (i, v) in self.0.into_iter().enumerate() {
            vst1q_f32(p.add(4 * i), v);
        }
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        let mut lanes = [0.0f32; LANES];
        p.copy_to_nonoverlapping(lanes.as_mut_ptr(), n);
        Self::load(lanes.as_ptr())
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        p.copy_from_nonoverlapping(self.lanes().as_ptr(), n);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        each!(vaddq_f32, self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        each!(vsubq_f32, self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        each!(vmulq_f32, self, other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        each!(vdivq_f32, self, other)
    }
    // `fmax` and `fmin` would let NaN through; on the other paths the second operand wins.
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        let larger = |a, b| vbslq_f32(vcgtq_f32(a, b), a, b);
        each!(larger, self, other)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        let smaller = |a, b| vbslq_f32(vcltq_f32(a, b), a, b);
        each!(smaller, self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        each!(vfmaq_f32, c, self, b)
    }
    #[inline(always)]
    unsafe fn where_ge(self, key: Self, bound: Self) -> Self {
        let keep = |v, key, bound| {
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), vcgeq_f32(key, bound)))
        };
        each!(keep, self, key, bound)
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        each!(vsqrtq_f32, self)
    }
    #[inline(always)]
    unsafe fn pow2_biased(self) -> Self {
        let power = |v| {
            let biased = vaddq_u32(vreinterpretq_u32_f32(v), vdupq_n_u32(127));
            vreinterpretq_f32_u32(vshlq_n_u32::<23>(biased))
        };
        each!(power, self)
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> (Self, Self) {
        let v = Self::load(p);
        let first = |v| vreinterpretq_f32_u32(vshlq_n_u32::<16>(vreinterpretq_u32_f32(v)));
        let second = |v| {
            let high = vdupq_n_u32(0xffff_0000);
            vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), high))
        };
        (each!(first, v), each!(second, v))
    }
    #[inline(always)]
    unsafe fn dot_pairs(acc: Self, a: Self, b: Self) -> Self {
        each!(bfdot, acc, a, b)
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // The tree of the default, lane by lane.
        let [a, b, c, d] = self.0;
        let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
        vpadds_f32(vadd_f32(vget_low_f32(four), vget_high_f32(four)))
    }
    #[inline(always)]
    unsafe fn sums(v: [Self; LANES]) -> Self {
        let four = |v: Self| vaddq_f32(vaddq_f32(v.0[0], v.0[2]), vaddq_f32(v.0[1], v.0[3]));
        let sums = |i: usize| {
            let low = vpaddq_f32(four(v[i]), four(v[i + 1]));
            vpaddq_f32(low, vpaddq_f32(four(v[i + 2]), four(v[i + 3])))
        };
        Self([sums(0), sums(4), sums(8), sums(12)])
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let [a, b, c, d] = self.0;
        vmaxnmvq_f32(vmaxnmq_f32(vmaxnmq_f32(a, b), vmaxnmq_f32(c, d)))
    }
}

/// `acc + a.0·b.0 + a.1·b.1` over four lanes that hold pairs of bf16.
///
/// The intrinsic `vbfdotq_f32` is not stable. Only a function with the target feature `bf16` may inline
/// this.
#[inline(always)]
unsafe fn bfdot(mut acc: float32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
    asm!(
        "bfdot {acc:v}.4s, {a:v}.8h, {b:v}.8h",
        acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
        options(pure, nomem, nostack, preserves_flags),
    );
    acc
}
