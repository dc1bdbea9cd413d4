//! The truth: documents, chunks and embeddings in one SQLite file.
//!
//! WAL with `synchronous = FULL`: what a commit acknowledged survives a crash and a power cut. Ids of documents
//! and chunks are never used twice, so an id that is gone from the table cannot mean another one.
//!
//! Every committed change of what can be found has a number in `changes`, ascending for ever: who remembers the
//! last one that it has seen learns from one look whether it is behind, and from the rows after it of what.

mod projected;

use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::IndexError;
use crate::ledger::{self, LedgerEntry};
use crate::properties::Properties;

/// Changes with the tables and with the meaning of what they hold.
const FORMAT: i64 = 3;
/// "asix", so that another program's database is not taken for ours.
const APPLICATION: i64 = 0x6173_6978;
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// What bf16 products leave of norm 1, and more.
const NORM_ERROR: f64 = 0.02;
/// Changes that are remembered; who is further behind looks at everything.
const CHANGES_KEPT: i64 = 1 << 16;

const SCHEMA: &str = "
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL UNIQUE,
        content_hash TEXT NOT NULL,
        settings TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        title TEXT,
        metadata TEXT NOT NULL,
        -- A JSON list of principals; NULL is everyone.
        allow TEXT,
        tenant TEXT,
        -- A JSON list of spans of the text; NULL where the format has no pages.
        pages TEXT,
        -- Last, so that the other columns are read without it.
        text TEXT NOT NULL
    ) STRICT;
    CREATE TABLE embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        start INTEGER NOT NULL,
        end INTEGER NOT NULL,
        heading_path TEXT NOT NULL,
        first_page INTEGER,
        last_page INTEGER,
        hash BLOB NOT NULL,
        embedding BLOB NOT NULL REFERENCES embeddings
    ) STRICT;
    CREATE UNIQUE INDEX chunks_in_order ON chunks (document, start);
    CREATE INDEX chunks_by_embedding ON chunks (embedding);
    -- Access that was set by hand, and stays whatever the folder says.
    CREATE TABLE access (path TEXT PRIMARY KEY, allow TEXT) STRICT;
    -- Contents that were deleted by hand, and stay away though the folder has them.
    CREATE TABLE deleted (
        path TEXT NOT NULL,
        content_hash TEXT NOT NULL,
        PRIMARY KEY (path, content_hash)
    ) STRICT;
    CREATE TABLE changes (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL
    ) STRICT;
";

/// blake3 of the embedder's id and the embedded text.
pub(crate) type EmbeddingKey = [u8; 32];

/// A document ready to be stored.
pub(crate) struct NewDocument {
    pub(crate) path: String,
    pub(crate) content_hash: String,
    pub(crate) bytes: u64,
    pub(crate) title: Option<String>,
    pub(crate) text: String,
    pub(crate) pages: Vec<Range<usize>>,
    pub(crate) properties: Properties,
    pub(crate) chunks: Vec<NewChunk>,
}

pub(crate) struct NewChunk {
    pub(crate) span: Range<usize>,
    pub(crate) heading_path: Vec<String>,
    pub(crate) pages: Option<RangeInclusive<u32>>,
    pub(crate) embedding: EmbeddingKey,
}

/// A stored document without its text.
pub(crate) struct DocumentRow {
    pub(crate) id: i64,
    pub(crate) path: String,
    pub(crate) content_hash: String,
    pub(crate) settings: String,
    pub(crate) bytes: u64,
    pub(crate) title: Option<String>,
    pub(crate) chunks: usize,
    /// With the access that was set by hand.
    pub(crate) properties: Properties,
    /// As the folder says, where something else was set by hand.
    pub(crate) overridden: Option<Option<Vec<String>>>,
}

impl DocumentRow {
    /// What the folder says of the document.
    pub(crate) fn said(&self) -> Properties {
        let allow = self.overridden.clone().unwrap_or_else(|| self.properties.allow.clone());
        Properties { allow, ..self.properties.clone() }
    }
}

