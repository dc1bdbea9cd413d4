//! Asking: one question whole or streamed, or many at a time.

use std::io::BufReader;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use assay_types::{FinishReason, Message, Usage};
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, http};

use crate::error::passes;
use crate::patience::{self, Health};
use crate::sse::Events;
use crate::wire::{self, Body, Piece, StreamOptions};
use crate::{ApiKey, Blame, RemoteError, RemoteSpec, TokenLogprob};

/// How often a waiting question looks whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

/// Longest answer that is read.
const ANSWER_BYTES: u64 = 16 << 20;

/// Tries while no question has succeeded yet and there is no connection: nobody is there.
const TRIES_AT_NOBODY: u32 = 3;

/// Where to ask and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Model and address.
    pub spec: RemoteSpec,
    /// Sent as a bearer token, to this server only.
    pub key: Option<ApiKey>,
    /// Questions that [`RemoteModel::chat_all`] has under way at once, at least 1.
    pub concurrency: usize,
    /// For resolving and connecting.
    pub connect_timeout: Duration,
    /// Longest silence of a connected server. A server that does not stream is silent while it generates.
    pub read_timeout: Duration,
    /// For one question, all tries and waits together.
    pub deadline: Duration,
    /// Tries of one question, at least 1.
    pub tries: u32,
    /// Wait before the second try; it doubles from try to try.
    pub first_wait: Duration,
    /// Failed questions in a row after which no more are asked; `None` never gives up, as a server needs.
    pub give_up_after: Option<u32>,
    /// Asked often while waiting; `true` ends every question with [`RemoteError::Stopped`].
    pub stopped: fn() -> bool,
}

impl Settings {
    /// Eight questions at once, 10 s to connect, 120 s of silence, 10 minutes and 5 tries for a question, 0.5 s before
    /// the second try, never giving the server up.
    pub fn new(spec: RemoteSpec) -> Self {
        Settings {
            spec,
            key: None,
            concurrency: 8,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(120),
            deadline: Duration::from_secs(600),
            tries: 5,
            first_wait: Duration::from_millis(500),
            give_up_after: None,
            stopped: || false,
        }
    }
}

/// A conversation to continue.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatRequest {
    /// The turns.
    pub messages: Vec<Message>,
    /// Limit on new tokens.
    pub max_new_tokens: usize,
    /// 0 for the most likely answer.
    pub temperature: f32,
    /// Nucleus; 1 for all tokens.
    pub top_p: f32,
    /// Sent along; servers that refuse it are asked without.
    pub seed: u64,
    /// Texts that end the answer and are cut off it.
    pub stop: Vec<String>,
    /// Asks for log-probabilities, with so many alternatives at every place; `None` does not ask.
    pub logprobs: Option<u8>,
    /// The form that the answer must have, sent as it is; a server that does not know it may refuse or ignore it.
    pub response_format: Option<Value>,
}

impl ChatRequest {
    /// The most likely answer: temperature 0, seed 0.
    pub fn greedy(messages: Vec<Message>, max_new_tokens: usize) -> Self {
        ChatRequest {
            messages,
            max_new_tokens,
            temperature: 0.0,
            top_p: 1.0,
            seed: 0,
            stop: Vec::new(),
            logprobs: None,
            response_format: None,
        }
    }
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The text.
    pub text: String,
    /// Why it ended; a caller that broke it off counts as a stop.
    pub finish: FinishReason,
    /// Tokens of all tries that the server worked on, as it counted them; `None` where one of them has no count.
    pub usage: Option<Usage>,
    /// One per generated token, if they were asked for and the server has them.
    pub logprobs: Option<Vec<TokenLogprob>>,
    /// Wall milliseconds until the first text (for an answer that is not streamed, until all of it), lost tries and
    /// waits included.
    pub first_text_ms: f64,
    /// Wall milliseconds of everything.
    pub total_ms: f64,
    /// Tries, the successful one included.
    pub tries: u32,
}

