//! A candidate with its weights: from an input to an output.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use assay_index::{Index, Query, Viewer};
use assay_model::{Adapter, Decoder, Form, GenerateRequest, Generation, Sampling};
use assay_remote::{ChatRequest, Reply, TokenLogprob};
use assay_types::{
    ChosenToken, Citation, FinishReason, LikelyToken, Message, Output, Pages, Retrieved, Timing,
    Usage,
};
use serde_json::{Value, json};

use crate::adjacent::join_adjacent;
use crate::cite::{CitationFilter, Cited};
use crate::generator::{Generator, RemoteGenerator};
use crate::retrieve::{Searcher, source};
use crate::rewrite::Written;
use crate::spec::{CandidateSpec, Context, RetrieveFrom, ShownChunk, Source};
use crate::{CandidateError, ExampleIndex};

/// Hits that are recorded at least, so that recall@5 and nDCG@10 can be measured whatever enters the prompt.
const RECORDED_HITS: usize = 10;

/// A [`CandidateSpec`] with everything loaded.
#[derive(Clone)]
pub struct Candidate {
    spec: CandidateSpec,
    generator: Generator,
    adapter: Option<Arc<Adapter>>,
    retriever: Option<Retriever>,
}

/// Where a candidate's context comes from.
#[derive(Clone)]
pub enum Retriever {
    /// Chunks of the corpus.
    Documents(Searcher),
    /// Rows of the training split.
    Examples(Arc<ExampleIndex>),
}

/// One input.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Earlier turns; empty in evaluation.
    pub history: &'a [Message],
    /// The question or text.
    pub input: &'a str,
    /// Id of a training row that may not be retrieved as an example.
    pub exclude: Option<&'a str>,
    /// Text that an attacker has put into the best document: measures what it does. It is no part of the stored source, so
    /// that nothing of it can be cited.
    pub planted: Option<&'a str>,
    /// Who asks: only documents that this viewer sees are read.
    pub viewer: Viewer<'a>,
}

impl<'a> Request<'a> {
    /// An input without history, from somebody who is not known.
    pub fn new(input: &'a str) -> Self {
        Request { history: &[], input, exclude: None, planted: None, viewer: Viewer::ANYONE }
    }

    /// The same input, asked by `viewer`.
    pub fn seen_by(self, viewer: Viewer<'a>) -> Self {
        Request { viewer, ..self }
    }
}

/// What a caller may change about decoding.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Limit on generated tokens; `None` takes the candidate's own.
    pub max_new_tokens: Option<usize>,
    /// Temperature and the like; greedy by default, as evaluated.
    pub sampling: Sampling,
    /// Strings that end the answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether to tell how likely each token was, and with how many of the most likely ones beside it.
    pub log_probs: Option<usize>,
    /// The form that the answer must have; `None` takes the candidate's own, if it has one.
    pub form: Option<Form>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            max_new_tokens: None,
            sampling: Sampling::GREEDY,
            stop: Vec::new(),
            log_probs: None,
            form: None,
        }
    }
}

/// Tokens of a prompt, template included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// For a model on this machine.
    Tokens(Vec<u32>),
    /// For a server, which makes its own tokens: so many, or so many at most.
    AtMost(usize),
}

impl Prompt {
    fn len(&self) -> usize {
        match self {
            Prompt::Tokens(tokens) => tokens.len(),
            Prompt::AtMost(n) => *n,
        }
    }
}

/// A prompt, ready for the model.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The conversation.
    pub messages: Vec<Message>,
    /// Its length.
    pub prompt: Prompt,
    /// Sources in the prompt, numbered from 1.
    pub sources: Vec<Source>,
    /// All that was retrieved, best first.
    pub retrieved: Vec<Retrieved>,
    /// Wall time of retrieving and assembling.
    pub retrieval_ms: f64,
}

