/// Shape of a decoder of the Llama family.
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
}

impl DecoderConfig {
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
