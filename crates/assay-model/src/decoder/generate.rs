//! Batched generation with cached keys and values.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{TryRecvError, channel};

use assay_types::FinishReason;

use super::Decoder;
use super::engine::Event;
use super::form::Form;
use super::sampling::{Sampling, TokenLogProbs};
use crate::adapter::Adapter;
use crate::error::ModelError;

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerateRequest {
    /// The prompt, e.g. of [`Decoder::prompt_tokens`].
    pub tokens: Vec<u32>,
    /// Limit on new tokens; the end of the context is another one.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Texts that end generation and are cut off the answer.
    pub stop: Vec<String>,
    /// Whether to tell how likely each token was, and with how many of the most likely ones beside it.
    pub log_probs: Option<usize>,
    /// The form that the answer must have.
    pub form: Option<Form>,
}

impl GenerateRequest {
    /// Always the most likely token, and nothing special.
    pub fn greedy(tokens: Vec<u32>, max_new_tokens: usize) -> Self {
        GenerateRequest {
            tokens,
            max_new_tokens,
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            log_probs: None,
            form: None,
        }
    }
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New tokens, the stop token included; there is none where nothing may follow a form.
    pub tokens: Vec<u32>,
    /// Their text, without control tokens and up to a stop text.
    pub text: String,
    /// How likely each of them was, where the request asks; else empty.
    pub log_probs: Vec<TokenLogProbs>,
    /// Why it ended; an observer that breaks counts as a stop.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// Tokens of the prompt that another request, of this call or any other, had read already.
    pub shared_tokens: usize,
    /// Wall time until the first new token, in milliseconds: of each pass over the batch, the part
    /// that corresponds to this request's share of the pass's tokens. Shared tokens cost nothing: who
    /// read them paid. The parts of all requests that run together add up to the time of the passes.
    pub prefill_ms: f64,
    /// Wall time of all further tokens, divided in the same way.
    pub decode_ms: f64,
}

impl Generation {
    /// Nothing yet.
    pub(super) fn new(input_tokens: usize) -> Self {
        Generation {
            tokens: Vec::new(),
            text: String::new(),
            log_probs: Vec::new(),
            finish: FinishReason::Length,
            input_tokens,
            shared_tokens: 0,
            prefill_ms: 0.0,
            decode_ms: 0.0,
        }
    }
}

impl Decoder {
    /// Answers all requests, in their order. `observer` sees each new token of each request as it
    /// comes, stop tokens included, and may end that request.
    ///
    /// Calls from several threads are computed in one batch, which requests join and leave at every
    /// pass; long prompts are read in parts beside those that generate. The tokens of a request do not
    /// depend on the other requests. What prompts have in common is read once, and kept for later
    /// calls with the same adapter, bit for bit what would be computed again.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a prompt leaves no room for a new token, [`ModelError::Empty`],
    /// [`ModelError::UnknownToken`], [`ModelError::Sampling`], [`ModelError::Form`],
    /// [`ModelError::AdapterMismatch`]; then nothing was generated, except where a form turns out too
    /// complex on the way.
    ///
    /// # Panics
    /// When a kernel panicked in a pass that computed one of the requests.
    pub fn generate(
        &self,
        requests: &[GenerateRequest],
        adapter: Option<&Adapter>,
        observer: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, ModelError> {
        let packed = self.packed(adapter)?;
        for request in requests {
            self.check(request)?;
        }
        let cancelled: Vec<Arc<AtomicBool>> = requests.iter().map(|_| Arc::default()).collect();
        let (sender, events) = channel();
        let sequences = requests.iter().zip(&cancelled).enumerate().map(|(i, (request, c))| {
            self.sequence((i, request), packed.clone(), Arc::clone(c), sender.clone())
        });
        let sequences = sequences.collect::<Result<_, ModelError>>()?;
        self.0.engine.submit(sequences);

        let mut done: Vec<Option<Generation>> = vec![None; requests.len()];
        let mut seen = vec![0; requests.len()];
        let mut left = requests.len();
        while left > 0 {
            match events.try_recv() {
                Ok(Event::Token(i, token)) if !cancelled[i].load(Ordering::Relaxed) => {
                    seen[i] += 1;
                    cancelled[i].store(observer(i, token).is_break(), Ordering::Relaxed);
                }
                // A pass was under way when the observer ended this request.
                Ok(Event::Token(..)) => {}
                Ok(Event::Done(i, mut generation)) => {
                    if cancelled[i].load(Ordering::Relaxed) {
                        generation.tokens.truncate(seen[i]);
                        generation.log_probs.truncate(seen[i]);
                        generation.text = self.tokenizer().decode(&generation.tokens, true);
                        generation.finish = FinishReason::Stop;
                    }
                    done[i] = Some(generation);
                    left -= 1;
                }
                Ok(Event::Failed(error)) => {
                    cancelled.iter().for_each(|c| c.store(true, Ordering::Relaxed));
                    return Err(error);
                }
                Ok(Event::Lost(i)) => panic!("the pass that computed request {i} panicked"),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => self.advance(),
            }
        }
        Ok(done.into_iter().flatten().collect())
    }

    fn check(&self, request: &GenerateRequest) -> Result<(), ModelError> {
        let limit = self.config().context_length;
        if request.tokens.is_empty() {
            return Err(ModelError::Empty("prompt"));
        }
        if request.tokens.len() >= limit {
            return Err(ModelError::TooLong { tokens: request.tokens.len() + 1, limit });
        }
        request.sampling.check()?;
        self.check_text(&request.tokens)
    }

    /// Memory that all keys and values may take, those of running requests and those that are kept
    /// for later ones, in bytes; 1 GiB unless set. A single request may take more.
    pub fn set_cache_bytes(&self, bytes: usize) {
        self.0.engine.set_budget(bytes);
    }

    /// Memory set aside for keys and values now, in bytes.
    pub fn cache_bytes(&self) -> usize {
        let pages = &self.0.engine.pages;
        pages.room() * pages.token_bytes()
    }

    /// Forgets the prompts that were kept for later calls, and gives their memory back.
    pub fn forget_prompts(&self) {
        self.0.engine.forget();
    }
}
