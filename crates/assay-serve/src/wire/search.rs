//! `/v1/search`: `{"query": "…", "k": 5, "filters": {"type": "eq", "key": "lang", "value": "en"}}`.

use assay_types::Pages;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ApiError;
use crate::service::{self, Caller, SearchHit, SearchResponse};

const MOST: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    query: String,
    #[serde(default = "five")]
    k: usize,
    filters: Option<Value>,
}

fn five() -> usize {
    5
}

impl SearchRequest {
    pub(crate) fn checked(self, caller: Caller) -> Result<service::SearchRequest, ApiError> {
        let SearchRequest { query, k, filters: filter } = self;
        if query.trim().is_empty() {
            return Err(ApiError::bad("query", "query is empty"));
        }
        if k == 0 || k > MOST {
            return Err(ApiError::bad("k", format!("k is {k}, it may be 1 to {MOST}")));
        }
        Ok(service::SearchRequest { query, k, filter, caller })
    }
}

/// A list of hits, and what is to be said of it.
#[derive(Serialize)]
pub(crate) struct Found {
    object: &'static str,
    data: Vec<Hit>,
    /// Tokens that were read of a query that is too long.
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_to: Option<usize>,
}

#[derive(Serialize)]
struct Hit {
    document: String,
    start: usize,
    end: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<Pages>,
    text: String,
    score: f64,
}

impl From<SearchResponse> for Found {
    fn from(found: SearchResponse) -> Self {
        let SearchResponse { hits, truncated_to } = found;
        Found { object: "list", data: hits.into_iter().map(Hit::from).collect(), truncated_to }
    }
}

impl From<SearchHit> for Hit {
    fn from(hit: SearchHit) -> Self {
        let SearchHit { document, start, end, pages, text, score } = hit;
        Hit { document, start, end, pages, text, score }
    }
}
