//! The documents that a release was measured with, and what has become of them since.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result};
use assay_index::Index;
use assay_store::{Key, StepKey, Store};

/// Version of what is filed.
const VERSION: u32 = 1;

/// Path and content hash of each document.
type Documents = BTreeMap<String, String>;

/// What has changed since.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    added: usize,
    changed: usize,
    removed: usize,
}

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Drift { added, changed, removed } = self;
        f.write_str("the documents are not those that were measured: ")?;
        match added + changed + removed {
            0 => f.write_str("metadata, access or settings have changed"),
            _ => write!(f, "{added} added, {changed} changed, {removed} removed since"),
        }
    }
}

fn key(snapshot: &str) -> Key {
    StepKey::new("corpus", VERSION).input("snapshot", snapshot).finish()
}

/// Files which documents there are, under the name of the snapshot, which it returns.
pub(crate) fn pin(store: &Store, index: &Index) -> Result<String> {
    let snapshot = index.snapshot_hash();
    store.put(&key(&snapshot), &documents(index))?;
    Ok(snapshot)
}

/// What has changed since the snapshot was pinned; `None` if nothing has.
pub(crate) fn since(store: &Store, snapshot: &str, index: &Index) -> Result<Option<Drift>> {
    if index.snapshot_hash() == snapshot {
        return Ok(None);
    }
    let then: Documents = store
        .get(&key(snapshot))?
        .context("the list of the documents that the release was measured with is gone")?;
    Ok(Some(between(&then, &documents(index))))
}

fn documents(index: &Index) -> Documents {
    index.documents().iter().map(|d| (d.path.clone(), d.content_hash.clone())).collect()
}

fn between(then: &Documents, now: &Documents) -> Drift {
    let kept = || now.iter().filter_map(|(path, hash)| Some((hash, then.get(path)?)));
    Drift {
        added: now.len() - kept().count(),
        changed: kept().filter(|(now, then)| now != then).count(),
        removed: then.len() - kept().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_by_path_and_content() {
        let of = |rows: &[(&str, &str)]| -> Documents {
            rows.iter().map(|(path, hash)| ((*path).to_owned(), (*hash).to_owned())).collect()
        };
        let drift = between(
            &of(&[("a", "1"), ("b", "1"), ("c", "1")]),
            &of(&[("a", "1"), ("b", "2"), ("d", "1"), ("e", "1")]),
        );
        assert_eq!(drift, Drift { added: 2, changed: 1, removed: 1 });
        assert!(drift.to_string().ends_with("2 added, 1 changed, 1 removed since"));
        let same = between(&of(&[("a", "1")]), &of(&[("a", "1")]));
        assert!(same.to_string().ends_with("metadata, access or settings have changed"));
    }
}
