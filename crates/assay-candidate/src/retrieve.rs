//! How chunks are found, for training rows, evaluation, serving and `assay search` alike: the query may be written anew,
//! the index ranks, a cross-encoder may order the best anew, repetitions may be moved behind, and what was found is
//! looked up again before it is returned.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use assay_index::{Hit, Index, Query, SearchResult, Viewer};
use assay_model::CrossEncoder;

use crate::mmr::mmr;
use crate::rewrite::{Rewriter, Written};
use crate::spec::{Refinement, Rewrite, Source};
use crate::{CandidateError, headings};

/// Chunks that are looked at where the order of the best is to change.
const POOL: usize = 50;
/// Of reciprocal ranks (Cormack, Clarke and Büttcher, SIGIR 2009).
const RECIPROCAL_K: f64 = 60.0;
/// How often a search begins again because something that it found is gone.
const TRIES: usize = 4;

/// An index with the models that refine what it finds. Cheap to clone.
#[derive(Clone)]
pub struct Searcher {
    index: Arc<Index>,
    reranker: Option<Arc<CrossEncoder>>,
    rewriter: Option<Arc<Rewriter>>,
}

impl Searcher {
    /// Without models: what the index finds, and no more.
    pub fn new(index: Arc<Index>) -> Self {
        Searcher { index, reranker: None, rewriter: None }
    }

    /// The same with a reranker.
    ///
    /// # Errors
    /// [`CandidateError::RerankerLabels`] for a cross-encoder that gives a pair more than one score.
    pub fn with_reranker(self, reranker: Arc<CrossEncoder>) -> Result<Self, CandidateError> {
        match reranker.labels() {
            1 => Ok(Searcher { reranker: Some(reranker), ..self }),
            labels => Err(CandidateError::RerankerLabels { labels }),
        }
    }

    /// The same with a model that writes queries anew.
    #[must_use]
    pub fn with_rewriter(self, rewriter: Arc<Rewriter>) -> Self {
        Searcher { rewriter: Some(rewriter), ..self }
    }

    /// What is searched.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// The model that writes queries anew.
    pub fn rewriter(&self) -> Option<&Rewriter> {
        self.rewriter.as_deref()
    }

    /// Whether the models that `refine` needs are here.
    pub fn can(&self, refine: &Refinement) -> bool {
        let reranks = refine.rerank.as_ref().is_none_or(|wanted| {
            self.reranker.as_ref().is_some_and(|here| here.hash() == wanted.model)
        });
        reranks && (refine.rewrite.is_none() || self.rewriter.is_some())
    }

    /// The best chunks for a query, as [`Index::search`], refined. Scores are comparable within one search only.
    ///
    /// # Errors
    /// Those of [`Index::search`] and of the models. A query that could not be written anew is no error but searched for
    /// as it is, and counted by the [`Rewriter`].
    pub fn search(
        &self,
        refine: &Refinement,
        query: &Query<'_>,
    ) -> Result<SearchResult, CandidateError> {
        let written = self.write(refine, &[query.text])?.pop().flatten();
        self.search_written(refine, query, written.as_ref())
    }

    /// What is written for each of the queries before they are searched for; `None` where nothing is, or could be.
    ///
    /// # Errors
    /// As [`Rewriter::write`].
    pub fn write(
        &self,
        refine: &Refinement,
        queries: &[&str],
    ) -> Result<Vec<Option<Written>>, CandidateError> {
        match (&refine.rewrite, &self.rewriter) {
            (Some(how), Some(rewriter)) => rewriter.write(how, queries),
            (Some(_), None) => Err(CandidateError::Parts {
                name: "search".to_owned(),
                part: "model that writes queries anew",
            }),
            (None, _) => Ok(vec![None; queries.len()]),
        }
    }

    /// [`Searcher::search`] with what was [written](Self::write) for the query. The time of writing is not in the
    /// result's.
    ///
    /// # Errors
    /// As [`Searcher::search`].
    pub fn search_written(
        &self,
        refine: &Refinement,
        query: &Query<'_>,
        written: Option<&Written>,
    ) -> Result<SearchResult, CandidateError> {
        if *refine == Refinement::default() {
            return Ok(self.index.search(query)?);
        }
        let mut tries = 0;
        loop {
            let began = Instant::now();
            let mut found = self.ranked(refine, query, written)?;
            self.reorder(refine, query.text, &mut found.hits)?;
            found.hits.truncate(query.k);
            let still = self.index.still_found(&found.hits, query)?;
            tries += 1;
            if still.contains(&false) && tries < TRIES {
                // What stands behind what is gone is found by searching again.
                continue;
            }
            let mut still = still.into_iter();
            found.hits.retain(|_| still.next().unwrap_or(false));
            found.search_ms = began.elapsed().as_secs_f64() * 1e3 - found.embed_ms;
            return Ok(found);
        }
    }

