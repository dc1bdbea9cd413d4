//! One running batch for everybody who generates with a decoder.
//!
//! Requests join it before a pass and leave it after one. The engine has no thread: of those who wait
//! for answers, whoever finds that no pass is under way runs the next one, for all. A pass computes
//! with one adapter; requests with different ones take turns.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use assay_kernels::CACHE_BLOCK;
use assay_types::FinishReason;
use rayon::prelude::*;

use super::Decoder;
use super::cache::{Cache, PASS_TOKENS, Pages, Span};
use super::form::Progress;
use super::generate::{GenerateRequest, Generation};
use super::prefix::{Prefixes, Reader, common_prefix};
use super::sampling::{Sampler, TokenLogProbs};
use crate::adapter::PackedAdapter;
use crate::config::DecoderConfig;
use crate::error::ModelError;

/// Sequences that are computed together at most; further requests wait until one of them ends.
const ACTIVE: usize = 32;
/// Tokens of prompts that are read in one pass while others generate: these then wait no longer
/// than a few passes would take them alone.
const PROMPT_TOKENS_BESIDE: usize = 128;
/// A request waits for another that is reading the beginning of its own prompt, if that saves it this
/// many tokens.
const WORTH_WAITING: usize = 32;
/// Memory for keys and values, of running requests and of kept prompts together, unless
/// [`Decoder::set_cache_bytes`] says otherwise.
const CACHE_BYTES: usize = 1 << 30;

pub(super) struct Engine {
    pub(super) pages: Pages,
    state: Mutex<State>,
    pass_ended: Condvar,
}

struct State {
    waiting: VecDeque<Sequence>,
    /// Empty while a pass computes them.
    active: Vec<Sequence>,
    running: bool,
    prefixes: Prefixes,
    /// Tokens for which all pages may have room.
    budget: usize,
    passes: u64,
}

/// What became of a request, by its index.
pub(super) enum Event {
    Token(usize, u32),
    Done(usize, Generation),
    /// A request cannot be finished, and with it none of its call.
    Failed(ModelError),
    /// The pass that computed it panicked.
    Lost(usize),
}

/// A request on its way.
pub(super) struct Sequence {
    index: usize,
    request: GenerateRequest,
    adapter: Option<Arc<PackedAdapter>>,
    reader: Reader,
    cache: Cache,
    /// Tokens of the prompt that were read.
    read: usize,
    sampler: Sampler,
    form: Option<Progress>,
    /// Whether the answer has its form and nothing may follow.
    complete: bool,
    /// New tokens at most.
    limit: usize,
    generation: Generation,
    /// Number of the last pass that computed for its adapter.
    last_pass: u64,
    done: bool,
    cancelled: Arc<AtomicBool>,
    events: Sender<Event>,
}

impl Engine {
    pub(super) fn new(config: &DecoderConfig) -> Self {
        let pages = Pages::new(config);
        pages.set_most(CACHE_BYTES / pages.token_bytes());
        let state = State {
            waiting: VecDeque::new(),
            active: Vec::new(),
            running: false,
            prefixes: Prefixes::default(),
            budget: CACHE_BYTES / pages.token_bytes(),
            passes: 0,
        };
        Engine { pages, state: Mutex::new(state), pass_ended: Condvar::new() }
    }

    pub(super) fn set_budget(&self, bytes: usize) {
        let mut state = self.lock();
        state.budget = bytes / self.pages.token_bytes();
        let budget = state.budget;
        state.prefixes.shrink(&self.pages, budget);
        self.pages.set_most(budget);
    }

    pub(super) fn forget(&self) {
        self.lock().prefixes.clear();
        self.pages.give_back();
    }

    pub(super) fn submit(&self, sequences: Vec<Sequence>) {
        self.lock().waiting.extend(sequences);
    }

    /// A cache with the longest known beginning of `tokens` and room for `limit`.
    pub(super) fn recall(&self, reader: Reader, tokens: &[u32], limit: usize) -> Cache {
        let mut state = self.lock();
        match state.prefixes.find(reader, tokens) {
            Some((cache, len)) => self.pages.fork(cache, len, limit),
            None => self.pages.cache(limit),
        }
    }

    /// Keeps what was read of `tokens` for later.
    pub(super) fn keep(&self, reader: Reader, tokens: &[u32], cache: Cache) {
        let mut state = self.lock();
        state.prefixes.keep(reader, tokens, cache);
        let budget = state.budget;
        state.prefixes.shrink(&self.pages, budget);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that no pass is under way any more, also when it panicked.
struct Running<'a>(&'a Engine);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.lock().running = false;
        self.0.pass_ended.notify_all();
    }
}

