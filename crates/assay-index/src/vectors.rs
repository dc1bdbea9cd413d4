//! Exact search: the dot product with every vector.

use rayon::prelude::*;

/// Rows of unit vectors, in chunk order.
pub(crate) struct Vectors {
    dims: usize,
    values: Vec<f32>,
}

impl Vectors {
    /// `values` holds the rows one after the other; its length is a multiple of `dims`.
    pub(crate) fn new(dims: usize, values: Vec<f32>) -> Self {
        debug_assert!(dims > 0 && values.len().is_multiple_of(dims));
        Vectors { dims, values }
    }

    /// The dot product of `query` with every row, in row order.
    pub(crate) fn scores(&self, query: &[f32]) -> Vec<f32> {
        self.values
            .par_chunks_exact(self.dims)
            .with_min_len(2048)
            .map(|row| assay_kernels::dot(row, query))
            .collect()
    }
}
