//! `assay search`: what retrieval finds, for one question or, as a TREC run, for a file of them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use assay_candidate::{Refinement, Rewrite, Searcher};
use assay_index::{Filter, Hit, IndexError, Query, SearchMode};
use assay_store::Store;
use assay_types::Pages;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::base::{self, Base, Patience};
use crate::config::{Loaded, RankBy};
use crate::refine;
use crate::run::{ingest, release};
use crate::ui::Ui;

/// Documents of a query in a TREC run, unless told otherwise.
const RUN_DEPTH: usize = 1000;
/// Passages that are shown, unless told otherwise.
const SHOWN: usize = 5;

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// What to search for.
    #[arg(required_unless_present = "queries", conflicts_with = "queries")]
    query: Option<String>,
    /// Search for each query of a file: JSON Lines with `_id` or `id` and `text` or `query`, else lines of id, tab, text.
    #[arg(long, value_name = "FILE", requires = "run")]
    queries: Option<PathBuf>,
    /// Write what the queries find as a TREC run: query, Q0, document, rank, score, mode. A document counts with
    /// its best passage; white space in its path becomes %20.
    #[arg(long, value_name = "OUT", requires = "queries")]
    run: Option<PathBuf>,
    /// Only documents that fulfil this, e.g. `lang = "en" and year >= 2020`; see docs/retrieval.md.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
    /// How the passages are ranked; without it, as assay.toml says. What else `[retrieval]` says is done with either.
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    /// Passages to show (5), or documents of each query in a run (1000).
    #[arg(short, value_name = "N")]
    k: Option<usize>,
    /// Print the passages as JSON.
    #[arg(long, conflicts_with = "queries")]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Words and meaning, by their scores.
    Hybrid,
    /// Words and meaning, by their ranks.
    Rrf,
    /// Words only.
    Bm25,
    /// Meaning only.
    Vector,
}

impl Mode {
    fn search(self) -> SearchMode {
        match self {
            Mode::Hybrid => SearchMode::Hybrid,
            Mode::Rrf => SearchMode::Reciprocal,
            Mode::Bm25 => SearchMode::Bm25,
            Mode::Vector => SearchMode::Vector,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Mode::Hybrid => "hybrid",
            Mode::Rrf => "rrf",
            Mode::Bm25 => "bm25",
            Mode::Vector => "vector",
        }
    }
}

impl From<RankBy> for Mode {
    fn from(mode: RankBy) -> Mode {
        match mode {
            RankBy::Hybrid => Mode::Hybrid,
            RankBy::Rrf => Mode::Rrf,
            RankBy::Bm25 => Mode::Bm25,
            RankBy::Vector => Mode::Vector,
        }
    }
}

/// Names a run by all that decides its order.
fn tag(mode: Mode, refine: &Refinement) -> String {
    let mut tag = format!("assay-{}", mode.name());
    match refine.rewrite {
        Some(Rewrite::MultiQuery { .. }) => tag += "-multi",
        Some(Rewrite::Hyde) => tag += "-hyde",
        None => {}
    }
    if refine.rerank.is_some() {
        tag += "-rerank";
    }
    if let Some(lambda) = refine.mmr {
        tag += &format!("-mmr{lambda}");
    }
    tag
}

pub(crate) fn search(loaded: &Loaded, args: &SearchArgs) -> Result<ExitCode> {
    crate::interrupt::install()?;
    let queries = args.queries.as_deref().map(read_queries).transpose()?;
    let filter = args.filter.as_deref().map(Filter::parse).transpose();
    let filter = filter.map_err(IndexError::Filter)?;
    let ui = Ui::default();
    let embedder = release::embedder(&loaded.config.model)?;
    let index = ingest(loaded, &ui, embedder)?;
    let Some(index) = index else {
        bail!(
            "{}: no document could be used",
            loaded.path(&loaded.config.data.documents).display()
        );
    };
    let retrieval = &loaded.config.retrieval;
    let reranker = refine::reranker(retrieval)?;
    let refine = refine::refinement(retrieval, reranker.as_deref());
    let rewriter = match refine.rewrite {
        Some(_) => {
            let Base { generator, hash } =
                base::open(loaded, &loaded.config.model.base, Patience::Run)?;
            let store = Store::open(&loaded.state_dir())?;
            Some(refine::filed_rewriter(store, &generator, &hash))
        }
        None => None,
    };
    let searcher = refine::searcher(index, reranker, rewriter)?;
    let mode = args.mode.unwrap_or(retrieval.mode.into());
    let text = args.query.as_deref().unwrap_or_default();
    let query = Query {
        text,
        k: args.k.unwrap_or(SHOWN),
        vector: None,
        mode: mode.search(),
        filter: filter.as_ref(),
        viewer: retrieval.viewer(),
    };
    if let (Some(queries), Some(out)) = (queries, &args.run) {
        let query = Query { k: args.k.unwrap_or(RUN_DEPTH), ..query };
        let done = run(&searcher, &refine, &queries, out, query, mode, &ui)?;
        refine::tell_unwritten(Some(&searcher), &ui);
        return Ok(done);
    }
    let found = searcher.search(&refine, &query)?;
    refine::tell_unwritten(Some(&searcher), &ui);
    if let Some(cut) = found.truncated {
        ui.note(&format!(
            "warning: the query has {} tokens; its meaning is that of the first {}",
            cut.tokens, cut.read
        ));
    }
    let hits = found.hits;
    if args.json {
        let hits: Vec<Value> = hits.iter().map(hit_json).collect();
        println!("{}", serde_json::to_string_pretty(&hits)?);
        return Ok(ExitCode::SUCCESS);
    }
    for (n, hit) in hits.iter().enumerate() {
        let place = |leg: &str, rank: Option<usize>| {
            rank.map(|r| format!(", {leg} {r}")).unwrap_or_default()
        };
        let legs = place("words", hit.bm25_rank) + &place("meaning", hit.vector_rank);
        let pages = hit.pages.clone().map_or_else(String::new, |p| format!(" {}", Pages::from(p)));
        println!(
            "[{}] {}:{}-{}{pages} ({:.3}{legs})",
            n + 1,
            hit.document,
            hit.span.start,
            hit.span.end,
            hit.score
        );
        println!("    {}\n", hit.text.trim().replace('\n', "\n    "));
    }
    if hits.is_empty() {
        eprintln!("nothing found");
    }
    Ok(ExitCode::SUCCESS)
}

