//! Dense products: against packed weights, and small unpacked ones.

use crate::dispatch::{Path, kernel};
use crate::packed::{KB, NR, PackedMatrix, Precision};
use crate::simd::LANES;
use crate::tile::{self, Format};
use crate::values::Values;
use crate::{bf16, scratch, team};

use half::slice::HalfFloatSliceExt;

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
    linear(Values::F32(x), m, &mut [Linear { w, pair: None, bias: None, out }], false);
}

/// `out [m, rows] += x [m, cols] · Wᵀ`; otherwise as [`matmul`].
///
/// # Panics
/// When a length does not match its shape.
pub fn matmul_add(x: &[f32], m: usize, w: &PackedMatrix, out: &mut [f32]) {
    linear(Values::F32(x), m, &mut [Linear { w, pair: None, bias: None, out }], true);
}

/// One of several products of the same rows, see [`linear`].
#[derive(Debug)]
pub struct Linear<'a> {
    /// `W [rows, cols]`.
    pub w: &'a PackedMatrix,
    /// What is added to `W`.
    pub pair: Option<LowRank<'a>>,
    /// `[rows]`, added to every row of the result.
    pub bias: Option<&'a [f32]>,
    /// `[m, rows]`.
    pub out: &'a mut [f32],
}

/// A weight of low rank, `B·A`.
#[derive(Debug)]
pub struct LowRank<'a> {
    /// `A [rank, cols]`.
    pub down: &'a PackedMatrix,
    /// `B [rows, rank]`.
    pub up: &'a PackedMatrix,
    /// `[m, rank]`; receives `x·Aᵀ`.
    pub z: &'a mut [f32],
}

/// `out = x · (W + B·A)ᵀ + bias`, or `+=` when `add`, for several weights with the same input `x [m, cols]`, which
/// is rounded once; the part of low rank is summed in the registers of the other. Otherwise as [`matmul`].
///
/// # Panics
/// When a length does not match its shape, the weights differ in columns or precision, or the input is bf16
/// and they are not.
pub fn linear(x: Values<'_>, m: usize, products: &mut [Linear<'_>], add: bool) {
    let Some(first) = products.first() else { return };
    let (k, precision) = (first.w.cols(), first.w.precision());
    assert_eq!(x.len(), m * k, "matmul: input length");
    let rounded = matches!(x, Values::Bf16(_));
    assert!(!rounded || precision == Precision::Bf16, "linear: bf16 input of f32 weights");
    for p in &*products {
        assert_eq!((p.w.cols(), p.w.precision()), (k, precision), "linear: weights differ");
        assert_eq!(p.out.len(), m * p.w.rows(), "matmul: output length");
        assert!(p.bias.is_none_or(|bias| bias.len() == p.w.rows()), "linear: bias length");
        if let Some(LowRank { down, up, z }) = &p.pair {
            assert_eq!((down.cols(), up.rows()), (k, p.w.rows()), "linear: shape of the pair");
            assert_eq!(down.rows(), up.cols(), "linear: rank of the pair");
            assert_eq!((down.precision(), up.precision()), (precision, precision), "linear: pair");
            assert_eq!(z.len(), m * down.rows(), "linear: length of the pair's middle");
        }
    }
    if m == 0 {
        return;
    }
    if k == 0 {
        for p in products {
            if !add {
                p.out.fill(0.0);
            }
            if let Some(bias) = p.bias.filter(|bias| !bias.is_empty()) {
                let rows = p.out.chunks_exact_mut(bias.len());
                rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
            }
            p.pair.iter_mut().for_each(|pair| pair.z.fill(0.0));
        }
        return;
    }
    let path = Path::current();
    let form = Form::of(precision, path);
    let ranks = products.iter().map(|p| p.pair.as_ref().map_or(0, |pair| pair.down.rows()));
    let words: usize = std::iter::once(k).chain(ranks).map(|cols| form.words(m, cols)).sum();
    scratch::with(words, |memory: &mut [f32]| {
        let (rounded, mut memory) = memory.split_at_mut(form.words(m, k));
        let input = Rows::new(form, x, rounded, k);
        let parts: Vec<Part<'_>> = products
            .iter_mut()
            .map(|p| Part {
                w: p.w,
                bias: p.bias,
                out: Shared(p.out.as_mut_ptr()),
                pair: p.pair.as_mut().map(|pair| {
                    let rank = pair.down.rows();
                    let rounded =
                        memory.split_off_mut(..form.words(m, rank)).expect("counted above");
                    let z = Rows::new(form, Values::F32(pair.z), rounded, rank);
                    PartPair { down: pair.down, up: pair.up, out: Shared(pair.z.as_mut_ptr()), z }
                }),
            })
            .collect();
        round_and_lower(path, x, m, input, &parts);
        let blocks: Vec<(&Part<'_>, Block)> = parts
            .iter()
            .flat_map(|p| {
                let panels = p.w.rows().div_ceil(NR);
                blocks(m, panels, k * NR, 6).into_iter().map(move |block| (p, block))
            })
            .collect();
        team::consume(blocks.into_iter(), |(p, block)| {
            let more = p.pair.as_ref().map(|pair| (pair.z, pair.up));
            // SAFETY: the blocks are disjoint, and the lengths were checked.
            unsafe { packed_block(path, (input, p.w), more, p.bias, p.out.get(), &block, add) };
        });
    });
}

/// A product of [`linear`], to be shared by tasks.
struct Part<'a> {
    w: &'a PackedMatrix,
    bias: Option<&'a [f32]>,
    out: Shared<f32>,
    pair: Option<PartPair<'a>>,
}

