//! CPU kernels with run-time dispatch, each beside its scalar reference.
//!
//! What a decoder or an encoder needs on a CPU, forward and backward, over plain row-major `f32`
//! slices: GEMMs against weights packed once, small dense GEMMs, norms, rotary embedding, gated
//! activations, attention over packed documents or a cache, a fused head and cross-entropy, AdamW.
//!
//! It knows no tensors, no models and no files, and it refuses to guess: a slice of the wrong
//! length is a bug of the caller and panics. This is the only crate of the workspace with `unsafe`.
//!
//! **Determinism.** One dispatch path gives the same bits whatever the number of threads, and a row
//! of [`matmul`] or a query of an attention gives the same bits alone or in a batch: every
//! reduction runs in one fixed order.
//!
//! **Paths.** [`dispatch`] names the one in use: on x86-64 `amx-bf16`, `avx512-bf16`, `avx512` or `avx2`,
//! on ARM `neon-bf16`, `neon-dotprod` or `neon`, else `portable` (plain Rust that the compiler
//! vectorises). The variable `ASSAY_KERNELS` may name a slower one; [`forced`] says whether it did.
//!
//! ```
//! use assay_kernels::{PackedMatrix, Precision, matmul};
//!
//! let w = PackedMatrix::pack(&[1.0, 2.0, 3.0, 4.0], 2, 2, Precision::F32);
//! let mut y = [0.0; 2];
//! matmul(&[1.0, 1.0], 1, &w, &mut y);
//! assert_eq!(y, [3.0, 7.0]);
//! ```
#![allow(unsafe_code, reason = "SIMD intrinsics; the workspace keeps all of them in this crate")]
#![allow(clippy::too_many_arguments, reason = "kernels take shapes and slices, as BLAS does")]

mod activation;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod bf16;
mod dispatch;
mod gemm;
mod int8;
mod loss;
mod mapped;
mod norm;
mod operand;
mod optim;
mod outer;
mod packed;
mod quant;
#[doc(hidden)]
pub mod reference;
mod rope;
mod scan;
mod scratch;
mod simd;
mod team;
mod tile;
mod values;

pub use activation::{
    Gate, gate_mul, gate_mul_backward, gelu, gelu_tanh, log_sum_exp, softmax_rows,
};
pub use attention::{
    CACHE_BLOCK, CachedQuery, Heads, PositionBias, Scores, attention_backward,
    attention_bidirectional, attention_cached, attention_decode, attention_forward, attention_step,
};
#[doc(hidden)]
pub use dispatch::{Path, with_path};
pub use dispatch::{UnknownKernels, dispatch, forced, supported};
pub use gemm::{Linear, LowRank, dot, gemm, linear, matmul, matmul_add};
pub use int8::{Int8Linear, Int8Matrix, linear_int8};
pub use loss::{linear_cross_entropy, linear_nll};
pub use mapped::Mapped;
pub use norm::{layer_norm, rms_norm, rms_norm_backward};
pub use optim::{AdamW, adamw_step, sum_of_squares};
pub use outer::{Outer, add_outer};
pub use packed::{PackedMatrix, Precision};
pub use quant::{QuantFormat, QuantMatrix, QuantRow, quant_matmul};
pub use rope::{Rope, RopeTable, rope, rope_backward};
pub use scan::{
    Coded, CodedQuery, SCAN_ROWS, add_saturated, coarse_bytes, code_coarse, code_fine, fine_bytes,
    scan_coarse, scan_fine,
};
pub use team::{consume, on_one_thread};
pub use values::{Value, Values, round_to_bf16};
