//! An index whose vectors are on a server: bringing the server to the state of the record, and searching through it.
//!
//! A search asks the server for candidates and compares them with the record's own vectors. The last candidate's
//! similarity, with a bound on what rounding makes of it, is more than any chunk that was not sent can have. So it
//! is known when enough was asked for, and the result of an exact server is that of segments: the same chunks, scores
//! and ties, fused or not. Threshold algorithm: Fagin, Lotem, Naor, Optimal aggregation algorithms for middleware, 2003.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::backend::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Near, VectorBackend,
};
use crate::bits::Bits;
use crate::record::{Reader, Record};
use crate::vectors::{Goal, Scored};
use crate::{Corpus, IndexError};

/// Chunks that are sent at a time, about.
const BATCH: usize = 512;
/// Documents that are removed at a time.
const REMOVED: usize = 4096;
/// Candidates that are asked for beyond those that are needed, for the sake of ties.
const MORE: usize = 16;
/// Candidates that are asked for at least: for a server it is nearly all the same.
const LEAST: usize = 100;
/// Chunks that are looked up in the record rather than asking for more candidates.
const LOOKED_UP: usize = 256;
/// Documents that a restriction names at most. Beyond, more candidates are asked for.
const NAMED: usize = 8192;
/// Of so many approximate searches one is also done exactly.
const AUDITED: u64 = 64;
/// Candidates by which recall is measured.
const RECALL_AT: usize = 10;
/// Norms of vectors, and what rounding leaves of norm 1.
const NORM: f64 = 1.02;

/// What approximate searches found of what exact ones do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recall {
    /// Searches that were done both ways.
    pub searches: u64,
    /// Chunks that both found, of the first 10 of each search.
    pub found: u64,
    /// Chunks that the exact ones found.
    pub expected: u64,
}

impl Recall {
    /// The share that was found, from 0 to 1; `None` before anything was.
    pub fn share(&self) -> Option<f64> {
        (self.expected > 0).then(|| self.found as f64 / self.expected as f64)
    }
}

/// What a server holds, against the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendCheck {
    /// Documents that it has as they are.
    pub documents: usize,
    /// Documents that it lacks, or has another version of.
    pub missing: usize,
    /// Documents that the record does not have: removed with the next ingest, and never shown.
    pub unknown: usize,
    /// Of searches with stored vectors, where searches are approximate.
    pub recall: Option<Recall>,
}

#[derive(Default)]
struct Audit {
    asked: AtomicU64,
    searches: AtomicU64,
    found: AtomicU64,
    expected: AtomicU64,
}

impl Audit {
    fn add(&self, found: usize, expected: usize) {
        self.searches.fetch_add(1, Ordering::Relaxed);
        self.found.fetch_add(found as u64, Ordering::Relaxed);
        self.expected.fetch_add(expected as u64, Ordering::Relaxed);
    }

    fn recall(&self) -> Recall {
        let [searches, found, expected] =
            [&self.searches, &self.found, &self.expected].map(|n| n.load(Ordering::Relaxed));
        Recall { searches, found, expected }
    }
}

/// The vectors of an index on a server.
pub(crate) struct Remote {
    pub(crate) backend: Arc<dyn VectorBackend>,
    collection: Collection,
    audit: Audit,
}

impl Remote {
    pub(crate) fn new(
        record: &Record,
        backend: Arc<dyn VectorBackend>,
        embedder: &str,
        dims: usize,
    ) -> Result<Self, IndexError> {
        let name = format!("assay_{}", record.identity()?);
        let collection = Collection { name, embedder: embedder.to_owned(), dims };
        Ok(Remote { backend, collection, audit: Audit::default() })
    }

    pub(crate) fn recall(&self) -> Option<Recall> {
        self.backend.is_approximate().then(|| self.audit.recall())
    }

    /// Forgets all that the server has of this index.
    pub(crate) fn clear(&self) -> Result<(), IndexError> {
        Ok(self.backend.clear(&self.collection)?)
    }

