//! Text to tokens and back, equal to the model's Hugging Face tokenizer.

use crate::error::ModelError;

mod build;
mod pieces;

pub(crate) use build::{Pieces, Splitting, Vocabulary};

/// What a token is, in the numbers of GGUF's `tokenizer.ggml.token_type`.
mod kind {
    pub(super) const NORMAL: i64 = 1;
    pub(super) const UNKNOWN: i64 = 2;
    pub(super) const CONTROL: i64 = 3;
    pub(super) const USER_DEFINED: i64 = 4;
    pub(super) const BYTE: i64 = 6;
}

/// Byte-pair encoding, over bytes or over SentencePiece's pieces.
#[derive(Debug)]
pub struct Tokenizer {
    model: Model,
    /// Per token, the bytes it stands for.
    bytes: Vec<Box<[u8]>>,
    control: Vec<bool>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    stop: Vec<u32>,
    /// Whether encoding puts a space before a text, which decoding takes off again.
    strip_space: bool,
}

#[derive(Debug)]
enum Model {
    HuggingFace(Box<tokenizers::Tokenizer>),
    Scored(pieces::ScoredPieces),
}

impl Tokenizer {
    /// Token ids of `text`. Control tokens written in the text, such as `<|im_end|>`, are
    /// recognised; none are added.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]; not known to happen for byte-level vocabularies.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let model = match &self.model {
            Model::HuggingFace(model) => model,
            Model::Scored(pieces) => return Ok(pieces.encode(text)),
        };
        let encoding = model.encode_fast(text, false);
        Ok(encoding.map_err(|e| ModelError::Tokenizer(e.to_string()))?.get_ids().to_vec())
    }

    /// Text of `ids`; bytes that are no UTF-8 become U+FFFD, ids beyond the vocabulary nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut bytes = Vec::new();
        for &id in ids {
            if !(skip_special && self.is_control(id)) {
                bytes.extend_from_slice(self.token_bytes(id));
            }
        }
        let own = usize::from(self.strip_space && bytes.first() == Some(&b' '));
        String::from_utf8_lossy(&bytes[own..]).into_owned()
    }

    /// A decoder of a stream of ids, which leaves control tokens out.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream { tokenizer: self, pending: Vec::new(), strip_space: self.strip_space }
    }

    /// Bytes that a token stands for; a control token's own name.
    pub fn token_bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |b| b)
    }

    /// Whether a token is a mark for the model rather than text.
    pub fn is_control(&self, id: u32) -> bool {
        self.control.get(id as usize).copied().unwrap_or(false)
    }

    /// Number of tokens.
    pub fn vocab(&self) -> usize {
        self.bytes.len()
    }

    /// First token of a text, where the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Last token of a text or turn.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Whether texts begin with [`Self::bos`].
    pub fn adds_bos(&self) -> bool {
        self.add_bos
    }

    /// Whether decoding takes a space off the beginning of a text.
    pub(crate) fn strips_space(&self) -> bool {
        self.strip_space
    }

    /// Tokens that end generation, in increasing order.
    pub fn stop_tokens(&self) -> &[u32] {
        &self.stop
    }
}

/// Decodes ids one by one; a character cut between tokens is held back until it is whole.
#[derive(Debug)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    pending: Vec<u8>,
    /// Whether a space that comes next is the one that encoding put before the text.
    strip_space: bool,
}

impl TokenStream<'_> {
    /// The text that is now certain; possibly empty.
    pub fn push(&mut self, id: u32) -> String {
        if !self.tokenizer.is_control(id) {
            let bytes = self.tokenizer.token_bytes(id);
            let own = usize::from(self.strip_space && bytes.first() == Some(&b' '));
            self.strip_space &= bytes.is_empty();
            self.pending.extend_from_slice(&bytes[own..]);
        }
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(valid) => {
                    text.push_str(valid);
                    self.pending.clear();
                    return text;
                }
                Err(e) => {
                    let valid = self.pending.drain(..e.valid_up_to()).collect::<Vec<u8>>();
                    text.push_str(&String::from_utf8_lossy(&valid));
                    let Some(bad) = e.error_len() else { return text };
                    self.pending.drain(..bad);
                    text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
    }

    /// What was held back, as U+FFFD. All texts together equal [`Tokenizer::decode`].
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}
