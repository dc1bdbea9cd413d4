use assay_kernels::Gate;

/// Shape of a decoder: blocks of attention and a gated feed-forward part, each behind an RMSNorm, with
/// the parts in which the families Llama, Qwen2, Qwen3 and Gemma 3 differ.
#[derive(Clone, Debug, PartialEq)]
pub struct DecoderConfig {
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Width inside the feed-forward part.
    pub feed_forward: usize,
    /// Tokens known.
    pub vocab: usize,
    /// Tokens that fit, prompt and answer together.
    pub context_length: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Added to the mean square in RMSNorm.
    pub norm_eps: f32,
    /// Factor on embeddings: 1, or `sqrt(hidden)` (Gemma).
    pub embedding_scale: f32,
    /// Factor on the product of query and key, mostly `1 / sqrt(head_dim)`.
    pub attention_scale: f32,
    /// Activation of the feed-forward part's gate.
    pub gate: Gate,
    /// Whether queries, keys and values have a bias (Qwen2).
    pub qkv_bias: bool,
    /// Whether every head of queries and keys is normed before it is rotated (Qwen3, Gemma 3).
    pub qk_norm: bool,
    /// Whether what attention and feed-forward part add is normed first (Gemma 3).
    pub post_norms: bool,
    /// Layers whose attention sees the last tokens only.
    pub sliding_window: Option<SlidingWindow>,
}

/// Local attention (Beltagy et al. 2020) in some of the layers.
#[derive(Clone, Debug, PartialEq)]
pub struct SlidingWindow {
    /// Tokens that a token sees, itself the last of them.
    pub tokens: usize,
    /// Base of the rotary frequencies in local layers, which no scaling changes.
    pub rope_theta: f32,
    /// Whether a layer is local, for every layer.
    pub local: Vec<bool>,
}

impl DecoderConfig {
    /// Tokens that a token sees in a layer, itself the last of them; `None`: all before it.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.as_ref().filter(|w| w.local[layer]).map(|w| w.tokens)
    }

    /// Inputs and outputs of a linear module: its weight is `[outputs, inputs]`.
    pub fn shape(&self, module: Module) -> (usize, usize) {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match module {
            Module::Q => (self.hidden, q),
            Module::K | Module::V => (self.hidden, kv),
            Module::O => (q, self.hidden),
            Module::Gate | Module::Up => (self.hidden, self.feed_forward),
            Module::Down => (self.feed_forward, self.hidden),
        }
    }
}

/// The linear modules of a block; an adapter may sit on any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Module {
    /// Query projection.
    Q,
    /// Key projection.
    K,
    /// Value projection.
    V,
    /// Projection of the attention's output.
    O,
    /// Gate of the feed-forward part.
    Gate,
    /// Up-projection of the feed-forward part.
    Up,
    /// Down-projection of the feed-forward part.
    Down,
}

impl Module {
    /// All, in the order in which adapters store them.
    pub const ALL: [Module; 7] =
        [Module::Q, Module::K, Module::V, Module::O, Module::Gate, Module::Up, Module::Down];

    /// The name in Hugging Face models and PEFT's `target_modules`.
    pub fn hf_name(self) -> &'static str {
        match self {
            Module::Q => "q_proj",
            Module::K => "k_proj",
            Module::V => "v_proj",
            Module::O => "o_proj",
            Module::Gate => "gate_proj",
            Module::Up => "up_proj",
            Module::Down => "down_proj",
        }
    }

    /// The module of that Hugging Face name.
    pub fn from_hf_name(name: &str) -> Option<Module> {
        Module::ALL.into_iter().find(|m| m.hf_name() == name)
    }

    /// Path in a Hugging Face model, e.g. `model.layers.3.self_attn.q_proj`.
    pub fn hf_path(self, layer: usize) -> String {
        let part = match self {
            Module::Q | Module::K | Module::V | Module::O => "self_attn",
            Module::Gate | Module::Up | Module::Down => "mlp",
        };
        format!("model.layers.{layer}.{part}.{}", self.hf_name())
    }

    /// Name of its tensor in GGUF files, e.g. `blk.3.attn_q.weight`.
    pub fn gguf_name(self, layer: usize) -> String {
        let name = match self {
            Module::Q => "attn_q",
            Module::K => "attn_k",
            Module::V => "attn_v",
            Module::O => "attn_output",
            Module::Gate => "ffn_gate",
            Module::Up => "ffn_up",
            Module::Down => "ffn_down",
        };
        format!("blk.{layer}.{name}.weight")
    }
}