/// A chunk with what its document says about it.
pub(crate) struct StoredChunk {
    pub(crate) path: String,
    pub(crate) content_hash: String,
    pub(crate) title: Option<String>,
    pub(crate) span: Range<usize>,
    pub(crate) heading_path: Vec<String>,
    pub(crate) pages: Option<RangeInclusive<u32>>,
    pub(crate) text: String,
    pub(crate) properties: Properties,
}

pub(crate) struct Record {
    path: PathBuf,
    db: Mutex<Connection>,
}

impl Record {
    /// Opens or creates the database.
    pub(crate) fn open(path: &Path) -> Result<Self, IndexError> {
        let failed = |source| IndexError::Database { path: path.to_owned(), source };
        let mut db = Connection::open(path).map_err(failed)?;
        let found = prepare(&mut db).map_err(failed)?;
        if found != FORMAT {
            let path = path.to_owned();
            return Err(IndexError::Format { path, found, expected: FORMAT });
        }
        Ok(Record { path: path.to_owned(), db: Mutex::new(db) })
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves at most an open transaction, and that is rolled back when dropped.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn damaged(&self, what: impl Into<String>) -> IndexError {
        IndexError::Damaged { path: self.path.clone(), what: what.into() }
    }

    /// Runs `body` on one unchanging state of the database.
    pub(crate) fn read<T>(
        &self,
        body: impl FnOnce(&Reader<'_>) -> Result<T, IndexError>,
    ) -> Result<T, IndexError> {
        let db = self.lock();
        let tx = db.unchecked_transaction().map_err(|source| self.failed(source))?;
        body(&Reader { record: self, tx })
    }

    pub(crate) fn write<T>(
        &self,
        body: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        let mut db = self.lock();
        let run = || {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = body(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run().map_err(|source| self.failed(source))
    }

    fn failed(&self, source: rusqlite::Error) -> IndexError {
        IndexError::Database { path: self.path.clone(), source }
    }

    /// Stores vectors; those that are there already stay.
    pub(crate) fn put_embeddings(
        &self,
        embeddings: &[(EmbeddingKey, Vec<f32>)],
    ) -> Result<(), IndexError> {
        self.write(|tx| {
            let mut insert = tx.prepare_cached("INSERT OR IGNORE INTO embeddings VALUES (?, ?)")?;
            for (key, vector) in embeddings {
                let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                insert.execute(params![key, bytes])?;
            }
            Ok(())
        })
    }

    /// Stores documents and what the ledger says in the place of those with the same paths, all or none. What was
    /// deleted by hand, even since it was read, stays away.
    pub(crate) fn put_documents(
        &self,
        settings: &str,
        documents: &[NewDocument],
        entries: &[LedgerEntry],
    ) -> Result<(), IndexError> {
        if documents.is_empty() && entries.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            ledger::put(tx, entries)?;
            for d in documents {
                remove(tx, "path = ?", &d.path)?;
                if is_deleted(tx, &d.path, &d.content_hash)? {
                    continue;
                }
                tx.prepare_cached(
                    "INSERT INTO documents
                     (path, content_hash, settings, bytes, title, metadata, allow, tenant, pages, text)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    d.path,
                    d.content_hash,
                    settings,
                    d.bytes,
                    d.title,
                    json(&d.properties.metadata),
                    d.properties.allow.as_ref().map(json),
                    d.properties.tenant,
                    (!d.pages.is_empty()).then(|| json(&d.pages)),
                    d.text,
                ])?;
                let id = tx.last_insert_rowid();
                let mut insert = tx.prepare_cached(
                    "INSERT INTO chunks
                     (document, start, end, heading_path, first_page, last_page, hash, embedding)
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                )?;
                for c in &d.chunks {
                    let (path, Range { start, end }) = (json(&c.heading_path), c.span.clone());
                    let hash = chunk_hash(&d.text[start..end]);
                    let first = c.pages.as_ref().map(|pages| *pages.start());
                    let last = c.pages.as_ref().map(|pages| *pages.end());
                    insert.execute(params![
                        id,
                        start,
                        end,
                        path,
                        first,
                        last,
                        hash,
                        c.embedding
                    ])?;
                }
                note(tx, id)?;
            }
            Ok(())
        })
    }

    /// Stores what the folder says of documents now, by their ids.
    pub(crate) fn put_properties(&self, changed: &[(i64, Properties)]) -> Result<(), IndexError> {
        if changed.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for (id, p) in changed {
                let allow = p.allow.as_ref().map(json);
                tx.prepare_cached(
                    "UPDATE documents SET metadata = ?, allow = ?, tenant = ? WHERE id = ?",
                )?
                .execute(params![json(&p.metadata), allow, p.tenant, id])?;
                note(tx, *id)?;
            }
            Ok(())
        })
    }

    /// Forgets documents with their chunks.
    pub(crate) fn remove_documents(&self, ids: &[i64]) -> Result<(), IndexError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write(|tx| ids.iter().try_for_each(|id| remove(tx, "id = ?", id)))
    }

    /// Forgets documents and keeps their contents away; which of the paths are of no document, and nothing is
    /// changed if any is.
    pub(crate) fn delete(&self, paths: &[&str]) -> Result<Vec<String>, IndexError> {
        self.write(|tx| {
            let unknown = unknown(tx, paths, true)?;
            if unknown.is_empty() {
                for path in paths {
                    tx.prepare_cached(
                        "INSERT OR IGNORE INTO deleted SELECT path, content_hash FROM documents WHERE path = ?",
                    )?
                    .execute([path])?;
                    // Vectors stay until the next ingest: one that runs now may be about to use them.
                    remove(tx, "path = ?", path)?;
                }
            }
            Ok(unknown)
        })
    }

    /// Lets contents come back that were deleted by hand; how many.
    pub(crate) fn restore(&self, paths: &[&str]) -> Result<usize, IndexError> {
        self.write(|tx| {
            let mut delete = tx.prepare_cached("DELETE FROM deleted WHERE path = ?")?;
            paths.iter().try_fold(0, |sum, path| Ok(sum + delete.execute([path])?))
        })
    }

    /// Sets who may read documents, or with `None` lets the folder say it again; which of the paths are of no
    /// document, and nothing is changed if any is.
    pub(crate) fn set_access(
        &self,
        paths: &[&str],
        access: Option<Option<&[String]>>,
    ) -> Result<Vec<String>, IndexError> {
        self.write(|tx| {
            let unknown = unknown(tx, paths, false)?;
            if unknown.is_empty() {
                for path in paths {
                    match access {
                        None => tx.execute("DELETE FROM access WHERE path = ?", [path])?,
                        Some(allow) => tx.execute(
                            "INSERT OR REPLACE INTO access VALUES (?, ?)",
                            params![path, allow.map(|allow| json(&allow))],
                        )?,
                    };
                    let id: Option<i64> = tx
                        .query_row("SELECT id FROM documents WHERE path = ?", [path], |r| r.get(0))
                        .optional()?;
                    id.into_iter().try_for_each(|id| note(tx, id))?;
                }
            }
            Ok(unknown)
        })
    }

    /// Forgets the vectors of no chunk.
    pub(crate) fn prune_embeddings(&self) -> Result<(), IndexError> {
        self.write(|tx| {
            tx.execute("DELETE FROM embeddings WHERE key NOT IN (SELECT embedding FROM chunks)", [])
        })
        .map(|_| ())
    }
}

