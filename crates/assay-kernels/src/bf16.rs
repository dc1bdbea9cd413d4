//! Rounding of inputs to bf16, in the layout that each path multiplies from.

use crate::dispatch::Path;

/// Columns of a tile of A.
const TILE_COLUMNS: usize = 32;
/// Rows of a tile of A.
const TILE_ROWS: usize = 16;

/// Rounds one row to bf16 bits, nearest, ties to even. NaN stays NaN.
///
/// `out` has the length of `row`.
pub(crate) fn round_row(path: Path, row: &[f32], out: &mut [u16]) {
    debug_assert_eq!(row.len(), out.len());
    #[cfg(target_arch = "x86_64")]
    if matches!(path, Path::Avx512Bf16 | Path::Amx) {
        // SAFETY: the path is available.
        return unsafe { native::round_row(row, out) };
    }
    let _ = path;
    for (out, &value) in out.iter_mut().zip(row) {
        *out = round(value);
    }
}

/// Copies bits of bf16 into AMX tiles, as [`tile_row`] rounds them.
pub(crate) fn copy_tile_row(row: &[u16], r: usize, tiles: &mut [u16]) {
    let stride = TILE_ROWS * TILE_COLUMNS;
    for (values, tile) in row.chunks(TILE_COLUMNS).zip(tiles.chunks_mut(stride)) {
        let out = &mut tile[r * TILE_COLUMNS..][..TILE_COLUMNS];
        let (out, padding) = out.split_at_mut(values.len());
        out.copy_from_slice(values);
        padding.fill(0);
    }
}

/// Rounds `row` to bf16 and widens it again; `out` may be longer and is padded with zeros.
pub(crate) fn widen_row(row: &[f32], out: &mut [f32]) {
    let (values, padding) = out.split_at_mut(row.len());
    for (out, &value) in values.iter_mut().zip(row) {
        *out = f32::from_bits(u32::from(round(value)) << 16);
    }
    padding.fill(0.0);
}

/// Rounds row `r` of its block of 16 into AMX tiles `[columns / 32][16][32]`, zero-padded.
pub(crate) fn tile_row(path: Path, row: &[f32], r: usize, tiles: &mut [u16]) {
    let stride = TILE_ROWS * TILE_COLUMNS;
    for (values, tile) in row.chunks(TILE_COLUMNS).zip(tiles.chunks_mut(stride)) {
        let out = &mut tile[r * TILE_COLUMNS..][..TILE_COLUMNS];
        let (out, padding) = out.split_at_mut(values.len());
        round_row(path, values, out);
        padding.fill(0);
    }
}

pub(crate) fn round(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16
}

#[cfg(target_arch = "x86_64")]
mod native {
    use std::arch::x86_64::*;

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
    pub(super) unsafe fn round_row(row: &[f32], out: &mut [u16]) {
        let (mut chunks, mut outs) = (row.chunks_exact(32), out.chunks_exact_mut(32));
        for (values, out) in (&mut chunks).zip(&mut outs) {
            // SAFETY: both chunks hold 32 values.
            unsafe {
                let low = _mm512_loadu_ps(values.as_ptr());
                let high = _mm512_loadu_ps(values.as_ptr().add(16));
                let rounded: __m512i = std::mem::transmute(_mm512_cvtne2ps_pbh(high, low));
                _mm512_storeu_si512(out.as_mut_ptr().cast(), rounded);
            }
        }
        let (values, out) = (chunks.remainder(), outs.into_remainder());
        if values.is_empty() {
            return;
        }
        let mut buffer = [0.0f32; 32];
        buffer[..values.len()].copy_from_slice(values);
        let mut rounded = [0u16; 32];
        // SAFETY: the buffer holds 32 values, so this does not recurse again.
        unsafe { round_row(&buffer, &mut rounded) };
        out.copy_from_slice(&rounded[..out.len()]);
    }
}
