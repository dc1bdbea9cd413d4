//! Sixteen `f32` lanes on every instruction set, and the functions written once over them.
//!
//! Every method is unsafe: the caller runs inside a function compiled for the instruction set (see
//! [`kernel!`](crate::dispatch::kernel)), and pointers are valid for what is read or written.
#![allow(unsafe_op_in_unsafe_fn, reason = "every line here is an intrinsic")]

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;

/// Lanes of a [`Vector`].
pub(crate) const LANES: usize = 16;

/// Sixteen `f32` lanes. Public for the bounds of public traits; nobody outside can name it.
pub trait Vector: Copy {
    /// Most rows of an accumulator tile, so that it stays in registers with [`Self::PANELS`].
    const ROWS: usize;
    /// Vectors in a row of an accumulator tile.
    const PANELS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(p: *const f32) -> Self;
    unsafe fn store(self, p: *mut f32);
    /// Loads `n < 16` lanes and zeros the others.
    unsafe fn load_partial(p: *const f32, n: usize) -> Self;
    /// Stores the first `n < 16` lanes.
    unsafe fn store_partial(self, p: *mut f32, n: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    unsafe fn min(self, other: Self) -> Self;
    /// `self * b + c`, fused where the hardware can.
    unsafe fn mul_add(self, b: Self, c: Self) -> Self;
    /// `self` where `key >= bound`, else 0.
    unsafe fn where_ge(self, key: Self, bound: Self) -> Self;
    unsafe fn sqrt(self) -> Self;
    /// `2^n` for a lane that holds `n + 1.5·2^23`, n in -126..=127.
    unsafe fn pow2_biased(self) -> Self;
    /// Sixteen pairs of bf16 as (first of each pair, second of each pair).
    unsafe fn load_pairs(p: *const f32) -> (Self, Self);
    /// `acc + a.0·b.0 + a.1·b.1` over lanes that hold pairs of bf16.
    unsafe fn dot_pairs(acc: Self, a: Self, b: Self) -> Self;

    /// Loads sixteen bf16.
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        let bits = p.cast::<[u16; LANES]>().read_unaligned();
        Self::load(bits.map(|b| f32::from_bits(u32::from(b) << 16)).as_ptr())
    }

    /// Rounds to bf16, ties to even; NaN stays NaN.
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        p.cast::<[u16; LANES]>().write_unaligned(self.lanes().map(crate::bf16::round));
    }

    #[inline(always)]
    unsafe fn lanes(self) -> [f32; LANES] {
        let mut lanes = [0.0; LANES];
        self.store(lanes.as_mut_ptr());
        lanes
    }

    /// Sum of the lanes, as a fixed tree.
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let mut l = self.lanes();
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                l[i] += l[i + half];
            }
            half /= 2;
        }
        l[0]
    }

    /// The sums of sixteen vectors, one per lane; each in a fixed order.
    #[inline(always)]
    unsafe fn sums(vectors: [Self; LANES]) -> Self {
        let mut sums = [0.0; LANES];
        for (sum, vector) in sums.iter_mut().zip(vectors) {
            *sum = vector.sum();
        }
        Self::load(sums.as_ptr())
    }

    /// Largest lane.
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        let mut l = self.lanes();
        let mut half = LANES / 2;
        while half > 0 {
            for i in 0..half {
                l[i] = l[i].max(l[i + half]);
            }
            half /= 2;
        }
        l[0]
    }

    /// `e^self`: 0 below -87.3, which includes -inf; capped above 88.3. Exactly 1 at 0.
    ///
    /// Range reduction by ln 2 in two parts (Cody and Waite), then a polynomial of degree 6; the
    /// error is below 2 ulp.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer.
        let low = Self::splat(-87.3);
        let x = self.max(low).min(Self::splat(88.3));
        let biased = x.mul_add(Self::splat(std::f32::consts::LOG2_E), Self::splat(ROUND));
        let n = biased.sub(Self::splat(ROUND));
        let r = n.mul_add(Self::splat(-0.693_359_4), x);
        let r = n.mul_add(Self::splat(2.121_944_4e-4), r);
        let mut p = Self::splat(1.987_569_2e-4);
        for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, Self::splat(c));
        }
        let p = p.mul_add(r.mul(r), r).add(Self::splat(1.0));
        p.mul(biased.pow2_biased()).where_ge(self, low)
    }

    /// `e^self` with a relative error below 1e-5, for what is rounded to bf16 anyway; 0 where it is too
    /// small for `f32`, which includes -inf; exactly 1 at 0. Not for values above 88.
    #[inline(always)]
    unsafe fn exp_rough(self) -> Self {
        self.exp()
    }

    /// `1 / (1 + e^-self)`.
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        let one = Self::splat(1.0);
        one.div(one.add(Self::splat(0.0).sub(self).exp()))
    }
}

