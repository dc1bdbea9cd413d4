//! Keys and values of what was read, in pages that sequences share, and passes that extend them.

use std::sync::{Arc, Mutex, PoisonError};

use assay_kernels::{CACHE_BLOCK, CachedQuery, Values, attention_decode, attention_step};

use super::Decoder;
use super::block::{Attention, Frozen, Product, Rows};
use crate::adapter::PackedAdapter;
use crate::config::DecoderConfig;

/// Rows of one pass at most: bounds the activations while the matrices are well used.
pub(super) const PASS_TOKENS: usize = 512;

/// Makes pages, and takes them back: memory that comes and goes with every answer would be cleared by the system each
/// time, and held by the allocator besides.
#[derive(Debug)]
pub(super) struct Pages {
    layers: usize,
    /// Values of a token's key, and of its value, in one layer.
    width: usize,
    shelf: Arc<Mutex<Shelf>>,
}

/// Per layer keys and values `[tokens, width]`, with room for [`CACHE_BLOCK`] tokens.
type Layers = Vec<(Vec<f32>, Vec<f32>)>;

#[derive(Debug, Default)]
struct Shelf {
    /// Pages in use, however many sequences share them.
    alive: usize,
    /// Empty pages.
    free: Vec<Layers>,
    /// Pages that there may be with the empty ones.
    most: usize,
}

/// Keys and values of up to [`CACHE_BLOCK`] consecutive tokens.
#[derive(Debug)]
struct Page {
    layers: Layers,
    shelf: Arc<Mutex<Shelf>>,
}

impl Pages {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        let width = config.kv_heads * config.head_dim;
        Pages { layers: config.layers, width, shelf: Arc::default() }
    }

    /// Tokens for which the pages in use have room, however many sequences share them.
    pub(super) fn room(&self) -> usize {
        lock(&self.shelf).alive * CACHE_BLOCK
    }

    /// Gives back empty pages as soon as all together have room for more than `tokens`.
    pub(super) fn set_most(&self, tokens: usize) {
        let mut shelf = lock(&self.shelf);
        shelf.most = tokens / CACHE_BLOCK;
        let spare = shelf.most.saturating_sub(shelf.alive);
        shelf.free.truncate(spare);
    }

    /// Gives back all empty pages.
    pub(super) fn give_back(&self) {
        lock(&self.shelf).free = Vec::new();
    }

    /// Memory of one token, in bytes.
    pub(super) fn token_bytes(&self) -> usize {
        2 * self.layers * self.width * size_of::<f32>()
    }

    /// An empty cache with room for `limit` tokens.
    pub(super) fn cache(&self, limit: usize) -> Cache {
        let mut cache = Cache { pages: Vec::new(), tokens: 0, width: self.width };
        self.make_room(&mut cache, limit);
        cache
    }

    /// The first `tokens` of a cache, with room for `limit`. Whole pages are shared; of a page that is
    /// cut, the rows are copied.
    pub(super) fn fork(&self, cache: &Cache, tokens: usize, limit: usize) -> Cache {
        debug_assert!(tokens <= cache.tokens && tokens <= limit);
        let (whole, rest) = (tokens / CACHE_BLOCK, tokens % CACHE_BLOCK);
        let mut pages = cache.pages[..whole].to_vec();
        if rest > 0 {
            let mut page = self.page();
            let rows = rest * self.width;
            for ((k, v), (from_k, from_v)) in page.layers.iter_mut().zip(&cache.pages[whole].layers)
            {
                k.extend_from_slice(&from_k[..rows]);
                v.extend_from_slice(&from_v[..rows]);
            }
            pages.push(Arc::new(page));
        }
        let mut fork = Cache { pages, tokens, width: self.width };
        self.make_room(&mut fork, limit);
        fork
    }

    fn make_room(&self, cache: &mut Cache, limit: usize) {
        for _ in cache.pages.len()..limit.div_ceil(CACHE_BLOCK) {
            cache.pages.push(Arc::new(self.page()));
        }
    }

    fn page(&self) -> Page {
        let mut shelf = lock(&self.shelf);
        shelf.alive += 1;
        let free = shelf.free.pop();
        drop(shelf);
        let rows = || Vec::with_capacity(CACHE_BLOCK * self.width);
        let new = || (0..self.layers).map(|_| (rows(), rows())).collect();
        Page { layers: free.unwrap_or_else(new), shelf: Arc::clone(&self.shelf) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let mut layers = std::mem::take(&mut self.layers);
        let mut shelf = lock(&self.shelf);
        shelf.alive -= 1;
        if shelf.alive + shelf.free.len() < shelf.most {
            for (keys, values) in &mut layers {
                keys.clear();
                values.clear();
            }
            shelf.free.push(layers);
        }
    }
}

fn lock(shelf: &Mutex<Shelf>) -> std::sync::MutexGuard<'_, Shelf> {
    shelf.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keys and values of one sequence. The page that is written to is its own.
#[derive(Debug)]
pub(super) struct Cache {
    /// Full ones, then one that is being filled, then empty ones.
    pages: Vec<Arc<Page>>,
    tokens: usize,
    width: usize,
}

impl Cache {
    /// Without room for anything.
    pub(super) fn empty() -> Self {
        Cache { pages: Vec::new(), tokens: 0, width: 0 }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens
    }

