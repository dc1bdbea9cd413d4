//! Tests of the trainer, on a tiny random decoder and on SmolLM2.

#![expect(clippy::print_stderr, reason = "measurements of tests, shown on demand")]

mod common;
mod files;
mod peft;
mod real;
mod rows;
mod training;