struct PartPair<'a> {
    down: &'a PackedMatrix,
    up: &'a PackedMatrix,
    out: Shared<f32>,
    z: Rows,
}

/// Rounds the input, and computes and rounds `z` of each pair, rows by rows.
fn round_and_lower(path: Path, x: Values<'_>, m: usize, input: Rows, parts: &[Part<'_>]) {
    let pairs: Vec<&PartPair<'_>> = parts.iter().filter_map(|p| p.pair.as_ref()).collect();
    if input.ready && pairs.is_empty() {
        return;
    }
    let k = input.cols;
    let work = k * (4 + pairs.iter().map(|p| p.down.rows().next_multiple_of(NR)).sum::<usize>());
    // Whole tiles of rows.
    let rows = (TASK_WORK.div_ceil(work).max(m.div_ceil(16)).next_multiple_of(16)).min(128);
    let run = |task: usize| {
        let rows = task * rows..m.min((task + 1) * rows);
        // SAFETY: tasks write disjoint rows, and the lengths were checked.
        unsafe {
            input.fill(path, x.range(rows.start * k..rows.end * k), rows.start);
            for pair in &pairs {
                let rank = pair.down.rows();
                let block = Block { rows: rows.clone(), panels: 0..rank.div_ceil(NR) };
                packed_block(path, (input, pair.down), None, None, pair.out.get(), &block, false);
                let z = std::slice::from_raw_parts(
                    pair.out.get().add(rows.start * rank),
                    rows.len() * rank,
                );
                pair.z.fill(path, Values::F32(z), rows.start);
            }
        }
    };
    let tasks = m.div_ceil(rows);
    if m * work < TASK_WORK { (0..tasks).for_each(run) } else { team::for_each(tasks, run) }
}

/// How the left operand of a product lies in memory; all but `F32` padded like the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    F32,
    /// Rounded to bf16 and widened again.
    Widened,
    /// Pairs of bf16.
    Pairs,
    /// AMX tiles of bf16.
    Tiles,
}

impl Form {
    fn of(precision: Precision, path: Path) -> Self {
        match (precision, path) {
            (Precision::F32, _) => Form::F32,
            (Precision::Bf16, Path::Amx) => Form::Tiles,
            (Precision::Bf16, Path::Avx512Bf16 | Path::NeonBf16) => Form::Pairs,
            (Precision::Bf16, _) => Form::Widened,
        }
    }

    /// 32-bit words of a row.
    fn row(self, cols: usize) -> usize {
        match self {
            Form::F32 => cols,
            Form::Widened => cols.next_multiple_of(KB),
            Form::Pairs | Form::Tiles => cols.next_multiple_of(KB) / 2,
        }
    }

    /// 32-bit words beside the values themselves.
    fn words(self, m: usize, cols: usize) -> usize {
        match self {
            Form::F32 => 0,
            Form::Widened | Form::Pairs => m * self.row(cols),
            Form::Tiles => m.next_multiple_of(16) * self.row(cols),
        }
    }
}

/// A left operand, to be filled.
#[derive(Clone, Copy)]
struct Rows {
    form: Form,
    data: Shared<f32>,
    cols: usize,
    /// The values are there already, in this form, and are never written.
    ready: bool,
}

impl Rows {
    fn new(form: Form, values: Values<'_>, rounded: &mut [f32], cols: usize) -> Self {
        let there = match (form, values) {
            (Form::F32, Values::F32(values)) => Some(values.as_ptr()),
            (Form::Pairs, Values::Bf16(values)) if cols.is_multiple_of(KB) => {
                Some(values.as_ptr().cast())
            }
            _ => None,
        };
        let data = there.map_or(rounded.as_mut_ptr(), <*const f32>::cast_mut);
        Rows { form, data: Shared(data), cols, ready: there.is_some() }
    }