/// Plain arrays, for any processor.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

impl Portable {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl Vector for Portable {
    const ROWS: usize = 3;
    const PANELS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; LANES])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(p.cast::<[f32; LANES]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        p.cast::<[f32; LANES]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        let mut lanes = [0.0; LANES];
        p.copy_to_nonoverlapping(lanes.as_mut_ptr(), n);
        Self(lanes)
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        p.copy_from_nonoverlapping(self.0.as_ptr(), n);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        // `f32::mul_add` is a library call where the target has no FMA.
        Self(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }
    #[inline(always)]
    unsafe fn where_ge(self, key: Self, bound: Self) -> Self {
        Self(std::array::from_fn(|i| if key.0[i] >= bound.0[i] { self.0[i] } else { 0.0 }))
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(self.0.map(f32::sqrt))
    }
    #[inline(always)]
    unsafe fn pow2_biased(self) -> Self {
        Self(self.0.map(|v| f32::from_bits(v.to_bits().wrapping_add(127) << 23)))
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> (Self, Self) {
        let bits = Self::load(p).0.map(f32::to_bits);
        (
            Self(bits.map(|b| f32::from_bits(b << 16))),
            Self(bits.map(|b| f32::from_bits(b & 0xffff_0000))),
        )
    }
    #[inline(always)]
    unsafe fn dot_pairs(_: Self, _: Self, _: Self) -> Self {
        unreachable!("this path has no bf16 products")
    }
}

/// Two 256-bit registers.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

#[cfg(target_arch = "x86_64")]
macro_rules! both {
    ($f:ident, $a:expr, $b:expr) => {
        Self($f($a.0, $b.0), $f($a.1, $b.1))
    };
}

#[cfg(target_arch = "x86_64")]
impl Vector for Avx2 {
    const ROWS: usize = 6;
    const PANELS: usize = 1;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm256_set1_ps(value), _mm256_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8)))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        _mm256_storeu_ps(p, self.0);
        _mm256_storeu_ps(p.add(8), self.1);
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
        both!(_mm256_add_ps, self, other)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps, self, other)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        both!(_mm256_div_ps, self, other)
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps, self, other)
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        both!(_mm256_min_ps, self, other)
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1))
    }
    #[inline(always)]
    unsafe fn where_ge(self, key: Self, bound: Self) -> Self {
        Self(
            _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_GE_OQ>(key.0, bound.0)),
            _mm256_and_ps(self.1, _mm256_cmp_ps::<_CMP_GE_OQ>(key.1, bound.1)),
        )
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(_mm256_sqrt_ps(self.0), _mm256_sqrt_ps(self.1))
    }
    #[inline(always)]
    unsafe fn pow2_biased(self) -> Self {
        let bias = _mm256_set1_epi32(127);
        let a = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_castps_si256(self.0), bias));
        let b = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_castps_si256(self.1), bias));
        Self(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b))
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> (Self, Self) {
        let v = Self::load(p);
        let (a, b) = (_mm256_castps_si256(v.0), _mm256_castps_si256(v.1));
        let high = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        (
            Self(
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(a)),
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(b)),
            ),
            Self(
                _mm256_castsi256_ps(_mm256_and_si256(a, high)),
                _mm256_castsi256_ps(_mm256_and_si256(b, high)),
            ),
        )
    }
    #[inline(always)]
    unsafe fn dot_pairs(_: Self, _: Self, _: Self) -> Self {
        unreachable!("this path has no bf16 products")
    }
}

/// One 512-bit register.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512(pub(crate) __m512);

