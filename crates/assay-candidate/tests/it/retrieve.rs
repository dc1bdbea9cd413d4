//! The one way in which chunks are found: what rerankers, rewriters, diversity and neighbours make of it.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_candidate::{
    Candidate, CandidateError, CandidateSpec, Drafts, Generator, Guard, PromptBudget, RankedBy,
    Refinement, RemoteGenerator, Request, Rerank, RetrievalSpec, RetrieveFrom, Retriever, Rewrite,
    Rewriter, Searcher, Viewer, Written,
};
use assay_index::{Embed, EmbedError, Hit, Index, IndexConfig, Query, SearchMode, SearchResult};
use assay_model::{CrossEncoder, Decoder, EncoderPrecision, Precision};
use assay_remote::{RemoteModel, Settings};
use assay_types::Task;
use proptest::prelude::*;

const WORDS: [&str; 8] = ["oil", "pump", "valve", "lamp", "hold", "button", "red", "door"];
const PLAIN: Refinement = Refinement { rewrite: None, rerank: None, mmr: None, window: 0 };

/// Counts words: one dimension for each, and one for all others.
struct Words;

impl Embed for Words {
    fn id(&self) -> &str {
        "words"
    }

    fn dims(&self) -> usize {
        WORDS.len() + 1
    }

    fn max_tokens(&self) -> usize {
        64
    }

    fn count_tokens(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, EmbedError> {
        Ok(texts.iter().map(|text| vector(text)).collect())
    }
}

fn vector(text: &str) -> Vec<f32> {
    let mut vector = vec![0.0f32; WORDS.len() + 1];
    vector[WORDS.len()] = 0.1;
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        let at = WORDS.iter().position(|w| *w == word.to_lowercase());
        if let Some(at) = at {
            vector[at] += 1.0;
        }
    }
    let norm = vector.iter().map(|v| v * v).sum::<f32>().sqrt();
    vector.iter().map(|v| v / norm).collect()
}

/// An index of files, whose chunks have a few words each.
fn index(files: &[(&str, &str)]) -> (tempfile::TempDir, Arc<Index>) {
    let dir = tempfile::tempdir().expect("a folder");
    let docs = dir.path().join("docs");
    fs_err::create_dir(&docs).expect("a folder");
    for (name, text) in files {
        fs_err::write(docs.join(name), text).expect("a document");
    }
    let config = IndexConfig { chunk_tokens: 8, ..IndexConfig::default() };
    let state = dir.path().join("index");
    let mut index = Index::open(&state, Arc::new(Words), config).expect("an index");
    index.ingest(&docs, &mut |_| ControlFlow::Continue(())).expect("an ingest");
    (dir, Arc::new(index))
}

fn reranker(name: &str) -> Arc<CrossEncoder> {
    let golden = assay_testkit::workspace().join("crates/assay-model/tests/golden/encoders");
    let folder: PathBuf = golden.join(name);
    Arc::new(CrossEncoder::open(&folder, EncoderPrecision::Int8).expect("a reranker"))
}

/// A model behind a server that is not there.
fn nobody() -> Generator {
    let spec = "openai:none@http://127.0.0.1:9/v1".parse().expect("a model");
    let settings =
        Settings { tries: 1, connect_timeout: Duration::from_secs(2), ..Settings::new(spec) };
    Generator::Remote(RemoteGenerator {
        model: RemoteModel::new(settings).expect("a client"),
        budget: PromptBudget::Bound,
        context_tokens: None,
    })
}

/// What was "written" before.
#[derive(Default)]
struct Desk(Mutex<HashMap<String, Vec<String>>>);

impl Desk {
    fn of(drafts: &[(&str, &[&str])]) -> Option<Box<dyn Drafts>> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let drafts = drafts.iter().map(|(query, texts)| ((*query).to_owned(), owned(texts)));
        Some(Box::new(Desk(Mutex::new(drafts.collect()))))
    }
}

