//! The index at its boundary: folders in, hits out.

mod access;
mod ingest;
mod killed;
mod laws;
mod robustness;
mod search;
mod support;
mod torture;
