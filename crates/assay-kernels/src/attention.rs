//! Softmax attention over packed documents and over caches.
//!
//! Activations are `[tokens, heads * head_dim]`. With fewer key heads than query heads, query head
//! `h` reads key head `h / (heads / kv_heads)` (grouped queries, Ainslie et al. 2023).
//! `segments` are cumulative starts, `[0, …, tokens]`: document `s` is
//! `segments[s]..segments[s + 1]`, and no token sees another document.
//!
//! Sums and softmax are `f32`. With [`Precision::Bf16`] the factors of the products are rounded to bf16 on
//! processors that multiply it, as PyTorch's attention does with bf16 tensors; elsewhere they stay `f32`.

mod step;
mod tiles;

use crate::dispatch::Path;
use crate::gemm::Shared;
use crate::operand::Products;
use crate::packed::Precision;
use crate::team;
use step::Step;
use tiles::{Backward, Forward, KEY_BLOCK, Rows};

/// Queries per task.
const QUERY_BLOCK: usize = 64;

/// Tokens in each block of a cache but the last: the keys that are multiplied at once, so that a
/// cache in blocks costs nothing.
pub const CACHE_BLOCK: usize = KEY_BLOCK;

/// Shape of the heads of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of one head.
    pub head_dim: usize,
}

impl Heads {
    /// Width of a query row.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of a key or value row.
    pub fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Query heads per key head.
    pub fn group(&self) -> usize {
        assert_eq!(self.heads % self.kv_heads, 0, "heads are no multiple of the key heads");
        self.heads / self.kv_heads
    }
}

/// How a causal attention weighs keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scores {
    /// Factor on the product of query and key, mostly `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Keys that a query sees at most, its own the last of them; at least 1. `None`: all before it.
    pub window: Option<usize>,
    /// Of the factors of products.
    pub precision: Precision,
}

impl Scores {
    /// First key that a query sees whose last is `end - 1`.
    fn first_seen(self, end: usize) -> usize {
        self.window.map_or(0, |window| end.saturating_sub(window))
    }
}

/// Causal attention within each segment.
///
/// `q`, `out`: `[t, heads * head_dim]`; `k`, `v`: `[t, kv_heads * head_dim]`; `lse [t, heads]`
/// receives the log of each query's softmax denominator for [`attention_backward`]. Tiled: no
/// `t × t` matrix exists (Dao et al. 2022).
///
/// # Panics
/// When a length does not match its shape.
pub fn attention_forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[usize],
    heads: Heads,
    scores: Scores,
    out: &mut [f32],
    lse: &mut [f32],
) {
    let t = check(q, k, v, segments, heads);
    assert_eq!(out.len(), q.len(), "attention: output length");
    assert_eq!(lse.len(), t * heads.heads, "attention: lse length");
    packed_forward(q, k, v, segments, heads, scores, true, None, out, Some(lse));
}

/// Backward of [`attention_forward`]; `dq`, `dk`, `dv` are overwritten.
///
/// # Panics
/// When a length does not match its shape.
pub fn attention_backward(
    dout: &[f32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &[f32],
    lse: &[f32],
    segments: &[usize],
    heads: Heads,
    scores: Scores,
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let t = check(q, k, v, segments, heads);
    for len in [dout.len(), out.len(), dq.len()] {
        assert_eq!(len, q.len(), "attention_backward: query-side length");
    }
    for len in [dk.len(), dv.len()] {
        assert_eq!(len, k.len(), "attention_backward: key-side length");
    }
    assert_eq!(lse.len(), t * heads.heads, "attention_backward: lse length");
    let products = Products::new(Path::current(), scores.precision);
    let (dq, dk) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()));
    let dv = Shared(dv.as_mut_ptr());
    let tasks: Vec<(usize, usize)> = (0..segments.len().saturating_sub(1))
        .flat_map(|s| (0..heads.kv_heads).map(move |h| (s, h)))
        .collect();
    team::consume(tasks.into_iter(), |(s, kv_head)| {
        let (start, len) = (segments[s], segments[s + 1] - segments[s]);
        let (q_at, kv_at) = (start * heads.width(), start * heads.kv_width());
        let task = Backward {
            heads,
            scores,
            kv_head,
            len,
            dout: &dout[q_at..],
            q: &q[q_at..],
            k: &k[kv_at..],
            v: &v[kv_at..],
            out: &out[q_at..],
            lse: &lse[start * heads.heads..],
        };
        // SAFETY: tasks differ in segment or key head, so they write disjoint parts of the
        // gradients, whose lengths were checked.
        unsafe {
            let (dq, dk, dv) = (dq.get().add(q_at), dk.get().add(kv_at), dv.get().add(kv_at));
            tiles::backward(products, &task, dq, dk, dv);
        }
    });
}

