//! One block of the decoder, forward and backward.
//!
//! Activations are plain row-major slices rather than tensors of a framework: buffers are reused,
//! kernels see contiguous memory, and no graph decides what is kept. Frozen weights get no gradient
//! by construction: there is no code that would compute one.

use std::sync::OnceLock;

use assay_kernels::{
    Heads, Linear, LowRank, Outer, PackedMatrix, Precision, QuantMatrix, Rope, RopeTable, Scores,
    Values, add_outer, attention_backward, gate_mul, gate_mul_backward, linear, matmul, matmul_add,
    quant_matmul, rms_norm, rms_norm_backward, rope, rope_backward,
};

use super::pool::{Buffer, Pool, Stored};
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
        x: Values<'_>,
        t: usize,
        generated: usize,
        products: &mut [Product<'_>],
        add: bool,
    ) {
        let inputs = x.len() / t.max(1);
        let whole = products.iter().all(|p| p.weight.quantised.is_some());
        let generated = if whole { generated } else { 0 };
        if generated > 0 {
            let x_generated = x.range(0..generated * inputs);
            let mut wide = Vec::new();
            let x_generated = match x_generated {
                Values::F32(x) => x,
                Values::Bf16(x) => {
                    wide.resize(x.len(), 0.0);
                    x_generated.widen(&mut wide);
                    &wide
                }
            };
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
                    bias: None,
                    out: &mut out[generated * weight.weight.rows()..],
                    pair: pair.as_mut().map(|(pair, z)| LowRank {
                        down: &pair.a,
                        up: &pair.b,
                        z: &mut z[generated * pair.a.rows()..],
                    }),
                })
                .collect();
            let x_read = x.range(generated * inputs..x.len());
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
    /// Whether a way back follows.
    pub(crate) keep: bool,
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

/// Some rows of a pass, in order.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) rows: Vec<usize>,
    /// Their positions.
    pub(crate) positions: &'a [u32],
}

