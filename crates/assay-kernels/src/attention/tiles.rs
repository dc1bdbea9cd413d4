//! The tiles of an attention: blocks of queries against blocks of keys of one key head.
//!
//! Key blocks start at the first key of a document, whatever the queries are, and a masked key adds
//! exact zeros. Hence a query has the same bits in any block and with any cache.

use std::ops::Range;

use super::{Heads, QUERY_BLOCK, Scores};
use crate::activation::{exp_rough_row, exp_row, max_row, scale_add_row, scale_row};
use crate::dispatch::kernel;
use crate::gemm::dot_kernel;
use crate::operand::{Products, scratch_len};
use crate::scratch;
use crate::simd::LANES;
use crate::values::Values;

/// Keys per block. Fixed, since it decides the order of the sums.
pub(super) const KEY_BLOCK: usize = 128;

/// Keys or values of one document, from its start.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    Whole(&'a [f32]),
    /// Blocks of [`KEY_BLOCK`] rows.
    Blocks(&'a [&'a [f32]]),
}

impl<'a> Rows<'a> {
    /// The rows from `start`, the first of a key block, at least to the end of that block.
    fn from(self, start: usize, width: usize) -> &'a [f32] {
        match self {
            Rows::Whole(rows) => &rows[start * width..],
            Rows::Blocks(blocks) => blocks[start / KEY_BLOCK],
        }
    }
}

/// One block of queries of one document and the query heads of one key head.
pub(super) struct Forward<'a> {
    pub(super) heads: Heads,
    pub(super) scores: Scores,
    pub(super) causal: bool,
    /// One key head, one query head: the values of a [`PositionBias`](super::PositionBias).
    pub(super) bias: Option<&'a [f32]>,
    pub(super) kv_head: usize,
    /// First query of the block, in `q`.
    pub(super) first: usize,
    pub(super) queries: usize,
    /// Keys before the first query of `q`.
    pub(super) past: usize,
    /// Keys of the document.
    pub(super) keys: usize,
    /// Queries of the document, from its start.
    pub(super) q: &'a [f32],
    pub(super) k: Rows<'a>,
    pub(super) v: Rows<'a>,
}

impl Forward<'_> {
    /// Multiply-adds, roughly.
    pub(super) fn work(&self) -> usize {
        let keys = self.scores.window.map_or(self.keys, |w| self.keys.min(w + self.queries));
        2 * self.queries * self.heads.group() * self.heads.head_dim * keys
    }

    /// Keys that query `i` of the block sees.
    fn visible(&self, i: usize) -> Range<usize> {
        let end = if self.causal { self.past + self.first + i + 1 } else { self.keys };
        self.scores.first_seen(end)..end
    }

    /// Bias of query `i` of the block for the keys from `start` on.
    fn bias(&self, i: usize, start: usize) -> Option<&[f32]> {
        self.bias.map(|bias| &bias[bias.len() / 2 + start - (self.first + i)..])
    }
}

