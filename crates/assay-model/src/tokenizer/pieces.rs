//! SentencePiece's byte-pair encoding (Kudo and Richardson 2018) over scored pieces, as GGUF files
//! keep it.
//!
//! Spaces become U+2581, every character is a symbol, and the neighbours whose joint piece has the
//! highest score are joined until none is left; the left of two equal ones first. What is no piece
//! falls back to its bytes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use super::kind;

/// What stands for a space in pieces.
pub(super) const SPACE: char = '\u{2581}';
const SPACE_TEXT: &str = "\u{2581}";

/// Scored pieces and the texts that are taken out before them.
#[derive(Debug)]
pub(super) struct ScoredPieces {
    /// Pieces that neighbours may be joined to: id and score.
    pieces: HashMap<Box<str>, (u32, f32)>,
    /// Ids of the 256 bytes, where the vocabulary has them.
    bytes: Option<Box<[u32; 256]>>,
    unknown: Option<u32>,
    literals: Literals,
    space_prefix: bool,
}

/// Two neighbours that could be joined.
struct Pair {
    score: f32,
    left: usize,
    right: usize,
    /// Length of both together, to notice that one of them has changed since.
    len: usize,
    id: u32,
}

/// A symbol of the text: `text[start..start + len]`; of no length once joined to its left neighbour.
struct Symbol {
    start: usize,
    len: usize,
    previous: Option<usize>,
    next: Option<usize>,
    id: Option<u32>,
}

impl ScoredPieces {
    /// `space_prefix`: whether a text begins with a space of its own.
    pub(super) fn new(
        tokens: &[String],
        types: &[i64],
        scores: &[f32],
        space_prefix: bool,
    ) -> Self {
        let of = |id: usize| types.get(id).copied().unwrap_or(kind::NORMAL);
        let with = |wanted: i64| (0..tokens.len()).filter(move |&id| of(id) == wanted);
        let score = |id: usize| scores.get(id).copied().unwrap_or(0.0);
        let pieces = with(kind::NORMAL)
            .chain(with(kind::USER_DEFINED))
            .map(|id| (tokens[id].as_str().into(), (id as u32, score(id))))
            .collect();
        let byte: HashMap<&str, u32> =
            with(kind::BYTE).map(|id| (tokens[id].as_str(), id as u32)).collect();
        let bytes: Option<Vec<u32>> =
            (0..256).map(|b| byte.get(format!("<0x{b:02X}>").as_str()).copied()).collect();
        let literals = with(kind::CONTROL)
            .chain(with(kind::USER_DEFINED))
            .map(|id| (tokens[id].replace(' ', SPACE_TEXT), id as u32));
        ScoredPieces {
            pieces,
            bytes: bytes.and_then(|b| b.try_into().ok()),
            unknown: with(kind::UNKNOWN).next().map(|id| id as u32),
            literals: Literals::new(literals),
            space_prefix,
        }
    }

    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for fragment in self.literals.split(&text.replace(' ', SPACE_TEXT)) {
            match fragment {
                Fragment::Literal(id) => ids.push(id),
                Fragment::Text(text) => self.encode_text(text, &mut ids),
            }
        }
        ids
    }

    /// Encodes text without literals and with its spaces replaced.
    fn encode_text(&self, text: &str, ids: &mut Vec<u32>) {
        let prefix = if self.space_prefix { SPACE_TEXT } else { "" };
        let text = &[prefix, text].concat();
        let starts: Vec<usize> = text.char_indices().map(|(start, _)| start).collect();
        let count = starts.len();
        let mut symbols: Vec<Symbol> = (0..count)
            .map(|i| {
                let (start, end) = (starts[i], starts.get(i + 1).copied().unwrap_or(text.len()));
                Symbol {
                    start,
                    len: end - start,
                    previous: i.checked_sub(1),
                    next: Some(i + 1).filter(|&next| next < count),
                    id: self.pieces.get(&text[start..end]).map(|&(id, _)| id),
                }
            })
            .collect();
        let mut pairs = BinaryHeap::new();
        for right in 1..count {
            pairs.extend(self.pair(text, &symbols, right - 1, right));
        }
        while let Some(Pair { left, right, len, id, .. }) = pairs.pop() {
            let gone = symbols[left].len == 0 || symbols[right].len == 0;
            if gone || symbols[left].len + symbols[right].len != len {
                continue;
            }
            let next = symbols[right].next;
            symbols[right].len = 0;
            symbols[left] = Symbol { len, next, id: Some(id), ..symbols[left] };
            if let Some(next) = next {
                symbols[next].previous = Some(left);
                pairs.extend(self.pair(text, &symbols, left, next));
            }
            if let Some(previous) = symbols[left].previous {
                pairs.extend(self.pair(text, &symbols, previous, left));
            }
        }
        for symbol in symbols.iter().filter(|s| s.len > 0) {
            match symbol.id {
                Some(id) => ids.push(id),
                None => self.fall_back(&text[symbol.start..][..symbol.len], ids),
            }
        }
    }

    fn pair(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Pair> {
        let len = symbols[left].len + symbols[right].len;
        let &(id, score) = self.pieces.get(&text[symbols[left].start..][..len])?;
        Some(Pair { score, left, right, len, id })
    }

    fn fall_back(&self, symbol: &str, ids: &mut Vec<u32>) {
        match &self.bytes {
            Some(bytes) => ids.extend(symbol.bytes().map(|b| bytes[usize::from(b)])),
            None => ids.extend(self.unknown),
        }
    }
}

impl Ord for Pair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Pair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Pair {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Pair {}

/// Texts that are tokens wherever they stand.
#[derive(Debug)]
struct Literals {
    ids: HashMap<Box<str>, u32>,
    /// By first byte: the lengths of those that begin so, the longest first.
    lengths: Vec<Vec<usize>>,
}

enum Fragment<'a> {
    Literal(u32),
    Text(&'a str),
}

impl Literals {
    fn new(literals: impl Iterator<Item = (String, u32)>) -> Self {
        let mut lengths = vec![Vec::new(); 256];
        let mut ids = HashMap::new();
        for (text, id) in literals {
            let Some(&first) = text.as_bytes().first() else { continue };
            lengths[usize::from(first)].push(text.len());
            ids.insert(text.into(), id);
        }
        for lengths in &mut lengths {
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
        }
        Literals { ids, lengths }
    }

    /// Cuts `text` at literals: the leftmost first, of several the longest.
    fn split<'a>(&self, text: &'a str) -> Vec<Fragment<'a>> {
        let mut fragments = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let Some((len, id)) = self.at(&text[at..]) else {
                at += text[at..].chars().next().map_or(1, char::len_utf8);
                continue;
            };
            fragments.extend(Some(Fragment::Text(&text[start..at])).filter(|_| start < at));
            fragments.push(Fragment::Literal(id));
            at += len;
            start = at;
        }
        fragments.extend(Some(Fragment::Text(&text[start..])).filter(|_| start < text.len()));
        fragments
    }

    /// The longest literal that `text` begins with: length and id.
    fn at(&self, text: &str) -> Option<(usize, u32)> {
        let lengths = &self.lengths[usize::from(*text.as_bytes().first()?)];
        lengths.iter().find_map(|&len| Some((len, *self.ids.get(text.get(..len)?)?)))
    }
}