impl Decoder {
    pub(super) fn sequence(
        &self,
        (index, request): (usize, &GenerateRequest),
        adapter: Option<Arc<PackedAdapter>>,
        cancelled: Arc<AtomicBool>,
        events: Sender<Event>,
    ) -> Result<Sequence, ModelError> {
        let form = request.form.as_ref().map(|form| self.progress(form)).transpose()?;
        let longest = request.tokens.len().saturating_add(request.max_new_tokens);
        let limit = longest.min(self.config().context_length) - request.tokens.len();
        Ok(Sequence {
            index,
            reader: Reader::new(adapter.as_deref()),
            adapter,
            cache: Cache::empty(),
            read: 0,
            sampler: Sampler::new(request.sampling, &request.tokens),
            form,
            complete: false,
            limit,
            generation: Generation::new(request.tokens.len()),
            last_pass: 0,
            done: limit == 0,
            cancelled,
            events,
            request: request.clone(),
        })
    }

    /// Runs one pass for all who wait for answers, or waits for the end of the one that is under way.
    pub(super) fn advance(&self) {
        let engine = &self.0.engine;
        let mut state = engine.lock();
        if state.running {
            // What woke this thread is seen to by its caller.
            drop(engine.pass_ended.wait(state));
            return;
        }
        state.admit(&engine.pages);
        let mut active = std::mem::take(&mut state.active);
        state.passes += 1;
        let number = state.passes;
        state.running = true;
        drop(state);
        let running = Running(engine);
        self.pass_over(&mut active, number);
        let mut state = engine.lock();
        for mut sequence in active {
            if sequence.done {
                let cache = std::mem::replace(&mut sequence.cache, Cache::empty());
                let read = &sequence.request.tokens[..sequence.read];
                state.prefixes.keep(sequence.reader, read, cache);
                let budget = state.budget;
                state.prefixes.shrink(&engine.pages, budget);
                sequence.deliver();
            } else {
                state.active.push(sequence);
            }
        }
        drop(state);
        drop(running);
    }

    /// Reads the next tokens of the sequences whose turn it is, as far as a pass holds them, and
    /// chooses a token for each that has read all it has.
    fn pass_over(&self, active: &mut [Sequence], number: u64) {
        let start = Instant::now();
        for sequence in active.iter_mut().filter(|s| s.cancelled.load(Ordering::Relaxed)) {
            sequence.done = true;
        }
        let going = || active.iter().filter(|s| !s.done);
        let Some(next) = going().min_by_key(|s| s.last_pass) else { return };
        let (reader, adapter) = (next.reader, next.adapter.clone());
        let generating = going().any(|s| s.reader == reader && s.reading().is_empty());
        let mut room = if generating { PROMPT_TOKENS_BESIDE } else { PASS_TOKENS };

        // Generated tokens come first.
        let mut turn: Vec<&mut Sequence> =
            active.iter_mut().filter(|s| !s.done && s.reader == reader).collect();
        turn.sort_by_key(|s| !s.reading().is_empty());
        // With the number of tokens that each reads, and whether a new one follows.
        let mut plan: Vec<(&mut Sequence, usize, bool)> = Vec::with_capacity(turn.len());
        for sequence in turn {
            sequence.last_pass = number;
            let pending = sequence.reading().len();
            let n = pending.min(room);
            room -= n;
            if pending == 0 {
                plan.push((sequence, 1, true));
            } else if n > 0 {
                plan.push((sequence, n, n == pending));
            }
        }
        let rows: usize = plan.iter().map(|(_, n, _)| n).sum();
        let mut spans: Vec<Span<'_>> =
            plan.iter_mut().map(|(s, n, complete)| s.span(*n, usize::from(*complete))).collect();
        let generated = spans.iter().filter(|s| s.generated).count();
        let adapter = adapter.as_deref();
        let mut logits = self.extend(&mut spans, adapter, |x| self.head(x, generated));

        let (complete, reading): (Vec<_>, Vec<_>) =
            plan.into_iter().partition(|(_, _, complete)| *complete);
        let mut complete: Vec<_> =
            complete.into_iter().zip(logits.chunks_mut(self.config().vocab)).collect();
        let tokens: Vec<Result<u32, ModelError>> = complete
            .par_iter_mut()
            .with_max_len(1)
            .map(|((sequence, ..), logits)| sequence.choose(logits))
            .collect();
        let elapsed_ms = start.elapsed().as_secs_f64() * 1e3;
        let share_ms = elapsed_ms / rows as f64;
        for (sequence, n, _) in reading {
            sequence.account(n, share_ms);
        }
        for (((sequence, n, _), _), token) in complete.into_iter().zip(tokens) {
            sequence.account(n, share_ms);
            match token {
                Ok(token) => self.accept(sequence, token),
                Err(error) => sequence.fail(error),
            }
        }
    }

