//! Golden vectors, laws and error rates of the statistics.

mod golden;
mod laws;
mod rates;
mod selective;
