//! Attention of one new token per sequence: dot products with the cache as it lies, without the
//! rearrangement that pays for itself only over many queries.
#![allow(unsafe_op_in_unsafe_fn, reason = "pointer arithmetic throughout")]

use super::Heads;
use super::tiles::KEY_BLOCK;
use crate::activation::{exp_row, max_row, scale_row};
use crate::dispatch::{Path, kernel};
use crate::scratch;
use crate::simd::{LANES, Vector};

/// The query heads of one key head, for the last of `keys` tokens, which sees them from `first` on.
pub(super) struct Step<'a> {
    pub(super) heads: Heads,
    pub(super) scale: f32,
    pub(super) kv_head: usize,
    pub(super) first: usize,
    pub(super) keys: usize,
    pub(super) q: &'a [f32],
    /// In blocks of [`KEY_BLOCK`] keys.
    pub(super) k: &'a [&'a [f32]],
    pub(super) v: &'a [&'a [f32]],
}

/// Writes the heads of `out [width]` that belong to the key head.
///
/// # Safety
/// `path` is available, the slices hold what the heads need, and nobody else writes its part.
pub(super) unsafe fn step(path: Path, s: &Step<'_>, out: *mut f32) {
    let (d, group) = (s.heads.head_dim, s.heads.group());
    let (kw, at) = (s.heads.kv_width(), s.kv_head * d);
    let seen = s.keys - s.first;
    // Sixteen scores are stored at once, and a window may begin anywhere.
    let padded = seen.next_multiple_of(LANES) + LANES;
    scratch::with(group * padded, |scores: &mut [f32]| {
        let q = s.q[s.kv_head * group * d..].as_ptr();
        // Of each block its number, the position in it, the position among the scores, and the shape.
        let blocks = || {
            (s.first / KEY_BLOCK..s.keys.div_ceil(KEY_BLOCK)).map(|block| {
                let start = s.first.max(block * KEY_BLOCK);
                let keys = s.keys.min((block + 1) * KEY_BLOCK) - start;
                let within = (start - block * KEY_BLOCK) * kw + at;
                (block, within, start - s.first, Shape { d, keys, stride: kw, group, padded })
            })
        };
        for (block, within, start, shape) in blocks() {
            let k = s.k[block][within..].as_ptr();
            score(path, q, k, shape, s.scale, scores[start..].as_mut_ptr());
        }
        for row in scores.chunks_mut(padded) {
            let row = &mut row[..seen];
            let total = exp_row(path, row, 1.0, max_row(path, row));
            scale_row(path, row, 1.0 / total);
        }
        let out = out.add(s.kv_head * group * d);
        for (block, within, start, shape) in blocks() {
            let v = s.v[block][within..].as_ptr();
            weigh(path, scores[start..].as_ptr(), v, shape, start > 0, out);
        }
    });
}

#[derive(Clone, Copy)]
pub(super) struct Shape {
    d: usize,
    keys: usize,
    /// Values from key to key.
    stride: usize,
    group: usize,
    /// Scores from query to query.
    padded: usize,
}

kernel! {
    /// `scores [group, padded] = scale · q [group, d] · k [keys, d]ᵀ`, sixteen keys at a time.
    fn score<V>(q: *const f32, k: *const f32, s: Shape, scale: f32, scores: *mut f32) {
        unsafe {
            let tail = s.d % LANES;
            for first in (0..s.keys).step_by(LANES) {
                let len = LANES.min(s.keys - first);
                for g in 0..s.group {
                    let q = q.add(g * s.d);
                    let mut sums = [V::splat(0.0); LANES];
                    for (j, sum) in sums.iter_mut().enumerate().take(len) {
                        let k = k.add((first + j) * s.stride);
                        for i in (0..s.d - tail).step_by(LANES) {
                            *sum = V::load(q.add(i)).mul_add(V::load(k.add(i)), *sum);
                        }
                        if tail > 0 {
                            let i = s.d - tail;
                            let (q, k) = (q.add(i), k.add(i));
                            *sum = V::load_partial(q, tail).mul_add(V::load_partial(k, tail), *sum);
                        }
                    }
                    V::sums(sums).mul(V::splat(scale)).store(scores.add(g * s.padded + first));
                }
            }
        }
    }
}

/// Vectors of a value row that stay in registers.
const WIDE: usize = 4;

kernel! {
    /// `out [group, d] (+)= p [group, padded] · v [keys, d]`.
    fn weigh<V>(p: *const f32, v: *const f32, s: Shape, add: bool, out: *mut f32) {
        unsafe {
            let mut g = 0;
            while g < s.group {
                let (p, out) = (p.add(g * s.padded), out.add(g * s.d));
                g += match s.group - g {
                    3.. => weigh_rows::<V, 3>(p, v, s, add, out),
                    2 => weigh_rows::<V, 2>(p, v, s, add, out),
                    _ => weigh_rows::<V, 1>(p, v, s, add, out),
                };
            }
        }
    }
}

/// `G` queries; returns `G`.
#[inline(always)]
unsafe fn weigh_rows<V: Vector, const G: usize>(
    p: *const f32,
    v: *const f32,
    s: Shape,
    add: bool,
    out: *mut f32,
) -> usize {
    let mut i = 0;
    while i + WIDE * LANES <= s.d {
        let mut sums = [[V::splat(0.0); WIDE]; G];
        if add {
            for (g, sums) in sums.iter_mut().enumerate() {
                for (j, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(out.add(g * s.d + i + j * LANES));
                }
            }
        }
        for key in 0..s.keys {
            let v = v.add(key * s.stride + i);
            let values: [V; WIDE] = [
                V::load(v),
                V::load(v.add(LANES)),
                V::load(v.add(2 * LANES)),
                V::load(v.add(3 * LANES)),
            ];
            for (g, sums) in sums.iter_mut().enumerate() {
                let weight = V::splat(*p.add(g * s.padded + key));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = weight.mul_add(value, *sum);
                }
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            for (j, sum) in sums.iter().enumerate() {
                sum.store(out.add(g * s.d + i + j * LANES));
            }
        }
        i += WIDE * LANES;
    }
    while i < s.d {
        let n = LANES.min(s.d - i);
        for g in 0..G {
            let out = out.add(g * s.d + i);
            let mut sum = match (add, n == LANES) {
                (false, _) => V::splat(0.0),
                (true, true) => V::load(out),
                (true, false) => V::load_partial(out, n),
            };
            for key in 0..s.keys {
                let v = v.add(key * s.stride + i);
                let value = if n == LANES { V::load(v) } else { V::load_partial(v, n) };
                sum = V::splat(*p.add(g * s.padded + key)).mul_add(value, sum);
            }
            if n == LANES { sum.store(out) } else { sum.store_partial(out, n) }
        }
        i += LANES;
    }
    G
}
