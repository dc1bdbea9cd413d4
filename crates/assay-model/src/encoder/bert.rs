//! The BERT transformer (Devlin et al. 2019), post-norm, over packed sequences.

use std::path::Path;

use assay_kernels::{
    PackedMatrix, Precision, attention_bidirectional, gelu, layer_norm, matmul_add,
};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::EncoderError;
use super::config::Config;

pub(super) struct Bert {
    words: Vec<f32>,
    /// `[positions, hidden]`, with the embedding of the first (and here only) token type added.
    positions: Vec<f32>,
    norm: Norm,
    layers: Vec<Layer>,
    hidden: usize,
    heads: usize,
    eps: f32,
}

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    norm: Norm,
}

struct Linear {
    weight: PackedMatrix,
    bias: Vec<f32>,
}

struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Bert {
    pub(super) fn load(
        path: &Path,
        tensors: &SafeTensors<'_>,
        config: &Config,
        precision: Precision,
    ) -> Result<Self, EncoderError> {
        // A bare BertModel has no prefix; one saved inside another model has this.
        let plain = tensors.tensor("embeddings.word_embeddings.weight").is_ok();
        let prefix = if plain { "" } else { "bert." };
        let source = Weights { path, tensors, prefix, precision };
        let (hidden, inner) = (config.hidden, config.inner);
        let types =
            source.values("embeddings.token_type_embeddings.weight", &[config.types, hidden])?;
        let mut positions =
            source.values("embeddings.position_embeddings.weight", &[config.positions, hidden])?;
        for row in positions.chunks_exact_mut(hidden) {
            add(row, &types[..hidden]);
        }
        let layer = |i: usize| {
            let name = |part: &str| format!("encoder.layer.{i}.{part}");
            Ok(Layer {
                query: source.linear(&name("attention.self.query"), hidden, hidden)?,
                key: source.linear(&name("attention.self.key"), hidden, hidden)?,
                value: source.linear(&name("attention.self.value"), hidden, hidden)?,
                output: source.linear(&name("attention.output.dense"), hidden, hidden)?,
                attention_norm: source.norm(&name("attention.output.LayerNorm"), hidden)?,
                up: source.linear(&name("intermediate.dense"), inner, hidden)?,
                down: source.linear(&name("output.dense"), hidden, inner)?,
                norm: source.norm(&name("output.LayerNorm"), hidden)?,
            })
        };
        Ok(Bert {
            words: source
                .values("embeddings.word_embeddings.weight", &[config.vocabulary, hidden])?,
            positions,
            norm: source.norm("embeddings.LayerNorm", hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, EncoderError>>()?,
            hidden,
            heads: config.heads,
            eps: config.eps,
        })
    }

    /// Last states of the sequences, one after another: `[tokens of all, hidden]`. Every id is below the
    /// vocabulary's size and every sequence within the positions.
    pub(super) fn forward(&self, sequences: &[&[u32]]) -> Vec<f32> {
        let h = self.hidden;
        let mut segments = vec![0];
        let mut embedded = Vec::new();
        for ids in sequences {
            for (position, &id) in ids.iter().enumerate() {
                embedded.extend_from_slice(&self.words[id as usize * h..][..h]);
                let at = embedded.len() - h;
                add(&mut embedded[at..], &self.positions[position * h..][..h]);
            }
            segments.push(embedded.len() / h);
        }
        let mut states = vec![0.0; embedded.len()];
        self.norm.apply(&embedded, self.eps, &mut states);
        for layer in &self.layers {
            self.layer(layer, &segments, &mut states);
        }
        states
    }

    fn layer(&self, layer: &Layer, segments: &[usize], states: &mut [f32]) {
        let head_dim = self.hidden / self.heads;
        let [q, k, v] = [&layer.query, &layer.key, &layer.value].map(|l| l.apply(states));
        let mut mixed = vec![0.0; states.len()];
        let scale = 1.0 / (head_dim as f32).sqrt();
        attention_bidirectional(&q, &k, &v, segments, self.heads, head_dim, scale, &mut mixed);
        let sum = layer.output.apply_to(&mixed, states);
        layer.attention_norm.apply(&sum, self.eps, states);

        let mut inner = layer.up.apply(states);
        gelu(&mut inner);
        let sum = layer.down.apply_to(&inner, states);
        layer.norm.apply(&sum, self.eps, states);
    }
}

impl Linear {
    /// `x · Wᵀ + b`.
    fn apply(&self, x: &[f32]) -> Vec<f32> {
        let rows = x.len() / self.weight.cols();
        let mut out = self.bias.repeat(rows);
        matmul_add(x, rows, &self.weight, &mut out);
        out
    }

    /// `residual + x · Wᵀ + b`.
    fn apply_to(&self, x: &[f32], residual: &[f32]) -> Vec<f32> {
        let mut out = residual.to_vec();
        for row in out.chunks_exact_mut(self.bias.len()) {
            add(row, &self.bias);
        }
        matmul_add(x, x.len() / self.weight.cols(), &self.weight, &mut out);
        out
    }
}

impl Norm {
    fn apply(&self, x: &[f32], eps: f32, out: &mut [f32]) {
        layer_norm(x, &self.weight, &self.bias, eps, out);
    }
}

fn add(to: &mut [f32], values: &[f32]) {
    to.iter_mut().zip(values).for_each(|(t, v)| *t += v);
}

/// Tensors by name, checked against the expected shape and widened to `f32`.
struct Weights<'a> {
    path: &'a Path,
    tensors: &'a SafeTensors<'a>,
    prefix: &'a str,
    precision: Precision,
}

impl Weights<'_> {
    fn values(&self, name: &str, expected: &[usize]) -> Result<Vec<f32>, EncoderError> {
        let name = format!("{}{name}", self.prefix);
        let tensor = self.tensors.tensor(&name).map_err(|error: SafeTensorError| {
            EncoderError::Weights { path: self.path.into(), error }
        })?;
        if tensor.shape() != expected {
            return Err(EncoderError::Shape {
                path: self.path.into(),
                name,
                expected: expected.into(),
                got: tensor.shape().into(),
            });
        }
        let halves = |f: fn(u16) -> f32| {
            tensor.data().chunks_exact(2).map(|b| f(u16::from_le_bytes([b[0], b[1]]))).collect()
        };
        match tensor.dtype() {
            Dtype::F32 => {
                let words = tensor.data().chunks_exact(4);
                Ok(words.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
            }
            Dtype::F16 => Ok(halves(|bits| half::f16::from_bits(bits).to_f32())),
            Dtype::BF16 => Ok(halves(|bits| half::bf16::from_bits(bits).to_f32())),
            other => Err(EncoderError::Unsupported {
                path: self.path.into(),
                key: "dtype",
                got: format!("{other:?} ({name})"),
                supported: "F32, F16, BF16",
            }),
        }
    }

    fn linear(&self, name: &str, rows: usize, cols: usize) -> Result<Linear, EncoderError> {
        let weight = self.values(&format!("{name}.weight"), &[rows, cols])?;
        let weight = PackedMatrix::pack(&weight, rows, cols, self.precision);
        Ok(Linear { weight, bias: self.values(&format!("{name}.bias"), &[rows])? })
    }

    fn norm(&self, name: &str, size: usize) -> Result<Norm, EncoderError> {
        let weight = self.values(&format!("{name}.weight"), &[size])?;
        Ok(Norm { weight, bias: self.values(&format!("{name}.bias"), &[size])? })
    }
}