    /// Sends what the record has and the server lacks, and removes what it should not have. Told are the chunks that
    /// are sent, of how many. What was interrupted goes on where it stopped.
    ///
    /// `held` says whether the caller keeps other ingests out.
    ///
    /// # Errors
    /// [`IndexError::Busy`] if documents must be sent and another process ingests, [`BackendError::Behind`] if
    /// `tell` stopped it.
    pub(crate) fn bring_forward(
        &self,
        corpus: &Corpus,
        held: bool,
        tell: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let server = self.backend.server();
        let lock = match held {
            true => None,
            false => match corpus.lock() {
                Err(busy @ IndexError::Busy { .. }) => Some(Err(busy)),
                lock => Some(Ok(lock?)),
            },
        };
        let collection = &self.collection;
        let mark = match self.backend.open(collection) {
            // Only the record is worth anything: what it makes again is no loss.
            Err(BackendError::Mismatch { .. }) if !matches!(lock, Some(Err(_))) => {
                self.backend.clear(collection)?;
                self.backend.open(collection)?
            }
            mark => mark?,
        };
        let (wanted, sequence, changed, marks) = corpus.record.read(|r| {
            let known = r.projected(server)?.filter(|(_, known)| mark == Some(*known));
            let changed = match known {
                Some((sequence, _)) => r.changed_since(sequence)?,
                None => None,
            };
            Ok((wanted(r)?, r.sequence()?, changed, [r.new_mark()?, r.new_mark()?]))
        })?;
        if changed.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let there = self.backend.documents(collection, changed.as_deref())?;
        let (missing, gone) = difference(&wanted, changed.as_deref(), &there);
        if let Some(Err(busy)) = lock {
            // What should be gone is not shown, whether or not it is there.
            return if missing.is_empty() { Ok(()) } else { Err(busy) };
        }
        let [meanwhile, next] = marks;
        if !missing.is_empty() || !gone.is_empty() {
            // Until all is done it is no state that anyone remembers: not this record, nor an older copy of it.
            self.backend.set_mark(collection, meanwhile)?;
        }
        for gone in gone.chunks(REMOVED) {
            self.backend.remove(collection, gone)?;
        }
        self.send(corpus, &missing, tell)?;
        self.backend.set_mark(collection, next)?;
        corpus.record.set_projected(server, sequence, next)
    }

    fn send(
        &self,
        corpus: &Corpus,
        documents: &[&Wanted],
        tell: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        let total = documents.iter().map(|d| d.chunks).sum();
        let (mut done, mut first) = (0, 0);
        while first < documents.len() {
            let mut size = 0;
            let fits = documents[first..].iter().take_while(|d| {
                let fits = size < BATCH;
                size += d.chunks;
                fits
            });
            let batch = &documents[first..first + fits.count()];
            let full = batch.iter().map(|&&Wanted { id, key, .. }| {
                let (chunks, vectors) = corpus
                    .record
                    .read(|r| Ok((r.chunk_ids_of(id)?, r.vectors_of(id, self.collection.dims)?)))?;
                Ok(BackendDocument { id, key, chunks, vectors })
            });
            let mut full: Vec<BackendDocument> = full.collect::<Result<_, IndexError>>()?;
            // Those that were deleted meanwhile.
            full.retain(|document| !document.chunks.is_empty());
            self.backend.put(&self.collection, &full)?;
            first += batch.len();
            done += batch.iter().map(|d| d.chunks).sum::<usize>();
            if tell(done, total).is_break() && first < documents.len() {
                return Err(self.behind());
            }
        }
        Ok(())
    }

