//! `/v1/chat/completions`: the request, the whole response, and the chunks of a streamed one.

use assay_types::{Citation, FinishReason, LikelyToken, Message, Output, Pages, Role, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;
use crate::service::{AnswerForm, AnswerOptions, AnswerRequest, Caller};

#[derive(Deserialize)]
pub(crate) struct ChatRequest {
    model: String,
    messages: Vec<ChatMessage>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<Stop>,
    top_k: Option<u32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    logprobs: Option<bool>,
    top_logprobs: Option<u32>,
    response_format: Option<ResponseFormat>,
    structured_outputs: Option<StructuredOutputs>,

    // Read only to refuse what would otherwise be ignored against the caller's intent.
    n: Option<u32>,
    logit_bias: Option<Value>,
    tools: Option<Value>,
    functions: Option<Value>,
    audio: Option<Value>,
    guided_json: Option<Value>,
    guided_regex: Option<Value>,
    guided_choice: Option<Value>,
    guided_grammar: Option<Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
struct ResponseFormat {
    r#type: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

/// Forms that OpenAI has no words for, in vLLM's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StructuredOutputs {
    regex: Option<String>,
    choice: Option<Vec<String>>,
}

/// Log-probabilities beside the chosen token's at most, as OpenAI has it.
const TOP_LOGPROBS: u32 = 20;

#[derive(Deserialize)]
#[serde(untagged, expecting = "stop must be a string or an array of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
struct ChatMessage {
    role: ChatRole,
    content: Option<Content>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "content must be a string or an array of text parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
}

impl ChatRequest {
    pub(crate) fn include_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|o| o.include_usage)
    }

    /// The conversation and its options, checked.
    pub(crate) fn into_answer(mut self, caller: Caller) -> Result<AnswerRequest, ApiError> {
        self.refuse_unsupported()?;
        if self.messages.is_empty() {
            return Err(ApiError::bad("messages", "messages is empty"));
        }
        self.check_ranges()?;
        let (log_probs, form) = (self.log_probs()?, self.form()?);
        let (limit, param) = match self.max_completion_tokens {
            Some(n) => (Some(n), "max_completion_tokens"),
            None => (self.max_tokens, "max_tokens"),
        };
        if limit == Some(0) {
            return Err(ApiError::bad(param, format!("{param} is 0, it must be at least 1")));
        }
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(one)) => vec![one],
            Some(Stop::Many(many)) => many,
        };
        if stop.iter().any(String::is_empty) {
            return Err(ApiError::bad("stop", "a stop string is empty"));
        }
        let messages = self.messages.into_iter().enumerate().map(|(i, m)| m.into_message(i));
        Ok(AnswerRequest {
            model: self.model,
            messages: messages.collect::<Result<_, _>>()?,
            caller,
            options: AnswerOptions {
                max_new_tokens: limit.map(|n| n as usize),
                temperature: self.temperature,
                top_p: self.top_p,
                seed: self.seed.map(i64::cast_unsigned),
                stop,
                top_k: self.top_k.map(|n| n as usize),
                min_p: self.min_p,
                repetition_penalty: self.repetition_penalty,
                presence_penalty: self.presence_penalty,
                frequency_penalty: self.frequency_penalty,
                log_probs,
                form,
            },
        })
    }

    fn check_ranges(&self) -> Result<(), ApiError> {
        let two = (-2.0, 2.0, "-2 to 2");
        let ranges = [
            ("temperature", self.temperature, (0.0, 2.0, "0 to 2")),
            ("top_p", self.top_p, (f32::MIN_POSITIVE, 1.0, "above 0 and up to 1")),
            ("min_p", self.min_p, (0.0, 1.0, "0 to 1")),
            (
                "repetition_penalty",
                self.repetition_penalty,
                (f32::MIN_POSITIVE, f32::MAX, "above 0"),
            ),
            ("presence_penalty", self.presence_penalty, two),
            ("frequency_penalty", self.frequency_penalty, two),
        ];
        for (param, value, (low, high, allowed)) in ranges {
            if let Some(v) = value.filter(|v| !(low..=high).contains(v)) {
                return Err(ApiError::bad(param, format!("{param} is {v}, it may be {allowed}")));
            }
        }
        Ok(())
    }

    fn log_probs(&self) -> Result<Option<usize>, ApiError> {
        let bad = |message: String| Err(ApiError::bad("top_logprobs", message));
        match (self.logprobs, self.top_logprobs) {
            (_, Some(n)) if n > TOP_LOGPROBS => {
                bad(format!("top_logprobs is {n}, it may be 0 to {TOP_LOGPROBS}"))
            }
            (Some(true), n) => Ok(Some(n.unwrap_or(0) as usize)),
            (_, Some(1..)) => bad("top_logprobs needs logprobs to be true".to_owned()),
            _ => Ok(None),
        }
    }

    fn form(&mut self) -> Result<Option<AnswerForm>, ApiError> {
        let pattern = self.structured_outputs.take().map(StructuredOutputs::form).transpose()?;
        let Some(format) = self.response_format.take() else { return Ok(pattern) };
        if pattern.is_some() {
            let message = "response_format and structured_outputs exclude each other";
            return Err(ApiError::bad("structured_outputs", message));
        }
        match (format.r#type.as_str(), format.json_schema) {
            ("text", _) => Ok(None),
            ("json_object", _) => Ok(Some(AnswerForm::JsonObject)),
            ("json_schema", Some(JsonSchema { schema: Some(schema) })) => {
                Ok(Some(AnswerForm::JsonSchema(schema)))
            }
            ("json_schema", _) => {
                let param = "response_format.json_schema.schema";
                Err(ApiError::bad(param, "the schema is missing"))
            }
            (other, _) => {
                let message =
                    format!("{other:?} is unknown; there is: text, json_object, json_schema");
                Err(ApiError::bad("response_format.type", message))
            }
        }
    }

    fn refuse_unsupported(&self) -> Result<(), ApiError> {
        let asked = |v: &Option<Value>| v.as_ref().is_some_and(|v| !is_empty(v));
        let refused = [
            ("n", self.n.is_some_and(|n| n != 1), "ask once per answer"),
            ("logit_bias", asked(&self.logit_bias), "leave it out"),
            ("tools", asked(&self.tools), "leave it out"),
            ("functions", asked(&self.functions), "leave it out"),
            ("audio", asked(&self.audio), "only text is"),
            ("guided_json", asked(&self.guided_json), "response_format is"),
            ("guided_regex", asked(&self.guided_regex), "structured_outputs is"),
            ("guided_choice", asked(&self.guided_choice), "structured_outputs is"),
            ("guided_grammar", asked(&self.guided_grammar), "response_format is"),
        ];
        match refused.iter().find(|(_, asked, _)| *asked) {
            Some((param, _, supported)) => Err(ApiError::unsupported(param, supported)),
            None => Ok(()),
        }
    }
}

