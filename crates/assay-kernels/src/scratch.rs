//! Scratch memory that outlives a call: a fresh page costs more to fault in than to compute on.

use std::cell::RefCell;

use bytemuck::{Pod, Zeroable};

/// One cache line; keeps buffers 64-byte aligned.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; 64]);

thread_local! {
    static FREE: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` values of unspecified contents, 64-byte aligned.
pub(crate) fn with<T: Pod, R>(len: usize, f: impl FnOnce(&mut [T]) -> R) -> R {
    let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
    let mut buffer = FREE.with_borrow_mut(|free| {
        let best = (0..free.len()).rev().find(|&i| free[i].len() >= lines);
        best.map(|i| free.swap_remove(i)).or_else(|| free.pop()).unwrap_or_default()
    });
    if buffer.len() < lines {
        buffer.resize(lines, Line::zeroed());
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut buffer[..lines])[..len]);
    FREE.with_borrow_mut(|free| free.push(buffer));
    result
}
