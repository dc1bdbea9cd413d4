//! The same model in candle's autograd, over composed operators only: candle's fused norms, softmax
//! and rotary embedding have no backward and would cut the graph silently.

use std::collections::HashMap;

use assay_model::{Adapter, DecoderConfig, Gate, Module, PackedBatch};
use candle_core::{D, DType, Device, Result, Tensor, Var};

/// Loss and, per pair, the gradients of `A` and `B`, of `nll / divisor`.
pub(crate) struct Truth {
    pub(crate) nll: f64,
    pub(crate) gradients: Vec<(Vec<f32>, Vec<f32>)>,
}

pub(crate) fn truth(
    config: &DecoderConfig,
    weights: &Stored,
    adapter: &Adapter,
    batch: &PackedBatch,
    divisor: f64,
) -> Truth {
    compute(config, weights, adapter, batch, divisor).unwrap()
}

/// Weights in f32, and what their names and the configuration leave open.
pub(crate) struct Stored {
    /// By Hugging Face path, without `.weight`.
    pub(crate) weights: HashMap<String, Tensor>,
    /// Divisor of the rotary frequencies of layers without window.
    pub(crate) rope_factor: f64,
}

struct Model<'a> {
    config: &'a DecoderConfig,
    stored: &'a Stored,
    pairs: HashMap<(usize, Module), (Var, Var)>,
    scale: f64,
}

fn compute(
    config: &DecoderConfig,
    stored: &Stored,
    adapter: &Adapter,
    batch: &PackedBatch,
    divisor: f64,
) -> Result<Truth> {
    let cpu = &Device::Cpu;
    let rank = adapter.spec().rank;
    let mut pairs = HashMap::new();
    for p in adapter.pairs() {
        let a = Var::from_slice(p.a, (rank, p.inputs), cpu)?;
        let b = Var::from_slice(p.b, (p.outputs, rank), cpu)?;
        pairs.insert((p.layer, p.module), (a, b));
    }
    let model = Model { config, stored, pairs, scale: f64::from(adapter.scale()) };
    let logits = model.logits(batch)?;
    let largest = logits.max_keepdim(D::Minus1)?.detach();
    let shifted = logits.broadcast_sub(&largest)?;
    let normaliser = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    let log_probabilities = shifted.broadcast_sub(&normaliser)?;
    let at = || (0..batch.tokens.len()).filter(|&i| batch.supervised[i]);
    let rows: Vec<u32> = at().map(|i| i as u32 - 1).collect();
    let targets: Vec<u32> = at().map(|i| batch.tokens[i]).collect();
    let n = rows.len();
    let chosen = log_probabilities
        .index_select(&Tensor::from_vec(rows, n, cpu)?, 0)?
        .gather(&Tensor::from_vec(targets, (n, 1), cpu)?, 1)?;
    let nll = chosen.sum_all()?.neg()?;
    let store = (&nll / divisor)?.backward()?;
    let flat = |var: &Var| store.get(var).unwrap().flatten_all()?.to_vec1::<f32>();
    let gradients = adapter
        .pairs()
        .map(|p| {
            let (a, b) = &model.pairs[&(p.layer, p.module)];
            Ok((flat(a)?, flat(b)?))
        })
        .collect::<Result<_>>()?;
    Ok(Truth { nll: f64::from(nll.to_scalar::<f32>()?), gradients })
}