/// Removes the documents that `condition` is true of.
fn remove(
    tx: &Transaction<'_>,
    condition: &str,
    value: impl rusqlite::ToSql,
) -> rusqlite::Result<()> {
    let gone: Vec<i64> = tx
        .prepare_cached(&format!("DELETE FROM documents WHERE {condition} RETURNING id"))?
        .query_map([value], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    gone.into_iter().try_for_each(|id| note(tx, id))
}

/// Numbers a change of a document.
fn note(tx: &Transaction<'_>, document: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("INSERT INTO changes (document) VALUES (?)")?.execute([document])?;
    tx.prepare_cached("DELETE FROM changes WHERE sequence <= ?")?
        .execute([tx.last_insert_rowid() - CHANGES_KEPT])?;
    Ok(())
}

/// The paths that neither a document has nor, if that is enough, one that was deleted.
fn unknown(
    tx: &Transaction<'_>,
    paths: &[&str],
    or_deleted: bool,
) -> rusqlite::Result<Vec<String>> {
    let mut known = tx.prepare_cached(
        "SELECT 1 FROM documents WHERE path = ?1
         UNION ALL SELECT 1 FROM deleted WHERE path = ?1 AND ?2
         UNION ALL SELECT 1 FROM access WHERE path = ?1 AND NOT ?2",
    )?;
    let mut unknown = Vec::new();
    for path in paths {
        if !known.exists(params![path, or_deleted])? {
            unknown.push((*path).to_owned());
        }
    }
    Ok(unknown)
}

fn is_deleted(tx: &Transaction<'_>, path: &str, content_hash: &str) -> rusqlite::Result<bool> {
    tx.prepare_cached("SELECT 1 FROM deleted WHERE path = ? AND content_hash = ?")?
        .exists([path, content_hash])
}

fn json(value: &impl serde::Serialize) -> String {
    // Maps with text keys and lists of texts always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

/// Names the text of a chunk.
fn chunk_hash(text: &str) -> [u8; 32] {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// Sets up the connection, creates the tables in an empty database, and returns its format version.
fn prepare(db: &mut Connection) -> rusqlite::Result<i64> {
    db.busy_timeout(LOCK_TIMEOUT)?;
    let version = |db: &Connection| -> rusqlite::Result<i64> {
        let application: i64 = db.pragma_query_value(None, "application_id", |r| r.get(0))?;
        let version: i64 = db.pragma_query_value(None, "user_version", |r| r.get(0))?;
        // Not ours: a version that never was.
        Ok(if application == APPLICATION { version } else { -1 })
    };
    let tables = |db: &Connection| -> rusqlite::Result<i64> {
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0))
    };
    if tables(db)? == 0 {
        db.pragma_update(None, "journal_mode", "WAL")?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have been faster.
        if tables(&tx)? == 0 {
            tx.execute_batch(SCHEMA)?;
            tx.execute_batch(ledger::SCHEMA)?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", FORMAT)?;
        }
        tx.commit()?;
    }
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", "ON")?;
    version(db)
}

/// One state of the database.
pub(crate) struct Reader<'a> {
    pub(crate) record: &'a Record,
    pub(crate) tx: Transaction<'a>,
}

