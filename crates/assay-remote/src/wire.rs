//! The JSON of `/chat/completions`, as servers really send it: every field may be missing or null.

use assay_types::{FinishReason, Message, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest message of a server that is quoted.
const QUOTED_CHARS: usize = 300;

/// A request as it is sent.
#[derive(Serialize)]
pub(crate) struct Body<'a> {
    pub(crate) model: &'a str,
    pub(crate) messages: &'a [Message],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_completion_tokens: Option<usize>,
    pub(crate) temperature: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_p: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seed: Option<i64>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    pub(crate) stop: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) logprobs: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) top_logprobs: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) response_format: Option<&'a Value>,
    pub(crate) stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: bool,
}

/// A whole answer, or one chunk of a streamed one.
#[derive(Debug, Deserialize)]
pub(crate) struct Completion {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    usage: Option<WireUsage>,
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    message: Option<Said>,
    delta: Option<Said>,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
}

#[derive(Debug, Deserialize)]
struct Said {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Logprobs {
    content: Option<Vec<WireLogprob>>,
}

#[derive(Debug, Deserialize)]
struct WireLogprob {
    token: String,
    logprob: f64,
    top_logprobs: Option<Vec<Alternative>>,
}

#[derive(Debug, Deserialize)]
struct WireUsage {
    prompt_tokens: Option<usize>,
    completion_tokens: Option<usize>,
}

/// One generated token with its natural log-probability, as the server says.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Its text; a token that is no UTF-8 by itself is written as the server writes it.
    pub token: String,
    /// ln P(token | what stands before it), at most 0.
    pub logprob: f64,
    /// The most likely tokens at its place, best first; empty unless asked for.
    pub top: Vec<Alternative>,
}

/// A token that could have stood there.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Alternative {
    /// Its text.
    pub token: String,
    /// Its natural log-probability.
    pub logprob: f64,
}

/// What one answer or chunk adds.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) logprobs: Vec<TokenLogprob>,
    pub(crate) finish: Option<String>,
    pub(crate) usage: Option<Usage>,
    /// An error that came with status 200, as it does in streams.
    pub(crate) error: Option<String>,
    /// Whether there was a choice at all.
    pub(crate) has_choice: bool,
}

impl Piece {
    pub(crate) fn parse(json: &str) -> Result<Piece, serde_json::Error> {
        let completion: Completion = serde_json::from_str(json)?;
        let mut piece = Piece {
            usage: completion.usage.and_then(known),
            error: completion.error.as_ref().filter(|e| !e.is_null()).map(|e| message(e).0),
            ..Piece::default()
        };
        // One answer was asked for; a server that sends several has the first one counted.
        let Some(choice) = completion.choices.into_iter().flatten().next() else {
            return Ok(piece);
        };
        piece.has_choice = true;
        let said = choice.message.or(choice.delta);
        piece.text = said.and_then(|s| s.content.or(s.refusal)).unwrap_or_default();
        piece.finish = choice.finish_reason.filter(|f| !f.is_empty());
        piece.logprobs = choice
            .logprobs
            .and_then(|l| l.content)
            .into_iter()
            .flatten()
            .map(|l| TokenLogprob {
                token: l.token,
                logprob: l.logprob,
                top: l.top_logprobs.unwrap_or_default(),
            })
            .collect();
        Ok(piece)
    }
}

/// A count, unless it is the 0 of a server that does not count: no prompt has 0 tokens.
fn known(usage: WireUsage) -> Option<Usage> {
    let input_tokens = usage.prompt_tokens.filter(|n| *n > 0)?;
    Some(Usage { input_tokens, output_tokens: usage.completion_tokens? })
}

/// Why an answer ended; `Err` where there is none. Words that are not OpenAI's count as a stop.
pub(crate) fn finish_reason(word: &str) -> Result<FinishReason, String> {
    match word {
        "length" | "max_tokens" => Ok(FinishReason::Length),
        "content_filter" | "tool_calls" | "function_call" => Err(word.to_owned()),
        _ => Ok(FinishReason::Stop),
    }
}

/// Message and code of an error body, whatever its form; else its first characters.
pub(crate) fn error_text(body: &str) -> (String, Option<String>) {
    let (text, code) = match serde_json::from_str::<Value>(body) {
        Ok(value) => message(value.get("error").filter(|e| !e.is_null()).unwrap_or(&value)),
        Err(_) => (body.to_owned(), None),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = text.chars().take(QUOTED_CHARS).collect();
    let text = match short.len() {
        0 => "no message".to_owned(),
        n if n < text.len() => short + "…",
        _ => short,
    };
    (text, code)
}

fn message(error: &Value) -> (String, Option<String>) {
    let text = |key: &str| error.get(key).and_then(Value::as_str).map(str::to_owned);
    let said =
        error.as_str().map(str::to_owned).or_else(|| text("message")).or_else(|| text("detail"));
    (said.unwrap_or_else(|| error.to_string()), text("code"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_known_or_unknown_never_zero() {
        let usage = |json: &str| Piece::parse(json).expect("JSON").usage;
        let known = Some(Usage { input_tokens: 7, output_tokens: 0 });
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":7,"completion_tokens":0}}"#), known);
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":0,"completion_tokens":0}}"#), None);
        assert_eq!(usage(r#"{"usage":{"prompt_tokens":7}}"#), None);
        assert_eq!(usage(r#"{"usage":null,"choices":[]}"#), None);
        assert_eq!(usage("{}"), None);
    }

    #[test]
    fn errors_are_read_in_every_form() {
        for (body, expected, code) in [
            (
                r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
                "no such model",
                Some("model_not_found"),
            ),
            (r#"{"error":"model is loading"}"#, "model is loading", None),
            (r#"{"object":"error","message":"too long","code":400}"#, "too long", None),
            (r#"{"detail":"Not Found"}"#, "Not Found", None),
            ("<html>bad\n  gateway</html>", "<html>bad gateway</html>", None),
            ("", "no message", None),
        ] {
            assert_eq!(error_text(body), (expected.to_owned(), code.map(str::to_owned)), "{body}");
        }
        assert_eq!(error_text(&"x".repeat(1000)).0.chars().count(), QUOTED_CHARS + 1);
    }

    #[test]
    fn log_probabilities_are_typed() {
        let json = r#"{"choices":[{"message":{"content":"ok"},"finish_reason":"stop","logprobs":{"content":[
            {"token":"ok","logprob":-0.25,"bytes":null,"top_logprobs":[{"token":"ok","logprob":-0.25}]}]}}]}"#;
        let piece = Piece::parse(json).expect("JSON");
        let top = vec![Alternative { token: "ok".into(), logprob: -0.25 }];
        assert_eq!(piece.logprobs, [TokenLogprob { token: "ok".into(), logprob: -0.25, top }]);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_an_answer_or_an_error(text: String) {
            let _ = Piece::parse(&text);
            let _ = error_text(&text);
        }
    }
}
