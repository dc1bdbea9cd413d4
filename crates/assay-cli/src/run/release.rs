//! Releases: what `ask` and `serve` need to answer as in the evaluation.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use assay_candidate::{
    Candidate, CandidateSpec, EncoderEmbedder, ExampleIndex, Generator, RankedBy, Refinement,
    RetrieveFrom, Retriever, Rewriter, Searcher, Shot,
};
use assay_index::{Embed, Index};
use assay_model::{Adapter, Encoder, Prefixes};
use assay_store::{ReleaseManifest, Store};
use serde::{Deserialize, Serialize};

use super::Bench;
use super::drift::{self, Drift};
use crate::base::{self, Patience};
use crate::config::{EmbedderPrecision, Loaded, Model};
use crate::{model, refine};

/// The part of a manifest that is no hash.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) spec: CandidateSpec,
    pub(crate) base: String,
    pub(crate) embedder: String,
    #[serde(default)]
    pub(crate) embedder_precision: EmbedderPrecision,
    pub(crate) query_prefix: Option<String>,
    pub(crate) document_prefix: Option<String>,
    #[serde(default)]
    pub(crate) reranker: Option<String>,
    #[serde(default)]
    pub(crate) reranker_precision: EmbedderPrecision,
    /// Folder of the example index, relative to the store.
    pub(crate) examples: Option<String>,
}

/// Files one candidate as a release, without serving it.
pub(crate) fn file(
    bench: &Bench<'_>,
    spec: &CandidateSpec,
    decision_hash: &str,
) -> Result<assay_store::ReleaseId> {
    let mut parts = BTreeMap::from([
        ("base_model".to_owned(), bench.base_hash.clone()),
        ("decision".to_owned(), decision_hash.to_owned()),
    ]);
    if let Some(adapter) = &spec.adapter {
        parts.insert("adapter".to_owned(), adapter.clone());
    }
    if spec.retrieval.is_some() {
        parts.insert("embedder".to_owned(), bench.embedder.id().to_owned());
        parts.insert("context".to_owned(), bench.context_hash.clone());
    }
    if let Some(index) = bench.index.as_ref().filter(|_| spec.cites()) {
        parts.insert("corpus".to_owned(), drift::pin(&bench.store, index)?);
    }
    let retrieval = spec.retrieval.as_ref();
    let examples = retrieval.is_some_and(|r| r.from == RetrieveFrom::Examples);
    let reranks = retrieval.is_some_and(|r| r.refine.rerank.is_some());
    let reranker = bench.config.retrieval.reranker.clone().filter(|_| reranks);
    let model = &bench.config.model;
    let settings = Settings {
        spec: spec.clone(),
        base: model.base.clone(),
        embedder: model.embedder.clone(),
        embedder_precision: model.embedder_precision,
        query_prefix: model.query_prefix.clone(),
        document_prefix: model.document_prefix.clone(),
        reranker,
        reranker_precision: bench.config.retrieval.reranker_precision,
        examples: examples.then(|| bench.examples_folder.clone()).flatten(),
    };
    Ok(bench.store.create_release(&ReleaseManifest {
        candidate: spec.name.clone(),
        parts,
        settings: serde_json::to_value(settings)?,
    })?)
}

/// A release, loaded.
pub(crate) struct Opened {
    pub(crate) id: String,
    pub(crate) candidate: Candidate,
    pub(crate) embedder: Arc<dyn Embed>,
    pub(crate) search: Option<Search>,
    pub(crate) made_ms: i64,
    /// What has become of the documents since they were measured with.
    pub(crate) drift: Option<Drift>,
}

/// How documents are searched: as the release's candidate does where it reads them, else plainly.
pub(crate) struct Search {
    pub(crate) searcher: Searcher,
    pub(crate) ranked_by: RankedBy,
    pub(crate) refine: Refinement,
}

