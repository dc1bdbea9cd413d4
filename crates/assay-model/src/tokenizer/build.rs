//! Tokenizers from what GGUF files and `tokenizer.json` say.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::pieces::{SPACE, ScoredPieces};
use super::{Model, Tokenizer, kind};
use crate::error::ModelError;

/// How text is cut before byte-pair merges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Splitting {
    /// GPT-2's regular expression.
    Gpt2,
    /// Every digit alone, then GPT-2's expression: SmolLM, StarCoder.
    DigitsThenGpt2,
    /// Every digit alone, words with one leading mark, line ends with what precedes them; after
    /// Unicode's composition (NFC). Qwen2 and later.
    Qwen2,
    /// Qwen2's with up to three digits together, and as they are written. Llama 3.
    Llama3,
}

/// How pieces of text become tokens.
pub(crate) enum Pieces {
    /// By merges in their order, over bytes in GPT-2's spelling.
    Merged { merges: Vec<(String, String)>, splitting: Splitting },
    /// By score: SentencePiece.
    Scored { scores: Vec<f32>, space_prefix: bool },
}

/// What a GGUF file says about its tokenizer.
pub(crate) struct Vocabulary {
    pub(crate) tokens: Vec<String>,
    /// Per token, one of [`kind`].
    pub(crate) types: Vec<i64>,
    pub(crate) pieces: Pieces,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) add_bos: bool,
    /// Tokens that end a turn.
    pub(crate) stop: Vec<u32>,
}

/// Control tokens that end generation wherever they exist, whatever the metadata say: base and chat
/// variants of one family disagree about which of them is `eos`.
const STOP_TEXTS: [&str; 7] = [
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|eom_id|>",
    "</s>",
    "<end_of_turn>",
];

impl Tokenizer {
    pub(crate) fn new(vocabulary: Vocabulary) -> Result<Self, ModelError> {
        let Vocabulary { tokens, types, pieces, bos, eos, add_bos, mut stop } = vocabulary;
        let is = |id: usize, kind: i64| types.get(id) == Some(&kind);
        let control: Vec<bool> = (0..tokens.len()).map(|id| is(id, kind::CONTROL)).collect();
        let spelling = match pieces {
            Pieces::Merged { .. } => Spelling::gpt2(),
            Pieces::Scored { .. } => Spelling::SentencePiece,
        };
        let bytes = tokens.iter().enumerate().map(|(id, token)| {
            let literal = is(id, kind::CONTROL) || is(id, kind::USER_DEFINED);
            spelling.bytes(token, literal)
        });
        let bytes = bytes.collect();
        stop.extend(stop_tokens(&tokens, &control));
        stop.sort_unstable();
        stop.dedup();
        let mut strip_space = false;
        let model = match pieces {
            Pieces::Merged { merges, splitting } => {
                let model = merging(tokens, &types, merges, splitting);
                Model::HuggingFace(Box::new(model.map_err(failed)?))
            }
            Pieces::Scored { scores, space_prefix } => {
                strip_space = space_prefix;
                Model::Scored(ScoredPieces::new(&tokens, &types, &scores, space_prefix))
            }
        };
        Ok(Tokenizer { model, bytes, control, bos, eos, add_bos, stop, strip_space })
    }

    /// Reads `tokenizer.json`; `bos` and `eos` are the texts of those tokens, `stop` the ids that end
    /// a turn beside `eos`.
    pub(crate) fn from_file(
        path: &Path,
        bos: Option<&str>,
        eos: Option<&str>,
        mut stop: Vec<u32>,
    ) -> Result<Self, ModelError> {
        let json = fs_err::read(path)?;
        let bad = |source| ModelError::Json { path: path.into(), source };
        let description: Value = serde_json::from_slice(&json).map_err(bad)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&json).map_err(failed)?;
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        let decoder = &description["decoder"];
        let spelling = if mentions(decoder, "ByteLevel") {
            Spelling::gpt2()
        } else if mentions(decoder, "ByteFallback") || mentions(decoder, "Metaspace") {
            Spelling::SentencePiece
        } else {
            return Err(ModelError::UnsupportedTokenizer {
                path: path.into(),
                field: "decoder",
                got: decoder["type"].as_str().unwrap_or("none").into(),
                supported: &["ByteLevel", "ByteFallback", "Metaspace"],
            });
        };
        let vocab = inner.get_vocab(true);
        let size = vocab.values().max().map_or(0, |&id| id as usize + 1);
        let mut tokens = vec![String::new(); size];
        for (token, id) in vocab {
            tokens[id as usize] = token;
        }
        let added = inner.get_added_tokens_decoder();
        let control: Vec<bool> =
            (0..size as u32).map(|id| added.get(&id).is_some_and(|token| token.special)).collect();
        let bytes = tokens.iter().zip(0..);
        let bytes = bytes.map(|(token, id)| spelling.bytes(token, added.contains_key(&id)));
        let bytes = bytes.collect();
        let id = |text: Option<&str>| text.and_then(|text| inner.token_to_id(text));
        let (bos, eos) = (id(bos), id(eos));
        let template = inner.encode_fast("", true).map_err(failed)?;
        let add_bos = bos.is_some() && template.get_ids().first().copied() == bos;
        stop.extend(stop_tokens(&tokens, &control).chain(eos));
        stop.sort_unstable();
        stop.dedup();
        let prepend = mentions(&description["normalizer"], "Prepend");
        let strip_space = prepend || adds_space(&description["pre_tokenizer"]);
        let model = Model::HuggingFace(Box::new(inner));
        Ok(Tokenizer { model, bytes, control, bos, eos, add_bos, stop, strip_space })
    }
}

