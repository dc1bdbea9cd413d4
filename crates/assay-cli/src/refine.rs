//! The parts of a search beside the index, as a project configures them.

use std::sync::Arc;

use anyhow::{Context as _, Result, anyhow};
use assay_candidate::{
    Drafts, Generator, Refinement, Rerank, Rewrite, Rewriter, Searcher, Written,
};
use assay_index::Index;
use assay_model::CrossEncoder;
use assay_store::{Key, StepKey, Store};

use crate::config::{EmbedderPrecision, Retrieval, RewriteBy};
use crate::model;
use crate::ui::Ui;

/// The reranker that the project names.
pub(crate) fn reranker(retrieval: &Retrieval) -> Result<Option<Arc<CrossEncoder>>> {
    let open = |spec: &String| open_reranker(spec, retrieval.reranker_precision);
    retrieval.reranker.as_ref().map(open).transpose()
}

/// A reranker by name, folder or repository.
pub(crate) fn open_reranker(spec: &str, precision: EmbedderPrecision) -> Result<Arc<CrossEncoder>> {
    let opened = model::resolve(spec).and_then(|found| {
        let encoder = CrossEncoder::open(&found.path, precision.into());
        encoder.map_err(|e| {
            anyhow!("{e}\nhint: a reranker is a folder of a cross-encoder with one score, as sentence-transformers writes it")
        })
    });
    Ok(Arc::new(opened.with_context(|| format!("retrieval.reranker `{spec}`"))?))
}

/// What the project does beside ranking.
pub(crate) fn refinement(retrieval: &Retrieval, reranker: Option<&CrossEncoder>) -> Refinement {
    Refinement {
        rewrite: retrieval.rewrite.map(|by| match by {
            RewriteBy::MultiQuery => Rewrite::MultiQuery { queries: retrieval.rewrite_queries },
            RewriteBy::Hyde => Rewrite::Hyde,
        }),
        rerank: reranker
            .map(|model| Rerank { model: model.hash().to_owned(), depth: retrieval.rerank_depth }),
        // 1 is the order that is there already.
        mmr: retrieval.mmr.filter(|lambda| *lambda < 1.0),
        window: retrieval.window,
    }
}

/// An index with the models that `refine` needs.
pub(crate) fn searcher(
    index: Arc<Index>,
    reranker: Option<Arc<CrossEncoder>>,
    rewriter: Option<Rewriter>,
) -> Result<Searcher> {
    let mut searcher = Searcher::new(index);
    if let Some(reranker) = reranker {
        searcher = searcher.with_reranker(reranker).context("retrieval.reranker")?;
    }
    Ok(match rewriter {
        Some(rewriter) => searcher.with_rewriter(Arc::new(rewriter)),
        None => searcher,
    })
}

/// A rewriter whose texts are filed in the project's store, so that no run writes them again.
pub(crate) fn filed_rewriter(store: Store, base: &Generator, base_hash: &str) -> Rewriter {
    let drafts = Filed { store, base_hash: base_hash.to_owned() };
    Rewriter::new(base.clone(), Some(Box::new(drafts)))
}

/// Says so when queries were searched for as they are.
pub(crate) fn tell_unwritten(searcher: Option<&Searcher>, ui: &Ui) {
    let Some(rewriter) = searcher.and_then(Searcher::rewriter) else { return };
    let unwritten = rewriter.take_unwritten();
    if unwritten.queries > 0 {
        ui.note(&format!(
            "warning: {} queries could not be written anew and were searched for as they are; the last one: {}",
            unwritten.queries, unwritten.why
        ));
    }
}

/// Version of what is filed: raise it when prompts or their reading change.
const VERSION: u32 = 1;

struct Filed {
    store: Store,
    base_hash: String,
}

impl Filed {
    fn key(&self, how: &Rewrite, query: &str) -> Key {
        StepKey::new("rewrite", VERSION)
            .input("base", &self.base_hash)
            .setting("how", how)
            .setting("query", query)
            .finish()
    }
}

impl Drafts for Filed {
    fn get(&self, how: &Rewrite, query: &str) -> Option<Written> {
        // What cannot be read is written again.
        self.store.get(&self.key(how, query)).ok().flatten()
    }

    fn put(&self, how: &Rewrite, query: &str, written: &Written) {
        let _ = self.store.put(&self.key(how, query), written);
    }
}
