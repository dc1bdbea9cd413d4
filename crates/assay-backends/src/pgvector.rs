//! PostgreSQL with the extension pgvector.
//!
//! `assay_collections` names every collection with what made it and its mark. Each has two tables: vectors by chunk,
//! and the keys of the documents that are there whole. A transaction changes both.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_index::{
    Among, BackendDocument, BackendError, Collection, DocumentKey, Mark, Near, VectorBackend,
};
use pgvector::Vector;
use postgres::config::Host;
use postgres::error::SqlState;
use postgres::types::ToSql;
use postgres::{Client, Config, Row, Statement, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::Precision;

/// Changes with the tables and with the meaning of what they hold.
const FORMAT: i32 = 1;
/// Sessions that are kept for later calls.
const IDLE: usize = 8;
/// Rows of one INSERT.
const ROWS: usize = 1000;
/// pgvector makes no HNSW graph over longer vectors.
const MOST_HNSW_DIMS: usize = 2000;
/// Values that fit into a page of 8 KiB beside their ids, so that they need not stand apart.
const MOST_INLINE_DIMS: usize = 1900;
/// Lock under which collections are made; "assay" in ASCII.
const MAKING: i64 = 0x61_73_73_61_79;
/// An approximate search goes on until it has what it was asked for; every search is planned anew, as its
/// plan hangs on how many documents are named. Setting the first two is no error without the extension.
const SESSION: &str = "
    SET hnsw.iterative_scan = 'strict_order';
    SET hnsw.ef_search = 200;
    SET plan_cache_mode = 'force_custom_plan';
    SET statement_timeout = '60s';
    SET client_min_messages = 'warning';
";
/// For what may take long.
const PATIENT: &str = "SET LOCAL statement_timeout = 0";

/// A PostgreSQL server.
pub(crate) struct PgVector {
    config: Config,
    tls: MakeRustlsConnect,
    server: String,
    precision: Precision,
    idle: Mutex<Vec<Session>>,
}

/// A connection, with the statements that it has prepared.
struct Session {
    client: Client,
    prepared: HashMap<String, Statement>,
}

impl Session {
    fn query(
        &mut self,
        sql: String,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, postgres::Error> {
        let statement = match self.prepared.get(&sql) {
            Some(statement) => statement.clone(),
            None => {
                let statement = self.client.prepare(&sql)?;
                self.prepared.insert(sql, statement.clone());
                statement
            }
        };
        self.client.query(&statement, values)
    }
}

impl PgVector {
    pub(crate) fn new(
        address: &str,
        key: Option<&str>,
        precision: Precision,
    ) -> Result<Self, String> {
        let mut config: Config = address.parse().map_err(|e: postgres::Error| words(&e))?;
        if config.get_password().is_some_and(|password| !password.is_empty()) {
            return Err("a password does not stand in an address: backend_key_env names it".into());
        }
        if let Some(key) = key {
            config.password(key);
        }
        let limit = Duration::from_secs(10);
        config.connect_timeout(limit).tcp_user_timeout(3 * limit).application_name("assay");
        let hosts = config.get_hosts().iter().zip(0..).map(|(host, n)| {
            let ports = config.get_ports();
            let port = ports.get(n).or(ports.first()).unwrap_or(&5432);
            match host {
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(path) => format!("{}:{port}", path.display()),
            }
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        if hosts.is_empty() {
            return Err("it names no host".into());
        }
        let database = config.get_dbname().or(config.get_user()).unwrap_or_default();
        let server = format!("postgres://{hosts}/{database}");
        Ok(PgVector { tls: tls()?, server, config, precision, idle: Mutex::default() })
    }

    /// Runs `body` on a session. One that was kept may have ended meanwhile: then once more on a new one.
    fn run<T>(
        &self,
        doing: &'static str,
        mut body: impl FnMut(&mut Session) -> Result<T, Failure>,
    ) -> Result<T, BackendError> {
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle().pop();
        let was_kept = kept.is_some();
        let mut session = match kept {
            Some(session) => session,
            None => self.session()?,
        };
        let mut done = body(&mut session);
        if was_kept && done.is_err() && session.client.is_closed() {
            // Others that were kept have most likely ended with it.
            idle().clear();
            session = self.session()?;
            done = body(&mut session);
        }
        if !session.client.is_closed() {
            let mut idle = idle();
            if idle.len() < IDLE {
                idle.push(session);
            }
        }
        done.map_err(|failure| match failure {
            Failure::Ours(error) => *error,
            Failure::Postgres(error) => self.failed(doing, error),
        })
    }

    fn session(&self) -> Result<Session, BackendError> {
        let connect = || {
            let mut client = self.config.connect(self.tls.clone())?;
            client.batch_execute(SESSION)?;
            Ok(client)
        };
        let client = connect().map_err(|e| self.failed("connecting", e))?;
        Ok(Session { client, prepared: HashMap::new() })
    }

    fn failed(&self, doing: &'static str, error: postgres::Error) -> BackendError {
        let server = self.server.clone();
        let code = error.code().cloned();
        let source = words(&error).into();
        let away = |code: &SqlState| {
            // Shut down, crashed, or still starting.
            ["57P01", "57P02", "57P03"].contains(&code.code())
        };
        match code {
            None => BackendError::Away { server, source },
            Some(code) if away(&code) => BackendError::Away { server, source },
            Some(code) => BackendError::Failed { server, doing, source, hint: hint(&code) },
        }
    }

    fn mismatch(&self, of: &Collection, found: String) -> Failure {
        Failure::Ours(Box::new(BackendError::Mismatch {
            server: self.server.clone(),
            collection: of.name.clone(),
            found,
            expected: described(FORMAT, &of.embedder, of.dims as i64),
        }))
    }

    /// Makes or checks a collection, alone.
    fn prepare(&self, tx: &mut Transaction<'_>, of: &Collection) -> Result<Option<Mark>, Failure> {
        tx.batch_execute(PATIENT)?;
        tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING])?;
        let extension = "SELECT 1 FROM pg_extension WHERE extname = 'vector'";
        if tx.query_opt(extension, &[])?.is_none() {
            tx.batch_execute("CREATE EXTENSION vector")?;
        }
        tx.batch_execute(
            "CREATE TABLE IF NOT EXISTS assay_collections (
                 name text PRIMARY KEY, format int NOT NULL, embedder text NOT NULL,
                 dims bigint NOT NULL, mark bytea)",
        )?;
        let row = tx.query_opt(
            "SELECT format, embedder, dims, mark FROM assay_collections WHERE name = $1",
            &[&of.name],
        )?;
        let table = tx.query_opt(
            "SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute a
             WHERE a.attrelid = to_regclass($1) AND a.attname = 'vector'",
            &[&quoted(&of.name)],
        )?;
        let (Some(row), Some(table)) = (&row, &table) else {
            if row.is_some() || table.is_some() {
                return Err(self.mismatch(of, "only there in part".into()));
            }
            self.make(tx, of)?;
            return Ok(None);
        };
        let (format, embedder, dims): (i32, String, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if (format, &embedder, dims) != (FORMAT, &of.embedder, of.dims as i64) {
            return Err(self.mismatch(of, described(format, &embedder, dims)));
        }
        let kind: String = table.try_get(0)?;
        if kind != format!("vector({dims})") {
            return Err(self.mismatch(of, format!("a table of {kind}")));
        }
        self.index(tx, of)?;
        let mark: Option<Vec<u8>> = row.try_get(3)?;
        Ok(mark.and_then(|mark| mark.try_into().ok()))
    }

    fn make(&self, tx: &mut Transaction<'_>, of: &Collection) -> Result<(), Failure> {
        let (vectors, documents) = tables(of);
        let dims = of.dims;
        tx.batch_execute(&format!(
            "CREATE TABLE {vectors} (
                 chunk bigint PRIMARY KEY, document bigint NOT NULL, vector vector({dims}) NOT NULL);
             CREATE INDEX ON {vectors} (document);
             CREATE TABLE {documents} (document bigint PRIMARY KEY, key bytea NOT NULL)"
        ))?;
        if dims <= MOST_INLINE_DIMS {
            let inline = format!("ALTER TABLE {vectors} ALTER COLUMN vector SET STORAGE PLAIN");
            tx.batch_execute(&inline)?;
        }
        self.index(tx, of)?;
        tx.execute(
            "INSERT INTO assay_collections (name, format, embedder, dims) VALUES ($1, $2, $3, $4)",
            &[&of.name, &FORMAT, &of.embedder, &(dims as i64)],
        )?;
        Ok(())
    }

    /// The graph of approximate searches. Exact ones do not use it, so it may stay.
    fn index(&self, tx: &mut Transaction<'_>, of: &Collection) -> Result<(), Failure> {
        if self.precision == Precision::Exact {
            return Ok(());
        }
        if of.dims > MOST_HNSW_DIMS {
            return Err(Failure::Ours(Box::new(BackendError::Failed {
                server: self.server.clone(),
                doing: "making an HNSW index",
                source: format!("vectors of {} values, and {MOST_HNSW_DIMS} at most", of.dims)
                    .into(),
                hint: Some("retrieval.backend_search = \"exact\""),
            })));
        }
        let (vectors, _) = tables(of);
        let name = quoted(&format!("{}_hnsw", of.name));
        let make = format!(
            "CREATE INDEX IF NOT EXISTS {name} ON {vectors} USING hnsw (vector vector_ip_ops)"
        );
        Ok(tx.batch_execute(&make)?)
    }
}

impl VectorBackend for PgVector {
    fn server(&self) -> &str {
        &self.server
    }

    fn is_approximate(&self) -> bool {
        self.precision == Precision::Approximate
    }

    fn open(&self, of: &Collection) -> Result<Option<Mark>, BackendError> {
        self.run("opening the collection", |session| {
            let mut tx = session.client.transaction()?;
            let mark = self.prepare(&mut tx, of)?;
            tx.commit()?;
            Ok(mark)
        })
    }

    fn clear(&self, of: &Collection) -> Result<(), BackendError> {
        let (vectors, documents) = tables(of);
        self.run("removing the collection", |session| {
            session.prepared.clear();
            let mut tx = session.client.transaction()?;
            tx.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING])?;
            tx.batch_execute(&format!("DROP TABLE IF EXISTS {vectors}, {documents}"))?;
            let known =
                tx.query_opt("SELECT 1 WHERE to_regclass('assay_collections') IS NOT NULL", &[])?;
            if known.is_some() {
                tx.execute("DELETE FROM assay_collections WHERE name = $1", &[&of.name])?;
            }
            Ok(tx.commit()?)
        })
    }

    fn documents(
        &self,
        of: &Collection,
        ids: Option<&[i64]>,
    ) -> Result<HashMap<i64, DocumentKey>, BackendError> {
        let (_, documents) = tables(of);
        let rows = self.run("listing documents", |session| {
            let all = format!("SELECT document, key FROM {documents}");
            Ok(match ids {
                None => session.query(all, &[])?,
                Some(ids) => session.query(format!("{all} WHERE document = ANY($1)"), &[&ids])?,
            })
        })?;
        // A key of another length is of nothing that we know.
        let known = rows.iter().filter_map(|row| {
            let key: Vec<u8> = row.try_get(1).ok()?;
            Some((row.try_get(0).ok()?, key.try_into().ok()?))
        });
        Ok(known.collect())
    }

    fn put(&self, of: &Collection, documents: &[BackendDocument]) -> Result<(), BackendError> {
        let (vectors, table) = tables(of);
        let ids: Vec<i64> = documents.iter().map(|d| d.id).collect();
        let keys: Vec<&[u8]> = documents.iter().map(|d| d.key.as_slice()).collect();
        let chunks: Vec<i64> = documents.iter().flat_map(|d| d.chunks.iter().copied()).collect();
        let owners: Vec<i64> =
            documents.iter().flat_map(|d| d.chunks.iter().map(|_| d.id)).collect();
        let rows: Vec<Vector> = documents
            .iter()
            .flat_map(|d| d.vectors.chunks_exact(of.dims.max(1)))
            .map(|row| Vector::from(row.to_vec()))
            .collect();
        self.run("writing vectors", |session| {
            let mut tx = session.client.transaction()?;
            tx.batch_execute(PATIENT)?;
            tx.execute(
                &format!(
                    "DELETE FROM {table} WHERE document = ANY($1)
                     OR document IN (SELECT document FROM {vectors} WHERE chunk = ANY($2))"
                ),
                &[&ids, &chunks],
            )?;
            tx.execute(
                &format!("DELETE FROM {vectors} WHERE document = ANY($1) OR chunk = ANY($2)"),
                &[&ids, &chunks],
            )?;
            let insert = tx.prepare(&format!(
                "INSERT INTO {vectors} (chunk, document, vector) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::vector[])"
            ))?;
            let pieces = chunks.chunks(ROWS).zip(owners.chunks(ROWS)).zip(rows.chunks(ROWS));
            for ((chunks, owners), rows) in pieces {
                tx.execute(&insert, &[&chunks, &owners, &rows])?;
            }
            tx.execute(
                &format!("INSERT INTO {table} (document, key) SELECT * FROM unnest($1::bigint[], $2::bytea[])"),
                &[&ids, &keys],
            )?;
            Ok(tx.commit()?)
        })
    }

    fn remove(&self, of: &Collection, documents: &[i64]) -> Result<(), BackendError> {
        let (vectors, table) = tables(of);
        self.run("removing vectors", |session| {
            let mut tx = session.client.transaction()?;
            for table in [&table, &vectors] {
                let delete = format!("DELETE FROM {table} WHERE document = ANY($1)");
                tx.execute(&delete, &[&documents])?;
            }
            Ok(tx.commit()?)
        })
    }

    fn set_mark(&self, of: &Collection, mark: Mark) -> Result<(), BackendError> {
        self.run("marking the collection", |session| {
            let set = "UPDATE assay_collections SET mark = $2 WHERE name = $1";
            session.client.execute(set, &[&of.name, &mark.as_slice()])?;
            Ok(())
        })
    }

    fn search(
        &self,
        of: &Collection,
        query: &[f32],
        n: usize,
        among: Among<'_>,
        exact: bool,
    ) -> Result<Vec<Near>, BackendError> {
        let (vectors, _) = tables(of);
        let (query, n) = (Vector::from(query.to_vec()), i64::try_from(n).unwrap_or(i64::MAX));
        // What is computed from a distance, no graph is ordered by.
        let order =
            if exact || !self.is_approximate() { "(vector <#> $1) + 0" } else { "vector <#> $1" };
        let sql = |condition: &str| {
            format!(
                "SELECT chunk, vector <#> $1 FROM {vectors} {condition} ORDER BY {order} LIMIT $2"
            )
        };
        let rows = self.run("searching", |session| {
            Ok(match among {
                Among::All => session.query(sql(""), &[&query, &n])?,
                Among::Only(ids) => {
                    session.query(sql("WHERE document = ANY($3)"), &[&query, &n, &ids])?
                }
                Among::Except(ids) => {
                    session.query(sql("WHERE document <> ALL($3)"), &[&query, &n, &ids])?
                }
            })
        })?;
        let near = |row: &Row| -> Result<Near, postgres::Error> {
            let distance: f64 = row.try_get(1)?;
            Ok(Near { chunk: row.try_get(0)?, similarity: -distance as f32 })
        };
        let near: Result<Vec<Near>, _> = rows.iter().map(near).collect();
        near.map_err(|e| self.failed("searching", e))
    }
}

