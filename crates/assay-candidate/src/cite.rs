//! Citations that are checked before they are released.
//!
//! A marker like `[2]` in an answer stays only if the words before it stand in source 2; if they
//! stand in another source the marker is repaired to name that one; else it is dropped and counted.
//! Every citation carries a quote that equals the bytes of the stored source, which is asked again at that moment:
//! what was changed or deleted since it was retrieved is not cited.
//! [`CitationFilter`] works on a stream: text behind an open bracket waits until it closes, so that
//! what was streamed and what was answered at once are the same.

use std::ops::Range;

use assay_types::Citation;
use unicode_segmentation::UnicodeSegmentation;

use crate::spec::Source;

/// Share of the claim's content words that one sentence must hold to support it. Below one half a
/// sentence on the same subject passes that says something else.
const SUPPORT: f64 = 0.6;

/// Longest marker that is waited for: `[` and three digits.
const MARKER_BYTES: usize = 4;

/// Releases the text of an answer with verified markers only.
pub struct CitationFilter<'a> {
    sources: &'a [Source],
    stored: &'a dyn Fn(&mut Citation) -> bool,
    /// Text since the last marker: what the next marker must support.
    claim: String,
    /// An open bracket and what follows it.
    held: String,
    released: String,
    citations: Vec<Citation>,
    dropped: usize,
}

/// What is left when the answer has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Cited {
    /// The whole answer, with verified markers.
    pub text: String,
    /// One per verified marker, or one for a marker-free answer that stands in a source word by word.
    pub citations: Vec<Citation>,
    /// Markers that were taken out.
    pub dropped: usize,
}

impl<'a> CitationFilter<'a> {
    /// A filter over the numbered sources of a prompt; without sources all text passes unchanged. `stored` says whether
    /// the quote is what now stands in the stored document, in doubt no, and adds the pages.
    pub fn new(sources: &'a [Source], stored: &'a dyn Fn(&mut Citation) -> bool) -> Self {
        CitationFilter {
            sources,
            stored,
            claim: String::new(),
            held: String::new(),
            released: String::new(),
            citations: Vec::new(),
            dropped: 0,
        }
    }

    /// Takes generated text and returns what may be shown now.
    pub fn push(&mut self, text: &str) -> String {
        if self.sources.is_empty() {
            self.released += text;
            return text.to_owned();
        }
        let mut out = String::new();
        let mut release = |claim: &mut String, text: &str| {
            claim.push_str(text);
            out.push_str(text);
        };
        for c in text.chars() {
            match c {
                '[' => {
                    release(&mut self.claim, &std::mem::take(&mut self.held));
                    self.held.push('[');
                }
                ']' if self.held.len() > 1 => {
                    let number = self.held[1..].parse();
                    self.held.clear();
                    if let Ok(number) = number {
                        // The marker ends the claim; the next one begins behind it.
                        let marker = self.resolve(number);
                        release(&mut String::new(), &marker);
                    }
                }
                c if !self.held.is_empty() => {
                    self.held.push(c);
                    if !c.is_ascii_digit() || self.held.len() > MARKER_BYTES {
                        release(&mut self.claim, &std::mem::take(&mut self.held));
                    }
                }
                c => release(&mut self.claim, c.encode_utf8(&mut [0; 4])),
            }
        }
        self.released += &out;
        out
    }

    /// Ends the answer. The second value is text that was still held back.
    ///
    /// An answer without any marker is attributed if it stands word by word in a source: nothing is
    /// guessed from likeness alone.
    pub fn finish(mut self) -> (Cited, String) {
        let rest = std::mem::take(&mut self.held);
        self.released += &rest;
        if self.citations.is_empty() && self.dropped == 0 {
            let claim = plain_claim(&self.released);
            let found = self.sources.iter().enumerate().find_map(|(i, s)| {
                (claim.len() >= 3).then(|| verbatim(claim, &s.text)).flatten().map(|span| (i, span))
            });
            let mut quoted = found.and_then(|(i, span)| quote(self.sources, i, span));
            self.citations.extend(quoted.take_if(|c| (self.stored)(c)));
        }
        let text = self.released;
        (Cited { text, citations: self.citations, dropped: self.dropped }, rest)
    }

    /// The marker to release for `number`, or nothing.
    fn resolve(&mut self, number: usize) -> String {
        let claim = std::mem::take(&mut self.claim);
        let named = number.checked_sub(1).filter(|i| *i < self.sources.len());
        let order = named.into_iter().chain((0..self.sources.len()).filter(|i| Some(*i) != named));
        let found = order
            .filter_map(|i| support(plain_claim(&claim), &self.sources[i].text).map(|s| (i, s)))
            .filter_map(|(i, span)| quote(self.sources, i, span))
            .find_map(|mut citation| (self.stored)(&mut citation).then_some(citation));
        match found {
            Some(mut citation) => {
                citation.repaired = citation.source_number != number;
                let marker = format!("[{}]", citation.source_number);
                self.citations.push(citation);
                marker
            }
            None => {
                self.dropped += 1;
                String::new()
            }
        }
    }
}

fn plain_claim(text: &str) -> &str {
    text.trim_matches(|c: char| {
        c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '"' | '\'')
    })
}

fn quote(sources: &[Source], index: usize, span: Range<usize>) -> Option<Citation> {
    let source = &sources[index];
    let text = source.text.get(span.clone())?;
    (!text.trim().is_empty()).then(|| Citation {
        document: source.document.clone(),
        start: source.start + span.start,
        end: source.start + span.end,
        quote: text.to_owned(),
        source_number: index + 1,
        repaired: false,
        pages: None,
    })
}

