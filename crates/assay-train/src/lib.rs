//! Supervised fine-tuning: conversations in, a LoRA adapter out.
//!
//! Rows are rendered by the decoder's own chat template, so that what is trained is what is served,
//! and only assistant turns with the stop token that ends them are learned. Rows are packed
//! block-diagonally; a step's loss is the sum over its learned tokens divided by their number.
//! AdamW, clipping and schedules match PyTorch's. A run is a function of its settings, rows and
//! base model: it may be broken off anywhere and resumed to the same bits.
//!
//! It refuses to guess. A row that has nothing to learn, does not fit, or is rendered in a way that
//! training and serving would not share is refused by file and row, never cut; a loss or gradient
//! that is not finite ends the run before the step, naming the rows; a checkpoint of another run is
//! not resumed.
//!
//! ```no_run
//! use assay_model::{Decoder, Precision};
//! use assay_train::{BadRows, SftConfig, Trainer, prepare};
//! use std::ops::ControlFlow;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let rows = vec![];
//! let decoder = Decoder::open("model.gguf".as_ref(), Precision::Bf16)?;
//! let set = prepare(&decoder, &rows, 1024, BadRows::Refuse)?;
//! let config = SftConfig::default();
//! let trainer = Trainer {
//!     decoder: &decoder,
//!     config: &config,
//!     train: &set.examples,
//!     dev: &[],
//!     checkpoints: None,
//! };
//! let trained = trainer.train(None, &mut |_| ControlFlow::Continue(()))?;
//! trained.adapter.save_peft("my-adapter".as_ref(), "HuggingFaceTB/SmolLM2-135M-Instruct")?;
//! # Ok(())
//! # }
//! ```

mod checkpoint;
mod config;
mod error;
mod learner;
mod pack;
mod rows;
mod schedule;
mod trainer;

pub use checkpoint::Checkpoints;
pub use config::SftConfig;
pub use error::TrainError;
pub use learner::{Learner, StepReport, mean_loss};
pub use rows::{
    BadRows, Example, Histogram, RefusedReason, RefusedRow, TrainRow, TrainSet, audit, prepare,
};
pub use schedule::Schedule;
pub use trainer::{EpochReport, Metric, Observer, PassSize, Progress, Trained, Trainer};