    /// What the index finds for the query and what was written for it, as deep as the refinement looks.
    fn ranked(
        &self,
        refine: &Refinement,
        query: &Query<'_>,
        written: Option<&Written>,
    ) -> Result<SearchResult, CandidateError> {
        let mut depth = query.k;
        if let Some(rerank) = &refine.rerank {
            depth = depth.max(rerank.depth);
        } else if refine.mmr.is_some() {
            depth = depth.max(POOL);
        }
        // Nothing was asked for, or there is nothing to ask.
        if query.k == 0 {
            return Ok(self.index.search(query)?);
        }
        let query = Query { k: depth, ..*query };
        match (&refine.rewrite, written) {
            (Some(Rewrite::Hyde), Some(Written { texts, .. })) => {
                let (own, truncated) = self.index.embed_query(query.text)?;
                let mut vectors = vec![own];
                for text in texts {
                    vectors.push(self.index.embed_passage(text)?);
                }
                let vector = mean(&vectors);
                let found = self.index.search(&Query { vector: Some(&vector), ..query })?;
                Ok(SearchResult { truncated, ..found })
            }
            (Some(Rewrite::MultiQuery { .. }), Some(Written { texts, .. })) => {
                let deep = Query { k: depth.max(POOL), ..query };
                let mut found = self.index.search(&deep)?;
                let mut lists = vec![std::mem::take(&mut found.hits)];
                for text in texts {
                    let other = self.index.search(&Query { text, ..deep })?;
                    found.embed_ms += other.embed_ms;
                    lists.push(other.hits);
                }
                found.hits = by_reciprocal_ranks(lists);
                found.hits.truncate(depth);
                Ok(found)
            }
            (Some(_), None) | (None, _) => Ok(self.index.search(&query)?),
        }
    }

    /// Reranks, then moves repetitions behind. With a reranker both concern the chunks that it reads; the others stay
    /// behind them in their order.
    fn reorder(
        &self,
        refine: &Refinement,
        text: &str,
        hits: &mut Vec<Hit>,
    ) -> Result<(), CandidateError> {
        let head = refine.rerank.as_ref().map_or(hits.len(), |r| r.depth.min(hits.len()));
        let mut tail = hits.split_off(head);
        if refine.rerank.is_some() {
            let Some(reranker) = &self.reranker else {
                return Err(CandidateError::Parts { name: "search".to_owned(), part: "reranker" });
            };
            let texts: Vec<&str> = hits.iter().map(|hit| hit.text.as_str()).collect();
            let scores = reranker.score(text, &texts)?;
            if let Some(n) = scores.iter().position(|s| !s.is_finite()) {
                return Err(CandidateError::RerankerScore { document: hits[n].document.clone() });
            }
            hits.iter_mut().zip(scores).for_each(|(hit, score)| hit.score = f64::from(score));
            hits.sort_by(in_order);
        }
        if let Some(lambda) = refine.mmr {
            diversify(hits, &self.index.vectors(hits)?, lambda);
        }
        let low = hits.last().map_or(0.0, |hit| hit.score);
        tail.iter_mut().zip(1..).for_each(|(hit, n)| hit.score = low - f64::from(n));
        hits.append(&mut tail);
        Ok(())
    }

    /// The sources with their neighbours in their documents, as long as the whole fits: first those directly before and
    /// behind each source, the best source first, then those next to them, up to `n` on each side, within the section
    /// (the same headings). What is refused is left out, and nothing behind it on that side is tried.
    ///
    /// What is added stands behind the given sources: [`join_adjacent`](crate::join_adjacent) puts it in its place.
    ///
    /// # Errors
    /// When the index fails, and those of `fits`.
    pub fn widen<E: From<CandidateError>>(
        &self,
        sources: Vec<Source>,
        n: usize,
        viewer: Viewer<'_>,
        fits: &mut dyn FnMut(&[Source]) -> Result<bool, E>,
    ) -> Result<Vec<Source>, E> {
        if n == 0 {
            return Ok(sources);
        }
        let mut chunks: HashMap<String, Vec<Hit>> = HashMap::new();
        for source in &sources {
            if !chunks.contains_key(&source.document) {
                let found = self.index.chunks(&source.document, viewer);
                let found = found.map_err(CandidateError::from)?;
                chunks.insert(source.document.clone(), found);
            }
        }
        let given = sources.len();
        let mut widened = sources;
        let mut open = vec![[true; 2]; given];
        for distance in 1..=n {
            for i in 0..given {
                for (side, open) in open[i].iter_mut().enumerate() {
                    let own = &widened[i];
                    let all = &chunks[&own.document];
                    let Some(at) = all.iter().position(|c| c.span.start == own.start) else {
                        continue;
                    };
                    let next = match side {
                        0 => at.checked_sub(distance),
                        _ => Some(at + distance),
                    };
                    let next = next.and_then(|next| all.get(next));
                    let Some(next) =
                        next.filter(|c| *open && c.heading_path == all[at].heading_path)
                    else {
                        *open = false;
                        continue;
                    };
                    let is_next =
                        |s: &Source| s.document == next.document && s.start == next.span.start;
                    if widened.iter().any(is_next) {
                        continue;
                    }
                    widened.push(source(next.clone()));
                    if !fits(&widened)? {
                        widened.pop();
                        *open = false;
                    }
                }
            }
        }
        Ok(widened)
    }
}

