//! Opening and searching.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use fs_err as fs;

use crate::embed::checked;
use crate::lexical::Lexical;
use crate::record::{Record, StoredChunk};
use crate::vectors::Vectors;
use crate::{Embed, IndexConfig, IndexError, fusion};

/// Which ranking a search returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SearchMode {
    /// BM25 and vectors, fused.
    Hybrid,
    /// Words only. Chunks without a word of the query are no hits.
    Bm25,
    /// Vectors only. Every chunk is a hit, however far.
    Vector,
}

/// A chunk that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Hit {
    /// Names this chunk of this version of the document.
    pub chunk_id: String,
    /// Path relative to the ingested folder, with `/`.
    pub document: String,
    /// Bytes of the document's stored text.
    pub span: Range<usize>,
    /// Those bytes.
    pub text: String,
    /// Headings in force where it starts, outermost first.
    pub heading_path: Vec<String>,
    /// Title of the document.
    pub title: Option<String>,
    /// Larger is better; comparable within one search only.
    pub score: f64,
    /// Position in the BM25 ranking, from 1; `None` if not found there or not asked.
    pub bm25_rank: Option<usize>,
    /// Position in the vector ranking, from 1; `None` if not asked.
    pub vector_rank: Option<usize>,
}

/// What a search found, best first, and where its time went.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchResult {
    /// Best first; equal scores by path, then position.
    pub hits: Vec<Hit>,
    /// Wall time of embedding the query, in milliseconds.
    pub embed_ms: f64,
    /// Wall time of everything else.
    pub search_ms: f64,
}

/// A document that can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentInfo {
    /// Path relative to the ingested folder, with `/`.
    pub path: String,
    /// blake3 of the file, in hexadecimal.
    pub content_hash: String,
    /// Size of the file.
    pub bytes: u64,
    /// How many chunks it has.
    pub chunks: usize,
    /// Its title, if it has one.
    pub title: Option<String>,
}

/// Documents, ready to be searched.
pub struct Index {
    pub(crate) dir: PathBuf,
    pub(crate) record: Record,
    pub(crate) embedder: Arc<dyn Embed>,
    pub(crate) config: IndexConfig,
    state: State,
}

/// The projections in memory.
struct State {
    documents: Vec<DocumentInfo>,
    /// Of the n-th chunk, by path and position: its id in the record.
    chunk_ids: Vec<i64>,
    snapshot: String,
    projections: Projections,
}

enum Projections {
    Ready {
        lexical: Lexical,
        vectors: Vectors,
    },
    /// This many documents come from other settings.
    Stale(usize),
}

impl Index {
    /// Opens the index in `dir`, or creates an empty one.
    ///
    /// Projections that are missing, damaged or behind are built again. If documents come from another
    /// embedder, chunk size or parser, the index opens, but refuses to search until it has ingested again;
    /// see [`Index::needs_ingest`].
    ///
    /// # Errors
    /// [`IndexError::Format`] for an index of another format version, [`IndexError::Damaged`] for one that
    /// contradicts itself, and failures of the file system or SQLite.
    pub fn open(
        dir: &Path,
        embedder: Arc<dyn Embed>,
        config: IndexConfig,
    ) -> Result<Index, IndexError> {
        fs::create_dir_all(dir)?;
        let record = Record::open(&dir.join("index.sqlite"))?;
        let state = load(dir, &record, embedder.as_ref(), config)?;
        Ok(Index { dir: dir.to_owned(), record, embedder, config, state })
    }

    /// Brings the projections to the state of the record.
    pub(crate) fn reload(&mut self) -> Result<(), IndexError> {
        self.state = load(&self.dir, &self.record, self.embedder.as_ref(), self.config)?;
        Ok(())
    }

    /// How many documents come from another embedder, chunk size or parser; while there are any, searches
    /// are refused.
    pub fn needs_ingest(&self) -> Option<usize> {
        match self.state.projections {
            Projections::Ready { .. } => None,
            Projections::Stale(documents) => Some(documents),
        }
    }

    /// The documents, by path.
    pub fn documents(&self) -> &[DocumentInfo] {
        &self.state.documents
    }