impl Drafts for Desk {
    fn get(&self, _: &Rewrite, query: &str) -> Option<Written> {
        let texts = self.0.lock().expect("no panic").get(query).cloned()?;
        Some(Written { texts, ms: 7.0 })
    }

    fn put(&self, _: &Rewrite, query: &str, written: &Written) {
        self.0.lock().expect("no panic").insert(query.to_owned(), written.texts.clone());
    }
}

fn ids(found: &SearchResult) -> Vec<&str> {
    found.hits.iter().map(|h| h.chunk_id.as_str()).collect()
}

fn documents(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|h| h.document.as_str()).collect()
}

fn descends(hits: &[Hit]) -> bool {
    hits.windows(2).all(|w| w[0].score >= w[1].score)
}

const FILES: [(&str, &str); 6] = [
    ("a.md", "oil pump"),
    ("b.md", "oil pump valve"),
    ("c.md", "oil lamp"),
    ("d.md", "pump lamp hold"),
    ("e.md", "oil oil pump pump"),
    ("f.md", "red door"),
];

#[test]
fn a_reranker_orders_the_best_and_leaves_the_rest_behind_them() {
    let (_dir, index) = index(&FILES);
    let model = reranker("cross-bert");
    let query = Query::new("oil pump", 6, SearchMode::Hybrid);
    let plain = index.search(&query).expect("hits");
    let searcher = Searcher::new(index).with_reranker(model.clone()).expect("one score");
    for depth in [1, 3, 6, 50] {
        let rerank = Rerank { model: model.hash().to_owned(), depth };
        let refine = Refinement { rerank: Some(rerank), ..PLAIN };
        assert!(searcher.can(&refine));
        let found = searcher.search(&refine, &query).expect("hits");
        let head = depth.min(plain.hits.len());
        let mut expected: Vec<(f32, &Hit)> = plain.hits[..head]
            .iter()
            // Alone: what stands beside a chunk changes nothing.
            .map(|h| (model.score("oil pump", &[&h.text]).expect("a score")[0], h))
            .collect();
        expected.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.document.cmp(&b.1.document)));
        let expected: Vec<&str> =
            expected.iter().map(|e| e.1).chain(&plain.hits[head..]).map(|h| &*h.document).collect();
        assert_eq!(documents(&found.hits), expected, "depth {depth}");
        assert!(descends(&found.hits), "{:?}", found.hits);
        // A shorter answer is the beginning of the longer one.
        let short = searcher.search(&refine, &Query { k: 2, ..query }).expect("hits");
        if depth >= 6 {
            assert_eq!(ids(&short), ids(&found)[..2], "depth {depth}");
        }
    }
    let other = Rerank { model: "another".into(), depth: 3 };
    assert!(!searcher.can(&Refinement { rerank: Some(other), ..PLAIN }));
    // It must change something, or nothing was tested.
    let rerank = Rerank { model: model.hash().to_owned(), depth: 6 };
    let found = searcher.search(&Refinement { rerank: Some(rerank), ..PLAIN }, &query);
    assert_ne!(documents(&found.expect("hits").hits), documents(&plain.hits));
}

#[test]
fn a_classifier_is_no_reranker() {
    let (_dir, index) = index(&FILES);
    let refused = Searcher::new(index).with_reranker(reranker("cross-roberta"));
    assert!(matches!(refused, Err(CandidateError::RerankerLabels { labels: 3 })));
}

