//! Backends at their boundary: one contract, held by segments, memory, PostgreSQL and Qdrant.

mod contract;
mod memory;
mod postgres;
mod qdrant;
mod server;
mod support;
