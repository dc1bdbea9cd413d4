//! One block of the decoder, forward and backward.
//!
//! Activations are plain row-major slices rather than tensors of a framework: buffers are reused,
//! kernels see contiguous memory, and no graph decides what is kept. Frozen weights get no gradient
//! by construction: there is no code that would compute one.

use std::sync::OnceLock;

use assay_kernels::{
    Heads, Linear, LowRank, Outer, PackedMatrix, Precision, QuantMatrix, Rope, RopeTable, Scores,
    add_outer, attention_backward, gate_mul, gate_mul_backward, linear, matmul, matmul_add,
    quant_matmul, rms_norm, rms_norm_backward, rope, rope_backward,
};

use super::pool::{Buffer, Pool};
use crate::adapter::{Adapter, LayerPairs, PackedPair};
use crate::config::{DecoderConfig, Module};

/// A frozen weight in one orientation, and in the other once a gradient has to pass; and in the integers of
/// its file, from which tokens are generated.
#[derive(Debug)]
pub(crate) struct Frozen {
    weight: PackedMatrix,
    transposed: OnceLock<PackedMatrix>,
    quantised: Option<QuantMatrix>,
}

impl Frozen {
    pub(crate) fn new(weight: PackedMatrix, quantised: Option<QuantMatrix>) -> Self {
        Frozen { weight, transposed: OnceLock::new(), quantised }
    }

    /// `out (+)= x·Wᵀ` for several weights with the same input `x [t, inputs]`, or `+=` when `add`; of the
    /// `t` rows the first `generated` with the quantised weights, where there are such.
    ///
    /// Which product a row gets depends on what it is and never on how many there are, so that an answer
    /// does not depend on the batch.
    pub(crate) fn products(
        x: &[f32],
        t: usize,
        generated: usize,
        products: &mut [Product<'_>],
        add: bool,
    ) {
        let inputs = x.len() / t.max(1);
        let whole = products.iter().all(|p| p.weight.quantised.is_some());
        let generated = if whole { generated } else { 0 };
        let (x_generated, x_read) = x.split_at(generated * inputs);
        if generated > 0 {
            let mut quantised: Vec<(&QuantMatrix, &mut [f32])> = products
                .iter_mut()
                .filter_map(|p| {
                    let weight = p.weight.quantised.as_ref()?;
                    Some((weight, &mut p.out[..generated * weight.rows()]))
                })
                .collect();
            quant_matmul(x_generated, generated, &mut quantised, add);
            for Product { out, pair, .. } in &mut *products {
                let Some((pair, z)) = pair else { continue };
                let (rank, outputs) = (pair.a.rows(), pair.b.rows());
                let z = &mut z[..generated * rank];
                matmul(x_generated, generated, &pair.a, z);
                matmul_add(z, generated, &pair.b, &mut out[..generated * outputs]);
            }
        }
        if t > generated {
            let mut read: Vec<Linear<'_>> = products
                .iter_mut()
                .map(|Product { weight, pair, out }| Linear {
                    w: &weight.weight,
                    out: &mut out[generated * weight.weight.rows()..],
                    pair: pair.as_mut().map(|(pair, z)| LowRank {
                        down: &pair.a,
                        up: &pair.b,
                        z: &mut z[generated * pair.a.rows()..],
                    }),
                })
                .collect();
            linear(x_read, t - generated, &mut read, add);
        }
    }

    /// `[outputs, inputs]`.
    pub(crate) fn weight(&self) -> &PackedMatrix {
        &self.weight
    }

    /// `[inputs, outputs]`; packed on first use.
    pub(crate) fn transposed(&self) -> &PackedMatrix {
        self.transposed.get_or_init(|| self.weight.transposed())
    }

    /// Memory held, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let transposed = self.transposed.get().map_or(0, PackedMatrix::bytes);
        self.weight.bytes() + transposed + self.quantised.as_ref().map_or(0, QuantMatrix::bytes)
    }
}

