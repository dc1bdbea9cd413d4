use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Key, Result, RunLock, StoreError};

/// Layout that this build writes, in SQLite's `user_version`.
const LAYOUT: i64 = 1;
/// "assy": marks the file as ours, in SQLite's `application_id`.
const APPLICATION_ID: i64 = 0x6173_7379;
/// How long a writer waits for another one before it gives up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

const SCHEMA: &str = "
CREATE TABLE step (key TEXT PRIMARY KEY, step TEXT NOT NULL, value TEXT NOT NULL, made_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE item (key TEXT NOT NULL, item TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (key, item)) WITHOUT ROWID;
CREATE TABLE release (id TEXT PRIMARY KEY, manifest TEXT NOT NULL, made_ms INTEGER NOT NULL, seq INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE TABLE served (seq INTEGER PRIMARY KEY AUTOINCREMENT, release TEXT NOT NULL REFERENCES release(id));
";

/// The store of one project. May be shared between threads; several processes may have it open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    db_path: PathBuf,
    connection: Mutex<Connection>,
}

impl Store {
    /// Opens the store in the folder `root` (`<project>/.assay`), and makes it if there is none.
    ///
    /// # Errors
    /// [`StoreError::Newer`], [`StoreError::Corrupt`], [`StoreError::Foreign`], [`StoreError::DiskFull`],
    /// or the failed file operation.
    pub fn open(root: &Path) -> Result<Store> {
        fs_err::create_dir_all(root).map_err(|e| StoreError::from_io(root, e))?;
        let db_path = root.join("store.db");
        let connection = connect(&db_path)?;
        Ok(Store { root: root.to_path_buf(), db_path, connection: Mutex::new(connection) })
    }

    /// The folder of the store.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the right to run in this project; a second run gets [`StoreError::Locked`].
    pub fn lock_run(&self) -> Result<RunLock> {
        crate::lock::lock_run(&self.root)
    }

    /// The result filed under `key`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Value`] when it does not have the form `T`.
    pub fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>> {
        let text: Option<String> = self.with(|c| {
            c.prepare_cached("SELECT value FROM step WHERE key = ?1")?
                .query_row([key.hash()], |row| row.get(0))
                .optional()
        })?;
        text.map(|text| decode(key, &text)).transpose()
    }

    /// Files a small result under `key`, whole or not at all; a second time replaces the first.
    pub fn put<T: Serialize + ?Sized>(&self, key: &Key, value: &T) -> Result<()> {
        let text = encode(key, value)?;
        self.with(|c| {
            c.prepare_cached("INSERT OR REPLACE INTO step VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![key.hash(), key.step(), text, now_ms()])
        })?;
        Ok(())
    }

    /// Results per item that are filed so far under `key`, by item.
    ///
    /// # Errors
    /// [`StoreError::Value`] when one of them does not have the form `T`.
    pub fn items<T: DeserializeOwned>(&self, key: &Key) -> Result<BTreeMap<String, T>> {
        let rows: Vec<(String, String)> = self.with(|c| {
            c.prepare_cached("SELECT item, value FROM item WHERE key = ?1")?
                .query_map([key.hash()], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        rows.into_iter().map(|(item, text)| Ok((item, decode(key, &text)?))).collect()
    }

    /// Files the result of one item of a long step, so that an interrupted step goes on from there.
    pub fn put_item<T: Serialize + ?Sized>(&self, key: &Key, item: &str, value: &T) -> Result<()> {
        let text = encode(key, value)?;
        self.with(|c| {
            c.prepare_cached("INSERT OR REPLACE INTO item VALUES (?1, ?2, ?3)")?.execute(params![
                key.hash(),
                item,
                text
            ])
        })?;
        Ok(())
    }

    /// Runs `f` on the connection and sorts its failure.
    pub(crate) fn with<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        f(&self.connection()).map_err(|e| StoreError::from_sqlite(&self.db_path, e))
    }

    /// Runs `f` in one transaction that has reached the disk when this returns.
    pub(crate) fn with_durable<T>(
        &self,
        f: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut connection = self.connection();
        let sorted = |e| StoreError::from_sqlite(&self.db_path, e);
        connection.pragma_update(None, "synchronous", "FULL").map_err(sorted)?;
        let result = (|| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = f(&tx)?;
            tx.commit()?;
            Ok(value)
        })();
        connection.pragma_update(None, "synchronous", "NORMAL").map_err(sorted)?;
        result.map_err(sorted)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic in another thread leaves SQLite itself consistent.
        self.connection.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Limits the store to its present size, as a full disk does.
    #[cfg(test)]
    fn fill_disk(&self) {
        self.with(|c| {
            let pages: i64 = c.pragma_query_value(None, "page_count", |r| r.get(0))?;
            c.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))
        })
        .unwrap();
    }
}

fn connect(path: &Path) -> Result<Connection> {
    let sorted = |e| StoreError::from_sqlite(path, e);
    let mut connection = Connection::open(path).map_err(sorted)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(sorted)?;
    let pragma = |c: &Connection, name: &str| {
        c.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(sorted)
    };
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sorted)?;
    let layout = pragma(&tx, "user_version")?;
    let application = pragma(&tx, "application_id")?;
    let empty = pragma(&tx, "schema_version")? == 0;
    if empty && layout == 0 {
        tx.execute_batch(SCHEMA).map_err(sorted)?;
        tx.pragma_update(None, "user_version", LAYOUT).map_err(sorted)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID).map_err(sorted)?;
    } else if application != APPLICATION_ID {
        return Err(StoreError::Foreign { path: path.to_path_buf() });
    } else if layout > LAYOUT {
        return Err(StoreError::Newer {
            path: path.to_path_buf(),
            found: layout,
            supported: LAYOUT,
        });
    }
    tx.commit().map_err(sorted)?;
    use_wal(&connection).map_err(sorted)?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(sorted)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(sorted)?;
    Ok(connection)
}

/// Switches to write-ahead logging. SQLite does not wait its busy timeout here when another process
/// opens the same new store at the same moment, so this does.
fn use_wal(connection: &Connection) -> rusqlite::Result<()> {
    let mut tries = 0;
    loop {
        match connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(())) {
            Err(e) if e.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && tries < 500 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

fn encode<T: Serialize + ?Sized>(key: &Key, value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|source| StoreError::Unstorable { step: key.step().to_owned(), source })
}

fn decode<T: DeserializeOwned>(key: &Key, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|source| StoreError::Value {
        step: key.step().to_owned(),
        key: key.to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepKey;

    #[test]
    fn a_full_disk_is_named_and_nothing_finished_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = |n: u32| StepKey::new("step", n).finish();
        store.put(&key(1), "kept").unwrap();
        store.fill_disk();
        let error = store.put(&key(2), &"x".repeat(100_000)).unwrap_err();
        assert!(matches!(&error, StoreError::DiskFull { path } if path.ends_with("store.db")));
        assert!(error.hint().unwrap().contains("free some space"));
        assert_eq!(store.get::<String>(&key(1)).unwrap().unwrap(), "kept");
        assert_eq!(store.get::<String>(&key(2)).unwrap(), None);
    }
}
