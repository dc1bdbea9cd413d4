//! Sentence encoder: texts to vectors, as `sentence-transformers` computes them.
//!
//! Reads a folder of that library with a BERT model (Devlin et al. 2019): tokenizer, transformer, pooling,
//! and normalisation where the folder asks for it. Texts are packed one after another without padding, and a
//! text gives the same bits alone as in any batch.
//!
//! ```no_run
//! use assay_model::{Encoder, Precision};
//!
//! let encoder = Encoder::open("models/all-minilm-l6-v2".as_ref(), Precision::Bf16)?;
//! let vectors = encoder.embed(&["How do I reset the sensor?", "Hold the button for ten seconds."])?;
//! assert_eq!((vectors.len(), vectors[0].len()), (2, encoder.dims()));
//! # Ok::<(), assay_model::EncoderError>(())
//! ```

mod bert;
mod config;

use std::io;
use std::path::{Path, PathBuf};

use assay_kernels::Precision;
use fs_err as fs;
use rayon::prelude::*;
use safetensors::{SafeTensorError, SafeTensors};
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokenizers::{Encoding, Tokenizer, TruncationDirection};

use crate::fetch::hex;
use bert::Bert;
use config::{Config, Pooling};

/// Tokens that go through the layers together: enough to keep the kernels busy, few enough that the
/// activations stay in the cache.
const BATCH_TOKENS: usize = 1024;

/// Why an encoder could not be opened or used.
#[derive(Debug, Error)]
pub enum EncoderError {
    /// A file of the folder is missing or cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A configuration file is not the JSON it should be.
    #[error("{}: {error}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        error: serde_json::Error,
    },
    /// The model does something that this encoder does not.
    #[error("{}: {key} is {got}, supported: {supported}", path.display())]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// Setting.
        key: &'static str,
        /// Its value.
        got: String,
        /// Values that work.
        supported: &'static str,
    },
    /// The weights file is truncated or not safetensors, or a tensor is missing.
    #[error("{}: {error}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: SafeTensorError,
    },
    /// A tensor does not have the shape that the configuration implies.
    #[error("{}: tensor {name} has shape {got:?}, expected {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        got: Vec<usize>,
    },
    /// The tokenizer cannot be read, or gives a token that the model does not have.
    #[error("{}: {reason}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// A sentence encoder in memory. Cheap to share between threads, costly to open.
pub struct Encoder {
    tokenizer: Tokenizer,
    tokenizer_path: PathBuf,
    config: Config,
    specials: usize,
    bert: Bert,
    hash: String,
}

