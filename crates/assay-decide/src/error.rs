use assay_types::ItemId;
use thiserror::Error;

/// Why no decision can be made from an input. Each is a mistake of the caller, not a property of the candidates.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecideError {
    /// There is nothing to choose from.
    #[error("there are no candidates")]
    NoCandidates,
    /// There is nothing to compare on.
    #[error("there are no test items")]
    NoItems,
    /// Two candidates share a name.
    #[error("two candidates are called `{0}`")]
    DuplicateCandidate(String),
    /// Two test items share a name.
    #[error("two test items are called `{0}`")]
    DuplicateItem(ItemId),
    /// The deciding metric was not computed.
    #[error("candidate `{candidate}` has no metric `{metric}`")]
    MissingMetric {
        /// The candidate.
        candidate: String,
        /// The deciding metric.
        metric: String,
    },
    /// A metric does not cover exactly the test items.
    #[error(
        "metric `{metric}` of candidate `{candidate}` covers {got} items, and the test set has {expected}; \
         `{example}` is in only one of them"
    )]
    ItemsDiffer {
        /// The candidate.
        candidate: String,
        /// The metric.
        metric: String,
        /// Items in the test set.
        expected: usize,
        /// Items with a score.
        got: usize,
        /// An item that one has and the other has not.
        example: ItemId,
    },
    /// A score is NaN or infinite.
    #[error("metric `{metric}` of candidate `{candidate}` is not finite on item `{item}`")]
    NotFinite {
        /// The candidate.
        candidate: String,
        /// The metric.
        metric: String,
        /// The item.
        item: ItemId,
    },
    /// The suite was answered a different number of times before and after.
    #[error(
        "the general suite of candidate `{candidate}` has {before} answers before and {after} after"
    )]
    GeneralDiffers {
        /// The candidate.
        candidate: String,
        /// Answers before.
        before: usize,
        /// Answers after.
        after: usize,
    },
    /// A setting is out of its range.
    #[error("`{name}` must be {range}, and is {got}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        got: String,
    },
}
