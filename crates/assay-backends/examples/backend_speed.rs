//! Speed and size of the same index with its vectors in segments and on a server.
//!
//!     cargo run --release -p assay-backends --example backend_speed -- ADDRESS [chunks] [--clustered]
//!
//! Chunks are 20 random words and vectors of 384 random values, or of values around 1,000 centres; k = 10. Every place
//! answers the same 100 queries, the median of three rounds is told. What is put on the server stays there: give it a
//! database of its own. Prints one line for each measurement.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use assay_backends::{Precision, connect};
use assay_index::{Embed, EmbedError, Index, IndexConfig, Query, SearchMode};
use fs_err as fs;

const DIMS: usize = 384;
const SECTIONS: usize = 100;
const QUERIES: u64 = 100;
const CENTRES: u64 = 1000;

struct Random {
    clustered: bool,
}

/// Bytes that follow from a seed.
fn bytes(seed: &[u8], n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    blake3::Hasher::new().update(seed).finalize_xof().fill(&mut bytes);
    bytes
}

fn direction(seed: &[u8]) -> Vec<f32> {
    // Sums of four uniform values are nearly normal, so no direction is preferred.
    let sum = |b: &[u8; 4]| b.iter().map(|b| f32::from(*b) - 127.5).sum();
    unit(bytes(seed, 4 * DIMS).as_chunks::<4>().0.iter().map(sum).collect())
}

fn unit(values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.into_iter().map(|v| v / norm).collect()
}

impl Embed for Random {
    fn id(&self) -> &str {
        if self.clustered { "clustered" } else { "random" }
    }

    fn dims(&self) -> usize {
        DIMS
    }

    fn max_tokens(&self) -> usize {
        256
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let vector = |text: &&str| {
            let own = direction(text.as_bytes());
            if !self.clustered {
                return own;
            }
            let number = bytes(text.as_bytes(), 8).iter().fold(0u64, |n, b| n << 8 | u64::from(*b));
            let centre = direction(&(number % CENTRES).to_le_bytes());
            unit(centre.iter().zip(&own).map(|(c, o)| c + 0.7 * o).collect())
        };
        Ok(texts.iter().map(vector).collect())
    }
}

/// Words of 20,000, the frequent ones first.
fn words(seed: u64, n: usize) -> String {
    let bytes = bytes(&seed.to_le_bytes(), 4 * n);
    let word = |b: &[u8; 4]| {
        let share = f64::from(u32::from_le_bytes(*b)) / f64::from(u32::MAX);
        format!("w{}", (20_000f64.powf(share)) as u32)
    };
    bytes.as_chunks::<4>().0.iter().map(word).collect::<Vec<_>>().join(" ")
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let address = args.next().context("the address of a server is missing")?;
    let (mut chunks, mut clustered) = (20_000, false);
    for arg in args {
        match arg.as_str() {
            "--clustered" => clustered = true,
            number => chunks = number.parse()?,
        }
    }
    let dir = tempfile::tempdir()?;
    let docs = dir.path().join("docs");
    fs::create_dir_all(&docs)?;
    for file in 0..chunks / SECTIONS {
        let sections = (0..SECTIONS)
            .map(|s| format!("# s{s}\n\n{}\n\n", words((file * SECTIONS + s) as u64, 20)));
        fs::write(docs.join(format!("{file:06}.md")), sections.collect::<String>())?;
    }
    let embedder = Arc::new(Random { clustered });
    let config = IndexConfig { chunk_tokens: 22, ..IndexConfig::default() };
    let state = dir.path().join("index");
    let mut index = Index::open(&state, embedder.clone(), config)?;
    index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    let chunks = index.chunk_count();
    println!("{chunks} chunks, {:.1} MiB of segments", mebibytes(&state.join("segments"))?);
    let exact = measure("segments", &index, None)?;
    drop(index);
    println!("the record: {:.1} MiB", mebibytes(&state)?);
    for (name, precision) in [("exact", Precision::Exact), ("hnsw", Precision::Approximate)] {
        let began = Instant::now();
        let backend = connect(&address, None, precision)?;
        let mut index = Index::open_on(backend, &state, embedder.clone(), config, &mut |_, _| {
            ControlFlow::Continue(())
        })?;
        if precision == Precision::Approximate {
            index.rebuild()?;
        }
        let seconds = began.elapsed().as_secs_f64();
        println!(
            "{name}: sent in {seconds:.1} s, {:.0} chunks/s; {:.1} MiB of segments without vectors",
            chunks as f64 / seconds,
            mebibytes(&state.join("segments"))?
        );
        measure(name, &index, Some(&exact))?;
        if let Some(checked) = index.check_backend(100)? {
            println!("{name}: {checked:?}");
        }
    }
    Ok(())
}

/// Paths and scores of what each query found, by mode.
type Found = Vec<Vec<(String, f64)>>;

fn measure(name: &str, index: &Index, exact: Option<&Found>) -> Result<Found> {
    let mut all = Found::new();
    for mode in [SearchMode::Vector, SearchMode::Hybrid] {
        let (mut p50, mut p99, mut found) = (Vec::new(), Vec::new(), Found::new());
        for round in 0..4 {
            let mut times = Vec::new();
            found.clear();
            for query in 0..QUERIES {
                let text = words(query << 32, 6);
                let result = index.search(&Query::new(&text, 10, mode))?;
                times.push(result.search_ms);
                found.push(result.hits.into_iter().map(|h| (h.chunk_id, h.score)).collect());
            }
            times.sort_by(f64::total_cmp);
            // The first warms up.
            if round > 0 {
                p50.push(times[times.len() / 2]);
                p99.push(times[times.len() * 99 / 100]);
            }
        }
        let median = |mut rounds: Vec<f64>| {
            rounds.sort_by(f64::total_cmp);
            rounds[rounds.len() / 2]
        };
        let same = exact.map(|exact| {
            let exact = &exact[all.len()..][..found.len()];
            let found =
                found.iter().zip(exact).flat_map(|(f, e)| f.iter().filter(|h| e.contains(h)));
            found.count() as f64 / exact.iter().map(Vec::len).sum::<usize>() as f64
        });
        println!(
            "{name:<10} {mode:?}: p50 {:.2} ms, p99 {:.2} ms, same as segments: {same:?}",
            median(p50),
            median(p99)
        );
        all.extend(found);
    }
    Ok(all)
}

fn mebibytes(dir: &Path) -> Result<f64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            bytes += entry.metadata()?.len();
        }
    }
    Ok(bytes as f64 / f64::from(1 << 20))
}