/// Queries, keys and values of a pass, rotated, and where its attention goes. Queries and results are of some
/// rows only where those were asked for.
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

    /// As [`Self::new`], for products to read.
    fn stored(pass: Pass<'p>, x: Buffer<'p>, weight: &[f32]) -> (Self, Stored<'p>) {
        let mut normed = Normed { inv_rms: pass.pool.take(x.len() / weight.len()), x };
        let mut y = pass.pool.take_stored(pass.precision, normed.x.len());
        normed.again(pass, weight, &mut y);
        (normed, y)
    }

    /// Computes the norm's output.
    fn again(&mut self, pass: Pass<'_>, weight: &[f32], y: &mut Stored<'_>) {
        let (x, eps, inv_rms) = (&self.x, pass.config.norm_eps, &mut self.inv_rms);
        match y {
            Stored::F32(y) => rms_norm(x, weight, eps, &mut y[..], inv_rms),
            Stored::Bf16(y) => rms_norm(x, weight, eps, &mut y[..], inv_rms),
        }
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
    q: Stored<'p>,
    k: Stored<'p>,
    v: Stored<'p>,
    out: Stored<'p>,
    lse: Buffer<'p>,
    attended: Option<Normed<'p>>,
    mid: Normed<'p>,
    gate: Stored<'p>,
    up: Stored<'p>,
    fed: Option<Normed<'p>>,
    /// `x·Aᵀ` of the adapter's pairs, by `Module as usize`.
    z: [Option<Buffer<'p>>; 7],
}

impl Block {
    /// `x [t, hidden]` → `(y [t, hidden], saved)`, the latter where the pass keeps it. `attend` computes the
    /// attention: over packed documents, or over caches which it extends.
    ///
    /// With `only`, `y` has these rows alone; the pass keeps nothing, and all of its generated tokens are
    /// among them. Keys and values are computed for all rows in any case: so much less has the last block to
    /// do, of which only some rows are asked for.
    pub(crate) fn forward<'p>(
        &self,
        pass: Pass<'p>,
        x: Buffer<'p>,
        only: Option<&Rows<'p>>,
        pairs: Option<LayerPairs<'_>>,
        attend: impl FnOnce(Attention<'_>),
    ) -> (Buffer<'p>, Option<Saved<'p>>) {
        let (c, pool) = (pass.config, pass.pool);
        let (all, mut t) = (pass, pass.positions.len());
        let (q_width, kv_width) = (pass.heads().width(), pass.heads().kv_width());
        let mut z: [Option<Buffer<'p>>; 7] = Default::default();
        let mut linear = |pass, x: Values<'_>, outs: &mut [(Module, &mut [f32])], add: bool| {
            self.linear(pass, pairs, x, outs, add, &mut z);
        };

        let (input, normed) = Normed::stored(pass, x, &self.attention_norm);
        let (mut k, mut v) = (pool.take(t * kv_width), pool.take(t * kv_width));
        let (mut input, mut normed, mut pass) = (input, normed, pass);
        let keys = [(Module::K, &mut k[..]), (Module::V, &mut v[..])];
        let mut q;
        if let Some(only) = only {
            linear(all, normed.values(), &mut { keys }, false);
            pass = Pass { positions: only.positions, ..all };
            t = only.rows.len();
            input.x = pool.rows(&input.x, c.hidden, &only.rows);
            normed = pool.stored_rows(&normed, c.hidden, &only.rows);
            q = pool.take(t * q_width);
            linear(pass, normed.values(), &mut [(Module::Q, &mut q[..])], false);
        } else {
            q = pool.take(t * q_width);
            let [keys, values] = keys;
            linear(pass, normed.values(), &mut [(Module::Q, &mut q[..]), keys, values], false);
        }
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
        rope(&mut k, c.kv_heads, all.positions, pass.rope(self), Rope::Halves);
        let (mut out, mut lse) = (pool.take(t * q_width), pool.take(t * c.heads));
        let scores = pass.scores(self);
        attend(Attention { q: &q, k: &k, v: &v, out: &mut out, lse: &mut lse, scores });
        let out = pool.store(pass.precision, out);
        let to_mid =
            |y: &mut [f32], add: bool| linear(pass, out.values(), &mut [(Module::O, y)], add);
        let (mid, attended) = self.added(pass, &input.x, 0, to_mid);

        let (mid, normed) = Normed::stored(pass, mid, &self.feed_forward_norm);
        let mut gate = pool.take(t * c.feed_forward);
        let mut up = pool.take(t * c.feed_forward);
        linear(
            pass,
            normed.values(),
            &mut [(Module::Gate, &mut gate[..]), (Module::Up, &mut up)],
            false,
        );
        drop(normed);
        let (inner, kept) = gated(pass, gate, up);
        let to_y =
            |y: &mut [f32], add: bool| linear(pass, inner.values(), &mut [(Module::Down, y)], add);
        let (y, fed) = self.added(pass, &mid.x, 1, to_y);
        let saved = kept.map(|[gate, up]| {
            let [q, k, v] = [q, k, v].map(|x| pool.store(pass.precision, x));
            Saved { input, heads, q, k, v, out, lse, attended, mid, gate, up, fed, z }
        });
        (y, saved)
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
        x: Values<'_>,
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

/// `act(gate) · up` for products to read, and gate and up where the pass keeps them.
fn gated<'p>(
    pass: Pass<'p>,
    gate: Buffer<'p>,
    up: Buffer<'p>,
) -> (Stored<'p>, Option<[Stored<'p>; 2]>) {
    let (activation, keep) = (pass.config.gate, pass.keep);
    let new = || pass.pool.take_stored(pass.precision, gate.len());
    let mut inner = new();
    let mut kept = (keep && pass.precision == Precision::Bf16).then(|| [new(), new()]);
    match (&mut inner, &mut kept) {
        (Stored::F32(out), _) => gate_mul(activation, &gate, &up, &mut out[..], None),
        (Stored::Bf16(out), Some([Stored::Bf16(kept_gate), Stored::Bf16(kept_up)])) => {
            let kept = Some([&mut kept_gate[..], &mut kept_up[..]]);
            gate_mul(activation, &gate, &up, &mut out[..], kept);
        }
        (Stored::Bf16(out), _) => gate_mul(activation, &gate, &up, &mut out[..], None),
    }
    if keep && kept.is_none() {
        kept = Some([gate, up].map(Stored::F32));
    }
    (inner, kept)
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

impl<'a> Backward<'a> {
    /// Turns `dx`, which holds the gradient of `y [t, hidden]`, into that of `x`.
    pub(crate) fn run(mut self, saved: Saved<'_>, dx: &mut [f32]) {
        let Pass { config: c, pool, positions, .. } = self.pass;
        let t = positions.len();
        let (pass, block) = (self.pass, self.block);
        let Saved { mut input, heads, q, k, v, out, lse, attended, mut mid, gate, up, fed, z } =
            saved;
        let z = |module: Module| z[module as usize].as_deref();
        let store = |len: usize| pool.take_stored(pass.precision, len);

        let mut dinner = pool.take(t * c.feed_forward);
        let dfed = self.before_post_norm(fed, 1, dx);
        let dy = Values::F32(dfed.as_deref().unwrap_or(dx));
        let dz = self.propagate(Module::Down, dy, &mut dinner, false);
        let [inner, dgate, dup] = ungated(pass, &dinner, &gate, &up);
        drop(dinner);
        self.accumulate(Module::Down, inner.values(), z(Module::Down), dy, dz);
        drop(inner);
        let mut normed = store(t * c.hidden);
        let mut dnormed = pool.take(t * c.hidden);
        mid.again(pass, &block.feed_forward_norm, &mut normed);
        let x = normed.values();
        self.linear(Module::Gate, x, z(Module::Gate), dgate.values(), &mut dnormed, false);
        self.linear(Module::Up, x, z(Module::Up), dup.values(), &mut dnormed, true);
        mid.backward(&block.feed_forward_norm, &dnormed, dx);
        drop([gate, up, dgate, dup]);

        let mut dout = pool.take(t * pass.heads().width());
        let dattended = self.before_post_norm(attended, 0, dx);
        let dy = Values::F32(dattended.as_deref().unwrap_or(dx));
        self.linear(Module::O, out.values(), z(Module::O), dy, &mut dout, false);
        let [q, k, v, out] = [q, k, v, out].map(|x| x.widen(pool));
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
        let x = normed.values();
        for (module, dy, add) in
            [(Module::Q, dq, false), (Module::K, dk, true), (Module::V, dv, true)]
        {
            self.linear(module, x, z(module), Values::F32(&dy), &mut dnormed, add);
        }
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

    /// [`Self::propagate`] and [`Self::accumulate`].
    fn linear(
        &mut self,
        module: Module,
        x: Values<'_>,
        z: Option<&[f32]>,
        dy: Values<'_>,
        dx: &mut [f32],
        add: bool,
    ) {
        let dz = self.propagate(module, dy, dx, add);
        self.accumulate(module, x, z, dy, dz);
    }

    /// `dx (+)= dy·W + dz·A`, and `dz = dy·(sB)` where there is a pair.
    fn propagate(
        &self,
        module: Module,
        dy: Values<'_>,
        dx: &mut [f32],
        add: bool,
    ) -> Option<Buffer<'a>> {
        let t = self.pass.positions.len();
        let w = self.block.linears[module as usize].transposed();
        let transposed = self.pairs.get(module).map(PackedPair::transposed);
        let mut dz = transposed.map(|_| self.pass.pool.take(t * self.pairs.rank));
        let pair = transposed.zip(dz.as_deref_mut());
        let pair = pair.map(|((a_t, b_t), dz)| LowRank { down: b_t, up: a_t, z: dz });
        linear(dy, t, &mut [Linear { w, pair, bias: None, out: dx }], add);
        dz
    }

    /// `dA += dzᵀ·x`, `dB += s·dyᵀ·z`.
    fn accumulate(
        &mut self,
        module: Module,
        x: Values<'_>,
        z: Option<&[f32]>,
        dy: Values<'_>,
        dz: Option<Buffer<'_>>,
    ) {
        let t = self.pass.positions.len();
        let LayerPairs { layer, rank, scale, .. } = self.pairs;
        let (Some(z), Some(dz)) = (z, dz) else { return };
        let Some((da, db)) = self.gradients.pair_mut(layer, module) else { return };
        let (inputs, outputs) = (da.len() / rank, db.len() / rank);
        let precision = self.pass.precision;
        add_outer(scale, z, dy, (t, rank, outputs), precision, Outer::Transposed, db);
        add_outer(1.0, &dz, x, (t, rank, inputs), precision, Outer::AsIs, da);
    }
}

/// The way back through [`gated`]: its result again, and the gradients of gate and up.
fn ungated<'p>(
    pass: Pass<'p>,
    dinner: &[f32],
    gate: &Stored<'_>,
    up: &Stored<'_>,
) -> [Stored<'p>; 3] {
    let activation = pass.config.gate;
    let mut all = [(); 3].map(|()| pass.pool.take_stored(pass.precision, dinner.len()));
    match (gate, up, &mut all) {
        (
            Stored::F32(gate),
            Stored::F32(up),
            [Stored::F32(inner), Stored::F32(dg), Stored::F32(du)],
        ) => {
            gate_mul_backward(activation, dinner, gate, up, &mut inner[..], dg, du);
        }
        (
            Stored::Bf16(gate),
            Stored::Bf16(up),
            [Stored::Bf16(inner), Stored::Bf16(dg), Stored::Bf16(du)],
        ) => {
            gate_mul_backward(activation, dinner, gate, up, &mut inner[..], dg, du);
        }
        _ => unreachable!("all of one precision"),
    }
    all
}

fn add(y: &mut [f32], x: &[f32]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += x);
}
