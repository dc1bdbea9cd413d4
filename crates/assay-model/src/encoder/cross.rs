//! Cross-encoder: a query and a document, read together, to a score.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::Deserialize;

use super::config::{Config, Family};
use super::error::{EncoderError, unsupported};
use super::files::Files;
use super::modules::{Prefixes, activation};
use super::tokens::TextTokenizer;
use super::transformer::Transformer;
use super::weights::{Linear, Weights};
use super::{EncoderPrecision, batch, named_hash};

/// A reranker: a transformer of the BERT family with a classification head, as `CrossEncoder` of
/// `sentence-transformers` reads it. Cheap to share between threads, costly to open.
///
/// ```no_run
/// use assay_model::{CrossEncoder, EncoderPrecision};
///
/// let reranker = CrossEncoder::open("models/ms-marco-minilm-l6-v2".as_ref(), EncoderPrecision::Int8)?;
/// let scores = reranker.score("How do I reset it?", &["Hold the button.", "The valve is shut."])?;
/// assert!(scores[0] > scores[1]);
/// # Ok::<(), assay_model::EncoderError>(())
/// ```
pub struct CrossEncoder {
    tokenizer: TextTokenizer,
    transformer: Transformer,
    hidden: usize,
    /// On the state of the first token; `tanh` between the two.
    pooler: Linear,
    classifier: Linear,
    scale: Scale,
    hash: String,
}

/// What becomes of a logit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scale {
    Raw,
    Sigmoid,
}

/// Where versions of the library keep the activation, in `config.json`.
#[derive(Default, Deserialize)]
struct HeadJson {
    sentence_transformers: Option<ActivationJson>,
    sbert_ce_default_activation_function: Option<String>,
}

/// The same in `config_sentence_transformers.json`.
#[derive(Default, Deserialize)]
struct ActivationJson {
    activation_fn: Option<String>,
}

impl CrossEncoder {
    /// Opens a folder with `config.json`, `model.safetensors` and `tokenizer.json` of a
    /// `…ForSequenceClassification` model, and, where present, `config_sentence_transformers.json`,
    /// `sentence_bert_config.json` and `tokenizer_config.json`.
    ///
    ///
    /// # Errors
    /// See [`EncoderError`]; anything the folder asks for and this encoder does not do is refused.
    pub fn open(dir: &Path, precision: EncoderPrecision) -> Result<Self, EncoderError> {
        let mut files = Files::new(dir);
        let config = Config::read(&mut files)?;
        let named = activation_name(&mut files)?;
        let tokenizer = TextTokenizer::open(&mut files, &config)?;
        if !tokenizer.has_special_tokens() {
            let reason = "adds no special token, whose state would be scored".into();
            return Err(tokenizer.error(reason));
        }
        let bytes = files.read("model.safetensors")?;
        let weights = Weights::new(dir.join("model.safetensors"), &bytes, precision)?;
        let transformer = Transformer::load(&weights, &config)?;
        let hidden = config.hidden;
        let (pooler, classifier) = match config.family {
            Family::Bert => ("bert.pooler.dense", "classifier"),
            Family::Roberta | Family::Mpnet => ("classifier.dense", "classifier.out_proj"),
        };
        // One small product for each pair: full precision costs nothing.
        let weights = Weights::new(dir.join("model.safetensors"), &bytes, EncoderPrecision::F32)?;
        let labels = weights.rows(&format!("{classifier}.weight"))?;
        let scale = match named.as_ref().map(|(path, name)| (path, activation(name))) {
            None if labels == 1 => Scale::Sigmoid,
            None | Some((_, "Identity")) => Scale::Raw,
            Some((_, "Sigmoid")) => Scale::Sigmoid,
            Some((path, other)) => {
                return Err(unsupported(path, "activation_fn", other, "Identity, Sigmoid"));
            }
        };
        Ok(CrossEncoder {
            tokenizer,
            transformer,
            hidden,
            pooler: weights.linear(pooler, hidden, hidden)?,
            classifier: weights.linear(classifier, labels, hidden)?,
            scale,
            hash: named_hash(&files.hash(), precision, &Prefixes::default()),
        })
    }

    /// Scores of the documents, in their order: `[documents, labels]`, row-major, hence one for each document
    /// from a reranker, which has one label; higher is better. With an activation of the sigmoid a score is
    /// in 0..1, else it is the raw logit; the model's configuration decides, and without a word from it one
    /// label gets the sigmoid and several do not.
    ///
    /// A document's score does not depend on the other documents. A pair longer than
    /// [`max_tokens`](Self::max_tokens) loses the end of the longer of the two texts, then of both.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] if a text has no tokenisation.
    pub fn score(&self, query: &str, documents: &[&str]) -> Result<Vec<f32>, EncoderError> {
        let query = self.tokenizer.encode(query)?;
        let tokenise = |document: &&str| self.tokenizer.pair(query.clone(), document);
        let pairs: Vec<_> = documents.par_iter().map(tokenise).collect::<Result<_, _>>()?;
        let read = |states: &[f32]| self.head(states);
        Ok(batch::each_states(&self.transformer, self.hidden, &pairs, read).concat())
    }

    /// Scores of each document.
    pub fn labels(&self) -> usize {
        self.classifier.outputs()
    }

    /// Tokens of a pair that are read at most, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.tokenizer.max_tokens
    }

    /// Lower-case hexadecimal sha256 of the configuration, the tokenizer, the weights and their
    /// precision: two cross-encoders with the same hash give the same scores.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn head(&self, states: &[f32]) -> Vec<f32> {
        let mut pooled = vec![0.0; self.hidden];
        self.pooler.apply(&states[..self.hidden], &mut pooled);
        pooled.iter_mut().for_each(|v| *v = v.tanh());
        let mut scores = vec![0.0; self.labels()];
        self.classifier.apply(&pooled, &mut scores);
        if self.scale == Scale::Sigmoid {
            scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp()));
        }
        scores
    }
}

/// The activation that the folder names, and the file that does.
fn activation_name(files: &mut Files<'_>) -> Result<Option<(PathBuf, String)>, EncoderError> {
    let own: ActivationJson =
        files.json_if_any("config_sentence_transformers.json")?.unwrap_or_default();
    if let Some(name) = own.activation_fn {
        return Ok(Some((files.dir.join("config_sentence_transformers.json"), name)));
    }
    let head: HeadJson = files.peek("config.json")?;
    let name = head.sentence_transformers.and_then(|s| s.activation_fn);
    let name = name.or(head.sbert_ce_default_activation_function);
    Ok(name.map(|name| (files.dir.join("config.json"), name)))
}
