use std::collections::HashMap;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, PreTokenizerWrapper};

use crate::error::ModelError;

/// How text is cut before byte-pair merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splitting {
    /// GPT-2's regular expression.
    Gpt2,
    /// Every digit alone, then GPT-2's expression: SmolLM, StarCoder.
    DigitsThenGpt2,
}

/// What a GGUF file says about its tokenizer.
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    /// Per token: 1 normal, 3 control, 4 user-defined, …
    pub(crate) types: Vec<i64>,
    pub(crate) merges: Vec<(String, String)>,
    pub(crate) splitting: Splitting,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) add_bos: bool,
    /// Tokens that end a turn.
    pub(crate) stop: Vec<u32>,
}

const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// Control tokens that end generation wherever they exist, whatever the metadata say: base and chat
/// variants of one family disagree about which of them is `eos`.
const STOP_TEXTS: [&str; 6] =
    ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>", "</s>"];

/// Byte-level BPE, equal to the model's Hugging Face tokenizer.
#[derive(Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// Per token, the bytes it stands for.
    bytes: Vec<Box<[u8]>>,
    control: Vec<bool>,
    bos: Option<u32>,
    eos: Option<u32>,
    add_bos: bool,
    stop: Vec<u32>,
}

impl Tokenizer {
    pub(crate) fn new(vocabulary: Vocabulary) -> Result<Self, ModelError> {
        let Vocabulary { tokens, types, merges, splitting, bos, eos, add_bos, mut stop } =
            vocabulary;
        let fail = |e: tokenizers::Error| ModelError::Tokenizer(e.to_string());
        let is = |id: usize, kind: i64| types.get(id) == Some(&kind);
        let control: Vec<bool> = (0..tokens.len()).map(|id| is(id, CONTROL)).collect();
        let unbyte: HashMap<char, u8> = byte_chars().into_iter().zip(0..=255u8).collect();
        let bytes = tokens
            .iter()
            .enumerate()
            .map(|(id, token)| {
                let mapped: Option<Box<[u8]>> =
                    token.chars().map(|c| unbyte.get(&c).copied()).collect();
                let literal = is(id, CONTROL) || is(id, USER_DEFINED);
                mapped.filter(|_| !literal).unwrap_or_else(|| token.as_bytes().into())
            })
            .collect();
        stop.extend((0..tokens.len() as u32).filter(|&id| {
            control[id as usize] && STOP_TEXTS.contains(&tokens[id as usize].as_str())
        }));
        stop.sort_unstable();
        stop.dedup();

        let added = |kind: i64, special: bool| -> Vec<AddedToken> {
            (0..tokens.len())
                .filter(|&id| is(id, kind))
                .map(|id| AddedToken::from(tokens[id].clone(), special).normalized(false))
                .collect()
        };
        let (specials, users) = (added(CONTROL, true), added(USER_DEFINED, false));
        let vocab: HashMap<String, u32> = tokens.into_iter().zip(0..).collect();
        let bpe = BPE::builder()
            .vocab_and_merges(vocab.into_iter().collect::<tokenizers::models::bpe::Vocab>(), merges)
            .build()
            .map_err(fail)?;
        let mut inner = tokenizers::Tokenizer::new(bpe);
        let gpt2 = ByteLevel::new(false, true, true);
        inner.with_pre_tokenizer(Some(match splitting {
            Splitting::Gpt2 => PreTokenizerWrapper::ByteLevel(gpt2),
            Splitting::DigitsThenGpt2 => PreTokenizerWrapper::Sequence(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                PreTokenizerWrapper::ByteLevel(gpt2),
            ])),
        }));
        inner.add_special_tokens(specials).map_err(fail)?;
        inner.add_tokens(users).map_err(fail)?;
        Ok(Tokenizer { inner, bytes, control, bos, eos, add_bos, stop })
    }

    /// Token ids of `text`. Control tokens written in the text, such as `<|im_end|>`, are
    /// recognised; none are added.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`]; not known to happen for byte-level vocabularies.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        let encoding = self.inner.encode_fast(text, false);
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
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// A decoder of a stream of ids, which leaves control tokens out.
    pub fn stream(&self) -> TokenStream<'_> {
        TokenStream { tokenizer: self, pending: Vec::new() }
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
}

impl TokenStream<'_> {
    /// The text that is now certain; possibly empty.
    pub fn push(&mut self, id: u32) -> String {
        if !self.tokenizer.is_control(id) {
            self.pending.extend_from_slice(self.tokenizer.token_bytes(id));
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

/// GPT-2's printable stand-in for every byte: itself where printable, else from U+0100 on.
fn byte_chars() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|byte| {
        if matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
            return byte as u8 as char;
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}
