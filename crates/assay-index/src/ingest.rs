//! Bringing the record to the state of a folder.
//!
//! Documents that are gone or no longer readable are forgotten first. Then changed files are parsed and
//! chunked one after the other; when enough texts wait for the embedder, they are embedded in batches, each
//! batch is committed under the hashes of its texts, and the documents whose chunks now all have vectors are
//! committed together. A crash therefore loses one batch at most, and every state in between is one that
//! can be searched.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use assay_text::{Format, Parsed};
use fs_err as fs;

use crate::embed::checked;
use crate::folder::{Front, Rules, SIDECAR};
use crate::index::{chunk_tokens, context, settings};
use crate::record::{DocumentRow, EmbeddingKey, NewChunk, NewDocument};
use crate::{Embed, Index, IndexError, Properties};

/// Texts that are embedded and committed together.
const BATCH: usize = 64;
/// Texts that are collected before batches are made of them, and bytes of documents that wait for that.
const WAITING_TEXTS: usize = 4 * BATCH;
const WAITING_BYTES: usize = 32 << 20;

/// How far an ingest is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IngestProgress<'a> {
    /// Files dealt with.
    pub done: usize,
    /// Files in the folder.
    pub total: usize,
    /// The file that was read last, relative to the folder.
    pub path: &'a str,
    /// Embeddings computed so far.
    pub embeddings_computed: usize,
}

/// What an ingest did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestReport {
    /// One entry for each file of the folder, by path; fewer only if interrupted.
    pub ledger: Vec<LedgerEntry>,
    /// Files in the folder.
    pub files: usize,
    /// Documents that were not there before.
    pub added: usize,
    /// Documents that were there with other content or from other settings.
    pub changed: usize,
    /// Documents that stayed.
    pub unchanged: usize,
    /// Those of them of which the folder now says something else: metadata, access or tenant.
    pub described: usize,
    /// Documents that are no longer there, or no longer readable.
    pub removed: usize,
    /// Chunks in the index now.
    pub chunks: usize,
    /// Texts that went through the embedder.
    pub embeddings_computed: usize,
    /// Whether the callback stopped it. The index holds what was done; ingesting again does the rest.
    pub interrupted: bool,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Path relative to the folder, with `/`; what is not UTF-8 in it is replaced.
    pub path: String,
    /// What became of it.
    pub outcome: IngestOutcome,
}

/// What became of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IngestOutcome {
    /// It can be found.
    Parsed {
        /// How many chunks it has.
        chunks: usize,
        /// Characters of its text that are not white space.
        chars: usize,
        /// Those of them that are in chunks: all.
        chars_in_chunks: usize,
    },
    /// It holds no text.
    Empty,
    /// It is not of a format that is read.
    Skipped {
        /// Why.
        reason: String,
    },
    /// It should have been read and could not be.
    Failed {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for IngestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IngestOutcome::Parsed { chunks, chars, .. } => {
                write!(f, "parsed ({chunks} chunks, {chars} characters)")
            }
            IngestOutcome::Empty => f.write_str("empty"),
            IngestOutcome::Skipped { reason } => write!(f, "skipped ({reason})"),
            IngestOutcome::Failed { reason } => write!(f, "failed ({reason})"),
        }
    }
}

