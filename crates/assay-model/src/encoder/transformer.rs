//! The transformer of the BERT family, post-norm, over packed sequences.

use assay_kernels::{PositionBias, attention_bidirectional, gelu, gelu_tanh};

use super::config::{Activation, BUCKETS, Config, Family};
use super::error::EncoderError;
use super::tokens::Tokens;
use super::weights::{Linear, Norm, Weights, add};

pub(super) struct Transformer {
    words: Vec<f32>,
    /// `[types, positions, hidden]`: the embedding of each position with that of the token type added.
    positions: Vec<f32>,
    position_count: usize,
    padding: Option<u32>,
    /// `[heads, 2 * reach - 1]` and the reach; see [`PositionBias`].
    bias: Option<(Vec<f32>, usize)>,
    norm: Norm,
    layers: Vec<Layer>,
    activation: Activation,
    hidden: usize,
    inner: usize,
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

/// Names of tensors that differ between the families.
struct Names {
    /// Before all names, where the transformer was saved inside another model.
    prefix: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    output: &'static str,
    attention_norm: &'static str,
}

fn names(family: Family) -> Names {
    let bert = Names {
        prefix: "bert.",
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        output: "attention.output.dense",
        attention_norm: "attention.output.LayerNorm",
    };
    match family {
        Family::Bert => bert,
        Family::Roberta => Names { prefix: "roberta.", ..bert },
        Family::Mpnet => Names {
            prefix: "mpnet.",
            query: "attention.attn.q",
            key: "attention.attn.k",
            value: "attention.attn.v",
            output: "attention.attn.o",
            attention_norm: "attention.LayerNorm",
        },
    }
}

/// Activations of a forward pass, kept for the next: fresh pages cost more than what is computed on them.
#[derive(Default)]
pub(super) struct Scratch {
    segments: Vec<usize>,
    states: Vec<f32>,
    /// The states before a norm.
    sum: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    mixed: Vec<f32>,
    inner: Vec<f32>,
}

impl Transformer {
    pub(super) fn load(source: &Weights<'_>, config: &Config) -> Result<Self, EncoderError> {
        let words = "embeddings.word_embeddings.weight";
        let names = names(config.family);
        let prefix = if source.has(words) { "" } else { names.prefix };
        let (hidden, inner) = (config.hidden, config.inner);
        let named = |name: &str| format!("{prefix}{name}");
        let table = |name: &str, rows: usize| source.values(&named(name), &[rows, hidden]);
        let layer = |i: usize| {
            let name = |part: &str| format!("{prefix}encoder.layer.{i}.{part}");
            Ok(Layer {
                query: source.linear(&name(names.query), hidden, hidden)?,
                key: source.linear(&name(names.key), hidden, hidden)?,
                value: source.linear(&name(names.value), hidden, hidden)?,
                output: source.linear(&name(names.output), hidden, hidden)?,
                attention_norm: source.norm(&name(names.attention_norm), hidden)?,
                up: source.linear(&name("intermediate.dense"), inner, hidden)?,
                down: source.linear(&name("output.dense"), hidden, inner)?,
                norm: source.norm(&name("output.LayerNorm"), hidden)?,
            })
        };
        let mut positions = table("embeddings.position_embeddings.weight", config.positions)?;
        if config.types > 0 {
            let types = table("embeddings.token_type_embeddings.weight", config.types)?;
            let typed = types.chunks_exact(hidden).flat_map(|kind| {
                let mut positions = positions.clone();
                positions.chunks_exact_mut(hidden).for_each(|row| add(row, kind));
                positions
            });
            positions = typed.collect();
        }
        let bias = match config.family {
            Family::Bert | Family::Roberta => None,
            Family::Mpnet => {
                let name = named("encoder.relative_attention_bias.weight");
                let buckets = source.values(&name, &[BUCKETS, config.heads])?;
                Some((by_distance(&buckets, config), config.max_tokens))
            }
        };
        Ok(Transformer {
            words: table(words, config.vocabulary)?,
            positions,
            position_count: config.positions,
            padding: config.padding,
            bias,
            norm: source.norm(&named("embeddings.LayerNorm"), hidden)?,
            layers: (0..config.layers).map(layer).collect::<Result<_, EncoderError>>()?,
            activation: config.activation,
            hidden,
            inner,
            heads: config.heads,
            eps: config.eps,
        })
    }

