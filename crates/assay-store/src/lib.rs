//! The one mechanism of content-addressed steps: an expensive result is filed under the hash of what
//! it was made from, and a step that finds its result does nothing.
//!
//! A project's store is the folder `.assay`: small values, results per item and releases in SQLite,
//! large artifacts (adapters, checkpoints, indexes) in folders that appear whole or not at all.
//! Whatever a call has returned from survives `kill -9`; a release also survives a power cut.
//!
//! It refuses: a store written by a newer assay, a damaged store file, and a second run at a time
//! ([`Store::lock_run`]); reading, and filing the same result twice, need no lock.
//!
//! ```
//! use assay_store::{Store, StepKey};
//!
//! # let dir = tempfile::tempdir()?;
//! let store = Store::open(dir.path())?;
//! let key = StepKey::new("generate", 1)
//!     .input("model", &assay_store::hash_bytes(b"weights"))
//!     .setting("max_new_tokens", &64)
//!     .finish();
//! assert_eq!(store.get::<Vec<String>>(&key)?, None);
//! store.put(&key, &vec!["an answer"])?;
//! assert_eq!(store.get::<Vec<String>>(&key)?.unwrap(), ["an answer"]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod artifact;
mod db;
mod error;
mod key;
mod lock;
mod release;

pub use db::Store;
pub use error::StoreError;
pub use key::{Key, StepKey, hash_bytes, hash_file, hash_json};
pub use lock::RunLock;
pub use release::{Release, ReleaseId, ReleaseManifest};

/// Result of a call to the store.
pub type Result<T> = std::result::Result<T, StoreError>;
