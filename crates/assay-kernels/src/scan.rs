//! Similarities of one query to many rows, estimated from codes of four and of eight bits.
//!
//! Every estimate comes with what is needed to bound its error: with q̂ and x̂ the vectors that the codes stand
//! for, `|q·x − q̂·x̂| ≤ |q|·|x − x̂| + |q − q̂|·|x̂|` by the inequality of Cauchy and Schwarz. Norms and errors
//! are computed in `f64` and rounded up. Estimates are sums of integers, the same on every instruction set.
#![allow(unsafe_op_in_unsafe_fn, reason = "intrinsics throughout")]

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::dispatch::{Path, kernel};

/// Rows whose four-bit codes lie together; a word of a bitmap.
pub const SCAN_ROWS: usize = 64;
/// Values whose four-bit codes of a row lie together.
const GROUP: usize = 8;
/// Eight-bit rows are padded to a multiple of this.
const PADDING: usize = 64;
/// Steps that are tried for a row's four-bit codes, in units of its root mean square: about the best one for
/// normally distributed values (0.335; J. Max, Quantizing for minimum distortion, 1960) and its neighbours.
const STEPS: [f64; 5] = [0.25, 0.30, 0.335, 0.38, 0.45];

/// Bytes of [`SCAN_ROWS`] rows of `dims` values in four bits.
pub const fn coarse_bytes(dims: usize) -> usize {
    dims.div_ceil(GROUP) * GROUP / 2 * SCAN_ROWS
}

/// Bytes of a row of `dims` values in eight bits.
pub const fn fine_bytes(dims: usize) -> usize {
    dims.div_ceil(PADDING) * PADDING
}

/// What the codes of a row stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Coded {
    /// Difference between two codes.
    pub step: f32,
    /// At least the norm of the difference between the row and what its codes stand for.
    pub error: f32,
    /// At least the norm of what its codes stand for.
    pub norm: f32,
}

/// A query in eight bits.
pub struct CodedQuery {
    codes: Vec<i8>,
    sum: i32,
    step: f32,
    /// At least the norm of the query.
    pub norm: f32,
    /// At least the norm of the difference between the query and what its codes stand for.
    pub error: f32,
}

impl CodedQuery {
    /// Rounds `query` to eight bits, symmetrically. Values that are not finite give estimates that say nothing.
    pub fn new(query: &[f32]) -> Self {
        let step = largest(query) / 127.0;
        let mut codes = vec![0i8; fine_bytes(query.len())];
        if step > 0.0 {
            for (code, value) in codes.iter_mut().zip(query) {
                *code = (value / step).round_ties_even() as i8;
            }
        }
        let stands_for = codes.iter().map(|&c| f64::from(c) * f64::from(step));
        let error = query.iter().zip(stands_for).map(|(v, s)| (f64::from(*v) - s).powi(2)).sum();
        let norm = query.iter().map(|v| f64::from(*v).powi(2)).sum();
        let sum = codes.iter().map(|c| i32::from(*c)).sum();
        CodedQuery { codes, sum, step, norm: root_up(norm), error: root_up(error) }
    }
}

fn largest(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |l: f32, v| l.max(v.abs()))
}

/// A square root that is not too small.
fn root_up(square: f64) -> f32 {
    (square.sqrt() * (1.0 + 1e-6)) as f32
}

fn coded(row: &[f32], step: f32, stands_for: impl Fn(f32) -> f64) -> Coded {
    let (mut error, mut norm) = (0.0, 0.0);
    for value in row {
        let s = stands_for(*value) * f64::from(step);
        error += (f64::from(*value) - s).powi(2);
        norm += s * s;
    }
    Coded { step, error: root_up(error), norm: root_up(norm) }
}

/// The four-bit code of a value: c stands for `(c − 7.5)·step`.
fn coarse_code(value: f32, inverse: f32) -> u8 {
    // NaN becomes 0.
    (value * inverse + 8.0).clamp(0.0, 15.0) as u8
}

/// Codes row `lane` of the [`SCAN_ROWS`] in `codes`, which was all zeros there, in four bits.
///
/// # Panics
/// When `codes` is not [`coarse_bytes`] long or there are fewer rows.
pub fn code_coarse(row: &[f32], lane: usize, codes: &mut [u8]) -> Coded {
    assert!(codes.len() == coarse_bytes(row.len()) && lane < SCAN_ROWS, "code_coarse: shapes");
    let square: f64 = row.iter().map(|v| f64::from(*v).powi(2)).sum();
    let rms = (square / row.len().max(1) as f64).sqrt();
    let tried = STEPS.map(|step| {
        let step = (rms * step) as f32;
        let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
        (coded(row, step, |v| f64::from(coarse_code(v, inverse)) - 7.5), inverse)
    });
    let better = |a: (Coded, f32), b: (Coded, f32)| if b.0.error < a.0.error { b } else { a };
    let (best, inverse) = tried.into_iter().reduce(better).unwrap_or_default();
    for (group, values) in codes.chunks_exact_mut(4 * SCAN_ROWS).zip(row.chunks(GROUP)) {
        for (i, value) in values.iter().enumerate() {
            group[4 * lane + i % 4] |= coarse_code(*value, inverse) << (4 * (i / 4));
        }
    }
    best
}

