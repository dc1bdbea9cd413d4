//! Prompts whose keys and values are kept, so that another text with the same beginning need not
//! read it again.

use super::cache::{Cache, Pages};
use crate::adapter::PackedAdapter;

/// What computed keys and values: the base model, or one state of one adapter's values. The base's
/// weights never change, so what was computed stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader(Option<u64>);

impl Reader {
    pub(super) fn new(adapter: Option<&PackedAdapter>) -> Self {
        Reader(adapter.map(|a| a.id))
    }
}

/// Prompts that were read, the least recently used one first. Prompts with a common beginning share
/// its pages, so that a list is as frugal as a tree, and short enough to be searched from end to end.
#[derive(Debug, Default)]
pub(super) struct Prefixes(Vec<Prompt>);

#[derive(Debug)]
struct Prompt {
    reader: Reader,
    /// Of a prompt alone: what a model said itself is computed with other roundings than the same text
    /// when it is read.
    tokens: Vec<u32>,
    cache: Cache,
}

impl Prefixes {
    /// The cache with the longest beginning of `tokens`, and the length of that beginning.
    pub(super) fn find(&mut self, reader: Reader, tokens: &[u32]) -> Option<(&Cache, usize)> {
        let readable = self.0.iter().enumerate().filter(|(_, p)| p.reader == reader);
        let (best, len) = readable
            .map(|(i, p)| (i, common_prefix(&p.tokens, tokens)))
            .filter(|&(_, len)| len > 0)
            .max_by_key(|&(_, len)| len)?;
        let prompt = self.0.remove(best);
        self.0.push(prompt);
        self.0.last().map(|p| (&p.cache, len))
    }

    /// Keeps what was read of `tokens`, instead of all that is a beginning of it.
    pub(super) fn keep(&mut self, reader: Reader, tokens: &[u32], mut cache: Cache) {
        cache.truncate(tokens.len());
        let tokens = &tokens[..cache.tokens()];
        let mut others = self.0.iter().filter(|p| p.reader == reader);
        if tokens.is_empty() || others.any(|p| p.tokens.starts_with(tokens)) {
            return;
        }
        self.0.retain(|p| p.reader != reader || !tokens.starts_with(&p.tokens));
        self.0.push(Prompt { reader, tokens: tokens.to_vec(), cache });
    }

    /// Forgets prompts, the least recently used ones first, until all pages have room for at most
    /// `limit` tokens or nothing more can be given back.
    pub(super) fn shrink(&mut self, pages: &Pages, limit: usize) {
        while pages.room() > limit {
            let Some(oldest) = self.0.iter().position(|p| p.cache.owns_pages()) else { return };
            self.0.remove(oldest);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Number of tokens with which both texts begin.
pub(super) fn common_prefix(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