/// The sentence of `text` that supports `claim`: it holds it word by word, or enough of its words.
fn support(claim: &str, text: &str) -> Option<Range<usize>> {
    if claim.is_empty() {
        return None;
    }
    if let Some(span) = verbatim(claim, text) {
        return Some(span);
    }
    let wanted = content_words(claim);
    if wanted.is_empty() {
        return None;
    }
    let share = |s: &str| {
        let have = content_words(s);
        wanted.iter().filter(|w| have.contains(w)).count() as f64 / wanted.len() as f64
    };
    sentences(text)
        .map(|s| (share(&text[s.clone()]), s))
        .filter(|(share, _)| *share >= SUPPORT)
        .max_by(|a, b| a.0.total_cmp(&b.0).then(b.1.start.cmp(&a.1.start)))
        .map(|(_, s)| s)
}

/// The sentences around the first place where `claim` stands in `text` between word boundaries,
/// ASCII case aside.
fn verbatim(claim: &str, text: &str) -> Option<Range<usize>> {
    let (claim, lower) = (claim.to_ascii_lowercase(), text.to_ascii_lowercase());
    let inside = |at: usize| {
        let before = lower[..at].chars().next_back();
        let after = lower[at + claim.len()..].chars().next();
        [before, after].into_iter().flatten().all(|c| !c.is_alphanumeric())
    };
    let at = lower.match_indices(claim.as_str()).map(|(at, _)| at).find(|at| inside(*at))?;
    let end = at + claim.len();
    sentences(text).filter(|s| s.start < end && at < s.end).reduce(|a, b| a.start..b.end)
}

/// Sentences, which also end at line breaks, without the white space around them.
fn sentences(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    text.split_sentence_bound_indices()
        .flat_map(|(start, sentence)| {
            let mut at = start;
            sentence.split_inclusive('\n').map(move |line| {
                let (lead, trail) = (line.len() - line.trim_start().len(), line.trim_end().len());
                let range = at + lead.min(trail)..at + trail;
                at += line.len();
                range
            })
        })
        .filter(|r| !r.is_empty())
}

/// Lower-case words of at least two letters, or numbers.
fn content_words(text: &str) -> Vec<String> {
    text.unicode_words()
        .map(str::to_lowercase)
        .filter(|w| w.chars().count() > 3 || w.chars().any(|c| c.is_ascii_digit()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(document: &str, start: usize, text: &str) -> Source {
        Source { document: document.into(), start, headings: vec![], text: text.into() }
    }

    fn check(
        answer: &str,
        texts: &[&str],
        expected: &str,
        quotes: &[(usize, &str)],
        dropped: usize,
    ) {
        let sources: Vec<Source> = texts.iter().map(|t| source("a.md", 100, t)).collect();
        let mut whole = CitationFilter::new(&sources, &|_| true);
        whole.push(answer);
        let (cited, _) = whole.finish();
        assert_eq!(cited.text, expected);
        let got: Vec<_> =
            cited.citations.iter().map(|c| (c.source_number, c.quote.as_str())).collect();
        assert_eq!(got, quotes);
        assert_eq!(cited.dropped, dropped);
        for c in &cited.citations {
            assert_eq!(&sources[c.source_number - 1].text[c.start - 100..c.end - 100], c.quote);
            assert_eq!(
                c.repaired,
                !answer.contains(&format!("[{}]", c.source_number)) && answer.contains('[')
            );
        }
        // Character by character gives the same.
        let mut streamed = CitationFilter::new(&sources, &|_| true);
        let mut shown = String::new();
        for ch in answer.chars() {
            shown += &streamed.push(&ch.to_string());
        }
        let (again, rest) = streamed.finish();
        assert_eq!(again, cited);
        assert_eq!(shown + &rest, expected);
    }

    const TEXTS: &[&str] = &[
        "The fee is 12 euros. It is due in May.",
        "Parcels leave on Tuesday.\nNo Sunday service.",
    ];

    #[test]
    fn a_true_marker_stays() {
        check("12 euros [1]", TEXTS, "12 euros [1]", &[(1, "The fee is 12 euros.")], 0);
    }

    #[test]
    fn a_marker_on_the_wrong_source_is_repaired() {
        check("on Tuesday [1].", TEXTS, "on Tuesday [2].", &[(2, "Parcels leave on Tuesday.")], 0);
    }

    #[test]
    fn what_is_no_longer_stored_is_not_cited() {
        let sources: Vec<Source> = TEXTS.iter().map(|t| source("a.md", 0, t)).collect();
        let gone = |c: &mut Citation| c.source_number != 1;
        let mut filter = CitationFilter::new(&sources, &gone);
        filter.push("12 euros [1]. on Tuesday [1]");
        let (cited, _) = filter.finish();
        assert_eq!((cited.text.as_str(), cited.dropped), ("12 euros . on Tuesday [2]", 1));
        let mut bare = CitationFilter::new(&sources, &gone);
        bare.push("12 euros");
        assert!(bare.finish().0.citations.is_empty());
    }

    #[test]
    fn an_unsupported_or_impossible_marker_is_dropped() {
        check("99 dollars [1]", TEXTS, "99 dollars ", &[], 1);
        check("99 dollars [7]", TEXTS, "99 dollars ", &[], 1);
    }

    #[test]
    fn an_answer_that_stands_in_a_source_is_attributed_without_a_marker() {
        check("12 Euros.", TEXTS, "12 Euros.", &[(1, "The fee is 12 euros.")], 0);
        check("2 euros", TEXTS, "2 euros", &[], 0);
    }

    #[test]
    fn brackets_that_are_no_markers_pass() {
        check("see [note] 12 euros", TEXTS, "see [note] 12 euros", &[], 0);
        check("open [1", TEXTS, "open [1", &[], 0);
    }
}
