//! Prints the throughput of the main kernels on SmolLM2-135M's shapes, on every path or on the one
//! named (`Portable`, `Avx2`, `Avx512`, `Avx512Bf16`, `Amx`).
#![expect(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use assay_kernels::{
    AdamW, CACHE_BLOCK, CachedQuery, Gate, Heads, Outer, PackedMatrix, Path, Precision,
    QuantFormat, QuantMatrix, Rope, RopeTable, Scores, Values, adamw_step, add_outer,
    attention_backward, attention_bidirectional, attention_decode, attention_forward,
    attention_step, gate_mul, gate_mul_backward, gelu, gemm, layer_norm, linear_cross_entropy,
    linear_nll, matmul, quant_matmul, rms_norm, rms_norm_backward, rope, softmax_rows, with_path,
};

fn main() {
    let only = std::env::args().nth(1);
    for &path in Path::available() {
        if only.as_ref().is_some_and(|only| *only != format!("{path:?}")) {
            continue;
        }
        with_path(path, || {
            println!("{}", assay_kernels::dispatch());
            packed(Precision::Bf16);
            packed(Precision::F32);
            quantised();
            lora();
            outer();
            attention();
            head();
            rows();
        });
    }
}

/// Seconds of the fastest call: other load on the machine only adds.
fn seconds(mut f: impl FnMut()) -> f64 {
    f();
    let time = |_| {
        let start = Instant::now();
        f();
        start.elapsed().as_secs_f64()
    };
    (0..20).map(time).fold(f64::INFINITY, f64::min)
}

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 2_654_435_761) % 2048) as f32 / 1024.0 - 1.0).collect()
}

fn quantised() {
    for (m, n, k, format) in [
        (1, 960, 576, QuantFormat::Four),
        (1, 3072, 576, QuantFormat::Four),
        (1, 576, 1536, QuantFormat::Four),
        (1, 49152, 576, QuantFormat::Eight),
        (8, 3072, 576, QuantFormat::Four),
        (32, 3072, 576, QuantFormat::Four),
        (32, 49152, 576, QuantFormat::Eight),
    ] {
        let (x, mut out) = (values(m * k), vec![0.0; m * n]);
        let w = QuantMatrix::pack_with(n, k, format, |row, out| {
            out.q.iter_mut().enumerate().for_each(|(i, q)| *q = ((row + i) % 16) as u8);
            out.scale.fill(0.01);
            out.min.fill(-0.08);
        });
        let s = seconds(|| quant_matmul(&x, m, &mut [(&w, &mut out)], false));
        let (flops, bytes) = (2.0 * (m * n * k) as f64, w.bytes() as f64);
        let (flops, rate, us) = (flops / s / 1e9, bytes / s / 1e9, s * 1e6);
        println!(
            "  quant_matmul {format:?} {m}x{n}x{k}: {flops:.1} GFLOP/s, weights at {rate:.1} GB/s, {us:.1} us"
        );
    }
}

fn packed(precision: Precision) {
    for (m, n, k) in [
        (1024, 576, 576),
        (1024, 1536, 576),
        (1024, 576, 1536),
        (256, 576, 576),
        (128, 49152, 576),
        (128, 576, 49152),
        (1, 1536, 576),
        (1, 576, 1536),
        (1, 49152, 576),
        (8, 49152, 576),
    ] {
        let (x, mut out) = (values(m * k), vec![0.0; m * n]);
        let w = PackedMatrix::pack(&values(n * k), n, k, precision);
        let s = seconds(|| matmul(&x, m, &w, &mut out));
        println!(
            "  matmul {precision:?} {m}x{n}x{k}: {:.1} GFLOP/s, weights at {:.1} GB/s, {:.1} us",
            2e-9 * (m * n * k) as f64 / s,
            w.bytes() as f64 / s * 1e-9,
            s * 1e6,
        );
    }
}

fn lora() {
    let (t, r) = (1024, 16);
    for (name, ta, tb, m, n, k) in [
        ("z = x·Aᵀ", false, true, t, r, 576),
        ("y += z·Bᵀ", false, true, t, 1536, r),
        ("dB = dYᵀ·z", true, false, 1536, r, t),
        ("dz = dY·B", false, false, t, r, 1536),
        ("dA = dzᵀ·x", true, false, r, 576, t),
        ("dx += dz·A", false, false, t, 576, r),
    ] {
        let (a, b, mut out) = (values(m * k), values(k * n), vec![0.0; m * n]);
        let s = seconds(|| gemm(1.0, &a, ta, &b, tb, 1.0, &mut out, m, n, k));
        println!("  gemm {name} {m}x{n}x{k}: {:.1} GFLOP/s", 2e-9 * (m * n * k) as f64 / s);
    }
}

fn outer() {
    let (t, r) = (1024, 16);
    for (n, layout) in [(576, Outer::AsIs), (1536, Outer::AsIs), (1536, Outer::Transposed)] {
        let (z, y, mut out) = (values(t * r), values(t * n), vec![0.0; r * n]);
        for precision in [Precision::F32, Precision::Bf16] {
            let s = seconds(|| {
                add_outer(1.0, &z, Values::F32(&y), (t, r, n), precision, layout, &mut out)
            });
            println!("  outer {t}x{r}x{n} {precision:?} {layout:?}: {:.0} us", s * 1e6);
        }
    }
}

