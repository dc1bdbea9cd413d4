//! BM25 and vectors over the living documents: which segments there are, and what a search makes of them.
//!
//! A segment holds some documents, each named by its id in the record and everything that its chunks and vectors
//! follow from. On opening, the record says which of them live. Documents that no segment has go into a new one,
//! together with those of segments that are mostly dead or not much larger; so there are few segments,
//! a document is written again a few times at most while the index grows around it, and adding one to many is
//! cheap. Files that are damaged, or made by another version, are ignored and replaced.
//!
//! To the outside chunks are numbered by path and position, which is also the order of equal scores. Within,
//! they stand in slots: those of a segment follow each other, padded to whole words of [`Bits`].

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use assay_kernels::SCAN_ROWS;
use fs_err as fs;

use crate::analysis::{self, Language};
use crate::bits::Bits;
use crate::fusion;
use crate::lexical::{Lexical, Terms};
use crate::record::Record;
use crate::remote::{Documents, Places, Remote, There};
use crate::segment::{Document, Section, Segment, SegmentWriter};
use crate::vectors::{Codes, Goal, Scored, Similarities};
use crate::{Bm25, IndexError, SearchMode};

/// A segment is rewritten with new chunks unless it has more than so many times as many.
const GROWTH: usize = 3;
/// Chunks of a segment at most.
const LARGEST: usize = 1 << 20;
/// Chunks that are analysed and coded together; whole words of [`Bits`].
const BATCH: usize = 64 * SCAN_ROWS;
/// Batches that may wait at a time.
const WAITING: usize = 16;
/// Positions of a leg that a hit is told.
const RANKED: usize = 10;

/// A document as the record has it.
pub(crate) struct Source<'a> {
    pub(crate) id: i64,
    pub(crate) path: &'a str,
    pub(crate) content_hash: &'a str,
    pub(crate) chunks: usize,
}

/// What the chunks of a document are searched by.
pub(crate) struct Content {
    /// What BM25 reads of each.
    pub(crate) texts: Vec<String>,
    /// Their vectors, one after the other; none where a server holds them.
    pub(crate) vectors: Vec<f32>,
}

/// What decides the projections besides the documents.
pub(crate) struct Settings<'a> {
    /// Names everything that chunks and vectors follow from, but for the document.
    pub(crate) key: &'a str,
    /// Values of a vector; 0 where a server holds the vectors.
    pub(crate) dims: usize,
    pub(crate) bm25: Bm25,
}

/// A segment with its place among all slots.
pub(crate) struct Placed {
    pub(crate) segment: Arc<Segment>,
    /// Its first slot, a multiple of [`SCAN_ROWS`].
    pub(crate) first: u32,
    /// Whether all its chunks live.
    pub(crate) whole: bool,
}

impl Placed {
    /// Words of a set of slots for blocks of this segment.
    pub(crate) fn words<'b>(&self, bits: &'b Bits, blocks: &Range<usize>) -> &'b [u64] {
        let first = self.first as usize / SCAN_ROWS;
        &bits.words()[first + blocks.start..first + blocks.end]
    }
}

/// The living documents, ready to be searched.
pub(crate) struct Projections {
    segments: Vec<Placed>,
    /// Of each chunk.
    slots: Vec<u32>,
    /// Whether that is its own number.
    in_place: bool,
    /// Of each slot, its chunk; [`u32::MAX`] where none lives.
    chunks: Vec<u32>,
    live: Bits,
    lexical: Lexical,
}

/// Where a server is asked for vectors.
pub(crate) struct Elsewhere<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) record: &'a Record,
    /// Ids of the chunks in the record.
    pub(crate) ids: &'a [i64],
    /// The same in ascending order, with the numbers of their chunks.
    pub(crate) numbers: &'a [(i64, u32)],
    /// The documents of the allowed chunks.
    pub(crate) documents: &'a Documents,
}

/// The similarities of a query, from segments or from a server.
enum Nearest<'a> {
    Here(Similarities<'a>),
    There(There<'a>),
}

impl Nearest<'_> {
    /// The `k` allowed chunks with the largest scores; equal scores in order.
    fn best(&mut self, goal: &Goal<'_>, k: usize) -> Result<Vec<Scored>, IndexError> {
        match self {
            Nearest::Here(similarities) => Ok(similarities.best(goal, k)),
            Nearest::There(there) => there.best(goal, k),
        }
    }
}