impl Candidate {
    /// Puts a specification and its parts together.
    ///
    /// # Errors
    /// [`CandidateError::Parts`] if the specification names retrieval or an adapter that is not
    /// given, or the other way round, or an adapter for a model that is not on this machine.
    pub fn new(
        spec: CandidateSpec,
        generator: impl Into<Generator>,
        adapter: Option<Arc<Adapter>>,
        retriever: Option<Retriever>,
    ) -> Result<Self, CandidateError> {
        let from = retriever.as_ref().map(|r| match r {
            Retriever::Documents(_) => RetrieveFrom::Documents,
            Retriever::Examples(_) => RetrieveFrom::Examples,
        });
        if spec.retrieval.as_ref().map(|r| r.from) != from {
            return Err(CandidateError::Parts { name: spec.name, part: "retriever" });
        }
        if let (Some(Retriever::Documents(searcher)), Some(policy)) = (&retriever, &spec.retrieval)
            && !searcher.can(&policy.refine)
        {
            return Err(CandidateError::Parts { name: spec.name, part: "reranker or rewriter" });
        }
        let generator = generator.into();
        let can_adapt = matches!(generator, Generator::Local(_)) || adapter.is_none();
        if spec.adapter.is_some() != adapter.is_some() || !can_adapt {
            return Err(CandidateError::Parts { name: spec.name, part: "adapter" });
        }
        Ok(Candidate { spec, generator, adapter, retriever })
    }

    /// What the candidate is.
    pub fn spec(&self) -> &CandidateSpec {
        &self.spec
    }