impl Reader<'_> {
    pub(crate) fn run<T>(
        &self,
        body: impl FnOnce() -> rusqlite::Result<T>,
    ) -> Result<T, IndexError> {
        body().map_err(|source| self.record.failed(source))
    }

    /// Number of the last change; 0 before the first.
    pub(crate) fn sequence(&self) -> Result<i64, IndexError> {
        self.run(|| {
            self.tx
                .prepare_cached("SELECT coalesce(max(sequence), 0) FROM changes")?
                .query_row([], |r| r.get(0))
        })
    }

    /// Documents that have changed since the change `sequence`; `None` if that is too long ago to tell.
    pub(crate) fn changed_since(&self, sequence: i64) -> Result<Option<Vec<i64>>, IndexError> {
        self.run(|| {
            let first: Option<i64> =
                self.tx.query_row("SELECT min(sequence) FROM changes", [], |r| r.get(0))?;
            if first.is_some_and(|first| first > sequence + 1) {
                return Ok(None);
            }
            self.tx
                .prepare_cached("SELECT DISTINCT document FROM changes WHERE sequence > ?")?
                .query_map([sequence], |r| r.get(0))?
                .collect::<rusqlite::Result<_>>()
                .map(Some)
        })
    }

    /// All documents, by path.
    pub(crate) fn documents(&self) -> Result<Vec<DocumentRow>, IndexError> {
        let rows: Vec<(DocumentRow, RawProperties)> = self.run(|| {
            self.tx
                .prepare(&format!(
                    "SELECT {PROPERTIES}, d.allow, d.id, d.path, d.content_hash, d.settings, d.bytes,
                            d.title, (SELECT count(*) FROM chunks WHERE document = d.id)
                     FROM documents d LEFT JOIN access a ON a.path = d.path ORDER BY d.path"
                ))?
                .query_map([], |r| {
                    let row = DocumentRow {
                        id: r.get(5)?,
                        path: r.get(6)?,
                        content_hash: r.get(7)?,
                        settings: r.get(8)?,
                        bytes: r.get(9)?,
                        title: r.get(10)?,
                        chunks: r.get(11)?,
                        properties: Properties::default(),
                        overridden: None,
                    };
                    Ok((row, RawProperties::read(r)?))
                })?
                .collect()
        })?;
        let parse = |(row, raw): (DocumentRow, RawProperties)| {
            let overridden = match raw.set_by_hand {
                true => Some(self.list(&row.path, raw.folder_allow.as_deref())?),
                false => None,
            };
            Ok(DocumentRow { properties: self.properties(&row.path, &raw)?, overridden, ..row })
        };
        rows.into_iter().map(parse).collect()
    }

    /// What is known of a document now; `None` if it is gone.
    pub(crate) fn properties_of(&self, id: i64) -> Result<Option<Properties>, IndexError> {
        let found: Option<(String, RawProperties)> = self.run(|| {
            self.tx
                .prepare_cached(&format!(
                    "SELECT {PROPERTIES}, d.allow, d.path
                     FROM documents d LEFT JOIN access a ON a.path = d.path WHERE d.id = ?"
                ))?
                .query_row([id], |r| Ok((r.get(5)?, RawProperties::read(r)?)))
                .optional()
        })?;
        found.map(|(path, raw)| self.properties(&path, &raw)).transpose()
    }

    /// What is known of the document at `path`; `None` if there is none.
    pub(crate) fn properties_at(&self, path: &str) -> Result<Option<Properties>, IndexError> {
        let id = self.run(|| {
            self.tx
                .prepare_cached("SELECT id FROM documents WHERE path = ?")?
                .query_row([path], |r| r.get(0))
                .optional()
        })?;
        id.map_or(Ok(None), |id| self.properties_of(id))
    }

    fn properties(&self, path: &str, raw: &RawProperties) -> Result<Properties, IndexError> {
        let metadata = serde_json::from_str(&raw.metadata)
            .map_err(|_| self.record.damaged(format!("the metadata of {path} are none")))?;
        let allow = self.list(path, raw.allow.as_deref())?;
        Ok(Properties { metadata, allow, tenant: raw.tenant.clone() })
    }

    fn list(&self, path: &str, json: Option<&str>) -> Result<Option<Vec<String>>, IndexError> {
        json.map(serde_json::from_str)
            .transpose()
            .map_err(|_| self.record.damaged(format!("the access to {path} is no list")))
    }

    /// Whether this content was deleted by hand.
    pub(crate) fn is_deleted(&self, path: &str, content_hash: &str) -> Result<bool, IndexError> {
        self.run(|| is_deleted(&self.tx, path, content_hash))
    }

    /// Ids of all chunks, by path and position.
    pub(crate) fn chunk_ids(&self) -> Result<Vec<i64>, IndexError> {
        self.run(|| {
            self.tx
                .prepare(
                    "SELECT c.id FROM documents d JOIN chunks c ON c.document = d.id ORDER BY d.path, c.start",
                )?
                .query_map([], |r| r.get(0))?
                .collect()
        })
    }

    /// The vectors of a document's chunks in order, `dims` values each.
    pub(crate) fn vectors_of(&self, document: i64, dims: usize) -> Result<Vec<f32>, IndexError> {
        let mut values = Vec::new();
        let mut wrong = None;
        self.run(|| {
            let mut statement = self.tx.prepare_cached(
                "SELECT e.vector FROM chunks c LEFT JOIN embeddings e ON e.key = c.embedding
                 WHERE c.document = ? ORDER BY c.start",
            )?;
            let mut rows = statement.query([document])?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(0)?.as_blob_or_null()?.unwrap_or_default();
                if bytes.len() != 4 * dims {
                    wrong = Some(bytes.len());
                }
                values.extend(
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)),
                );
            }
            Ok(())
        })?;
        match wrong {
            None => Ok(values),
            Some(0) => Err(self.record.damaged("a chunk has no vector")),
            Some(n) => Err(self.record.damaged(format!("a vector of {n} bytes, not {}", 4 * dims))),
        }
    }

    /// The stored text of a document.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, IndexError> {
        self.run(|| {
            self.tx
                .prepare_cached("SELECT text FROM documents WHERE path = ?")?
                .query_row([path], |r| r.get(0))
                .optional()
        })
    }

    /// The pages of a document, as spans of its text; none if it has none or is gone.
    pub(crate) fn pages(&self, path: &str) -> Result<Vec<Range<usize>>, IndexError> {
        let pages: Option<String> = self.run(|| {
            let pages = self
                .tx
                .prepare_cached("SELECT pages FROM documents WHERE path = ?")?
                .query_row([path], |r| r.get(0))
                .optional()?;
            Ok(pages.flatten())
        })?;
        let damaged = |e| self.record.damaged(format!("the pages of {path}: {e}"));
        pages.map_or(Ok(Vec::new()), |pages| serde_json::from_str(&pages).map_err(damaged))
    }

    /// All chunks of a document, in order; none if it is gone.
    pub(crate) fn chunks_of(&self, path: &str) -> Result<Vec<StoredChunk>, IndexError> {
        let Some(text) = self.text(path)? else { return Ok(Vec::new()) };
        let rows: Vec<ChunkRow> = self.run(|| {
            self.tx
                .prepare_cached(&format!("{CHUNK} WHERE d.path = ? ORDER BY c.start"))?
                .query_map([path], ChunkRow::read)?
                .collect()
        })?;
        let stored = |row: ChunkRow| {
            let text = text.get(row.span.clone()).map(str::to_owned);
            self.stored(row, text)
        };
        rows.into_iter().map(stored).collect()
    }

    /// A chunk, unless it is gone.
    pub(crate) fn chunk(&self, id: i64) -> Result<Option<StoredChunk>, IndexError> {
        let row = self.run(|| {
            self.tx
                .prepare_cached(&format!("{CHUNK} WHERE c.id = ?"))?
                .query_row([id], ChunkRow::read)
                .optional()
        })?;
        let Some(row) = row else { return Ok(None) };
        // Of a document that may be long, only these bytes.
        let bytes = self.run(|| {
            let text = self.tx.blob_open("main", "documents", "text", row.document, true)?;
            if row.span.end > text.len() {
                return Ok(None);
            }
            let mut bytes = vec![0; row.span.len()];
            let read = text.read_at(&mut bytes, row.span.start)?;
            Ok((read == bytes.len()).then_some(bytes))
        })?;
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        self.stored(row, text).map(Some)
    }

    /// The chunk that begins there, unless there is none.
    pub(crate) fn chunk_at(
        &self,
        path: &str,
        start: usize,
    ) -> Result<Option<StoredChunk>, IndexError> {
        let id = self.run(|| {
            self.tx
                .prepare_cached(
                    "SELECT c.id FROM documents d JOIN chunks c ON c.document = d.id WHERE d.path = ? AND c.start = ?",
                )?
                .query_row(params![path, start], |r| r.get(0))
                .optional()
        })?;
        id.map_or(Ok(None), |id| self.chunk(id))
    }

    /// The vector of the chunk that begins there, unless there is none.
    pub(crate) fn vector_at(
        &self,
        path: &str,
        start: usize,
    ) -> Result<Option<Vec<f32>>, IndexError> {
        let bytes: Option<Vec<u8>> = self.run(|| {
            self.tx
                .prepare_cached(
                    "SELECT e.vector FROM documents d JOIN chunks c ON c.document = d.id
                     JOIN embeddings e ON e.key = c.embedding WHERE d.path = ? AND c.start = ?",
                )?
                .query_row(params![path, start], |r| r.get(0))
                .optional()
        })?;
        let value = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes);
        Ok(bytes.map(|bytes| bytes.as_chunks::<4>().0.iter().map(value).collect()))
    }

    /// A chunk as it was indexed, or an error: no other bytes are ever returned.
    fn stored(&self, row: ChunkRow, text: Option<String>) -> Result<StoredChunk, IndexError> {
        let ChunkRow { path, content_hash, title, span, heading_path, hash, pages, raw, .. } = row;
        let text = text.filter(|text| chunk_hash(text) == hash);
        match (text, serde_json::from_str(&heading_path)) {
            (Some(text), Ok(heading_path)) => {
                let properties = self.properties(&path, &raw)?;
                Ok(StoredChunk {
                    path,
                    content_hash,
                    title,
                    span,
                    heading_path,
                    pages,
                    text,
                    properties,
                })
            }
            _ => Err(self.record.damaged(format!("bytes {span:?} of {path} are no chunk"))),
        }
    }

    /// What SQLite itself finds wrong.
    pub(crate) fn integrity(&self) -> Result<Vec<String>, IndexError> {
        self.run(|| {
            let mut wrong: Vec<String> = self
                .tx
                .prepare("PRAGMA integrity_check")?
                .query_map([], |r| r.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            wrong.retain(|line| line != "ok");
            let mut statement = self.tx.prepare("PRAGMA foreign_key_check")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (of, to): (String, String) = (row.get(0)?, row.get(2)?);
                wrong.push(format!("a row of {of} names one of {to} that is not there"));
            }
            Ok(wrong)
        })
    }

    /// How many vectors there are, and those that are none: of another length than most, or not of norm 1.
    pub(crate) fn check_vectors(&self) -> Result<(usize, Vec<String>), IndexError> {
        self.run(|| {
            let usual: Option<usize> = self
                .tx
                .query_row(
                    "SELECT length(vector) FROM embeddings GROUP BY 1 ORDER BY count(*) DESC, 1 LIMIT 1",
                    [],
                    |r| r.get(0),
                )
                .optional()?;
            let (mut count, mut wrong) = (0, Vec::new());
            let mut statement = self.tx.prepare("SELECT key, vector FROM embeddings")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                count += 1;
                let bytes = row.get_ref(1)?.as_blob()?;
                let values = bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
                let norm = values.map(|v| f64::from(v) * f64::from(v)).sum::<f64>().sqrt();
                if Some(bytes.len()) != usual || (norm - 1.0).abs() > NORM_ERROR || norm.is_nan() {
                    let key: EmbeddingKey = row.get(0)?;
                    let name = blake3::Hash::from_bytes(key).to_hex();
                    let bytes = bytes.len();
                    wrong.push(format!("vector {}: {bytes} bytes, norm {norm:.3}", &name[..12]));
                }
            }
            Ok((count, wrong))
        })
    }

    /// Whether there is a vector under `key`.
    pub(crate) fn has_embedding(&self, key: &EmbeddingKey) -> Result<bool, IndexError> {
        self.run(|| self.tx.prepare_cached("SELECT 1 FROM embeddings WHERE key = ?")?.exists([key]))
    }
}