/// What the distance of a key from a query adds to their score, after the scale: MPNet's and T5's
/// relative positions (Raffel et al. 2020).
#[derive(Debug, Clone, Copy)]
pub struct PositionBias<'a> {
    /// `[heads, 2 * reach - 1]`: the value for key `j` and query `i` of a segment stands at
    /// `j + reach - 1 - i`.
    pub values: &'a [f32],
    /// Longest segment.
    pub reach: usize,
}

impl<'a> PositionBias<'a> {
    /// Values of one head.
    fn head(self, head: usize) -> &'a [f32] {
        let len = 2 * self.reach - 1;
        &self.values[head * len..][..len]
    }
}

/// Attention of every token to every token of its segment: an encoder's. Shapes as
/// [`attention_forward`] with `kv_heads == heads`.
///
/// # Panics
/// When a length does not match its shape, or a segment is longer than the reach of the bias.
pub fn attention_bidirectional(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[usize],
    heads: usize,
    head_dim: usize,
    scale: f32,
    bias: Option<PositionBias<'_>>,
    precision: Precision,
    out: &mut [f32],
) {
    let heads = Heads { heads, kv_heads: heads, head_dim };
    check(q, k, v, segments, heads);
    if let Some(bias) = bias {
        let longest = segments.windows(2).map(|s| s[1] - s[0]).max().unwrap_or(0);
        assert!(longest <= bias.reach, "attention: a segment beyond the reach of the bias");
        let len = (2 * bias.reach).saturating_sub(1);
        assert_eq!(bias.values.len(), heads.heads * len, "attention: bias length");
    }
    assert_eq!(out.len(), q.len(), "attention: output length");
    let scores = Scores { scale, window: None, precision };
    packed_forward(q, k, v, segments, heads, scores, false, bias, out, None);
}

/// Causal attention of `n` new tokens to a cache that ends with them.
///
/// `q`, `out`: `[n, heads * head_dim]`; `k_cache`, `v_cache`: at least
/// `[past + n, kv_heads * head_dim]`, where further rows are ignored. New token `i` sees cache rows
/// `0..=past + i`. A query has the same bits here as in [`attention_forward`] over the whole text.
///
/// # Panics
/// When a length does not match its shape.
pub fn attention_cached(
    q: &[f32],
    k_cache: &[f32],
    v_cache: &[f32],
    past: usize,
    heads: Heads,
    scores: Scores,
    out: &mut [f32],
) {
    let block = CACHE_BLOCK * heads.kv_width();
    let (keys, values): (Vec<_>, Vec<_>) =
        (k_cache.chunks(block).collect(), v_cache.chunks(block).collect());
    let (k_cache, v_cache) = (&keys[..], &values[..]);
    attention_decode(&mut [CachedQuery { q, k_cache, v_cache, past, out }], heads, scores);
}

/// New tokens of one sequence and its cache; see [`attention_cached`] for the shapes.
#[derive(Debug)]
pub struct CachedQuery<'a> {
    /// Queries of the new tokens.
    pub q: &'a [f32],
    /// Keys of the past and the new tokens, in blocks of [`CACHE_BLOCK`] tokens; the last one may
    /// be shorter. Sequences may share blocks.
    pub k_cache: &'a [&'a [f32]],
    /// Values of the past and the new tokens, in blocks alike.
    pub v_cache: &'a [&'a [f32]],
    /// Tokens in the cache before the new ones.
    pub past: usize,
    /// Receives the result.
    pub out: &'a mut [f32],
}

