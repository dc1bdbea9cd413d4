use serde::{Deserialize, Serialize};

/// The outcome of measuring one item: a number, or the reason why there is none.
///
/// A failure is never turned into 0 and never left out silently: aggregates carry [`Coverage`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Score {
    /// A finite value.
    Scored(f64),
    /// The item should have a score and has none.
    Failed(String),
    /// The metric does not apply to this item.
    Skipped(String),
}

impl Score {
    /// The value, if there is one.
    pub fn value(&self) -> Option<f64> {
        match self {
            Score::Scored(v) => Some(*v),
            Score::Failed(_) | Score::Skipped(_) => None,
        }
    }
}

/// How many items stand behind an aggregate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Items with a value.
    pub n: usize,
    /// Items that should have one and do not.
    pub failed: usize,
    /// Items to which the metric does not apply.
    pub skipped: usize,
}

impl Coverage {
    /// Counts the three states.
    pub fn of<'a>(scores: impl IntoIterator<Item = &'a Score>) -> Self {
        scores.into_iter().fold(Coverage::default(), |mut c, s| {
            match s {
                Score::Scored(_) => c.n += 1,
                Score::Failed(_) => c.failed += 1,
                Score::Skipped(_) => c.skipped += 1,
            }
            c
        })
    }
}
