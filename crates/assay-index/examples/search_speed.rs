//! Speed of the index itself: ingest without a model, opening, and searches.
//!
//!     cargo run --release -p assay-index --example search_speed -- [chunks] [--clustered] [--queries N] [--json]
//!
//! What is searched is drawn as in `shared/peers/search.py`: 50,000 words whose frequency falls as one over their
//! rank, 40 to 119 of them to a chunk and 4 to 11 to a query; vectors of 384 values in random directions, or
//! around 1,000 centres. Ingest reads Markdown files of 100 chunks each; the time that the stand-in for
//! a model takes is left out. Prints one line for each measurement, or all as JSON.

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result};
use assay_index::{Bm25, Embed, EmbedError, Filter, Index, IndexConfig, Query, SearchMode};
use fs_err as fs;

const DIMS: usize = 384;
const WORDS: usize = 50_000;
const SECTIONS: usize = 100;
const CENTRES: u64 = 1000;

/// What filters choose by: half of the files, and a tenth.
const SIDECAR: &str = "
    [[documents]]
    match = '*[02468].md'
    metadata = { half = true }
    [[documents]]
    match = '*0.md'
    metadata = { tenth = true }
";

/// Random unit vectors, seeded by the text, and the time that it took to make them.
struct Random {
    clustered: bool,
    nanoseconds: AtomicU64,
}

impl Random {
    fn vector(&self, text: &str) -> Vec<f32> {
        let direction = |text: &[u8]| -> Vec<f32> {
            let mut bytes = vec![0u8; 4 * DIMS];
            blake3::Hasher::new().update(text).finalize_xof().fill(&mut bytes);
            // Sums of four uniform values are nearly normal, so no direction is preferred.
            let sum = |b: &[u8; 4]| b.iter().map(|b| f32::from(*b) - 127.5).sum();
            unit(bytes.as_chunks::<4>().0.iter().map(sum).collect())
        };
        let own = direction(text.as_bytes());
        if !self.clustered {
            return own;
        }
        let seed = blake3::hash(text.as_bytes());
        let number =
            seed.as_bytes()[..8].iter().fold(0u64, |n, b| n << 8 | u64::from(*b)) % CENTRES;
        let centre = direction(&number.to_le_bytes());
        unit(centre.iter().zip(&own).map(|(c, o)| c + 0.7 * o).collect())
    }
}

fn unit(values: Vec<f32>) -> Vec<f32> {
    let norm = values.iter().map(|v| v * v).sum::<f32>().sqrt();
    values.into_iter().map(|v| v / norm).collect()
}

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
        let began = Instant::now();
        let vectors = texts.iter().map(|text| self.vector(text)).collect();
        self.nanoseconds.fetch_add(began.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(vectors)
    }
}

/// Words whose frequency falls as one over their rank.
struct Zipf {
    state: u64,
    /// Sums of the frequencies.
    shares: Vec<f64>,
}

impl Zipf {
    fn new(seed: u64) -> Self {
        let sums = (1..=WORDS).scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        });
        Zipf { state: seed, shares: sums.collect() }
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `least` to one below `end` words.
    fn words(&mut self, least: u64, end: u64) -> String {
        let mut text = String::new();
        for _ in 0..least + self.next() % (end - least) {
            let drawn = (self.next() >> 11) as f64 / (1u64 << 53) as f64 * self.shares[WORDS - 1];
            let _ = write!(text, "w{} ", self.shares.partition_point(|share| *share < drawn));
        }
        text
    }
}