/// [`attention_cached`] for many sequences at once, in parallel over sequences and heads.
///
/// # Panics
/// When a length does not match its shape.
pub fn attention_decode(sequences: &mut [CachedQuery<'_>], heads: Heads, scores: Scores) {
    let products = Products::new(Path::current(), scores.precision);
    let mut tasks = Vec::new();
    for s in sequences.iter_mut() {
        assert_eq!(s.q.len() % heads.width(), 0, "attention_cached: query length");
        assert_eq!(s.out.len(), s.q.len(), "attention_cached: output length");
        let n = s.q.len() / heads.width();
        let keys = s.past + n;
        assert!(holds(s.k_cache, keys, heads), "attention_cached: key cache too short");
        assert!(holds(s.v_cache, keys, heads), "attention_cached: value cache too short");
        let out = Shared(s.out.as_mut_ptr());
        for first in (0..n).step_by(QUERY_BLOCK) {
            for kv_head in 0..heads.kv_heads {
                let task = Forward {
                    heads,
                    scores,
                    causal: true,
                    bias: None,
                    kv_head,
                    first,
                    queries: QUERY_BLOCK.min(n - first),
                    past: s.past,
                    keys,
                    q: s.q,
                    k: Rows::Blocks(s.k_cache),
                    v: Rows::Blocks(s.v_cache),
                };
                tasks.push((task, out));
            }
        }
    }
    let work: usize = tasks.iter().map(|(task, _)| task.work()).sum();
    // SAFETY: tasks differ in sequence, query or head, so they write disjoint parts of the outputs,
    // whose lengths were checked.
    let run = |(task, out): (Forward<'_>, Shared<f32>)| unsafe {
        tiles::forward(products, &task, out.get(), None);
    };
    if work < 1 << 16 {
        tasks.into_iter().for_each(run);
    } else {
        team::consume(tasks.into_iter(), run);
    }
}

/// [`attention_decode`] for sequences with one new token each, several times faster: what a decoding step
/// computes. All in `f32`; the sums run in another order than those of the other attentions.
///
/// # Panics
/// When a length does not match its shape.
pub fn attention_step(sequences: &mut [CachedQuery<'_>], heads: Heads, scores: Scores) {
    let path = Path::current();
    let mut tasks = Vec::with_capacity(sequences.len() * heads.kv_heads);
    let mut work = 0;
    for s in sequences.iter_mut() {
        let keys = s.past + 1;
        assert_eq!(s.q.len(), heads.width(), "attention_step: query length");
        assert_eq!(s.out.len(), s.q.len(), "attention_step: output length");
        assert!(holds(s.k_cache, keys, heads), "attention_step: key cache too short");
        assert!(holds(s.v_cache, keys, heads), "attention_step: value cache too short");
        let out = Shared(s.out.as_mut_ptr());
        let first = scores.first_seen(keys);
        let (k, v, scale) = (s.k_cache, s.v_cache, scores.scale);
        work += 2 * (keys - first) * heads.width();
        tasks.extend(
            (0..heads.kv_heads)
                .map(|kv_head| (Step { heads, scale, kv_head, first, keys, q: s.q, k, v }, out)),
        );
    }
    let run = |i: usize| {
        let (task, out) = &tasks[i];
        // SAFETY: tasks differ in sequence or key head, so they write disjoint parts of the outputs, whose
        // lengths were checked.
        unsafe { step::step(path, task, out.get()) };
    };
    if work < 1 << 15 {
        (0..tasks.len()).for_each(run);
    } else {
        team::for_each(tasks.len(), run);
    }
}

/// Whether the blocks of a cache hold that many keys.
fn holds(blocks: &[&[f32]], keys: usize, heads: Heads) -> bool {
    let needed = |i: usize| CACHE_BLOCK.min(keys - i * CACHE_BLOCK) * heads.kv_width();
    let count = keys.div_ceil(CACHE_BLOCK);
    blocks.len() >= count && (0..count).all(|i| blocks[i].len() >= needed(i))
}

/// Attention of packed documents to themselves; lengths are checked.
fn packed_forward(
    q: &[f32],
    k: &[f32],
    v: &[f32],
    segments: &[usize],
    heads: Heads,
    scores: Scores,
    causal: bool,
    bias: Option<PositionBias<'_>>,
    out: &mut [f32],
    lse: Option<&mut [f32]>,
) {
    let products = Products::new(Path::current(), scores.precision);
    let out = Shared(out.as_mut_ptr());
    let lse = lse.map(|lse| Shared(lse.as_mut_ptr()));
    // Without a diagonal, a larger block reads keys less often.
    let block = if causal { QUERY_BLOCK } else { 2 * QUERY_BLOCK };
    let mut tasks = Vec::new();
    for segment in segments.windows(2) {
        let (start, keys) = (segment[0], segment[1] - segment[0]);
        for first in (0..keys).step_by(block) {
            tasks.extend((0..heads.kv_heads).map(|kv_head| {
                let task = Forward {
                    heads,
                    scores,
                    causal,
                    bias: bias.map(|bias| bias.head(kv_head)),
                    kv_head,
                    first,
                    queries: block.min(keys - first),
                    past: 0,
                    keys,
                    q: &q[start * heads.width()..],
                    k: Rows::Whole(&k[start * heads.kv_width()..]),
                    v: Rows::Whole(&v[start * heads.kv_width()..]),
                };
                (task, start)
            }));
        }
    }
    let run = |(task, start): (Forward<'_>, usize)| {
        // SAFETY: tasks differ in segment, query or head, so they write disjoint parts of the
        // outputs, whose lengths were checked.
        unsafe {
            let out = out.get().add(start * heads.width());
            let lse = lse.map(|lse| lse.get().add(start * heads.heads));
            tiles::forward(products, &task, out, lse);
        }
    };
    team::consume(tasks.into_iter(), run);
}

fn check(q: &[f32], k: &[f32], v: &[f32], segments: &[usize], heads: Heads) -> usize {
    let t = segments.last().copied().unwrap_or(0);
    assert!(segments.is_sorted(), "attention: segments must increase");
    assert_eq!(segments.first().copied().unwrap_or(0), 0, "attention: segments start at 0");
    assert_eq!(heads.heads, heads.group() * heads.kv_heads);
    assert_eq!(q.len(), t * heads.width(), "attention: query length");
    assert_eq!(k.len(), t * heads.kv_width(), "attention: key length");
    assert_eq!(v.len(), t * heads.kv_width(), "attention: value length");
    t
}
