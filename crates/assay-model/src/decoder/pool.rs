//! Activation buffers that survive from step to step.
//!
//! A training step of 1,024 tokens touches hundreds of megabytes of activations. Taking them from
//! the system anew each time costs a page fault per 4 KiB, so buffers return here when dropped.

use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, PoisonError};

#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<Vec<Vec<f32>>>);

impl Pool {
    /// A buffer of `len` values with arbitrary contents: whoever takes it overwrites it.
    pub(crate) fn take(&self, len: usize) -> Buffer<'_> {
        let mut free = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() / 2 <= len;
        // The newest fitting buffer is the one most likely still in the cache.
        let mut values = match free.iter().rposition(fits) {
            Some(i) => free.remove(i),
            None => Vec::new(),
        };
        drop(free);
        if values.capacity() == 0 {
            values = vec![0.0; len];
        }
        values.resize(len, 0.0);
        Buffer { values, pool: self }
    }

    /// A buffer with the contents of `source`.
    pub(crate) fn copy(&self, source: &[f32]) -> Buffer<'_> {
        let mut buffer = self.take(source.len());
        buffer.copy_from_slice(source);
        buffer
    }
}

/// A slice that goes back to its pool.
#[derive(Debug)]
pub(crate) struct Buffer<'p> {
    values: Vec<f32>,
    pool: &'p Pool,
}

impl Deref for Buffer<'_> {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.values
    }
}

impl DerefMut for Buffer<'_> {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }
}

impl Drop for Buffer<'_> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        self.pool.0.lock().unwrap_or_else(PoisonError::into_inner).push(values);
    }
}