    /// Compares what the server has with the record, and approximate searches with exact ones, `searches` of them.
    pub(crate) fn check(
        &self,
        record: &Record,
        chunk_ids: &[i64],
        searches: usize,
    ) -> Result<BackendCheck, IndexError> {
        let wanted = record.read(wanted)?;
        let there = self.backend.documents(&self.collection, None)?;
        let (missing, gone) = difference(&wanted, None, &there);
        let mut check = BackendCheck {
            documents: wanted.len() - missing.len(),
            missing: missing.len(),
            unknown: gone.len(),
            recall: None,
        };
        if self.backend.is_approximate() {
            let audit = Audit::default();
            let apart = chunk_ids.len().div_ceil(searches.max(1)).max(1);
            for chunk in chunk_ids.iter().step_by(apart) {
                let dims = self.collection.dims;
                let Some(query) = record.read(|r| r.vector_of(*chunk, dims))? else { continue };
                let near = |exact| self.near(&query, RECALL_AT, Among::All, exact);
                compare(&audit, &near(false)?, &near(true)?);
            }
            check.recall = Some(audit.recall());
        }
        Ok(check)
    }

    pub(crate) fn behind(&self) -> IndexError {
        BackendError::Behind { server: self.backend.server().to_owned() }.into()
    }

    fn near(
        &self,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, IndexError> {
        Ok(self.backend.search(&self.collection, query, n, among, exact)?)
    }
}

/// Counts what both searches found among the first.
fn compare(audit: &Audit, found: &[Near], exact: &[Near]) {
    let first = |near: &[Near]| -> HashSet<i64> {
        near.iter().take(RECALL_AT).map(|near| near.chunk).collect()
    };
    let (found, exact) = (first(found), first(exact));
    audit.add(found.intersection(&exact).count(), exact.len());
}

/// A document that a server should hold.
struct Wanted {
    id: i64,
    key: DocumentKey,
    chunks: usize,
}

/// All of them: those with chunks.
fn wanted(r: &Reader<'_>) -> Result<Vec<Wanted>, IndexError> {
    let first = r.first_chunks()?;
    let rows = r.documents()?.into_iter();
    let wanted = rows.filter_map(|row| {
        let mut hasher = blake3::Hasher::new();
        for part in [&row.settings, &row.path, &row.content_hash] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        // Equal contents have other chunk ids after the record was restored from a backup.
        hasher.update(&first.get(&row.id)?.to_le_bytes());
        hasher.update(&(row.chunks as u64).to_le_bytes());
        let key = *hasher.finalize().as_bytes();
        Some(Wanted { id: row.id, key, chunks: row.chunks })
    });
    Ok(wanted.collect())
}

/// Documents that a server lacks, and ids of those that it should not have, of the `changed` ones or all.
fn difference<'w>(
    wanted: &'w [Wanted],
    changed: Option<&[i64]>,
    there: &HashMap<i64, DocumentKey>,
) -> (Vec<&'w Wanted>, Vec<i64>) {
    let changed: Option<HashSet<i64>> = changed.map(|ids| ids.iter().copied().collect());
    let looked_at = |id: &i64| changed.as_ref().is_none_or(|changed| changed.contains(id));
    let lacks = |document: &&Wanted| {
        looked_at(&document.id) && there.get(&document.id) != Some(&document.key)
    };
    let missing = wanted.iter().filter(lacks).collect();
    let living: HashSet<i64> = wanted.iter().map(|document| document.id).collect();
    // Also those that the server may hold in part, which it does not name.
    let known = there.keys().chain(changed.iter().flatten());
    let mut gone: Vec<i64> = known.filter(|id| !living.contains(id)).copied().collect();
    gone.sort_unstable();
    gone.dedup();
    (missing, gone)
}

/// The chunks of an index, by their ids in the record and by slots.
pub(crate) struct Places<'a> {
    /// Id of each chunk.
    pub(crate) ids: &'a [i64],
    /// Ids in ascending order, with the numbers of their chunks.
    pub(crate) numbers: &'a [(i64, u32)],
    /// Slot of each chunk.
    pub(crate) slots: &'a [u32],
    /// Chunk of each slot, which is also the order of equal scores.
    pub(crate) chunks: &'a [u32],
}

/// Which documents a search is about.
pub(crate) struct Documents {
    pub(crate) allowed: Vec<i64>,
    pub(crate) others: Vec<i64>,
}

