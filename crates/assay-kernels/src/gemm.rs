//! Dense products: against packed weights, and small unpacked ones.

use crate::dispatch::{Path, kernel};
use crate::packed::{NR, PackedMatrix, Precision};
use crate::simd::LANES;
use crate::tile::{self, Format};
use crate::{bf16, scratch, team};

/// Rows per task: a multiple of every tile height, small enough for the L2 cache.
const ROW_BLOCK: usize = 288;
/// Inner values per pass, so that a panel of weights stays in the L2 cache. Fixed, since it decides
/// the order of the sums.
const INNER_BLOCK: usize = 2048;
/// The same for unpacked operands, whose rows may lie on a page each.
const DENSE_BLOCK: usize = 128;
/// Multiply-adds below which a task is not worth a thread.
const TASK_WORK: usize = 1 << 18;

/// `out [m, rows] = x [m, cols] · Wᵀ` for a packed `W [rows, cols]`.
///
/// With [`Precision::Bf16`] the input is rounded to bfloat16; sums are `f32`. A row of the result
/// has the same bits whatever the other rows are.
///
/// # Panics
/// When a length does not match its shape.
pub fn matmul(x: &[f32], m: usize, w: &PackedMatrix, out: &mut [f32]) {
    packed_product(x, m, w, out, false);
}

/// `out [m, rows] += x [m, cols] · Wᵀ`; otherwise as [`matmul`].
///
/// # Panics
/// When a length does not match its shape.
pub fn matmul_add(x: &[f32], m: usize, w: &PackedMatrix, out: &mut [f32]) {
    packed_product(x, m, w, out, true);
}

fn packed_product(x: &[f32], m: usize, w: &PackedMatrix, out: &mut [f32], add: bool) {
    let (n, k, padded) = (w.rows(), w.cols(), w.padded_cols());
    assert_eq!(x.len(), m * k, "matmul: input length");
    assert_eq!(out.len(), m * n, "matmul: output length");
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if !add {
            out.fill(0.0);
        }
        return;
    }
    let path = Path::current();
    match (w.precision(), path) {
        (Precision::F32, _) => multiply(path, Input::F32(x), m, w, out, add),
        (Precision::Bf16, Path::Amx) => {
            scratch::with(m.next_multiple_of(16) * padded, |tiles: &mut [u16]| {
                for_rows(x, 16 * k, tiles, 16 * padded, |x, tiles| {
                    for (r, row) in x.chunks(k).enumerate() {
                        bf16::tile_row(path, row, r, tiles);
                    }
                });
                multiply(path, Input::Tiles(tiles), m, w, out, add);
            });
        }
        (Precision::Bf16, Path::Avx512Bf16 | Path::NeonBf16) => {
            scratch::with(m * padded, |pairs: &mut [u16]| {
                for_rows(x, k, pairs, padded, |row, out| {
                    let (out, padding) = out.split_at_mut(k);
                    bf16::round_row(path, row, out);
                    padding.fill(0);
                });
                multiply(path, Input::Pairs(pairs), m, w, out, add);
            });
        }
        (Precision::Bf16, _) => {
            scratch::with(m * padded, |wide: &mut [f32]| {
                for_rows(x, k, wide, padded, bf16::widen_row);
                multiply(path, Input::Widened(wide), m, w, out, add);
            });
        }
    }
}

/// Applies `convert` to each chunk of `x` and its chunk of `out`, in parallel when it pays.
fn for_rows<T: Copy + Send>(
    x: &[f32],
    x_len: usize,
    out: &mut [T],
    out_len: usize,
    convert: impl Fn(&[f32], &mut [T]) + Sync + Send,
) {
    if x.len() < TASK_WORK {
        x.chunks(x_len).zip(out.chunks_mut(out_len)).for_each(|(x, out)| convert(x, out));
    } else {
        let rows = (TASK_WORK / 8).div_ceil(x_len);
        let (out, all) = (Shared(out.as_mut_ptr()), out.len());
        team::for_each(x.len().div_ceil(rows * x_len), |task| {
            let (first, at) = (task * rows, task * rows * out_len);
            // SAFETY: each task writes the rows it reads.
            let out = unsafe {
                std::slice::from_raw_parts_mut(out.get().add(at), all.min(at + rows * out_len) - at)
            };
            let x = &x[first * x_len..x.len().min((first + rows) * x_len)];
            x.chunks(x_len).zip(out.chunks_mut(out_len)).for_each(|(x, out)| convert(x, out));
        });
    }
}

