//! `assay retrieval tune`: which chunk size and which ranking find the most, on labelled questions that no test item is
//! among.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Result, bail};
use assay_eval::{Grades, ndcg_at, rank_documents};
use assay_index::{Embed, Index, IndexConfig, Query, SearchMode};
use assay_stats::{Clustered, Resampling, bootstrap_mean, holm, mean, sign_flip_p};
use assay_types::Item;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::config::{Loaded, RankBy};
use crate::ingest;
use crate::interrupt::{self, Interrupted};
use crate::parser::ParserLimits;
use crate::run::release;
use crate::ui::Ui;
use crate::{check, project};

/// Chunks of a ranking that are looked at.
const DEPTH: usize = 50;

#[derive(Subcommand)]
pub(crate) enum RetrievalCommand {
    /// Try chunk sizes and rankings on the questions of train and dev that name their documents.
    Tune(TuneArgs),
}

#[derive(Args)]
pub(crate) struct TuneArgs {
    /// Chunk sizes to try, in tokens of the embedder, beside the one of assay.toml.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 200])]
    chunk_tokens: Vec<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

const MODES: [(&str, SearchMode); 4] = [
    ("hybrid", SearchMode::Hybrid),
    ("rrf", SearchMode::Reciprocal),
    ("bm25", SearchMode::Bm25),
    ("vector", SearchMode::Vector),
];

/// One way to retrieve, on all questions.
#[derive(Serialize)]
struct Tried {
    chunk_tokens: usize,
    mode: &'static str,
    /// As assay.toml has it: what the others are compared with.
    configured: bool,
    /// nDCG@10 over documents, each with its best chunk: the figure that is compared.
    ndcg_at_10: f64,
    /// Share of the questions whose answer stands, word by word, in the chunks that a prompt would hold at most.
    answer_recall: Option<f64>,
    /// Difference of nDCG@10 from what is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
}

#[derive(Serialize)]
struct Difference {
    mean: f64,
    ci_low: f64,
    ci_high: f64,
    p_value: f64,
    /// After Holm's correction over all that were tried.
    p_adjusted: f64,
}

/// nDCG@10 and whether the answer was there, question by question.
type Scores = Vec<(f64, Option<bool>)>;

pub(crate) fn retrieval(loaded: &Loaded, command: RetrievalCommand) -> Result<ExitCode> {
    let RetrievalCommand::Tune(args) = command;
    interrupt::install()?;
    let ui = Ui::default();
    let (data, problems) = project::load(loaded, None)?;
    eprint!("{}", check::render(&problems));
    let Some(data) = data.filter(|_| check::errors(&problems) == 0) else {
        return Ok(ExitCode::from(1));
    };
    let items: Vec<&Item> = data
        .train
        .iter()
        .chain(&data.dev)
        .filter(|i| !i.doc_ids.is_empty() && i.answerable != Some(false))
        .collect();
    if items.len() < 10 {
        bail!(
            "{} questions of train and dev name their documents; at least 10 are needed\n\
             hint: give rows `doc_ids`, the paths of the documents that hold the answer",
            items.len()
        );
    }
    let config = &loaded.config;
    let embedder = release::embedder(&config.model)?;
    let mut sizes = args.chunk_tokens;
    // As the index cuts it.
    let own_size = config.retrieval.chunk_tokens.min(embedder.max_tokens());
    sizes.push(own_size);
    let most = embedder.max_tokens();
    if let Some(n) = sizes.iter().find(|n| !(16..=most).contains(*n)) {
        bail!(
            "chunks of {n} tokens: the embedder takes 16 to {most}\nhint: --chunk-tokens 64,128,{most}"
        );
    }
    sizes.sort_unstable();
    sizes.dedup();
    let viewer = config.retrieval.viewer();
    let depth = config.retrieval.top_k.iter().copied().max().unwrap_or(1);

    let mut scores: Vec<((usize, &'static str), Scores)> = Vec::new();
    for size in sizes {
        let index = indexed(loaded, &ui, embedder.clone(), size)?;
        for (name, mode) in MODES {
            let step = ui.step(&format!("{size} tokens, {name}"), items.len() as u64);
            let mut found = Vec::with_capacity(items.len());
            for item in &items {
                interrupt::check()?;
                let query = Query { viewer, ..Query::new(&item.input, DEPTH, mode) };
                found.push(one(&index, item, &query, depth)?);
                step.tick(found.len() as u64);
            }
            step.done(&format!("nDCG@10 {:.3}", average(&found)));
            scores.push(((size, name), found));
        }
    }
    let tried =
        compare(&items, &scores, (own_size, own_mode(config.retrieval.mode)), config.project.seed);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tried)?);
    } else {
        print!("{}", render(&tried, items.len(), depth));
    }
    Ok(ExitCode::SUCCESS)
}

fn own_mode(mode: RankBy) -> &'static str {
    match mode {
        RankBy::Hybrid => "hybrid",
        RankBy::Rrf => "rrf",
        RankBy::Bm25 => "bm25",
        RankBy::Vector => "vector",
    }
}

