//! Attention over packed documents and caches.

use assay_kernels::{
    CACHE_BLOCK, CachedQuery, Heads, PositionBias, Precision, Scores, attention_backward,
    attention_bidirectional, attention_cached, attention_decode, attention_forward, attention_step,
    reference,
};
use proptest::prelude::*;

use crate::{assert_close, assert_gradient, assert_same_bits, on_every_path, values, weighted};

const SCALE: f32 = 0.4;
const ALL: Scores = Scores { scale: SCALE, window: None, precision: Precision::F32 };

/// Each precision with its tolerances of outputs and of gradients.
const PRECISIONS: [(Precision, f32, f32); 2] =
    [(Precision::F32, 2e-5, 2e-4), (Precision::Bf16, 2e-2, 6e-2)];

#[derive(Clone)]
struct Case {
    heads: Heads,
    segments: Vec<usize>,
    scores: Scores,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

fn case(lengths: &[usize], kv_heads: usize, group: usize, head_dim: usize) -> Case {
    let heads = Heads { heads: kv_heads * group, kv_heads, head_dim };
    let mut segments = vec![0];
    for len in lengths {
        segments.push(segments[segments.len() - 1] + len);
    }
    let t = segments[segments.len() - 1];
    Case {
        heads,
        segments,
        scores: ALL,
        q: values(t * heads.width(), 1),
        k: values(t * heads.kv_width(), 2),
        v: values(t * heads.kv_width(), 3),
    }
}

impl Case {
    fn tokens(&self) -> usize {
        self.segments[self.segments.len() - 1]
    }

    fn forward(&self, q: &[f32], k: &[f32], v: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let mut out = vec![f32::NAN; q.len()];
        let mut lse = vec![f32::NAN; self.tokens() * self.heads.heads];
        attention_forward(q, k, v, &self.segments, self.heads, self.scores, &mut out, &mut lse);
        (out, lse)
    }

