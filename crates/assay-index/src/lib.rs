//! The retrieval engine: a folder of documents in, ranked byte spans of them out.
//!
//! One SQLite file is the truth: documents with their text, chunks, embeddings. Segment files, which hold
//! postings for BM25 and vectors with their codes, are projections of it; any can be deleted and is made again. Every search begins
//! with the set of chunks that the truth lets this [`Viewer`] and this [`Filter`] find, and every hit is looked up
//! in the truth before it is returned: a document that was deleted, changed or withdrawn is never a hit,
//! whichever process did it.
//!
//! [`Index::ingest`] brings the index to the state of a folder, and accounts for every file and page in it. What has
//! not changed is not embedded again; what was interrupted goes on where it stopped. [`Index::search`] is
//! exact and deterministic: no approximation, ties by path and position.
//!
//! It refuses an index of another format version, and searches while parts of the index come from another
//! embedder or chunk size.
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path, sync::Arc};
//! use assay_index::{Embed, Index, IndexConfig, Query, SearchMode};
//!
//! # fn example(embedder: Arc<dyn Embed>) -> Result<(), assay_index::IndexError> {
//! let mut index = Index::open(Path::new("state/index"), embedder, IndexConfig::default())?;
//! let report = index.ingest(Path::new("docs"), &mut |_| ControlFlow::Continue(()))?;
//! assert_eq!(report.ledger.len(), report.files);
//! let query = Query::new("how do I reset the controller?", 5, SearchMode::Hybrid);
//! for hit in index.search(&query)?.hits {
//!     println!("{} {:?} {:.3}", hit.document, hit.span, hit.score);
//! }
//! # Ok(())
//! # }
//! ```

mod analysis;
mod backend;
mod bits;
mod catalog;
mod corpus;
mod document;
mod embed;
mod error;
mod filter;
mod folder;
mod fusion;
mod index;
mod ingest;
mod ledger;
mod lexical;
mod parser;
mod projections;
mod properties;
mod recheck;
mod record;
mod remote;
mod segment;
mod vectors;

pub use backend::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Mark, Near, VectorBackend,
};
pub use corpus::{Corpus, CorpusSnapshot, SnapshotDocument, Verification};
pub use document::examine;
pub use embed::{Embed, EmbedError};
pub use error::IndexError;
pub use filter::{Comparison, Filter, FilterError, Membership};
pub use index::{DocumentInfo, Hit, Index, Place, Query, SearchMode, SearchResult, TruncatedQuery};
pub use ingest::{IngestProgress, IngestReport};
pub use ledger::{IngestOutcome, LedgerEntry, PageOutcome, read_ledger};
pub use parser::{InProcess, NotParsed, Parse};
pub use properties::{Date, Metadata, Properties, Value, ValueKind, Viewer};
pub use remote::{BackendCheck, Recall};

/// Parameters of BM25.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bm25 {
    /// How slowly further occurrences of a word count less; at least 0. 0 counts none but the first.
    pub k1: f32,
    /// How much the length of a chunk counts, from 0 to 1.
    pub b: f32,
}

impl Default for Bm25 {
    /// Those of Lucene. Anserini's 0.9 and 0.4 are better on some sets and worse on others.
    fn default() -> Self {
        Bm25 { k1: 1.2, b: 0.75 }
    }
}

/// What an index is made with. Changing anything but `bm25`, or the embedder, makes the next ingest do everything
/// anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IndexConfig {
    /// Tokens of a chunk at most, as the embedder counts; never more than the embedder reads.
    pub chunk_tokens: usize,
    /// Larger files are not read but reported as failed.
    pub max_file_bytes: u64,
    /// How words are scored.
    pub bm25: Bm25,
    /// Whether words and vectors of a chunk are also those of its document's title and of the headings above it.
    pub contextual_headers: bool,
}

impl Default for IndexConfig {
    fn default() -> Self {
        IndexConfig {
            chunk_tokens: 200,
            max_file_bytes: 64 << 20,
            bm25: Bm25::default(),
            contextual_headers: true,
        }
    }
}