/// The left operand in the layout of its kernel; all but `F32` padded like the weights.
#[derive(Clone, Copy)]
enum Input<'a> {
    F32(&'a [f32]),
    Widened(&'a [f32]),
    Pairs(&'a [u16]),
    #[cfg_attr(not(target_arch = "x86_64"), expect(dead_code, reason = "only AMX has tiles"))]
    Tiles(&'a [u16]),
}

/// A pointer that tasks share; each writes its own block.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T>(pub(crate) *mut T);
// SAFETY: whoever dereferences the pointer vouches for disjoint blocks.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer; a method, so that closures capture the whole wrapper.
    pub(crate) fn get(self) -> *mut T {
        self.0
    }
}

fn multiply(path: Path, x: Input<'_>, m: usize, w: &PackedMatrix, out: &mut [f32], add: bool) {
    let panels = w.rows().div_ceil(NR);
    let out = Shared(out.as_mut_ptr());
    for_blocks(m, panels, w.cols() * NR, 6, |rows, columns| {
        // SAFETY: the blocks of the tasks are disjoint, and the lengths were checked.
        unsafe { packed_block(path, x, w, out.get(), rows, columns, add) };
    });
}

/// Splits `m` rows and `panels` columns of panels into blocks of enough work and calls `task` on
/// each, in parallel. `panel_work` is the multiply-adds of one row and one panel.
fn for_blocks(
    m: usize,
    panels: usize,
    panel_work: usize,
    granule: usize,
    task: impl Fn(std::ops::Range<usize>, std::ops::Range<usize>) + Sync + Send,
) {
    let threads = rayon::current_num_threads();
    let work = m * panels * panel_work;
    let tasks = if threads == 1 { 1 } else { (work / TASK_WORK).clamp(1, 4 * threads) };
    let row_blocks = m.div_ceil(ROW_BLOCK);
    let row_step = m.div_ceil(row_blocks).next_multiple_of(ROW_BLOCK.min(32)).min(m);
    let row_blocks = m.div_ceil(row_step);
    let column_blocks = tasks.div_ceil(row_blocks).min(panels);
    let column_step = panels.div_ceil(column_blocks).next_multiple_of(granule.min(panels));
    let column_blocks = panels.div_ceil(column_step);
    let run = |i: usize| {
        let (row, column) = (i / column_blocks * row_step, i % column_blocks * column_step);
        task(row..m.min(row + row_step), column..panels.min(column + column_step));
    };
    if tasks == 1 {
        (0..row_blocks * column_blocks).for_each(run);
    } else {
        team::for_each(row_blocks * column_blocks, run);
    }
}

/// One block of a packed product, in passes over the inner dimension.
///
/// # Safety
/// `x`, `w` and `out` have matching shapes, and nobody else writes the block.
unsafe fn packed_block(
    path: Path,
    x: Input<'_>,
    w: &PackedMatrix,
    out: *mut f32,
    rows: std::ops::Range<usize>,
    panels: std::ops::Range<usize>,
    add: bool,
) {
    let (n, k, padded) = (w.rows(), w.cols(), w.padded_cols());
    let column = panels.start * NR;
    let (block_m, block_n) = (rows.len(), n.min(panels.end * NR) - column);
    for start in (0..k).step_by(INNER_BLOCK) {
        let add = add || start > 0;
        let len = INNER_BLOCK.min(k - start);
        let padded_len = INNER_BLOCK.min(padded - start);
        // SAFETY: every offset below lies in its operand, by the layouts documented in `packed`.
        unsafe {
            let c = out.add(rows.start * n + column);
            let product = |a: *const f32, a_row, b: *const f32, b_panel, k| tile::Product {
                m: block_m,
                n: block_n,
                k,
                a: a.add(rows.start * a_row),
                a_row,
                a_k: 1,
                b,
                b_panel,
                b_k: NR,
                c,
                c_row: n,
                alpha: 1.0,
                beta: if add { 1.0 } else { 0.0 },
            };
            let pairs = || w.panel_bf16(panels.start).as_ptr().add(start * NR).cast::<f32>();
            match x {
                Input::F32(x) => {
                    let b = w.panel_f32(panels.start).as_ptr().add(start * NR);
                    let p = product(x.as_ptr().add(start), k, b, padded * NR, len);
                    tile::product(path, Format::F32, &p);
                }
                Input::Widened(x) => {
                    let (a, k) = (x.as_ptr().add(start), padded_len / 2);
                    let p = product(a, padded, pairs(), padded / 2 * NR, k);
                    tile::product(path, Format::Widened, &p);
                }
                Input::Pairs(x) => {
                    let (a, k) = (x.as_ptr().add(start).cast(), padded_len / 2);
                    let p = product(a, padded / 2, pairs(), padded / 2 * NR, k);
                    tile::product(path, Format::Pairs, &p);
                }
                #[cfg(target_arch = "x86_64")]
                Input::Tiles(x) => crate::amx::products(&[crate::amx::Product {
                    m: block_m,
                    n: block_n,
                    steps: padded_len / 32,
                    a: x.as_ptr().add(rows.start * padded + start * 16).cast(),
                    a_row: padded / 32,
                    b: pairs().cast(),
                    b_column: padded / 32,
                    c,
                    c_row: n,
                    add,
                }]),
                #[cfg(not(target_arch = "x86_64"))]
                Input::Tiles(_) => unreachable!("AMX exists on x86-64 only"),
            }
        }
    }
}

/// `out [m, n] = alpha · op(A) · op(B) + beta · out`, all `f32` and row-major.
///
/// `op(A)` is `[m, k]`: `a` holds it as is, or transposed (`[k, m]`) when `ta`. `op(B)` is
/// `[k, n]`: `b` holds it as is, or transposed (`[n, k]`) when `tb`. With `beta == 0` the old
/// contents of `out` are ignored, NaN included. Each element sums over `k` in a fixed order.
///
/// # Panics
/// When a length does not match its shape.
pub fn gemm(
    alpha: f32,
    a: &[f32],
    ta: bool,
    b: &[f32],
    tb: bool,
    beta: f32,
    out: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    assert_eq!(a.len(), m * k, "gemm: length of A");
    assert_eq!(b.len(), k * n, "gemm: length of B");
    assert_eq!(out.len(), m * n, "gemm: length of the output");
    if m == 0 || n == 0 {
        return;
    }
    let path = Path::current();
    let (a_row, a_k) = if ta { (1, m) } else { (k, 1) };
    if ta && m > n && n <= 4 * LANES {
        // The wide operand is already laid out as vectors: compute the transpose.
        scratch::with(m * n, |transposed: &mut [f32]| {
            let (b_row, b_k) = if tb { (k, 1) } else { (1, n) };
            dense(path, 1.0, (b, b_row, b_k), a, false, 0.0, transposed, n, m, k);
            for (i, row) in out.chunks_mut(n).enumerate() {
                for (j, value) in row.iter_mut().enumerate() {
                    let old = if beta == 0.0 { 0.0 } else { beta * *value };
                    *value = alpha * transposed[j * m + i] + old;
                }
            }
        });
    } else {
        dense(path, alpha, (a, a_row, a_k), b, tb, beta, out, m, n, k);
    }
}

/// [`gemm`] with A given by its strides `(a, between rows, between columns)`.
fn dense(
    path: Path,
    alpha: f32,
    (a, a_row, a_k): (&[f32], usize, usize),
    b: &[f32],
    tb: bool,
    beta: f32,
    out: &mut [f32],
    m: usize,
    n: usize,
    k: usize,
) {
    let panels = n.div_ceil(LANES);
    let (a, out) = (Shared(a.as_ptr().cast_mut()), Shared(out.as_mut_ptr()));
    let run = |b: &[f32], b_panel: usize, b_k: usize| {
        let b = Shared(b.as_ptr().cast_mut());
        for_blocks(m, panels, k * LANES, 6, |rows, columns| {
            let column = columns.start * LANES;
            // At least one pass, which scales the output when the inner dimension is empty.
            for start in (0..k.max(1)).step_by(DENSE_BLOCK) {
                // SAFETY: the blocks of the tasks are disjoint, and the lengths were checked.
                unsafe {
                    let p = tile::Product {
                        m: rows.len(),
                        n: n.min(columns.end * LANES) - column,
                        k: DENSE_BLOCK.min(k - start),
                        a: a.get().add(rows.start * a_row + start * a_k),
                        a_row,
                        a_k,
                        b: b.get().add(columns.start * b_panel + start * b_k),
                        b_panel,
                        b_k,
                        c: out.get().add(rows.start * n + column),
                        c_row: n,
                        alpha,
                        beta: if start == 0 { beta } else { 1.0 },
                    };
                    tile::product(path, Format::F32, &p);
                }
            }
        });
    };
    if !tb && n.is_multiple_of(LANES) {
        return run(b, LANES, n);
    }
    scratch::with(panels * k * LANES, |packed: &mut [f32]| {
        for (p, panel) in packed.chunks_mut((k * LANES).max(1)).enumerate() {
            let columns = p * LANES..n.min((p + 1) * LANES);
            pack_panel(b, if tb { (k, 1) } else { (1, n) }, columns, panel);
        }
        run(packed, k * LANES, LANES);
    });
}

/// Copies columns of op(B), given by its strides `(between columns, between rows)`, to
/// `panel [k, 16]`, padded with zeros.
pub(crate) fn pack_panel(
    b: &[f32],
    (b_column, b_k): (usize, usize),
    columns: std::ops::Range<usize>,
    panel: &mut [f32],
) {
    if columns.len() < LANES {
        panel.fill(0.0);
    }
    for (lane, column) in columns.enumerate() {
        let values = b[column * b_column..].iter().step_by(b_k);
        for (out, value) in panel[lane..].iter_mut().step_by(LANES).zip(values) {
            *out = *value;
        }
    }
}

/// Dot product.
///
/// # Panics
/// When the lengths differ.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "dot: lengths");
    // SAFETY: the path is available and the lengths agree.
    unsafe { dot_kernel(Path::current(), a, b) }
}

kernel! {
    /// Lane sums, then a fixed tree.
    fn dot_kernel<V>(a: &[f32], b: &[f32]) -> f32 {
        unsafe {
            let mut sum = V::splat(0.0);
            let whole = a.len() / LANES * LANES;
            for i in (0..whole).step_by(LANES) {
                sum = V::load(a.as_ptr().add(i)).mul_add(V::load(b.as_ptr().add(i)), sum);
            }
            let rest = a.len() - whole;
            if rest > 0 {
                let x = V::load_partial(a.as_ptr().add(whole), rest);
                sum = x.mul_add(V::load_partial(b.as_ptr().add(whole), rest), sum);
            }
            sum.sum()
        }
    }
}
