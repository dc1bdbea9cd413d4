//! The truth: documents, chunks and embeddings in one SQLite file.
//!
//! WAL with `synchronous = FULL`: what a commit acknowledged survives a crash and a power cut. Chunk ids are
//! never used twice, so an id that is gone from the table cannot mean another chunk.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::IndexError;

/// Changes with the tables and with the meaning of what they hold.
const FORMAT: i64 = 1;
/// "asix", so that another program's database is not taken for ours.
const APPLICATION: i64 = 0x6173_6978;
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE documents (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        path TEXT NOT NULL UNIQUE,
        content_hash TEXT NOT NULL,
        settings TEXT NOT NULL,
        bytes INTEGER NOT NULL,
        title TEXT,
        text TEXT NOT NULL
    ) STRICT;
    CREATE TABLE embeddings (key BLOB PRIMARY KEY, vector BLOB NOT NULL) STRICT;
    CREATE TABLE chunks (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        document INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
        start INTEGER NOT NULL,
        end INTEGER NOT NULL,
        heading_path TEXT NOT NULL,
        embedding BLOB NOT NULL REFERENCES embeddings
    ) STRICT;
    CREATE UNIQUE INDEX chunks_in_order ON chunks (document, start);
    CREATE INDEX chunks_by_embedding ON chunks (embedding);
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
    pub(crate) chunks: Vec<NewChunk>,
}

pub(crate) struct NewChunk {
    pub(crate) span: Range<usize>,
    pub(crate) heading_path: Vec<String>,
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
}

/// A chunk with what its document says about it.
pub(crate) struct StoredChunk {
    pub(crate) path: String,
    pub(crate) content_hash: String,
    pub(crate) title: Option<String>,
    pub(crate) span: Range<usize>,
    pub(crate) heading_path: Vec<String>,
    pub(crate) text: String,
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

