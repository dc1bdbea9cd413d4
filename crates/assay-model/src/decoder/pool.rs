//! Activation buffers that survive from step to step.
//!
//! A training step of 1,024 tokens touches hundreds of megabytes of activations. Taking them from
//! the system anew each time costs a page fault per 4 KiB, so buffers return here when dropped. Batches
//! differ in length, and so do their buffers: what is kept beyond the largest need so far is given
//! back, the longest unused first.

use std::collections::VecDeque;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use assay_kernels::{Precision, Values, round_to_bf16};
use half::bf16;

#[derive(Debug, Default)]
pub(crate) struct Pool(Mutex<State>);

/// Sizes are capacities, in values.
#[derive(Debug, Default)]
struct State {
    /// Longest unused first.
    free: VecDeque<Vec<f32>>,
    free_size: usize,
    used_size: usize,
    most_used: usize,
}

impl State {
    /// The most that is held, used or not: room for buffers of other lengths beside the largest need.
    fn limit(&self) -> usize {
        self.most_used + self.most_used / 4
    }
}

impl Pool {
    /// A buffer of `len` values with arbitrary contents: whoever takes it overwrites it.
    pub(crate) fn take(&self, len: usize) -> Buffer<'_> {
        let mut state = self.state();
        let fits = |v: &Vec<f32>| v.capacity() >= len && v.capacity() <= len + len / 4;
        // The newest fitting buffer is the one most likely still in the cache.
        let found = state.free.iter().rposition(fits).and_then(|i| state.free.remove(i));
        if let Some(values) = &found {
            state.free_size -= values.capacity();
        }
        let size = found.as_ref().map_or(len, Vec::capacity);
        state.used_size += size;
        state.most_used = state.most_used.max(state.used_size);
        drop(state);
        let mut values = found.unwrap_or_else(|| vec![0.0; len]);
        values.resize(len, 0.0);
        Buffer { values, size, pool: self }
    }

    /// A buffer with the contents of `source`.
    pub(crate) fn copy(&self, source: &[f32]) -> Buffer<'_> {
        let mut buffer = self.take(source.len());
        buffer.copy_from_slice(source);
        buffer
    }

    /// A buffer of `len` values as products of that precision read them, with arbitrary contents.
    pub(crate) fn take_stored(&self, precision: Precision, len: usize) -> Stored<'_> {
        match precision {
            Precision::F32 => Stored::F32(self.take(len)),
            Precision::Bf16 => Stored::Bf16(Halves { buffer: self.take(len.div_ceil(2)), len }),
        }
    }

    /// Values as products of that precision read them.
    pub(crate) fn store<'p>(&'p self, precision: Precision, values: Buffer<'p>) -> Stored<'p> {
        let mut stored = match precision {
            Precision::F32 => return Stored::F32(values),
            Precision::Bf16 => self.take_stored(precision, values.len()),
        };
        if let Stored::Bf16(halves) = &mut stored {
            round_to_bf16(&values, halves);
        }
        stored
    }

    /// The given rows of `width` values.
    pub(crate) fn rows(&self, values: &[f32], width: usize, rows: &[usize]) -> Buffer<'_> {
        let mut chosen = self.take(rows.len() * width);
        for (out, &row) in chosen.chunks_mut(width).zip(rows) {
            out.copy_from_slice(&values[row * width..][..width]);
        }
        chosen
    }

    /// As [`Self::rows`].
    pub(crate) fn stored_rows(
        &self,
        values: &Stored<'_>,
        width: usize,
        rows: &[usize],
    ) -> Stored<'_> {
        match values {
            Stored::F32(values) => Stored::F32(self.rows(values, width, rows)),
            Stored::Bf16(values) => {
                let len = rows.len() * width;
                let mut chosen = Halves { buffer: self.take(len.div_ceil(2)), len };
                for (out, &row) in chosen.chunks_mut(width).zip(rows) {
                    out.copy_from_slice(&values[row * width..][..width]);
                }
                Stored::Bf16(chosen)
            }
        }
    }

    /// The most that was in use at once, in values.
    pub(crate) fn most_used(&self) -> usize {
        self.state().most_used
    }

    fn give_back(&self, values: Vec<f32>, size: usize) {
        let mut state = self.state();
        state.used_size -= size;
        state.free_size += values.capacity();
        state.free.push_back(values);
        let mut unused = Vec::new();
        while state.free_size + state.used_size > state.limit() {
            let Some(oldest) = state.free.pop_front() else { break };
            state.free_size -= oldest.capacity();
            unused.push(oldest);
        }
        drop(state);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A slice that goes back to its pool.
#[derive(Debug)]
pub(crate) struct Buffer<'p> {
    values: Vec<f32>,
    /// What the pool counts it as.
    size: usize,
    pool: &'p Pool,
}

/// Activations that products read: rounded once, in half the memory, where products are in bf16.
#[derive(Debug)]
pub(crate) enum Stored<'p> {
    F32(Buffer<'p>),
    Bf16(Halves<'p>),
}

impl<'p> Stored<'p> {
    pub(crate) fn values(&self) -> Values<'_> {
        match self {
            Stored::F32(values) => Values::F32(values),
            Stored::Bf16(values) => Values::Bf16(values),
        }
    }

    /// As `f32`.
    pub(crate) fn widen(self, pool: &'p Pool) -> Buffer<'p> {
        match self {
            Stored::F32(values) => values,
            Stored::Bf16(values) => {
                let mut wide = pool.take(values.len());
                Values::Bf16(&values).widen(&mut wide);
                wide
            }
        }
    }
}

/// A buffer of bf16.
#[derive(Debug)]
pub(crate) struct Halves<'p> {
    buffer: Buffer<'p>,
    len: usize,
}

impl Deref for Halves<'_> {
    type Target = [bf16];

    fn deref(&self) -> &[bf16] {
        &bytemuck::cast_slice(&self.buffer)[..self.len]
    }
}

impl DerefMut for Halves<'_> {
    fn deref_mut(&mut self) -> &mut [bf16] {
        &mut bytemuck::cast_slice_mut(&mut self.buffer)[..self.len]
    }
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
        self.pool.give_back(std::mem::take(&mut self.values), self.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_and_old_ones_are_given_up() {
        let pool = Pool::default();
        let first = pool.take(1000);
        let at = first.as_ptr();
        drop(first);
        assert_eq!(pool.take(900).as_ptr(), at, "used again where it fits");
        for round in 1..50 {
            // Lengths that no earlier buffer fits.
            let all: Vec<_> = [999, 400 - round, 30 + round].map(|n| pool.take(n)).into();
            drop(all);
            let state = pool.state();
            assert_eq!(state.used_size, 0);
            assert_eq!(state.free_size, state.free.iter().map(Vec::capacity).sum::<usize>());
            assert!(state.free_size <= 2000, "{} values kept", state.free_size);
        }
    }
}
