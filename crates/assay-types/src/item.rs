use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// What the user's feature does; decides the metrics and the shape of prompts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Answer a question, from documents or from memory.
    Qa,
    /// Choose one label of a closed set.
    Classify,
    /// Produce a JSON object with fields taken from the input.
    Extract,
    /// Write free text.
    Generate,
}

impl Task {
    /// The name as it stands in `assay.toml` and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Qa => "qa",
            Task::Classify => "classify",
            Task::Extract => "extract",
            Task::Generate => "generate",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which part of the labelled data an item belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// Candidates may learn from it.
    Train,
    /// Choices (shots, checkpoints, retrieval depth) are made on it.
    Dev,
    /// Touched once per decision.
    Test,
    /// The frozen general suite that measures forgetting.
    General,
}

/// Name of an item, unique within its dataset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ItemId(pub String);

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a row came from, for messages: `test.jsonl:17`. Rows count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RowRef {
    /// File as the user named it, relative to the project.
    pub file: String,
    /// Line (JSONL) or record (CSV), counted from 1.
    pub row: usize,
}

impl fmt::Display for RowRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.row)
    }
}

/// Who speaks in a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person, or the task input.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name used by chat templates and the OpenAI API.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A turn of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Message { role, content: content.into() }
    }
}

/// One labelled input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Unique within its dataset; the row's own `id`, else made from its content.
    pub id: ItemId,
    /// What the user of the feature sends: a question, a text to label, an instruction.
    pub input: String,
    /// Instructions that came with the row (a `system` message), beyond the project's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Accepted outputs, best first. Empty for an unanswerable question.
    pub references: Vec<String>,
    /// Gold documents: paths relative to the documents folder, with `/`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doc_ids: Vec<String>,
    /// Whether the documents hold the answer; `None` where the question makes no sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answerable: Option<bool>,
    /// Slice name to value, e.g. `type` → `procedure`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub slices: BTreeMap<String, String>,
    /// Where the row stands.
    pub source: RowRef,
}

impl Item {
    /// The unit that is resampled in clustered statistics: the first gold document, else the item.
    pub fn cluster(&self) -> &str {
        self.doc_ids.first().map_or(self.id.0.as_str(), String::as_str)
    }
}