    /// The adapter, if it is a tuned candidate.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_deref()
    }

    /// Retrieves and assembles the prompt of one input, within the token budget.
    ///
    /// Sources are taken best first, those that touch as one; one that would overflow the budget is left out and a
    /// smaller one behind it may still enter. Then their neighbours are, if the specification wants them. The budget
    /// counts the whole rendered prompt.
    ///
    /// # Errors
    /// If retrieval or the template fails, or the input alone exceeds the context.
    pub fn prepare(&self, request: &Request<'_>) -> Result<Prepared, CandidateError> {
        let written = self.write(std::slice::from_ref(request))?.pop().flatten();
        self.prepare_written(request, written.as_ref())
    }

    /// What is written for the queries of several inputs before documents are searched, together.
    fn write(&self, requests: &[Request<'_>]) -> Result<Vec<Option<Written>>, CandidateError> {
        match (&self.retriever, &self.spec.retrieval) {
            (Some(Retriever::Documents(searcher)), Some(policy)) => {
                let queries: Vec<&str> = requests.iter().map(|r| r.input).collect();
                searcher.write(&policy.refine, &queries)
            }
            _ => Ok(vec![None; requests.len()]),
        }
    }

    fn prepare_written(
        &self,
        request: &Request<'_>,
        written: Option<&Written>,
    ) -> Result<Prepared, CandidateError> {
        let start = Instant::now();
        let mut retrieved = Vec::new();
        let mut context = Context::default();
        let mut fitted = None;
        if let (Some(retriever), Some(policy)) = (&self.retriever, &self.spec.retrieval) {
            let limit = policy.prompt_tokens.min(self.room());
            let mut try_with = |candidate: Context| -> Result<Option<Context>, CandidateError> {
                let made = self.prompt(request, &candidate)?;
                Ok((made.1.len() <= limit).then(|| {
                    fitted = Some(made);
                    candidate
                }))
            };
            match retriever {
                Retriever::Documents(searcher) => {
                    let depth = policy.top_k.max(RECORDED_HITS);
                    let viewer = request.viewer;
                    let query = Query::new(request.input, depth, policy.ranked_by.search_mode());
                    let query = Query { viewer, ..query };
                    let found = searcher.search_written(&policy.refine, &query, written)?;
                    let mut taken: Vec<Source> = Vec::new();
                    let index = searcher.index();
                    let text = |document: &str| index.document_text(document, viewer);
                    let mut try_sources = |taken: &[Source]| -> Result<_, CandidateError> {
                        let (mut sources, _) = join_adjacent(taken, &text)?;
                        if let (Some(planted), Some(best)) = (request.planted, sources.first_mut())
                        {
                            best.text += &format!("\n\n{planted}");
                        }
                        try_with(Context { sources, shots: Vec::new() })
                    };
                    for (rank, hit) in found.hits.into_iter().enumerate() {
                        let (start, end, score) = (hit.span.start, hit.span.end, hit.score);
                        let document = hit.document.clone();
                        if rank >= policy.top_k {
                            let in_context = false;
                            retrieved.push(Retrieved { document, start, end, score, in_context });
                            continue;
                        }
                        taken.push(source(hit));
                        let fits = try_sources(&taken)?;
                        let in_context = fits.is_some();
                        retrieved.push(Retrieved { document, start, end, score, in_context });
                        match fits {
                            Some(with) => context = with,
                            None => {
                                taken.pop();
                            }
                        }
                    }
                    searcher.widen(taken, policy.refine.window, viewer, &mut |widened| {
                        let fits = try_sources(widened)?;
                        Ok::<_, CandidateError>(match fits {
                            Some(with) => {
                                context = with;
                                true
                            }
                            None => false,
                        })
                    })?;
                }
                Retriever::Examples(examples) => {
                    let shots = examples.search(request.input, policy.top_k, request.exclude)?;
                    // Best last: the front ones are given up first.
                    for from in 0..shots.len() {
                        let with = Context { sources: Vec::new(), shots: shots[from..].to_vec() };
                        if let Some(fits) = try_with(with)? {
                            context = fits;
                            break;
                        }
                    }
                }
            }
        }
        let (messages, prompt) = match fitted {
            Some(done) => done,
            None => self.prompt(request, &context)?,
        };
        Ok(Prepared {
            messages,
            prompt,
            sources: context.sources,
            retrieved,
            // What was written for the query some time ago counts with the time that it took then.
            retrieval_ms: match &self.retriever {
                Some(_) => ms(start) + written.map_or(0.0, |w| w.ms),
                None => 0.0,
            },
        })
    }

    /// Answers one input. `on_text` sees the answer as it is released and may stop it.
    ///
    /// # Errors
    /// As [`Candidate::prepare`], and if generation fails.
    pub fn answer(
        &self,
        request: &Request<'_>,
        options: &Options,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, CandidateError> {
        let prepared = self.prepare(request)?;
        let stored = |citation: &mut Citation| self.stored(citation, request.viewer);
        let mut released = Released::new(self.citable(&prepared, options), &stored, on_text);
        let (made, tail) = match &self.generator {
            Generator::Local(decoder) => {
                self.generate(decoder, &prepared, options, &mut released)?
            }
            Generator::Remote(remote) => {
                let Sampling { temperature, top_p, seed, .. } = options.sampling;
                if options.sampling != (Sampling { temperature, top_p, seed, ..Sampling::GREEDY }) {
                    return Err(CandidateError::RemoteSampling);
                }
                let chat = self.chat(&prepared, options)?;
                let mut whole = String::new();
                let reply = remote.model.chat_streamed(&chat, &mut |text| {
                    if self.spec.abstain_below.is_none() {
                        return released.push(text);
                    }
                    whole += text;
                    ControlFlow::Continue(())
                })?;
                (Made::streamed(&reply), whole)
            }
        };
        let cited = released.finish(self.sure_enough(&made, options, &tail));
        Ok(self.output(prepared, made, options, cited))
    }

    /// Generates here. What comes back beside is text that was not released yet.
    fn generate(
        &self,
        decoder: &Decoder,
        prepared: &Prepared,
        options: &Options,
        released: &mut Released<'_, '_>,
    ) -> Result<(Made, String), CandidateError> {
        let mut stream = decoder.tokenizer().stream();
        // Stop strings may span tokens, so with them the text is released at the end only; and what may be declined is
        // judged as a whole.
        let live = options.stop.is_empty() && self.spec.abstain_below.is_none();
        let mut observer = |_: usize, token: u32| {
            if !live || decoder.stop_tokens().contains(&token) {
                return ControlFlow::Continue(());
            }
            released.push(&stream.push(token))
        };
        let generation = decoder
            .generate(&[self.request(prepared, options)], self.adapter.as_deref(), &mut observer)?
            .pop()
            .ok_or(CandidateError::NoGeneration)?;
        let tail = if live { stream.finish() } else { generation.text.clone() };
        Ok((Made::here(decoder, &generation, prepared, options), tail))
    }

    /// Answers several inputs together: one batch here, several questions at a time to a server; the same texts as one at
    /// a time, sooner.
    ///
    /// # Errors
    /// An error of one input is that input's alone; the outer error is one of the whole batch.
    pub fn answer_batch(
        &self,
        requests: &[Request<'_>],
    ) -> Result<Vec<Result<Output, CandidateError>>, CandidateError> {
        let options = Options::default();
        let written = self.write(requests)?;
        let prepared: Vec<_> = requests
            .iter()
            .zip(&written)
            .map(|(r, w)| self.prepare_written(r, w.as_ref()))
            .collect();
        let ready = prepared.iter().flatten();
        let mut texts = match &self.generator {
            Generator::Local(decoder) => {
                let batch: Vec<_> = ready.clone().map(|p| self.request(p, &options)).collect();
                let adapter = self.adapter.as_deref();
                let mut silent = |_: usize, _: u32| ControlFlow::Continue(());
                let generations = decoder.generate(&batch, adapter, &mut silent)?;
                let made = |(g, p): (Generation, &Prepared)| {
                    Ok((Made::here(decoder, &g, p, &options), g.text))
                };
                generations.into_iter().zip(ready).map(made).collect::<Vec<_>>()
            }
            Generator::Remote(remote) => {
                let batch: Result<Vec<_>, _> = ready.map(|p| self.chat(p, &options)).collect();
                ask_all(remote, &batch?)
            }
        }
        .into_iter();
        Ok(prepared
            .into_iter()
            .zip(requests)
            .map(|(p, request)| {
                let p = p?;
                let (made, text) = texts.next().ok_or(CandidateError::NoGeneration)??;
                let sources = self.citable(&p, &options).to_vec();
                let stored = |citation: &mut Citation| self.stored(citation, request.viewer);
                let mut filter = CitationFilter::new(&sources, &stored);
                filter.push(self.sure_enough(&made, &options, &text));
                Ok(self.output(p, made, &options, filter.finish().0))
            })
            .collect())
    }

    /// Tokens that a prompt may have: the model's context, where it is known, without room for the answer.
    fn room(&self) -> usize {
        let context = match &self.generator {
            Generator::Local(decoder) => decoder.config().context_length,
            Generator::Remote(remote) => remote.context_tokens.unwrap_or(usize::MAX),
        };
        context.saturating_sub(self.spec.max_new_tokens)
    }

    fn prompt(
        &self,
        request: &Request<'_>,
        context: &Context,
    ) -> Result<(Vec<Message>, Prompt), CandidateError> {
        let messages = match &self.retriever {
            Some(Retriever::Documents(searcher)) => {
                let index = searcher.index();
                let spec =
                    self.spec.without_shots(|cited| still_there(index, cited, request.viewer))?;
                spec.messages(request.history, request.input, context)
            }
            Some(Retriever::Examples(_)) | None => {
                self.spec.messages(request.history, request.input, context)
            }
        };
        let prompt = match &self.generator {
            Generator::Local(decoder) => Prompt::Tokens(decoder.prompt_tokens(&messages)?),
            Generator::Remote(remote) => Prompt::AtMost(remote.budget.count(&messages)?),
        };
        Ok((messages, prompt))
    }

    fn chat(&self, prepared: &Prepared, options: &Options) -> Result<ChatRequest, CandidateError> {
        let limit = options.max_new_tokens.unwrap_or(self.spec.max_new_tokens);
        Ok(ChatRequest {
            temperature: options.sampling.temperature,
            top_p: options.sampling.top_p,
            seed: options.sampling.seed,
            stop: options.stop.clone(),
            logprobs: options
                .log_probs
                .or(self.spec.abstain_below.map(|_| 0))
                .map(|n| u8::try_from(n).unwrap_or(u8::MAX)),
            response_format: self.form(options).map(response_format).transpose()?,
            ..ChatRequest::greedy(prepared.messages.clone(), limit)
        })
    }

    fn request(&self, prepared: &Prepared, options: &Options) -> GenerateRequest {
        GenerateRequest {
            tokens: match &prepared.prompt {
                Prompt::Tokens(tokens) => tokens.clone(),
                Prompt::AtMost(_) => Vec::new(),
            },
            max_new_tokens: options.max_new_tokens.unwrap_or(self.spec.max_new_tokens),
            sampling: options.sampling,
            stop: options.stop.clone(),
            // The chosen token's alone costs nothing, and says how sure the model is.
            log_probs: Some(options.log_probs.unwrap_or(0)),
            form: self.form(options).cloned(),
        }
    }

    /// Sources that the answer may cite; in a given form brackets are no markers.
    fn citable<'p>(&self, prepared: &'p Prepared, options: &Options) -> &'p [Source] {
        if self.form(options).is_some() { &[] } else { &prepared.sources }
    }

    /// The answer, or what is said in its place if the model was not sure enough.
    fn sure_enough<'t>(&'t self, made: &Made, options: &Options, text: &'t str) -> &'t str {
        if self.declines(made, options) { self.spec.declined() } else { text }
    }

    /// An answer in a form that the caller asked for is never declined: that would break the form.
    fn declines(&self, made: &Made, options: &Options) -> bool {
        options.form.is_none() && self.spec.declines(made.confidence)
    }

    /// Whether the quote is what the viewer sees in the corpus now, and on which pages. What cannot be looked up is
    /// not cited.
    fn stored(&self, c: &mut Citation, viewer: Viewer<'_>) -> bool {
        let Some(Retriever::Documents(searcher)) = &self.retriever else { return false };
        let index = searcher.index();
        let place = index.find_quote(&c.document, c.start..c.end, &c.quote, viewer);
        let Ok(Some(place)) = place else { return false };
        c.pages = place.pages.map(Pages::from);
        true
    }

    fn form<'a>(&'a self, options: &'a Options) -> Option<&'a Form> {
        options.form.as_ref().or(self.spec.form.as_ref())
    }

    fn output(&self, prepared: Prepared, made: Made, options: &Options, cited: Cited) -> Output {
        let text = cited.text.trim().to_owned();
        Output {
            abstained: self.spec.abstains(&text) || self.declines(&made, options),
            text,
            citations: cited.citations,
            dropped_citations: cited.dropped,
            retrieved: prepared.retrieved,
            finish: made.finish,
            timing: Timing {
                retrieval_ms: prepared.retrieval_ms,
                prefill_ms: made.prefill_ms,
                decode_ms: made.decode_ms,
            },
            confidence: made.confidence,
            log_probs: made.log_probs,
            usage: made.usage,
        }
    }
}