    /// Writes whole rows of `values` as rows from `first` on, a multiple of 16.
    ///
    /// # Safety
    /// The rows exist and nobody else uses them.
    unsafe fn fill(self, path: Path, values: Values<'_>, first: usize) {
        let (words, cols) = (self.form.row(self.cols), self.cols);
        let rows = values.len() / cols.max(1);
        let rows = if self.form == Form::Tiles { rows.next_multiple_of(16) } else { rows };
        if self.ready || rows == 0 {
            return;
        }
        // SAFETY: the caller's contract.
        let out = unsafe {
            std::slice::from_raw_parts_mut(self.data.get().add(first * words), rows * words)
        };
        match (self.form, values) {
            (Form::F32, _) => unreachable!("ready, or refused"),
            (Form::Widened, Values::F32(values)) => {
                let rows = values.chunks_exact(cols).zip(out.chunks_exact_mut(words));
                rows.for_each(|(row, out)| bf16::widen_row(row, out));
            }
            (Form::Widened, Values::Bf16(values)) => {
                for (row, out) in values.chunks_exact(cols).zip(out.chunks_exact_mut(words)) {
                    let (out, padding) = out.split_at_mut(cols);
                    row.convert_to_f32_slice(out);
                    padding.fill(0.0);
                }
            }
            (Form::Pairs, Values::F32(values)) => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                let rows = values.chunks_exact(cols).zip(out.chunks_exact_mut(2 * words));
                for (row, out) in rows {
                    let (out, padding) = out.split_at_mut(cols);
                    bf16::round_row(path, row, out);
                    padding.fill(0);
                }
            }
            (Form::Pairs, Values::Bf16(values)) => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                let rows = values.reinterpret_cast().chunks_exact(cols);
                for (row, out) in rows.zip(out.chunks_exact_mut(2 * words)) {
                    let (out, padding) = out.split_at_mut(cols);
                    out.copy_from_slice(row);
                    padding.fill(0);
                }
            }
            (Form::Tiles, Values::F32(values)) => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                for (rows, tiles) in values.chunks(16 * cols).zip(out.chunks_mut(32 * words)) {
                    for (r, row) in rows.chunks(cols).enumerate() {
                        bf16::tile_row(path, row, r, tiles);
                    }
                }
            }
            (Form::Tiles, Values::Bf16(values)) => {
                let out: &mut [u16] = bytemuck::cast_slice_mut(out);
                let values = values.reinterpret_cast();
                for (rows, tiles) in values.chunks(16 * cols).zip(out.chunks_mut(32 * words)) {
                    for (r, row) in rows.chunks(cols).enumerate() {
                        bf16::copy_tile_row(row, r, tiles);
                    }
                }
            }
        }
    }
}

/// Part of the output of a packed product.
pub(crate) struct Block {
    pub(crate) rows: std::ops::Range<usize>,
    pub(crate) panels: std::ops::Range<usize>,
}