/// A product with a frozen weight, and with an adapter's pair where there is one.
pub(crate) struct Product<'a> {
    pub(crate) weight: &'a Frozen,
    /// The pair, and `[t, rank]` for `x·Aᵀ`.
    pub(crate) pair: Option<(&'a PackedPair, &'a mut [f32])>,
    /// `[t, outputs]`.
    pub(crate) out: &'a mut [f32],
}

/// A block: `mid = x + O(attention(norm(x)))`, `y = mid + Down(act(Gate n)·(Up n))`, `n = norm(mid)`;
/// what is optional is there in some families only.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// By `Module as usize`.
    pub(crate) linears: [Frozen; 7],
    /// Biases of queries, keys and values.
    pub(crate) qkv_bias: Option<[Vec<f32>; 3]>,
    /// Norms `[head_dim]` of the heads of queries and of keys.
    pub(crate) qk_norm: Option<[Vec<f32>; 2]>,
    /// Norms of what attention and feed-forward part add to the stream.
    pub(crate) post_norms: Option<[Vec<f32>; 2]>,
    /// Tokens that a token sees; `None`: all before it.
    pub(crate) window: Option<usize>,
}

/// Rotary tables of a model.
#[derive(Debug)]
pub(crate) struct Ropes {
    pub(crate) global: RopeTable,
    /// Of layers with a window, where it differs.
    pub(crate) local: Option<RopeTable>,
}

/// What all blocks of one pass share.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) precision: Precision,
    pub(crate) config: &'a DecoderConfig,
    pub(crate) pool: &'a Pool,
    pub(crate) ropes: &'a Ropes,
    /// Position of every row.
    pub(crate) positions: &'a [u32],
    /// How many of the rows, the first ones, are tokens that the model itself chose.
    pub(crate) generated: usize,
}

impl Pass<'_> {
    pub(crate) fn heads(&self) -> Heads {
        let c = self.config;
        Heads { heads: c.heads, kv_heads: c.kv_heads, head_dim: c.head_dim }
    }

    fn scores(&self, block: &Block) -> Scores {
        let scale = self.config.attention_scale;
        Scores { scale, window: block.window, precision: self.precision }
    }

    fn rope(&self, block: &Block) -> &RopeTable {
        let local = self.ropes.local.as_ref().filter(|_| block.window.is_some());
        local.unwrap_or(&self.ropes.global)
    }
}

/// Queries, keys and values of a pass, rotated, and where its attention goes.
pub(crate) struct Attention<'a> {
    /// `[t, heads * head_dim]`.
    pub(crate) q: &'a [f32],
    /// `[t, kv_heads * head_dim]`.
    pub(crate) k: &'a [f32],
    /// `[t, kv_heads * head_dim]`.
    pub(crate) v: &'a [f32],
    /// `[t, heads * head_dim]`.
    pub(crate) out: &'a mut [f32],
    /// `[t, heads]`; to be written where a backward pass follows.
    pub(crate) lse: &'a mut [f32],
    pub(crate) scores: Scores,
}

/// The input of a norm and its `1 / rms`, for the way back.
struct Normed<'p> {
    x: Buffer<'p>,
    inv_rms: Buffer<'p>,
}

impl<'p> Normed<'p> {
    /// Norms rows of `weight.len()` values.
    fn new(pass: Pass<'p>, x: Buffer<'p>, weight: &[f32]) -> (Self, Buffer<'p>) {
        let mut inv_rms = pass.pool.take(x.len() / weight.len());
        let mut y = pass.pool.take(x.len());
        rms_norm(&x, weight, pass.config.norm_eps, &mut y, &mut inv_rms);
        (Normed { x, inv_rms }, y)
    }

    /// The norm's output, computed again.
    fn again(&self, pass: Pass<'_>, weight: &[f32], y: &mut [f32]) {
        let mut inv_rms = pass.pool.take(self.inv_rms.len());
        rms_norm(&self.x, weight, pass.config.norm_eps, y, &mut inv_rms);
    }