/// A chunk as a source of a prompt.
pub(crate) fn source(hit: Hit) -> Source {
    Source {
        document: hit.document,
        start: hit.span.start,
        headings: headings(hit.title.as_deref(), &hit.heading_path),
        text: hit.text,
    }
}

/// Best first; equal scores by path, then position.
fn in_order(a: &Hit, b: &Hit) -> Ordering {
    let place = |hit: &Hit| (hit.document.clone(), hit.span.start);
    b.score.total_cmp(&a.score).then_with(|| place(a).cmp(&place(b)))
}

/// One ranking of several. A chunk that one of them does not have gets nothing from it.
fn by_reciprocal_ranks(lists: Vec<Vec<Hit>>) -> Vec<Hit> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut fused: Vec<Hit> = Vec::new();
    for list in lists {
        for (rank, hit) in (1..).zip(list) {
            let share = 1.0 / (RECIPROCAL_K + f64::from(rank));
            match places.get(&hit.chunk_id) {
                Some(&n) => fused[n].score += share,
                None => {
                    places.insert(hit.chunk_id.clone(), fused.len());
                    fused.push(Hit { score: share, ..hit });
                }
            }
        }
    }
    fused.sort_by(in_order);
    fused
}

/// Orders hits by [`mmr`] over their vectors; those that have none any more are dropped.
fn diversify(hits: &mut Vec<Hit>, vectors: &[Option<Vec<f32>>], lambda: f64) {
    let mut there = vectors.iter().map(Option::is_some);
    hits.retain(|_| there.next().unwrap_or(false));
    let vectors: Vec<&Vec<f32>> = vectors.iter().flatten().collect();
    let relevance: Vec<f64> = hits.iter().map(|hit| hit.score).collect();
    let similarity = |a: usize, b: usize| {
        vectors[a].iter().zip(vectors[b]).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum()
    };
    let taken = mmr(&relevance, similarity, lambda);
    *hits = taken.into_iter().map(|(i, score)| Hit { score, ..hits[i].clone() }).collect();
}

/// The direction of the mean of vectors, of norm 1; zeros stay zeros.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let dims = vectors.first().map_or(0, Vec::len);
    let sum: Vec<f32> = (0..dims).map(|d| vectors.iter().map(|v| v[d]).sum()).collect();
    let norm = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    if norm > 0.0 { sum.iter().map(|v| v / norm).collect() } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(document: &str, score: f64) -> Hit {
        Hit {
            chunk_id: document.to_owned(),
            document: document.to_owned(),
            span: 0..1,
            text: document.to_owned(),
            heading_path: Vec::new(),
            pages: None,
            title: None,
            score,
            bm25_rank: None,
            vector_rank: None,
        }
    }

    fn names(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|h| h.document.as_str()).collect()
    }

    #[test]
    fn rankings_are_joined_by_ranks_and_what_one_lacks_gets_nothing_from_it() {
        let list = |names: &[&str]| names.iter().map(|n| hit(n, 9.0)).collect::<Vec<_>>();
        let fused =
            by_reciprocal_ranks(vec![list(&["a", "b", "c"]), list(&["c", "b"]), list(&["d"])]);
        // b: 1/62 + 1/62 is less than c: 1/63 + 1/61; a and d have 1/61 each, by name.
        assert_eq!(names(&fused), ["c", "b", "a", "d"]);
        assert!((fused[0].score - (1.0 / 63.0 + 1.0 / 61.0)).abs() < 1e-12);
        assert!((fused[2].score - 1.0 / 61.0).abs() < 1e-12);
        // One ranking stays as it is.
        assert_eq!(names(&by_reciprocal_ranks(vec![list(&["b", "a"])])), ["b", "a"]);
    }

    #[test]
    fn what_is_gone_takes_no_part_in_diversity() {
        let mut hits = vec![hit("a", 3.0), hit("b", 2.0), hit("c", 1.0)];
        let vectors = [Some(vec![1.0, 0.0]), None, Some(vec![0.0, 1.0])];
        diversify(&mut hits, &vectors, 0.5);
        assert_eq!(names(&hits), ["a", "c"]);
    }

    #[test]
    fn a_mean_has_norm_one() {
        assert_eq!(mean(&[vec![2.0, 0.0], vec![0.0, 2.0]]), vec![0.5f32.sqrt(); 2]);
        assert_eq!(mean(&[vec![0.0], vec![0.0]]), [0.0]);
    }
}