/// Codes a row in eight bits: c stands for `(c − 128)·step`.
///
/// # Panics
/// When `codes` is not [`fine_bytes`] long.
pub fn code_fine(row: &[f32], codes: &mut [u8]) -> Coded {
    assert_eq!(codes.len(), fine_bytes(row.len()), "code_fine: shapes");
    let step = largest(row) / 127.0;
    let inverse = if step > 0.0 { 1.0 / step } else { 0.0 };
    let code = |value: f32| (value * inverse).round_ties_even() as i8;
    codes.fill(128);
    for (c, value) in codes.iter_mut().zip(row) {
        *c = (i16::from(code(*value)) + 128) as u8;
    }
    coded(row, step, |v| f64::from(code(v)))
}

/// Estimated similarities of `query` to rows coded by [`code_coarse`], [`SCAN_ROWS`] to a word of `allowed`;
/// those of a word without a bit are left as they are.
///
/// # Panics
/// When the lengths disagree.
pub fn scan_coarse(
    query: &CodedQuery,
    dims: usize,
    codes: &[u8],
    steps: &[f32],
    allowed: &[u64],
    out: &mut [f32],
) {
    let bytes = coarse_bytes(dims);
    let rows = allowed.len() * SCAN_ROWS;
    assert!(
        codes.len() == allowed.len() * bytes && steps.len() == rows && out.len() == rows,
        "scan_coarse: rows"
    );
    assert!(query.codes.len() == fine_bytes(dims), "scan_coarse: dims");
    let path = Path::current();
    let half = 0.5 * query.step;
    for (i, _) in allowed.iter().enumerate().filter(|(_, word)| **word != 0) {
        let codes = &codes[i * bytes..][..bytes];
        let mut dots = [0; SCAN_ROWS];
        // SAFETY: the path is available and the lengths agree.
        unsafe { coarse_dots(path, &query.codes, codes, &mut dots) };
        let rows = i * SCAN_ROWS..(i + 1) * SCAN_ROWS;
        for ((out, step), dot) in out[rows.clone()].iter_mut().zip(&steps[rows]).zip(dots) {
            *out = (2 * dot - 15 * query.sum) as f32 * (step * half);
        }
    }
}

/// Rows that are asked for from memory before they are read.
const AHEAD: usize = 8;

/// Estimated similarities of `query` to some `rows` coded by [`code_fine`], of which `codes` and `steps` hold all;
/// in their order.
///
/// # Panics
/// When a row is not there, or the lengths disagree.
pub fn scan_fine(query: &CodedQuery, codes: &[u8], steps: &[f32], rows: &[u32], out: &mut [f32]) {
    let bytes = query.codes.len();
    assert_eq!(rows.len(), out.len(), "scan_fine: lengths");
    let path = Path::current();
    let row = |row: u32| &codes[row as usize * bytes..][..bytes];
    for (i, (out, &own)) in out.iter_mut().zip(rows).enumerate() {
        if let Some(&next) = rows.get(i + AHEAD) {
            prefetch(row(next));
        }
        // SAFETY: the path is available and the lengths agree.
        let dot = unsafe { fine_dot(path, &query.codes, row(own)) };
        *out = (dot - 128 * query.sum) as f32 * (steps[own as usize] * query.step);
    }
}

