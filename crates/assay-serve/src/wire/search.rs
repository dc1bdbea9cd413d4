//! `/v1/search`: `{"query": "…", "k": 5}`.

use serde::{Deserialize, Serialize};

use crate::error::ApiError;
use crate::service::SearchHit;

const MOST: usize = 100;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    pub(crate) query: String,
    #[serde(default = "five")]
    pub(crate) k: usize,
}

fn five() -> usize {
    5
}

impl SearchRequest {
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        if self.query.trim().is_empty() {
            return Err(ApiError::bad("query", "query is empty"));
        }
        if self.k == 0 || self.k > MOST {
            return Err(ApiError::bad("k", format!("k is {}, it may be 1 to {MOST}", self.k)));
        }
        Ok(())
    }
}

#[derive(Serialize)]
pub(crate) struct Hit {
    document: String,
    start: usize,
    end: usize,
    text: String,
    score: f64,
}

impl From<SearchHit> for Hit {
    fn from(hit: SearchHit) -> Self {
        let SearchHit { document, start, end, text, score } = hit;
        Hit { document, start, end, text, score }
    }
}
