//! BM25 over the postings of segments.
//!
//! The score is Robertson's BM25 with Lucene's idf, `Σ idf · count · (k1 + 1) / (count + k1 · (1 − b + b · length /
//! mean length))` over the terms of the query, a disjunction. Statistics are those of the living chunks, whatever
//! the segments still hold, so scores do not depend on what was deleted. Every chunk with a term is scored, terms in the order of
//! the query: equal chunks get equal scores. Counts above 255 count as 255, which moves a score by less than 1 %.

use std::collections::{BTreeMap, HashMap};

use assay_kernels::{SCAN_ROWS, add_saturated, consume};
use rayon::slice::ParallelSliceMut as _;

use crate::Bm25;
use crate::analysis::{Language, query_terms, words};
use crate::bits::{Bits, ones};
use crate::projections::Placed;
use crate::segment::{Section, SegmentWriter, Term};

/// A term of at least one in so many chunks has counts of every chunk, read faster than the fewer named ones.
const FREQUENT: usize = 8;
/// Slots that are one task; their scores fit in a processor's cache.
const TASK: usize = 8192;

/// A term's chunks and counts.
type Postings = Vec<(u32, u8)>;

/// The terms of consecutive chunks.
pub(crate) struct Terms {
    lengths: Vec<u32>,
    /// Sorted by term.
    postings: Vec<(String, Postings)>,
}

impl Terms {
    /// Of chunks from number `first` of their segment on.
    pub(crate) fn of<'t>(first: u32, texts: impl Iterator<Item = (Language, &'t str)>) -> Self {
        // What became of words that were met before; `None` of stop words.
        let mut known: HashMap<Language, HashMap<String, Option<usize>>> = HashMap::new();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut lists: Vec<Postings> = Vec::new();
        let mut lengths = Vec::new();
        for ((language, text), chunk) in texts.zip(first..) {
            let known = known.entry(language).or_default();
            let mut length = 0;
            words(text, |word| {
                let number = match known.get(word) {
                    Some(number) => *number,
                    None => {
                        let number = language.term(word).map(|term| {
                            let next = numbers.len();
                            *numbers.entry(term).or_insert(next)
                        });
                        known.insert(word.to_owned(), number);
                        number
                    }
                };
                let Some(number) = number else { return };
                length += 1;
                if number == lists.len() {
                    lists.push(Vec::new());
                }
                match lists[number].last_mut() {
                    Some((last, count)) if *last == chunk => *count = count.saturating_add(1),
                    _ => lists[number].push((chunk, 1)),
                }
            });
            lengths.push(length);
        }
        let mut postings: Vec<(String, Postings)> =
            numbers.into_iter().map(|(term, n)| (term, std::mem::take(&mut lists[n]))).collect();
        postings.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        Terms { lengths, postings }
    }

    /// Writes the terms of a whole segment, given in the order of its chunks.
    pub(crate) fn write(all: &[Terms], writer: &mut SegmentWriter) -> std::io::Result<()> {
        let mut lengths: Vec<u32> = all.iter().flat_map(|t| t.lengths.iter().copied()).collect();
        let slots = lengths.len().next_multiple_of(SCAN_ROWS);
        lengths.resize(slots, 0);
        writer.write(Section::Lengths, &lengths)?;

        let mut parts: Vec<(&str, usize, &Postings)> = Vec::new();
        for (i, terms) in all.iter().enumerate() {
            parts.extend(terms.postings.iter().map(|(term, list)| (term.as_str(), i, list)));
        }
        parts.par_sort_unstable_by_key(|&(term, i, _)| (term, i));
        let (mut text, mut terms) = (Vec::new(), Vec::new());
        let (mut chunks, mut counts) = (Vec::new(), Vec::new());
        for of_term in parts.chunk_by(|a, b| a.0 == b.0) {
            let frequency: usize = of_term.iter().map(|(_, _, list)| list.len()).sum();
            let postings = of_term.iter().flat_map(|(_, _, list)| list.iter().copied());
            text.extend_from_slice(of_term[0].0.as_bytes());
            let mut term = Term {
                text_end: text.len() as u64,
                counts: counts.len() as u64,
                chunks: chunks.len() as u64,
                frequency: frequency as u64,
            };
            if frequency * FREQUENT >= slots {
                term.chunks = Term::EVERY_CHUNK;
                let start = counts.len();
                counts.resize(start + slots, 0);
                postings.for_each(|(chunk, count)| counts[start + chunk as usize] = count);
            } else {
                postings.for_each(|(chunk, count)| {
                    chunks.push(chunk);
                    counts.push(count);
                });
            }
            terms.push(term);
        }
        writer.write(Section::TermText, &text)?;
        writer.write(Section::Terms, &terms)?;
        writer.write(Section::Chunks, &chunks)?;
        writer.write(Section::Counts, &counts)
    }
}

/// What the living chunks say about lengths and languages.
pub(crate) struct Lexical {
    k1: f64,
    chunks: usize,
    /// `k1 · (1 − b + b · length / mean length)` of each slot.
    norms: Vec<f32>,
    /// Of the documents, each once, sorted.
    languages: Vec<Language>,
    /// How many chunks are in each.
    of_language: Vec<u64>,
}