fn hit_json(hit: &Hit) -> Value {
    json!({
        "document": hit.document,
        "start": hit.span.start,
        "end": hit.span.end,
        "pages": hit.pages.clone().map(Pages::from),
        "heading_path": hit.heading_path,
        "text": hit.text,
        "score": hit.score,
        "bm25_rank": hit.bm25_rank,
        "vector_rank": hit.vector_rank,
    })
}

fn run(
    searcher: &Searcher,
    refine: &Refinement,
    queries: &[(String, String)],
    out: &Path,
    query: Query<'_>,
    mode: Mode,
    ui: &Ui,
) -> Result<ExitCode> {
    let tag = tag(mode, refine);
    let step = ui.step("search", queries.len() as u64);
    let mut lines = String::new();
    for (done, (id, text)) in queries.iter().enumerate() {
        step.tick(done as u64);
        crate::interrupt::check()?;
        let found = documents(searcher, refine, Query { text, ..query })?;
        for (rank, (document, score)) in found.iter().enumerate() {
            let document = document.split_whitespace().collect::<Vec<_>>().join("%20");
            writeln!(lines, "{id} Q0 {document} {} {score} {tag}", rank + 1)?;
        }
    }
    let aside = out.with_extension("tmp");
    fs_err::write(&aside, lines)?;
    fs_err::rename(&aside, out)?;
    step.done(&format!("{} queries, {}", queries.len(), out.display()));
    Ok(ExitCode::SUCCESS)
}

/// The `k` best documents, each with the score of its best passage.
fn documents(
    searcher: &Searcher,
    refine: &Refinement,
    query: Query<'_>,
) -> Result<Vec<(String, f64)>> {
    let depth = query.k;
    let mut passages = depth;
    let written = searcher.write(refine, &[query.text])?.pop().flatten();
    loop {
        let query = Query { k: passages, ..query };
        let hits = searcher.search_written(refine, &query, written.as_ref())?.hits;
        let found = hits.len();
        let mut documents: Vec<(String, f64)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for hit in hits {
            if seen.insert(hit.document.clone()) {
                documents.push((hit.document, hit.score));
            }
        }
        if documents.len() >= depth || found < passages {
            documents.truncate(depth);
            return Ok(documents);
        }
        passages = passages.saturating_mul(2);
    }
}

/// Ids and texts.
fn read_queries(path: &Path) -> Result<Vec<(String, String)>> {
    let text = fs_err::read_to_string(path)?;
    let mut queries: Vec<(String, String)> = Vec::new();
    for (n, line) in text.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (id, text) = query_of(line).with_context(|| format!("{}:{}", path.display(), n + 1))?;
        if id.is_empty() || id.contains(char::is_whitespace) {
            bail!("{}:{}: the id `{id}` is empty or has white space", path.display(), n + 1);
        }
        if queries.iter().any(|(known, _)| *known == id) {
            bail!("{}:{}: the id `{id}` is there twice", path.display(), n + 1);
        }
        queries.push((id, text));
    }
    if queries.is_empty() {
        bail!("{}: no queries", path.display());
    }
    Ok(queries)
}

fn query_of(line: &str) -> Result<(String, String)> {
    if !line.starts_with('{') {
        let (id, text) =
            line.split_once('\t').context("neither JSON nor an id, a tab and a text")?;
        return Ok((id.to_owned(), text.trim().to_owned()));
    }
    let row: Value = serde_json::from_str(line)?;
    let value = |keys: [&str; 2]| match keys.iter().find_map(|k| row.get(k)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => bail!("neither `{}` nor `{}`, as text or number", keys[0], keys[1]),
    };
    Ok((value(["_id", "id"])?, value(["text", "query"])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_json_lines_or_a_table() {
        let check = |line: &str, expected: (&str, &str)| {
            let (id, text) = query_of(line).unwrap();
            assert_eq!((id.as_str(), text.as_str()), expected);
        };
        check(r#"{"_id": "q1", "text": "a\u2028b"}"#, ("q1", "a\u{2028}b"));
        check(r#"{"id": 7, "query": "who"}"#, ("7", "who"));
        check("7\twho is it?\r", ("7", "who is it?"));
        for bad in ["no tab", r#"{"id": "1"}"#, r#"{"text": "a"}"#, "{"] {
            assert!(query_of(bad).is_err(), "{bad}");
        }
    }
}
