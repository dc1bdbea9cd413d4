//! Ranking quality on judged sets: BM25, vectors, and ways to fuse them.
//!
//!     cargo run --release -p assay-index --example retrieval_quality -- \
//!         --model <folder of all-minilm-l6-v2> --data <folder of the sets> [--state <folder>] [--runs <folder>] [--precision f32|bf16|int8] [set …]
//!
//! A set is a folder with `corpus.jsonl.gz`, `queries.jsonl` and `qrels.tsv`; `xquad-de` is made of the German
//! paragraphs and questions in `xquad`. Each document becomes a Markdown
//! file that is ingested as a user's would be; a document counts with its best chunk. Vectors are kept in
//! `--state`, so that a second run is quick. With `--whole` in the place of `--model` there is only BM25, over documents that are not
//! cut into chunks: what engines that index documents are compared with. Prints nDCG@10 / recall@100 / MRR@10 over the judged queries, and
//! writes the rankings as TREC runs into `--runs`, with the judgements beside them.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Read as _;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use assay_eval::{Grades, ndcg_at, rank_documents, recall_at, reciprocal_rank};
use assay_index::{Bm25, Embed, EmbedError, Index, IndexConfig, Query, SearchMode};
use assay_model::{Encoder, EncoderPrecision};
use fs_err as fs;

const SETS: &[&str] = &["cranfield", "cisi", "cacm", "vaswani", "scifact", "xquad", "xquad-de"];

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

/// No model: vectors that say nothing, and no limit on what is read.
struct Whole;

impl Embed for Whole {
    fn id(&self) -> &str {
        "whole documents"
    }
    fn dims(&self) -> usize {
        1
    }
    fn max_tokens(&self) -> usize {
        1 << 24
    }
    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }
    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(vec![vec![1.0]; texts.len()])
    }
}

/// What is compared: a name, the ranking, and the parameters of BM25.
const ROWS: &[(&str, SearchMode, Bm25)] = &[
    ("BM25 .9 .4", SearchMode::Bm25, Bm25 { k1: 0.9, b: 0.4 }),
    ("BM25 1.2 .75", SearchMode::Bm25, Bm25 { k1: 1.2, b: 0.75 }),
    ("vectors", SearchMode::Vector, Bm25 { k1: 1.2, b: 0.75 }),
    ("ranks", SearchMode::Reciprocal, Bm25 { k1: 1.2, b: 0.75 }),
    ("hybrid", SearchMode::Hybrid, Bm25 { k1: 1.2, b: 0.75 }),
    ("hybrid .9 .4", SearchMode::Hybrid, Bm25 { k1: 0.9, b: 0.4 }),
];

