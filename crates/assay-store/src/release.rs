use std::collections::BTreeMap;
use std::fmt;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::db::now_ms;
use crate::{Result, Store, StoreError, hash_json};

/// Name of a release: the hash of its manifest, 16 hex digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseId(pub String);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Everything that is served, and goes back, as one: equal manifests are the same release.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseManifest {
    /// Name of the candidate.
    pub candidate: String,
    /// Part (`corpus`, `index`, `embedder`, `adapter`, `base_model`, `decision`) to its content hash.
    pub parts: BTreeMap<String, String>,
    /// What the server needs to answer as in the evaluation: prompt, thresholds, decoding.
    pub settings: Value,
}

/// A release as it stands in the store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    /// Its name.
    pub id: ReleaseId,
    /// What it consists of.
    pub manifest: ReleaseManifest,
    /// When it was made, in milliseconds since 1970 UTC.
    pub made_ms: i64,
}

impl Store {
    /// Files a release without serving it. The same manifest again is the same release.
    pub fn create_release(&self, manifest: &ReleaseManifest) -> Result<ReleaseId> {
        let id = hash_json(manifest)[..16].to_owned();
        let text = serde_json::to_string(manifest)
            .map_err(|source| StoreError::Unstorable { step: "release".into(), source })?;
        self.with_durable(|c| {
            c.execute(
                "INSERT OR IGNORE INTO release (id, manifest, made_ms, seq)
                 SELECT ?1, ?2, ?3, 1 + coalesce(max(seq), 0) FROM release",
                params![id, text, now_ms()],
            )
        })?;
        Ok(ReleaseId(id))
    }

    /// All releases, oldest first.
    pub fn releases(&self) -> Result<Vec<Release>> {
        self.query("SELECT id, manifest, made_ms FROM release ORDER BY seq")
    }

    /// The release that is served, if any.
    pub fn current_release(&self) -> Result<Option<Release>> {
        let mut found = self.query(
            "SELECT id, manifest, made_ms FROM release
             WHERE id = (SELECT release FROM served ORDER BY seq DESC LIMIT 1)",
        )?;
        Ok(found.pop())
    }

    /// Serves `id` from now on. Serving what is served already changes nothing.
    pub fn set_current(&self, id: &ReleaseId) -> Result<()> {
        let known = self.with_durable(|c| {
            let known: Option<i64> = c
                .query_row("SELECT 1 FROM release WHERE id = ?1", [&id.0], |r| r.get(0))
                .optional()?;
            if known.is_some() {
                c.execute(
                    "INSERT INTO served (release) SELECT ?1 WHERE ?1 IS NOT
                     (SELECT release FROM served ORDER BY seq DESC LIMIT 1)",
                    [&id.0],
                )?;
            }
            Ok(known.is_some())
        })?;
        if known { Ok(()) } else { Err(StoreError::NoSuchRelease(id.0.clone())) }
    }

    /// Goes back to the release that was served before the current one, and returns it.
    pub fn rollback(&self) -> Result<Release> {
        let gone_back = self.with_durable(|c| {
            let served: i64 = c.query_row("SELECT count(*) FROM served", [], |r| r.get(0))?;
            if served >= 2 {
                c.execute("DELETE FROM served WHERE seq = (SELECT max(seq) FROM served)", [])?;
            }
            Ok(served >= 2)
        })?;
        if !gone_back {
            return Err(StoreError::NoEarlierRelease);
        }
        self.current_release()?.ok_or(StoreError::NoEarlierRelease)
    }

    fn query(&self, sql: &str) -> Result<Vec<Release>> {
        let rows: Vec<(String, String, i64)> = self.with(|c| {
            c.prepare_cached(sql)?
                .query_map([], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))?
                .collect()
        })?;
        rows.into_iter()
            .map(|(id, text, made_ms)| match serde_json::from_str(&text) {
                Ok(manifest) => Ok(Release { id: ReleaseId(id), manifest, made_ms }),
                Err(source) => Err(StoreError::Value { step: "release".into(), key: id, source }),
            })
            .collect()
    }
}
