//! Parsers and chunker at the crate's boundary.

mod chunks;
mod parsing;