/// Asks for bytes that are read soon.
fn prefetch(bytes: &[u8]) {
    #[cfg(target_arch = "x86_64")]
    for line in bytes.chunks(64) {
        // SAFETY: the address is valid, and SSE belongs to every x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = bytes;
}

/// # Safety
/// `path` is available, `codes` are [`SCAN_ROWS`] rows, `query` has a code for each of their values.
unsafe fn coarse_dots(path: Path, query: &[i8], codes: &[u8], dots: &mut [i32; SCAN_ROWS]) {
    #[cfg(target_arch = "x86_64")]
    {
        if path >= Path::Avx512 && is_x86_feature_detected!("avx512vnni") {
            return coarse_vnni(query, codes, dots);
        }
        if path >= Path::Avx2 {
            return coarse_avx2(query, codes, dots);
        }
    }
    let _ = path;
    for (group, query) in codes.chunks_exact(4 * SCAN_ROWS).zip(query.chunks_exact(GROUP)) {
        let query: [i32; GROUP] = std::array::from_fn(|i| i32::from(query[i]));
        for (dot, codes) in dots.iter_mut().zip(group.as_chunks::<4>().0) {
            for (i, code) in codes.iter().enumerate() {
                *dot += i32::from(code & 15) * query[i] + i32::from(code >> 4) * query[4 + i];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn coarse_vnni(query: &[i8], codes: &[u8], dots: &mut [i32; SCAN_ROWS]) {
    let low_bits = _mm512_set1_epi8(15);
    let mut low = [_mm512_setzero_si512(); 4];
    let mut high = [_mm512_setzero_si512(); 4];
    let (mut at, mut query) = (codes.as_ptr(), query.as_ptr());
    for _ in 0..codes.len() / (4 * SCAN_ROWS) {
        let first = _mm512_set1_epi32(query.cast::<i32>().read_unaligned());
        let second = _mm512_set1_epi32(query.add(4).cast::<i32>().read_unaligned());
        for i in 0..4 {
            let both = _mm512_loadu_si512(at.add(64 * i).cast());
            low[i] = _mm512_dpbusd_epi32(low[i], _mm512_and_si512(both, low_bits), first);
            let upper = _mm512_and_si512(_mm512_srli_epi16::<4>(both), low_bits);
            high[i] = _mm512_dpbusd_epi32(high[i], upper, second);
        }
        (at, query) = (at.add(4 * SCAN_ROWS), query.add(GROUP));
    }
    for i in 0..4 {
        let sum = _mm512_add_epi32(low[i], high[i]);
        _mm512_storeu_si512(dots.as_mut_ptr().add(16 * i).cast(), sum);
    }
}

/// Sums of four products of at most 15·127 fit in the 16 bits that they go through.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn coarse_avx2(query: &[i8], codes: &[u8], dots: &mut [i32; SCAN_ROWS]) {
    let (low_bits, ones) = (_mm256_set1_epi8(15), _mm256_set1_epi16(1));
    let mut sums = [_mm256_setzero_si256(); 8];
    let (mut at, mut query) = (codes.as_ptr(), query.as_ptr());
    for _ in 0..codes.len() / (4 * SCAN_ROWS) {
        let first = _mm256_set1_epi32(query.cast::<i32>().read_unaligned());
        let second = _mm256_set1_epi32(query.add(4).cast::<i32>().read_unaligned());
        for (i, sum) in sums.iter_mut().enumerate() {
            let both = _mm256_loadu_si256(at.add(32 * i).cast());
            let low = _mm256_maddubs_epi16(_mm256_and_si256(both, low_bits), first);
            let upper = _mm256_and_si256(_mm256_srli_epi16::<4>(both), low_bits);
            let pairs = _mm256_add_epi16(low, _mm256_maddubs_epi16(upper, second));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
        (at, query) = (at.add(4 * SCAN_ROWS), query.add(GROUP));
    }
    for (i, sum) in sums.iter().enumerate() {
        _mm256_storeu_si256(dots.as_mut_ptr().add(8 * i).cast(), *sum);
    }
}

/// # Safety
/// `path` is available, and the lengths agree and are multiples of [`PADDING`].
unsafe fn fine_dot(path: Path, query: &[i8], codes: &[u8]) -> i32 {
    #[cfg(target_arch = "x86_64")]
    if path >= Path::Avx512 && is_x86_feature_detected!("avx512vnni") {
        return fine_vnni(query, codes);
    }
    integer_dot(path, query, codes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn fine_vnni(query: &[i8], codes: &[u8]) -> i32 {
    let mut sum = _mm512_setzero_si512();
    for i in (0..codes.len()).step_by(PADDING) {
        let codes = _mm512_loadu_si512(codes.as_ptr().add(i).cast());
        sum = _mm512_dpbusd_epi32(sum, codes, _mm512_loadu_si512(query.as_ptr().add(i).cast()));
    }
    _mm512_reduce_add_epi32(sum)
}

kernel! {
    /// Left to the compiler, which knows the instruction set.
    fn integer_dot<V>(query: &[i8], codes: &[u8]) -> i32 {
        query.iter().zip(codes).map(|(q, c)| i32::from(i16::from(*q)) * i32::from(i16::from(*c))).sum()
    }
}

/// Adds what one term gives to the BM25 scores of chunks: `weight · count / (count + norm)`, nothing where the
/// count is 0. The same bits as that expression in `f32`.
///
/// # Panics
/// When the lengths differ.
pub fn add_saturated(counts: &[u8], norms: &[f32], weight: f32, scores: &mut [f32]) {
    assert!(counts.len() == norms.len() && counts.len() == scores.len(), "add_saturated: lengths");
    // SAFETY: the path is available and the lengths agree.
    unsafe { saturated(Path::current(), counts, norms, weight, scores) }
}

kernel! {
    /// Left to the compiler, which knows the instruction set.
    fn saturated<V>(counts: &[u8], norms: &[f32], weight: f32, scores: &mut [f32]) {
        for ((score, count), norm) in scores.iter_mut().zip(counts).zip(norms) {
            let count = f32::from(*count);
            *score += weight * (count / (count + norm));
        }
    }
}
