//! Weights, tokenizer, chat template, decoder and encoder, adapters, catalog and fetch.
//!
//! There is one [`Decoder`] for training, evaluation and serving: one tokenizer, one renderer, one
//! forward pass, so that what was trained is what is measured and served. Its promises, each held
//! by a test: tokens, rendered chats, logits and greedy answers equal Hugging Face transformers';
//! gradients equal autograd's; an answer or a score does not depend on what else is in the batch;
//! without adapter the base answers, bit for bit.
//!
//! Refused, with the reason: files of another architecture, tokenizer or quantisation, truncated
//! ones, prompts longer than the context, forms of answers that cannot be kept, and adapters made for another base, template or shape.
//! The crate knows no datasets, no optimizer and no HTTP serving.
//!
//! ```no_run
//! use assay_model::{Decoder, GenerateRequest, Precision};
//! use assay_types::{Message, Role};
//! use std::{ops::ControlFlow, path::Path};
//!
//! # fn main() -> Result<(), assay_model::ModelError> {
//! let decoder = Decoder::open(Path::new("model.gguf"), Precision::Bf16)?;
//! let question = [Message::new(Role::User, "What is the capital of France?")];
//! let request = GenerateRequest::greedy(decoder.prompt_tokens(&question)?, 64);
//! let answers = decoder.generate(&[request], None, &mut |_, _| ControlFlow::Continue(()))?;
//! assert!(answers[0].text.contains("Paris"));
//! # Ok(())
//! # }
//! ```

mod adapter;
mod batch;
mod catalog;
mod config;
mod decoder;
mod encoder;
mod error;
mod fetch;
mod gguf;
mod memory;
mod peft;
mod prompt;
mod quant;
mod rng;
mod shards;
mod template;
mod tokenizer;

pub use adapter::{Adapter, AdapterSpec, Pair};
pub use assay_kernels::{Gate, Precision};
pub use batch::{LossSum, PackedBatch};
pub use catalog::{
    CatalogEntry, CatalogFile, HubSource, ModelKind, ModelSpec, Source, WheelSource, catalog,
};
pub use config::{DecoderConfig, Module, SlidingWindow};
pub use decoder::{
    Continuation, Decoder, Form, GenerateRequest, Generation, LogLikelihood, Sampling,
    TokenLogProbs,
};
pub use encoder::{CrossEncoder, Encoder, EncoderError, EncoderPrecision, Prefixes};
pub use error::ModelError;
pub use fetch::{
    Attempt, FetchConfig, FetchError, Progress, ResolvedModel, SourceError, resolve, resolve_entry,
};
pub use memory::{Outline, TrainingPass};
pub use peft::AdapterError;
pub use prompt::PromptCounter;
pub use template::ChatTemplate;
pub use tokenizer::{TokenStream, Tokenizer};