impl Encoder {
    /// Opens a `sentence-transformers` folder: `config.json`, `model.safetensors`, `tokenizer.json`, and, where
    /// present, `modules.json`, `sentence_bert_config.json` and the pooling module's `config.json`. A folder
    /// without modules is pooled by the mean and not normalised, as that library does.
    ///
    /// `precision` is that of the packed weights; activations between them are `f32`.
    ///
    /// # Errors
    /// See [`EncoderError`]; anything the folder asks for and this encoder does not do is refused.
    pub fn open(dir: &Path, precision: Precision) -> Result<Self, EncoderError> {
        let mut files = Files { dir, hasher: Sha256::new() };
        let config = Config::read(&mut files)?;
        let tokenizer_path = dir.join("tokenizer.json");
        let bad_tokenizer =
            |reason: String| EncoderError::Tokenizer { path: tokenizer_path.clone(), reason };
        let mut tokenizer = Tokenizer::from_bytes(files.read("tokenizer.json")?)
            .map_err(|e| bad_tokenizer(e.to_string()))?;
        // The file may ask for padding and for a shorter limit than the encoder's own.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| bad_tokenizer(e.to_string()))?;
        let special =
            |t: Result<Encoding, tokenizers::Error>| t.map_err(|e| bad_tokenizer(e.to_string()));
        let specials = special(tokenizer.encode_fast("", true))?.len();
        if specials >= config.max_tokens {
            return Err(bad_tokenizer(format!(
                "adds {specials} tokens to every text, and the model takes {}",
                config.max_tokens
            )));
        }

        let path = dir.join("model.safetensors");
        let bytes = files.read("model.safetensors")?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| EncoderError::Weights { path: path.clone(), error })?;
        let bert = Bert::load(&path, &tensors, &config, precision)?;
        Ok(Encoder {
            tokenizer,
            tokenizer_path,
            config,
            specials,
            bert,
            hash: hex(files.hasher.finalize()),
        })
    }

    /// Vectors of `texts`, in their order, each of [`dims`](Self::dims) values. Texts are embedded in
    /// parallel; a text longer than [`max_tokens`](Self::max_tokens) is cut there.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] if a text has no tokenisation.
    pub fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EncoderError> {
        let ids: Vec<Vec<u32>> =
            texts.par_iter().map(|text| self.ids(text)).collect::<Result<_, _>>()?;
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&i| ids[i].len());
        let mut vectors = vec![Vec::new(); ids.len()];
        let embedded: Vec<(usize, Vec<f32>)> = batches(&order, &ids)
            .into_par_iter()
            .flat_map_iter(|batch| self.embed_batch(batch, &ids))
            .collect();
        for (i, vector) in embedded {
            vectors[i] = vector;
        }
        Ok(vectors)
    }

    /// Length of `text` in tokens, special ones included, before any cut: compare it with
    /// [`max_tokens`](Self::max_tokens) to know whether the end of the text is lost.
    ///
    /// # Errors
    /// [`EncoderError::Tokenizer`] if the text has no tokenisation.
    pub fn tokens(&self, text: &str) -> Result<usize, EncoderError> {
        Ok(self.encode(text)?.len() + self.specials)
    }

    /// Length of a vector.
    pub fn dims(&self) -> usize {
        self.config.hidden
    }

    /// Tokens of a text that are read at most, special ones included.
    pub fn max_tokens(&self) -> usize {
        self.config.max_tokens
    }

    /// Lower-case hexadecimal sha256 of the configuration, the tokenizer and the weights: two encoders with the
    /// same hash and precision give the same vectors.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    fn encode(&self, text: &str) -> Result<Encoding, EncoderError> {
        let lower;
        let text = if self.config.lowercase {
            lower = text.to_lowercase();
            lower.as_str()
        } else {
            text
        };
        self.tokenizer
            .encode_fast(text.trim(), false)
            .map_err(|e| self.tokenizer_error(e.to_string()))
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, EncoderError> {
        let mut encoding = self.encode(text)?;
        encoding.truncate(self.config.max_tokens - self.specials, 0, TruncationDirection::Right);
        let encoding = self
            .tokenizer
            .post_process(encoding, None, true)
            .map_err(|e| self.tokenizer_error(e.to_string()))?;
        let ids = encoding.get_ids().to_vec();
        match ids.iter().find(|&&id| id as usize >= self.config.vocabulary) {
            Some(id) => Err(self.tokenizer_error(format!(
                "gives token {id}, the model has {}",
                self.config.vocabulary
            ))),
            None => Ok(ids),
        }
    }

    fn tokenizer_error(&self, reason: String) -> EncoderError {
        EncoderError::Tokenizer { path: self.tokenizer_path.clone(), reason }
    }

    fn embed_batch(&self, batch: &[usize], ids: &[Vec<u32>]) -> Vec<(usize, Vec<f32>)> {
        let sequences: Vec<&[u32]> = batch.iter().map(|&i| ids[i].as_slice()).collect();
        let states = self.bert.forward(&sequences);
        let mut rows = states.chunks_exact(self.config.hidden);
        batch
            .iter()
            .map(|&i| {
                let mut vector =
                    pool(self.config.pooling, rows.by_ref().take(ids[i].len()), self.config.hidden);
                if self.config.normalize {
                    normalize(&mut vector);
                }
                (i, vector)
            })
            .collect()
    }
}

/// Splits the texts, shortest first, so that no batch has more than [`BATCH_TOKENS`] unless one text alone has.
fn batches<'a>(order: &'a [usize], ids: &[Vec<u32>]) -> Vec<&'a [usize]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (at, &i) in order.iter().enumerate() {
        if tokens > 0 && tokens + ids[i].len() > BATCH_TOKENS {
            batches.push(&order[start..at]);
            (start, tokens) = (at, 0);
        }
        tokens += ids[i].len();
    }
    if start < order.len() {
        batches.push(&order[start..]);
    }
    batches
}

/// One vector of the states of a text, `[tokens, hidden]`.
fn pool<'a>(
    pooling: Pooling,
    mut rows: impl Iterator<Item = &'a [f32]>,
    hidden: usize,
) -> Vec<f32> {
    match pooling {
        Pooling::First => rows.next().map_or_else(|| vec![0.0; hidden], <[f32]>::to_vec),
        Pooling::Mean => {
            let (mut sum, mut n) = (vec![0.0; hidden], 0u32);
            for row in rows {
                sum.iter_mut().zip(row).for_each(|(s, v)| *s += v);
                n += 1;
            }
            sum.iter_mut().for_each(|s| *s /= n.max(1) as f32);
            sum
        }
    }
}

/// Scales to length 1; a vector of zeros stays. The floor is that of `torch.nn.functional.normalize`.
fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-12);
    vector.iter_mut().for_each(|v| *v /= length);
}

/// The files of a folder, hashed as they are read.
struct Files<'a> {
    dir: &'a Path,
    hasher: Sha256,
}

impl Files<'_> {
    fn read(&mut self, name: &str) -> Result<Vec<u8>, EncoderError> {
        let bytes = fs::read(self.dir.join(name))?;
        self.hasher.update(format!("{name} {}\n", bytes.len()));
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// A JSON file, or nothing if there is none.
    fn json<T: serde::de::DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, EncoderError> {
        let path = self.dir.join(name);
        if !path.is_file() {
            return Ok(None);
        }
        let bytes = self.read(name)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|error| EncoderError::Json { path, error })
    }
}
