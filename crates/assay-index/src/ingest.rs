//! Bringing the record to the state of a folder.
//!
//! Documents that are gone or no longer readable are forgotten first. Then changed files are parsed and
//! chunked one after the other; when enough texts wait for the embedder, they are embedded in batches, each
//! batch is committed under the hashes of its texts, and the documents whose chunks now all have vectors are
//! committed together. A crash therefore loses one batch at most, and every state in between is one that
//! can be searched.

use std::collections::{HashMap, HashSet};
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use assay_text::{Detected, Format, Parsed};
use fs_err as fs;

use crate::document;
use crate::embed::checked;
use crate::folder::{Front, Rules, SIDECAR};
use crate::index::{chunk_tokens, context, settings};
use crate::ledger::{self, IngestOutcome, LedgerEntry};
use crate::record::{DocumentRow, EmbeddingKey, NewChunk, NewDocument};
use crate::{BackendError, Embed, Index, IndexError, Properties};

/// Texts that are embedded and committed together.
const BATCH: usize = 64;
/// Texts that are collected before batches are made of them, and bytes of documents that wait for that.
const WAITING_TEXTS: usize = 4 * BATCH;
const WAITING_BYTES: usize = 32 << 20;
/// Bytes that tell a format, where there is no extension.
const START: u64 = 1024;

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

impl Index {
    /// Brings the index to the state of `folder`: all files of a known format in it and below, through
    /// symbolic links, without hidden files. The result is that of a new index,
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
        if !files.iter().any(File::is_candidate) {
            let skipped = files.len();
            return Err(IndexError::NoDocuments { path: folder.to_owned(), skipped });
        }
        let rules = Rules::read(folder)?;
        let _held = self.corpus.lock()?;
        let done = Run::new(self, rules, progress, files.len()).and_then(|run| run.ingest(files));
        // Also after a failure: what was committed before it counts.
        self.reload()?;
        let mut report = done?;
        if !report.interrupted {
            let (done, total) = (report.ledger.len(), report.files);
            let embeddings_computed = report.embeddings_computed;
            let sent = self.bring_forward(true, &mut |_, _| {
                progress(IngestProgress { done, total, path: "", embeddings_computed })
            });
            report.interrupted = match sent {
                Err(IndexError::Backend(BackendError::Behind { .. })) => true,
                sent => sent.map(|()| false)?,
            };
        }
        report.chunks = self.chunk_count();
        Ok(report)
    }
}

struct File {
    /// Relative to the folder, with `/`.
    path: String,
    source: Source,
}

impl File {
    /// Whether it is tried as a document.
    fn is_candidate(&self) -> bool {
        self.path != SIDECAR && matches!(self.source, Source::Candidate(..))
    }
}

