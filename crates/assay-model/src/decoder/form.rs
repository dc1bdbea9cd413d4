//! Answers of a given form: tokens after which the form could not be reached any more are not drawn.

use std::sync::Arc;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Decoder;
use crate::error::ModelError;

/// White space at one place between the parts of JSON: enough for an indented line, too little to be
/// lost in.
const WHITE_SPACE: &str = r"[\x20\x0A\x0D\x09]{1,16}";

/// Longest token that forms are made of, in bytes; the trie of llguidance panics a little above.
const TOKEN_BYTES: usize = 1000;

/// Parts of a schema that are tried alone at most, to say where its error is.
const TRIED_PARTS: usize = 1000;

/// The form that an answer must have. Where generation ends by itself the answer has it; where it ends
/// at a limit, at a stop text or by the observer, the answer is the beginning of one that has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// JSON that satisfies a schema. Properties come in the order of the schema; `$ref` may point into
    /// the schema only. What of JSON Schema cannot be kept is refused, never ignored.
    JsonSchema(#[serde(with = "as_text")] Value),
    /// Any JSON object.
    JsonObject,
    /// A text that a regular expression matches as a whole; syntax of the crate `regex`, without word
    /// boundaries. Anchors at its ends change nothing.
    Regex(String),
    /// One of these texts.
    OneOf(Vec<String>),
}

impl Form {
    fn kind(&self) -> &'static str {
        match self {
            Form::JsonSchema(_) => "JSON schema",
            Form::JsonObject => "JSON object",
            Form::Regex(_) => "regular expression",
            Form::OneOf(_) => "choice",
        }
    }

    /// `space`: whether decoding takes a space off the beginning of an answer, so that one may stand
    /// before the form. A form that begins with a space itself may then lose it.
    fn grammar(&self, space: bool) -> Result<TopLevelGrammar, String> {
        let mut form = match self {
            Form::JsonSchema(Value::Object(schema)) => {
                let mut schema = schema.clone();
                let options = json!({ "whitespace_pattern": WHITE_SPACE });
                schema.insert("x-guidance".to_owned(), options);
                GrammarWithLexer::from_json_schema(Value::Object(schema))
            }
            Form::JsonSchema(_) => return Err("it is no object".to_owned()),
            Form::JsonObject => {
                return Form::JsonSchema(json!({ "type": "object" })).grammar(space);
            }
            Form::Regex(regex) if regex.is_empty() => return Err("it is empty".to_owned()),
            Form::Regex(regex) => GrammarWithLexer::from_regex(regex),
            Form::OneOf(texts) if texts.iter().all(String::is_empty) => {
                return Err("there is nothing to choose from".to_owned());
            }
            Form::OneOf(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| literally(text)).collect();
                GrammarWithLexer::from_regex(&texts.join("|"))
            }
        };
        if !space {
            return Ok(TopLevelGrammar::from_grammar(form));
        }
        form.name = Some("form".to_owned());
        let spaced = GrammarWithLexer::from_lark("start: \" \"? @form".to_owned());
        Ok(TopLevelGrammar { grammars: vec![spaced, form], max_tokens: None })
    }
}

/// A regular expression that matches `text` only.
fn literally(text: &str) -> String {
    let escape = |c: char| match c {
        c if c.is_alphanumeric() => c.to_string(),
        c => format!("\\x{{{:X}}}", u32::from(c)),
    };
    text.chars().map(escape).collect()
}

/// A schema as its text: the order of its properties decides answers, and must reach every hash.
mod as_text {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};
    use serde_json::Value;

    pub(super) fn serialize<S: Serializer>(schema: &Value, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&schema.to_string())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(D::Error::custom)
    }
}

/// What all forms need of a tokenizer.
pub(super) type Grammars = Result<ParserFactory, String>;

/// A form on its way through one answer.
pub(super) struct Progress {
    kind: &'static str,
    matcher: Matcher,
}

impl Progress {
    /// Sets the logits of all tokens that may not come next to -∞.
    pub(super) fn mask(&mut self, logits: &mut [f32]) -> Result<(), ModelError> {
        let allowed = self.matcher.compute_mask_or_eos().map_err(|e| self.failed(&e))?;
        allowed.iter_unset_entries(|token| {
            if let Some(logit) = logits.get_mut(token) {
                *logit = f32::NEG_INFINITY;
            }
        });
        Ok(())
    }

