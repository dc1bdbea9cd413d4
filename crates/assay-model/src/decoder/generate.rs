//! Batched generation with cached keys and values.

use std::ops::ControlFlow;
use std::time::Instant;

use assay_types::FinishReason;

use super::Decoder;
use super::cache::{Cache, PASS_TOKENS, Span};
use super::sampling::{Sampler, Sampling};
use crate::adapter::{Adapter, PackedAdapter};
use crate::error::ModelError;

/// Sequences that are computed together at most; further requests wait until one of them ends.
const ACTIVE: usize = 32;
/// Memory for their keys and values, where a single one does not need more.
const CACHE_BYTES: usize = 1 << 30;

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
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// New tokens, the stop token included.
    pub tokens: Vec<u32>,
    /// Their text, without control tokens and up to a stop text.
    pub text: String,
    /// Why it ended; an observer that breaks counts as a stop.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub input_tokens: usize,
    /// Tokens of the prompt that were read once for all requests together.
    pub shared_tokens: usize,
    /// Wall time until the first new token, in milliseconds: of each pass over the batch, the part
    /// that corresponds to this request's share of the pass's tokens. The parts of all requests add
    /// up to the time of the call.
    pub prefill_ms: f64,
    /// Wall time of all further tokens, divided in the same way.
    pub decode_ms: f64,
}

/// A request that is being computed.
struct Sequence<'a> {
    index: usize,
    request: &'a GenerateRequest,
    cache: Cache,
    /// Tokens of the prompt that were read.
    read: usize,
    sampler: Sampler,
    limit: usize,
    generation: Generation,
    done: bool,
}

impl Decoder {
    /// Answers all requests, in their order. `observer` sees each new token of each request as it
    /// comes, stop tokens included, and may end that request.
    ///
    /// The tokens of a request do not depend on the other requests. The longest prefix common to
    /// all of them is read once.
    ///
    /// # Errors
    /// [`ModelError::TooLong`] when a prompt leaves no room for a new token, [`ModelError::Empty`],
    /// [`ModelError::UnknownToken`], [`ModelError::AdapterMismatch`]; then nothing was generated.
    pub fn generate(
        &self,
        requests: &[GenerateRequest],
        adapter: Option<&Adapter>,
        observer: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generation>, ModelError> {
        let packed = self.packed(adapter)?;
        let adapter = packed.as_deref();
        let limit = self.config().context_length;
        for request in requests {
            if request.tokens.is_empty() {
                return Err(ModelError::Empty("prompt"));
            }
            if request.tokens.len() >= limit {
                return Err(ModelError::TooLong { tokens: request.tokens.len() + 1, limit });
            }
            self.check_text(&request.tokens)?;
        }

        let start = Instant::now();
        let shared = self.read_prefix(common_prefix(requests), adapter);
        let shared_ms = milliseconds(start) / requests.len().max(1) as f64;
        let mut waiting = requests.iter().enumerate().peekable();
        let mut active: Vec<Sequence<'_>> = Vec::new();
        let mut done: Vec<(usize, Generation)> = Vec::with_capacity(requests.len());
        loop {
            while let Some((i, request)) = waiting.next_if(|(_, r)| self.has_room(&active, r)) {
                active.push(self.sequence(i, request, &shared, shared_ms));
            }
            active.retain_mut(|s| {
                if s.done {
                    done.push((s.index, s.generation.clone()));
                }
                !s.done
            });
            if active.is_empty() && done.len() == requests.len() {
                break;
            }
            if !active.is_empty() {
                self.pass_over(&mut active, adapter, observer);
            }
        }
        done.sort_unstable_by_key(|(index, _)| *index);
        Ok(done.into_iter().map(|(_, generation)| generation).collect())
    }

    /// Whether a request may join the active ones.
    fn has_room(&self, active: &[Sequence<'_>], request: &GenerateRequest) -> bool {
        let config = self.config();
        let per_token = 2 * config.layers * config.kv_heads * config.head_dim * size_of::<f32>();
        let tokens = active.iter().map(|s| self.most_tokens(s.request)).sum::<usize>();
        let bytes = (tokens + self.most_tokens(request)) * per_token;
        active.is_empty() || (active.len() < ACTIVE && bytes <= CACHE_BYTES)
    }

    /// Prompt and answer of a request, at their longest.
    fn most_tokens(&self, request: &GenerateRequest) -> usize {
        let wanted = request.tokens.len().saturating_add(request.max_new_tokens);
        wanted.min(self.config().context_length)
    }

    fn read_prefix(&self, tokens: &[u32], adapter: Option<&PackedAdapter>) -> Cache {
        let mut cache = Cache::new(self.config().layers);
        for tokens in tokens.chunks(PASS_TOKENS) {
            self.extend(
                &mut [Span { cache: &mut cache, tokens, generated: false }],
                adapter,
                |_| (),
            );
        }
        cache
    }

    fn sequence<'a>(
        &self,
        index: usize,
        request: &'a GenerateRequest,
        shared: &Cache,
        shared_ms: f64,
    ) -> Sequence<'a> {
        let config = self.config();
        let tokens = self.most_tokens(request);
        let limit = tokens - request.tokens.len();
        let width = config.kv_heads * config.head_dim;
        Sequence {
            index,
            request,
            cache: shared.fork(tokens, width),
            read: shared.tokens(),
            sampler: Sampler::new(request.sampling),
            limit,
            generation: Generation {
                tokens: Vec::new(),
                text: String::new(),
                finish: FinishReason::Length,
                input_tokens: request.tokens.len(),
                shared_tokens: shared.tokens(),
                prefill_ms: shared_ms,
                decode_ms: 0.0,
            },
            done: limit == 0,
        }
    }

