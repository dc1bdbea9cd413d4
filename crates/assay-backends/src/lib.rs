//! Vectors of the index on a server: PostgreSQL with pgvector, or Qdrant.
//!
//! [`connect`] makes a [`VectorBackend`] of an address; `assay_index::Index::open_on` takes it. What stands on the
//! server is a projection of the record, made again from it whenever it is lost; see `docs/backends.md`.
//!
//! Both servers' clients are asynchronous inside. Their runtimes stay in here: every call blocks its thread and
//! returns, so none may be made from a thread that drives asynchronous tasks.

mod pgvector;
mod qdrant;

use std::sync::Arc;

pub use assay_index::{BackendError, VectorBackend};

/// How a server searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// By comparing every vector.
    Exact,
    /// Along an HNSW graph, which may miss chunks.
    Approximate,
}

/// The server at an address: `postgres://user@host:5432/database`, with the parameters that libpq has, or
/// `qdrant://host:6334` (`qdrants://` over TLS). `key` is the password, or the API key.
///
/// Nothing is sent yet.
///
/// # Errors
/// [`BackendError::Address`].
pub fn connect(
    address: &str,
    key: Option<&str>,
    precision: Precision,
) -> Result<Arc<dyn VectorBackend>, BackendError> {
    let wrong = |what: String| BackendError::Address { given: without_password(address), what };
    Ok(match address.split_once("://") {
        Some(("postgres" | "postgresql", _)) => {
            Arc::new(pgvector::PgVector::new(address, key, precision).map_err(wrong)?)
        }
        Some(("qdrant", rest)) => {
            Arc::new(qdrant::Qdrant::new("http", rest, key, precision).map_err(wrong)?)
        }
        Some(("qdrants", rest)) => {
            Arc::new(qdrant::Qdrant::new("https", rest, key, precision).map_err(wrong)?)
        }
        _ => return Err(wrong("it begins with neither postgres:// nor qdrant://".into())),
    })
}

/// An address that may be shown.
fn without_password(address: &str) -> String {
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
        None => rest.to_owned(),
    };
    // `?password=` is another place for it.
    let rest = rest.split('?').next().unwrap_or_default();
    format!("{scheme}://{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_refused_without_their_passwords() {
        for (address, shown) in [
            ("mysql://anna:secret@host/db", "mysql://anna@host/db"),
            ("postgres://anna:se@cret@host:notaport/db", "postgres://anna@host:notaport/db"),
            ("postgres://host/db?password=secret&port=x", "postgres://host/db"),
            ("postgres://anna:secret@host/db", "postgres://anna@host/db"),
            ("postgres://anna@host/db?password=secret", "postgres://anna@host/db"),
            ("qdrant://anna:secret@:x", "qdrant://anna@:x"),
            ("nothing", "nothing"),
        ] {
            let error = connect(address, None, Precision::Exact).err().expect(address);
            let text = format!("{error} {:?}", error.hint());
            assert!(text.contains(&format!("`{shown}`")) && !text.contains("secret"), "{text}");
            assert!(!text.contains("se@cret"), "{text}");
        }
    }
}