    fn write<T>(
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

    /// Stores documents in the place of those with the same paths, all or none.
    pub(crate) fn put_documents(
        &self,
        settings: &str,
        documents: &[NewDocument],
    ) -> Result<(), IndexError> {
        if documents.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            for d in documents {
                tx.prepare_cached("DELETE FROM documents WHERE path = ?")?.execute([&d.path])?;
                tx.prepare_cached(
                    "INSERT INTO documents (path, content_hash, settings, bytes, title, text)
                     VALUES (?, ?, ?, ?, ?, ?)",
                )?
                .execute(params![
                    d.path,
                    d.content_hash,
                    settings,
                    d.bytes,
                    d.title,
                    d.text
                ])?;
                let id = tx.last_insert_rowid();
                let mut insert = tx.prepare_cached(
                    "INSERT INTO chunks (document, start, end, heading_path, embedding)
                     VALUES (?, ?, ?, ?, ?)",
                )?;
                for c in &d.chunks {
                    let path = serde_json::Value::from(c.heading_path.clone()).to_string();
                    insert.execute(params![id, c.span.start, c.span.end, path, c.embedding])?;
                }
            }
            Ok(())
        })
    }

    /// Forgets documents with their chunks.
    pub(crate) fn remove_documents(&self, ids: &[i64]) -> Result<(), IndexError> {
        if ids.is_empty() {
            return Ok(());
        }
        self.write(|tx| {
            let mut delete = tx.prepare_cached("DELETE FROM documents WHERE id = ?")?;
            ids.iter().try_for_each(|id| delete.execute([id]).map(|_| ()))
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
    record: &'a Record,
    tx: Transaction<'a>,
}

impl Reader<'_> {
    fn run<T>(&self, body: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, IndexError> {
        body().map_err(|source| self.record.failed(source))
    }

    /// All documents, by path.
    pub(crate) fn documents(&self) -> Result<Vec<DocumentRow>, IndexError> {
        self.run(|| {
            self.tx
                .prepare(
                    "SELECT id, path, content_hash, settings, bytes, title,
                            (SELECT count(*) FROM chunks WHERE document = documents.id)
                     FROM documents ORDER BY path",
                )?
                .query_map([], |r| {
                    Ok(DocumentRow {
                        id: r.get(0)?,
                        path: r.get(1)?,
                        content_hash: r.get(2)?,
                        settings: r.get(3)?,
                        bytes: r.get(4)?,
                        title: r.get(5)?,
                        chunks: r.get(6)?,
                    })
                })?
                .collect()
        })
    }

    /// Ids of all chunks and their vectors, one row of `dims` values each, by path and position.
    pub(crate) fn vectors(
        &self,
        dims: usize,
        chunks: usize,
    ) -> Result<(Vec<i64>, Vec<f32>), IndexError> {
        let mut ids = Vec::with_capacity(chunks);
        let mut values = Vec::with_capacity(chunks * dims);
        let mut wrong = None;
        self.run(|| {
            let mut statement = self.tx.prepare(
                "SELECT c.id, e.vector FROM documents d JOIN chunks c ON c.document = d.id
                 JOIN embeddings e ON e.key = c.embedding ORDER BY d.path, c.start",
            )?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let bytes = row.get_ref(1)?.as_blob()?;
                if bytes.len() != 4 * dims {
                    wrong = Some(bytes.len());
                }
                ids.push(row.get(0)?);
                values.extend(
                    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)),
                );
            }
            Ok(())
        })?;
        if let Some(bytes) = wrong {
            return Err(self
                .record
                .damaged(format!("a vector of {bytes} bytes, not {}", 4 * dims)));
        }
        if ids.len() != chunks {
            return Err(self.record.damaged("a chunk has no vector"));
        }
        Ok((ids, values))
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

    /// All chunks of a document, in order; none if it is gone.
    pub(crate) fn chunks_of(&self, path: &str) -> Result<Vec<StoredChunk>, IndexError> {
        let Some(text) = self.text(path)? else { return Ok(Vec::new()) };
        let rows: Vec<ChunkRow> = self.run(|| {
            self.tx
                .prepare_cached(&format!("{CHUNK} WHERE d.path = ? ORDER BY c.start"))?
                .query_map([path], ChunkRow::read)?
                .collect()
        })?;
        rows.into_iter().map(|row| self.stored(row, &text)).collect()
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
        let text = self.text(&row.path)?.unwrap_or_default();
        self.stored(row, &text).map(Some)
    }

    fn stored(&self, row: ChunkRow, text: &str) -> Result<StoredChunk, IndexError> {
        let ChunkRow { path, content_hash, title, span, heading_path } = row;
        match (text.get(span.clone()), serde_json::from_str(&heading_path)) {
            (Some(text), Ok(heading_path)) => {
                let text = text.to_owned();
                Ok(StoredChunk { path, content_hash, title, span, heading_path, text })
            }
            _ => Err(self.record.damaged(format!("bytes {span:?} of {path} are no chunk"))),
        }
    }

    /// Whether there is a vector under `key`.
    pub(crate) fn has_embedding(&self, key: &EmbeddingKey) -> Result<bool, IndexError> {
        self.run(|| self.tx.prepare_cached("SELECT 1 FROM embeddings WHERE key = ?")?.exists([key]))
    }
}

const CHUNK: &str = "SELECT d.path, d.content_hash, d.title, c.start, c.end, c.heading_path
    FROM chunks c JOIN documents d ON d.id = c.document";

/// A row of [`CHUNK`].
struct ChunkRow {
    path: String,
    content_hash: String,
    title: Option<String>,
    span: Range<usize>,
    heading_path: String,
}

impl ChunkRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(ChunkRow {
            path: row.get(0)?,
            content_hash: row.get(1)?,
            title: row.get(2)?,
            span: row.get(3)?..row.get(4)?,
            heading_path: row.get(5)?,
        })
    }
}