impl Model<'_> {
    fn logits(&self, batch: &PackedBatch) -> Result<Tensor> {
        let c = self.config;
        let tokens = Tensor::new(&batch.tokens[..], &Device::Cpu)?;
        let embedding = &self.stored.weights["model.embed_tokens"];
        let mut x = (embedding.index_select(&tokens, 0)? * f64::from(c.embedding_scale))?;
        // Gemma has four norms to a block, and calls the second what Llama calls the last.
        let (second, after) = match c.post_norms {
            true => ("pre_feedforward_layernorm", true),
            false => ("post_attention_layernorm", false),
        };
        for layer in 0..c.layers {
            let norm =
                |x: &Tensor, name: &str| self.norm(x, &format!("model.layers.{layer}.{name}"));
            let post = |x: Tensor, name: &str| if after { norm(&x, name) } else { Ok(x) };
            let attended = self.attention(&norm(&x, "input_layernorm")?, layer, batch)?;
            x = (x + post(attended, "post_attention_layernorm")?)?;
            let n = norm(&x, second)?;
            let gate = self.activation(&self.linear(&n, layer, Module::Gate)?)?;
            let inner = (gate * self.linear(&n, layer, Module::Up)?)?;
            let fed = self.linear(&inner, layer, Module::Down)?;
            x = (x + post(fed, "post_feedforward_layernorm")?)?;
        }
        let head = self.stored.weights.get("lm_head").unwrap_or(embedding);
        self.norm(&x, "model.norm")?.matmul(&head.t()?)
    }

    fn activation(&self, x: &Tensor) -> Result<Tensor> {
        match self.config.gate {
            Gate::Silu => x / (x.neg()?.exp()? + 1.0)?,
            Gate::GeluTanh => {
                let u = ((x + (x.powf(3.0)? * 0.044715)?)? * (2.0 / std::f64::consts::PI).sqrt())?;
                (x * 0.5)? * (u.tanh()? + 1.0)?
            }
        }
    }

    /// Over the last dimension.
    fn norm(&self, x: &Tensor, name: &str) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        let rms = (mean + f64::from(self.config.norm_eps))?.sqrt()?;
        x.broadcast_div(&rms)?.broadcast_mul(&self.stored.weights[name])
    }

    fn linear(&self, x: &Tensor, layer: usize, module: Module) -> Result<Tensor> {
        let mut y = x.matmul(&self.stored.weights[&module.hf_path(layer)].t()?)?;
        if let Some(bias) = self.stored.weights.get(&format!("{}.bias", module.hf_path(layer))) {
            y = y.broadcast_add(bias)?;
        }
        match self.pairs.get(&(layer, module)) {
            Some((a, b)) => y + (x.matmul(&a.t()?)?.matmul(&b.t()?)? * self.scale)?,
            None => Ok(y),
        }
    }

    fn attention(&self, x: &Tensor, layer: usize, batch: &PackedBatch) -> Result<Tensor> {
        let c = self.config;
        let t = batch.tokens.len();
        let heads =
            |y: Tensor, n: usize| y.reshape((t, n, c.head_dim))?.transpose(0, 1)?.contiguous();
        let q = heads(self.linear(x, layer, Module::Q)?, c.heads)?;
        let k = heads(self.linear(x, layer, Module::K)?, c.kv_heads)?;
        let v = heads(self.linear(x, layer, Module::V)?, c.kv_heads)?;
        let norm = |x: Tensor, name: &str| match c.qk_norm {
            true => self.norm(&x, &format!("model.layers.{layer}.self_attn.{name}")),
            false => Ok(x),
        };
        let (q, k) = (norm(q, "q_norm")?, norm(k, "k_norm")?);
        let (q, k) = (self.rope(&q, layer, batch)?, self.rope(&k, layer, batch)?);
        let group = c.heads / c.kv_heads;
        let repeat = |y: Tensor| {
            let spread = y.unsqueeze(1)?.expand((c.kv_heads, group, t, c.head_dim))?;
            spread.contiguous()?.reshape((c.heads, t, c.head_dim))
        };
        let (k, v) = (repeat(k)?, repeat(v)?);
        let scores = q.matmul(&k.transpose(1, 2)?.contiguous()?)?;
        let scores = (scores * f64::from(c.attention_scale))?;
        let document = |i: usize| batch.segments.iter().filter(|&&s| s <= i).count();
        let mask: Vec<f32> = (0..t * t)
            .map(|i| (i / t, i % t))
            .map(|(i, j)| {
                let near = j <= i && c.window(layer).is_none_or(|window| i - j < window);
                if near && document(i) == document(j) { 0.0 } else { -1e9 }
            })
            .collect();
        let scores = scores.broadcast_add(&Tensor::from_vec(mask, (1, t, t), &Device::Cpu)?)?;
        let largest = scores.max_keepdim(D::Minus1)?.detach();
        let weights = scores.broadcast_sub(&largest)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let out = weights.matmul(&v)?.transpose(0, 1)?.contiguous()?;
        self.linear(&out.reshape((t, c.heads * c.head_dim))?, layer, Module::O)
    }

    /// `[heads, t, head_dim]`, halves rotated together.
    fn rope(&self, x: &Tensor, layer: usize, batch: &PackedBatch) -> Result<Tensor> {
        let half = self.config.head_dim / 2;
        let window = self.config.sliding_window.as_ref().filter(|w| w.local[layer]);
        let (theta, factor) = match window {
            Some(window) => (f64::from(window.rope_theta), 1.0),
            None => (f64::from(self.config.rope_theta), self.stored.rope_factor),
        };
        let positions = batch.segments.windows(2).flat_map(|s| 0..s[1] - s[0]);
        let angles: Vec<f64> = positions
            .flat_map(|p| {
                (0..2 * half)
                    .map(move |i| p as f64 / factor / theta.powf((i % half) as f64 / half as f64))
            })
            .collect();
        let angles = Tensor::from_vec(angles, (1, batch.tokens.len(), 2 * half), &Device::Cpu)?;
        let (cos, sin) = (angles.cos()?.to_dtype(DType::F32)?, angles.sin()?.to_dtype(DType::F32)?);
        let (first, second) = (x.narrow(2, 0, half)?, x.narrow(2, half, half)?);
        let rotated = Tensor::cat(&[&second.neg()?, &first], 2)?;
        x.broadcast_mul(&cos)? + rotated.broadcast_mul(&sin)?
    }
}
