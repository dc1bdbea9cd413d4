//! VNNI where the processor has it, AVX2 elsewhere.

use std::arch::x86_64::*;

use super::{NR, Product, Sums, run};

/// One 512-bit register.
#[derive(Clone, Copy)]
struct Vnni(__m512i);

impl Sums for Vnni {
    const ROWS: usize = 9;
    const PANELS: usize = 3;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Vnni(_mm512_setzero_si512())
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> __m512i {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn dot(self, x: u32, w: __m512i) -> Self {
        Vnni(_mm512_dpbusd_epi32(self.0, _mm512_set1_epi32(x as i32), w))
    }
    #[inline(always)]
    unsafe fn lanes(self) -> [i32; NR] {
        std::mem::transmute(self.0)
    }
}

/// Two 256-bit registers.
#[derive(Clone, Copy)]
struct Avx2([__m256i; 2]);

impl Sums for Avx2 {
    const ROWS: usize = 4;
    const PANELS: usize = 1;
    /// Of each register: even and odd bytes, widened to 16 bits.
    type Weights = [[__m256i; 2]; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Avx2([_mm256_setzero_si256(); 2])
    }
    #[inline(always)]
    unsafe fn load(p: *const u32) -> Self::Weights {
        let halves = [_mm256_loadu_si256(p.cast()), _mm256_loadu_si256(p.add(8).cast())];
        halves.map(|w| {
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w));
            [even, _mm256_srai_epi16::<8>(w)]
        })
    }
    // `vpmaddubsw` would be shorter, but its sums of two products do not fit into 16 bits.
    #[inline(always)]
    unsafe fn dot(self, x: u32, w: Self::Weights) -> Self {
        let even = _mm256_set1_epi32((x & 0x00ff_00ff) as i32);
        let odd = _mm256_set1_epi32((x >> 8 & 0x00ff_00ff) as i32);
        let mut acc = self.0;
        for i in 0..2 {
            let sums = _mm256_madd_epi16(even, w[i][0]);
            let sums = _mm256_add_epi32(sums, _mm256_madd_epi16(odd, w[i][1]));
            acc[i] = _mm256_add_epi32(acc[i], sums);
        }
        Avx2(acc)
    }
    #[inline(always)]
    unsafe fn lanes(self) -> [i32; NR] {
        std::mem::transmute(self.0)
    }
}

/// # Safety
/// As [`super::product`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn vnni(p: &Product<'_>) {
    run::<Vnni>(p);
}

/// # Safety
/// As [`super::product`]; the processor has AVX-512.
pub(super) unsafe fn avx512(p: &Product<'_>) {
    if is_x86_feature_detected!("avx512vnni") { vnni(p) } else { avx2(p) }
}

/// # Safety
/// As [`super::product`]; the processor has AVX2.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2(p: &Product<'_>) {
    run::<Avx2>(p);
}
