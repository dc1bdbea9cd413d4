//! `assay retrieval tune`: which way to retrieve finds the most, on labelled questions that no test item is among.
//!
//! Chunk sizes, headers and rankings first, each with each; then, one at a time on the best of them, what refines a search.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use assay_candidate::{Rewriter, Searcher, Source, headings};
use assay_eval::{Grades, ndcg_at, rank_documents};
use assay_index::{Embed, Index, IndexConfig, Query};
use assay_model::CrossEncoder;
use assay_stats::{Clustered, Resampling, bootstrap_mean, holm, mean, sign_flip_p};
use assay_store::Store;
use assay_types::Item;
use clap::{Args, Subcommand};
use serde::Serialize;

use crate::base::{self, Base, Patience};
use crate::config::{Loaded, RankBy, Retrieval, RewriteBy};
use crate::interrupt::{self, Interrupted};
use crate::parser::ParserLimits;
use crate::run::{self, release};
use crate::ui::{Step, Ui};
use crate::{check, ingest, project, refine};

/// Chunks of a ranking that are looked at.
const DEPTH: usize = 50;
/// Values of lambda that are tried.
const LAMBDAS: [f64; 3] = [0.9, 0.7, 0.5];
/// Neighbours on each side that are tried.
const WINDOWS: [usize; 2] = [1, 2];
const MODES: [RankBy; 4] = [RankBy::Hybrid, RankBy::Rrf, RankBy::Bm25, RankBy::Vector];
/// A difference with less than this, after correction, is taken for real.
const ALPHA: f64 = 0.05;

/// Keys of `[retrieval]` that are tried.
const KEYS: [&str; 10] = [
    "chunk_tokens",
    "contextual_headers",
    "mode",
    "reranker",
    "reranker_precision",
    "rerank_depth",
    "mmr",
    "rewrite",
    "rewrite_queries",
    "window",
];

#[derive(Subcommand)]
pub(crate) enum RetrievalCommand {
    /// Try ways to retrieve on the questions of train and dev that name their documents.
    Tune(TuneArgs),
}

#[derive(Args)]
pub(crate) struct TuneArgs {
    /// Chunk sizes to try, in tokens of the embedder, beside the one of assay.toml.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 128, 200])]
    chunk_tokens: Vec<usize>,
    /// Cross-encoder to try as a reranker, beside the one of assay.toml.
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Also let the base model write queries anew (multi_query, hyde), for this many of the questions: that takes
    /// it some seconds for each, once.
    #[arg(long, value_name = "QUESTIONS", default_value_t = 0)]
    rewrite: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// One way to retrieve, and what it found.
struct Trial {
    retrieval: Retrieval,
    /// Of each question; `None` where it was not asked.
    scores: Vec<Option<Scored>>,
    compared_by: Metric,
}

/// What was found for a question.
#[derive(Clone, Copy)]
struct Scored {
    ndcg: f64,
    /// Whether the answer stands in what a prompt would show; `None` without a known answer.
    answer: Option<f64>,
    context_tokens: f64,
    ms: f64,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Metric {
    #[serde(rename = "ndcg_at_10")]
    NdcgAt10,
    /// For what changes no ranking but what is shown of it.
    AnswerRecall,
}

impl Metric {
    fn of(self, scored: &Scored) -> Option<f64> {
        match self {
            Metric::NdcgAt10 => Some(scored.ndcg),
            Metric::AnswerRecall => scored.answer,
        }
    }
}

/// One way to retrieve, on all questions.
#[derive(Serialize)]
struct Tried {
    /// Its keys in `[retrieval]`.
    #[serde(flatten)]
    keys: toml::Table,
    #[serde(skip)]
    name: String,
    /// Lines of `[retrieval]` that would switch it on.
    #[serde(skip)]
    lines: String,
    /// As assay.toml has it: what the others are compared with.
    configured: bool,
    /// How many it was asked.
    questions: usize,
    /// nDCG@10 over documents, each with its best chunk.
    ndcg_at_10: f64,
    /// Share of the questions whose answer stands, word by word, in what a prompt would show at most.
    answer_recall: Option<f64>,
    /// Length of that, in tokens of the embedder.
    context_tokens: f64,
    /// Wall time of a search, the query's vector included; a query that was written anew counts with its share of the batch.
    ms_per_query: f64,
    /// Difference from what is configured, on the questions that both were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    difference: Option<Difference>,
}

#[derive(Serialize)]
struct Difference {
    of: Metric,
    mean: f64,
    ci_low: f64,
    ci_high: f64,
    p_value: f64,
    /// After Holm's correction over all that were tried.
    p_adjusted: f64,
}

impl Difference {
    fn is_gain(&self) -> bool {
        self.mean > 0.0 && self.p_adjusted < ALPHA
    }
}

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
    let mut bench = Bench::new(loaded, &ui, items)?;
    let sizes = sizes(&args.chunk_tokens, &bench)?;
    let own = bench.own.clone();
    let mut rerankers: Vec<String> = own.reranker.iter().chain(&args.reranker).cloned().collect();
    rerankers.dedup();
    for name in &rerankers {
        let reranker = refine::open_reranker(name, own.reranker_precision)?;
        bench.rerankers.insert(name.clone(), reranker);
    }