    fn backward(&self, dout: &[f32], out: &[f32], lse: &[f32]) -> [Vec<f32>; 3] {
        let Self { q, k, v, segments, heads, scores } = self;
        let mut grads = [q, k, v].map(|x| vec![f32::NAN; x.len()]);
        let [dq, dk, dv] = &mut grads;
        attention_backward(dout, q, k, v, out, lse, segments, *heads, *scores, dq, dk, dv);
        grads
    }
}

fn check(case: &Case) {
    let Case { heads, segments, scores, q, k, v } = case;
    let (mut want, mut want_lse) = (vec![0.0; q.len()], vec![0.0; case.tokens() * heads.heads]);
    reference::attention(q, k, v, segments, *heads, *scores, true, &mut want, &mut want_lse);
    let dout = values(q.len(), 4);
    let mut want_grads = [q, k, v].map(|x| vec![0.0; x.len()]);
    let [dq, dk, dv] = &mut want_grads;
    reference::attention_backward(
        &dout, q, k, v, &want, &want_lse, segments, *heads, *scores, dq, dk, dv,
    );
    for (precision, tolerance, gradient_tolerance) in PRECISIONS {
        let case = Case { scores: Scores { precision, ..*scores }, ..case.clone() };
        on_every_path(|path| {
            let what = |what: &str| format!("{path:?} {precision:?} {what}");
            let (out, lse) = case.forward(q, k, v);
            assert_close(&out, &want, tolerance, &what("attention"));
            assert_close(&lse, &want_lse, tolerance, &what("lse"));
            for (got, want) in case.backward(&dout, &out, &lse).iter().zip(&want_grads) {
                assert_close(got, want, gradient_tolerance, &what("attention gradient"));
            }
        });
    }
}

fn check_bidirectional(case: &Case) {
    let Case { heads, segments, q, k, v, .. } = case;
    let (mut want, mut lse) = (vec![0.0; q.len()], vec![0.0; case.tokens() * heads.heads]);
    reference::attention(q, k, v, segments, *heads, ALL, false, &mut want, &mut lse);
    for (precision, tolerance, _) in PRECISIONS {
        on_every_path(|_| {
            let mut out = vec![f32::NAN; q.len()];
            let (n, d) = (heads.heads, heads.head_dim);
            attention_bidirectional(q, k, v, segments, n, d, SCALE, None, precision, &mut out);
            assert_close(&out, &want, tolerance, "bidirectional attention");
        });
    }
}

/// The reference is the definition, written out.
fn check_bias(case: &Case, reach: usize) {
    let Case { heads, segments, q, k, v, .. } = case;
    let (n, d) = (heads.heads, heads.head_dim);
    let table: Vec<f32> = values(n * (2 * reach - 1), 5).iter().map(|b| 3.0 * b).collect();
    let mut want = vec![0.0; q.len()];
    for s in segments.windows(2) {
        for (i, h) in (s[0]..s[1]).flat_map(|i| (0..n).map(move |h| (i, h))) {
            let row = |x: &[f32], t: usize| x[(t * n + h) * d..][..d].to_vec();
            let score = |j: usize| {
                let dot: f32 = row(q, i).iter().zip(&row(k, j)).map(|(a, b)| a * b).sum();
                dot * SCALE + table[h * (2 * reach - 1) + j + reach - 1 - i]
            };
            let weights: Vec<f32> = (s[0]..s[1]).map(|j| score(j).exp()).collect();
            let total: f32 = weights.iter().sum();
            for (j, weight) in (s[0]..s[1]).zip(weights) {
                for (c, v) in row(v, j).iter().enumerate() {
                    want[(i * n + h) * d + c] += weight / total * v;
                }
            }
        }
    }
    for (precision, tolerance, _) in PRECISIONS {
        on_every_path(|_| {
            let mut out = vec![f32::NAN; q.len()];
            let bias = Some(PositionBias { values: &table, reach });
            attention_bidirectional(q, k, v, segments, n, d, SCALE, bias, precision, &mut out);
            assert_close(&out, &want, tolerance, "attention with position bias");
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn packed_documents(
        lengths in prop::collection::vec(0usize..90, 1..4),
        kv_heads in 1usize..3, group in 1usize..4, head_dim in 1usize..40, window in 1usize..100,
    ) {
        let mut case_of = case(&lengths, kv_heads, group, head_dim);
        check(&case_of);
        case_of.scores.window = Some(window);
        check(&case_of);
        check_bidirectional(&case(&lengths, kv_heads * group, 1, head_dim));
        check_bias(&case(&lengths, kv_heads * group, 1, head_dim), 90);
    }
}

#[test]
fn long_documents() {
    let mut long = case(&[300, 7, 129], 1, 3, 64);
    check(&long);
    for window in [1, 64, 127, 128, 129, 200, 300] {
        long.scores.window = Some(window);
        check(&long);
    }
    check_bidirectional(&case(&[200, 1], 2, 1, 32));
    check_bias(&case(&[200, 1], 2, 1, 32), 200);
}

#[test]
fn gradients_by_differences() {
    for window in [None, Some(5)] {
        let mut case = case(&[9, 14], 1, 2, 8);
        case.scores.window = window;
        check_gradients(&case);
    }
}

fn check_gradients(case: &Case) {
    let dout = values(case.q.len(), 9);
    on_every_path(|_| {
        let (out, lse) = case.forward(&case.q, &case.k, &case.v);
        let [dq, dk, dv] = case.backward(&dout, &out, &lse);
        let loss = |q: &[f32], k: &[f32], v: &[f32]| weighted(&case.forward(q, k, v).0, &dout);
        assert_gradient(&case.q, &dq, |q| loss(q, &case.k, &case.v), "dq");
        assert_gradient(&case.k, &dk, |k| loss(&case.q, k, &case.v), "dk");
        assert_gradient(&case.v, &dv, |v| loss(&case.q, &case.k, v), "dv");
    });
}

/// Feeding a text in pieces through the cache gives the bits of one pass.
#[test]
fn cached_pieces_equal_one_pass() {
    for (window, (precision, ..)) in [None, Some(70)].into_iter().zip(PRECISIONS) {
        let mut case = case(&[290], 2, 3, 64);
        case.scores = Scores { window, precision, ..ALL };
        check_cached(&case);
    }
}

fn check_cached(case: &Case) {
    let (width, kv_width) = (case.heads.width(), case.heads.kv_width());
    on_every_path(|_| {
        let (want, _) = case.forward(&case.q, &case.k, &case.v);
        let mut past = 0;
        for n in [100, 1, 1, 60, 1, 100, 27] {
            let mut out = vec![f32::NAN; n * width];
            let rows = (past + n) * kv_width;
            let q = &case.q[past * width..][..n * width];
            let (k, v) = (&case.k[..rows], &case.v[..rows]);
            attention_cached(q, k, v, past, case.heads, case.scores, &mut out);
            assert_same_bits(&out, &want[past * width..][..n * width], "cached");
            past += n;
        }
    });
}

/// Sequences decoded together have the bits of each alone, and of another packing; caches may share
/// blocks.
#[test]
fn decoding_does_not_depend_on_the_batch() {
    let heads = Heads { heads: 4, kv_heads: 2, head_dim: 16 };
    let scores = Scores { window: Some(90), precision: Precision::Bf16, ..ALL };
    let q = values(5 * heads.width(), 1);
    let block = CACHE_BLOCK * heads.kv_width();
    let shared = values(block, 9);
    let caches: Vec<Vec<f32>> =
        (0..5).map(|s| [shared.clone(), values(block, 10 + s)].concat()).collect();
    let blocks: Vec<[&[f32]; 2]> = caches.iter().map(|c| [&shared[..], &c[block..]]).collect();
    on_every_path(|_| {
        let mut together = vec![0.0; q.len()];
        let mut sequences: Vec<_> = q
            .chunks(heads.width())
            .zip(together.chunks_mut(heads.width()))
            .zip(&blocks)
            .enumerate()
            .map(|(i, ((q, out), blocks))| CachedQuery {
                q,
                k_cache: blocks,
                v_cache: blocks,
                past: i * 40,
                out,
            })
            .collect();
        attention_decode(&mut sequences, heads, scores);
        for (i, q) in q.chunks(heads.width()).enumerate() {
            let mut alone = vec![0.0; heads.width()];
            attention_cached(q, &caches[i], &caches[i], i * 40, heads, scores, &mut alone);
            assert_same_bits(&together[i * heads.width()..][..heads.width()], &alone, "decode");
        }
    });
}

/// No document sees another: changing one leaves the bits of the others.
#[test]
fn documents_do_not_leak() {
    let mut case = case(&[70, 33, 150], 1, 3, 32);
    let (before, _) = case.forward(&case.q, &case.k, &case.v);
    let kv_width = case.heads.kv_width();
    for value in &mut case.k[70 * kv_width..103 * kv_width] {
        *value += 1.0;
    }
    let (after, _) = case.forward(&case.q, &case.k, &case.v);
    let width = case.heads.width();
    assert_same_bits(&before[..70 * width], &after[..70 * width], "first document");
    assert_same_bits(&before[103 * width..], &after[103 * width..], "third document");
    assert_ne!(before, after);
}

fn blocks(cache: &[f32], heads: Heads) -> Vec<&[f32]> {
    cache.chunks(CACHE_BLOCK * heads.kv_width()).collect()
}

fn check_step(keys: usize, kv_heads: usize, group: usize, head_dim: usize) {
    for window in [None, Some(1), Some(32)] {
        let mut case = case(&[keys], kv_heads, group, head_dim);
        case.scores.window = window;
        check_step_of(&case, keys);
    }
}

fn check_step_of(case: &Case, keys: usize) {
    let Case { heads, segments, scores, q, k, v } = case;
    let (mut want, mut lse) = (vec![0.0; q.len()], vec![0.0; keys * heads.heads]);
    reference::attention(q, k, v, segments, *heads, *scores, true, &mut want, &mut lse);
    let last = (keys - 1) * heads.width();
    on_every_path(|path| {
        let mut out = vec![f32::NAN; heads.width()];
        let (q, past) = (&q[last..], keys - 1);
        let (k, v) = (blocks(k, *heads), blocks(v, *heads));
        let query = CachedQuery { q, k_cache: &k, v_cache: &v, past, out: &mut out };
        attention_step(&mut [query], *heads, *scores);
        assert_close(&out, &want[last..], 1e-5, &format!("{path:?} step over {keys} keys"));
    });
}

#[test]
fn a_step_is_the_attention_of_the_last_token() {
    check_step(1, 3, 3, 64);
    check_step(300, 3, 3, 64);
    check_step(33, 1, 4, 128);
    check_step(200, 2, 1, 256);
    check_step(300, 2, 5, 20);
}

#[test]
fn a_step_does_not_depend_on_the_other_sequences() {
    let cases: Vec<Case> = [5, 129, 64, 400].iter().map(|&n| case(&[n], 3, 3, 64)).collect();
    let step = |cases: &[&Case]| -> Vec<Vec<f32>> {
        let mut outs: Vec<Vec<f32>> = cases.iter().map(|c| vec![0.0; c.heads.width()]).collect();
        let caches: Vec<_> =
            cases.iter().map(|c| (blocks(&c.k, c.heads), blocks(&c.v, c.heads))).collect();
        let mut queries: Vec<CachedQuery<'_>> = Vec::new();
        for ((c, out), (k_cache, v_cache)) in cases.iter().zip(&mut outs).zip(&caches) {
            let past = c.tokens() - 1;
            let q = &c.q[past * c.heads.width()..];
            queries.push(CachedQuery { q, k_cache, v_cache, past, out });
        }
        attention_step(&mut queries, cases[0].heads, ALL);
        outs
    };
    on_every_path(|path| {
        let together = step(&cases.iter().collect::<Vec<_>>());
        for (case, together) in cases.iter().zip(together) {
            assert_same_bits(&step(&[case])[0], &together, &format!("{path:?}"));
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn steps_of_odd_shapes(keys in 1usize..80, kv_heads in 1usize..4, group in 1usize..5, head_dim in 1usize..100) {
        check_step(keys, kv_heads, group, head_dim);
    }
}