/// Whether the viewer still sees a chunk that stands in a solved example.
fn still_there(
    index: &Index,
    cited: &ShownChunk,
    viewer: Viewer<'_>,
) -> Result<bool, CandidateError> {
    let chunks = index.chunks(&cited.document, viewer)?;
    Ok(chunks.iter().any(|chunk| chunk.chunk_id == cited.chunk_id))
}

/// A form in the words of OpenAI's servers. Strict: one that cannot promise the form refuses it.
fn response_format(form: &Form) -> Result<Value, CandidateError> {
    match form {
        Form::JsonObject => Ok(json!({ "type": "json_object" })),
        Form::JsonSchema(schema) => Ok(json!({
            "type": "json_schema",
            "json_schema": { "name": "answer", "strict": true, "schema": schema },
        })),
        Form::Regex(_) | Form::OneOf(_) => Err(CandidateError::RemoteForm),
    }
}

/// Log-probabilities as a server tells them.
fn told_log_probs(reply: &Reply) -> Vec<ChosenToken> {
    let likely =
        |token: &str, log_prob: f64| LikelyToken { bytes: token.into(), log_prob: log_prob as f32 };
    let chosen = |t: &TokenLogprob| ChosenToken {
        token: likely(&t.token, t.logprob),
        top: t.top.iter().map(|a| likely(&a.token, a.logprob)).collect(),
    };
    reply.logprobs.iter().flatten().map(chosen).collect()
}