/// A pointer that tasks share; each writes its own block.
#[derive(Debug)]
pub(crate) struct Shared<T>(pub(crate) *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

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

/// Splits `m` rows and `panels` columns of panels into blocks of enough work. `panel_work` is the
/// multiply-adds of one row and one panel.
pub(crate) fn blocks(m: usize, panels: usize, panel_work: usize, granule: usize) -> Vec<Block> {
    if panels == 0 {
        return Vec::new();
    }
    let threads = rayon::current_num_threads();
    let work = m * panels * panel_work;
    let tasks = if threads == 1 { 1 } else { (work / TASK_WORK).clamp(1, 4 * threads) };
    let row_blocks = m.div_ceil(ROW_BLOCK);
    let row_step = m.div_ceil(row_blocks).next_multiple_of(ROW_BLOCK.min(32)).min(m);
    let column_blocks = tasks.div_ceil(m.div_ceil(row_step)).min(panels);
    let column_step = panels.div_ceil(column_blocks).next_multiple_of(granule.min(panels));
    let mut blocks = Vec::new();
    for row in (0..m).step_by(row_step) {
        blocks.extend((0..panels).step_by(column_step).map(|column| Block {
            rows: row..m.min(row + row_step),
            panels: column..panels.min(column + column_step),
        }));
    }
    blocks
}

/// One block of a packed product, in passes over the inner dimension; `more` is a second product that is
/// added in the last one.
///
/// # Safety
/// The operands and `out` have matching shapes, and nobody else writes the block.
unsafe fn packed_block(
    path: Path,
    (x, w): (Rows, &PackedMatrix),
    more: Option<(Rows, &PackedMatrix)>,
    bias: Option<&[f32]>,
    out: *mut f32,
    block: &Block,
    add: bool,
) {
    let (n, k) = (w.rows(), w.cols());
    let column = block.panels.start * NR;
    let (m, block_n) = (block.rows.len(), n.min(block.panels.end * NR) - column);
    for start in (0..k).step_by(INNER_BLOCK) {
        let add = add || start > 0;
        let more = more.filter(|_| start + INNER_BLOCK >= k);
        let bias = bias.filter(|_| start == 0).map(|bias| &bias[column..column + block_n]);
        // SAFETY: every offset lies in its operand, by the layouts documented in `packed`.
        unsafe {
            let c = out.add(block.rows.start * n + column);
            #[cfg(target_arch = "x86_64")]
            if x.form == Form::Tiles {
                if let Some(bias) = bias {
                    for row in 0..m {
                        let row = std::slice::from_raw_parts_mut(c.add(row * n), block_n);
                        for (y, b) in row.iter_mut().zip(bias) {
                            *y = if add { *y + b } else { *b };
                        }
                    }
                }
                let add = add || bias.is_some();
                let product = |(x, w): (Rows, &PackedMatrix), start, add| {
                    tiled(x, w, start, block, (m, block_n), (c, n), add)
                };
                let first = product((x, w), start, add);
                match more {
                    Some(more) => crate::amx::products(&[first, product(more, 0, true)]),
                    None => crate::amx::products(&[first]),
                }
                continue;
            }
            let format = match x.form {
                Form::F32 => Format::F32,
                Form::Widened => Format::Widened,
                Form::Pairs | Form::Tiles => Format::Pairs,
            };
            let p = tile::Product {
                m,
                n: block_n,
                operands: operands(x, w, start, block),
                more: more.map(|(z, up)| operands(z, up, 0, block)),
                bias: bias.map_or(std::ptr::null(), <[f32]>::as_ptr),
                c,
                c_row: n,
                alpha: 1.0,
                beta: if add { 1.0 } else { 0.0 },
            };
            tile::product(path, format, &p);
        }
    }
}

/// The operands of a block for the inner values from `start` on, [`INNER_BLOCK`] at most.
unsafe fn operands(x: Rows, w: &PackedMatrix, start: usize, block: &Block) -> tile::Operands {
    let (padded, row) = (w.padded_cols(), x.form.row(x.cols));
    let k = INNER_BLOCK.min(w.cols() - start);
    // SAFETY: the caller's contract.
    unsafe {
        let a = x.data.get().add(block.rows.start * row).cast_const();
        let panel = block.panels.start;
        let (a, b, b_panel, k) = match x.form {
            Form::F32 => {
                (a.add(start), w.panel_f32(panel).as_ptr().add(start * NR), padded * NR, k)
            }
            form => {
                let b = w.panel_bf16(panel).as_ptr().add(start * NR).cast::<f32>();
                let at = if form == Form::Widened { start } else { start / 2 };
                (a.add(at), b, padded / 2 * NR, k.div_ceil(2))
            }
        };
        tile::Operands { k, a, a_row: row, a_k: 1, b, b_panel, b_k: NR }
    }
}

/// As [`operands`], for AMX.
#[cfg(target_arch = "x86_64")]
unsafe fn tiled(
    x: Rows,
    w: &PackedMatrix,
    start: usize,
    block: &Block,
    (m, n): (usize, usize),
    (c, c_row): (*mut f32, usize),
    add: bool,
) -> crate::amx::Product {
    let padded = w.padded_cols();
    // SAFETY: the caller's contract.
    unsafe {
        crate::amx::Product {
            m,
            n,
            steps: INNER_BLOCK.min(padded - start) / KB,
            a: x.data.get().add((block.rows.start * padded + start * 16) / 2).cast_const().cast(),
            a_row: padded / KB,
            b: w.panel_bf16(block.panels.start).as_ptr().add(start * NR).cast(),
            b_column: padded / KB,
            c,
            c_row,
            add,
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
        let blocks = blocks(m, panels, k * LANES, 6);
        team::consume(blocks.into_iter(), |Block { rows, panels }| {
            let column = panels.start * LANES;
            // At least one pass, which scales the output when the inner dimension is empty.
            for start in (0..k.max(1)).step_by(DENSE_BLOCK) {
                // SAFETY: the blocks of the tasks are disjoint, and the lengths were checked.
                unsafe {
                    let p = tile::Product {
                        m: rows.len(),
                        n: n.min(panels.end * LANES) - column,
                        operands: tile::Operands {
                            k: DENSE_BLOCK.min(k - start),
                            a: a.get().add(rows.start * a_row + start * a_k),
                            a_row,
                            a_k,
                            b: b.get().add(panels.start * b_panel + start * b_k),
                            b_panel,
                            b_k,
                        },
                        more: None,
                        bias: std::ptr::null(),
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