impl Index {
    /// Brings the index to the state of `folder`: `*.md`, `*.markdown`, `*.html`, `*.htm` and `*.txt` in it
    /// and below, through symbolic links, without hidden files. The result is that of a new index,
    /// whatever was there before and however often it was interrupted.
    ///
    /// What is known of documents beside their text comes from the front matter of Markdown and from
    /// `assay-docs.toml` in the folder. A content that was deleted by hand is skipped.
    ///
    /// A file that cannot be read is no error but an entry of the ledger. `progress` is called after each
    /// file and each batch of embeddings, and stops the ingest by returning `Break`.
    ///
    /// # Errors
    /// [`IndexError::NotAFolder`], [`IndexError::NoDocuments`], [`IndexError::Sidecar`] (the index is then left as
    /// it is), [`IndexError::Busy`], and failures of the embedder, SQLite or the file system.
    pub fn ingest(
        &mut self,
        folder: &Path,
        progress: &mut dyn FnMut(IngestProgress<'_>) -> ControlFlow<()>,
    ) -> Result<IngestReport, IndexError> {
        if !folder.is_dir() {
            return Err(IndexError::NotAFolder { path: folder.to_owned() });
        }
        let files = walk(folder);
        if !files.iter().any(|f| matches!(f.source, Source::Readable(..))) {
            let skipped = files.len();
            return Err(IndexError::NoDocuments { path: folder.to_owned(), skipped });
        }
        let rules = Rules::read(folder)?;
        let _held = self.corpus.lock()?;
        let done = Run::new(self, rules, progress, files.len()).and_then(|run| run.ingest(files));
        // Also after a failure: what was committed before it counts.
        self.reload()?;
        let mut report = done?;
        report.chunks = self.chunk_count();
        Ok(report)
    }
}

struct File {
    /// Relative to the folder, with `/`.
    path: String,
    source: Source,
}

enum Source {
    Readable(PathBuf, Format),
    Not(IngestOutcome),
}

/// All files below `folder`, by path.
fn walk(folder: &Path) -> Vec<File> {
    let visible = |e: &walkdir::DirEntry| {
        e.depth() == 0 || !e.file_name().as_encoded_bytes().starts_with(b".")
    };
    let relative = |path: &Path| path.strip_prefix(folder).unwrap_or(path).to_owned();
    let mut files: Vec<File> = Vec::new();
    for entry in walkdir::WalkDir::new(folder).follow_links(true).into_iter().filter_entry(visible)
    {
        let (path, source) = match entry {
            Ok(entry) if entry.file_type().is_dir() => continue,
            Ok(entry) => (relative(entry.path()), classify(&entry)),
            Err(error) => {
                let path = error.path().map(relative).unwrap_or_default();
                let reason = match (error.loop_ancestor(), error.io_error()) {
                    (Some(_), _) => "a symbolic link to a folder that it is in".to_owned(),
                    (None, Some(io)) => io.to_string(),
                    (None, None) => error.to_string(),
                };
                (path, Source::Not(IngestOutcome::Failed { reason }))
            }
        };
        let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
        files.push(File { path: parts.join("/"), source });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

fn classify(entry: &walkdir::DirEntry) -> Source {
    let Some(format) = Format::of_path(entry.path()) else {
        let reason = match entry.path().extension() {
            Some(e) => format!("*.{} is not read", e.to_string_lossy()),
            None => "no extension".to_owned(),
        };
        return Source::Not(IngestOutcome::Skipped { reason });
    };
    if !entry.file_type().is_file() {
        let reason = "not a regular file".to_owned();
        return Source::Not(IngestOutcome::Skipped { reason });
    }
    if entry.path().to_str().is_none() {
        let reason = "the path is not UTF-8".to_owned();
        return Source::Not(IngestOutcome::Failed { reason });
    }
    Source::Readable(entry.path().to_owned(), format)
}

/// One ingest.
struct Run<'a> {
    index: &'a Index,
    rules: Rules,
    settings: String,
    progress: &'a mut dyn FnMut(IngestProgress<'_>) -> ControlFlow<()>,
    /// Documents of the record that have not been met in the folder.
    known: HashMap<String, DocumentRow>,
    report: IngestReport,
    /// Documents that wait for the vectors of their chunks.
    waiting: Vec<NewDocument>,
    waiting_bytes: usize,
    /// How many of them replace another version.
    waiting_changed: usize,
    /// Documents that stay, by their ids, with what the folder now says of them.
    described: Vec<(i64, Properties)>,
    /// Texts without a vector, of those documents, each once.
    missing: Vec<(EmbeddingKey, String)>,
    missing_keys: HashSet<EmbeddingKey>,
}

impl<'a> Run<'a> {
    fn new(
        index: &'a Index,
        rules: Rules,
        progress: &'a mut dyn FnMut(IngestProgress<'_>) -> ControlFlow<()>,
        files: usize,
    ) -> Result<Self, IndexError> {
        let rows = index.corpus.record.read(|r| r.documents())?;
        Ok(Run {
            settings: settings(index.embedder.as_ref(), index.config),
            index,
            rules,
            progress,
            known: rows.into_iter().map(|row| (row.path.clone(), row)).collect(),
            report: IngestReport {
                ledger: Vec::with_capacity(files),
                files,
                added: 0,
                changed: 0,
                unchanged: 0,
                described: 0,
                removed: 0,
                chunks: 0,
                embeddings_computed: 0,
                interrupted: false,
            },
            waiting: Vec::new(),
            waiting_bytes: 0,
            waiting_changed: 0,
            described: Vec::new(),
            missing: Vec::new(),
            missing_keys: HashSet::new(),
        })
    }

