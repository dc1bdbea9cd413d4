//! Sentence encoder: texts to vectors, as `sentence-transformers` computes them.
//!
//! Reads a folder of that library with a model of the BERT family (BERT, RoBERTa, XLM-R, MPNet: hence MiniLM,
//! BGE, E5, GTE and others): tokenizer, transformer, and what the folder lists after it. Texts are packed one
//! after another without padding, and a text gives the same bits alone as in any batch.
//! [`CrossEncoder`] scores pairs of texts with the same transformers.
//!
//! ```no_run
//! use assay_model::{Encoder, EncoderPrecision};
//!
//! let encoder = Encoder::open("models/all-minilm-l6-v2".as_ref(), EncoderPrecision::Int8)?;
//! let vectors = encoder.embed(&["Hold the button for ten seconds.", "The valve is shut."])?;
//! let query = encoder.embed_queries(&["How do I reset the sensor?"])?.remove(0);
//! assert_eq!((vectors.len(), query.len()), (2, encoder.dims()));
//! # Ok::<(), assay_model::EncoderError>(())
//! ```

mod batch;
mod config;
mod cross;
mod error;
mod files;
mod modules;
mod tokens;
mod transformer;
mod weights;

use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::fetch::hex;
use config::Config;
use files::Files;
use modules::Modules;
use tokens::TextTokenizer;
use transformer::Transformer;
use weights::Weights;

pub use cross::CrossEncoder;
pub use error::EncoderError;
pub use modules::Prefixes;

/// How an encoder's weights are held, and what they are multiplied with. Sums are `f32`, and so is what lies
/// between two products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncoderPrecision {
    /// 32-bit floats throughout.
    F32,
    /// bfloat16, attention included.
    Bf16,
    /// Integers of eight bits with a scale per output, and inputs likewise with a scale per token; attention in
    /// bfloat16. The fastest without AMX; `docs/performance.md` says what it costs in quality.
    Int8,
}

/// A sentence encoder in memory. Cheap to share between threads, costly to open.
pub struct Encoder {
    tokenizer: TextTokenizer,
    transformer: Transformer,
    hidden: usize,
    modules: Modules,
    prefixes: Prefixes,
    files_hash: String,
    precision: EncoderPrecision,
    hash: String,
}

impl Encoder {
    /// Opens a `sentence-transformers` folder: `config.json`, `model.safetensors`, `tokenizer.json`, and, where
    /// present, `modules.json` with the modules' own files, `sentence_bert_config.json`, `tokenizer_config.json`
    /// (for a limit that the former does not set) and the prompts of `config_sentence_transformers.json`. A
    /// folder without modules is pooled by the mean and not normalised, as that library does.
    ///
    /// # Errors
    /// See [`EncoderError`]; anything the folder asks for and this encoder does not do is refused.
    pub fn open(dir: &Path, precision: EncoderPrecision) -> Result<Self, EncoderError> {
        let mut files = Files::new(dir);
        let config = Config::read(&mut files)?;
        let modules = Modules::read(&mut files, config.hidden)?;
        let tokenizer = TextTokenizer::open(&mut files, &config)?;
        let bytes = files.read("model.safetensors")?;
        let weights = Weights::new(dir.join("model.safetensors"), &bytes, precision)?;
        let transformer = Transformer::load(&weights, &config)?;
        let prefixes = Prefixes::read(&files)?;
        let files_hash = files.hash();
        let encoder = Encoder {
            tokenizer,
            transformer,
            hidden: config.hidden,
            modules,
            prefixes: Prefixes::default(),
            hash: files_hash.clone(),
            files_hash,
            precision,
        };
        Ok(encoder.with_prefixes(prefixes))
    }

    /// The encoder with other prefixes than its folder names, for models whose authors tell them in prose only:
    /// E5 wants `query: ` and `passage: `, BGE `Represent this sentence for searching relevant passages: ` before
    /// queries.
    #[must_use]
    pub fn with_prefixes(mut self, prefixes: Prefixes) -> Self {
        self.hash = named_hash(&self.files_hash, self.precision, &prefixes);
        self.prefixes = prefixes;
        self
    }

    /// What is put before texts.
    pub fn prefixes(&self) -> &Prefixes {
        &self.prefixes
    }

    /// Vectors of documents, in their order, each of [`dims`](Self::dims) values. Texts are embedded in
    /// parallel; a text longer than [`max_tokens`](Self::max_tokens) is cut there.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] if a text has no tokenisation.
    pub fn embed(&self, documents: &[&str]) -> Result<Vec<Vec<f32>>, EncoderError> {
        self.embed_after(&self.prefixes.document, documents)
    }

    /// Vectors of what documents are searched with; otherwise as [`embed`](Self::embed), from which it differs
    /// only in the prefix.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    pub fn embed_queries(&self, queries: &[&str]) -> Result<Vec<Vec<f32>>, EncoderError> {
        self.embed_after(&self.prefixes.query, queries)
    }

    fn embed_after(&self, prefix: &str, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let tokenise = |text: &&str| self.tokenizer.text(&format!("{prefix}{text}"));
        let sequences: Vec<_> = texts.par_iter().map(tokenise).collect::<Result<_, _>>()?;
        let read = |states: &[f32]| self.modules.vector(states);
        Ok(batch::each_states(&self.transformer, self.hidden, &sequences, read))
    }

    /// Length of a document in tokens, prefix and special ones included, before any cut: compare it with
    /// [`max_tokens`](Self::max_tokens) to know whether the end of the text is lost.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] if the text has no tokenisation.
    pub fn tokens(&self, document: &str) -> Result<usize, EncoderError> {
        self.tokenizer.count(&format!("{}{document}", self.prefixes.document))
    }

    /// Length of a vector.
    pub fn dims(&self) -> usize {
        self.modules.dims()
    }

    /// Tokens of a text that are read at most, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens
    }

    /// Lower-case hexadecimal sha256 of the configuration, the tokenizer, the weights, their precision and the
    /// prefixes: two encoders with the same hash give the same vectors.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

/// The hash of a model's files with what else decides its results.
fn named_hash(files: &str, precision: EncoderPrecision, prefixes: &Prefixes) -> String {
    let Prefixes { query, document } = prefixes;
    hex(Sha256::digest(format!("{files} {precision:?} {query:?} {document:?}")))
}