#[test]
fn what_only_others_may_read_is_neither_reranked_nor_shown() {
    let (_dir, index) = index(&FILES);
    let (deleted, hidden) = ("e.md", "b.md");
    let model = reranker("cross-bert");
    let searcher = Searcher::new(index.clone()).with_reranker(model.clone()).expect("one score");
    let rerank = Rerank { model: model.hash().to_owned(), depth: 6 };
    let refine = Refinement { rerank: Some(rerank), mmr: Some(0.5), ..PLAIN };
    let all =
        searcher.search(&refine, &Query::new("oil pump", 9, SearchMode::Hybrid)).expect("hits");
    assert_eq!(all.hits.len(), 6);
    index.corpus().delete(&[deleted]).expect("a delete");
    index.corpus().set_access(&[hidden], Some(&["staff".to_owned()])).expect("access");
    let left =
        searcher.search(&refine, &Query::new("oil pump", 9, SearchMode::Hybrid)).expect("hits");
    assert_eq!(left.hits.len(), 4);
    assert!(!documents(&left.hits).iter().any(|d| [deleted, hidden].contains(d)));
    let staff = ["staff".to_owned()];
    let viewer = Viewer { principals: &staff, tenant: None };
    let query = Query { viewer, ..Query::new("oil pump", 9, SearchMode::Hybrid) };
    let seen = searcher.search(&refine, &query).expect("hits");
    assert!(documents(&seen.hits).contains(&hidden) && seen.hits.len() == 5);
}