/// The current release of a project, or the newest one of the named candidate.
pub(crate) fn open(loaded: &Loaded, candidate: Option<&str>) -> Result<Opened> {
    let dir = loaded.state_dir();
    if !dir.is_dir() {
        bail!("nothing has been decided here yet\nhint: `assay run` first");
    }
    let store = Store::open(&dir)?;
    let release = match candidate {
        None => store.current_release()?.ok_or_else(|| {
            anyhow!(
                "there is no decided release: the last decision named no winner\n\
                 hint: `--candidate NAME` takes one of the measured candidates"
            )
        })?,
        Some(name) => {
            let all = store.releases()?;
            let mut names: Vec<&str> = all.iter().map(|r| r.manifest.candidate.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            let names = names.join(", ");
            all.into_iter().rev().find(|r| r.manifest.candidate == name).ok_or_else(|| {
                anyhow!("no candidate `{name}` has been measured here\nhint: there are: {names}")
            })?
        }
    };
    let settings: Settings = serde_json::from_value(release.manifest.settings.clone())
        .with_context(|| format!("release {} was written by another version", release.id))?;
    let part = |name: &str| release.manifest.parts.get(name).map(String::as_str);

    let base = base::open(loaded, &settings.base, Patience::Serve)?;
    same("base model", part("base_model"), &base.hash)?;
    let embedder = open_embedder(
        &settings.embedder,
        settings.embedder_precision,
        settings.query_prefix.as_deref(),
        settings.document_prefix.as_deref(),
    )?;
    let adapter = match &settings.spec.adapter {
        Some(folder) => {
            let Generator::Local(decoder) = &base.generator else {
                bail!("release {} has an adapter and a base model that is not here", release.id);
            };
            let adapter = Adapter::load_peft(&dir.join(folder), decoder.config())?;
            decoder.check_adapter(&adapter)?;
            Some(Arc::new(adapter))
        }
        None => None,
    };
    let documents = dir.join("index");
    let index = documents
        .is_dir()
        .then(|| super::open_index(loaded, embedder.clone(), None))
        .transpose()?
        .map(Arc::new);
    let from = settings.spec.retrieval.as_ref().map(|r| r.from);
    let retriever = match (from, &settings.examples) {
        (None, _) => None,
        (Some(RetrieveFrom::Documents), _) => {
            same("embedder", part("embedder"), embedder.id())?;
            let index = index.clone().context("the document index is missing: run `assay run`")?;
            if let Some(documents) = index.needs_ingest() {
                bail!(
                    "{documents} documents are not indexed as this version does it\n\
                     hint: `assay run` indexes them and decides anew"
                );
            }
            Some(Retriever::Documents(searcher(&settings, index, &base.generator)?))
        }
        (Some(RetrieveFrom::Examples), Some(folder)) => {
            same("embedder", part("embedder"), embedder.id())?;
            let examples = read_examples(&dir.join(folder), embedder.clone())?;
            Some(Retriever::Examples(Arc::new(examples)))
        }
        (Some(RetrieveFrom::Examples), None) => bail!("release {} names no examples", release.id),
    };
    let drift = match (part("corpus"), &index) {
        (Some(snapshot), Some(index)) => drift::since(&store, snapshot, index)?,
        _ => None,
    };
    let search = match (&retriever, &settings.spec.retrieval) {
        (Some(Retriever::Documents(searcher)), Some(retrieval)) => Some(Search {
            searcher: searcher.clone(),
            ranked_by: retrieval.ranked_by,
            refine: retrieval.refine.clone(),
        }),
        _ => index.map(|index| Search {
            searcher: Searcher::new(index),
            ranked_by: RankedBy::default(),
            refine: Refinement::default(),
        }),
    };
    Ok(Opened {
        id: release.id.0.clone(),
        candidate: Candidate::new(settings.spec, base.generator, adapter, retriever)?,
        embedder,
        search,
        made_ms: release.made_ms,
        drift,
    })
}

/// The documents with the models that the release was measured with.
fn searcher(settings: &Settings, index: Arc<Index>, base: &Generator) -> Result<Searcher> {
    let refine = settings.spec.retrieval.as_ref().map(|r| &r.refine);
    let reranker = match (refine.and_then(|r| r.rerank.as_ref()), &settings.reranker) {
        (Some(wanted), Some(name)) => {
            let reranker = refine::open_reranker(name, settings.reranker_precision)?;
            same("reranker", Some(&wanted.model), reranker.hash())?;
            Some(reranker)
        }
        (Some(_), None) => bail!("the release names no reranker, and was measured with one"),
        (None, _) => None,
    };
    // What callers ask is not kept.
    let rewrites = refine.is_some_and(|r| r.rewrite.is_some());
    let rewriter = rewrites.then(|| Rewriter::new(base.clone(), None));
    refine::searcher(index, reranker, rewriter)
}

fn same(what: &str, released: Option<&str>, found: &str) -> Result<()> {
    match released {
        Some(hash) if hash != found => bail!(
            "the {what} is not the one that was measured ({} instead of {})\n\
             hint: `assay run` measures and decides with what is there now",
            short(found),
            short(hash)
        ),
        _ => Ok(()),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// The embedder that the project names.
pub(crate) fn embedder(model: &Model) -> Result<Arc<dyn Embed>> {
    open_embedder(
        &model.embedder,
        model.embedder_precision,
        model.query_prefix.as_deref(),
        model.document_prefix.as_deref(),
    )
}

/// The embedder with the prefixes of its own files where none are given.
fn open_embedder(
    spec: &str,
    precision: EmbedderPrecision,
    query_prefix: Option<&str>,
    document_prefix: Option<&str>,
) -> Result<Arc<dyn Embed>> {
    let found = model::resolve(spec)?;
    let encoder = Encoder::open(&found.path, precision.into())?;
    let own = encoder.prefixes();
    let prefixes = Prefixes {
        query: query_prefix.unwrap_or(&own.query).to_owned(),
        document: document_prefix.unwrap_or(&own.document).to_owned(),
    };
    Ok(Arc::new(EncoderEmbedder::new(encoder.with_prefixes(prefixes))))
}

/// Rows and vectors of an example index, as they lie in an artifact folder.
#[derive(Serialize, Deserialize)]
struct ExampleRows {
    ids: Vec<String>,
    rows: Vec<Shot>,
}

pub(crate) fn write_examples(
    folder: &Path,
    ids: &[String],
    rows: &[Shot],
    vectors: &[Vec<f32>],
) -> Result<()> {
    let rows = ExampleRows { ids: ids.to_vec(), rows: rows.to_vec() };
    fs_err::write(folder.join("rows.json"), serde_json::to_vec(&rows)?)?;
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|v| v.to_le_bytes()).collect();
    fs_err::write(folder.join("vectors.f32"), bytes)?;
    Ok(())
}

pub(crate) fn read_examples(folder: &Path, embedder: Arc<dyn Embed>) -> Result<ExampleIndex> {
    let rows: ExampleRows = serde_json::from_slice(&fs_err::read(folder.join("rows.json"))?)?;
    let bytes = fs_err::read(folder.join("vectors.f32"))?;
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let vectors = values.chunks(embedder.dims()).map(<[f32]>::to_vec).collect();
    Ok(ExampleIndex::new(embedder, rows.ids, rows.rows, vectors)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_earlier_versions_open() {
        let text = r#"{"spec": {"name": "prompt", "task": "qa", "instructions": "", "shots": [],
            "retrieval": null, "adapter": null, "abstain": "", "max_new_tokens": 8},
            "base": "b", "embedder": "e", "examples": null}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        assert_eq!((settings.base.as_str(), settings.embedder.as_str()), ("b", "e"));
        assert_eq!((settings.query_prefix, settings.document_prefix), (None, None));
    }
}