/// A chunk that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) chunk: u32,
    pub(crate) score: f64,
    /// Its position in a leg from 1, if it is among the first [`RANKED`] there.
    pub(crate) bm25_rank: Option<usize>,
    pub(crate) vector_rank: Option<usize>,
}

impl Projections {
    /// Opens the segments in `dir`, but for those that `before` has open, and makes those that are missing from
    /// what `content` gives. Documents come by path.
    pub(crate) fn open(
        dir: &Path,
        before: Option<&Projections>,
        settings: &Settings<'_>,
        documents: &[Source<'_>],
        content: &dyn Fn(&Source<'_>) -> Result<Content, IndexError>,
    ) -> Result<Self, IndexError> {
        fs::create_dir_all(dir)?;
        let keys: Vec<[u8; 32]> = documents.iter().map(|d| document_key(settings.key, d)).collect();
        let files = files(dir)?;
        let open = before.map_or(&[][..], |b| &b.segments);
        let segment = |path: &PathBuf| match open.iter().find(|p| p.segment.path() == path) {
            Some(placed) => Some(placed.segment.clone()),
            None => Segment::open(path, Some(settings.dims)).map(Arc::new),
        };
        let mut held = Held::new(files.iter().filter_map(segment), documents, &keys);
        let missing = held.take_missing(documents);
        for part in parts(&missing, documents) {
            let path = dir.join(format!("{}.seg", segment_name(part, &keys)));
            let sources: Vec<_> = part.iter().map(|&n| (&documents[n], keys[n])).collect();
            write(&path, settings.dims, &sources, content)?;
            let segment =
                Segment::open(&path, Some(settings.dims)).ok_or_else(|| IndexError::Damaged {
                    path: path.clone(),
                    what: "a file that was just written cannot be read back".into(),
                })?;
            held.segments.push(Arc::new(segment));
        }
        for path in files {
            if !held.segments.iter().any(|s| s.path() == path) {
                // Another process may be removing it too; a file that stays is looked at again next time.
                let _ = fs::remove_file(&path);
            }
        }
        Self::place(dir, held.segments, settings, documents, &keys)
    }

    fn place(
        dir: &Path,
        mut segments: Vec<Arc<Segment>>,
        settings: &Settings<'_>,
        documents: &[Source<'_>],
        keys: &[[u8; 32]],
    ) -> Result<Self, IndexError> {
        segments.sort_by(|a, b| b.chunks().cmp(&a.chunks()).then_with(|| a.path().cmp(b.path())));
        let total: usize = segments.iter().map(|s| s.slots()).sum();
        let owners = owners(&segments, documents, keys);
        let mut firsts = Vec::new();
        let mut first = 0;
        for segment in &segments {
            firsts.push(first as u32);
            first += segment.slots();
        }
        let (mut slots, mut chunks, mut live) =
            (Vec::new(), vec![u32::MAX; total], Bits::none(total));
        let mut languages = BTreeMap::new();
        let mut living = vec![0; segments.len()];
        for owner in owners {
            let Some(Owner { segment, first, document }) = owner else {
                let what = "a document is in no segment".into();
                return Err(IndexError::Damaged { path: dir.to_owned(), what });
            };
            let Document { chunks: n, language, .. } = segments[segment].documents()[document];
            if let Some(language) = Language::from_code(language) {
                *languages.entry(language).or_default() += u64::from(n);
            }
            living[segment] += n as usize;
            for slot in firsts[segment] + first..firsts[segment] + first + n {
                chunks[slot as usize] = slots.len() as u32;
                slots.push(slot);
                live.set(slot);
            }
        }
        let placed = segments.into_iter().zip(firsts).zip(living);
        let segments: Vec<Placed> = placed
            .map(|((segment, first), living)| Placed {
                whole: living == segment.chunks(),
                segment,
                first,
            })
            .collect();
        let lexical = Lexical::new(&segments, &live, languages, settings.bm25);
        let in_place = slots.iter().zip(0..).all(|(slot, chunk)| *slot == chunk);
        Ok(Projections { segments, slots, in_place, chunks, live, lexical })
    }

    /// The `k` best of the `allowed` chunks, best first; equal scores in the order of the chunks. Without a vector
    /// only [`SearchMode::Bm25`] finds anything.
    pub(crate) fn search(
        &self,
        query: &str,
        vector: Option<&[f32]>,
        mode: SearchMode,
        k: usize,
        allowed: &Bits,
        elsewhere: Option<&Elsewhere<'_>>,
    ) -> Result<Vec<Found>, IndexError> {
        let allowed = &*self.slots_of(allowed);
        let k = k.min(allowed.count());
        if k == 0 {
            return Ok(Vec::new());
        }
        let bm25 = match mode {
            SearchMode::Vector => None,
            _ => self.lexical.scores(&self.segments, &self.live, allowed, query),
        };
        let bm25 = bm25.as_deref();
        let words = |n| bm25.map_or_else(Vec::new, |scores| self.best(scores, n));
        let vector = vector.filter(|_| mode != SearchMode::Bm25);
        let mut nearest = vector.map(|v| self.nearest(v, allowed, elsewhere));
        let mut near = |n| nearest.as_mut().map_or(Ok(Vec::new()), |s| s.best(&Goal::SIMILAR, n));

        let ranked = if mode == SearchMode::Reciprocal { fusion::RECIPROCAL_DEPTH } else { RANKED };
        let by_words = words(ranked.max(if mode == SearchMode::Bm25 { k } else { 0 }));
        let by_vector = near(ranked.max(if mode == SearchMode::Vector { k } else { 0 }))?;
        let mut found: Vec<(u32, f64)> = match (mode, &mut nearest) {
            (SearchMode::Bm25, _) => {
                by_words.iter().map(|&(slot, s)| (slot, f64::from(s))).collect()
            }
            (SearchMode::Vector, _) => by_vector.iter().map(|s| (s.slot, s.score)).collect(),
            (SearchMode::Hybrid, None) => Vec::new(),
            (SearchMode::Hybrid, Some(nearest)) => {
                let top = by_words.first().map_or(0.0, |&(_, score)| score);
                let high = by_vector.first().map_or(0.0, |s| s.similarity);
                let low = nearest.best(&Goal::DISTANT, 1)?.first().map_or(0.0, |s| s.similarity);
                let goal = fusion::normalised(bm25, top, low, high);
                nearest.best(&goal, k)?.into_iter().map(|s| (s.slot, s.score)).collect()
            }
            (SearchMode::Reciprocal, _) => {
                let near: Vec<u32> = by_vector.iter().map(|s| s.slot).collect();
                let words: Vec<u32> = by_words.iter().map(|s| s.0).collect();
                let mut fused = fusion::reciprocal([&words, &near]);
                fused.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| self.in_order(a.0, b.0)));
                fused
            }
        };
        found.truncate(k);
        let rank = |place: Option<usize>| place.map(|n| n + 1).filter(|n| *n <= RANKED);
        let found = found.into_iter().map(|(slot, score)| Found {
            chunk: self.chunks[slot as usize],
            score,
            bm25_rank: rank(by_words.iter().position(|s| s.0 == slot)),
            vector_rank: rank(by_vector.iter().position(|s| s.slot == slot)),
        });
        Ok(found.collect())
    }

    fn nearest<'a>(
        &'a self,
        vector: &'a [f32],
        allowed: &'a Bits,
        elsewhere: Option<&Elsewhere<'a>>,
    ) -> Nearest<'a> {
        let Some(e) = elsewhere else {
            return Nearest::Here(Similarities::new(&self.segments, &self.chunks, allowed, vector));
        };
        let places =
            Places { ids: e.ids, numbers: e.numbers, slots: &self.slots, chunks: &self.chunks };
        Nearest::There(There::new(e.remote, e.record, places, e.documents, allowed, vector))
    }

    fn in_order(&self, a: u32, b: u32) -> Ordering {
        self.chunks[a as usize].cmp(&self.chunks[b as usize])
    }

    /// Slots of living chunks of a set of chunks.
    fn slots_of(&self, chunks: &Bits) -> Cow<'_, Bits> {
        if chunks.count() == self.slots.len() {
            return Cow::Borrowed(&self.live);
        }
        if self.in_place {
            let mut slots = chunks.extended(self.live.len());
            slots.and_with(&self.live);
            return Cow::Owned(slots);
        }
        let mut slots = Bits::none(self.live.len());
        chunks.iter().for_each(|chunk| slots.set(self.slots[chunk as usize]));
        Cow::Owned(slots)
    }

    /// The `n` slots with the largest scores above 0, best first.
    fn best(&self, scores: &[f32], n: usize) -> Vec<(u32, f32)> {
        let order = |a: &(u32, f32), b: &(u32, f32)| {
            b.1.total_cmp(&a.1).then_with(|| self.in_order(a.0, b.0))
        };
        let mut best: Vec<(u32, f32)> = Vec::new();
        let mut bar = f32::MIN_POSITIVE;
        for (block, first) in scores.chunks_exact(SCAN_ROWS).zip((0..).step_by(SCAN_ROWS)) {
            if !block.iter().fold(false, |any, score| any | (*score >= bar)) {
                continue;
            }
            let above = (first..).zip(block).filter(|(_, score)| **score >= bar);
            best.extend(above.map(|(slot, score)| (slot, *score)));
            if best.len() / 2 >= n {
                best.select_nth_unstable_by(n - 1, order);
                best.truncate(n);
                bar = best[n - 1].1;
            }
        }
        best.sort_unstable_by(order);
        best.truncate(n);
        best
    }
}