#[test]
fn repetitions_go_behind() {
    let files =
        [("a.md", "oil pump"), ("b.md", "Oil pump!"), ("c.md", "oil valve"), ("d.md", "oil, pump")];
    let (_dir, index) = index(&files);
    let searcher = Searcher::new(index);
    let query = Query::new("oil pump", 4, SearchMode::Vector);
    let order = |lambda| {
        let refine = Refinement { mmr: Some(lambda), ..PLAIN };
        let hits = searcher.search(&refine, &query).expect("hits").hits;
        assert!(descends(&hits));
        documents(&hits).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(order(1.0), ["a.md", "b.md", "d.md", "c.md"]);
    assert_eq!(order(0.2), ["a.md", "c.md", "b.md", "d.md"]);
}

#[test]
fn variants_of_a_query_are_fused_by_ranks() {
    let (_dir, index) = index(&FILES);
    let drafts = Desk::of(&[("oil pump", &["red door", "red door now"])]);
    let rewriter = Arc::new(Rewriter::new(nobody(), drafts));
    let searcher = Searcher::new(index.clone()).with_rewriter(rewriter.clone());
    let refine = Refinement { rewrite: Some(Rewrite::MultiQuery { queries: 2 }), ..PLAIN };
    let query = Query::new("oil pump", 2, SearchMode::Bm25);
    let plain = index.search(&query).expect("hits");
    assert!(!documents(&plain.hits).contains(&"f.md"));
    // First in two of three rankings, absent from the other.
    let found = searcher.search(&refine, &query).expect("hits");
    assert_eq!(found.hits[0].document, "f.md");
    assert!((found.hits[0].score - 2.0 / 61.0).abs() < 1e-12, "{:?}", found.hits[0]);
    assert_eq!(found.hits[1].chunk_id, plain.hits[0].chunk_id);
    assert_eq!(rewriter.take_unwritten().queries, 0);
}

#[test]
fn a_passage_moves_the_vectors_and_not_the_words() {
    let (_dir, index) = index(&FILES);
    let drafts = Desk::of(&[("oil", &["red door"])]);
    let searcher =
        Searcher::new(index.clone()).with_rewriter(Arc::new(Rewriter::new(nobody(), drafts)));
    let refine = Refinement { rewrite: Some(Rewrite::Hyde), ..PLAIN };
    let query = |mode| Query::new("oil", 6, mode);
    let near = searcher.search(&refine, &query(SearchMode::Vector)).expect("hits");
    let place = |hits: &[Hit]| documents(hits).iter().position(|d| *d == "f.md");
    let plain = index.search(&query(SearchMode::Vector)).expect("hits");
    assert!(place(&near.hits) < place(&plain.hits), "{:?}", documents(&near.hits));
    let sum: Vec<f32> = vector("oil").iter().zip(vector("red door")).map(|(a, b)| a + b).collect();
    let norm = sum.iter().map(|v| v * v).sum::<f32>().sqrt();
    let mean: Vec<f32> = sum.iter().map(|v| v / norm).collect();
    let by_hand = Query { vector: Some(&mean), ..query(SearchMode::Vector) };
    assert_eq!(ids(&near), ids(&index.search(&by_hand).expect("hits")));
    let words = searcher.search(&refine, &query(SearchMode::Bm25)).expect("hits");
    assert_eq!(ids(&words), ids(&index.search(&query(SearchMode::Bm25)).expect("hits")));
}

#[test]
fn what_cannot_be_written_anew_is_searched_for_as_it_is_and_counted() {
    let (_dir, index) = index(&FILES);
    let rewriter = Arc::new(Rewriter::new(nobody(), None));
    let searcher = Searcher::new(index.clone()).with_rewriter(rewriter.clone());
    let query = Query::new("oil pump", 3, SearchMode::Hybrid);
    let plain = index.search(&query).expect("hits");
    for rewrite in [Rewrite::Hyde, Rewrite::MultiQuery { queries: 2 }] {
        let refine = Refinement { rewrite: Some(rewrite), ..PLAIN };
        assert_eq!(ids(&searcher.search(&refine, &query).expect("hits")), ids(&plain));
        let unwritten = rewriter.take_unwritten();
        assert_eq!(unwritten.queries, 1, "{unwritten:?}");
        assert!(!unwritten.why.is_empty());
    }
    assert_eq!(rewriter.take_unwritten().queries, 0);
    // A blank one is not asked for at all.
    let refine = Refinement { rewrite: Some(Rewrite::Hyde), ..PLAIN };
    let blank = searcher.search(&refine, &Query::new(" ", 3, SearchMode::Hybrid)).expect("hits");
    assert!(blank.hits.is_empty());
    assert_eq!(rewriter.take_unwritten().queries, 0);
    // Without a rewriter the candidate does not even open.
    assert!(!Searcher::new(index.clone()).can(&refine));
    assert!(Searcher::new(index).search(&refine, &query).is_err());
}

#[test]
fn a_real_model_writes_the_same_alone_and_among_others_and_once() {
    let Some(gguf) = assay_testkit::smollm() else { return };
    let decoder = Decoder::open(&gguf, Precision::Bf16).expect("a model");
    let queries = ["Where do penguins live?", "Who built the pyramids of Giza?", " "];
    for how in [Rewrite::Hyde, Rewrite::MultiQuery { queries: 2 }] {
        let texts = |rewriter: &Rewriter, queries: &[&str]| -> Vec<Option<Vec<String>>> {
            let written = rewriter.write(&how, queries).expect("texts");
            written.into_iter().map(|w| w.map(|w| w.texts)).collect()
        };
        let rewriter = Rewriter::new(decoder.clone().into(), Some(Box::new(Desk::default())));
        let together = texts(&rewriter, &queries);
        let unwritten = rewriter.take_unwritten().queries;
        let there = together.iter().flatten().count();
        assert_eq!((there + unwritten, &together[2]), (2, &None), "{together:?}");
        assert!(there > 0, "{how:?}");
        let alone = Rewriter::new(decoder.clone().into(), None);
        for (query, expected) in queries.iter().zip(&together) {
            assert_eq!(&texts(&alone, &[query])[0], expected, "{how:?} {query}");
        }
        // One that is too long fails alone.
        let long = "word ".repeat(20_000);
        assert_eq!(texts(&alone, &[&long, queries[0]]), [None, together[0].clone()]);
        let again = usize::from(together[0].is_none());
        assert_eq!(alone.take_unwritten().queries, 1 + unwritten + again);
    }
}

const BOOK: &str = "# Pumps\n\nOne oil is a b c.\n\nTwo pump is d e f.\n\nThree valve is g h i.\n\n\
    ## Lamps\n\nFour lamp is j k l.\n\nFive hold is m n o.\n";

fn candidate(index: Arc<Index>, refine: Refinement, prompt_tokens: usize) -> Candidate {
    let spec = CandidateSpec {
        name: "rag".into(),
        task: Task::Qa,
        instructions: "Answer.".into(),
        shots: vec![],
        retrieval: Some(RetrievalSpec {
            from: RetrieveFrom::Documents,
            ranked_by: RankedBy::Hybrid,
            refine,
            top_k: 1,
            prompt_tokens,
        }),
        guard: Guard::None,
        adapter: None,
        abstain: "No.".into(),
        abstain_below: None,
        max_new_tokens: 8,
        form: None,
    };
    let retriever = Some(Retriever::Documents(Searcher::new(index)));
    Candidate::new(spec, nobody(), None, retriever).expect("a candidate")
}

#[test]
fn neighbours_of_the_same_section_stand_in_the_prompt_as_in_the_file() {
    let (_dir, index) = index(&[("book.md", BOOK)]);
    assert!(index.chunk_count() >= 5, "{}", index.chunk_count());
    let shown = |question: &str, window, prompt_tokens| -> Vec<String> {
        let refine = Refinement { window, ..PLAIN };
        let candidate = candidate(index.clone(), refine, prompt_tokens);
        let prepared = candidate.prepare(&Request::new(question)).expect("a prompt");
        for s in &prepared.sources {
            assert_eq!(&BOOK[s.start..][..s.text.len()], s.text);
        }
        // What is recorded as shown is what was found, not what stands beside it.
        let in_context = prepared.retrieved.iter().filter(|r| r.in_context).count();
        assert_eq!(in_context, prepared.sources.len());
        prepared.sources.into_iter().map(|s| s.text).collect()
    };
    assert_eq!(shown("pump", 0, 1000), ["Two pump is d e f."]);
    let around = shown("pump", 1, 1000);
    assert_eq!(around.len(), 1);
    assert!(around[0].contains("One oil") && around[0].contains("Three valve"), "{around:?}");
    assert!(!around[0].contains("Lamps") && !around[0].contains("Four"), "{around:?}");
    // The end of the section is where it stops, however wide.
    assert!(!shown("pump", 9, 1000)[0].contains("Four"));
    assert!(shown("hold", 9, 1000)[0].contains("Four lamp"));
    assert!(!shown("hold", 9, 1000)[0].contains("Three"));
    // What does not fit is left out, and what was found comes first.
    let texts: Vec<String> = (100..400).map(|budget| shown("pump", 2, budget).join("\n")).collect();
    assert!(texts.iter().all(|t| t.is_empty() || t.contains("Two pump")), "{texts:?}");
    assert!(texts.windows(2).all(|w| w[0].len() <= w[1].len()), "{texts:?}");
    let some = |text: &str| texts.iter().any(|t| t == text);
    assert!(some("") && some("Two pump is d e f.") && texts.contains(&around[0]), "{texts:?}");
}

fn corpus() -> impl Strategy<Value = Vec<String>> {
    let text = proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 1..6);
    proptest::collection::vec(text.prop_map(|words| words.join(" ")), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Lambda 1 and no refinement at all give the same ranking; and for any lambda the same set of chunks is ranked.
    #[test]
    fn diversity_with_lambda_one_changes_nothing(
        texts in corpus(),
        query in proptest::collection::vec(proptest::sample::select(WORDS.to_vec()), 1..4),
        lambda in 0.0f64..=1.0,
    ) {
        let names: Vec<String> = (0..texts.len()).map(|n| format!("{n:02}.md")).collect();
        let files: Vec<(&str, &str)> =
            names.iter().zip(&texts).map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let (_dir, index) = index(&files);
        let searcher = Searcher::new(index.clone());
        let query = query.join(" ");
        for mode in [SearchMode::Hybrid, SearchMode::Reciprocal, SearchMode::Bm25, SearchMode::Vector] {
            let query = Query::new(&query, 99, mode);
            let plain = index.search(&query).unwrap();
            let one = Refinement { mmr: Some(1.0), ..PLAIN };
            let one = searcher.search(&one, &query).unwrap();
            prop_assert_eq!(ids(&one), ids(&plain));
            let some = searcher.search(&Refinement { mmr: Some(lambda), ..PLAIN }, &query).unwrap();
            prop_assert!(descends(&some.hits));
            let (mut a, mut b) = (ids(&some), ids(&plain));
            a.sort_unstable();
            b.sort_unstable();
            prop_assert_eq!(a, b);
        }
    }
}