impl Documents {
    fn among(&self) -> Among<'_> {
        if !self.others.is_empty() && self.allowed.len() <= NAMED {
            Among::Only(&self.allowed)
        } else if !self.others.is_empty() && self.others.len() <= NAMED {
            Among::Except(&self.others)
        } else {
            Among::All
        }
    }
}

/// The similarities of one query to the allowed chunks, as far as they are needed.
pub(crate) struct There<'a> {
    pub(crate) remote: &'a Remote,
    pub(crate) record: &'a Record,
    pub(crate) places: Places<'a>,
    pub(crate) documents: &'a Documents,
    /// Of slots.
    pub(crate) allowed: &'a Bits,
    pub(crate) query: &'a [f32],
    /// The most similar first, and the least similar first.
    legs: [Leg; 2],
    /// Similarities to the record's own vectors; `None` for a chunk that is gone.
    exact: HashMap<u32, Option<f32>>,
    /// What the server's rounding and ours make of a similarity at most, together.
    error: f64,
}

/// Candidates in one direction.
#[derive(Default)]
struct Leg {
    /// Slots, with similarities as the server tells them, in this direction.
    found: Vec<(u32, f64)>,
    seen: HashSet<u32>,
    /// How many were asked for.
    asked: usize,
    /// Whether there are no others.
    whole: bool,
    /// No chunk that was not found is above it.
    floor: f64,
}

impl<'a> There<'a> {
    pub(crate) fn new(
        remote: &'a Remote,
        record: &'a Record,
        places: Places<'a>,
        documents: &'a Documents,
        allowed: &'a Bits,
        query: &'a [f32],
    ) -> Self {
        let norm = query.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        // Each of two sums of n products in `f32`, in any order, is off by n · 2⁻²⁴ · |a| · |b| at most (Higham,
        // Accuracy and Stability of Numerical Algorithms, §3.1).
        let error = (query.len() + 32) as f64 / f64::from(1u32 << 23) * norm * NORM;
        let (legs, exact) = (Default::default(), HashMap::new());
        There { remote, record, places, documents, allowed, query, legs, exact, error }
    }

    /// The `k` allowed chunks with the largest scores; equal scores in order.
    pub(crate) fn best(&mut self, goal: &Goal<'_>, k: usize) -> Result<Vec<Scored>, IndexError> {
        let k = k.min(self.allowed.count());
        if k == 0 {
            return Ok(Vec::new());
        }
        let down = goal.factor < 0.0;
        let sign = if down { -1.0 } else { 1.0 };
        let mut wanted = k.saturating_add(MORE).max(LEAST);
        loop {
            self.fetch(down, wanted)?;
            let leg = &self.legs[usize::from(down)];
            let mut leaders: Vec<(u32, f64)> =
                leg.found.iter().map(|&(slot, s)| (slot, goal.score(slot, sign * s))).collect();
            leaders.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
            let leaders: Vec<u32> = leaders.iter().take(k).map(|(slot, _)| *slot).collect();
            let exact = self.scored(goal, &leaders)?;
            let bar = exact.iter().map(|s| s.score).fold(f64::INFINITY, f64::min);

            let leg = &self.legs[usize::from(down)];
            let may = |slot: u32, most: f64| {
                let most = goal.score(slot, sign * most);
                most >= bar || most.is_nan()
            };
            let near = leg.found.iter().filter(|(slot, s)| may(*slot, s + self.error));
            let mut near: Vec<u32> = near.map(|(slot, _)| *slot).collect();
            if !leg.whole {
                let unseen = |slot: &u32| !leg.seen.contains(slot);
                // Without words, or with those that help most.
                let any = goal.factor * (sign * leg.floor - goal.low);
                let more: Vec<u32> = match goal.bm25 {
                    Some(bm25) if any < bar => self
                        .allowed
                        .iter()
                        .filter(|slot| bm25[*slot as usize] > 0.0 && may(*slot, leg.floor))
                        .filter(unseen)
                        .take(LOOKED_UP + 1)
                        .collect(),
                    _ => Vec::new(),
                };
                if any >= bar || more.len() > LOOKED_UP {
                    wanted = wanted.max(leg.found.len()).saturating_mul(4);
                    continue;
                }
                near.extend(more);
            }
            let mut best = self.scored(goal, &near)?;
            best.retain(|scored| scored.score >= bar);
            let order = |scored: &Scored| self.places.chunks[scored.slot as usize];
            best.sort_unstable_by(|a, b| {
                b.score.total_cmp(&a.score).then_with(|| order(a).cmp(&order(b)))
            });
            best.truncate(k);
            return Ok(best);
        }
    }