    /// Forgets all but the first `tokens`, and the room for more.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.tokens = self.tokens.min(tokens);
        self.pages.truncate(self.tokens.div_ceil(CACHE_BLOCK));
    }

    /// Whether dropping this cache would give memory back.
    pub(super) fn owns_pages(&self) -> bool {
        self.pages.iter().any(|page| Arc::strong_count(page) == 1)
    }

    /// Appends one layer's keys and values `[n, width]` of the tokens behind [`Self::tokens`].
    fn append(&mut self, layer: usize, k: &[f32], v: &[f32]) {
        let (mut at, mut done) = (self.tokens, 0);
        while done < k.len() {
            let rows = CACHE_BLOCK - at % CACHE_BLOCK;
            let end = k.len().min(done + rows * self.width);
            let page = Arc::get_mut(&mut self.pages[at / CACHE_BLOCK])
                .expect("a page that is written to is not shared");
            let (keys, values) = &mut page.layers[layer];
            keys.extend_from_slice(&k[done..end]);
            values.extend_from_slice(&v[done..end]);
            (at, done) = (at + rows, end);
        }
    }

    /// Keys and values of one layer, page by page.
    fn rows(&self, layer: usize) -> (Vec<&[f32]>, Vec<&[f32]>) {
        let layers = self.pages.iter().map(|page| &page.layers[layer]);
        layers.map(|(k, v)| (k.as_slice(), v.as_slice())).unzip()
    }
}

/// New tokens of one sequence; its cache has room for them.
pub(super) struct Span<'a> {
    pub(super) cache: &'a mut Cache,
    pub(super) tokens: &'a [u32],
    /// Whether it is one token that the model itself chose: those come before all other spans, and are
    /// computed with the weights as their file quantises them.
    pub(super) generated: bool,
    /// How many of its tokens, the last ones, are asked for what follows them.
    pub(super) wanted: usize,
}

impl Decoder {
    /// Reads the spans' tokens, extends their caches, and calls `then` with the final residual
    /// stream `[wanted tokens of all spans, hidden]`. Each row has the bits it would have alone.
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
        let mut end = 0;
        let wanted = spans.iter().flat_map(|span| {
            end += span.tokens.len();
            end - span.wanted..end
        });
        let wanted: Vec<usize> = wanted.collect();
        let wanted_positions: Vec<u32> = wanted.iter().map(|&row| positions[row]).collect();
        let wanted = (wanted.len() < tokens.len())
            .then_some(Rows { rows: wanted, positions: &wanted_positions });
        let mut x = self.embed(&tokens);
        for (layer, block) in self.0.blocks.iter().enumerate() {
            let pairs = adapter.map(|a| a.layer(layer));
            let only = wanted.as_ref().filter(|_| layer + 1 == config.layers);
            let attend = |a: Attention<'_>| {
                let (mut k, mut v) = (a.k, a.v);
                for span in spans.iter_mut() {
                    let (own_k, rest_k) = k.split_at(span.tokens.len() * kv_width);
                    let (own_v, rest_v) = v.split_at(span.tokens.len() * kv_width);
                    (k, v) = (rest_k, rest_v);
                    span.cache.append(layer, own_k, own_v);
                }
                let rows: Vec<_> = spans.iter().map(|span| span.cache.rows(layer)).collect();
                let (mut q, mut out) = (a.q, a.out);
                let mut queries = Vec::with_capacity(spans.len());
                for (span, (k_cache, v_cache)) in spans.iter().zip(&rows) {
                    let n = if only.is_some() { span.wanted } else { span.tokens.len() };
                    let (own_q, rest_q) = q.split_at(n * q_width);
                    let (own_out, rest_out) = std::mem::take(&mut out).split_at_mut(own_q.len());
                    (q, out) = (rest_q, rest_out);
                    let past = span.cache.tokens + span.tokens.len() - n;
                    queries.push(CachedQuery { q: own_q, k_cache, v_cache, past, out: own_out });
                }
                let (steps, reads) = queries.split_at_mut(generated);
                attention_step(steps, pass.heads(), a.scores);
                attention_decode(reads, pass.heads(), a.scores);
            };
            x = block.forward(pass, x, only, pairs, attend).0;
        }
        for span in spans.iter_mut() {
            span.cache.tokens += span.tokens.len();
        }
        then(&x)
    }

    /// Logits `[rows, vocab]` of a residual stream `[rows, hidden]`, whose first `generated` rows are of
    /// tokens that the model itself chose.
    pub(super) fn head(&self, x: &[f32], generated: usize) -> Vec<f32> {
        let normed = self.normed(x);
        let rows = normed.len() / self.config().hidden;
        let mut logits = vec![0.0; rows * self.config().vocab];
        let head = Product { weight: &self.0.head, pair: None, out: &mut logits };
        Frozen::products(Values::F32(&normed), rows, generated, &mut [head], false);
        logits
    }

    /// A residual stream after the final norm.
    pub(super) fn normed(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.config().hidden;
        let (mut normed, mut inv_rms) = (vec![0.0; x.len()], vec![0.0; rows]);
        self.final_norm(x, &mut normed, &mut inv_rms);
        normed
    }
}
