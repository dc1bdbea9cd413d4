//! Log-likelihoods of given continuations.

use std::collections::HashMap;

use assay_kernels::{linear_nll, matmul};

use super::Decoder;
use super::cache::{Cache, PASS_TOKENS, Span};
use super::prefix::{Reader, common_prefix};
use super::sampling::argmax;
use crate::adapter::{Adapter, PackedAdapter};
use crate::error::ModelError;

/// Rows whose logits exist at once.
const LOGIT_ROWS: usize = 64;
/// Tokens whose keys and values are held at once, where a single row does not need more.
const BATCH_TOKENS: usize = 8192;

/// A text to score, and what comes before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// What is given; at least one token.
    pub context: Vec<u32>,
    /// What is scored.
    pub continuation: Vec<u32>,
}

/// How likely a continuation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the log-probabilities of its tokens, in nats.
    pub sum: f64,
    /// Number of its tokens.
    pub tokens: usize,
    /// Whether every token is the most likely one at its place.
    pub greedy: bool,
}

impl Decoder {
    /// Scores every row; what contexts have in common is read once and kept for later calls, as in
    /// [`Self::generate`]. A score does not depend on the other rows.
    ///
    /// # Errors
    /// [`ModelError::TooLong`], [`ModelError::Empty`] for a row without context,
    /// [`ModelError::UnknownToken`], [`ModelError::AdapterMismatch`].
    pub fn log_likelihoods(
        &self,
        rows: &[Continuation],
        adapter: Option<&Adapter>,
    ) -> Result<Vec<LogLikelihood>, ModelError> {
        let packed = self.packed(adapter)?;
        let limit = self.config().context_length;
        for row in rows {
            if row.context.is_empty() {
                return Err(ModelError::Empty("context"));
            }
            // The last token is scored and never read.
            let tokens = row.context.len() + row.continuation.len();
            if tokens > limit + 1 {
                return Err(ModelError::TooLong { tokens: tokens - 1, limit });
            }
            self.check_text(&row.context)?;
            self.check_text(&row.continuation)?;
        }
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut group_of: HashMap<&[u32], usize> = HashMap::new();
        for (i, row) in rows.iter().enumerate() {
            let group = *group_of.entry(&row.context).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[group].push(i);
        }
        let nothing = LogLikelihood { sum: 0.0, tokens: 0, greedy: true };
        let mut scores = vec![nothing; rows.len()];
        let context = |group: &Vec<usize>| rows[group[0]].context.len();
        for groups in chunks_within(&groups, BATCH_TOKENS, context) {
            self.score_groups(groups, rows, packed.as_deref(), &mut scores);
        }
        Ok(scores)
    }

    /// Reads the contexts of some groups together, then their continuations.
    fn score_groups(
        &self,
        groups: &[Vec<usize>],
        rows: &[Continuation],
        adapter: Option<&PackedAdapter>,
        scores: &mut [LogLikelihood],
    ) {
        // The last token of the context is read with each continuation, whose first token it
        // predicts.
        let before = groups.iter().map(|group| {
            let context = &rows[group[0]].context;
            &context[..context.len() - 1]
        });
        let before: Vec<&[u32]> = before.collect();
        let contexts = self.read_contexts(&before, adapter);

        let members: Vec<(usize, usize)> = groups
            .iter()
            .enumerate()
            .flat_map(|(group, members)| members.iter().map(move |&row| (group, row)))
            .filter(|&(_, row)| !rows[row].continuation.is_empty())
            .collect();
        let size =
            |&(_, row): &(usize, usize)| rows[row].context.len() + rows[row].continuation.len();
        for members in chunks_within(&members, BATCH_TOKENS, size) {
            self.score_members(members, &contexts, rows, adapter, scores);
        }
        for (text, cache) in before.into_iter().zip(contexts) {
            self.0.engine.keep(Reader::new(adapter), text, cache);
        }
    }

    /// Caches that hold the given texts.
    fn read_contexts(&self, texts: &[&[u32]], adapter: Option<&PackedAdapter>) -> Vec<Cache> {
        let (engine, reader) = (&self.0.engine, Reader::new(adapter));
        let read = |texts: &[&[u32]]| {
            let recall = |text: &&[u32]| engine.recall(reader, text, text.len());
            let mut caches: Vec<Cache> = texts.iter().map(recall).collect();
            let mut rests: Vec<(&mut Cache, &[u32])> = Vec::with_capacity(texts.len());
            for (cache, text) in caches.iter_mut().zip(texts) {
                let known = cache.tokens();
                rests.push((cache, &text[known..]));
            }
            self.read_in_passes(&mut rests, adapter, None);
            caches
        };
        if let [first, others @ ..] = texts
            && let Some(common) = others.iter().map(|text| common_prefix(first, text)).min()
        {
            let common = &first[..common];
            let cache = read(&[common]).remove(0);
            engine.keep(reader, common, cache);
        }
        read(texts)
    }

