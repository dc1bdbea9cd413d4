//! Queries in other words: the base model writes variants of a question, or a passage that could answer it.

use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use assay_model::GenerateRequest;
use assay_remote::{Blame, ChatRequest};
use assay_types::{Message, Role};
use serde::{Deserialize, Serialize};

use crate::spec::Rewrite;
use crate::{CandidateError, Generator};

/// Tokens that are written at most: a line for each variant, or a short passage.
const VARIANT_TOKENS: usize = 32;
const PASSAGE_TOKENS: usize = 96;

/// What was written for a query.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Written {
    /// Variants of the query, or one passage.
    pub texts: Vec<String>,
    /// Wall time in milliseconds; of queries that were written for together, each one's share.
    pub ms: f64,
}

/// Keeps what was written, so that it is not written again.
pub trait Drafts: Send + Sync {
    /// What was written for a query in this way; `None` if nothing was.
    fn get(&self, how: &Rewrite, query: &str) -> Option<Written>;

    /// Keeps it. A draft that cannot be kept is written again the next time.
    fn put(&self, how: &Rewrite, query: &str, written: &Written);
}

/// Queries that were searched for as they are because nothing could be written for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unwritten {
    /// How many.
    pub queries: usize,
    /// Why the last one.
    pub why: String,
}

/// A model that writes queries anew, greedily: the same text for the same query, alone or among others.
pub struct Rewriter {
    generator: Generator,
    drafts: Option<Box<dyn Drafts>>,
    unwritten: Mutex<Unwritten>,
}

impl Rewriter {
    /// Writes with `generator`, and keeps what it wrote in `drafts` if there are any.
    pub fn new(generator: Generator, drafts: Option<Box<dyn Drafts>>) -> Self {
        Rewriter { generator, drafts, unwritten: Mutex::default() }
    }

    /// What is written for each of the queries; `None` where that fails: it is counted, and the query is searched
    /// for as it is.
    ///
    /// # Errors
    /// If the user stopped it, or the server is given up: nothing follows from that for the queries.
    pub fn write(
        &self,
        how: &Rewrite,
        queries: &[&str],
    ) -> Result<Vec<Option<Written>>, CandidateError> {
        let kept = |query: &&str| self.drafts.as_ref().and_then(|d| d.get(how, query));
        let mut written: Vec<Option<Written>> = queries.iter().map(kept).collect();
        let open: Vec<usize> = (0..queries.len())
            .filter(|&i| written[i].is_none() && !queries[i].trim().is_empty())
            .collect();
        if open.is_empty() {
            return Ok(written);
        }
        let began = Instant::now();
        let prompts: Vec<_> = open.iter().map(|&i| messages(how, queries[i])).collect();
        let texts = self.generate(&prompts, most_tokens(how));
        let ms = began.elapsed().as_secs_f64() * 1e3 / open.len() as f64;
        for (&i, text) in open.iter().zip(texts) {
            let texts = match text {
                Ok(text) => read(how, queries[i], &text),
                Err(e) if matches!(e.blame(), Blame::Stopped | Blame::Server) => return Err(e),
                Err(e) => {
                    self.count(e.to_string());
                    continue;
                }
            };
            if texts.is_empty() {
                self.count("the model wrote nothing that is of use".to_owned());
                continue;
            }
            let draft = Written { texts, ms };
            if let Some(drafts) = &self.drafts {
                drafts.put(how, queries[i], &draft);
            }
            written[i] = Some(draft);
        }
        Ok(written)
    }

