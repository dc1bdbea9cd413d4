//! The words that every other crate speaks: tasks, items, messages, outputs, scores.
//!
//! Records only: no I/O, no clock, no behaviour beyond what keeps a record honest.
//! Everything here may be stored, so everything has a stable `serde` form in `snake_case`.
//!
//! ```
//! use assay_types::{Coverage, Score};
//!
//! let scores = [Score::Scored(1.0), Score::Failed("timeout".into()), Score::Scored(0.0)];
//! let coverage = Coverage::of(&scores);
//! assert_eq!((coverage.n, coverage.failed, coverage.skipped), (2, 1, 0));
//! ```

mod item;
mod output;
mod score;

pub use item::{Item, ItemId, Message, Role, RowRef, Split, Task};
pub use output::{
    ChosenToken, Citation, FinishReason, LikelyToken, Output, Pages, Retrieved, Timing, Usage,
};
pub use score::{Coverage, Score};