    /// How many chunks all documents have.
    pub fn chunk_count(&self) -> usize {
        self.state.documents.iter().map(|d| d.chunks).sum()
    }

    /// Names everything that decides what a search returns: blake3, in hexadecimal, over paths and hashes of
    /// the documents, the chunk size, the parser's version and the embedder.
    pub fn snapshot_hash(&self) -> String {
        self.state.snapshot.clone()
    }

    /// The stored text of a document, which spans refer to; `None` if there is no such document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn document_text(&self, path: &str) -> Result<Option<String>, IndexError> {
        self.record.read(|r| r.text(path))
    }

    /// Whether `quote` is what stands at those bytes of the document now.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn holds(
        &self,
        document: &str,
        span: Range<usize>,
        quote: &str,
    ) -> Result<bool, IndexError> {
        let text = self.document_text(document)?;
        Ok(text.is_some_and(|text| text.get(span) == Some(quote)))
    }

    /// All chunks of a document, in order, without scores and ranks; none if there is no such document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn chunks(&self, path: &str) -> Result<Vec<Hit>, IndexError> {
        let chunks = self.record.read(|r| r.chunks_of(path))?;
        Ok(chunks.into_iter().map(Hit::unranked).collect())
    }

    /// The `k` best chunks for `query`; fewer if there are no more. A blank query finds nothing; one without
    /// words that are indexed is left to the vectors.
    ///
    /// # Errors
    /// [`IndexError::Stale`] if parts of the index come from other settings, and failures of the embedder,
    /// tantivy or SQLite.
    pub fn search(
        &self,
        query: &str,
        k: usize,
        mode: SearchMode,
    ) -> Result<SearchResult, IndexError> {
        let (lexical, vectors) = match &self.state.projections {
            Projections::Ready { lexical, vectors } => (lexical, vectors),
            Projections::Stale(documents) => {
                return Err(IndexError::Stale { documents: *documents });
            }
        };
        if query.trim().is_empty() || self.state.chunk_ids.is_empty() {
            return Ok(SearchResult { hits: Vec::new(), embed_ms: 0.0, search_ms: 0.0 });
        }
        let began = Instant::now();
        let embedded = match mode {
            SearchMode::Bm25 => None,
            SearchMode::Hybrid | SearchMode::Vector => {
                let embedder = self.embedder.as_ref();
                checked(embedder, 1, embedder.embed_queries(&[query])?)?.pop()
            }
        };
        let embed_ms = if embedded.is_some() { milliseconds(began) } else { 0.0 };

        let began = Instant::now();
        let similarity = embedded.map(|q| vectors.scores(&q)).unwrap_or_default();
        let bm25 = match mode {
            SearchMode::Vector => Vec::new(),
            SearchMode::Hybrid | SearchMode::Bm25 => lexical.scores(query)?,
        };
        let scores = match mode {
            SearchMode::Bm25 => bm25.iter().map(|&(c, s)| (c, f64::from(s))).collect(),
            SearchMode::Vector => (0..).zip(similarity.iter().map(|&s| f64::from(s))).collect(),
            SearchMode::Hybrid => fusion::fuse(&bm25, &similarity),
        };
        let (chunks, mut hits): (Vec<u32>, Vec<Hit>) = self.resolve(scores, k)?.into_iter().unzip();
        let similarity: Vec<(u32, f32)> = (0..).zip(similarity).collect();
        let ranks =
            fusion::ranks(&bm25, &chunks).into_iter().zip(fusion::ranks(&similarity, &chunks));
        for (hit, (bm25_rank, vector_rank)) in hits.iter_mut().zip(ranks) {
            (hit.bm25_rank, hit.vector_rank) = (bm25_rank, vector_rank);
        }
        Ok(SearchResult { hits, embed_ms, search_ms: milliseconds(began) })
    }

    /// The `k` best chunks that are still in the record.
    fn resolve(&self, scores: Vec<(u32, f64)>, k: usize) -> Result<Vec<(u32, Hit)>, IndexError> {
        let k = k.min(scores.len());
        let mut wanted = k;
        self.record.read(|r| {
            loop {
                let mut hits = Vec::with_capacity(k);
                for (chunk, score) in fusion::best(scores.clone(), wanted) {
                    if let Some(stored) = r.chunk(self.state.chunk_ids[chunk as usize])? {
                        hits.push((chunk, Hit { score, ..Hit::unranked(stored) }));
                    }
                }
                if hits.len() >= k || wanted >= scores.len() {
                    hits.truncate(k);
                    return Ok(hits);
                }
                // Another process has removed some since this index was loaded.
                wanted = wanted.saturating_mul(4).min(scores.len());
            }
        })
    }
}