    /// What could not be written since this was last asked.
    pub fn take_unwritten(&self) -> Unwritten {
        std::mem::take(&mut self.unwritten.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, why: String) {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        *unwritten = Unwritten { queries: unwritten.queries + 1, why };
    }

    /// The text that the model writes for each of the prompts.
    fn generate(
        &self,
        prompts: &[Vec<Message>],
        limit: usize,
    ) -> Vec<Result<String, CandidateError>> {
        let decoder = match &self.generator {
            Generator::Local(decoder) => decoder,
            Generator::Remote(remote) => {
                let chat = |messages: &Vec<Message>| ChatRequest::greedy(messages.clone(), limit);
                let asked: Vec<_> = prompts.iter().map(chat).collect();
                let replies = remote.model.chat_all(&asked);
                return replies.into_iter().map(|r| Ok(r?.text)).collect();
            }
        };
        // One that is too long fails alone, not with those beside it.
        let room = decoder.config().context_length.saturating_sub(limit);
        let request = |messages: &Vec<Message>| {
            let tokens = decoder.prompt_tokens(messages)?;
            if tokens.len() > room {
                let (tokens, limit) = (tokens.len(), room);
                return Err(assay_model::ModelError::TooLong { tokens, limit }.into());
            }
            Ok(GenerateRequest::greedy(tokens, limit))
        };
        let requests: Vec<Result<GenerateRequest, CandidateError>> =
            prompts.iter().map(request).collect();
        let ready: Vec<GenerateRequest> = requests.iter().flatten().cloned().collect();
        let mut silent = |_: usize, _: u32| ControlFlow::Continue(());
        match decoder.generate(&ready, None, &mut silent) {
            Ok(generations) => {
                let mut texts = generations.into_iter().map(|g| g.text);
                let mut next = || texts.next().ok_or(CandidateError::NoGeneration);
                requests.into_iter().map(|r| r.and_then(|_| next())).collect()
            }
            Err(e) => {
                let why = e.to_string();
                let failed = |r: Result<_, _>| r.and(Err(CandidateError::Rewrite(why.clone())));
                requests.into_iter().map(failed).collect()
            }
        }
    }
}

fn most_tokens(how: &Rewrite) -> usize {
    match how {
        Rewrite::MultiQuery { queries } => queries * VARIANT_TOKENS,
        Rewrite::Hyde => PASSAGE_TOKENS,
    }
}

fn messages(how: &Rewrite, query: &str) -> Vec<Message> {
    let asked = match how {
        Rewrite::MultiQuery { queries } => format!(
            "Write {queries} other ways to ask this question, in other words, one on each line, and nothing else.\n\n{query}"
        ),
        Rewrite::Hyde => {
            format!(
                "Write a short passage of an encyclopedia that answers this question.\n\n{query}"
            )
        }
    };
    vec![
        Message::new(Role::System, "You help to search documents."),
        Message::new(Role::User, asked),
    ]
}

/// What is of use in what the model wrote.
fn read(how: &Rewrite, query: &str, text: &str) -> Vec<String> {
    match how {
        Rewrite::Hyde => {
            let passage = text.trim();
            if passage.is_empty() { Vec::new() } else { vec![passage.to_owned()] }
        }
        Rewrite::MultiQuery { queries } => {
            let mut variants: Vec<String> = Vec::new();
            for line in text.lines() {
                // Models number what they list, or quote it.
                let line = line.trim_start_matches(|c: char| {
                    c.is_ascii_digit() || c.is_whitespace() || "-*•.)\"“".contains(c)
                });
                let line = line.trim_end_matches(|c: char| c.is_whitespace() || "\"”".contains(c));
                let known = |v: &str| v.to_lowercase() == line.to_lowercase();
                if !line.is_empty() && !known(query.trim()) && !variants.iter().any(|v| known(v)) {
                    variants.push(line.to_owned());
                }
            }
            variants.truncate(*queries);
            variants
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_lines_without_numbers_repetitions_and_the_query_itself() {
        let how = Rewrite::MultiQuery { queries: 3 };
        let check = |text: &str, expected: &[&str]| {
            assert_eq!(read(&how, "Who is it?", text), expected, "{text:?}");
        };
        check(
            "1. Who might it be?\n2) \"Which person?\"\n\n- who is it?\n",
            &["Who might it be?", "Which person?"],
        );
        check("A?\na?\nB?\nC?\nD?", &["A?", "B?", "C?"]);
        check(" \n", &[]);
        assert_eq!(read(&Rewrite::Hyde, "q", " A passage.\nIn lines. "), ["A passage.\nIn lines."]);
        assert!(read(&Rewrite::Hyde, "q", "\n").is_empty());
    }
}