    /// Scores rows `(context, row)` whose contexts were read, each in a copy of its context's cache.
    fn score_members(
        &self,
        members: &[(usize, usize)],
        contexts: &[Cache],
        rows: &[Continuation],
        adapter: Option<&PackedAdapter>,
        scores: &mut [LogLikelihood],
    ) {
        let pages = &self.0.engine.pages;
        let mut read: Vec<(Cache, Vec<u32>)> = members
            .iter()
            .map(|&(context, row)| {
                let Continuation { context: before, continuation } = &rows[row];
                let (last, known) = (&before[before.len() - 1..], continuation.len() - 1);
                let context = &contexts[context];
                let limit = before.len() + known;
                let cache = pages.fork(context, context.tokens(), limit);
                (cache, [last, &continuation[..known]].concat())
            })
            .collect();
        let mut texts: Vec<(&mut Cache, &[u32])> =
            read.iter_mut().map(|(cache, text)| (cache, text.as_slice())).collect();
        let score = &mut |x: &[f32], pieces: &[Piece]| {
            let targets = pieces.iter().flat_map(|piece| {
                let row = members[piece.text].1;
                let continuation = &rows[row].continuation[piece.offset..][..piece.tokens];
                continuation.iter().map(move |&target| (row, target))
            });
            self.score_rows(x, &targets.collect::<Vec<_>>(), scores);
        };
        self.read_in_passes(&mut texts, adapter, Some(score));
    }

    /// Reads texts of any length in passes of bounded size; `then` sees the residual stream of a
    /// pass and which pieces of which texts it holds, if anybody wants it.
    fn read_in_passes(
        &self,
        texts: &mut [(&mut Cache, &[u32])],
        adapter: Option<&PackedAdapter>,
        mut then: Option<&mut SeePass<'_>>,
    ) {
        let mut offsets = vec![0; texts.len()];
        loop {
            let mut room = PASS_TOKENS;
            let mut spans = Vec::new();
            let mut pieces = Vec::new();
            for (i, (cache, text)) in texts.iter_mut().enumerate() {
                let n = (text.len() - offsets[i]).min(room);
                if n == 0 {
                    continue;
                }
                room -= n;
                pieces.push(Piece { text: i, offset: offsets[i], tokens: n });
                let wanted = if then.is_some() { n } else { 0 };
                let tokens = &text[offsets[i]..][..n];
                spans.push(Span { cache, tokens, generated: false, wanted });
                offsets[i] += n;
            }
            if spans.is_empty() {
                return;
            }
            self.extend(&mut spans, adapter, |x| {
                if let Some(then) = &mut then {
                    then(x, &pieces);
                }
            });
        }
    }

    /// Adds to the scores of `(row, target)` what the residual stream predicts for the target.
    fn score_rows(&self, x: &[f32], targets: &[(usize, u32)], scores: &mut [LogLikelihood]) {
        let (width, vocab) = (self.config().hidden, self.config().vocab);
        let head = self.0.head.weight();
        for (x, targets) in x.chunks(LOGIT_ROWS * width).zip(targets.chunks(LOGIT_ROWS)) {
            let normed = self.normed(x);
            let tokens: Vec<u32> = targets.iter().map(|&(_, target)| target).collect();
            let mut nll = vec![0.0; targets.len()];
            linear_nll(&normed, head, &tokens, &mut nll);
            let mut logits = vec![0.0; targets.len() * vocab];
            matmul(&normed, targets.len(), head, &mut logits);
            for ((&(row, target), nll), logits) in targets.iter().zip(nll).zip(logits.chunks(vocab))
            {
                let score = &mut scores[row];
                score.sum -= f64::from(nll);
                score.tokens += 1;
                score.greedy = score.greedy && argmax(logits) == target;
            }
        }
    }
}

/// What sees the residual stream of a pass, and the pieces that it holds.
type SeePass<'a> = dyn FnMut(&[f32], &[Piece]) + 'a;

/// A part of a text that was read in one pass.
struct Piece {
    text: usize,
    offset: usize,
    tokens: usize,
}

/// Cuts `items` into runs whose sizes add up to at most `limit`, or that are a single item.
fn chunks_within<T>(
    items: &[T],
    limit: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = &[T]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let full = rest.iter().position(|item| {
            sum += size(item);
            sum > limit
        });
        let (chunk, others) = rest.split_at(full.map_or(rest.len(), |n| n.max(1)));
        rest = others;
        Some(chunk).filter(|c| !c.is_empty())
    })
}