    /// Adds the gradient of the input to `dx`.
    fn backward(&self, weight: &[f32], dy: &[f32], dx: &mut [f32]) {
        rms_norm_backward(dy, &self.x, weight, &self.inv_rms, dx);
    }

    /// The gradient of the input.
    fn gradient(&self, pass: Pass<'p>, weight: &[f32], dy: &[f32]) -> Buffer<'p> {
        let mut dx = pass.pool.take(dy.len());
        dx.fill(0.0);
        self.backward(weight, dy, &mut dx);
        dx
    }
}

/// What the backward pass needs of a forward pass; what is cheap is computed again.
pub(crate) struct Saved<'p> {
    input: Normed<'p>,
    /// Queries and keys before their norms.
    heads: Option<[Normed<'p>; 2]>,
    /// Queries and keys as the attention had them.
    q: Buffer<'p>,
    k: Buffer<'p>,
    v: Buffer<'p>,
    out: Buffer<'p>,
    lse: Buffer<'p>,
    attended: Option<Normed<'p>>,
    mid: Normed<'p>,
    gate: Buffer<'p>,
    up: Buffer<'p>,
    fed: Option<Normed<'p>>,
    /// `x·Aᵀ` of the adapter's pairs, by `Module as usize`.
    z: [Option<Buffer<'p>>; 7],
}

impl Block {
    /// `x [t, hidden]` → `(y [t, hidden], saved)`. `attend` computes the attention: over packed
    /// documents, or over caches which it extends.
    pub(crate) fn forward<'p>(
        &self,
        pass: Pass<'p>,
        x: Buffer<'p>,
        pairs: Option<LayerPairs<'_>>,
        attend: impl FnOnce(Attention<'_>),
    ) -> (Buffer<'p>, Saved<'p>) {
        let (c, pool) = (pass.config, pass.pool);
        let t = pass.positions.len();
        let (q_width, kv_width) = (pass.heads().width(), pass.heads().kv_width());
        let mut z: [Option<Buffer<'p>>; 7] = Default::default();
        let mut linear = |x: &[f32], outs: &mut [(Module, &mut [f32])], add: bool| {
            self.linear(pass, pairs, x, outs, add, &mut z);
        };

        let (input, normed) = Normed::new(pass, x, &self.attention_norm);
        let (mut q, mut k) = (pool.take(t * q_width), pool.take(t * kv_width));
        let mut v = pool.take(t * kv_width);
        let outs = &mut [(Module::Q, &mut q[..]), (Module::K, &mut k), (Module::V, &mut v)];
        linear(&normed, outs, false);
        drop(normed);
        if let Some(biases) = &self.qkv_bias {
            for (rows, bias) in [&mut q, &mut k, &mut v].into_iter().zip(biases) {
                rows.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
            }
        }
        let mut heads = None;
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            let (raw_q, raw_k);
            (raw_q, q) = Normed::new(pass, q, q_norm);
            (raw_k, k) = Normed::new(pass, k, k_norm);
            heads = Some([raw_q, raw_k]);
        }
        rope(&mut q, c.heads, pass.positions, pass.rope(self), Rope::Halves);
        rope(&mut k, c.kv_heads, pass.positions, pass.rope(self), Rope::Halves);
        let (mut out, mut lse) = (pool.take(t * q_width), pool.take(t * c.heads));
        let scores = pass.scores(self);
        attend(Attention { q: &q, k: &k, v: &v, out: &mut out, lse: &mut lse, scores });
        let to_mid = |y: &mut [f32], add: bool| linear(&out, &mut [(Module::O, y)], add);
        let (mid, attended) = self.added(pass, &input.x, 0, to_mid);

        let (mid, normed) = Normed::new(pass, mid, &self.feed_forward_norm);
        let mut gate = pool.take(t * c.feed_forward);
        let mut up = pool.take(t * c.feed_forward);
        linear(&normed, &mut [(Module::Gate, &mut gate[..]), (Module::Up, &mut up)], false);
        drop(normed);
        let mut inner = pool.take(t * c.feed_forward);
        gate_mul(c.gate, &gate, &up, &mut inner);
        let to_y = |y: &mut [f32], add: bool| linear(&inner, &mut [(Module::Down, y)], add);
        let (y, fed) = self.added(pass, &mid.x, 1, to_y);
        (y, Saved { input, heads, q, k, v, out, lse, attended, mid, gate, up, fed, z })
    }

    /// `x` and what `linear` computes, which passes post-norm `which` first where there is one.
    fn added<'p>(
        &self,
        pass: Pass<'p>,
        x: &[f32],
        which: usize,
        linear: impl FnOnce(&mut [f32], bool),
    ) -> (Buffer<'p>, Option<Normed<'p>>) {
        let mut y = pass.pool.copy(x);
        let Some(weights) = &self.post_norms else {
            linear(&mut y, true);
            return (y, None);
        };
        let mut raw = pass.pool.take(x.len());
        linear(&mut raw, false);
        let (raw, normed) = Normed::new(pass, raw, &weights[which]);
        add(&mut y, &normed);
        (y, Some(raw))
    }

    /// `out (+)= x·Wᵀ + (x·Aᵀ)·(sB)ᵀ` for modules with the same input; `z = x·Aᵀ` where there is a pair.
    fn linear<'p>(
        &self,
        pass: Pass<'p>,
        pairs: Option<LayerPairs<'_>>,
        x: &[f32],
        outs: &mut [(Module, &mut [f32])],
        add: bool,
        z: &mut [Option<Buffer<'p>>; 7],
    ) {
        let t = pass.positions.len();
        let pair = |module: Module| pairs.and_then(|pairs| Some((pairs.rank, pairs.get(module)?)));
        let mut lows: Vec<Option<Buffer<'p>>> = outs
            .iter()
            .map(|(module, _)| pair(*module).map(|(rank, _)| pass.pool.take(t * rank)))
            .collect();
        let mut products: Vec<Product<'_>> = outs
            .iter_mut()
            .zip(&mut lows)
            .map(|((module, out), low)| Product {
                weight: &self.linears[*module as usize],
                pair: pair(*module).map(|(_, pair)| pair).zip(low.as_deref_mut()),
                out,
            })
            .collect();
        Frozen::products(x, t, pass.generated, &mut products, add);
        for ((module, _), low) in outs.iter().zip(lows) {
            z[*module as usize] = low;
        }
    }
}

/// The way back through one block.
pub(crate) struct Backward<'a> {
    pub(crate) block: &'a Block,
    pub(crate) pass: Pass<'a>,
    /// Documents, as the forward pass had them.
    pub(crate) segments: &'a [usize],
    pub(crate) pairs: LayerPairs<'a>,
    /// Receives the gradients of the adapter's pairs, added to what it holds.
    pub(crate) gradients: &'a mut Adapter,
}

