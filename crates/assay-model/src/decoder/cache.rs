//! Keys and values of what was read, and passes that extend them.

use assay_kernels::{CachedQuery, attention_decode, attention_step};

use super::Decoder;
use super::block::{Attention, Frozen};
use crate::adapter::PackedAdapter;

/// Rows of one pass at most: bounds the activations while the matrices are well used.
pub(super) const PASS_TOKENS: usize = 512;

/// Keys and values of one sequence, per layer `[tokens, kv_heads * head_dim]`.
#[derive(Clone, Debug)]
pub(super) struct Cache {
    layers: Vec<(Vec<f32>, Vec<f32>)>,
    tokens: usize,
}

impl Cache {
    /// An empty cache.
    pub(super) fn new(layers: usize) -> Self {
        Cache { layers: vec![(Vec::new(), Vec::new()); layers], tokens: 0 }
    }

    /// A copy with room for `capacity` tokens in all, `width` values each.
    pub(super) fn fork(&self, capacity: usize, width: usize) -> Self {
        let copy = |values: &Vec<f32>| {
            let mut copy = Vec::with_capacity(capacity * width);
            copy.extend_from_slice(values);
            copy
        };
        let layers = self.layers.iter().map(|(k, v)| (copy(k), copy(v))).collect();
        Cache { layers, tokens: self.tokens }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }
}

/// New tokens of one sequence.
pub(super) struct Span<'a> {
    pub(super) cache: &'a mut Cache,
    pub(super) tokens: &'a [u32],
    /// Whether it is one token that the model itself chose: those come before all other spans, and are
    /// computed with the weights as their file quantises them.
    pub(super) generated: bool,
}

impl Decoder {
    /// Reads the spans' tokens, extends their caches, and calls `then` with the final residual
    /// stream `[tokens of all spans, hidden]`. Each row has the bits it would have alone.
    pub(super) fn extend<T>(
        &self,
        spans: &mut [Span<'_>],
        adapter: Option<&PackedAdapter>,
        then: impl FnOnce(&[f32]) -> T,
    ) -> T {
        let config = self.config();
        let tokens: Vec<u32> = spans.iter().flat_map(|s| s.tokens).copied().collect();
        let positions: Vec<u32> = spans
            .iter()
            .flat_map(|s| (s.cache.tokens..s.cache.tokens + s.tokens.len()).map(|p| p as u32))
            .collect();
        let generated = spans.iter().take_while(|s| s.generated).count();
        debug_assert!(spans[generated..].iter().all(|s| !s.generated), "generated tokens first");
        debug_assert!(spans[..generated].iter().all(|s| s.tokens.len() == 1));
        let pass = self.pass(&positions, generated);
        let (q_width, kv_width) = (pass.heads().width(), pass.heads().kv_width());
        let mut x = self.embed(&tokens);
        for (layer, block) in self.0.blocks.iter().enumerate() {
            let pairs = adapter.map(|a| a.layer(layer));
            let attend = |a: Attention<'_>| {
                let (mut q, mut out, mut row) = (a.q, a.out, 0);
                let mut queries = Vec::with_capacity(spans.len());
                for span in spans.iter_mut() {
                    let n = span.tokens.len();
                    let (k_cache, v_cache) = &mut span.cache.layers[layer];
                    k_cache.extend_from_slice(&a.k[row * kv_width..][..n * kv_width]);
                    v_cache.extend_from_slice(&a.v[row * kv_width..][..n * kv_width]);
                    row += n;
                    let (own_q, rest_q) = q.split_at(n * q_width);
                    let (own_out, rest_out) = std::mem::take(&mut out).split_at_mut(n * q_width);
                    (q, out) = (rest_q, rest_out);
                    let past = span.cache.tokens;
                    queries.push(CachedQuery { q: own_q, k_cache, v_cache, past, out: own_out });
                }
                let (steps, reads) = queries.split_at_mut(generated);
                attention_step(steps, pass.heads(), a.scores);
                pass.attention(|| attention_decode(reads, pass.heads(), a.scores));
            };
            x = block.forward(pass, x, pairs, attend).0;
        }
        for span in spans.iter_mut() {
            span.cache.tokens += span.tokens.len();
        }
        debug_assert_eq!(x.len(), tokens.len() * config.hidden);
        then(&x)
    }

    /// Logits `[rows, vocab]` of the given rows of a residual stream; the first `generated` of them are those
    /// of tokens that the model itself chose.
    pub(super) fn head(&self, x: &[f32], rows: &[usize], generated: usize) -> Vec<f32> {
        let width = self.config().hidden;
        let normed = self.normed_rows(x, rows);
        let mut logits = vec![0.0; rows.len() * self.config().vocab];
        debug_assert_eq!(normed.len(), rows.len() * width);
        let products = &mut [(&self.0.head, &mut logits[..])];
        Frozen::products(&normed, rows.len(), generated, products, false);
        logits
    }

    /// The given rows of a residual stream after the final norm.
    pub(super) fn normed_rows(&self, x: &[f32], rows: &[usize]) -> Vec<f32> {
        let width = self.config().hidden;
        let chosen: Vec<f32> =
            rows.iter().flat_map(|&r| &x[r * width..][..width]).copied().collect();
        let (mut normed, mut inv_rms) = (vec![0.0; chosen.len()], vec![0.0; rows.len()]);
        self.final_norm(&chosen, &mut normed, &mut inv_rms);
        normed
    }
}
