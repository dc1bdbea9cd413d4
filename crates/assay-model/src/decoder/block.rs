//! One block of the decoder, forward and backward.
//!
//! Activations are plain row-major slices rather than tensors of a framework: buffers are reused,
//! kernels see contiguous memory, and no graph decides what is kept. Frozen weights get no gradient
//! by construction: there is no code that would compute one.

use std::sync::OnceLock;

use assay_kernels::{
    Heads, PackedMatrix, Path, Precision, QuantMatrix, Rope, RopeTable, attention_backward, gemm,
    matmul, matmul_add, quant_matmul, rms_norm, rms_norm_backward, rope, rope_backward, silu_mul,
    silu_mul_backward, with_path,
};

use super::pool::{Buffer, Pool};
use crate::adapter::{Adapter, LayerPairs};
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

    /// `out (+)= x·Wᵀ` for several weights with the same input `x [t, inputs]`; the first `generated` rows
    /// with the quantised weights, where there are such.
    ///
    /// Which product a row gets depends on what it is and never on how many there are, so that an answer
    /// does not depend on the batch.
    pub(crate) fn products(
        x: &[f32],
        t: usize,
        generated: usize,
        products: &mut [(&Frozen, &mut [f32])],
        add: bool,
    ) {
        let inputs = x.len() / t.max(1);
        let whole = products.iter().all(|(w, _)| w.quantised.is_some());
        let generated = if whole { generated } else { 0 };
        let (x_generated, x_read) = x.split_at(generated * inputs);
        if generated > 0 {
            let mut quantised: Vec<(&QuantMatrix, &mut [f32])> = products
                .iter_mut()
                .filter_map(|(w, out)| {
                    let weight = w.quantised.as_ref()?;
                    Some((weight, &mut out[..generated * weight.rows()]))
                })
                .collect();
            quant_matmul(x_generated, generated, &mut quantised, add);
        }
        if t > generated {
            let product = if add { matmul_add } else { matmul };
            for (w, out) in products {
                let out = &mut out[generated * w.weight.rows()..];
                product(x_read, t - generated, &w.weight, out);
            }
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

/// A block: `mid = x + O(attention(norm(x)))`, `y = mid + Down(silu(Gate n)·(Up n))`, `n = norm(mid)`.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attention_norm: Vec<f32>,
    pub(crate) feed_forward_norm: Vec<f32>,
    /// By `Module as usize`.
    pub(crate) linears: [Frozen; 7],
}

/// What all blocks of one pass share.
#[derive(Clone, Copy)]
pub(crate) struct Pass<'a> {
    pub(crate) precision: Precision,
    pub(crate) config: &'a DecoderConfig,
    pub(crate) pool: &'a Pool,
    pub(crate) rope: &'a RopeTable,
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

    pub(crate) fn scale(&self) -> f32 {
        1.0 / (self.config.head_dim as f32).sqrt()
    }

    /// Runs an attention. On AMX its products keep 16 bits of each factor, which is more than a
    /// bf16 model notices and less than an f32 model promises: that one takes the path below.
    pub(crate) fn attention<T>(&self, run: impl FnOnce() -> T) -> T {
        match (self.precision, Path::available()) {
            (Precision::F32, [.., exact, Path::Amx]) => with_path(*exact, run),
            _ => run(),
        }
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
}

/// What the backward pass needs of a forward pass; norms and the activation are computed again.
pub(crate) struct Saved<'p> {
    x: Buffer<'p>,
    inv_rms: Buffer<'p>,
    q: Buffer<'p>,
    k: Buffer<'p>,
    v: Buffer<'p>,
    out: Buffer<'p>,
    lse: Buffer<'p>,
    mid: Buffer<'p>,
    mid_inv_rms: Buffer<'p>,
    gate: Buffer<'p>,
    up: Buffer<'p>,
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

        let mut inv_rms = pool.take(t);
        let mut normed = pool.take(t * c.hidden);
        rms_norm(&x, &self.attention_norm, c.norm_eps, &mut normed, &mut inv_rms);
        let (mut q, mut k) = (pool.take(t * q_width), pool.take(t * kv_width));
        let mut v = pool.take(t * kv_width);
        let outs = &mut [(Module::Q, &mut q[..]), (Module::K, &mut k), (Module::V, &mut v)];
        linear(&normed, outs, false);
        rope(&mut q, c.heads, pass.positions, pass.rope, Rope::Halves);
        rope(&mut k, c.kv_heads, pass.positions, pass.rope, Rope::Halves);
        let (mut out, mut lse) = (pool.take(t * q_width), pool.take(t * c.heads));
        attend(Attention { q: &q, k: &k, v: &v, out: &mut out, lse: &mut lse });
        let mut mid = pool.copy(&x);
        linear(&out, &mut [(Module::O, &mut mid)], true);

        let mut mid_inv_rms = pool.take(t);
        rms_norm(&mid, &self.feed_forward_norm, c.norm_eps, &mut normed, &mut mid_inv_rms);
        let mut gate = pool.take(t * c.feed_forward);
        let mut up = pool.take(t * c.feed_forward);
        linear(&normed, &mut [(Module::Gate, &mut gate[..]), (Module::Up, &mut up)], false);
        let mut inner = pool.take(t * c.feed_forward);
        silu_mul(&gate, &up, &mut inner);
        let mut y = pool.copy(&mid);
        linear(&inner, &mut [(Module::Down, &mut y)], true);
        (y, Saved { x, inv_rms, q, k, v, out, lse, mid, mid_inv_rms, gate, up, z })
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
        let weight = |module: &Module| &self.linears[*module as usize];
        let mut products: Vec<(&Frozen, &mut [f32])> =
            outs.iter_mut().map(|(module, out)| (weight(module), &mut **out)).collect();
        Frozen::products(x, t, pass.generated, &mut products, add);
        let Some(pairs) = pairs else { return };
        for (module, out) in outs {
            let Some(pair) = pairs.get(*module) else { continue };
            let mut low = pass.pool.take(t * pairs.rank);
            matmul(x, t, &pair.a, &mut low);
            matmul_add(&low, t, &pair.b, out);
            z[*module as usize] = Some(low);
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
        let (block, rope) = (self.block, self.pass.rope);
        let Saved { x, inv_rms, q, k, v, out, lse, mid, mid_inv_rms, gate, up, z } = saved;
        let z = |module: Module| z[module as usize].as_deref();

        let mut inner = pool.take(t * c.feed_forward);
        silu_mul(&gate, &up, &mut inner);
        let mut dinner = pool.take(t * c.feed_forward);
        self.linear(Module::Down, &inner, z(Module::Down), dx, &mut dinner, false);
        let mut dgate = inner;
        let mut dup = pool.take(t * c.feed_forward);
        silu_mul_backward(&dinner, &gate, &up, &mut dgate, &mut dup);
        let mut normed = pool.take(t * c.hidden);
        let mut dnormed = pool.take(t * c.hidden);
        let mut again = pool.take(t);
        rms_norm(&mid, &block.feed_forward_norm, c.norm_eps, &mut normed, &mut again);
        self.linear(Module::Gate, &normed, z(Module::Gate), &dgate, &mut dnormed, false);
        self.linear(Module::Up, &normed, z(Module::Up), &dup, &mut dnormed, true);
        rms_norm_backward(&dnormed, &mid, &block.feed_forward_norm, &mid_inv_rms, dx);

        let mut dout = pool.take(out.len());
        self.linear(Module::O, &out, z(Module::O), dx, &mut dout, false);
        let (mut dq, mut dk) = (pool.take(q.len()), pool.take(k.len()));
        let mut dv = pool.take(v.len());
        let (heads, scale) = (self.pass.heads(), self.pass.scale());
        self.pass.attention(|| {
            attention_backward(
                &dout,
                &q,
                &k,
                &v,
                &out,
                &lse,
                self.segments,
                heads,
                scale,
                &mut dq,
                &mut dk,
                &mut dv,
            );
        });
        rope_backward(&mut dq, c.heads, positions, rope, Rope::Halves);
        rope_backward(&mut dk, c.kv_heads, positions, rope, Rope::Halves);
        rms_norm(&x, &block.attention_norm, c.norm_eps, &mut normed, &mut again);
        self.linear(Module::Q, &normed, z(Module::Q), &dq, &mut dnormed, false);
        self.linear(Module::K, &normed, z(Module::K), &dk, &mut dnormed, true);
        self.linear(Module::V, &normed, z(Module::V), &dv, &mut dnormed, true);
        rms_norm_backward(&dnormed, &x, &block.attention_norm, &inv_rms, dx);
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
        let product = if add { matmul_add } else { matmul };
        product(dy, t, self.block.linears[module as usize].transposed(), dx);
        let LayerPairs { layer, rank, scale, .. } = self.pairs;
        let (Some(pair), Some(z)) = (self.pairs.get(module), z) else { return };
        let Some((da, db)) = self.gradients.pair_mut(layer, module) else { return };
        let (inputs, outputs) = (pair.a.cols(), pair.b.rows());
        let (a_t, b_t) = pair.transposed();
        let mut dz = self.pass.pool.take(t * rank);
        matmul(dy, t, b_t, &mut dz);
        matmul_add(&dz, t, a_t, dx);
        gemm(scale, dy, true, z, false, 1.0, db, outputs, rank, t);
        gemm(1.0, &dz, true, x, false, 1.0, da, rank, inputs, t);
    }
}
