//! Opening and searching.

use std::ops::{ControlFlow, Range, RangeInclusive};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::bits::Bits;
use crate::catalog::Catalog;
use crate::embed::checked;
use crate::projections::{Content, Elsewhere, Found, Projections, Settings, Source};
use crate::record::{DocumentRow, Reader, Record, StoredChunk};
use crate::remote::Remote;
use crate::{
    BackendCheck, BackendError, Corpus, Embed, Filter, InProcess, IndexConfig, IndexError, Parse,
    Properties, Recall, VectorBackend, Viewer,
};

/// How often a search begins again because the record changed meanwhile.
const TRIES: usize = 8;

/// What is looked for, by whom, and among which documents.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// Words or a question. A blank one finds nothing; one without words that are indexed is left to the vectors.
    pub text: &'a str,
    /// What the vectors are compared with, of the embedder's dimension; `None` is the text's own vector.
    pub vector: Option<&'a [f32]>,
    /// Chunks at most.
    pub k: usize,
    /// By which ranking.
    pub mode: SearchMode,
    /// Only documents that fulfil it.
    pub filter: Option<&'a Filter>,
    /// Only documents that this viewer sees.
    pub viewer: Viewer<'a>,
}

impl<'a> Query<'a> {
    /// Among all documents that everyone may read.
    pub fn new(text: &'a str, k: usize, mode: SearchMode) -> Self {
        Query { text, vector: None, k, mode, filter: None, viewer: Viewer::ANYONE }
    }
}

/// Which ranking a search returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SearchMode {
    /// BM25 and vectors, fused by their scores.
    Hybrid,
    /// BM25 and vectors, fused by reciprocal ranks among the first 1000 of each; no other chunks are hits.
    Reciprocal,
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
    /// Pages, slides or sheets that it stands on, from 1; `None` if the format has none.
    pub pages: Option<RangeInclusive<u32>>,
    /// Title of the document.
    pub title: Option<String>,
    /// Larger is better; comparable within one search only.
    pub score: f64,
    /// Position in the BM25 ranking, from 1; `None` if not asked or not among the first 10.
    pub bm25_rank: Option<usize>,
    /// Position in the vector ranking, from 1; `None` if not asked or not among the first 10.
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
    /// Whether the vectors know the beginning of the query only; words are looked for in all of it.
    pub truncated: Option<TruncatedQuery>,
}

/// A query that is longer than the embedder reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TruncatedQuery {
    /// Its tokens, as the embedder counts.
    pub tokens: usize,
    /// Those that were read.
    pub read: usize,
}

/// A document that can be found.
#[derive(Clone, Debug, PartialEq)]
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
    /// Metadata, access and tenant.
    pub properties: Properties,
}

/// Where a quote stands beside its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// First and last page, slide or sheet, from 1; `None` if the format has none.
    pub pages: Option<RangeInclusive<u32>>,
}

/// Documents, ready to be searched.
pub struct Index {
    pub(crate) corpus: Corpus,
    pub(crate) embedder: Arc<dyn Embed>,
    pub(crate) config: IndexConfig,
    pub(crate) parser: Arc<dyn Parse>,
    /// Where the vectors are, if not in segments.
    remote: Option<Remote>,
    state: State,
    /// Who may see which of the chunks in `state`; brought up to date by each search.
    catalog: Mutex<Arc<Catalog>>,
}

/// The projections in memory.
struct State {
    documents: Vec<DocumentInfo>,
    /// Of the n-th chunk, by path and position: its id in the record.
    chunk_ids: Vec<i64>,
    /// The same by id, with n, where vectors are on a server.
    numbers: Vec<(i64, u32)>,
    snapshot: String,
    projections: Loaded,
    /// Whether the server that holds the vectors, if there is one, has those of all these documents.
    sent: bool,
}