/// Where a document stands.
#[derive(Clone, Copy)]
struct Owner {
    segment: usize,
    /// Its first chunk there.
    first: u32,
    /// Its place in the segment's table.
    document: usize,
}

/// Of each document the first segment that has it.
fn owners(
    segments: &[Arc<Segment>],
    documents: &[Source<'_>],
    keys: &[[u8; 32]],
) -> Vec<Option<Owner>> {
    let numbers: HashMap<i64, usize> = documents.iter().zip(0..).map(|(d, n)| (d.id, n)).collect();
    let mut owners = vec![None; documents.len()];
    for (number, segment) in segments.iter().enumerate() {
        let mut first = 0;
        for (place, d) in segment.documents().iter().enumerate() {
            let own = numbers
                .get(&d.id)
                .filter(|&&n| keys[n] == d.key && documents[n].chunks == d.chunks as usize);
            if let Some(&n) = own {
                owners[n].get_or_insert(Owner { segment: number, first, document: place });
            }
            first += d.chunks;
        }
    }
    owners
}

/// The segments that stay, and the documents that they have.
struct Held {
    segments: Vec<Arc<Segment>>,
    owners: Vec<Option<Owner>>,
}

impl Held {
    fn new(
        segments: impl Iterator<Item = Arc<Segment>>,
        documents: &[Source<'_>],
        keys: &[[u8; 32]],
    ) -> Self {
        let segments: Vec<Arc<Segment>> = segments.collect();
        let owners = owners(&segments, documents, keys);
        Held { segments, owners }
    }

    /// Documents for new segments, by path. Forgets the segments that they replace.
    fn take_missing(&mut self, documents: &[Source<'_>]) -> Vec<usize> {
        let mut living = vec![0; self.segments.len()];
        let mut size = 0;
        for (owner, document) in self.owners.iter().zip(documents) {
            match owner {
                Some(owner) => living[owner.segment] += document.chunks,
                None => size += document.chunks,
            }
        }
        let mut stays = vec![true; living.len()];
        for (n, segment) in self.segments.iter().enumerate() {
            if 2 * living[n] < segment.chunks() || living[n] == 0 {
                stays[n] = false;
                size += living[n];
            }
        }
        let mut by_size: Vec<usize> = (0..living.len()).filter(|&n| stays[n]).collect();
        by_size.sort_by_key(|&n| living[n]);
        for n in by_size {
            if size > 0 && living[n] <= GROWTH * size && living[n] + size <= LARGEST {
                stays[n] = false;
                size += living[n];
            }
        }
        let written = |owner: &Option<Owner>| owner.is_none_or(|o| !stays[o.segment]);
        let missing = (0..documents.len()).filter(|&n| written(&self.owners[n])).collect();
        let mut keep = stays.into_iter();
        self.segments.retain(|_| keep.next().unwrap_or(false));
        missing
    }
}

/// Runs of documents that fit in a segment each.
fn parts<'m>(missing: &'m [usize], documents: &[Source<'_>]) -> Vec<&'m [usize]> {
    let mut parts = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (i, &n) in missing.iter().enumerate() {
        if size > 0 && size + documents[n].chunks > LARGEST {
            parts.push(&missing[start..i]);
            (start, size) = (i, 0);
        }
        size += documents[n].chunks;
    }
    if start < missing.len() {
        parts.push(&missing[start..]);
    }
    parts
}

fn document_key(settings: &str, document: &Source<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&analysis::VERSION.to_le_bytes());
    for part in [settings, document.path, document.content_hash] {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    *hasher.finalize().as_bytes()
}

fn segment_name(documents: &[usize], keys: &[[u8; 32]]) -> String {
    let mut hasher = blake3::Hasher::new();
    documents.iter().for_each(|&n| {
        hasher.update(&keys[n]);
    });
    hasher.finalize().to_hex()[..32].to_owned()
}

/// Segment files, by name. What a killed process left half made is removed.
pub(crate) fn files(dir: &Path) -> Result<Vec<PathBuf>, IndexError> {
    let mut files = Vec::new();
    if !dir.is_dir() {
        return Ok(files);
    }
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("seg") => files.push(path),
            Some("tmp") if !is_recent(&path) => {
                let _ = fs::remove_file(&path);
            }
            _ => {}
        }
    }
    files.sort();
    Ok(files)
}

/// Whether another process may still be writing a file.
fn is_recent(path: &Path) -> bool {
    let age = fs::metadata(path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
    age.is_none_or(|age| age.as_secs() < 3600)
}

/// Some chunks of a segment that wait to be analysed and coded.
#[derive(Default)]
struct Batch {
    first: u32,
    texts: Vec<(Language, String)>,
    vectors: Vec<f32>,
}

fn write(
    path: &Path,
    dims: usize,
    documents: &[(&Source<'_>, [u8; 32])],
    content: &dyn Fn(&Source<'_>) -> Result<Content, IndexError>,
) -> Result<(), IndexError> {
    let mut writer = SegmentWriter::create(path)?;
    let done: Mutex<Vec<(u32, Terms, Codes)>> = Mutex::default();
    let finish = |batch: Batch| {
        let terms = Terms::of(batch.first, batch.texts.iter().map(|(l, t)| (*l, t.as_str())));
        let codes = Codes::of(&batch.vectors, dims);
        done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((
            batch.first,
            terms,
            codes,
        ));
    };
    let mut entries = Vec::with_capacity(documents.len());
    let mut batch = Batch::default();
    let mut documents = documents.iter();
    let mut over = false;
    while !over {
        // Reading is for one thread; the others work on what was read, but never far behind.
        rayon::in_place_scope(|scope| -> Result<(), IndexError> {
            for _ in 0..WAITING {
                while batch.texts.len() < BATCH {
                    let Some((source, key)) = documents.next() else {
                        over = true;
                        break;
                    };
                    let Content { texts, vectors } = content(source)?;
                    let language = Language::detect(texts.iter().map(String::as_str));
                    let (id, chunks) = (source.id, texts.len() as u32);
                    entries.push(Document { id, key: *key, chunks, language: language.to_code() });
                    writer.write(Section::Rows, &vectors)?;
                    batch.vectors.extend(vectors);
                    batch.texts.extend(texts.into_iter().map(|text| (language, text)));
                }
                // Whole blocks, but for the last batch.
                let whole = if over {
                    batch.texts.len()
                } else {
                    batch.texts.len() / SCAN_ROWS * SCAN_ROWS
                };
                let rest = Batch {
                    first: batch.first + whole as u32,
                    texts: batch.texts.split_off(whole),
                    vectors: batch.vectors.split_off(whole * dims),
                };
                let full = std::mem::replace(&mut batch, rest);
                let finish = &finish;
                scope.spawn(move |_| finish(full));
                if over {
                    break;
                }
            }
            Ok(())
        })?;
    }
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_by_key(|(first, ..)| *first);
    let chunks = entries.iter().map(|d| d.chunks as usize).sum();
    let (mut terms, mut codes) = (Vec::new(), Vec::new());
    for (_, t, c) in done {
        terms.push(t);
        codes.push(c);
    }
    writer.write(Section::Documents, &entries)?;
    let norms = Codes::write(&codes, &mut writer)?;
    Terms::write(&terms, &mut writer)?;
    writer.finish(dims, chunks, norms)?;
    Ok(())
}

#[cfg(test)]
mod tests;