    /// Sees to it that a leg has `wanted` allowed chunks, or all.
    fn fetch(&mut self, down: bool, wanted: usize) -> Result<(), IndexError> {
        let remote = self.remote;
        let turned: Vec<f32>;
        let query = match down {
            false => self.query,
            true => {
                turned = self.query.iter().map(|v| -v).collect();
                &turned
            }
        };
        let among = self.documents.among();
        let leg = &mut self.legs[usize::from(down)];
        let mut exact = !remote.backend.is_approximate();
        while !leg.whole && leg.found.len() < wanted {
            // More than doubled: whoever must ask again asks for much that is not allowed.
            leg.asked = (3 * leg.asked).max(wanted);
            let first = leg.found.is_empty() && leg.seen.is_empty() && !exact && !down;
            let mut near = remote.near(query, leg.asked, among, exact)?;
            if first && remote.audit.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(AUDITED) {
                let all = remote.near(query, leg.asked, among, true)?;
                compare(&remote.audit, &near, &all);
                (near, exact) = (all, true);
            }
            if near.len() < leg.asked && !exact {
                // An approximate search that comes short says nothing about what there is.
                exact = true;
                near = remote.near(query, leg.asked, among, true)?;
            }
            let last = near.iter().map(|n| f64::from(n.similarity)).fold(f64::INFINITY, f64::min);
            leg.floor = last + self.error;
            let over = near.len() < leg.asked;
            leg.found.clear();
            leg.seen.clear();
            for Near { chunk, similarity } in near {
                let Ok(place) = self.places.numbers.binary_search_by_key(&chunk, |(id, _)| *id)
                else {
                    continue;
                };
                let slot = self.places.slots[self.places.numbers[place].1 as usize];
                if self.allowed.contains(slot) && leg.seen.insert(slot) {
                    leg.found.push((slot, f64::from(similarity)));
                }
            }
            let expected = self.allowed.count();
            leg.whole = over || leg.found.len() == expected;
            if leg.found.len() < expected && over {
                return Err(BackendError::Incomplete {
                    server: remote.backend.server().to_owned(),
                    collection: remote.collection.name.clone(),
                    missing: expected - leg.found.len(),
                    expected,
                }
                .into());
            }
        }
        Ok(())
    }

    /// The scores of chunks by the record's own vectors, without chunks that are gone.
    fn scored(&mut self, goal: &Goal<'_>, slots: &[u32]) -> Result<Vec<Scored>, IndexError> {
        let (exact, places, query) = (&mut self.exact, &self.places, self.query);
        let unknown: Vec<u32> = slots.iter().filter(|s| !exact.contains_key(s)).copied().collect();
        if !unknown.is_empty() {
            self.record.read(|r| {
                for slot in unknown {
                    let id = places.ids[places.chunks[slot as usize] as usize];
                    let row = r.vector_of(id, query.len())?;
                    exact.insert(slot, row.map(|row| assay_kernels::dot(&row, query)));
                }
                Ok(())
            })?;
        }
        let scored = slots.iter().filter_map(|&slot| {
            let similarity = (*exact.get(&slot)?)?;
            Some(Scored { slot, score: goal.score(slot, f64::from(similarity)), similarity })
        });
        Ok(scored.collect())
    }
}