enum Loaded {
    Ready(Projections),
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
        let corpus = Corpus::open(dir)?;
        Self::with(corpus, embedder, config, None)
    }

    /// The index, with files parsed by another parser than [`InProcess`].
    pub fn with_parser(self, parser: Arc<dyn Parse>) -> Index {
        Index { parser, ..self }
    }

    /// The same with the vectors on a server, which is brought to the state of the record. Searches find the same in
    /// the same order, if the server's are exact.
    ///
    /// `progress` is told how many chunks were sent, of how many, and stops it by returning `Break`; what was sent
    /// need not be sent again.
    ///
    /// # Errors
    /// As [`Index::open`], [`IndexError::Backend`] when the server cannot be used or `progress` stopped it, and
    /// [`IndexError::Busy`] if it lacks vectors while another process ingests.
    pub fn open_on(
        backend: Arc<dyn VectorBackend>,
        dir: &Path,
        embedder: Arc<dyn Embed>,
        config: IndexConfig,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<Index, IndexError> {
        let corpus = Corpus::open(dir)?;
        let remote = Remote::new(&corpus.record, backend, embedder.id(), embedder.dims())?;
        let mut index = Self::with(corpus, embedder, config, Some(remote))?;
        index.bring_forward(false, progress)?;
        Ok(index)
    }

    fn with(
        corpus: Corpus,
        embedder: Arc<dyn Embed>,
        config: IndexConfig,
        remote: Option<Remote>,
    ) -> Result<Index, IndexError> {
        let (state, catalog) = load(&corpus, embedder.as_ref(), config, remote.is_some(), None)?;
        let catalog = Mutex::new(Arc::new(catalog));
        let parser = Arc::new(InProcess::default());
        Ok(Index { corpus, embedder, config, parser, remote, state, catalog })
    }

    /// Brings the projections on this machine to the state of the record.
    pub(crate) fn reload(&mut self) -> Result<(), IndexError> {
        let before = match &self.state.projections {
            Loaded::Ready(projections) => Some(projections),
            Loaded::Stale(_) => None,
        };
        let (embedder, remote) = (self.embedder.as_ref(), self.remote.is_some());
        let (state, catalog) = load(&self.corpus, embedder, self.config, remote, before)?;
        (self.state, self.catalog) = (state, Mutex::new(Arc::new(catalog)));
        Ok(())
    }

    /// Brings the server that holds the vectors to the state of the record, if there is one and it can be searched.
    pub(crate) fn bring_forward(
        &mut self,
        held: bool,
        progress: &mut dyn FnMut(usize, usize) -> ControlFlow<()>,
    ) -> Result<(), IndexError> {
        if let (Some(remote), Loaded::Ready(_)) = (&self.remote, &self.state.projections) {
            remote.bring_forward(&self.corpus, held, progress)?;
            self.state.sent = true;
        }
        Ok(())
    }

    /// Compares what the server holds with the record, and where its searches are approximate, `searches` of them
    /// with exact ones; `None` if the vectors are here.
    ///
    /// # Errors
    /// When the server or SQLite fails.
    pub fn check_backend(&self, searches: usize) -> Result<Option<BackendCheck>, IndexError> {
        let check = |r: &Remote| r.check(self.record(), &self.state.chunk_ids, searches);
        self.remote.as_ref().map(check).transpose()
    }

    /// What approximate searches of this process found of what exact ones do, one in 64 being done both ways; `None`
    /// if all are exact.
    pub fn recall(&self) -> Option<Recall> {
        self.remote.as_ref()?.recall()
    }

    /// The server that holds the vectors.
    pub fn server(&self) -> Option<&str> {
        self.remote.as_ref().map(|remote| remote.backend.server())
    }

    /// Builds the projections anew from the record, whatever state they are in.
    ///
    /// # Errors
    /// [`IndexError::Busy`] while another process ingests, and as [`Index::open`].
    pub fn rebuild(&mut self) -> Result<(), IndexError> {
        let _held = self.corpus.lock()?;
        self.corpus.remove_projections()?;
        self.remote.as_ref().map_or(Ok(()), Remote::clear)?;
        self.reload()?;
        self.bring_forward(true, &mut |_, _| ControlFlow::Continue(()))
    }

    /// The documents themselves: to delete them, to say who may read them, to check what is stored.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// How many documents come from another embedder, chunk size or parser; while there are any, searches
    /// are refused.
    pub fn needs_ingest(&self) -> Option<usize> {
        match self.state.projections {
            Loaded::Ready(_) => None,
            Loaded::Stale(documents) => Some(documents),
        }
    }

    /// The documents that were there when the index was opened or has ingested, by path.
    pub fn documents(&self) -> &[DocumentInfo] {
        &self.state.documents
    }

    /// How many chunks these documents have.
    pub fn chunk_count(&self) -> usize {
        self.state.documents.iter().map(|d| d.chunks).sum()
    }

    /// Names everything that decides what a search among these documents returns; see
    /// [`CorpusSnapshot::hash`](crate::CorpusSnapshot::hash).
    pub fn snapshot_hash(&self) -> String {
        self.state.snapshot.clone()
    }

    /// The stored text of a document, which spans refer to; `None` if the viewer sees no such document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn document_text(
        &self,
        path: &str,
        viewer: Viewer<'_>,
    ) -> Result<Option<String>, IndexError> {
        self.record().read(|r| {
            let seen = r.properties_at(path)?.is_some_and(|properties| viewer.sees(&properties));
            if seen { r.text(path) } else { Ok(None) }
        })
    }

    /// Where `quote` stands, if it is what those bytes of a document that the viewer sees are now.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn find_quote(
        &self,
        document: &str,
        span: Range<usize>,
        quote: &str,
        viewer: Viewer<'_>,
    ) -> Result<Option<Place>, IndexError> {
        self.record().read(|r| {
            let seen = r.properties_at(document)?.is_some_and(|p| viewer.sees(&p));
            let text = if seen { r.text(document)? } else { None };
            if text.is_none_or(|text| text.get(span.clone()) != Some(quote)) {
                return Ok(None);
            }
            Ok(Some(Place { pages: assay_text::pages_of(&r.pages(document)?, &span) }))
        })
    }

    /// All chunks of a document, in order, without scores and ranks; none if the viewer sees no such document.
    ///
    /// # Errors
    /// When SQLite fails.
    pub fn chunks(&self, path: &str, viewer: Viewer<'_>) -> Result<Vec<Hit>, IndexError> {
        let chunks = self.record().read(|r| r.chunks_of(path))?;
        let seen = chunks.into_iter().filter(|chunk| viewer.sees(&chunk.properties));
        Ok(seen.map(Hit::unranked).collect())
    }

    pub(crate) fn record(&self) -> &Record {
        &self.corpus.record
    }

    /// The best chunks for a query; fewer than asked for if there are no more.
    ///
    /// Only documents that the viewer sees and that fulfil the filter take part, as if there were no others; but
    /// how rare a word is, BM25 counts in all chunks. What another process has deleted or withdrawn before the
    /// search ends is not returned, and what it has added is not known yet.
    ///
    /// # Errors
    /// [`IndexError::Stale`] if parts of the index come from other settings, [`IndexError::Filter`] for a filter
    /// that makes no sense on these documents, and failures of the embedder or SQLite.
    pub fn search(&self, query: &Query<'_>) -> Result<SearchResult, IndexError> {
        let projections = match &self.state.projections {
            Loaded::Ready(projections) => projections,
            Loaded::Stale(documents) => {
                return Err(IndexError::Stale { documents: *documents });
            }
        };
        if let (Some(remote), false) = (&self.remote, self.state.sent) {
            return Err(remote.behind());
        }
        let began = Instant::now();
        let blank = query.text.trim().is_empty() || self.state.chunk_ids.is_empty();
        let (embedded, truncated) = match query.mode {
            SearchMode::Bm25 => (None, None),
            SearchMode::Hybrid | SearchMode::Reciprocal | SearchMode::Vector if blank => {
                (None, None)
            }
            SearchMode::Hybrid | SearchMode::Reciprocal | SearchMode::Vector => {
                match query.vector {
                    Some(vector) => {
                        let given = checked(self.embedder.as_ref(), 1, vec![vector.to_vec()])?;
                        (given.into_iter().next(), None)
                    }
                    None => {
                        let (vector, truncated) = self.embed_query(query.text)?;
                        (Some(vector), truncated)
                    }
                }
            }
        };
        let embed_ms = if embedded.is_some() { milliseconds(began) } else { 0.0 };

        let began = Instant::now();
        let mut tries = 0;
        loop {
            let (catalog, allowed) = self.allowed(query)?;
            let sequence = catalog.sequence;
            if blank || query.k == 0 || allowed.count() == 0 {
                let search_ms = milliseconds(began);
                return Ok(SearchResult { hits: Vec::new(), embed_ms, search_ms, truncated });
            }
            let documents = self.remote.as_ref().map(|_| catalog.documents(&allowed));
            let elsewhere = self.remote.as_ref().zip(documents.as_ref());
            let elsewhere = elsewhere.map(|(remote, documents)| Elsewhere {
                remote,
                record: self.record(),
                ids: &self.state.chunk_ids,
                numbers: &self.state.numbers,
                documents,
            });
            let (text, vector) = (query.text, embedded.as_deref());
            let found =
                projections.search(text, vector, query.mode, query.k, &allowed, elsewhere.as_ref());
            tries += 1;
            let found = match found {
                // Another process may have removed what was looked for.
                Err(IndexError::Backend(BackendError::Incomplete { .. }))
                    if tries < TRIES && self.record().read(|r| r.sequence())? != sequence =>
                {
                    continue;
                }
                found => found?,
            };
            let (hits, now) = self.resolve(found, query)?;
            if now != sequence && tries < TRIES {
                // What was put in the place of a hit that is gone is found by searching again.
                continue;
            }
            let search_ms = milliseconds(began);
            return Ok(SearchResult { hits, embed_ms, search_ms, truncated });
        }
    }

    /// What the vectors are searched by for a text, and whether it is that of its beginning only.
    ///
    /// # Errors
    /// When the embedder fails.
    pub fn embed_query(
        &self,
        text: &str,
    ) -> Result<(Vec<f32>, Option<TruncatedQuery>), IndexError> {
        let embedder = self.embedder.as_ref();
        let read = embedder.max_tokens();
        // A token has a byte at least: most queries need not be counted.
        let tokens = if text.len() > read / 2 { embedder.count_tokens(text) } else { 0 };
        let truncated = (tokens > read).then_some(TruncatedQuery { tokens, read });
        Ok((checked(embedder, 1, embedder.embed_queries(&[text])?)?.remove(0), truncated))
    }

    /// The vector of a text as if it stood in a document.
    ///
    /// # Errors
    /// When the embedder fails.
    pub fn embed_passage(&self, text: &str) -> Result<Vec<f32>, IndexError> {
        let embedder = self.embedder.as_ref();
        Ok(checked(embedder, 1, embedder.embed(&[text])?)?.remove(0))
    }

    /// What the record says now, and the chunks that a query may find by it.
    fn allowed(&self, query: &Query<'_>) -> Result<(Arc<Catalog>, Bits), IndexError> {
        let catalog = self.record().read(|r| self.catalog_now(r))?;
        let allowed = catalog.chunks(query.viewer, query.filter)?;
        Ok((catalog, allowed))
    }

    /// The catalogue, with what other processes have changed.
    fn catalog_now(&self, r: &Reader<'_>) -> Result<Arc<Catalog>, IndexError> {
        let sequence = r.sequence()?;
        let mut catalog = self.catalog.lock().unwrap_or_else(PoisonError::into_inner);
        // A thread with an older view of the record must not take anything back.
        if catalog.sequence < sequence {
            let mut changed = Vec::new();
            match r.changed_since(catalog.sequence)? {
                Some(ids) => {
                    for id in ids {
                        changed.push((id, r.properties_of(id)?));
                    }
                }
                None => {
                    let mut now: std::collections::HashMap<i64, Properties> =
                        r.documents()?.into_iter().map(|row| (row.id, row.properties)).collect();
                    changed.extend(catalog.ids().map(|id| (id, now.remove(&id))));
                }
            }
            let catalog = Arc::make_mut(&mut catalog);
            changed.into_iter().for_each(|(id, properties)| catalog.update(id, properties));
            catalog.sequence = sequence;
        }
        Ok(catalog.clone())
    }

    /// The chunks with their texts, without those that the record no longer has or allows, and the number of its
    /// last change.
    fn resolve(&self, found: Vec<Found>, query: &Query<'_>) -> Result<(Vec<Hit>, i64), IndexError> {
        self.record().read(|r| {
            let mut hits = Vec::with_capacity(found.len());
            for Found { chunk, score, bm25_rank, vector_rank } in found {
                let Some(stored) = r.chunk(self.state.chunk_ids[chunk as usize])? else { continue };
                let fits = match query.filter {
                    Some(filter) => filter.matches(&stored.properties.metadata)?,
                    None => true,
                };
                if fits && query.viewer.sees(&stored.properties) {
                    hits.push(Hit { score, bm25_rank, vector_rank, ..Hit::unranked(stored) });
                }
            }
            Ok((hits, r.sequence()?))
        })
    }
}

