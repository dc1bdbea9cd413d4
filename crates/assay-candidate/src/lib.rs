//! Everything that turns an input into an output: model, adapter, prompt, retriever, context policy.
//!
//! One implementation for evaluation, serving and the making of training rows, so that what was
//! measured is what is served. It measures its own time and counts its own tokens; it scores nothing
//! and stores nothing.
//!
//! ```
//! use assay_candidate::{CitationFilter, Source};
//!
//! let text = "Lamps may be returned within 30 days.".to_owned();
//! let sources = [Source { document: "returns.md".into(), start: 0, headings: vec![], text }];
//! let stored = |c: &mut assay_types::Citation| c.quote.len() == c.end - c.start;
//! let mut filter = CitationFilter::new(&sources, &stored);
//! filter.push("30 days [1]. Bulbs too [1].");
//! let (cited, _) = filter.finish();
//! assert_eq!(cited.text, "30 days [1]. Bulbs too .");
//! assert_eq!(cited.citations[0].quote, "Lamps may be returned within 30 days.");
//! assert_eq!(cited.dropped, 1);
//! ```

mod adjacent;
mod candidate;
mod cite;
mod embed;
mod examples;
mod generator;
mod mmr;
mod retrieve;
mod rewrite;
mod spec;

pub use adjacent::join_adjacent;
pub use assay_index::Viewer;
pub use assay_remote::Blame;
pub use candidate::{Candidate, Options, Prepared, Prompt, Request, Retriever, headings};
pub use cite::{CitationFilter, Cited};
pub use embed::EncoderEmbedder;
pub use examples::ExampleIndex;
pub use generator::{Generator, PromptBudget, RemoteGenerator, token_bound};
pub use retrieve::Searcher;
pub use rewrite::{Drafts, Rewriter, Unwritten, Written};
pub use spec::{
    CandidateSpec, Context, Golden, Guard, RankedBy, Refinement, Rerank, RetrievalSpec,
    RetrieveFrom, Rewrite, Shot, ShownChunk, Source, user_turn,
};

/// Why a candidate could not answer.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// The model refused or failed.
    #[error(transparent)]
    Model(#[from] assay_model::ModelError),
    /// The server of a remote model refused or failed.
    #[error(transparent)]
    Remote(#[from] assay_remote::RemoteError),
    /// A way of sampling that other servers do not know.
    #[error("a remote model is sampled by temperature, top_p and seed only")]
    RemoteSampling,
    /// A form that other servers have no common words for.
    #[error("a remote model can be held to JSON only, not to a choice or a regular expression")]
    RemoteForm,
    /// Retrieval failed.
    #[error(transparent)]
    Index(#[from] assay_index::IndexError),
    /// The query could not be embedded.
    #[error(transparent)]
    Embed(#[from] assay_index::EmbedError),
    /// The specification and the loaded parts disagree.
    #[error("candidate `{name}`: its specification and its {part} do not belong together")]
    Parts {
        /// The candidate.
        name: String,
        /// What is missing or too much.
        part: &'static str,
    },
    /// Rows and vectors of an example index do not match.
    #[error("example index: {rows} rows but {vectors} vectors, or of another dimension")]
    Examples {
        /// Rows given.
        rows: usize,
        /// Vectors given.
        vectors: usize,
    },
    /// The reranker could not read a chunk.
    #[error(transparent)]
    Reranker(#[from] assay_model::EncoderError),
    /// A cross-encoder that classifies pairs instead of scoring them.
    #[error("the reranker gives a pair {labels} scores instead of one")]
    RerankerLabels {
        /// How many.
        labels: usize,
    },
    /// The reranker's weights make no sense of a chunk.
    #[error("the reranker's score of a chunk of {document} is no number")]
    RerankerScore {
        /// Path of its document.
        document: String,
    },
    /// Nothing could be written for a query.
    #[error("queries could not be written anew: {0}")]
    Rewrite(String),
    /// The model returned fewer generations than requests.
    #[error("the model returned no generation for a request")]
    NoGeneration,
}

impl CandidateError {
    /// Whose fault it is. What fails on this machine fails again on the same input, and on that input only.
    pub fn blame(&self) -> Blame {
        match self {
            CandidateError::Remote(e) => e.blame(),
            _ => Blame::Request,
        }
    }
}

/// The `k` of `allowed` with the largest inner product with `query`, best first, ties by index.
fn nearest(
    query: &[f32],
    vectors: &[Vec<f32>],
    allowed: impl Iterator<Item = usize>,
    k: usize,
) -> Vec<usize> {
    let dot = |v: &[f32]| v.iter().zip(query).map(|(a, b)| a * b).sum::<f32>();
    let mut scored: Vec<(f32, usize)> = allowed.map(|i| (dot(&vectors[i]), i)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    scored.into_iter().take(k).map(|(_, i)| i).collect()
}