    /// Last states of the sequences, one after another: `[tokens of all, hidden]`. No sequence is longer
    /// than the model's limit.
    pub(super) fn forward<'s>(&self, sequences: &[&Tokens], scratch: &'s mut Scratch) -> &'s [f32] {
        let h = self.hidden;
        scratch.segments.clear();
        scratch.segments.push(0);
        scratch.sum.clear();
        for tokens in sequences {
            self.embed(tokens, &mut scratch.sum);
            scratch.segments.push(scratch.sum.len() / h);
        }
        let tokens = scratch.sum.len() / h;
        let Scratch { states, query, key, value, mixed, inner, .. } = scratch;
        for buffer in [states, query, key, value, mixed] {
            buffer.resize(tokens * h, 0.0);
        }
        inner.resize(tokens * self.inner, 0.0);
        self.norm.apply(&scratch.sum, self.eps, &mut scratch.states);
        for layer in &self.layers {
            self.layer(layer, scratch);
        }
        &scratch.states
    }

    /// Appends the embeddings of the tokens, before their norm.
    fn embed(&self, tokens: &Tokens, out: &mut Vec<f32>) {
        let h = self.hidden;
        // As in fairseq, positions count the tokens that are no padding, from behind the padding's own.
        let mut next = self.padding.map_or(0, |pad| pad as usize + 1);
        for (&id, &kind) in tokens.ids.iter().zip(&tokens.types) {
            let position = if self.padding == Some(id) {
                id as usize
            } else {
                next += 1;
                next - 1
            };
            out.extend_from_slice(&self.words[id as usize * h..][..h]);
            let at = out.len() - h;
            let row = kind as usize * self.position_count + position;
            add(&mut out[at..], &self.positions[row * h..][..h]);
        }
    }

    fn layer(&self, layer: &Layer, scratch: &mut Scratch) {
        let Scratch { segments, states, sum, query, key, value, mixed, inner } = scratch;
        let qkv = [(&layer.query, &mut query[..]), (&layer.key, key), (&layer.value, value)];
        Linear::apply_all(states, qkv);
        let head_dim = self.hidden / self.heads;
        let scale = 1.0 / (head_dim as f32).sqrt();
        let bias = self.bias.as_ref().map(|(values, reach)| PositionBias { values, reach: *reach });
        let precision = layer.query.attention_precision();
        attention_bidirectional(
            query, key, value, segments, self.heads, head_dim, scale, bias, precision, mixed,
        );
        layer.output.add(mixed, states);
        layer.attention_norm.apply(states, self.eps, sum);

        layer.up.apply(sum, inner);
        match self.activation {
            Activation::Gelu => gelu(inner),
            Activation::GeluTanh => gelu_tanh(inner),
            Activation::Relu => inner.iter_mut().for_each(|v| *v = v.max(0.0)),
        }
        layer.down.add(inner, sum);
        layer.norm.apply(sum, self.eps, states);
    }
}

/// MPNet's bias `[heads, 2 * reach - 1]` by distance, of its buckets `[BUCKETS, heads]`.
fn by_distance(buckets: &[f32], config: &Config) -> Vec<f32> {
    let reach = config.max_tokens as isize;
    let distances = |head: usize| {
        (1 - reach..reach).map(move |distance| buckets[bucket(distance) * config.heads + head])
    };
    (0..config.heads).flat_map(distances).collect()
}

/// Bucket of the distance of a key from a query: one each for the short ones, logarithmic up to 128, keys
/// after the query in the upper half (Raffel et al. 2020, in the `f32` arithmetic of transformers).
fn bucket(distance: isize) -> usize {
    let (half, exact) = (BUCKETS / 2, BUCKETS / 4);
    let far = distance.unsigned_abs();
    let bucket = if far < exact {
        far
    } else {
        let steps = (far as f32 / exact as f32).ln() / (128.0 / exact as f32).ln();
        (exact + (steps * (half - exact) as f32) as usize).min(half - 1)
    };
    if distance > 0 { half + bucket } else { bucket }
}
