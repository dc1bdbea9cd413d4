//! Metrics against golden vectors, against the reference packages themselves, and by their laws.

mod general;
mod golden;
mod laws;
mod packages;
mod scorer;