#[cfg(target_arch = "x86_64")]
impl Vector for Avx512 {
    const ROWS: usize = 9;
    const PANELS: usize = 3;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(_mm512_loadu_ps(p))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32) {
        _mm512_storeu_ps(p, self.0);
    }
    /// `2^n · 2^r`, the latter as a polynomial of degree 4 over |r| ≤ 1/2.
    #[inline(always)]
    unsafe fn exp_rough(self) -> Self {
        let x = _mm512_mul_ps(self.0, _mm512_set1_ps(std::f32::consts::LOG2_E));
        // In this order NaN stays NaN.
        let x = _mm512_max_ps(_mm512_set1_ps(-200.0), x);
        let n = _mm512_roundscale_ps::<0>(x);
        let r = _mm512_sub_ps(x, n);
        let mut p = _mm512_set1_ps(9.582_83e-3);
        for c in [5.590_639e-2, 0.240_240_99, 0.693_124_2, 1.0] {
            p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
        }
        Self(_mm512_scalef_ps(p, n))
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> Self {
        let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut u16) {
        let bits = _mm512_castps_si512(self.0);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
        let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
        let rounded = _mm512_mask_mov_epi32(_mm512_add_epi32(bits, up), nan, quiet);
        let rounded = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(rounded));
        _mm256_storeu_si256(p.cast(), rounded);
    }
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, n: usize) -> Self {
        Self(_mm512_maskz_loadu_ps((1u16 << n) - 1, p))
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize) {
        _mm512_mask_storeu_ps(p, (1u16 << n) - 1, self.0);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(_mm512_add_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul_add(self, b: Self, c: Self) -> Self {
        Self(_mm512_fmadd_ps(self.0, b.0, c.0))
    }
    #[inline(always)]
    unsafe fn where_ge(self, key: Self, bound: Self) -> Self {
        let keep = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(key.0, bound.0);
        Self(_mm512_maskz_mov_ps(keep, self.0))
    }
    #[inline(always)]
    unsafe fn sqrt(self) -> Self {
        Self(_mm512_sqrt_ps(self.0))
    }
    #[inline(always)]
    unsafe fn pow2_biased(self) -> Self {
        let bits = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
        Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(bits)))
    }
    #[inline(always)]
    unsafe fn load_pairs(p: *const f32) -> (Self, Self) {
        let bits = _mm512_castps_si512(_mm512_loadu_ps(p));
        let high = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        (
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))),
            Self(_mm512_castsi512_ps(_mm512_and_si512(bits, high))),
        )
    }
    #[inline(always)]
    unsafe fn dot_pairs(acc: Self, a: Self, b: Self) -> Self {
        // A plain reinterpretation: `__m512bh` has no cast intrinsic from `__m512`.
        let pairs = |v: Self| std::mem::transmute::<__m512, __m512bh>(v.0);
        Self(_mm512_dpbf16_ps(acc.0, pairs(a), pairs(b)))
    }
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        _mm512_reduce_add_ps(self.0)
    }
    #[inline(always)]
    unsafe fn sums(v: [Self; LANES]) -> Self {
        // A tree that halves the number of vectors and of lanes per sum at each level.
        let mut fours = [_mm512_setzero_ps(); 4];
        for (i, four) in fours.iter_mut().enumerate() {
            let pair = |a: Self, b: Self| {
                _mm512_add_ps(_mm512_unpacklo_ps(a.0, b.0), _mm512_unpackhi_ps(a.0, b.0))
            };
            let (low, high) = (pair(v[4 * i], v[4 * i + 1]), pair(v[4 * i + 2], v[4 * i + 3]));
            *four = _mm512_add_ps(
                _mm512_shuffle_ps::<0x44>(low, high),
                _mm512_shuffle_ps::<0xee>(low, high),
            );
        }
        let eight = |a, b| {
            _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b))
        };
        let (low, high) = (eight(fours[0], fours[1]), eight(fours[2], fours[3]));
        Self(_mm512_add_ps(
            _mm512_shuffle_f32x4::<0x88>(low, high),
            _mm512_shuffle_f32x4::<0xdd>(low, high),
        ))
    }
    #[inline(always)]
    unsafe fn largest(self) -> f32 {
        _mm512_reduce_max_ps(self.0)
    }
}