impl StructuredOutputs {
    fn form(self) -> Result<AnswerForm, ApiError> {
        match (self.regex, self.choice) {
            (Some(regex), None) => Ok(AnswerForm::Regex(regex)),
            (None, Some(texts)) => Ok(AnswerForm::OneOf(texts)),
            _ => Err(ApiError::bad("structured_outputs", "expected either regex or choice")),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

impl ChatMessage {
    fn into_message(self, index: usize) -> Result<Message, ApiError> {
        // What a tool said is input to the model, as what a person says is.
        let role = match self.role {
            ChatRole::System | ChatRole::Developer => Role::System,
            ChatRole::User | ChatRole::Tool | ChatRole::Function => Role::User,
            ChatRole::Assistant => Role::Assistant,
        };
        let param = format!("messages[{index}].content");
        let content = match self.content {
            Some(Content::Text(text)) => text,
            Some(Content::Parts(parts)) => join(parts, &param)?,
            // An assistant turn that only called tools has no text.
            None if role == Role::Assistant => String::new(),
            None => return Err(ApiError::bad(param, "content is missing")),
        };
        Ok(Message { role, content })
    }
}

fn join(parts: Vec<Part>, param: &str) -> Result<String, ApiError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (i, part) in parts.into_iter().enumerate() {
        match (part.r#type.as_str(), part.text) {
            ("text", Some(text)) => texts.push(text),
            ("text", None) => {
                return Err(ApiError::bad(format!("{param}[{i}].text"), "text is missing"));
            }
            (other, _) => {
                let message =
                    format!("parts of type {other:?} are not supported; only \"text\" is");
                return Err(ApiError::bad(format!("{param}[{i}].type"), message));
            }
        }
    }
    Ok(texts.join("\n"))
}

/// What all parts of one answer share.
#[derive(Clone, Serialize)]
pub(crate) struct Header {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) model: String,
}

#[derive(Serialize)]
pub(crate) struct Completion {
    #[serde(flatten)]
    header: Header,
    object: &'static str,
    choices: [WholeChoice; 1],
    /// Null where a remote model does not tell.
    usage: Option<TokenUsage>,
}

#[derive(Serialize)]
struct WholeChoice {
    index: u32,
    message: WholeMessage,
    logprobs: Option<LogProbs>,
    finish_reason: &'static str,
}

#[derive(Serialize)]
struct WholeMessage {
    role: &'static str,
    content: String,
    refusal: Option<()>,
    annotations: Vec<Annotation>,
}

impl Completion {
    pub(crate) fn new(header: Header, output: Output) -> Self {
        let annotations = annotations(&output);
        let logprobs = LogProbs::of(&output);
        let message =
            WholeMessage { role: "assistant", content: output.text, refusal: None, annotations };
        let choice = WholeChoice {
            index: 0,
            message,
            logprobs,
            finish_reason: finish_reason(output.finish),
        };
        let usage = output.usage.map(TokenUsage::from);
        Completion { header, object: "chat.completion", choices: [choice], usage }
    }
}

#[derive(Serialize)]
pub(crate) struct Chunk {
    #[serde(flatten)]
    header: Header,
    object: &'static str,
    choices: Vec<ChunkChoice>,
    /// Absent unless the client asked for it; then null in every chunk but the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<TokenUsage>>,
}

#[derive(Serialize)]
struct ChunkChoice {
    index: u32,
    delta: Delta,
    logprobs: Option<LogProbs>,
    finish_reason: Option<&'static str>,
}

/// How likely the tokens of an answer were. They are those that the model generated: the content may lack citations
/// that could not be verified.
#[derive(Serialize)]
struct LogProbs {
    content: Vec<TokenLogProb>,
    refusal: Option<()>,
}

#[derive(Serialize)]
struct TokenLogProb {
    #[serde(flatten)]
    chosen: LogProb,
    top_logprobs: Vec<LogProb>,
}

#[derive(Serialize)]
struct LogProb {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl LogProbs {
    fn of(output: &Output) -> Option<LogProbs> {
        let content = output.log_probs.iter().map(|t| TokenLogProb {
            chosen: (&t.token).into(),
            top_logprobs: t.top.iter().map(LogProb::from).collect(),
        });
        let content: Vec<TokenLogProb> = content.collect();
        (!content.is_empty()).then_some(LogProbs { content, refusal: None })
    }
}

impl From<&LikelyToken> for LogProb {
    fn from(token: &LikelyToken) -> Self {
        LogProb {
            token: String::from_utf8_lossy(&token.bytes).into_owned(),
            logprob: token.log_prob,
            bytes: token.bytes.clone(),
        }
    }
}

#[derive(Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    annotations: Vec<Annotation>,
}

/// Makes the chunks of one streamed answer.
pub(crate) struct Chunks {
    header: Header,
    include_usage: bool,
    sent: usize,
}

impl Chunks {
    pub(crate) fn new(header: Header, include_usage: bool) -> Self {
        Chunks { header, include_usage, sent: 0 }
    }