/// Why a call did not do what it should.
enum Failure {
    Postgres(postgres::Error),
    Ours(Box<BackendError>),
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Failure::Postgres(error)
    }
}

/// Names of the tables of vectors and of documents, for SQL.
fn tables(of: &Collection) -> (String, String) {
    (quoted(&of.name), quoted(&format!("{}_documents", of.name)))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn described(format: i32, embedder: &str, dims: i64) -> String {
    format!("of format {format} with {dims} values of {embedder}")
}

/// What went wrong, with what the server says: the client's own words are "db error".
fn words(error: &postgres::Error) -> String {
    use std::error::Error as _;
    match (error.as_db_error(), error.source()) {
        (Some(said), _) => match said.detail() {
            Some(detail) => format!("{} ({detail})", said.message()),
            None => said.message().to_owned(),
        },
        (None, Some(source)) => format!("{error}: {source}"),
        (None, None) => error.to_string(),
    }
}

fn hint(code: &SqlState) -> Option<&'static str> {
    Some(match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "retrieval.backend_key_env names the environment variable that holds the password"
        }
        SqlState::INSUFFICIENT_PRIVILEGE => {
            "the user must be allowed to create tables; a superuser must once CREATE EXTENSION vector"
        }
        SqlState::UNDEFINED_FILE | SqlState::FEATURE_NOT_SUPPORTED | SqlState::UNDEFINED_OBJECT => {
            "install pgvector 0.8 or later on the server"
        }
        SqlState::INVALID_CATALOG_NAME => "create the database first",
        SqlState::UNDEFINED_TABLE | SqlState::DATA_EXCEPTION => {
            "`assay index rebuild` sends all vectors again"
        }
        SqlState::DISK_FULL => "the server's disk is full",
        SqlState::QUERY_CANCELED => "the server took longer than a minute",
        _ => return None,
    })
}

/// With the certificates that this machine trusts.
fn tls() -> Result<MakeRustlsConnect, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}