    fn accept(&self, sequence: &mut Sequence, token: u32) {
        let generation = &mut sequence.generation;
        generation.tokens.push(token);
        // Whoever does not listen any more has left.
        let left = sequence.events.send(Event::Token(sequence.index, token)).is_err();
        let stopped = self.stop_tokens().contains(&token) || sequence.complete;
        let full = generation.tokens.len() >= sequence.limit;
        let texts = &sequence.request.stop;
        if !(stopped || full || left || !texts.is_empty()) {
            return;
        }
        let text = self.tokenizer().decode(&generation.tokens, true);
        let cut = texts.iter().filter(|s| !s.is_empty()).filter_map(|s| text.find(s)).min();
        if stopped || cut.is_some() {
            generation.finish = FinishReason::Stop;
        }
        sequence.done = stopped || full || left || cut.is_some();
        if sequence.done {
            generation.text = cut.map_or(text.as_str(), |cut| &text[..cut]).to_owned();
        }
    }
}

impl State {
    /// Lets requests join in their order, as far as there is room, except those for which it is worth
    /// waiting until another has read the beginning of their prompt.
    fn admit(&mut self, pages: &Pages) {
        let mut passed_over = VecDeque::new();
        while self.active.len() < ACTIVE && passed_over.len() < ACTIVE {
            let Some(mut sequence) = self.waiting.pop_front() else { break };
            if sequence.done || sequence.cancelled.load(Ordering::Relaxed) {
                sequence.done = true;
                sequence.deliver();
                continue;
            }
            // The last token is read in any case: it yields the first logits.
            let prompt = &sequence.request.tokens[..sequence.request.tokens.len() - 1];
            let same = || self.active.iter().filter(|s| s.reader == sequence.reader);
            let live = same()
                .map(|s| (s, common_prefix(&s.request.tokens[..s.read], prompt)))
                .max_by_key(|&(_, len)| len);
            let soon = same().map(|s| common_prefix(&s.request.tokens, prompt)).max().unwrap_or(0);
            let kept = self.prefixes.find(sequence.reader, prompt).map_or(0, |(_, len)| len);
            let live_len = live.map_or(0, |(_, len)| len);
            let known = kept.max(live_len);
            if soon >= known + WORTH_WAITING {
                passed_over.push_back(sequence);
                continue;
            }
            let most = sequence.request.tokens.len() + sequence.limit;
            // Whole pages, and those that are known whole are shared.
            let needed = most.next_multiple_of(CACHE_BLOCK) - known / CACHE_BLOCK * CACHE_BLOCK;
            self.prefixes.shrink(pages, self.budget.saturating_sub(needed));
            if pages.room() + needed > self.budget && !self.active.is_empty() {
                self.waiting.push_front(sequence);
                break;
            }
            let source = match (live, self.prefixes.find(sequence.reader, prompt)) {
                (Some((s, live)), Some((_, kept))) if live > kept => Some((&s.cache, live)),
                (Some((s, live)), None) => Some((&s.cache, live)),
                (_, kept) => kept,
            };
            let (cache, known) = match source {
                Some((cache, len)) => (pages.fork(cache, len, most), len),
                None => (pages.cache(most), 0),
            };
            sequence.cache = cache;
            sequence.read = known;
            sequence.generation.shared_tokens = known;
            self.active.push(sequence);
        }
        passed_over.append(&mut self.waiting);
        self.waiting = passed_over;
    }
}

impl Sequence {
    /// What is left of the prompt.
    fn reading(&self) -> &[u32] {
        &self.request.tokens[self.read..]
    }

    /// The next `n` tokens: of the prompt, or the newest one.
    fn span(&mut self, n: usize, wanted: usize) -> Span<'_> {
        let chosen = &self.generation.tokens;
        let (tokens, generated) = match &self.request.tokens[self.read..] {
            [] => (&chosen[chosen.len() - 1..], true),
            prompt => (&prompt[..n], false),
        };
        Span { cache: &mut self.cache, tokens, generated, wanted }
    }

    /// The next token, from its logits.
    fn choose(&mut self, logits: &mut [f32]) -> Result<u32, ModelError> {
        let plain = self.request.log_probs.map(|top| (top, logits.to_vec()));
        if let Some(form) = &mut self.form {
            form.mask(logits)?;
        }
        let token = self.sampler.sample(logits);
        if let Some(form) = &mut self.form {
            self.complete = form.push(token)?;
        }
        if let Some((top, plain)) = plain {
            self.generation.log_probs.push(TokenLogProbs::new(plain, token, top));
        }
        Ok(token)
    }

    fn fail(&mut self, error: ModelError) {
        self.done = true;
        // Whoever does not listen any more has left.
        let _ = self.events.send(Event::Failed(error));
    }

    /// Books a pass in which this sequence had `n` rows.
    fn account(&mut self, n: usize, share_ms: f64) {
        if self.generation.tokens.is_empty() {
            self.generation.prefill_ms += share_ms * n as f64;
            self.read += n;
        } else {
            self.generation.decode_ms += share_ms * n as f64;
        }
    }

    /// Hands the result over, if anybody still waits for it.
    fn deliver(&mut self) {
        let generation = std::mem::replace(&mut self.generation, Generation::new(0));
        let _ = self.events.send(Event::Done(self.index, generation));
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        if !self.done {
            let _ = self.events.send(Event::Lost(self.index));
        }
    }
}