impl Hit {
    fn unranked(stored: StoredChunk) -> Self {
        let StoredChunk { path, content_hash, title, span, heading_path, text } = stored;
        let mut hasher = blake3::Hasher::new();
        for part in [&path, &content_hash, &format!("{}-{}", span.start, span.end)] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        Hit {
            chunk_id: hasher.finalize().to_hex()[..32].to_owned(),
            document: path,
            span,
            text,
            heading_path,
            title,
            score: 0.0,
            bm25_rank: None,
            vector_rank: None,
        }
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Names everything but the document's bytes that decides its chunks and vectors.
pub(crate) fn settings(embedder: &dyn Embed, config: IndexConfig) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&assay_text::VERSION.to_le_bytes());
    hasher.update(&(chunk_tokens(embedder, config) as u64).to_le_bytes());
    hasher.update(embedder.id().as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// The size of chunks: as configured, but never more than the embedder reads.
pub(crate) fn chunk_tokens(embedder: &dyn Embed, config: IndexConfig) -> usize {
    config.chunk_tokens.min(embedder.max_tokens())
}

fn load(
    dir: &Path,
    record: &Record,
    embedder: &dyn Embed,
    config: IndexConfig,
) -> Result<State, IndexError> {
    let settings = settings(embedder, config);
    record.read(|r| {
        let rows = r.documents()?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(settings.as_bytes());
        for row in &rows {
            for part in [&row.path, &row.content_hash] {
                hasher.update(part.as_bytes()).update(&[0]);
            }
        }
        let snapshot = hasher.finalize().to_hex().to_string();

        let stale = rows.iter().filter(|row| row.settings != settings).count();
        let chunks = rows.iter().map(|row| row.chunks).sum();
        let mut chunk_ids = Vec::new();
        let projections = if stale > 0 {
            Projections::Stale(stale)
        } else {
            let dims = embedder.dims();
            let (ids, values) = r.vectors(dims, chunks)?;
            chunk_ids = ids;
            let texts = rows.iter().map(|row| {
                let chunks = r.chunks_of(&row.path)?;
                Ok(chunks.iter().map(lexical_text).collect())
            });
            let lexical = Lexical::open(dir, &snapshot, chunks, texts)?;
            Projections::Ready { lexical, vectors: Vectors::new(dims, values) }
        };
        let documents = rows
            .into_iter()
            .map(|row| DocumentInfo {
                path: row.path,
                content_hash: row.content_hash,
                bytes: row.bytes,
                chunks: row.chunks,
                title: row.title,
            })
            .collect();
        Ok(State { documents, chunk_ids, snapshot, projections })
    })
}

/// What BM25 reads of a chunk.
fn lexical_text(chunk: &StoredChunk) -> String {
    let mut text = context(chunk.title.as_deref(), &chunk.heading_path, &chunk.text).join("\n");
    text.push('\n');
    text.push_str(&chunk.text);
    text
}

/// Title and headings, outermost first, that say where a chunk stands and that it does not say itself.
pub(crate) fn context<'a>(
    title: Option<&'a str>,
    heading_path: &'a [String],
    text: &str,
) -> Vec<&'a str> {
    let mut lines: Vec<&str> = Vec::new();
    for line in title.into_iter().chain(heading_path.iter().map(String::as_str)) {
        if !line.is_empty() && !lines.contains(&line) && !text.contains(line) {
            lines.push(line);
        }
    }
    lines
}