/// Log-probabilities of all tokens that are text.
fn log_probs(decoder: &Decoder, generation: &Generation) -> Vec<ChosenToken> {
    let tokenizer = decoder.tokenizer();
    let likely = |token: u32, log_prob: f32| LikelyToken {
        bytes: tokenizer.token_bytes(token).to_vec(),
        log_prob,
    };
    let text = generation.log_probs.iter().filter(|t| !tokenizer.is_control(t.token));
    text.map(|t| ChosenToken {
        token: likely(t.token, t.log_prob),
        top: t.top.iter().map(|&(token, log_prob)| likely(token, log_prob)).collect(),
    })
    .collect()
}

/// How an answer came about, here or elsewhere.
struct Made {
    confidence: Option<f64>,
    finish: FinishReason,
    prefill_ms: f64,
    decode_ms: f64,
    usage: Option<Usage>,
    log_probs: Vec<ChosenToken>,
}

impl Made {
    fn here(
        decoder: &Decoder,
        generation: &Generation,
        prepared: &Prepared,
        options: &Options,
    ) -> Self {
        let wanted = options.log_probs.is_some();
        let (input_tokens, output_tokens) = (prepared.prompt.len(), generation.tokens.len());
        Made {
            confidence: confidence(generation.log_probs.iter().map(|t| f64::from(t.log_prob))),
            finish: generation.finish,
            prefill_ms: generation.prefill_ms,
            decode_ms: generation.decode_ms,
            usage: Some(Usage { input_tokens, output_tokens }),
            log_probs: if wanted { log_probs(decoder, generation) } else { Vec::new() },
        }
    }