fn main() -> Result<()> {
    let (mut model, mut data, mut state, mut runs) = (None, None, None, None);
    let mut precision = EncoderPrecision::F32;
    let mut whole = false;
    let mut sets: Vec<String> = Vec::new();
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().map(PathBuf::from).with_context(|| format!("{arg} what?"));
        match arg.as_str() {
            "--model" => model = Some(value()?),
            "--data" => data = Some(value()?),
            "--state" => state = Some(value()?),
            "--runs" => runs = Some(value()?),
            "--whole" => whole = true,
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
    let Some(data) = data else { bail!("needs --data") };
    let state = state.unwrap_or_else(|| std::env::temp_dir().join("assay-retrieval-quality"));
    if sets.is_empty() {
        sets = SETS.iter().map(|s| (*s).to_owned()).collect();
    }
    let embedder: Arc<dyn Embed> = match model {
        _ if whole => Arc::new(Whole),
        Some(model) => Arc::new(Embedder(Encoder::open(&model, precision)?)),
        None => bail!("needs --model or --whole"),
    };
    for name in sets {
        let set = match name.as_str() {
            "xquad-de" => Set::squad(&data.join("xquad/xquad.de.dev.json.gz"))?,
            name => Set::read(&data.join(name))?,
        };
        measure(&name, &set, &state.join(&name), runs.as_deref(), &embedder)?;
    }
    Ok(())
}

/// Documents, queries and which belong together.
#[derive(Default)]
struct Set {
    /// Id and Markdown of each.
    documents: Vec<(String, String)>,
    /// Id and text of the judged ones.
    queries: Vec<(String, String)>,
    judged: HashMap<String, Grades>,
}

impl Set {
    fn read(folder: &Path) -> Result<Set> {
        let mut set = Set { judged: judgements(folder)?, ..Set::default() };
        for row in rows(&unpacked(&folder.join("corpus.jsonl.gz"))?)? {
            let (title, text) = (text_of(&row, "title"), text_of(&row, "text"));
            let text =
                if title.is_empty() { text.to_owned() } else { format!("# {title}\n\n{text}\n") };
            set.documents.push((text_of(&row, "_id").to_owned(), text));
        }
        for row in rows(&fs::read_to_string(folder.join("queries.jsonl"))?)? {
            let id = text_of(&row, "_id");
            if set.judged.contains_key(id) {
                set.queries.push((id.to_owned(), text_of(&row, "text").to_owned()));
            }
        }
        Ok(set)
    }

    /// A paragraph is relevant for the questions that were asked about it.
    fn squad(file: &Path) -> Result<Set> {
        let all: serde_json::Value = serde_json::from_str(&unpacked(file)?)?;
        let list = |value: &serde_json::Value, key: &str| {
            value[key].as_array().cloned().unwrap_or_default()
        };
        let mut set = Set::default();
        for article in list(&all, "data") {
            let title = text_of(&article, "title").replace('_', " ");
            for paragraph in list(&article, "paragraphs") {
                let id = set.documents.len().to_string();
                for question in list(&paragraph, "qas") {
                    let query = text_of(&question, "id").to_owned();
                    set.judged.entry(query.clone()).or_default().insert(id.clone(), 1);
                    set.queries.push((query, text_of(&question, "question").to_owned()));
                }
                set.documents
                    .push((id, format!("# {title}\n\n{}\n", text_of(&paragraph, "context"))));
            }
        }
        Ok(set)
    }
}

fn measure(
    name: &str,
    set: &Set,
    state: &Path,
    runs: Option<&Path>,
    embedder: &Arc<dyn Embed>,
) -> Result<()> {
    let folder = state.join("documents");
    let path = |n: usize| format!("{n:06}.md");
    if !folder.is_dir() {
        let aside = state.join("documents.tmp");
        fs::create_dir_all(&aside)?;
        for (n, (_, text)) in set.documents.iter().enumerate() {
            fs::write(aside.join(path(n)), text)?;
        }
        fs::rename(&aside, &folder)?;
    }
    let ids: HashMap<String, &str> =
        set.documents.iter().enumerate().map(|(n, (id, _))| (path(n), id.as_str())).collect();
    let open = |bm25| {
        let config =
            IndexConfig { chunk_tokens: embedder.max_tokens(), bm25, ..IndexConfig::default() };
        Index::open(&state.join("index"), embedder.clone(), config)
    };
    let report = open(Bm25::default())?.ingest(&folder, &mut |p| {
        if p.done == p.total {
            eprint!("\r{name}: {} embeddings ", p.embeddings_computed);
        }
        ControlFlow::Continue(())
    })?;
    eprintln!("\r{name}: {} documents, {} chunks", set.documents.len(), report.chunks);

    println!("\n{name} ({} queries): nDCG@10 / recall@100 / MRR@10", set.queries.len());
    let rows = ROWS.iter().filter(|row| embedder.dims() > 1 || row.1 == SearchMode::Bm25);
    for &(row, mode, bm25) in rows {
        let index = open(bm25)?;
        let mut sums = [0.0; 3];
        let mut run = String::new();
        for (id, text) in &set.queries {
            let hits = index.search(&Query::new(text, DEPTH, mode))?.hits;
            let scores = hits.iter().map(|h| (ids[&h.document], h.score));
            let ranking = rank_documents(scores.clone());
            let grades = &set.judged[id];
            let values = [
                ndcg_at(&ranking, grades, 10),
                recall_at(&ranking, grades, 100),
                reciprocal_rank(&ranking[..ranking.len().min(10)], grades),
            ];
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += value.unwrap_or(0.0);
            }
            let mut best: HashMap<&str, f64> = HashMap::new();
            for (document, score) in scores {
                let known = best.entry(document).or_insert(score);
                *known = known.max(score);
            }
            for (rank, document) in ranking.iter().enumerate() {
                writeln!(
                    run,
                    "{id} Q0 {document} {} {} {}",
                    rank + 1,
                    best[document],
                    row.replace(' ', "-")
                )?;
            }
        }
        let [a, b, c] = sums.map(|s| s / set.queries.len() as f64);
        println!("  {row:<12} {a:.4} / {b:.4} / {c:.4}");
        if let Some(folder) = runs {
            fs::create_dir_all(folder)?;
            fs::write(folder.join(format!("{name}.{}.run", row.replace(' ', "-"))), run)?;
        }
    }
    if let Some(folder) = runs {
        let mut qrels = String::new();
        for (query, grades) in set.judged.iter().collect::<BTreeMap<_, _>>() {
            for (document, grade) in grades {
                writeln!(qrels, "{query} 0 {document} {grade}")?;
            }
        }
        fs::write(folder.join(format!("{name}.qrels")), qrels)?;
    }
    Ok(())
}

fn unpacked(file: &Path) -> Result<String> {
    let mut text = String::new();
    flate2::read::GzDecoder::new(fs::File::open(file)?).read_to_string(&mut text)?;
    Ok(text)
}

/// Rows of JSON Lines, whose strings may hold other line breaks.
fn rows(text: &str) -> Result<Vec<serde_json::Value>> {
    let lines = text.split('\n').filter(|l| !l.is_empty());
    lines.map(|l| serde_json::from_str(l).with_context(|| format!("not JSON: {l}"))).collect()
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