    let mut trials: Vec<Trial> = Vec::new();
    let plain = Retrieval { reranker: None, mmr: None, rewrite: None, window: 0, ..own.clone() };
    for chunk_tokens in sizes {
        for contextual_headers in [true, false] {
            for mode in MODES {
                let retrieval =
                    Retrieval { chunk_tokens, contextual_headers, mode, ..plain.clone() };
                trials.push(bench.measure(retrieval, Metric::NdcgAt10, usize::MAX)?);
            }
        }
    }
    if !trials.iter().any(|t| same(&t.retrieval, &own)) {
        trials.push(bench.measure(own.clone(), Metric::NdcgAt10, usize::MAX)?);
    }
    let on = bench.base(&trials, &own);
    let mut more: Vec<(Retrieval, Metric, usize)> = Vec::new();
    for name in rerankers {
        let retrieval = Retrieval { reranker: Some(name), ..on.clone() };
        more.push((retrieval, Metric::NdcgAt10, usize::MAX));
    }
    for lambda in LAMBDAS {
        let retrieval = Retrieval { mmr: Some(lambda), ..on.clone() };
        more.push((retrieval, Metric::NdcgAt10, usize::MAX));
    }
    for window in WINDOWS {
        let retrieval = Retrieval { window, ..on.clone() };
        more.push((retrieval, Metric::AnswerRecall, usize::MAX));
    }
    if args.rewrite > 0 {
        for rewrite in [RewriteBy::MultiQuery, RewriteBy::Hyde] {
            if rewrite == RewriteBy::MultiQuery || on.mode != RankBy::Bm25 {
                let retrieval = Retrieval { rewrite: Some(rewrite), ..on.clone() };
                more.push((retrieval, Metric::NdcgAt10, args.rewrite));
            }
        }
    }
    for (retrieval, metric, questions) in more {
        if !trials.iter().any(|t| same(&t.retrieval, &retrieval)) {
            trials.push(bench.measure(retrieval, metric, questions)?);
        }
    }
    let tried = compare(&bench.items, &trials, &own, loaded.config.project.seed);
    if args.json {
        println!("{}", serde_json::to_string_pretty(&tried)?);
    } else {
        print!("{}", render(&tried, bench.items.len(), bench.depth));
        if args.rewrite == 0 {
            println!("queries written anew were not tried: --rewrite 50 does, on 50 questions");
        }
        if bench.rerankers.is_empty() {
            println!("no reranker was tried: --reranker MODEL names one");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sizes of chunks, the configured one among them, as the index cuts them.
fn sizes(wanted: &[usize], bench: &Bench<'_>) -> Result<Vec<usize>> {
    let most = bench.embedder.max_tokens();
    let mut sizes = wanted.to_vec();
    sizes.push(bench.own.chunk_tokens);
    if let Some(n) = sizes.iter().find(|n| !(16..=most).contains(*n)) {
        bail!(
            "chunks of {n} tokens: the embedder takes 16 to {most}\nhint: --chunk-tokens 64,128,{most}"
        );
    }
    sizes.sort_unstable();
    sizes.dedup();
    Ok(sizes)
}

/// What all trials share.
struct Bench<'a> {
    loaded: &'a Loaded,
    ui: &'a Ui,
    items: Vec<&'a Item>,
    /// What is configured.
    own: Retrieval,
    embedder: Arc<dyn Embed>,
    /// Chunks that a prompt shows at most.
    depth: usize,
    rerankers: BTreeMap<String, Arc<CrossEncoder>>,
    /// By size and headers.
    indexes: BTreeMap<(usize, bool), Arc<Index>>,
    rewriter: Option<Arc<Rewriter>>,
}

impl<'a> Bench<'a> {
    fn new(loaded: &'a Loaded, ui: &'a Ui, items: Vec<&'a Item>) -> Result<Self> {
        let config = &loaded.config;
        let embedder = release::embedder(&config.model)?;
        let own = &config.retrieval;
        Ok(Bench {
            loaded,
            ui,
            items,
            own: Retrieval {
                chunk_tokens: own.chunk_tokens.min(embedder.max_tokens()),
                mmr: own.mmr.filter(|lambda| *lambda < 1.0),
                ..own.clone()
            },
            embedder,
            depth: own.top_k.iter().copied().max().unwrap_or(1),
            rerankers: BTreeMap::new(),
            indexes: BTreeMap::new(),
            rewriter: None,
        })
    }

    /// Retrieves in one way for some of the questions, spread over all.
    fn measure(&mut self, retrieval: Retrieval, by: Metric, most: usize) -> Result<Trial> {
        let searcher = self.searcher(&retrieval)?;
        let n = most.min(self.items.len());
        let asked: Vec<usize> = (0..n).map(|i| i * self.items.len() / n).collect();
        let step = self.ui.step(&name(&retrieval), n as u64);
        let mut scores = vec![None; self.items.len()];
        for part in asked.chunks(run::WRITTEN_TOGETHER) {
            self.part(&searcher, &retrieval, part, &mut scores)?;
            step.tick(scores.iter().flatten().count() as u64);
        }
        let trial = Trial { retrieval, scores, compared_by: by };
        step.done(&format!("nDCG@10 {:.3}", trial.mean(|s| Some(s.ndcg)).unwrap_or(0.0)));
        refine::tell_unwritten(Some(&searcher), self.ui);
        Ok(trial)
    }

    fn part(
        &self,
        searcher: &Searcher,
        retrieval: &Retrieval,
        part: &[usize],
        scores: &mut [Option<Scored>],
    ) -> Result<()> {
        interrupt::check()?;
        let reranker = retrieval.reranker.as_ref().and_then(|name| self.rerankers.get(name));
        let refine = refine::refinement(retrieval, reranker.map(|r| &**r));
        let viewer = retrieval.viewer();
        let queries: Vec<&str> = part.iter().map(|&i| self.items[i].input.as_str()).collect();
        let written = searcher.write(&refine, &queries)?;
        for (&i, written) in part.iter().zip(written) {
            interrupt::check()?;
            let item = self.items[i];
            let mode = assay_candidate::RankedBy::from(retrieval.mode).search_mode();
            let query = Query { viewer, ..Query::new(&item.input, DEPTH, mode) };
            let began = Instant::now();
            let found = searcher.search_written(&refine, &query, written.as_ref())?;
            let searched_ms = began.elapsed().as_secs_f64() * 1e3;
            let hits = found.hits;
            let ranking = rank_documents(hits.iter().map(|h| (h.document.as_str(), h.score)));
            let grades: Grades = item.doc_ids.iter().map(|d| (d.clone(), 1)).collect();
            let ndcg = ndcg_at(&ranking, &grades, 10).unwrap_or(0.0);
            let sources = hits.into_iter().take(self.depth).map(|hit| Source {
                document: hit.document,
                start: hit.span.start,
                headings: headings(hit.title.as_deref(), &hit.heading_path),
                text: hit.text,
            });
            let tokens = |sources: &[Source]| -> usize {
                sources.iter().map(|s| self.embedder.count_tokens(&s.text)).sum()
            };
            let limit = retrieval.prompt_tokens;
            let shown = searcher.widen(sources.collect(), refine.window, viewer, &mut |s| {
                anyhow::Ok(tokens(s) <= limit)
            })?;
            let held = || shown.iter().any(|s| assay_data::contains_answer(item, &s.text));
            let answer = (!item.references.is_empty()).then(|| f64::from(u8::from(held())));
            let context_tokens = tokens(&shown) as f64;
            let ms = searched_ms + written.map_or(0.0, |w| w.ms);
            scores[i] = Some(Scored { ndcg, answer, context_tokens, ms });
        }
        Ok(())
    }

    fn searcher(&mut self, retrieval: &Retrieval) -> Result<Searcher> {
        let index = self.index(retrieval.chunk_tokens, retrieval.contextual_headers)?;
        let mut searcher = Searcher::new(index);
        if let Some(name) = &retrieval.reranker {
            let reranker = self.rerankers.get(name).context("a reranker that was not opened")?;
            searcher = searcher.with_reranker(reranker.clone())?;
        }
        if retrieval.rewrite.is_some() {
            searcher = searcher.with_rewriter(self.rewriter()?);
        }
        Ok(searcher)
    }

    fn rewriter(&mut self) -> Result<Arc<Rewriter>> {
        if let Some(rewriter) = &self.rewriter {
            return Ok(rewriter.clone());
        }
        let base = &self.loaded.config.model.base;
        let Base { generator, hash } = base::open(self.loaded, base, Patience::Run)?;
        let store = Store::open(&self.loaded.state_dir())?;
        let rewriter = Arc::new(refine::filed_rewriter(store, &generator, &hash));
        self.rewriter = Some(rewriter.clone());
        Ok(rewriter)
    }

    /// The documents in chunks of that size, in an index of their own, which stays for the next time.
    fn index(&mut self, chunk_tokens: usize, contextual_headers: bool) -> Result<Arc<Index>> {
        if let Some(index) = self.indexes.get(&(chunk_tokens, contextual_headers)) {
            return Ok(index.clone());
        }
        let plain = if contextual_headers { "" } else { "-without-headers" };
        let dir = self.loaded.state_dir().join("tune").join(format!("{chunk_tokens}{plain}"));
        let config = IndexConfig { chunk_tokens, contextual_headers, ..IndexConfig::default() };
        let limits = ParserLimits::default();
        let index = Index::open(&dir, self.embedder.clone(), config)?;
        let mut index = ingest::guarded(index, limits);
        let headers = if contextual_headers { "" } else { ", no headers" };
        let step = self.ui.step(&format!("{chunk_tokens} tokens{headers}"), 1);
        let folder = self.loaded.path(&self.loaded.config.data.documents);
        let report = index.ingest(&folder, &mut |p| progress(&step, p.done, p.total))?;
        if report.interrupted {
            return Err(Interrupted.into());
        }
        step.done(&format!("{} chunks", report.chunks));
        let index = Arc::new(index);
        self.indexes.insert((chunk_tokens, contextual_headers), index.clone());
        Ok(index)
    }

    /// What the refinements are tried on: what is configured, but for its own refinements, unless something is
    /// significantly better; then the best.
    fn base(&self, trials: &[Trial], own: &Retrieval) -> Retrieval {
        let seed = self.loaded.config.project.seed;
        let tried = compare(&self.items, trials, own, seed);
        let plain = |t: &Trial| {
            t.retrieval.reranker.is_none()
                && t.retrieval.rewrite.is_none()
                && t.retrieval.mmr.is_none()
                && t.retrieval.window == 0
        };
        let gain = |t: &Tried| t.difference.as_ref().is_some_and(Difference::is_gain);
        let best = tried.iter().find(|t| gain(t)).map(|t| &t.name);
        let best = best.and_then(|n| trials.iter().find(|t| plain(t) && name(&t.retrieval) == *n));
        let own = Retrieval { reranker: None, mmr: None, rewrite: None, window: 0, ..own.clone() };
        best.map_or(own, |t| t.retrieval.clone())
    }
}

fn progress(step: &Step<'_>, done: usize, total: usize) -> ControlFlow<()> {
    step.length(total as u64);
    step.tick(done as u64);
    if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

impl Trial {
    fn mean(&self, of: impl Fn(&Scored) -> Option<f64>) -> Option<f64> {
        mean(&self.scores.iter().flatten().filter_map(of).collect::<Vec<_>>())
    }
}

/// The keys of `[retrieval]` that decide what is found, as `assay.toml` would have them.
fn keys(retrieval: &Retrieval) -> toml::Table {
    let mut table = toml::Table::try_from(retrieval).unwrap_or_default();
    let needs = |key: &str| match key {
        "reranker_precision" | "rerank_depth" => retrieval.reranker.is_some(),
        "rewrite_queries" => retrieval.rewrite == Some(RewriteBy::MultiQuery),
        _ => true,
    };
    table.retain(|key, _| KEYS.contains(&key) && needs(key));
    table
}

fn same(a: &Retrieval, b: &Retrieval) -> bool {
    keys(a) == keys(b)
}

/// One way to retrieve, in words.
fn name(retrieval: &Retrieval) -> String {
    let mode = match retrieval.mode {
        RankBy::Hybrid => "hybrid",
        RankBy::Rrf => "rrf",
        RankBy::Bm25 => "bm25",
        RankBy::Vector => "vector",
    };
    let mut name = format!("{} tokens, {mode}", retrieval.chunk_tokens);
    if !retrieval.contextual_headers {
        name += ", no headers";
    }
    match retrieval.rewrite {
        Some(RewriteBy::MultiQuery) => {
            name += &format!(", multi_query {}", retrieval.rewrite_queries);
        }
        Some(RewriteBy::Hyde) => name += ", hyde",
        None => {}
    }
    if let Some(reranker) = &retrieval.reranker {
        let short = reranker.rsplit('/').find(|part| !part.is_empty()).unwrap_or(reranker);
        name += &format!(", {short} {}", retrieval.rerank_depth);
    }
    if let Some(lambda) = retrieval.mmr {
        name += &format!(", mmr {lambda}");
    }
    if retrieval.window > 0 {
        name += &format!(", window {}", retrieval.window);
    }
    name
}

/// What has to be written in `[retrieval]` to have `retrieval` instead of `own`.
fn lines(retrieval: &Retrieval, own: &Retrieval) -> String {
    let (wanted, there) = (keys(retrieval), keys(own));
    let mut lines = String::new();
    for (key, value) in wanted.iter().filter(|(key, value)| there.get(*key) != Some(*value)) {
        lines += &format!("{key} = {value}\n");
    }
    for key in there.keys().filter(|key| !wanted.contains_key(*key)) {
        lines += &format!("# and without {key}\n");
    }
    lines
}

/// All that was tried, best first, each against what is configured on the same questions, whole documents together.
fn compare(items: &[&Item], trials: &[Trial], own: &Retrieval, seed: u64) -> Vec<Tried> {
    let base = trials.iter().find(|t| same(&t.retrieval, own));
    let differences: BTreeMap<usize, (f64, f64, f64, f64)> = trials
        .iter()
        .enumerate()
        .filter(|(_, t)| !same(&t.retrieval, own))
        .filter_map(|(i, of)| {
            let pairs = of.scores.iter().zip(&base?.scores).zip(items);
            let diffs = Clustered::new(pairs.filter_map(|((a, b), item)| {
                let value = |s: &Option<Scored>| of.compared_by.of(s.as_ref()?);
                Some((item.cluster(), value(a)? - value(b)?))
            }));
            let how = Resampling { samples: 4_000, seed, level: 0.95 };
            let interval = bootstrap_mean(&diffs, how)?.percentile;
            Some((i, (diffs.mean()?, interval.low, interval.high, sign_flip_p(&diffs, seed))))
        })
        .collect();
    let adjusted = holm(&differences.values().map(|d| d.3).collect::<Vec<_>>());
    let adjusted: BTreeMap<usize, f64> = differences.keys().copied().zip(adjusted).collect();
    let mut tried: Vec<Tried> = trials
        .iter()
        .enumerate()
        .map(|(i, of)| Tried {
            keys: keys(&of.retrieval),
            name: name(&of.retrieval),
            lines: lines(&of.retrieval, own),
            configured: same(&of.retrieval, own),
            questions: of.scores.iter().flatten().count(),
            ndcg_at_10: of.mean(|s| Some(s.ndcg)).unwrap_or(0.0),
            answer_recall: of.mean(|s| s.answer),
            context_tokens: of.mean(|s| Some(s.context_tokens)).unwrap_or(0.0),
            ms_per_query: of.mean(|s| Some(s.ms)).unwrap_or(0.0),
            difference: differences.get(&i).map(|&(mean, ci_low, ci_high, p_value)| Difference {
                of: of.compared_by,
                mean,
                ci_low,
                ci_high,
                p_value,
                p_adjusted: adjusted[&i],
            }),
        })
        .collect();
    tried.sort_by(|a, b| b.ndcg_at_10.total_cmp(&a.ndcg_at_10));
    tried
}

fn render(tried: &[Tried], questions: usize, depth: usize) -> String {
    let width = tried.iter().map(|t| t.name.len() + 8).max().unwrap_or(0);
    let mut out = format!(
        "{:<width$} {:>8} {:>10} {:>7} {:>9} {:>31} {:>8}\n",
        "chunks, ranking, refinement",
        "nDCG@10",
        format!("answer@{depth}"),
        "tokens",
        "ms/query",
        "difference [95 %]",
        "p, Holm"
    );
    for t in tried {
        let mut what = t.name.clone();
        if t.questions < questions {
            what += &format!(" (of {})", t.questions);
        }
        let answer = t.answer_recall.map_or("-".to_owned(), |r| format!("{r:.3}"));
        let (difference, p) = match &t.difference {
            Some(d) => (
                format!(
                    "{}{:+.3} [{:+.3}, {:+.3}]",
                    if d.of == Metric::AnswerRecall { "answer " } else { "" },
                    d.mean,
                    d.ci_low,
                    d.ci_high
                ),
                format!("{:.3}", d.p_adjusted),
            ),
            None if t.configured => ("as configured".to_owned(), String::new()),
            None => ("no answers are known".to_owned(), String::new()),
        };
        out += &format!(
            "{what:<width$} {:>8.3} {answer:>10} {:>7.0} {:>9.1} {difference:>31} {p:>8}\n",
            t.ndcg_at_10, t.context_tokens, t.ms_per_query
        );
    }
    out.push('\n');
    let mut nothing = true;
    for (metric, what) in [(Metric::NdcgAt10, "found"), (Metric::AnswerRecall, "answers shown")] {
        let gains = tried.iter().filter_map(|t| Some((t, t.difference.as_ref()?)));
        let best = gains
            .filter(|(_, d)| d.of == metric && d.is_gain())
            .max_by(|a, b| a.1.mean.total_cmp(&b.1.mean));
        if let Some((t, _)) = best {
            nothing = false;
            out += &format!(
                "significantly more {what} than as configured, for {:.1} ms and {:.0} tokens, on {} questions:\n\
                 [retrieval]\n{}",
                t.ms_per_query, t.context_tokens, t.questions, t.lines
            );
        }
    }
    if nothing {
        out += &format!(
            "nothing that was tried is significantly better than what is configured, on {questions} questions\n"
        );
    }
    out
}
