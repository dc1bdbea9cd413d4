//! What the record remembers of servers that hold its vectors, and what they are sent.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, params};

use super::{Reader, Record};
use crate::IndexError;
use crate::backend::Mark;

/// Made when a server is first used; an index without one does without.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS identity (one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL) STRICT;
    -- Up to which change a server has the vectors, and the mark that its collection was given then.
    CREATE TABLE IF NOT EXISTS projected (
        server TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL,
        mark BLOB NOT NULL
    ) STRICT;
";

impl Record {
    /// The name of this index, drawn when it is first asked for.
    pub(crate) fn identity(&self) -> Result<String, IndexError> {
        let known = self.read(|r| {
            r.run(|| {
                let tables = "SELECT 1 FROM sqlite_schema WHERE name = 'projected'";
                if !r.tx.prepare(tables)?.exists([])? {
                    return Ok(None);
                }
                r.tx.query_row("SELECT name FROM identity", [], |row| row.get(0)).optional()
            })
        })?;
        if let Some(name) = known {
            return Ok(name);
        }
        self.write(|tx| {
            tx.execute_batch(SCHEMA)?;
            tx.execute(
                "INSERT OR IGNORE INTO identity VALUES (1, lower(hex(randomblob(16))))",
                [],
            )?;
            tx.query_row("SELECT name FROM identity", [], |row| row.get(0))
        })
    }

    /// Remembers that `server` has all up to the change `sequence`, under `mark`.
    pub(crate) fn set_projected(
        &self,
        server: &str,
        sequence: i64,
        mark: Mark,
    ) -> Result<(), IndexError> {
        let row = params![server, sequence, mark];
        self.write(|tx| tx.execute("INSERT OR REPLACE INTO projected VALUES (?, ?, ?)", row))
            .map(|_| ())
    }
}

impl Reader<'_> {
    /// See [`Record::set_projected`].
    pub(crate) fn projected(&self, server: &str) -> Result<Option<(i64, Mark)>, IndexError> {
        self.run(|| {
            self.tx
                .prepare_cached("SELECT sequence, mark FROM projected WHERE server = ?")?
                .query_row([server], |r| Ok((r.get(0)?, r.get(1)?)))
                .optional()
        })
    }

    /// A mark that was never given before.
    pub(crate) fn new_mark(&self) -> Result<Mark, IndexError> {
        self.run(|| self.tx.query_row("SELECT randomblob(16)", [], |r| r.get(0)))
    }

    /// The least chunk id of each document.
    pub(crate) fn first_chunks(&self) -> Result<HashMap<i64, i64>, IndexError> {
        self.run(|| {
            self.tx
                .prepare("SELECT document, min(id) FROM chunks GROUP BY document")?
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?)))?
                .collect()
        })
    }

    /// Ids of a document's chunks, in order; none if it is gone.
    pub(crate) fn chunk_ids_of(&self, document: i64) -> Result<Vec<i64>, IndexError> {
        self.run(|| {
            self.tx
                .prepare_cached("SELECT id FROM chunks WHERE document = ? ORDER BY start")?
                .query_map([document], |r| r.get(0))?
                .collect()
        })
    }

    /// The vector of a chunk, unless it is gone.
    pub(crate) fn vector_of(
        &self,
        chunk: i64,
        dims: usize,
    ) -> Result<Option<Vec<f32>>, IndexError> {
        let bytes: Option<Vec<u8>> = self.run(|| {
            self.tx
                .prepare_cached(
                    "SELECT e.vector FROM chunks c JOIN embeddings e ON e.key = c.embedding WHERE c.id = ?",
                )?
                .query_row([chunk], |r| r.get(0))
                .optional()
        })?;
        let Some(bytes) = bytes else { return Ok(None) };
        if bytes.len() != 4 * dims {
            let n = bytes.len();
            return Err(self.record.damaged(format!("a vector of {n} bytes, not {}", 4 * dims)));
        }
        Ok(Some(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()))
    }
}