impl Hit {
    pub(crate) fn unranked(stored: StoredChunk) -> Self {
        let StoredChunk {
            path,
            content_hash,
            title,
            span,
            heading_path,
            pages,
            text,
            properties: _,
        } = stored;
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
            pages,
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
    if !config.contextual_headers {
        hasher.update(b" without headers");
    }
    hasher.finalize().to_hex().to_string()
}

/// The size of chunks: as configured, but never more than the embedder reads.
pub(crate) fn chunk_tokens(embedder: &dyn Embed, config: IndexConfig) -> usize {
    config.chunk_tokens.min(embedder.max_tokens())
}

fn load(
    corpus: &Corpus,
    embedder: &dyn Embed,
    config: IndexConfig,
    remote: bool,
    before: Option<&Projections>,
) -> Result<(State, Catalog), IndexError> {
    let settings = settings(embedder, config);
    corpus.record.read(|r| {
        let rows = r.documents()?;
        let snapshot = snapshot_hash(&settings, &rows);
        let stale = rows.iter().filter(|row| row.settings != settings).count();
        let mut chunk_ids = Vec::new();
        let projections = if stale > 0 {
            Loaded::Stale(stale)
        } else {
            chunk_ids = r.chunk_ids()?;
            let dims = if remote { 0 } else { embedder.dims() };
            let settings = Settings { key: &settings, dims, bm25: config.bm25 };
            let headers = config.contextual_headers;
            Loaded::Ready(project(&corpus.segments(), r, &settings, headers, &rows, before)?)
        };
        let described = rows.iter().map(|row| (row.id, row.chunks as u32, row.properties.clone()));
        let catalog = Catalog::new(r.sequence()?, described);
        let documents = rows
            .into_iter()
            .map(|row| DocumentInfo {
                path: row.path,
                content_hash: row.content_hash,
                bytes: row.bytes,
                chunks: row.chunks,
                title: row.title,
                properties: row.properties,
            })
            .collect();
        let mut numbers: Vec<(i64, u32)> = match remote {
            true => chunk_ids.iter().copied().zip(0..).collect(),
            false => Vec::new(),
        };
        numbers.sort_unstable();
        Ok((State { documents, chunk_ids, numbers, snapshot, projections, sent: !remote }, catalog))
    })
}

fn project(
    dir: &Path,
    record: &Reader<'_>,
    settings: &Settings<'_>,
    headers: bool,
    rows: &[DocumentRow],
    before: Option<&Projections>,
) -> Result<Projections, IndexError> {
    let content = |source: &Source<'_>| {
        let chunks = record.chunks_of(source.path)?;
        let texts = chunks.into_iter().map(|chunk| lexical_text(chunk, headers)).collect();
        let vectors = match settings.dims {
            0 => Vec::new(),
            dims => record.vectors_of(source.id, dims)?,
        };
        Ok(Content { texts, vectors })
    };
    let sources: Vec<Source<'_>> = rows
        .iter()
        .map(|row| Source {
            id: row.id,
            path: &row.path,
            content_hash: &row.content_hash,
            chunks: row.chunks,
        })
        .collect();
    Projections::open(dir, before, settings, &sources, &content)
}

/// Names the documents, how they were indexed, and who may see them.
pub(crate) fn snapshot_hash(settings: &str, rows: &[DocumentRow]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(settings.as_bytes());
    for row in rows {
        for part in [&row.path, &row.content_hash] {
            hasher.update(part.as_bytes()).update(&[0]);
        }
        if row.properties != Properties::default() {
            // Text keys, texts and finite numbers always serialise.
            let properties = serde_json::to_string(&row.properties).unwrap_or_default();
            hasher.update(properties.as_bytes()).update(&[0]);
        }
    }
    hasher.finalize().to_hex().to_string()
}

/// What BM25 reads of a chunk.
fn lexical_text(chunk: StoredChunk, headers: bool) -> String {
    if !headers {
        return chunk.text;
    }
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