    /// The first chunk: who speaks.
    pub(crate) fn first(&self) -> Chunk {
        self.chunk(
            Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() },
            None,
        )
    }

    /// A piece of the answer.
    pub(crate) fn text(&mut self, text: String) -> Chunk {
        self.sent += text.len();
        self.chunk(Delta { content: Some(text), ..Delta::default() }, None)
    }

    /// Everything after the last piece: what was held back with the citations, the reason, the usage.
    pub(crate) fn end(&self, output: &Output) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let rest = output.text.get(self.sent..).unwrap_or_default().to_owned();
        let annotations = annotations(output);
        if !rest.is_empty() || !annotations.is_empty() {
            chunks.push(self.chunk(Delta { role: None, content: Some(rest), annotations }, None));
        }
        let mut last = self.chunk(Delta::default(), Some(finish_reason(output.finish)));
        last.choices[0].logprobs = LogProbs::of(output);
        chunks.push(last);
        if let Some(usage) = output.usage.filter(|_| self.include_usage) {
            chunks.push(Chunk {
                choices: Vec::new(),
                usage: Some(Some(usage.into())),
                ..self.chunk(Delta::default(), None)
            });
        }
        chunks
    }

    fn chunk(&self, delta: Delta, finish_reason: Option<&'static str>) -> Chunk {
        Chunk {
            header: self.header.clone(),
            object: "chat.completion.chunk",
            choices: vec![ChunkChoice { index: 0, delta, logprobs: None, finish_reason }],
            usage: self.include_usage.then_some(None),
        }
    }
}

#[derive(Serialize)]
struct TokenUsage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}

impl From<Usage> for TokenUsage {
    fn from(usage: Usage) -> Self {
        TokenUsage {
            prompt_tokens: usage.input_tokens,
            completion_tokens: usage.output_tokens,
            total_tokens: usage.input_tokens + usage.output_tokens,
        }
    }
}

fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

/// A citation in the one shape that OpenAI's clients have a type for, with our own fields beside it.
#[derive(Serialize)]
struct Annotation {
    r#type: &'static str,
    url_citation: UrlCitation,
    document: String,
    /// Byte span of the quote in the stored document.
    start: usize,
    end: usize,
    quote: String,
    /// The number by which the answer refers to the source.
    index: usize,
    /// Whether the model's marker named another source.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repaired: bool,
    /// First and last page, if the document has pages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<Pages>,
}

#[derive(Serialize)]
struct UrlCitation {
    /// Characters of the marker in the answer; both are the answer's length if it has no marker.
    start_index: usize,
    end_index: usize,
    title: String,
    url: String,
}

fn annotations(output: &Output) -> Vec<Annotation> {
    output.citations.iter().map(|c| annotation(&output.text, c)).collect()
}

fn annotation(text: &str, citation: &Citation) -> Annotation {
    let marker = format!("[{}]", citation.source_number);
    let characters = |bytes: usize| text[..bytes].chars().count();
    let (start_index, end_index) = match text.find(&marker) {
        Some(at) => (characters(at), characters(at) + marker.len()),
        None => (characters(text.len()), characters(text.len())),
    };
    let Citation { document, start, end, quote, source_number, repaired, pages } = citation.clone();
    let url_citation =
        UrlCitation { start_index, end_index, title: document.clone(), url: document.clone() };
    Annotation {
        r#type: "url_citation",
        url_citation,
        document,
        start,
        end,
        quote,
        index: source_number,
        repaired,
        pages,
    }
}