    fn ingest(mut self, files: Vec<File>) -> Result<IngestReport, IndexError> {
        let present: HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        let gone: Vec<String> =
            self.known.keys().filter(|path| !present.contains(path.as_str())).cloned().collect();
        let gone = gone.iter().filter_map(|path| self.known.remove(path)).collect();
        self.forget(gone)?;
        let readable = files.iter().filter(|f| matches!(f.source, Source::Readable(..)));
        let unused = self.rules.without_documents(readable.map(|f| f.path.as_str())).join(", ");

        for file in files {
            let path = file.path.clone();
            let outcome = match path.as_str() {
                SIDECAR => sidecar(&unused),
                _ => self.file(file)?,
            };
            if !matches!(outcome, IngestOutcome::Parsed { .. }) {
                let gone = self.known.remove(&path).into_iter().collect();
                self.forget(gone)?;
            }
            self.report.ledger.push(LedgerEntry { path, outcome });
            let full = self.missing.len() >= WAITING_TEXTS
                || self.waiting_bytes >= WAITING_BYTES
                || self.described.len() >= WAITING_TEXTS;
            let mut go_on = self.tell();
            if full && go_on.is_continue() {
                go_on = self.flush()?;
            }
            if go_on.is_break() {
                return Ok(self.interrupted());
            }
        }
        if self.flush()?.is_break() {
            return Ok(self.interrupted());
        }
        self.index.corpus.record.prune_embeddings()?;
        Ok(self.report)
    }

    fn interrupted(mut self) -> IngestReport {
        self.report.interrupted = true;
        self.report
    }

    fn tell(&mut self) -> ControlFlow<()> {
        (self.progress)(IngestProgress {
            done: self.report.ledger.len(),
            total: self.report.files,
            path: self.report.ledger.last().map_or("", |entry| &entry.path),
            embeddings_computed: self.report.embeddings_computed,
        })
    }

    fn forget(&mut self, rows: Vec<DocumentRow>) -> Result<(), IndexError> {
        self.report.removed += rows.len();
        self.index
            .corpus
            .record
            .remove_documents(&rows.iter().map(|row| row.id).collect::<Vec<_>>())
    }

    /// Reads a file and puts it among the waiting documents if it is new.
    fn file(&mut self, file: File) -> Result<IngestOutcome, IndexError> {
        let (source, format) = match file.source {
            Source::Not(outcome) => return Ok(outcome),
            Source::Readable(source, format) => (source, format),
        };
        let bytes = match read(&source, self.index.config.max_file_bytes) {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(IngestOutcome::Failed { reason }),
        };
        // Of the bytes that were read, so that a file that changes meanwhile is met again next time.
        let content_hash = blake3::hash(&bytes).to_hex().to_string();
        if self.index.corpus.record.read(|r| r.is_deleted(&file.path, &content_hash))? {
            let reason = "deleted by hand; restore it to have it again".to_owned();
            return Ok(IngestOutcome::Skipped { reason });
        }
        let same =
            |row: &DocumentRow| row.content_hash == content_hash && row.settings == self.settings;
        if self.known.get(&file.path).is_some_and(same) {
            return self.unchanged(&file.path, format);
        }
        let parsed = match assay_text::parse(&bytes, format) {
            Ok(parsed) if parsed.is_blank() => return Ok(IngestOutcome::Empty),
            Ok(parsed) => parsed,
            Err(e) => {
                return Ok(IngestOutcome::Failed { reason: format!("{e}; {}", e.hint()) });
            }
        };
        match self.properties(&file.path, format, &parsed.text) {
            Ok(properties) => {
                self.add(file.path, content_hash, bytes.len() as u64, parsed, properties)
            }
            Err(reason) => Ok(IngestOutcome::Failed { reason }),
        }
    }

    /// What the folder says of a document.
    fn properties(&self, path: &str, format: Format, text: &str) -> Result<Properties, String> {
        let front = match format {
            Format::Markdown => Front::of_markdown(text)?,
            Format::Html | Format::Text => Front::default(),
        };
        Ok(self.rules.properties(path, front))
    }

    fn unchanged(&mut self, path: &str, format: Format) -> Result<IngestOutcome, IndexError> {
        let (text, chunks) = self
            .index
            .corpus
            .record
            .read(|r| Ok((r.text(path)?.unwrap_or_default(), r.chunks_of(path)?)))?;
        let properties = match self.properties(path, format, &text) {
            Ok(properties) => properties,
            Err(reason) => return Ok(IngestOutcome::Failed { reason }),
        };
        if let Some(row) = self.known.remove(path) {
            self.report.unchanged += 1;
            if row.said() != properties {
                self.report.described += 1;
                self.described.push((row.id, properties));
            }
        }
        Ok(parsed_outcome(&text, chunks.iter().map(|c| c.span.clone())))
    }