impl Lexical {
    /// `live` are the slots of living chunks, `languages` says how many of them are in which.
    pub(crate) fn new(
        segments: &[Placed],
        live: &Bits,
        languages: BTreeMap<Language, u64>,
        bm25: Bm25,
    ) -> Self {
        let lengths = || segments.iter().flat_map(|p| p.segment.lengths().iter().copied());
        let chunks = live.count();
        let total: u64 = lengths()
            .zip(0..)
            .filter(|(_, slot)| live.contains(*slot))
            .map(|(l, _)| u64::from(l))
            .sum();
        let mean = (total as f64 / chunks.max(1) as f64).max(f64::MIN_POSITIVE);
        let (k1, b) = (f64::from(bm25.k1), f64::from(bm25.b));
        // Above 0, so that no count gives 0 divided by 0.
        let norm = |length: u32| {
            ((k1 * (1.0 - b + b * f64::from(length) / mean)) as f32).max(f32::MIN_POSITIVE)
        };
        let norms = lengths().map(norm).collect();
        let (languages, of_language) = languages.into_iter().unzip();
        Lexical { k1, chunks, norms, languages, of_language }
    }

    /// The score of every slot: above 0 for allowed chunks with a term of the query, else 0. `None` where no
    /// chunk has one.
    pub(crate) fn scores(
        &self,
        segments: &[Placed],
        live: &Bits,
        allowed: &Bits,
        query: &str,
    ) -> Option<Vec<f32>> {
        let query = query_terms(query, &self.languages);
        let entries: Vec<Vec<Option<Term>>> = query
            .terms
            .iter()
            .map(|(text, _)| segments.iter().map(|p| p.segment.term(text)).collect())
            .collect();
        let frequency = |entries: &Vec<Option<Term>>| -> u64 {
            let of = |(t, p): (&Option<Term>, _)| Some(living(p, live, t.as_ref()?));
            entries.iter().zip(segments).filter_map(of).sum()
        };
        let own: Vec<u64> = entries.iter().map(frequency).collect();
        // A term is as frequent as all that the most frequent word behind it stands for.
        let mut frequencies = own.clone();
        for word in &query.words {
            let terms: u64 = word.terms.iter().map(|&t| own[t]).sum();
            let stopped: u64 = word.stopped.iter().map(|&l| self.of_language[l]).sum();
            for &term in &word.terms {
                frequencies[term] = frequencies[term].max(terms + stopped).min(self.chunks as u64);
            }
        }
        // Of each term that is there: its weight, and its entry in each segment.
        let mut terms: Vec<(f32, Vec<Option<Term>>)> = Vec::new();
        for (i, entries) in entries.into_iter().enumerate().filter(|(i, _)| own[*i] > 0) {
            let (n, df) = (self.chunks as f64, frequencies[i] as f64);
            let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
            let times = f64::from(query.terms[i].1);
            terms.push(((times * idf * (self.k1 + 1.0)) as f32, entries));
        }
        if terms.is_empty() {
            return None;
        }
        let mut scores = vec![0.0f32; self.norms.len()];
        let mut tasks = Vec::new();
        let mut rest = &mut scores[..];
        for (number, placed) in segments.iter().enumerate() {
            let (own, others) = rest.split_at_mut(placed.segment.slots());
            rest = others;
            tasks.extend(
                own.chunks_mut(TASK).enumerate().map(|(i, own)| (number, placed, i * TASK, own)),
            );
        }
        consume(tasks.into_iter(), |(number, placed, start, scores)| {
            let end = start + scores.len();
            let first = placed.first as usize;
            let norms = &self.norms[first + start..first + end];
            for (weight, entries) in &terms {
                let Some(term) = &entries[number] else { continue };
                match placed.segment.postings(term) {
                    (None, counts) => add_saturated(&counts[start..end], norms, *weight, scores),
                    (Some(chunks), counts) => {
                        let from = chunks.partition_point(|c| (*c as usize) < start);
                        let own = chunks[from..].iter().take_while(|c| (**c as usize) < end);
                        for (chunk, count) in own.zip(&counts[from..]) {
                            let at = *chunk as usize - start;
                            let count = f32::from(*count);
                            scores[at] += weight * (count / (count + norms[at]));
                        }
                    }
                }
            }
            let blocks = start / SCAN_ROWS..end / SCAN_ROWS;
            for (word, scores) in
                placed.words(allowed, &blocks).iter().zip(scores.chunks_exact_mut(SCAN_ROWS))
            {
                if *word != u64::MAX {
                    ones(!word).for_each(|bit| scores[bit as usize] = 0.0);
                }
            }
        });
        Some(scores)
    }
}

/// Living chunks of a segment that have a term.
fn living(placed: &Placed, live: &Bits, term: &Term) -> u64 {
    if placed.whole {
        return term.frequency;
    }
    let living = |chunk: u32| live.contains(placed.first + chunk);
    match placed.segment.postings(term) {
        (None, counts) => (0..).zip(counts).filter(|(c, n)| **n > 0 && living(*c)).count() as u64,
        (Some(chunks), _) => chunks.iter().filter(|c| living(**c)).count() as u64,
    }
}