/// What [`RawProperties`] reads, of documents `d` with access `a`; `d.allow` follows.
const PROPERTIES: &str = "d.metadata, CASE WHEN a.path IS NULL THEN d.allow ELSE a.allow END, d.tenant, a.path IS NOT NULL";

struct RawProperties {
    metadata: String,
    allow: Option<String>,
    tenant: Option<String>,
    set_by_hand: bool,
    folder_allow: Option<String>,
}

impl RawProperties {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(RawProperties {
            metadata: row.get(0)?,
            allow: row.get(1)?,
            tenant: row.get(2)?,
            set_by_hand: row.get(3)?,
            folder_allow: row.get(4)?,
        })
    }
}

const CHUNK: &str = "SELECT d.metadata, CASE WHEN a.path IS NULL THEN d.allow ELSE a.allow END, d.tenant,
    a.path IS NOT NULL, d.allow, d.path, d.content_hash, d.title, c.start, c.end, c.heading_path, c.hash,
    c.first_page, c.last_page, d.id
    FROM chunks c JOIN documents d ON d.id = c.document LEFT JOIN access a ON a.path = d.path";

/// A row of [`CHUNK`].
struct ChunkRow {
    raw: RawProperties,
    path: String,
    content_hash: String,
    title: Option<String>,
    span: Range<usize>,
    heading_path: String,
    hash: [u8; 32],
    pages: Option<RangeInclusive<u32>>,
    document: i64,
}

impl ChunkRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(ChunkRow {
            raw: RawProperties::read(row)?,
            path: row.get(5)?,
            content_hash: row.get(6)?,
            title: row.get(7)?,
            span: row.get(8)?..row.get(9)?,
            heading_path: row.get(10)?,
            hash: row.get(11)?,
            pages: Option::zip(row.get(12)?, row.get(13)?).map(|(first, last)| first..=last),
            document: row.get(14)?,
        })
    }
}