enum Source {
    /// By its extension or its first bytes it can be read.
    Candidate(PathBuf),
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
    if !entry.file_type().is_file() {
        let reason = "not a regular file".to_owned();
        return Source::Not(IngestOutcome::Skipped { reason });
    }
    if entry.path().to_str().is_none() {
        let reason = "the path is not UTF-8".to_owned();
        return Source::Not(IngestOutcome::Failed { reason });
    }
    if Format::of_path(entry.path()).is_none() {
        // Large files of no known format are not read whole to find that out.
        let mut start = Vec::new();
        let read =
            fs::File::open(entry.path()).and_then(|file| file.take(START).read_to_end(&mut start));
        if let Err(e) = read {
            return Source::Not(IngestOutcome::Failed { reason: e.to_string() });
        }
        if let Detected::Unread { reason } = assay_text::detect(entry.path(), &start)
            && !assay_text::is_container(&start)
        {
            return Source::Not(IngestOutcome::Skipped { reason });
        }
    }
    Source::Candidate(entry.path().to_owned())
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
    /// What the ledger says about files that were dealt with since the last commit.
    entries: Vec<LedgerEntry>,
    /// The first file with this content.
    contents: HashMap<String, String>,
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
            entries: Vec::new(),
            contents: HashMap::new(),
        })
    }

    fn ingest(mut self, files: Vec<File>) -> Result<IngestReport, IndexError> {
        let present: HashSet<&str> = files.iter().map(|f| f.path.as_str()).collect();
        let gone: Vec<String> =
            self.known.keys().filter(|path| !present.contains(path.as_str())).cloned().collect();
        let gone = gone.iter().filter_map(|path| self.known.remove(path)).collect();
        self.forget(gone)?;
        self.index.corpus.record.keep_ledger_of(&present)?;
        let candidates = files.iter().filter(|f| f.is_candidate());
        let unused = self.rules.without_documents(candidates.map(|f| f.path.as_str())).join(", ");

        for file in files {
            let entry = match file.path.as_str() {
                SIDECAR => LedgerEntry::of(file.path, sidecar(&unused)),
                _ => self.file(file)?,
            };
            if !matches!(entry.outcome, IngestOutcome::Parsed { .. }) {
                let gone = self.known.remove(&entry.path).into_iter().collect();
                self.forget(gone)?;
            }
            self.entries.push(entry.clone());
            self.report.ledger.push(entry);
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
    fn file(&mut self, file: File) -> Result<LedgerEntry, IndexError> {
        let path = file.path;
        let source = match file.source {
            Source::Not(outcome) => return Ok(LedgerEntry::of(path, outcome)),
            Source::Candidate(source) => source,
        };
        let bytes = match document::load(&source, self.index.config.max_file_bytes) {
            Ok(bytes) => bytes,
            Err(reason) => return Ok(LedgerEntry::of(path, IngestOutcome::Failed { reason })),
        };
        // Of the bytes that were read, so that a file that changes meanwhile is met again next time.
        let content_hash = blake3::hash(&bytes).to_hex().to_string();
        if self.index.corpus.record.read(|r| r.is_deleted(&path, &content_hash))? {
            let reason = "deleted by hand; restore it to have it again".to_owned();
            return Ok(LedgerEntry::of(path, IngestOutcome::Skipped { reason }));
        }
        let first = self.contents.entry(content_hash.clone()).or_insert_with(|| path.clone());
        let same_as = Some(first.clone()).filter(|first| *first != path && !bytes.is_empty());
        let same =
            |row: &DocumentRow| row.content_hash == content_hash && row.settings == self.settings;
        if self.known.get(&path).is_some_and(same)
            && let Some(entry) = self.index.corpus.record.read(|r| r.ledger_entry(&path))?
        {
            return self.unchanged(LedgerEntry { same_as, ..entry });
        }

        let document::Read { mut entry, text } =
            document::parse(path, &source, &bytes, self.index.parser.as_ref())?;
        entry.same_as = same_as;
        if let Some(parsed) = text {
            match self.properties(&entry, &parsed.text) {
                Ok(properties) => {
                    self.add(&mut entry, content_hash, bytes.len() as u64, parsed, properties)?;
                }
                Err(reason) => entry.outcome = IngestOutcome::Failed { reason },
            }
        }
        Ok(entry)
    }

    /// What the folder says of a document.
    fn properties(&self, entry: &LedgerEntry, text: &str) -> Result<Properties, String> {
        let front = if is_markdown(entry) { Front::of_markdown(text)? } else { Front::default() };
        Ok(self.rules.properties(&entry.path, front))
    }

    fn unchanged(&mut self, mut entry: LedgerEntry) -> Result<LedgerEntry, IndexError> {
        let text = if is_markdown(&entry) {
            self.index.corpus.record.read(|r| r.text(&entry.path))?.unwrap_or_default()
        } else {
            String::new()
        };
        let properties = match self.properties(&entry, &text) {
            Ok(properties) => properties,
            Err(reason) => {
                entry.outcome = IngestOutcome::Failed { reason };
                return Ok(entry);
            }
        };
        if let Some(row) = self.known.remove(&entry.path) {
            self.report.unchanged += 1;
            if row.said() != properties {
                self.report.described += 1;
                self.described.push((row.id, properties));
            }
        }
        Ok(entry)
    }

    /// Chunks a text, and puts it among the waiting documents if all of it is in chunks.
    fn add(
        &mut self,
        entry: &mut LedgerEntry,
        content_hash: String,
        bytes: u64,
        parsed: Parsed,
        properties: Properties,
    ) -> Result<(), IndexError> {
        let embedder = self.index.embedder.as_ref();
        let count = |text: &str| embedder.count_tokens(text);
        let pieces = assay_text::chunk(&parsed, chunk_tokens(embedder, self.index.config), &count);
        let spans: Vec<_> = pieces.iter().map(|c| c.span.clone()).collect();
        entry.outcome = ledger::outcome(&parsed, &spans);
        if !matches!(entry.outcome, IngestOutcome::Parsed { .. }) {
            return Ok(());
        }
        let mut chunks = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let text = &parsed.text[piece.span.clone()];
            let text = if self.index.config.contextual_headers {
                embedded_text(embedder, parsed.title.as_deref(), &piece.heading_path, text)
            } else {
                text.to_owned()
            };
            let key = embedding_key(embedder, &text);
            if !self.missing_keys.contains(&key)
                && !self.index.corpus.record.read(|r| r.has_embedding(&key))?
            {
                self.missing_keys.insert(key);
                self.missing.push((key, text));
            }
            let assay_text::Chunk { span, heading_path, pages } = piece;
            chunks.push(NewChunk { span, heading_path, pages, embedding: key });
        }
        if self.known.remove(&entry.path).is_some() {
            self.waiting_changed += 1;
        }
        self.waiting_bytes += parsed.text.len();
        self.waiting.push(NewDocument {
            path: entry.path.clone(),
            content_hash,
            bytes,
            title: parsed.title,
            text: parsed.text,
            pages: parsed.pages,
            properties,
            chunks,
        });
        Ok(())
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
        let entries = std::mem::take(&mut self.entries);
        index.corpus.record.put_documents(&self.settings, &self.waiting, &entries)?;
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

fn is_markdown(entry: &LedgerEntry) -> bool {
    entry.format.as_deref() == Some(Format::Markdown.name())
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
