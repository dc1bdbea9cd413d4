//! A service that answers with what was said, and misbehaves when told to.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use assay_serve::{
    AnswerForm, AnswerRequest, Embeddings, ModelInfo, ModelUse, SearchHit, SearchRequest,
    SearchResponse, Service, ServiceError,
};
use assay_types::{ChosenToken, Citation, FinishReason, LikelyToken, Output, Timing, Usage};

#[derive(Default)]
pub(crate) struct Echo {
    /// The last request that was answered.
    pub(crate) last: Mutex<Option<AnswerRequest>>,
    /// The last search.
    pub(crate) searched: Mutex<Option<SearchRequest>>,
    /// Answers that were broken off.
    pub(crate) broken_off: AtomicUsize,
    /// Answers in progress to `hold`, which end when the gate opens.
    pub(crate) held: AtomicUsize,
    gate: Mutex<bool>,
    opened: Condvar,
}

impl Echo {
    pub(crate) fn open_gate(&self) {
        *self.gate.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn hold(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
        let open = self.gate.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }
}

/// A word as a token, beside `top` others.
fn chosen(word: &str, top: usize) -> ChosenToken {
    let likely = |text: &str, log_prob| LikelyToken { bytes: text.into(), log_prob };
    let others = ["a", "b", "c"].iter().zip([-0.5, -1.5, -2.5]);
    ChosenToken {
        token: likely(word, -0.25),
        top: others.take(top).map(|(text, log_prob)| likely(text, log_prob)).collect(),
    }
}

pub(crate) const SOURCE: &str = "Hold the button for ten seconds.";

impl Service for Echo {
    fn models(&self) -> Vec<ModelInfo> {
        let model =
            |id: &str, used_for| ModelInfo { id: id.into(), created_s: 1_700_000_000, used_for };
        vec![model("echo", ModelUse::Chat), model("echo-embed", ModelUse::Embeddings)]
    }

    fn answer(
        &self,
        request: &AnswerRequest,
        on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Output, ServiceError> {
        *self.last.lock().unwrap() = Some(request.clone());
        let said = request.messages.last().unwrap().content.clone();
        let mut text = said.clone();
        let mut citations = Vec::new();
        match said.as_str() {
            "too long" => return Err(ServiceError::ContextTooLong { tokens: 9000, limit: 8192 }),
            "fail" => return Err(ServiceError::Internal("a secret reason".into())),
            "panic" => panic!("told to"),
            "no vectors" => return Err(ServiceError::Unavailable("a secret reason".into())),
            "bad schema" => return Err(ServiceError::BadSchema("no such type".into())),
            "bad pattern" => return Err(ServiceError::BadPattern("no end".into())),
            "hold" => self.hold(),
            "forever" => {
                while on_text("on and on ").is_continue() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                self.broken_off.fetch_add(1, Ordering::SeqCst);
                text.clear();
            }
            "cite" => {
                text = "Süß: hold it for ten seconds [1].".into();
                let (start, end) = (20, SOURCE.len() - 1);
                citations.push(Citation {
                    document: "reset.md".into(),
                    start,
                    end,
                    quote: SOURCE[start..end].into(),
                    source_number: 1,
                    repaired: false,
                    pages: None,
                });
            }
            _ => {}
        }
        match &request.options.form {
            Some(AnswerForm::JsonSchema(schema)) if schema["examples"].is_array() => {
                text = schema["examples"][0].to_string();
            }
            Some(AnswerForm::OneOf(texts)) => text = texts[0].clone(),
            _ => {}
        }
        // The last word is held back, as a release does that has yet to verify its citations.
        let pieces: Vec<&str> = text.split_inclusive(' ').collect();
        for piece in &pieces[..pieces.len().saturating_sub(1)] {
            if on_text(piece).is_break() {
                break;
            }
        }
        if said == "fail late" {
            return Err(ServiceError::Internal("a secret reason".into()));
        }
        let log_probs = match request.options.log_probs {
            Some(top) => pieces.iter().map(|piece| chosen(piece, top)).collect(),
            None => Vec::new(),
        };
        let usage = Some(Usage { input_tokens: 7, output_tokens: pieces.len() });
        let finish = match request.options.max_new_tokens {
            Some(1) => FinishReason::Length,
            _ => FinishReason::Stop,
        };
        Ok(Output {
            text,
            citations,
            dropped_citations: 0,
            retrieved: Vec::new(),
            abstained: false,
            finish,
            timing: Timing::default(),
            usage,
            confidence: None,
            log_probs,
        })
    }

    fn embed(&self, _: &str, texts: &[&str]) -> Result<Embeddings, ServiceError> {
        let vectors = texts.iter().map(|t| vec![t.len() as f32, -0.5, 0.1]).collect();
        Ok(Embeddings { vectors, tokens: texts.len() * 3 })
    }

    fn search(&self, request: &SearchRequest) -> Result<SearchResponse, ServiceError> {
        *self.searched.lock().unwrap() = Some(request.clone());
        if request.filter == Some("bad".into()) {
            return Err(ServiceError::BadFilter("no such field".into()));
        }
        match request.query.as_str() {
            "nothing here" => Err(ServiceError::Unsupported("documents")),
            "panic" => panic!("told to"),
            _ => {
                let hit = SearchHit {
                    document: "reset.md".into(),
                    start: 0,
                    end: SOURCE.len(),
                    pages: None,
                    text: SOURCE.into(),
                    score: 0.5,
                };
                let truncated_to = (request.query == "long").then_some(3);
                Ok(SearchResponse { hits: vec![hit; request.k], truncated_to })
            }
        }
    }
}