    fn add(
        &mut self,
        path: String,
        content_hash: String,
        bytes: u64,
        parsed: Parsed,
        properties: Properties,
    ) -> Result<IngestOutcome, IndexError> {
        let embedder = self.index.embedder.as_ref();
        let count = |text: &str| embedder.count_tokens(text);
        let pieces = assay_text::chunk(&parsed, chunk_tokens(embedder, self.index.config), &count);
        let outcome = parsed_outcome(&parsed.text, pieces.iter().map(|c| c.span.clone()));
        let mut chunks = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let text = &parsed.text[piece.span.clone()];
            let text = embedded_text(embedder, parsed.title.as_deref(), &piece.heading_path, text);
            let key = embedding_key(embedder, &text);
            if !self.missing_keys.contains(&key)
                && !self.index.corpus.record.read(|r| r.has_embedding(&key))?
            {
                self.missing_keys.insert(key);
                self.missing.push((key, text));
            }
            let heading_path = piece.heading_path;
            chunks.push(NewChunk { span: piece.span, heading_path, embedding: key });
        }
        if self.known.remove(&path).is_some() {
            self.waiting_changed += 1;
        }
        self.waiting_bytes += parsed.text.len();
        let (title, text) = (parsed.title, parsed.text);
        self.waiting.push(NewDocument {
            path,
            content_hash,
            bytes,
            title,
            text,
            properties,
            chunks,
        });
        Ok(outcome)
    }

    /// Embeds what is missing and stores the documents that wait.
    fn flush(&mut self) -> Result<ControlFlow<()>, IndexError> {
        let index = self.index;
        // First, for it may withdraw something.
        index.corpus.record.put_properties(&std::mem::take(&mut self.described))?;
        let missing = std::mem::take(&mut self.missing);
        for batch in missing.chunks(BATCH) {
            let texts: Vec<&str> = batch.iter().map(|(_, text)| text.as_str()).collect();
            let embedder = index.embedder.as_ref();
            let vectors = checked(embedder, texts.len(), embedder.embed(&texts)?)?;
            let keys = batch.iter().map(|(key, _)| *key);
            index.corpus.record.put_embeddings(&keys.zip(vectors).collect::<Vec<_>>())?;
            self.report.embeddings_computed += batch.len();
            if self.tell().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        index.corpus.record.put_documents(&self.settings, &self.waiting)?;
        self.report.added += self.waiting.len() - self.waiting_changed;
        self.report.changed += self.waiting_changed;
        self.missing_keys.clear();
        self.waiting.clear();
        self.waiting_bytes = 0;
        self.waiting_changed = 0;
        Ok(ControlFlow::Continue(()))
    }
}

/// The entry of the file that says who may read what: also which of its patterns say it of nothing.
fn sidecar(unused: &str) -> IngestOutcome {
    let reason = match unused {
        "" => "describes the other documents".to_owned(),
        unused => format!("describes the other documents; matching none: {unused}"),
    };
    IngestOutcome::Skipped { reason }
}

/// The bytes of a file, unless there are more than `limit`.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let plain = |e: std::io::Error| e.to_string();
    let file = fs::File::open(path).map_err(plain)?;
    file.take(limit + 1).read_to_end(&mut bytes).map_err(plain)?;
    if bytes.len() as u64 > limit {
        return Err(format!("larger than the limit of {limit} bytes"));
    }
    Ok(bytes)
}

fn parsed_outcome(
    text: &str,
    spans: impl ExactSizeIterator<Item = std::ops::Range<usize>>,
) -> IngestOutcome {
    let visible = |text: &str| text.chars().filter(|c| !c.is_whitespace()).count();
    IngestOutcome::Parsed {
        chunks: spans.len(),
        chars: visible(text),
        chars_in_chunks: spans.map(|span| text.get(span).map_or(0, visible)).sum(),
    }
}

/// What is embedded of a chunk: as much of its context as the embedder reads, innermost first, then the
/// chunk itself.
fn embedded_text(
    embedder: &dyn Embed,
    title: Option<&str>,
    heading_path: &[String],
    text: &str,
) -> String {
    let lines = context(title, heading_path, text);
    (0..=lines.len())
        .map(|dropped| [&lines[dropped..], &[text]].concat().join("\n"))
        .find(|text| embedder.count_tokens(text) <= embedder.max_tokens())
        .unwrap_or_else(|| text.to_owned())
}

fn embedding_key(embedder: &dyn Embed, text: &str) -> EmbeddingKey {
    let mut hasher = blake3::Hasher::new();
    hasher.update(embedder.id().as_bytes()).update(&[0]).update(text.as_bytes());
    *hasher.finalize().as_bytes()
}