    /// The network and the server's queue count as the prompt's time.
    fn streamed(reply: &Reply) -> Self {
        Made {
            confidence: confidence(reply.logprobs.iter().flatten().map(|t| t.logprob)),
            finish: reply.finish,
            prefill_ms: reply.first_text_ms,
            decode_ms: reply.total_ms - reply.first_text_ms,
            usage: reply.usage,
            log_probs: told_log_probs(reply),
        }
    }
}

/// The geometric mean of the tokens' probabilities; `None` of no tokens.
fn confidence(log_probs: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = log_probs.fold((0usize, 0.0), |(n, sum), p| (n + 1, sum + p));
    (n > 0).then(|| (sum / n as f64).exp())
}

/// Asks a server all questions; the time of an answer is its share of the time of all.
fn ask_all(
    remote: &RemoteGenerator,
    batch: &[ChatRequest],
) -> Vec<Result<(Made, String), CandidateError>> {
    let start = Instant::now();
    let replies = remote.model.chat_all(batch);
    let share = ms(start) / batch.len().max(1) as f64;
    let made = |reply: Reply| {
        let made = Made { prefill_ms: 0.0, decode_ms: share, ..Made::streamed(&reply) };
        (made, reply.text)
    };
    replies.into_iter().map(|r| Ok(made(r?))).collect()
}

/// Verified text on its way to the caller: without white space at its ends, so that the pieces joined
/// are the answer.
struct Released<'a, 'b> {
    filter: CitationFilter<'a>,
    on_text: &'b mut dyn FnMut(&str) -> ControlFlow<()>,
    text: String,
    sent: usize,
}

impl<'a, 'b> Released<'a, 'b> {
    fn new(
        sources: &'a [Source],
        stored: &'a dyn Fn(&mut Citation) -> bool,
        on_text: &'b mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Self {
        let filter = CitationFilter::new(sources, stored);
        Released { filter, on_text, text: String::new(), sent: 0 }
    }

    fn push(&mut self, generated: &str) -> ControlFlow<()> {
        self.text += &self.filter.push(generated);
        self.send()
    }

    fn send(&mut self) -> ControlFlow<()> {
        let text = self.text.trim();
        if text.len() <= self.sent {
            return ControlFlow::Continue(());
        }
        let new = &text[self.sent..];
        self.sent = text.len();
        (self.on_text)(new)
    }

    fn finish(mut self, tail: &str) -> Cited {
        self.text += &self.filter.push(tail);
        let (cited, rest) =
            std::mem::replace(&mut self.filter, CitationFilter::new(&[], &|_| false)).finish();
        self.text += &rest;
        // The answer has ended: there is nothing left to stop.
        let _ = self.send();
        cited
    }
}

/// Title and headings without a repetition of the title by the first heading.
pub fn headings(title: Option<&str>, path: &[String]) -> Vec<String> {
    let title = title.filter(|t| path.first().map(String::as_str) != Some(t));
    title.map(str::to_owned).into_iter().chain(path.iter().cloned()).collect()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