fn attention() {
    let scores = Scores { scale: 0.125, window: None, precision: Precision::Bf16 };
    let heads = Heads { heads: 9, kv_heads: 3, head_dim: 64 };
    for segments in [vec![0, 256, 512, 768, 1024], vec![0, 1024]] {
        let t = 1024;
        let (q, k, v) = (values(t * 576), values(t * 192), values(t * 192));
        let (mut out, mut lse) = (vec![0.0; t * 576], vec![0.0; t * 9]);
        let s =
            seconds(|| attention_forward(&q, &k, &v, &segments, heads, scores, &mut out, &mut lse));
        println!("  attention forward {segments:?}: {:.2} ms", s * 1e3);
        let (mut dq, mut dk, mut dv) = (q.clone(), k.clone(), v.clone());
        let s = seconds(|| {
            attention_backward(
                &q, &q, &k, &v, &out, &lse, &segments, heads, scores, &mut dq, &mut dk, &mut dv,
            );
        });
        println!("  attention backward {segments:?}: {:.2} ms", s * 1e3);
    }
    for (batch, past) in [(1, 256), (1, 1024), (8, 512)] {
        let cache = values((past + 1) * 192);
        let cache: Vec<&[f32]> = cache.chunks(CACHE_BLOCK * 192).collect();
        let (q, mut out) = (values(batch * 576), vec![0.0; batch * 576]);
        type Attend = fn(&mut [CachedQuery<'_>], Heads, Scores);
        for (name, attend) in [("decode", attention_decode as Attend), ("step", attention_step)] {
            let s = seconds(|| {
                let rows = q.chunks(576).zip(out.chunks_mut(576));
                let mut sequences: Vec<_> = rows
                    .map(|(q, out)| CachedQuery { q, k_cache: &cache, v_cache: &cache, past, out })
                    .collect();
                attend(&mut sequences, heads, scores);
            });
            println!("  attention {name} {batch} x {past}: {:.1} us", s * 1e6);
        }
    }
    let (t, w) = (1024, 384);
    let (q, mut out) = (values(t * w), vec![0.0; t * w]);
    let segments: Vec<usize> = (0..=8).map(|i| i * 128).collect();
    let s = seconds(|| {
        attention_bidirectional(
            &q,
            &q,
            &q,
            &segments,
            12,
            32,
            0.18,
            None,
            Precision::Bf16,
            &mut out,
        )
    });
    println!("  attention bidirectional 8 x 128, 12 heads of 32: {:.2} ms", s * 1e3);
}

fn head() {
    let (t, h, vocab) = (512, 576, 49152);
    let head = PackedMatrix::pack(&values(vocab * h), vocab, h, Precision::Bf16);
    let head_t = head.transposed();
    let (x, mut dx) = (values(t * h), vec![0.0; t * h]);
    let targets: Vec<u32> = (0..t as u32).collect();
    let mut nll = vec![0.0; t];
    let s = seconds(|| {
        linear_cross_entropy(&x, &head, &head_t, &targets, 1.0, &mut dx);
    });
    println!("  cross-entropy with gradient: {:.0} tokens/s", t as f64 / s);
    let s = seconds(|| linear_nll(&x, &head, &targets, &mut nll));
    println!("  cross-entropy: {:.0} tokens/s", t as f64 / s);
}

fn rows() {
    let (t, h, ff) = (1024, 576, 1536);
    let (x, w) = (values(t * h), values(h));
    let (mut y, mut inv) = (vec![0.0; t * h], vec![0.0; t]);
    let print = |name: &str, s: f64, bytes: usize| {
        println!("  {name}: {:.0} us, {:.1} GB/s", s * 1e6, bytes as f64 / s * 1e-9);
    };
    let s = seconds(|| rms_norm(&x, &w, 1e-5, &mut y, &mut inv));
    print("rms_norm 1024x576", s, t * h * 8);
    let mut dx = x.clone();
    let s = seconds(|| rms_norm_backward(&y, &x, &w, &inv, &mut dx));
    print("rms_norm_backward 1024x576", s, t * h * 16);
    let s = seconds(|| layer_norm(&x, &w, &w, 1e-5, &mut y));
    print("layer_norm 1024x576", s, t * h * 8);
    let table = RopeTable::new(64, 10_000.0, t);
    let positions: Vec<u32> = (0..t as u32).collect();
    for style in [Rope::Halves, Rope::Interleaved] {
        let s = seconds(|| rope(&mut y, 9, &positions, &table, style));
        print(&format!("rope {style:?} 1024x576"), s, t * h * 8);
    }
    let (gate, up) = (values(t * ff), values(t * ff));
    let (mut a, mut b, mut c) = (gate.clone(), gate.clone(), gate.clone());
    let s = seconds(|| gate_mul(Gate::Silu, &gate, &up, &mut a, None));
    print("silu_mul 1024x1536", s, t * ff * 12);
    let dy = a.clone();
    let s = seconds(|| gate_mul_backward(Gate::Silu, &dy, &gate, &up, &mut c, &mut a, &mut b));
    print("silu_mul_backward 1024x1536", s, t * ff * 20);
    let s = seconds(|| gelu(&mut a));
    print("gelu 1024x1536", s, t * ff * 8);
    let s = seconds(|| softmax_rows(&mut b, ff));
    print("softmax 1024x1536", s, t * ff * 8);
    let n = 4_880_000;
    let (grad, mut p, mut m, mut v) = (values(n), vec![0.0; n], vec![0.0; n], vec![0.0; n]);
    let options = AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let s = seconds(|| adamw_step(&mut p, &grad, &mut m, &mut v, &options, 1));
    print("adamw_step 4.88 M", s, n * 28);
}
