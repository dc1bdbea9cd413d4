//! NEON with `sdot`; without it the portable kernel serves.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{NR, Product, Sums, run};

/// Four 128-bit registers.
#[derive(Clone, Copy)]
struct Sdot([int32x4_t; 4]);

impl Sums for Sdot {
    const ROWS: usize = 4;
    const PANELS: usize = 1;
    const SHIFT: i32 = 128;
    type Weights = [int8x16_t; 4];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Sdot([vdupq_n_s32(0); 4])
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self::Weights {
        std::array::from_fn(|i| vld1q_s8(p.add(4 * i).cast()))
    }
    // `sdot` wants both sides signed.
    #[inline(always)]
    unsafe fn dot(self, x: u32, w: Self::Weights) -> Self {
        let x = vreinterpretq_s8_u32(vdupq_n_u32(x ^ 0x8080_8080));
        Sdot(std::array::from_fn(|i| sdot_of(self.0[i], x, w[i])))
    }
    #[inline(always)]
    unsafe fn lanes(self) -> [i32; NR] {
        std::mem::transmute(self.0)
    }
}

/// Adds to each of four sums the products of its four bytes. The intrinsic `vdotq_s32` is not stable.
#[inline(always)]
unsafe fn sdot_of(mut acc: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    asm!(
        "sdot {acc:v}.4s, {a:v}.16b, {b:v}.16b",
        acc = inout(vreg) acc, a = in(vreg) a, b = in(vreg) b,
        options(pure, nomem, nostack, preserves_flags),
    );
    acc
}

/// # Safety
/// As [`super::product`]; the processor has `sdot`.
#[target_feature(enable = "dotprod")]
pub(super) unsafe fn sdot(p: &Product<'_>) {
    run::<Sdot>(p);
}
