//! Activations in memory: `f32`, or rounded to bf16.

use half::bf16;

use crate::activation::task_len;
use crate::dispatch::{Path, kernel};
use crate::simd::{LANES, Vector};
use crate::team;

/// Rows of activations that a product reads.
#[derive(Debug, Clone, Copy)]
pub enum Values<'a> {
    /// As computed.
    F32(&'a [f32]),
    /// Rounded, as a product in bf16 would round them.
    Bf16(&'a [bf16]),
}

impl<'a> Values<'a> {
    /// Their number.
    pub fn len(self) -> usize {
        match self {
            Values::F32(values) => values.len(),
            Values::Bf16(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Those of a range.
    ///
    /// # Panics
    /// When the range is out of bounds.
    pub fn range(self, range: std::ops::Range<usize>) -> Values<'a> {
        match self {
            Values::F32(values) => Values::F32(&values[range]),
            Values::Bf16(values) => Values::Bf16(&values[range]),
        }
    }

    /// Writes them as `f32`.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn widen(self, out: &mut [f32]) {
        assert_eq!(self.len(), out.len(), "widen: lengths");
        let (path, len) = (Path::current(), task_len(LANES));
        match self {
            Values::F32(values) => out.copy_from_slice(values),
            Values::Bf16(values) => {
                team::consume(values.chunks(len).zip(out.chunks_mut(len)), |(values, out)| {
                    // SAFETY: the path is available and the lengths agree.
                    unsafe { copy_kernel(path, values, out) };
                });
            }
        }
    }
}

/// Rounds to bf16, to the nearest, ties to even; NaN stays NaN.
///
/// # Panics
/// When the lengths differ.
pub fn round_to_bf16(values: &[f32], out: &mut [bf16]) {
    assert_eq!(values.len(), out.len(), "round: lengths");
    let (path, len) = (Path::current(), task_len(LANES));
    team::consume(values.chunks(len).zip(out.chunks_mut(len)), |(values, out)| {
        // SAFETY: the path is available and the lengths agree.
        unsafe { copy_kernel(path, values, out) };
    });
}

kernel! {
    fn copy_kernel<V, S: Value, T: Value>(from: &[S], to: &mut [T]) {
        unsafe {
            let (len, from, to) = (to.len(), from.as_ptr(), to.as_mut_ptr());
            for i in (0..len).step_by(LANES) {
                let values: V = S::load(from.add(i), len - i);
                T::store(to.add(i), len - i, values);
            }
        }
    }
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Values::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Values::Bf16(values)
    }
}

/// A number that kernels store: `f32` or bf16.
pub trait Value: Copy + Send + Sync + Lanes {}

impl Value for f32 {}
impl Value for bf16 {}

/// Sixteen of them at once. Unsafe as [`Vector`] is.
pub trait Lanes: Sized {
    /// Loads sixteen, or the first `n` and zeros.
    #[doc(hidden)]
    unsafe fn load<V: Vector>(p: *const Self, n: usize) -> V;
    /// Stores sixteen, or the first `n`.
    #[doc(hidden)]
    unsafe fn store<V: Vector>(p: *mut Self, n: usize, value: V);
}

impl Lanes for f32 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self, n: usize) -> V {
        // SAFETY: the caller's contract.
        unsafe { if n >= LANES { V::load(p) } else { V::load_partial(p, n) } }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(p: *mut Self, n: usize, value: V) {
        // SAFETY: the caller's contract.
        unsafe { if n >= LANES { value.store(p) } else { value.store_partial(p, n) } }
    }
}

impl Lanes for bf16 {
    #[inline(always)]
    unsafe fn load<V: Vector>(p: *const Self, n: usize) -> V {
        // SAFETY: the caller's contract; a bf16 is its bits.
        unsafe {
            if n >= LANES {
                return V::load_bf16(p.cast());
            }
            let mut bits = [0; LANES];
            p.cast::<u16>().copy_to_nonoverlapping(bits.as_mut_ptr(), n);
            V::load_bf16(bits.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store<V: Vector>(p: *mut Self, n: usize, value: V) {
        // SAFETY: as above.
        unsafe {
            if n >= LANES {
                return value.store_bf16(p.cast());
            }
            let mut bits = [0; LANES];
            value.store_bf16(bits.as_mut_ptr());
            p.cast::<u16>().copy_from_nonoverlapping(bits.as_ptr(), n);
        }
    }
}