/// Computes the block's rows and heads of `out [.., width]` and `lse [.., heads]`, both from the
/// document's first query.
///
/// # Safety
/// The path is available, the slices hold what the block needs, and nobody else writes its part.
pub(super) unsafe fn forward(
    products: Products,
    b: &Forward<'_>,
    out: *mut f32,
    lse: Option<*mut f32>,
) {
    let path = products.path;
    let (d, padded) = (b.heads.head_dim, b.heads.head_dim.next_multiple_of(LANES));
    let (group, rows) = (b.heads.group(), b.queries * b.heads.group());
    let width = b.heads.width();
    // The heads of one query are adjacent, so that one product takes them all.
    let (product_rows, stride) = if b.queries == 1 { (group, d) } else { (b.queries, width) };
    let scores = product_rows * KEY_BLOCK;
    let key = scratch_len(KEY_BLOCK, d);
    let left_scratch = scratch_len(product_rows, KEY_BLOCK.max(d));
    let sizes = [key, key, left_scratch, scores, rows * padded, 2 * rows];
    scratch::with(sizes.iter().sum(), |memory: &mut [f32]| {
        let [keys, values, left_scratch, scores, sums, state] = split(memory, sizes);
        let (max, total) = state.split_at_mut(rows);
        sums.fill(0.0);
        max.fill(f32::NEG_INFINITY);
        total.fill(0.0);
        let end = b.visible(b.queries - 1).end;
        let first_block = b.visible(0).start / KEY_BLOCK * KEY_BLOCK;
        for start in (first_block..end).step_by(KEY_BLOCK) {
            let len = KEY_BLOCK.min(end - start);
            let (kw, at) = (b.heads.kv_width(), b.kv_head * d);
            let keys_t = products.right_transposed(&b.k.from(start, kw)[at..], kw, (d, len), keys);
            let v = Values::F32(&b.v.from(start, kw)[at..]);
            let values = products.right(v, kw, (len, d), values);
            for first in (0..rows).step_by(product_rows) {
                let q = &b.q[b.first * width + (b.kv_head * group + first / b.queries) * d..];
                let q = products.left(q, stride, (product_rows, d), left_scratch);
                // SAFETY: the shapes of the scratch blocks above.
                unsafe {
                    let c = (scores.as_mut_ptr(), KEY_BLOCK);
                    products.multiply((product_rows, len, d), q, keys_t, c, false);
                    for i in 0..product_rows {
                        let row = first + i;
                        let visible = within(b.visible(row % b.queries), start, len);
                        let scores = &mut scores[i * KEY_BLOCK..][..len];
                        let sums = &mut sums[row * padded..][..padded];
                        let state = (&mut max[row], &mut total[row]);
                        let (scale, bias) = (b.scores.scale, b.bias(row % b.queries, start));
                        online_softmax(products, scores, visible, scale, bias, sums, state);
                    }
                    let p = products.left(scores, KEY_BLOCK, (product_rows, len), left_scratch);
                    let c = (sums[first * padded..].as_mut_ptr(), padded);
                    products.multiply((product_rows, padded, len), p, values, c, true);
                }
            }
        }
        for row in 0..rows {
            let (head, i) = (b.kv_head * group + row / b.queries, b.first + row % b.queries);
            let sums = &mut sums[row * padded..][..d];
            // SAFETY: the caller's contract.
            unsafe {
                scale_row(path, sums, 1.0 / total[row]);
                let at = i * b.heads.width() + head * d;
                out.add(at).copy_from_nonoverlapping(sums.as_ptr(), d);
                if let Some(lse) = lse {
                    *lse.add(i * b.heads.heads + head) = max[row] + total[row].ln();
                }
            }
        }
    });
}

/// The part of `keys` that lies in the block of `len` keys from `start`, counted from there.
fn within(keys: Range<usize>, start: usize, len: usize) -> Range<usize> {
    let end = keys.end.saturating_sub(start).min(len);
    keys.start.saturating_sub(start).min(end)..end
}

/// Zeros what is not visible and returns what is.
fn mask(row: &mut [f32], visible: Range<usize>) -> &mut [f32] {
    row[..visible.start].fill(0.0);
    row[visible.end..].fill(0.0);
    &mut row[visible]
}

/// Turns unscaled scores into weights relative to the running maximum and rescales what was summed so far.
unsafe fn online_softmax(
    products: Products,
    scores: &mut [f32],
    visible: Range<usize>,
    scale: f32,
    bias: Option<&[f32]>,
    sums: &mut [f32],
    (max, total): (&mut f32, &mut f32),
) {
    let path = products.path;
    let seen = mask(scores, visible.clone());
    if seen.is_empty() {
        return;
    }
    // SAFETY: the path is available.
    unsafe {
        let scale = match bias {
            Some(bias) => {
                scale_add_row(path, seen, scale, &bias[visible]);
                1.0
            }
            // The largest product must be that of the largest score.
            None if scale < 0.0 => {
                scale_row(path, seen, scale);
                1.0
            }
            None => scale,
        };
        let new = (scale * max_row(path, seen)).max(*max);
        if new > *max {
            let correction = (*max - new).exp();
            scale_row(path, sums, correction);
            *total *= correction;
            *max = new;
        }
        *total += weights(products, seen, scale, new);
    }
}

