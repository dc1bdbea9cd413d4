//! Ranking quality on judged sets: BM25, vectors, and ways to fuse them.
//!
//!     cargo run --release -p assay-index --example retrieval_quality -- \
//!         --model <folder of all-minilm-l6-v2> --data <folder of the sets> [--state <folder>] [--precision f32|bf16|int8] [set …]
//!
//! A set is a folder with `corpus.jsonl.gz`, `queries.jsonl` and `qrels.tsv`. Each document becomes a Markdown
//! file that is ingested as a user's would be; a document counts with its best chunk. Vectors are kept in
//! `--state`, so that a second run is quick. Prints nDCG@10 / recall@100 / MRR@10 over the judged queries.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use assay_eval::{Grades, ndcg_at, rank_documents, recall_at, reciprocal_rank};
use assay_index::{Embed, EmbedError, Hit, Index, IndexConfig, Query, SearchMode};
use assay_model::{Encoder, EncoderPrecision};
use fs_err as fs;

const SETS: &[&str] = &["cranfield", "cisi", "cacm", "vaswani", "scifact", "xquad"];

/// Chunks of a ranking that are looked at.
const DEPTH: usize = 1000;

struct Embedder(Encoder);

impl Embed for Embedder {
    fn id(&self) -> &str {
        self.0.hash()
    }
    fn dims(&self) -> usize {
        self.0.dims()
    }
    fn max_tokens(&self) -> usize {
        self.0.max_tokens()
    }
    fn count_tokens(&self, text: &str) -> usize {
        self.0.tokens(text).unwrap_or(usize::MAX)
    }
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        self.0.embed(texts).map_err(EmbedError::new)
    }
}

fn main() -> Result<()> {
    let (mut model, mut data, mut state) = (None, None, None);
    let mut precision = EncoderPrecision::F32;
    let mut sets: Vec<String> = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(PathBuf::from).with_context(|| format!("{arg} what?"));
        match arg.as_str() {
            "--model" => model = Some(value()?),
            "--data" => data = Some(value()?),
            "--state" => state = Some(value()?),
            "--precision" => {
                precision = match value()?.to_str() {
                    Some("f32") => EncoderPrecision::F32,
                    Some("bf16") => EncoderPrecision::Bf16,
                    Some("int8") => EncoderPrecision::Int8,
                    _ => bail!("--precision is f32, bf16 or int8"),
                }
            }
            _ => sets.push(arg),
        }
    }
    let (Some(model), Some(data)) = (model, data) else { bail!("needs --model and --data") };
    let state = state.unwrap_or_else(|| std::env::temp_dir().join("assay-retrieval-quality"));
    if sets.is_empty() {
        sets = SETS.iter().map(|s| (*s).to_owned()).collect();
    }
    let embedder: Arc<dyn Embed> = Arc::new(Embedder(Encoder::open(&model, precision)?));
    for set in sets {
        measure(&set, &data.join(&set), &state.join(&set), embedder.clone())?;
    }
    Ok(())
}

fn measure(set: &str, data: &Path, state: &Path, embedder: Arc<dyn Embed>) -> Result<()> {
    let ids = write_documents(data, &state.join("documents"))?;
    let chunk_tokens = embedder.max_tokens();
    let config = IndexConfig { chunk_tokens, ..IndexConfig::default() };
    let mut index = Index::open(&state.join("index"), embedder, config)?;
    let report = index.ingest(&state.join("documents"), &mut |p| {
        if p.done == p.total {
            eprint!("\r{set}: {} embeddings ", p.embeddings_computed);
        }
        ControlFlow::Continue(())
    })?;
    eprintln!("\r{set}: {} documents, {} chunks", index.documents().len(), report.chunks);

    let judged = judgements(data)?;
    let mut rows: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    let mut queries = 0;
    for line in
        fs::read_to_string(data.join("queries.jsonl"))?.split('\n').filter(|l| !l.is_empty())
    {
        let query: serde_json::Value = serde_json::from_str(line)?;
        let Some(grades) = judged.get(text_of(&query, "_id")) else { continue };
        queries += 1;
        let search = |mode| -> Result<Vec<Hit>> {
            Ok(index.search(&Query::new(text_of(&query, "text"), DEPTH, mode))?.hits)
        };
        let (bm25, vector, hybrid) =
            (search(SearchMode::Bm25)?, search(SearchMode::Vector)?, search(SearchMode::Hybrid)?);
        let mut score = |name, scored: Vec<(&str, f64)>| {
            let documents = scored.iter().map(|(path, s)| (ids[*path].as_str(), *s));
            let ranking = rank_documents(documents);
            let top = &ranking[..ranking.len().min(10)];
            let values = [
                ndcg_at(&ranking, grades, 10),
                recall_at(&ranking, grades, 100),
                reciprocal_rank(top, grades),
            ];
            let row = rows.entry(name).or_default();
            for (sum, value) in row.iter_mut().zip(values) {
                *sum += value.unwrap_or(0.0);
            }
        };
        for (name, hits) in [("BM25", &bm25), ("vector", &vector), ("hybrid", &hybrid)] {
            score(name, hits.iter().map(|h| (h.document.as_str(), h.score)).collect());
        }
        let reciprocal = |rank: Option<usize>| rank.map_or(0.0, |r| 1.0 / (60.0 + r as f64));
        score(
            "RRF",
            hybrid
                .iter()
                .map(|h| (h.document.as_str(), reciprocal(h.bm25_rank) + reciprocal(h.vector_rank)))
                .collect(),
        );
    }
    println!("\n{set} ({queries} queries): nDCG@10 / recall@100 / MRR@10");
    for (name, sums) in &rows {
        let [a, b, c] = sums.map(|s| s / queries as f64);
        println!("  {name:<10} {a:.3} / {b:.3} / {c:.3}");
    }
    Ok(())
}

/// One text file for each document; returns the id of each path.
fn write_documents(data: &Path, folder: &Path) -> Result<HashMap<String, String>> {
    let done = folder.is_dir();
    fs::create_dir_all(folder)?;
    let corpus = flate2::read::GzDecoder::new(fs::File::open(data.join("corpus.jsonl.gz"))?);
    let mut ids = HashMap::new();
    for (n, line) in BufReader::new(corpus).split(b'\n').enumerate() {
        let document: serde_json::Value = serde_json::from_slice(&line?)?;
        let path = format!("{n:06}.md");
        if !done {
            let (title, text) = (text_of(&document, "title"), text_of(&document, "text"));
            let text =
                if title.is_empty() { text.to_owned() } else { format!("# {title}\n\n{text}\n") };
            fs::write(folder.join(&path), text)?;
        }
        ids.insert(path, text_of(&document, "_id").to_owned());
    }
    Ok(ids)
}

fn judgements(data: &Path) -> Result<HashMap<String, Grades>> {
    let mut judged: HashMap<String, Grades> = HashMap::new();
    for line in fs::read_to_string(data.join("qrels.tsv"))?.lines().skip(1) {
        let [query, document, grade] = line.split('\t').collect::<Vec<_>>()[..] else {
            bail!("not a judgement: {line}");
        };
        judged.entry(query.to_owned()).or_default().insert(document.to_owned(), grade.parse()?);
    }
    Ok(judged)
}

fn text_of<'a>(row: &'a serde_json::Value, key: &str) -> &'a str {
    row[key].as_str().unwrap_or_default()
}