impl Backward<'_> {
    /// Turns `dx`, which holds the gradient of `y [t, hidden]`, into that of `x`.
    pub(crate) fn run(mut self, saved: Saved<'_>, dx: &mut [f32]) {
        let Pass { config: c, pool, positions, .. } = self.pass;
        let t = positions.len();
        let (pass, block) = (self.pass, self.block);
        let Saved { input, heads, q, k, v, out, lse, attended, mid, gate, up, fed, z } = saved;
        let z = |module: Module| z[module as usize].as_deref();

        let mut inner = pool.take(t * c.feed_forward);
        gate_mul(c.gate, &gate, &up, &mut inner);
        let mut dinner = pool.take(t * c.feed_forward);
        let dfed = self.before_post_norm(fed, 1, dx);
        let dy = dfed.as_deref().unwrap_or(dx);
        self.linear(Module::Down, &inner, z(Module::Down), dy, &mut dinner, false);
        let mut dgate = inner;
        let mut dup = pool.take(t * c.feed_forward);
        gate_mul_backward(c.gate, &dinner, &gate, &up, &mut dgate, &mut dup);
        let mut normed = pool.take(t * c.hidden);
        let mut dnormed = pool.take(t * c.hidden);
        mid.again(pass, &block.feed_forward_norm, &mut normed);
        self.linear(Module::Gate, &normed, z(Module::Gate), &dgate, &mut dnormed, false);
        self.linear(Module::Up, &normed, z(Module::Up), &dup, &mut dnormed, true);
        mid.backward(&block.feed_forward_norm, &dnormed, dx);

        let mut dout = pool.take(out.len());
        let dattended = self.before_post_norm(attended, 0, dx);
        let dy = dattended.as_deref().unwrap_or(dx);
        self.linear(Module::O, &out, z(Module::O), dy, &mut dout, false);
        let (mut dq, mut dk) = (pool.take(q.len()), pool.take(k.len()));
        let mut dv = pool.take(v.len());
        attention_backward(
            &dout,
            &q,
            &k,
            &v,
            &out,
            &lse,
            self.segments,
            pass.heads(),
            pass.scores(block),
            &mut dq,
            &mut dk,
            &mut dv,
        );
        rope_backward(&mut dq, c.heads, positions, pass.rope(block), Rope::Halves);
        rope_backward(&mut dk, c.kv_heads, positions, pass.rope(block), Rope::Halves);
        if let (Some([raw_q, raw_k]), Some([q_norm, k_norm])) = (heads, &block.qk_norm) {
            dq = raw_q.gradient(pass, q_norm, &dq);
            dk = raw_k.gradient(pass, k_norm, &dk);
        }
        input.again(pass, &block.attention_norm, &mut normed);
        self.linear(Module::Q, &normed, z(Module::Q), &dq, &mut dnormed, false);
        self.linear(Module::K, &normed, z(Module::K), &dk, &mut dnormed, true);
        self.linear(Module::V, &normed, z(Module::V), &dv, &mut dnormed, true);
        input.backward(&block.attention_norm, &dnormed, dx);
    }

    /// The gradient of what was normed and added to the stream, from the stream's; `None` where it
    /// was not normed and both are the same.
    fn before_post_norm<'p>(
        &self,
        normed: Option<Normed<'p>>,
        which: usize,
        dy: &[f32],
    ) -> Option<Buffer<'p>>
    where
        Self: 'p,
    {
        let weights = self.block.post_norms.as_ref()?;
        normed.map(|n| n.gradient(self.pass, &weights[which], dy))
    }

    /// `dx (+)= dy·W + dz·A` with `dz = dy·(sB)`, and where there is a pair `dA += dzᵀ·x`,
    /// `dB += s·dyᵀ·z`.
    fn linear(
        &mut self,
        module: Module,
        x: &[f32],
        z: Option<&[f32]>,
        dy: &[f32],
        dx: &mut [f32],
        add: bool,
    ) {
        let t = self.pass.positions.len();
        let w = self.block.linears[module as usize].transposed();
        let LayerPairs { layer, rank, scale, .. } = self.pairs;
        let (Some(pair), Some(z)) = (self.pairs.get(module), z) else {
            return linear(dy, t, &mut [Linear { w, pair: None, out: dx }], add);
        };
        let (a_t, b_t) = pair.transposed();
        let mut dz = self.pass.pool.take(t * rank);
        let low_rank = LowRank { down: b_t, up: a_t, z: &mut dz };
        linear(dy, t, &mut [Linear { w, pair: Some(low_rank), out: dx }], add);
        let Some((da, db)) = self.gradients.pair_mut(layer, module) else { return };
        let (inputs, outputs) = (pair.a.cols(), pair.b.rows());
        let precision = self.pass.precision;
        add_outer(scale, z, dy, (t, rank, outputs), precision, Outer::Transposed, db);
        add_outer(1.0, &dz, x, (t, rank, inputs), precision, Outer::AsIs, da);
    }
}

fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}