/// `exp(scale · scores - max)` in place and their sum, as exact as the products that follow.
unsafe fn weights(products: Products, scores: &mut [f32], scale: f32, max: f32) -> f32 {
    // SAFETY: the path is available.
    unsafe {
        if products.is_bf16() {
            exp_rough_row(products.path, scores, scale, max)
        } else {
            exp_row(products.path, scores, scale, max)
        }
    }
}

/// One document and one key head of the backward pass. Slices start at the document.
pub(super) struct Backward<'a> {
    pub(super) heads: Heads,
    pub(super) scores: Scores,
    pub(super) kv_head: usize,
    /// Tokens of the document.
    pub(super) len: usize,
    pub(super) dout: &'a [f32],
    pub(super) q: &'a [f32],
    pub(super) k: &'a [f32],
    pub(super) v: &'a [f32],
    pub(super) out: &'a [f32],
    pub(super) lse: &'a [f32],
}

/// Overwrites the document's and the heads' parts of the gradients.
///
/// # Safety
/// The path is available, the slices and gradients hold the document, and nobody else writes these
/// parts.
pub(super) unsafe fn backward(
    products: Products,
    b: &Backward<'_>,
    dq: *mut f32,
    dk: *mut f32,
    dv: *mut f32,
) {
    let path = products.path;
    let (d, padded) = (b.heads.head_dim, b.heads.head_dim.next_multiple_of(LANES));
    let (group, width, kw) = (b.heads.group(), b.heads.width(), b.heads.kv_width());
    let (key, query) = (scratch_len(KEY_BLOCK, padded), scratch_len(QUERY_BLOCK, padded));
    let score = scratch_len(QUERY_BLOCK, KEY_BLOCK);
    let rows = (b.len * group).next_multiple_of(LANES);
    let sizes = [key; 3]
        .into_iter()
        .chain([padded * KEY_BLOCK; 2])
        .chain([query; 4])
        .chain([score; 5])
        .chain([rows, rows * padded]);
    let sizes: [usize; 16] = sizes.collect::<Vec<_>>().try_into().expect("sixteen blocks");
    scratch::with(sizes.iter().sum(), |memory: &mut [f32]| {
        let [
            k_t,
            v_t,
            keys,
            dks,
            dvs,
            qs,
            q_ts,
            douts,
            dout_ts,
            p,
            ds,
            p_right,
            ds_left,
            ds_right,
            delta,
            dqs,
        ] = split(memory, sizes);
        let head = |g: usize| b.kv_head * group + g;
        for (row, delta) in delta[..b.len * group].iter_mut().enumerate() {
            let at = row % b.len * width + head(row / b.len) * d;
            // SAFETY: the path is available and the lengths agree.
            *delta = unsafe { dot_kernel(path, &b.dout[at..][..d], &b.out[at..][..d]) };
        }
        dqs.fill(0.0);
        for start in (0..b.len).step_by(KEY_BLOCK) {
            let len = KEY_BLOCK.min(b.len - start);
            let at = start * kw + b.kv_head * d;
            let k_t = products.right_transposed(&b.k[at..], kw, (d, len), k_t);
            let v_t = products.right_transposed(&b.v[at..], kw, (d, len), v_t);
            let keys = products.right(Values::F32(&b.k[at..]), kw, (len, d), keys);
            dks.fill(0.0);
            dvs.fill(0.0);
            // The last query that sees a key of the block is a window behind it.
            let end = b.scores.window.map_or(b.len, |w| b.len.min(start + len - 1 + w));
            for (first, g) in (start..end)
                .step_by(QUERY_BLOCK)
                .flat_map(|first| (0..group).map(move |g| (first, g)))
            {
                let queries = QUERY_BLOCK.min(b.len - first);
                let len = len.min(first + queries - start);
                let at = first * width + head(g) * d;
                let (q, dout) = (&b.q[at..], &b.dout[at..]);
                let q_t = products.left_transposed(q, width, (d, queries), q_ts);
                let dout_t = products.left_transposed(dout, width, (d, queries), dout_ts);
                let q = products.left(q, width, (queries, d), qs);
                let dout = products.left(dout, width, (queries, d), douts);
                // SAFETY: the shapes of the scratch blocks above.
                unsafe {
                    let across = (queries, len, d);
                    products.multiply(across, q, k_t, (p.as_mut_ptr(), KEY_BLOCK), false);
                    products.multiply(across, dout, v_t, (ds.as_mut_ptr(), KEY_BLOCK), false);
                    for i in 0..queries {
                        let row = first + i;
                        let visible = within(b.scores.first_seen(row + 1)..row + 1, start, len);
                        let p = mask(&mut p[i * KEY_BLOCK..][..len], visible.clone());
                        let ds = mask(&mut ds[i * KEY_BLOCK..][..len], visible);
                        let lse = b.lse[row * b.heads.heads + head(g)];
                        weights(products, p, b.scores.scale, lse);
                        score_gradient(path, p, delta[g * b.len + row], b.scores.scale, ds);
                    }
                    // Transposed, so that the scores need not be.
                    let to_keys = (d, len, queries);
                    let p_right =
                        products.right(Values::F32(p), KEY_BLOCK, (queries, len), p_right);
                    let dv_t = (dvs.as_mut_ptr(), KEY_BLOCK);
                    products.multiply(to_keys, dout_t, p_right, dv_t, true);
                    let ds_right =
                        products.right(Values::F32(ds), KEY_BLOCK, (queries, len), ds_right);
                    let dk_t = (dks.as_mut_ptr(), KEY_BLOCK);
                    products.multiply(to_keys, q_t, ds_right, dk_t, true);
                    let ds = products.left(ds, KEY_BLOCK, (queries, len), ds_left);
                    let dq = dqs[(g * b.len + first) * padded..].as_mut_ptr();
                    products.multiply((queries, padded, len), ds, keys, (dq, padded), true);
                }
            }
            for i in 0..len {
                let at = (start + i) * kw + b.kv_head * d;
                for c in 0..d {
                    // SAFETY: the caller's contract.
                    unsafe {
                        *dk.add(at + c) = dks[c * KEY_BLOCK + i];
                        *dv.add(at + c) = dvs[c * KEY_BLOCK + i];
                    }
                }
            }
        }
        for (row, values) in dqs.chunks_exact(padded).take(b.len * group).enumerate() {
            let at = row % b.len * width + head(row / b.len) * d;
            // SAFETY: the caller's contract.
            unsafe { dq.add(at).copy_from_nonoverlapping(values.as_ptr(), d) };
        }
    });
}

kernel! {
    /// `ds = scale · p · (ds - delta)`: softmax backward, where `ds` holds the gradient of `p`.
    fn score_gradient<V>(p: &[f32], delta: f32, scale: f32, ds: &mut [f32]) {
        unsafe {
            let whole = p.len() / LANES * LANES;
            let (delta_lanes, scale_lanes) = (V::splat(delta), V::splat(scale));
            for i in (0..whole).step_by(LANES) {
                let out = ds.as_mut_ptr().add(i);
                let p = V::load(p.as_ptr().add(i)).mul(scale_lanes);
                p.mul(V::load(out).sub(delta_lanes)).store(out);
            }
            for (ds, p) in ds[whole..].iter_mut().zip(&p[whole..]) {
                *ds = p * scale * (*ds - delta);
            }
        }
    }
}

/// Splits scratch memory into blocks.
fn split<const N: usize>(mut memory: &mut [f32], sizes: [usize; N]) -> [&mut [f32]; N] {
    sizes.map(|size| memory.split_off_mut(..size).expect("the sizes sum to the memory"))
}
