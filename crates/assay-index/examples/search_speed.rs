//! Speed of the index itself: ingest without a model, opening, and searches.
//!
//!     cargo run --release -p assay-index --example search_speed -- [chunks]
//!
//! The chunks are random words with the frequencies of a language (Zipf), about 60 to a chunk; the vectors
//! are random, 384 values each. Prints one line for each measurement.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use assay_index::{Embed, EmbedError, Index, IndexConfig, Query, SearchMode};
use fs_err as fs;

const DIMS: usize = 384;
const WORDS: f64 = 50_000.0;
const SECTIONS: usize = 100;
const QUERIES: usize = 500;

/// Random unit vectors, seeded by the text.
struct Random;

impl Embed for Random {
    fn id(&self) -> &str {
        "random"
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
        Ok(texts
            .iter()
            .map(|text| {
                let mut bytes = vec![0u8; DIMS];
                blake3::Hasher::new().update(text.as_bytes()).finalize_xof().fill(&mut bytes);
                let values: Vec<f32> = bytes.iter().map(|b| f32::from(*b) - 127.5).collect();
                let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
                values.iter().map(|v| v / norm).collect()
            })
            .collect())
    }
}

/// Words whose frequency falls as one over their rank.
struct Zipf(u64);

impl Zipf {
    fn words(&mut self, n: usize) -> String {
        let mut text = String::new();
        for _ in 0..n {
            // SplitMix64.
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = self.0;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let uniform = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
            let _ = write!(text, "w{} ", WORDS.powf(uniform) as u64);
        }
        text
    }
}

fn main() -> Result<()> {
    let chunks: usize = std::env::args().nth(1).map_or(Ok(100_000), |n| n.parse())?;
    let dir = std::env::temp_dir().join(format!("assay-search-speed-{}", std::process::id()));
    let docs = dir.join("docs");
    fs::create_dir_all(&docs)?;
    let mut zipf = Zipf(1);
    for file in 0..chunks.div_ceil(SECTIONS) {
        let mut text = String::new();
        for section in 0..SECTIONS {
            let _ = write!(text, "# s{section}\n\n{}\n\n", zipf.words(60));
        }
        fs::write(docs.join(format!("{file:05}.md")), text)?;
    }
    let open = || Index::open(&dir.join("index"), Arc::new(Random), IndexConfig::default());
    let mut index = open()?;
    let began = Instant::now();
    let report = index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("ingest           {seconds:8.2} s    {:.0} chunks/s", report.chunks as f64 / seconds);
    let began = Instant::now();
    index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    println!("unchanged again  {:8.2} s", began.elapsed().as_secs_f64());
    drop(index);
    let began = Instant::now();
    let index = open()?;
    println!(
        "open             {:8.2} s    {} chunks",
        began.elapsed().as_secs_f64(),
        report.chunks
    );

    let queries: Vec<String> = (0..QUERIES).map(|_| zipf.words(6)).collect();
    for mode in [SearchMode::Bm25, SearchMode::Vector, SearchMode::Hybrid] {
        let mut times = Vec::new();
        for query in &queries {
            times.push(index.search(&Query::new(query, 10, mode))?.search_ms);
        }
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[(share * (QUERIES - 1) as f64) as usize];
        println!("{mode:?}: p50 {:.2} ms, p95 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.95), at(0.99));
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}