/// The documents in chunks of that size, in an index of their own, which stays for the next time.
fn indexed(loaded: &Loaded, ui: &Ui, embedder: Arc<dyn Embed>, size: usize) -> Result<Index> {
    let dir = loaded.state_dir().join("tune").join(size.to_string());
    let config = IndexConfig { chunk_tokens: size, ..IndexConfig::default() };
    let mut index = ingest::open(&dir, embedder, config, ParserLimits::default())?;
    let step = ui.step(&format!("{size} tokens"), 1);
    let folder = loaded.path(&loaded.config.data.documents);
    let report = index.ingest(&folder, &mut |p| {
        step.length(p.total as u64);
        step.tick(p.done as u64);
        if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if report.interrupted {
        return Err(Interrupted.into());
    }
    step.done(&format!("{} chunks", report.chunks));
    Ok(index)
}

fn one(index: &Index, item: &Item, query: &Query<'_>, depth: usize) -> Result<(f64, Option<bool>)> {
    let hits = index.search(query)?.hits;
    let ranking = rank_documents(hits.iter().map(|h| (h.document.as_str(), h.score)));
    let grades: Grades = item.doc_ids.iter().map(|d| (d.clone(), 1)).collect();
    let held = (!item.references.is_empty())
        .then(|| hits.iter().take(depth).any(|h| assay_data::contains_answer(item, &h.text)));
    Ok((ndcg_at(&ranking, &grades, 10).unwrap_or(0.0), held))
}

fn average(scores: &Scores) -> f64 {
    mean(&scores.iter().map(|s| s.0).collect::<Vec<_>>()).unwrap_or(0.0)
}

/// All that was tried, best first, each against what is configured on the same questions, whole documents together.
fn compare(
    items: &[&Item],
    scores: &[((usize, &'static str), Scores)],
    own: (usize, &str),
    seed: u64,
) -> Vec<Tried> {
    let base = scores.iter().find(|(what, _)| (what.0, what.1) == own).map(|(_, s)| s);
    let differences: BTreeMap<usize, (f64, f64, f64, f64)> = scores
        .iter()
        .enumerate()
        .filter(|(_, (what, _))| (what.0, what.1) != own)
        .filter_map(|(i, (_, of))| {
            let pairs = of.iter().zip(base?).zip(items);
            let diffs = Clustered::new(pairs.map(|((a, b), item)| (item.cluster(), a.0 - b.0)));
            let how = Resampling { samples: 4_000, seed, level: 0.95 };
            let interval = bootstrap_mean(&diffs, how)?.percentile;
            Some((i, (diffs.mean()?, interval.low, interval.high, sign_flip_p(&diffs, seed))))
        })
        .collect();
    let adjusted = holm(&differences.values().map(|d| d.3).collect::<Vec<_>>());
    let adjusted: BTreeMap<usize, f64> = differences.keys().copied().zip(adjusted).collect();
    let mut tried: Vec<Tried> = scores
        .iter()
        .enumerate()
        .map(|(i, ((chunk_tokens, mode), of))| {
            let held: Vec<f64> =
                of.iter().filter_map(|s| s.1).map(|held| f64::from(u8::from(held))).collect();
            Tried {
                chunk_tokens: *chunk_tokens,
                mode,
                configured: (*chunk_tokens, *mode) == own,
                ndcg_at_10: average(of),
                answer_recall: mean(&held),
                difference: differences.get(&i).map(|&(mean, ci_low, ci_high, p_value)| {
                    let p_adjusted = adjusted[&i];
                    Difference { mean, ci_low, ci_high, p_value, p_adjusted }
                }),
            }
        })
        .collect();
    tried.sort_by(|a, b| b.ndcg_at_10.total_cmp(&a.ndcg_at_10));
    tried
}

fn render(tried: &[Tried], questions: usize, depth: usize) -> String {
    let mut out = format!(
        "{:<22} {:>8} {:>10} {:>28} {:>8}\n",
        "chunks, ranking",
        "nDCG@10",
        format!("answer@{depth}"),
        "difference [95 %]",
        "p, Holm"
    );
    for t in tried {
        let what = format!("{} tokens, {}", t.chunk_tokens, t.mode);
        let answer = t.answer_recall.map_or("-".to_owned(), |r| format!("{r:.3}"));
        let (difference, p) = match &t.difference {
            Some(d) => (
                format!("{:+.3} [{:+.3}, {:+.3}]", d.mean, d.ci_low, d.ci_high),
                format!("{:.3}", d.p_adjusted),
            ),
            None => ("as configured".to_owned(), String::new()),
        };
        out += &format!("{what:<22} {:>8.3} {answer:>10} {difference:>28} {p:>8}\n", t.ndcg_at_10);
    }
    let better = tried
        .iter()
        .find(|t| t.difference.as_ref().is_some_and(|d| d.mean > 0.0 && d.p_adjusted < 0.05));
    out += &match better {
        Some(t) => format!(
            "\nsignificantly better than what is configured, on {questions} questions:\n\
             [retrieval]\nchunk_tokens = {}\nmode = \"{}\"\n",
            t.chunk_tokens, t.mode
        ),
        None => format!(
            "\nnothing that was tried is significantly better than what is configured, on {questions} questions\n"
        ),
    };
    out
}