/// A chat model of a server. Cheap to clone; clones share connections, and any number of threads may use it at once.
#[derive(Clone)]
pub struct RemoteModel(Arc<Inner>);

struct Inner {
    settings: Settings,
    agent: Agent,
    url: String,
    health: Health,
    dialect: Dialect,
}

/// What this server turned out not to take.
#[derive(Default)]
struct Dialect {
    /// It wants `max_completion_tokens` instead of `max_tokens`, as OpenAI's newer models do.
    completion_tokens: AtomicBool,
    no_seed: AtomicBool,
    no_stream_options: AtomicBool,
}

impl std::fmt::Debug for RemoteModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RemoteModel").field(&self.0.settings.spec.to_string()).finish()
    }
}

impl RemoteModel {
    /// A client; nothing is sent yet.
    ///
    /// # Errors
    /// [`RemoteError::Key`].
    pub fn new(settings: Settings) -> Result<Self, RemoteError> {
        if settings.key.as_ref().is_some_and(|k| !k.is_sendable()) {
            return Err(RemoteError::Key);
        }
        // The platform's certificates: people behind an inspecting proxy have its root there.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            // A redirect could carry the question, and with some clients the key, elsewhere.
            .max_redirects(0)
            .user_agent(concat!("assay/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(settings.connect_timeout))
            .timeout_connect(Some(settings.connect_timeout))
            .timeout_recv_response(Some(settings.read_timeout))
            .timeout_per_read(Some(settings.read_timeout))
            .max_idle_connections_per_host(settings.concurrency.max(1))
            .build()
            .new_agent();
        let url = format!("{}/chat/completions", settings.spec.base_url);
        let (health, dialect) = (Health::default(), Dialect::default());
        Ok(RemoteModel(Arc::new(Inner { settings, agent, url, health, dialect })))
    }

    /// Model and address.
    pub fn spec(&self) -> &RemoteSpec {
        &self.0.settings.spec
    }

    /// Asks and waits for the whole answer.
    ///
    /// # Errors
    /// [`RemoteError`], after all tries.
    pub fn chat(&self, request: &ChatRequest) -> Result<Reply, RemoteError> {
        self.ask(request, None)
    }

    /// Asks and hands the answer to `on_text` as it comes; after `Break` what there is so far is returned.
    ///
    /// A try that breaks off is repeated without saying anything twice; if the second answer begins differently, that is
    /// an error.
    ///
    /// # Errors
    /// As [`RemoteModel::chat`].
    pub fn chat_streamed(
        &self,
        request: &ChatRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Reply, RemoteError> {
        self.ask(request, Some(on_text))
    }

    /// Asks many questions, several at a time; the answers in the order of the questions.
    pub fn chat_all(&self, requests: &[ChatRequest]) -> Vec<Result<Reply, RemoteError>> {
        let next = AtomicUsize::new(0);
        let replies: Mutex<Vec<Option<Result<Reply, RemoteError>>>> =
            Mutex::new(vec![None; requests.len()]);
        std::thread::scope(|scope| {
            for _ in 0..self.0.settings.concurrency.clamp(1, requests.len().max(1)) {
                scope.spawn(|| {
                    while let Some((i, request)) = {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        requests.get(i).map(|r| (i, r))
                    } {
                        let reply = self.chat(request);
                        replies.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(reply);
                    }
                });
            }
        });
        let replies = replies.into_inner().unwrap_or_else(PoisonError::into_inner);
        replies.into_iter().map(|r| r.unwrap_or(Err(RemoteError::Stopped))).collect()
    }

    fn ask(
        &self,
        request: &ChatRequest,
        mut on_text: Option<OnText<'_>>,
    ) -> Result<Reply, RemoteError> {
        let settings = &self.0.settings;
        if let (Some(_), Some(reason)) = (settings.give_up_after, self.0.health.down()) {
            return Err(reason);
        }
        let mut question = Question {
            inner: &self.0,
            request,
            started: Instant::now(),
            tries: 0,
            lost: Spent::default(),
            released: String::new(),
            first_text: None,
            last: None,
        };
        let asked = question.ask(&mut on_text);
        match (&asked, settings.give_up_after) {
            (Ok(_), _) => self.0.health.succeeded(),
            (Err(error), Some(limit)) => self.0.health.failed(error, limit),
            (Err(_), None) => {}
        }
        asked
    }
}

type OnText<'a> = &'a mut dyn FnMut(&str) -> ControlFlow<()>;

/// Tokens of tries, known or not.
#[derive(Clone, Copy, Debug)]
struct Spent(Option<Usage>);

impl Default for Spent {
    fn default() -> Self {
        Spent(Some(Usage::default()))
    }
}

impl Spent {
    fn add(&mut self, usage: Option<Usage>) {
        self.0 = self.0.zip(usage).map(|(a, b)| Usage {
            input_tokens: a.input_tokens + b.input_tokens,
            output_tokens: a.output_tokens + b.output_tokens,
        });
    }
}

/// One question on its way through its tries.
struct Question<'a> {
    inner: &'a Arc<Inner>,
    request: &'a ChatRequest,
    started: Instant,
    tries: u32,
    lost: Spent,
    /// Text that the caller has seen.
    released: String,
    first_text: Option<Instant>,
    last: Option<RemoteError>,
}

/// How a try failed.
struct Failure {
    error: RemoteError,
    /// Whether the server may have worked on it, and what it counted.
    worked: Option<Option<Usage>>,
    retry_after: Option<Duration>,
}

impl Failure {
    /// The server did nothing.
    fn idle(error: RemoteError) -> Self {
        Failure { error, worked: None, retry_after: None }
    }

    /// The server worked, or may have.
    fn worked(error: RemoteError, usage: Option<Usage>) -> Self {
        Failure { error, worked: Some(usage), retry_after: None }
    }
}

/// What the thread of a try says.
enum Event {
    Text(String),
    End(Result<Answer, Failure>),
}

/// A finished try.
struct Answer {
    text: String,
    finish: FinishReason,
    usage: Option<Usage>,
    logprobs: Vec<TokenLogprob>,
}

impl Question<'_> {
    fn ask(&mut self, on_text: &mut Option<OnText<'_>>) -> Result<Reply, RemoteError> {
        loop {
            self.wait_until(self.inner.health.quiet_until())?;
            self.tries += 1;
            let failure = match self.attempt(on_text)? {
                Ok(reply) => return Ok(reply),
                Err(failure) => failure,
            };
            if let Some(usage) = failure.worked {
                self.lost.add(usage);
            }
            if self.inner.dialect.learn(&failure.error) {
                continue;
            }
            if failure.error.blame() != Blame::Moment {
                return Err(failure.error);
            }
            let nobody = matches!(failure.error, RemoteError::Unreachable { .. })
                && !self.inner.health.answered();
            let settings = &self.inner.settings;
            let tries = if nobody { settings.tries.min(TRIES_AT_NOBODY) } else { settings.tries };
            let wait = patience::wait(settings.first_wait, self.tries, failure.retry_after);
            let over = self.started.elapsed() + wait >= settings.deadline;
            if self.tries >= tries || over {
                return Err(self.exhausted(failure.error));
            }
            let until = Instant::now() + wait;
            if failure.retry_after.is_some() {
                self.inner.health.quiet(until);
            }
            self.last = Some(failure.error);
            self.wait_until(Some(until))?;
        }
    }

    fn exhausted(&self, error: RemoteError) -> RemoteError {
        match self.tries {
            1 => error,
            tries => RemoteError::Exhausted { tries, last: Box::new(error) },
        }
    }

    /// Sleeps, unless the deadline comes first or the caller stops.
    fn wait_until(&self, until: Option<Instant>) -> Result<(), RemoteError> {
        loop {
            self.still_wanted()?;
            let left =
                until.map_or(Duration::ZERO, |u| u.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn still_wanted(&self) -> Result<(), RemoteError> {
        let settings = &self.inner.settings;
        if (settings.stopped)() {
            return Err(RemoteError::Stopped);
        }
        if self.started.elapsed() >= settings.deadline {
            let last = self.last.clone().map(Box::new);
            return Err(RemoteError::Deadline {
                deadline: settings.deadline,
                tries: self.tries,
                last,
            });
        }
        Ok(())
    }

    /// One try, on a thread of its own: reading blocks, and a caller who stops, or a deadline, must not wait for it. A
    /// thread that nobody listens to ends at its next piece or time-out.
    fn attempt(
        &mut self,
        on_text: &mut Option<OnText<'_>>,
    ) -> Result<Result<Reply, Failure>, RemoteError> {
        let (events, heard) = mpsc::channel();
        let (inner, request, stream) =
            (Arc::clone(self.inner), self.request.clone(), on_text.is_some());
        let left = self.inner.settings.deadline.saturating_sub(self.started.elapsed());
        std::thread::spawn(move || {
            let answer = inner.call(&request, stream, left, &events);
            // The caller may have left.
            let _ = events.send(Event::End(answer));
        });
        self.listen(&heard, on_text)
    }

    fn listen(
        &mut self,
        heard: &Receiver<Event>,
        on_text: &mut Option<OnText<'_>>,
    ) -> Result<Result<Reply, Failure>, RemoteError> {
        let mut text = String::new();
        loop {
            match heard.recv_timeout(LOOK) {
                Err(RecvTimeoutError::Timeout) => self.still_wanted()?,
                Err(RecvTimeoutError::Disconnected) => {
                    let reason = "the thread that asked it ended".to_owned();
                    return Ok(Err(Failure::worked(self.broken_off(reason), None)));
                }
                Ok(Event::Text(piece)) => {
                    text += &piece;
                    let Some(on_text) = on_text else { continue };
                    match self.release(&text, on_text)? {
                        ControlFlow::Continue(()) => {}
                        ControlFlow::Break(()) => {
                            let finish = FinishReason::Stop;
                            let answer = Answer { text, finish, usage: None, logprobs: Vec::new() };
                            return Ok(Ok(self.reply(answer)));
                        }
                    }
                }
                Ok(Event::End(Err(failure))) => return Ok(Err(failure)),
                Ok(Event::End(Ok(answer))) => {
                    if let Some(on_text) = on_text {
                        // The answer has ended: there is nothing left to stop.
                        let _ = self.release(&answer.text, on_text)?;
                    }
                    return Ok(Ok(self.reply(answer)));
                }
            }
        }
    }

    /// Hands out what is new in `text`, of which an earlier try may have said a part.
    fn release(
        &mut self,
        text: &str,
        on_text: &mut OnText<'_>,
    ) -> Result<ControlFlow<()>, RemoteError> {
        if let Some(new) = text.strip_prefix(self.released.as_str()) {
            if new.is_empty() {
                return Ok(ControlFlow::Continue(()));
            }
            self.first_text.get_or_insert_with(Instant::now);
            let new = new.to_owned();
            self.released += &new;
            return Ok(on_text(&new));
        }
        if self.released.starts_with(text) {
            return Ok(ControlFlow::Continue(()));
        }
        Err(self.broken_off("a second try began with another text than the first".to_owned()))
    }

    fn broken_off(&self, reason: String) -> RemoteError {
        RemoteError::BrokenOff { url: self.inner.url.clone(), reason }
    }

    fn reply(&mut self, answer: Answer) -> Reply {
        let ms = |at: Instant| at.duration_since(self.started).as_secs_f64() * 1e3;
        let now = Instant::now();
        let mut spent = self.lost;
        spent.add(answer.usage);
        Reply {
            text: answer.text,
            finish: answer.finish,
            usage: spent.0,
            logprobs: self
                .request
                .logprobs
                .is_some()
                .then_some(answer.logprobs)
                .filter(|l| !l.is_empty()),
            first_text_ms: ms(self.first_text.unwrap_or(now)),
            total_ms: ms(now),
            tries: self.tries,
        }
    }
}

impl Dialect {
    /// Whether a refusal names a parameter that can be said differently or left out, and has not been yet.
    fn learn(&self, error: &RemoteError) -> bool {
        let RemoteError::Status { status: 400 | 422, message, .. } = error else { return false };
        [
            ("max_completion_tokens", &self.completion_tokens),
            ("stream_options", &self.no_stream_options),
            ("seed", &self.no_seed),
        ]
        .into_iter()
        .any(|(name, known)| message.contains(name) && !known.swap(true, Ordering::Relaxed))
    }
}

impl Inner {
    /// One request and its answer. Pieces of a streamed one go to `events`.
    fn call(
        &self,
        request: &ChatRequest,
        stream: bool,
        left: Duration,
        events: &Sender<Event>,
    ) -> Result<Answer, Failure> {
        let body = serde_json::to_vec(&self.body(request, stream))
            .map_err(|e| Failure::idle(self.protocol(format!("the request is no JSON: {e}"))))?;
        let mut post =
            self.agent.post(&self.url).header("content-type", "application/json").header(
                "accept",
                if stream { "text/event-stream, application/json" } else { "application/json" },
            );
        if let Some(key) = &self.settings.key {
            post = post.header("authorization", key.bearer());
        }
        let mut response = post
            .config()
            .timeout_global(Some(left))
            .build()
            .send(&body[..])
            .map_err(|e| self.transport(e))?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(self.refusal(&mut response, status));
        }
        let header = response.headers().get("content-type").and_then(|v| v.to_str().ok());
        let is_stream = stream && !header.is_some_and(|h| h.starts_with("application/json"));
        let body = response.into_body().into_with_config().limit(ANSWER_BYTES);
        if is_stream {
            return self.read_stream(Events::new(BufReader::new(body.reader())), events);
        }
        let text = body.read_to_string().map_err(|e| Failure::worked(self.broken(e), None))?;
        let piece =
            Piece::parse(&text).map_err(|e| Failure::worked(self.protocol(e.to_string()), None))?;
        if let Some(error) = piece.error {
            return Err(Failure::worked(self.broken_off(&error), piece.usage));
        }
        if !piece.has_choice {
            return Err(Failure::worked(
                self.protocol("`choices` is missing or empty".to_owned()),
                piece.usage,
            ));
        }
        let finish = self.finish(piece.finish.as_deref(), piece.usage)?;
        Ok(Answer { text: piece.text, finish, usage: piece.usage, logprobs: piece.logprobs })
    }

    fn body<'a>(&'a self, request: &'a ChatRequest, stream: bool) -> Body<'a> {
        let learnt = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
        let limit = Some(request.max_new_tokens);
        let renamed = learnt(&self.dialect.completion_tokens);
        let usage = stream && !learnt(&self.dialect.no_stream_options);
        Body {
            model: &self.settings.spec.model,
            messages: &request.messages,
            max_tokens: limit.filter(|_| !renamed),
            max_completion_tokens: limit.filter(|_| renamed),
            temperature: request.temperature,
            top_p: Some(request.top_p).filter(|p| *p < 1.0),
            seed: (!learnt(&self.dialect.no_seed)).then_some(request.seed.cast_signed()),
            stop: &request.stop,
            logprobs: request.logprobs.map(|_| true),
            top_logprobs: request.logprobs.filter(|n| *n > 0),
            response_format: request.response_format.as_ref(),
            stream,
            stream_options: usage.then_some(StreamOptions { include_usage: true }),
        }
    }

    fn read_stream<R: std::io::BufRead>(
        &self,
        mut stream: Events<R>,
        events: &Sender<Event>,
    ) -> Result<Answer, Failure> {
        let mut answer = Answer {
            text: String::new(),
            finish: FinishReason::Stop,
            usage: None,
            logprobs: Vec::new(),
        };
        let (mut finish, mut done) = (None, false);
        while !done {
            let data = stream.next().map_err(|e| {
                let reason = self.redact(&e.to_string());
                Failure::worked(self.broken_off(&reason), answer.usage)
            })?;
            let Some(data) = data else { break };
            if data.trim() == "[DONE]" {
                done = true;
                continue;
            }
            let piece = Piece::parse(&data)
                .map_err(|e| Failure::worked(self.protocol(e.to_string()), answer.usage))?;
            answer.usage = piece.usage.or(answer.usage);
            if let Some(error) = piece.error {
                return Err(Failure::worked(self.broken_off(&error), answer.usage));
            }
            finish = piece.finish.or(finish);
            answer.logprobs.extend(piece.logprobs);
            if !piece.text.is_empty() {
                answer.text += &piece.text;
                if events.send(Event::Text(piece.text)).is_err() {
                    // Nobody listens: dropping the connection tells the server.
                    break;
                }
            }
        }
        if finish.is_none() && !done {
            let reason = format!(
                "the stream ended after {} bytes of text without an end",
                answer.text.len()
            );
            return Err(Failure::worked(self.broken_off(&reason), answer.usage));
        }
        answer.finish = self.finish(finish.as_deref(), answer.usage)?;
        Ok(answer)
    }

    fn finish(&self, word: Option<&str>, usage: Option<Usage>) -> Result<FinishReason, Failure> {
        wire::finish_reason(word.unwrap_or("stop"))
            .map_err(|finish| Failure::worked(RemoteError::Withheld { finish }, usage))
    }

    fn refusal(&self, response: &mut http::Response<ureq::Body>, status: u16) -> Failure {
        let header = |name: &str| {
            response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned)
        };
        let (location, after) = (header("location"), header("retry-after"));
        // A body that cannot be read has nothing to add to the status.
        let body =
            response.body_mut().with_config().limit(1 << 20).read_to_string().unwrap_or_default();
        let (mut message, code) = wire::error_text(&self.redact(&body));
        if let Some(location) = location.filter(|_| (300..400).contains(&status)) {
            message = format!("it redirects to {}", self.redact(&location));
        }
        let error = RemoteError::Status { url: self.url.clone(), status, message, code };
        let retry_after = after.and_then(|a| patience::retry_after(&a, SystemTime::now()));
        Failure { error, worked: None, retry_after: retry_after.filter(|_| passes(status)) }
    }

    /// An error before there was a status.
    fn transport(&self, error: ureq::Error) -> Failure {
        let url = self.url.clone();
        match error {
            ureq::Error::Timeout(timeout) => {
                use ureq::Timeout::{Connect, Resolve};
                let connecting = matches!(timeout, Connect | Resolve);
                let error = RemoteError::Timeout { url, phase: timeout.to_string() };
                // A server that was asked and says nothing may be at work.
                if connecting { Failure::idle(error) } else { Failure::worked(error, None) }
            }
            other => {
                let refused = matches!(&other, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
                let unknown =
                    matches!(other, ureq::Error::HostNotFound | ureq::Error::ConnectionFailed);
                let error =
                    RemoteError::Unreachable { url, reason: self.redact(&other.to_string()) };
                if refused || unknown { Failure::idle(error) } else { Failure::worked(error, None) }
            }
        }
    }

    /// An error while the body was read.
    fn broken(&self, error: ureq::Error) -> RemoteError {
        match error {
            ureq::Error::Timeout(timeout) => {
                RemoteError::Timeout { url: self.url.clone(), phase: timeout.to_string() }
            }
            other => self.broken_off(&self.redact(&other.to_string())),
        }
    }

    fn broken_off(&self, reason: &str) -> RemoteError {
        RemoteError::BrokenOff { url: self.url.clone(), reason: self.redact(reason) }
    }

    fn protocol(&self, reason: String) -> RemoteError {
        RemoteError::Protocol { url: self.url.clone(), reason }
    }

    fn redact(&self, text: &str) -> String {
        match &self.settings.key {
            Some(key) => key.redact(text),
            None => text.to_owned(),
        }
    }
}