    /// Goes on by one token; returns whether nothing may follow.
    pub(super) fn push(&mut self, token: u32) -> Result<bool, ModelError> {
        self.matcher.consume_token(token).map_err(|e| self.failed(&e))?;
        Ok(self.matcher.is_stopped())
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::Form { kind: self.kind, place: String::new(), reason: reason(error) }
    }
}

impl Decoder {
    /// Checks a form, as [`Self::generate`] does before it generates anything.
    ///
    /// # Errors
    /// [`ModelError::Form`].
    pub fn check_form(&self, form: &Form) -> Result<(), ModelError> {
        self.progress(form).map(drop)
    }

    pub(super) fn progress(&self, form: &Form) -> Result<Progress, ModelError> {
        let compiled = self.compile(form).map_err(|reason| {
            let mut tries = TRIED_PARTS;
            let place = match form {
                Form::JsonSchema(schema) => self.place(schema, &reason, &mut tries),
                Form::JsonObject | Form::Regex(_) | Form::OneOf(_) => None,
            };
            ModelError::Form { kind: form.kind(), place: place.unwrap_or_default(), reason }
        });
        compiled.map(|matcher| Progress { kind: form.kind(), matcher })
    }

    fn compile(&self, form: &Form) -> Result<Matcher, String> {
        let grammar = form.grammar(self.tokenizer().strips_space())?;
        let grammars = self.0.grammars.get_or_init(|| self.grammars());
        let grammars = grammars.as_ref().map_err(String::clone)?;
        let mut matcher = Matcher::new(grammars.create_parser(grammar));
        if let Some(error) = matcher.get_error() {
            return Err(reason(&error));
        }
        // What cannot even begin is found here rather than in the middle of a batch.
        matcher.compute_mask_or_eos().map_err(|e| reason(&e))?;
        Ok(matcher)
    }

    /// JSON pointer to the innermost part of a schema that has the same error by itself.
    fn place(&self, part: &Value, error: &str, tries: &mut usize) -> Option<String> {
        let below = |key: String, value: &Value, tries: &mut usize| {
            let key = key.replace('~', "~0").replace('/', "~1");
            self.place(value, error, tries).map(|rest| format!("/{key}{rest}"))
        };
        match part {
            Value::Object(parts) => {
                let inner = parts.iter().find_map(|(key, value)| below(key.clone(), value, tries));
                if inner.is_some() {
                    return inner;
                }
                *tries = tries.checked_sub(1)?;
                let alone = self.compile(&Form::JsonSchema(part.clone()));
                alone.is_err_and(|e| e == error).then(String::new)
            }
            Value::Array(parts) => {
                let mut parts = parts.iter().enumerate();
                parts.find_map(|(i, value)| below(i.to_string(), value, tries))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
    }

    fn grammars(&self) -> Grammars {
        let (tokenizer, vocab) = (self.tokenizer(), self.config().vocab as u32);
        // Marks for the model are no text, whatever their names look like.
        let word = |token: u32| match (tokenizer.token_bytes(token), tokenizer.is_control(token)) {
            (bytes, _) if bytes.len() > TOKEN_BYTES => Vec::new(),
            (bytes, true) => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
            (bytes, false) => bytes.to_vec(),
        };
        // A model without stop tokens gets one that it cannot choose.
        let words: Vec<Vec<u8>> = (0..vocab).map(word).chain([Vec::new()]).collect();
        let mut stop = self.stop_tokens().to_vec();
        stop.retain(|&token| token < vocab);
        if stop.is_empty() {
            stop.push(vocab);
        }
        let trie = TokTrie::from(&TokRxInfo::new(vocab + 1, stop[0]), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&stop)));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| e.to_string())?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(factory)
    }
}

/// What an error says, on one line: without the state of the parser, a backtrace, or the place in the
/// grammar that llguidance makes of a regular expression.
fn reason(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default();
    match first.strip_prefix("at 1(8): ").unwrap_or(first) {
        "NoExtensionBias" => "nothing satisfies it".to_owned(),
        first => match lines.find_map(|line| line.strip_prefix("error: ")) {
            Some(detail) => format!("{first} {detail}"),
            None => first.to_owned(),
        },
    }
}