fn failed(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

fn stop_tokens(tokens: &[String], control: &[bool]) -> impl Iterator<Item = u32> {
    let ends = |(token, control): (&String, &bool)| *control && STOP_TEXTS.contains(&&**token);
    (0..).zip(tokens.iter().zip(control)).filter(move |(_, token)| ends(*token)).map(|(id, _)| id)
}

/// Whether a component of a tokenizer is of that type or holds one that is.
fn mentions(component: &Value, r#type: &str) -> bool {
    component["type"] == *r#type
        || ["decoders", "normalizers", "pretokenizers"]
            .iter()
            .filter_map(|list| component[*list].as_array())
            .flatten()
            .any(|inner| mentions(inner, r#type))
}

/// Whether a pre-tokenizer puts a space before a text.
fn adds_space(component: &Value) -> bool {
    let parts = component["pretokenizers"].as_array();
    let own = component["type"] == "Metaspace" && component["prepend_scheme"] != "never";
    own || parts.into_iter().flatten().any(adds_space)
}

/// Byte-level byte-pair encoding.
fn merging(
    tokens: Vec<String>,
    types: &[i64],
    merges: Vec<(String, String)>,
    splitting: Splitting,
) -> Result<tokenizers::Tokenizer, tokenizers::Error> {
    let added = |kind: i64, special: bool| -> Vec<AddedToken> {
        (0..tokens.len())
            .filter(|&id| types.get(id) == Some(&kind))
            .map(|id| AddedToken::from(tokens[id].clone(), special).normalized(false))
            .collect()
    };
    let (specials, users) = (added(kind::CONTROL, true), added(kind::USER_DEFINED, false));
    let bpe = BPE::builder()
        .vocab_and_merges(tokens.into_iter().zip(0..).collect::<Vocab>(), merges)
        // Llama 3 takes a word that is a token as it is, though no merges lead there.
        .ignore_merges(splitting == Splitting::Llama3)
        .build()?;
    let mut inner = tokenizers::Tokenizer::new(bpe);
    inner.with_pre_tokenizer(Some(pre_tokenizer(splitting)?));
    if splitting == Splitting::Qwen2 {
        inner.with_normalizer(Some(NFC))?;
    }
    inner.add_special_tokens(specials)?;
    inner.add_tokens(users)?;
    Ok(inner)
}

fn pre_tokenizer(splitting: Splitting) -> Result<PreTokenizerWrapper, tokenizers::Error> {
    let sequence = |first: PreTokenizerWrapper, regex: bool| {
        let bytes = ByteLevel::new(false, true, regex).into();
        PreTokenizerWrapper::Sequence(Sequence::new(vec![first, bytes]))
    };
    let split = |digits: &str| {
        let pattern = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        Split::new(SplitPattern::Regex(pattern), SplitDelimiterBehavior::Isolated, false)
    };
    Ok(match splitting {
        Splitting::Gpt2 => ByteLevel::new(false, true, true).into(),
        Splitting::DigitsThenGpt2 => sequence(Digits::new(true).into(), true),
        Splitting::Qwen2 => sequence(split(r"\p{N}")?.into(), false),
        Splitting::Llama3 => sequence(split(r"\p{N}{1,3}")?.into(), false),
    })
}

/// How a token's text spells its bytes.
enum Spelling {
    /// Every byte as a printable character.
    Gpt2(HashMap<char, u8>),
    /// As it is, with U+2581 for spaces and `<0x0A>` for bytes.
    SentencePiece,
}

impl Spelling {
    fn gpt2() -> Self {
        Spelling::Gpt2(byte_chars().into_iter().zip(0..=255).collect())
    }

    fn bytes(&self, token: &str, literal: bool) -> Box<[u8]> {
        let spelled: Option<Box<[u8]>> = match self {
            Spelling::Gpt2(bytes) => token.chars().map(|c| bytes.get(&c).copied()).collect(),
            Spelling::SentencePiece => {
                let byte = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
                let byte = byte.filter(|b| b.len() == 2).map(|b| u8::from_str_radix(b, 16));
                Some(match byte {
                    Some(Ok(byte)) => [byte].into(),
                    _ => token.replace(SPACE, " ").into_bytes().into(),
                })
            }
        };
        spelled.filter(|_| !literal).unwrap_or_else(|| token.as_bytes().into())
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
