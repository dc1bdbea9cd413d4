//! Labelled data: reading it, finding what makes it unfit for a decision, splitting it, and making
//! training rows with retrieved context.
//!
//! [`read`] takes JSONL and CSV in the common row shapes and reports *every* unreadable row with its
//! place and a hint. [`lint`] looks across files: leaks from train into test, contradictions,
//! missing documents, too few items. [`split_dev`] keeps documents whole. [`raft_row`] mixes a
//! golden chunk with hard distractors.
//!
//! It refuses preference pairs (nothing here trains on them), conversations of several exchanges
//! (no one output to score), and guessing: a row that does not have the file's shape is an error.
//! It knows no model, no index and no training loop; lengths and chunks are given to it.
//!
//! ```
//! use assay_data::{Format, Shape, parse};
//!
//! let rows = br#"{"question": "Who wrote it?", "answer": "Ada", "doc_ids": ["a.md"]}"#;
//! let data = parse(rows, "test.jsonl", Format::Jsonl, None).unwrap();
//! assert_eq!(data.shape, Shape::QuestionAnswer);
//! assert_eq!(data.items[0].references, ["Ada"]);
//! ```

mod error;
mod lint;
mod normal;
mod raft;
mod read;
mod shape;
mod split;

pub use error::{ReadError, RowError};
pub use lint::{Code, Context, Finding, LintInput, Severity, lint};
pub use normal::normalise;
pub use raft::{Chunk, RaftRow, contains_answer, golden_chunk, raft_row};
pub use read::{Dataset, Format, parse, read};
pub use shape::Shape;
pub use split::{labels, split_dev};