fn main() -> Result<()> {
    let (mut chunks, mut clustered, mut json) = (100_000usize, false, false);
    let mut asked = 1000usize;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--queries" => asked = args.next().context("--queries what?")?.parse()?,
            "--clustered" => clustered = true,
            "--json" => json = true,
            number => chunks = number.parse()?,
        }
    }
    let dir = std::env::temp_dir().join(format!("assay-search-speed-{}", std::process::id()));
    let docs = dir.join("docs");
    fs::create_dir_all(&docs)?;
    let mut zipf = Zipf::new(1);
    for file in 0..chunks.div_ceil(SECTIONS) {
        let mut text = String::new();
        for section in 0..SECTIONS.min(chunks - file * SECTIONS) {
            let _ = write!(text, "# s{section}\n\n{}\n\n", zipf.words(40, 120));
        }
        fs::write(docs.join(format!("{file:06}.md")), text)?;
    }
    fs::write(docs.join("assay-docs.toml"), SIDECAR)?;
    let mut figures = serde_json::Map::new();
    let mut tell = |name: String, value: f64, unit: &str| {
        if !json {
            println!("{name:<24} {value:>12.3} {unit}");
        }
        figures.insert(name, value.into());
    };

    let embedder = Arc::new(Random { clustered, nanoseconds: AtomicU64::new(0) });
    let config = IndexConfig { bm25: Bm25 { k1: 0.9, b: 0.4 }, ..IndexConfig::default() };
    let open = || Index::open(&dir.join("index"), embedder.clone(), config);
    let mut index = open()?;
    let began = Instant::now();
    let report = index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    let embedding = embedder.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
    let seconds = began.elapsed().as_secs_f64() - embedding;
    tell("chunks".into(), report.chunks as f64, "");
    tell("ingest".into(), report.chunks as f64 / seconds, "chunks/s, without embedding");
    let began = Instant::now();
    index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    tell("unchanged".into(), began.elapsed().as_secs_f64(), "s, ingesting what is there");
    fs::write(docs.join("new.md"), zipf.words(40, 120))?;
    let began = Instant::now();
    index.ingest(&docs, &mut |_| ControlFlow::Continue(()))?;
    tell("one_more".into(), began.elapsed().as_secs_f64(), "s, ingesting one more document");
    drop(index);
    let began = Instant::now();
    let index = open()?;
    tell("open".into(), began.elapsed().as_secs_f64(), "s");

    let queries: Vec<String> = (0..asked.max(50)).map(|_| zipf.words(4, 12)).collect();
    for (name, mode, filter) in [
        ("lexical", SearchMode::Bm25, None),
        ("dense", SearchMode::Vector, None),
        ("hybrid", SearchMode::Hybrid, None),
        ("reciprocal", SearchMode::Reciprocal, None),
        ("hybrid_half", SearchMode::Hybrid, Some("half = true")),
        ("hybrid_tenth", SearchMode::Hybrid, Some("tenth = true")),
    ] {
        let filter = filter.map(Filter::parse).transpose()?;
        let search = |query: &String| {
            let query = Query { filter: filter.as_ref(), ..Query::new(query, 10, mode) };
            Ok(index.search(&query)?.search_ms)
        };
        queries[..50]
            .iter()
            .try_for_each(|q| search(q).map(|_: f64| ()).map_err(|e: anyhow::Error| e))?;
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut times = queries.iter().map(search).collect::<Result<Vec<f64>>>()?;
            times.sort_by(f64::total_cmp);
            p50.push(times[times.len() / 2]);
            p99.push(times[times.len() * 99 / 100]);
        }
        for (at, mut rounds) in [("p50", p50), ("p99", p99)] {
            rounds.sort_by(f64::total_cmp);
            tell(format!("{name}_{at}"), rounds[1], "ms");
        }
    }
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        let field = |name: &str| {
            let line = status.lines().find_map(|l| l.strip_prefix(name))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        for (name, line) in [("heap", "RssAnon:"), ("mapped", "RssFile:")] {
            if let Some(kilobytes) = field(line) {
                tell(name.into(), kilobytes / 1024.0, "MiB resident");
            }
        }
    }
    if json {
        println!("{}", serde_json::Value::Object(figures));
    }
    fs::remove_dir_all(&dir)?;
    Ok(())
}
