//! Chat models behind any OpenAI-compatible server: vLLM, TGI, Ollama, llama.cpp, hosted ones.
//!
//! A [`RemoteModel`] sends conversations to `{base-url}/chat/completions`, whole or streamed, several at a time on
//! threads. What passes (429, 5xx, time-outs, broken connections and answers) is tried again with growing waits that
//! honour `Retry-After`; what does not (a wrong key, model or request) is an error at once. A server that keeps failing
//! is given up rather than asked for every item.
//!
//! Never guessed: tokens that the server does not count stay unknown, an answer that broke off is an error and not a
//! short answer. The key is sent to the configured server only and stands in no error and no `Debug` output; redirects
//! are refused. The crate knows no prompts, reads no environment and stores nothing.
//!
//! ```no_run
//! use assay_remote::{ChatRequest, RemoteModel, RemoteSpec, Settings};
//! use assay_types::{Message, Role};
//!
//! # fn main() -> Result<(), assay_remote::RemoteError> {
//! let spec: RemoteSpec = "openai:qwen2.5-7b-instruct@http://127.0.0.1:8000/v1".parse()?;
//! let model = RemoteModel::new(Settings::new(spec))?;
//! let question = vec![Message::new(Role::User, "What is the capital of France?")];
//! let reply = model.chat(&ChatRequest::greedy(question, 64))?;
//! assert!(reply.text.contains("Paris"));
//! # Ok(())
//! # }
//! ```

mod client;
mod error;
mod key;
mod patience;
mod spec;
mod sse;
mod wire;

pub use client::{ChatRequest, RemoteModel, Reply, Settings};
pub use error::{Blame, RemoteError};
pub use key::ApiKey;
pub use spec::RemoteSpec;
pub use wire::{Alternative, TokenLogprob};