    /// Reads the next tokens of all sequences, as far as a pass holds them, and chooses a token for
    /// each that has read all it has.
    fn pass_over(
        &self,
        active: &mut [Sequence<'_>],
        adapter: Option<&PackedAdapter>,
        observer: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) {
        let start = Instant::now();
        let mut room = PASS_TOKENS;
        // Sequence, number of tokens and whether they are the last before a new one.
        let mut plan: Vec<(usize, usize, bool)> = Vec::with_capacity(active.len());
        let mut spans = Vec::with_capacity(active.len());
        // Tokens that were generated come first, as `extend` wants them.
        let mut order: Vec<(usize, &mut Sequence<'_>)> =
            active.iter_mut().enumerate().filter(|(_, s)| !s.done).collect();
        order.sort_by_key(|(_, s)| s.read < s.request.tokens.len());
        for (i, sequence) in order {
            let prompt = &sequence.request.tokens[sequence.read..];
            let generated = prompt.is_empty();
            let pending = match prompt {
                [] => &sequence.generation.tokens[sequence.generation.tokens.len() - 1..],
                prompt => prompt,
            };
            let n = pending.len().min(room);
            if n == 0 {
                continue;
            }
            room -= n;
            plan.push((i, n, n == pending.len()));
            spans.push(Span { cache: &mut sequence.cache, tokens: &pending[..n], generated });
        }
        let mut end = 0;
        let last_rows: Vec<usize> = plan
            .iter()
            .filter_map(|&(_, n, complete)| {
                end += n;
                complete.then_some(end - 1)
            })
            .collect();
        let generated = spans.iter().filter(|s| s.generated).count();
        let logits = self.extend(&mut spans, adapter, |x| self.head(x, &last_rows, generated));

        let total = end;
        let mut rows = logits.chunks(self.config().vocab);
        let elapsed_ms = milliseconds(start);
        for (i, n, complete) in plan {
            let sequence = &mut active[i];
            let share_ms = elapsed_ms * n as f64 / total as f64;
            if sequence.generation.tokens.is_empty() {
                sequence.generation.prefill_ms += share_ms;
                sequence.read += n;
            } else {
                sequence.generation.decode_ms += share_ms;
            }
            if let Some(row) = complete.then(|| rows.next()).flatten() {
                let token = sequence.sampler.sample(row);
                self.accept(sequence, token, observer);
            }
        }
    }

    fn accept(
        &self,
        sequence: &mut Sequence<'_>,
        token: u32,
        observer: &mut dyn FnMut(usize, u32) -> ControlFlow<()>,
    ) {
        let generation = &mut sequence.generation;
        generation.tokens.push(token);
        let broken = observer(sequence.index, token).is_break();
        let stopped = self.stop_tokens().contains(&token) || broken;
        let full = generation.tokens.len() >= sequence.limit;
        let texts = &sequence.request.stop;
        if !(stopped || full || !texts.is_empty()) {
            return;
        }
        let text = self.tokenizer().decode(&generation.tokens, true);
        let cut = texts.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s)).min();
        if stopped || cut.is_some() {
            generation.finish = FinishReason::Stop;
        }
        sequence.done = stopped || full || cut.is_some();
        if sequence.done {
            generation.text = cut.map_or(text.as_str(), |cut| &text[..cut]).to_owned();
        }
    }
}

/// The longest prefix of all prompts that leaves each at least one token: the one that yields its
/// first logits. Empty for a single request, which shares with nobody.
fn common_prefix(requests: &[GenerateRequest]) -> &[u32] {
    let [first, others @ ..] = requests else { return &[] };
    let Some(shortest) = others.iter().map(|r| r.tokens.len()).min() else { return &[] };
    let limit = shortest.min(first.tokens.len()) - 1;
    let agree = |i: &usize| others.iter().all(|r| r.tokens[*i] == first.tokens[*i]);
    &first.tokens[..(0..limit).take_while(agree).count()]
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
