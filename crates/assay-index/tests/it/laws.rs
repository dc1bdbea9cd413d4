//! Laws, on random folders, against brute force.

use std::collections::BTreeMap;

use assay_index::{
    Comparison, Filter, Hit, Index, IndexError, Membership, Query, SearchMode, Value, Viewer,
};
use proptest::prelude::*;

use crate::support::{Project, Words, ingest, search};

/// Corpora of the longest of these tests; each is asked 40 questions by each leg. 2500 make 10⁵ filtered questions
/// in each mode.
const CORPORA: &str = "ASSAY_LAWS_CORPORA";

fn corpora() -> u32 {
    let number = std::env::var_os(CORPORA).and_then(|n| n.to_str()?.parse().ok());
    number.unwrap_or(8)
}

/// Words with different stems, none of them a stop word.
const WORDS: &[&str] =
    &["lamp", "red", "door", "blue", "key", "tree", "cat", "stone", "river", "milk"];

/// The texts of one-chunk documents, by path.
type Folder = BTreeMap<String, Vec<&'static str>>;

fn folder() -> impl Strategy<Value = Folder> {
    let words = proptest::collection::vec(proptest::sample::select(WORDS), 1..12);
    proptest::collection::btree_map("[a-c]/[a-f]{1,2}\\.txt", words, 1..12)
}

fn query() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(WORDS), 1..4).prop_map(|w| w.join(" "))
}

fn project(folder: &Folder) -> Project {
    let project = Project::new(&[]);
    for (path, words) in folder {
        project.write(path, words.join(" "));
    }
    project
}

/// Lucene's BM25 with k1 = 1.2, b = 0.75; lengths below 40 words are stored exactly.
fn bm25(folder: &Folder, query: &str) -> Vec<Option<f64>> {
    let n = folder.len() as f64;
    let mean = folder.values().map(Vec::len).sum::<usize>() as f64 / n;
    let score = |document: &Vec<&str>, word: &str| {
        let tf = document.iter().filter(|w| **w == word).count() as f64;
        let df = folder.values().filter(|d| d.contains(&word)).count() as f64;
        let idf = (1.0 + (n - df + 0.5) / (df + 0.5)).ln();
        let norm = 1.2 * (0.25 + 0.75 * document.len() as f64 / mean);
        idf * 2.2 * tf / (tf + norm)
    };
    folder
        .values()
        .map(|d| Some(query.split(' ').map(|w| score(d, w)).sum()).filter(|s| *s > 0.0))
        .collect()
}

fn cosine(folder: &Folder, query: &str) -> Vec<f64> {
    let query = Words::vector(query);
    let dot = |v: Vec<f32>| v.iter().zip(&query).map(|(a, b)| f64::from(a * b)).sum();
    folder.values().map(|words| dot(Words::vector(&words.join(" ")))).collect()
}

fn hybrid(bm25: &[Option<f64>], cosine: &[f64]) -> Vec<f64> {
    let top = bm25.iter().flatten().fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
    let (low, high) = cosine.iter().fold((f64::MAX, f64::MIN), |(l, h), c| (l.min(*c), h.max(*c)));
    let range = (high - low).max(0.05);
    let both = bm25.iter().zip(cosine);
    both.map(|(b, c)| 0.4 * b.unwrap_or(0.0) / top + 0.6 * (c - low) / range).collect()
}

/// Same scores at each place, and each hit has the score that brute force gives it: that is the same
/// ranking, but for rounding.
fn assert_ranking(
    index: &Index,
    folder: &Folder,
    query: &str,
    mode: SearchMode,
    scores: &[Option<f64>],
) {
    let paths: Vec<&String> = folder.keys().collect();
    let hits = search(index, query, folder.len() + 1, mode);
    let mut expected: Vec<f64> = scores.iter().flatten().copied().collect();
    expected.sort_by(|a, b| b.total_cmp(a));
    assert_eq!(hits.len(), expected.len(), "{mode:?}");
    for (hit, expected) in hits.iter().zip(expected) {
        let own = paths.iter().position(|p| **p == hit.document).and_then(|i| scores[i]);
        assert!((hit.score - expected).abs() < 1e-4, "{mode:?} {} {expected}", hit.score);
        assert!((hit.score - own.unwrap()).abs() < 1e-4, "{mode:?} {} {own:?}", hit.score);
    }
    for k in 0..hits.len() {
        assert_eq!(search(index, query, k, mode), hits[..k]);
    }
}

/// What is known of a document.
#[derive(Clone, Debug)]
struct Known {
    year: Option<i64>,
    lang: Option<&'static str>,
    allow: Option<Vec<&'static str>>,
    tenant: Option<&'static str>,
}

fn known() -> impl Strategy<Value = Known> {
    let lang = proptest::sample::select(vec!["en", "de", "el"]);
    let who = proptest::sample::select(vec!["anna", "staff"]);
    let allow = proptest::option::weighted(0.3, proptest::collection::vec(who, 0..3));
    let tenant = proptest::option::weighted(0.3, proptest::sample::select(vec!["x", "y"]));
    (proptest::option::of(2020i64..2024), proptest::option::of(lang), allow, tenant)
        .prop_map(|(year, lang, allow, tenant)| Known { year, lang, allow, tenant })
}

/// A filter, written down apart from the one that is tested.
#[derive(Clone, Debug)]
enum Asked {
    From(i64),
    Before(i64),
    Is(i64),
    Not(Box<Asked>),
    Lang(Vec<&'static str>),
    Both(Box<Asked>, Box<Asked>),
    Either(Box<Asked>, Box<Asked>),
}

fn asked() -> impl Strategy<Value = Asked> {
    let langs = proptest::collection::vec(proptest::sample::select(vec!["en", "de", "el"]), 1..3);
    let one = prop_oneof![
        (2019i64..2025).prop_map(Asked::From),
        (2019i64..2025).prop_map(Asked::Before),
        (2019i64..2025).prop_map(Asked::Is),
        langs.prop_map(Asked::Lang),
    ];
    one.prop_recursive(3, 6, 2, |inner| {
        let pair = (inner.clone(), inner.clone());
        let boxed = |(a, b)| (Box::new(a), Box::new(b));
        prop_oneof![
            inner.prop_map(|a| Asked::Not(Box::new(a))),
            pair.clone().prop_map(boxed).prop_map(|(a, b)| Asked::Both(a, b)),
            pair.prop_map(boxed).prop_map(|(a, b)| Asked::Either(a, b)),
        ]
    })
}

impl Asked {
    fn holds(&self, of: &Known) -> bool {
        match self {
            Asked::From(year) => of.year.is_some_and(|y| y >= *year),
            Asked::Before(year) => of.year.is_some_and(|y| y < *year),
            Asked::Is(year) => of.year == Some(*year),
            Asked::Lang(langs) => of.lang.is_some_and(|l| langs.contains(&l)),
            Asked::Not(a) => !a.holds(of),
            Asked::Both(a, b) => a.holds(of) && b.holds(of),
            Asked::Either(a, b) => a.holds(of) || b.holds(of),
        }
    }

    fn filter(&self) -> Filter {
        let year = |year: &i64| Comparison { key: "year".into(), value: Value::Integer(*year) };
        match self {
            Asked::From(n) => Filter::Gte(year(n)),
            Asked::Before(n) => Filter::Lt(year(n)),
            Asked::Is(n) => Filter::Eq(year(n)),
            Asked::Lang(langs) => {
                let value = langs.iter().map(|l| Value::String((*l).into())).collect();
                Filter::In(Membership { key: "lang".into(), value })
            }
            Asked::Not(a) => Filter::Not { filter: Box::new(a.filter()) },
            Asked::Both(a, b) => Filter::And { filters: vec![a.filter(), b.filter()] },
            Asked::Either(a, b) => Filter::Or { filters: vec![a.filter(), b.filter()] },
        }
    }

    /// Whether it asks for a field that none of these has.
    fn unknown(&self, seen: &[&Known]) -> bool {
        match self {
            Asked::From(_) | Asked::Before(_) | Asked::Is(_) => {
                seen.iter().all(|k| k.year.is_none())
            }
            Asked::Lang(_) => seen.iter().all(|k| k.lang.is_none()),
            Asked::Not(a) => a.unknown(seen),
            Asked::Both(a, b) | Asked::Either(a, b) => a.unknown(seen) || b.unknown(seen),
        }
    }
}

#[derive(Clone, Debug)]
struct Question {
    text: String,
    principals: Vec<String>,
    tenant: Option<&'static str>,
    asked: Option<Asked>,
    k: usize,
}

fn question() -> impl Strategy<Value = Question> {
    let principals = proptest::sample::subsequence(vec!["anna".to_owned(), "staff".into()], 0..3);
    let tenant = proptest::option::of(proptest::sample::select(vec!["x", "y"]));
    let k = proptest::sample::select(vec![1, 3, 99]);
    (query(), principals, tenant, proptest::option::of(asked()), k).prop_map(
        |(text, principals, tenant, asked, k)| Question { text, principals, tenant, asked, k },
    )
}

impl Question {
    fn sees(&self, of: &Known) -> bool {
        let mine = |allow: &Vec<&str>| allow.iter().any(|a| self.principals.iter().any(|p| p == a));
        of.allow.as_ref().is_none_or(mine) && (of.tenant.is_none() || of.tenant == self.tenant)
    }

    fn ask(&self, index: &Index, mode: SearchMode) -> Result<Vec<Hit>, IndexError> {
        let filter = self.asked.as_ref().map(Asked::filter);
        let viewer = Viewer { principals: &self.principals, tenant: self.tenant };
        let query =
            Query { filter: filter.as_ref(), viewer, ..Query::new(&self.text, self.k, mode) };
        Ok(index.search(&query)?.hits)
    }

    /// The best of the documents that `there` are, with statistics of all in `counted`.
    fn brute_force(
        &self,
        index: &Index,
        counted: &Folder,
        known: &BTreeMap<String, Known>,
        there: impl Fn(&str) -> bool,
    ) {
        let paths: Vec<&String> = counted.keys().collect();
        let visible = |path: &&String| there(path) && self.sees(&known[*path]);
        let seen: Vec<&Known> = paths.iter().filter(|p| visible(p)).map(|p| &known[*p]).collect();
        let fits = |k: &Known| self.asked.as_ref().is_none_or(|asked| asked.holds(k));
        let allowed: Vec<bool> = paths.iter().map(|p| visible(p) && fits(&known[*p])).collect();
        let only = |scores: Vec<Option<f64>>| -> Vec<Option<f64>> {
            scores.into_iter().zip(&allowed).map(|(s, a)| s.filter(|_| *a)).collect()
        };
        let words = only(bm25(counted, &self.text));
        let vectors = only(cosine(counted, &self.text).into_iter().map(Some).collect());
        let top = words.iter().flatten().fold(f64::MIN_POSITIVE, |a, b| a.max(*b));
        let ends = vectors.iter().flatten();
        let (low, high) = ends.fold((f64::MAX, f64::MIN), |(l, h), c| (l.min(*c), h.max(*c)));
        let fused = |(word, vector): (&Option<f64>, &Option<f64>)| {
            let vector = 0.6 * ((*vector)? - low) / (high - low).max(0.05);
            Some(vector + 0.4 * word.unwrap_or(0.0) / top)
        };
        let fused: Vec<Option<f64>> = words.iter().zip(&vectors).map(fused).collect();
        let legs =
            [(SearchMode::Bm25, words), (SearchMode::Vector, vectors), (SearchMode::Hybrid, fused)];
        for (mode, scores) in legs {
            let hits = match self.ask(index, mode) {
                Ok(hits) => hits,
                Err(IndexError::Filter(_)) => {
                    // Refused only for what it asks.
                    assert!(!seen.is_empty() && self.asked.as_ref().unwrap().unknown(&seen));
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let mut best: Vec<f64> = scores.iter().flatten().copied().collect();
            best.sort_by(|a, b| b.total_cmp(a));
            assert_eq!(hits.len(), best.len().min(self.k), "{mode:?} {self:?}");
            for (hit, best) in hits.iter().zip(best) {
                let own = paths.iter().position(|p| **p == hit.document).and_then(|i| scores[i]);
                let own = own.unwrap_or_else(|| panic!("{mode:?} {self:?} found {}", hit.document));
                assert!((hit.score - best).abs() < 1e-4, "{mode:?} {} {best}", hit.score);
                assert!((hit.score - own).abs() < 1e-4, "{mode:?} {} {own}", hit.score);
            }
        }
    }
}

fn describe(known: &BTreeMap<String, Known>) -> String {
    let mut sidecar = String::new();
    for (path, known) in known {
        sidecar += &format!("[[documents]]\nmatch = {path:?}\n");
        if let Some(allow) = &known.allow {
            sidecar += &format!("allow = {allow:?}\n");
        }
        if let Some(tenant) = known.tenant {
            sidecar += &format!("tenant = {tenant:?}\n");
        }
        sidecar += "[documents.metadata]\n";
        if let Some(year) = known.year {
            sidecar += &format!("year = {year}\n");
        }
        if let Some(lang) = known.lang {
            sidecar += &format!("lang = {lang:?}\n");
        }
    }
    sidecar
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(corpora()))]

    /// Filtered, by whoever asks, before and after deletes, in any order and at once: as by brute force.
    #[test]
    fn filtered_searches_are_brute_force(
        folder in folder(),
        all_known in proptest::collection::vec(known(), 12),
        questions in proptest::collection::vec(question(), 20),
        deleted in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let known: BTreeMap<String, Known> = folder.keys().cloned().zip(all_known).collect();
        let project = project(&folder);
        project.write("assay-docs.toml", describe(&known));
        let index = project.ingested();
        for question in &questions {
            question.brute_force(&index, &folder, &known, |_| true);
        }
        // Several at once, the other way round.
        let ask = |q: &Question| q.ask(&index, SearchMode::Hybrid).ok();
        let alone: Vec<_> = questions.iter().map(ask).collect();
        let mut together: Vec<_> = std::thread::scope(|scope| {
            let asked: Vec<_> = questions.iter().rev().map(|q| scope.spawn(move || ask(q))).collect();
            asked.into_iter().map(|answer| answer.join().unwrap()).collect()
        });
        together.reverse();
        prop_assert_eq!(alone, together);

        let gone: Vec<&str> = folder.keys().zip(&deleted).filter(|(_, d)| **d).map(|(p, _)| p.as_str()).collect();
        let other = project.open();
        other.corpus().delete(&gone).unwrap();
        for question in &questions {
            question.brute_force(&index, &folder, &known, |path| !gone.contains(&path));
        }
        let left = folder.iter().filter(|(p, _)| !gone.contains(&p.as_str()));
        let left: Folder = left.map(|(p, words)| (p.clone(), words.clone())).collect();
        let again = project.open();
        for question in &questions[..3] {
            question.brute_force(&again, &left, &known, |_| true);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn searches_are_brute_force(folder in folder(), query in query()) {
        let index = project(&folder).ingested();
        prop_assert_eq!(index.chunk_count(), folder.len());
        let (words, vectors) = (bm25(&folder, &query), cosine(&folder, &query));
        let all = |scores: &[f64]| scores.iter().copied().map(Some).collect::<Vec<_>>();
        assert_ranking(&index, &folder, &query, SearchMode::Bm25, &words);
        assert_ranking(&index, &folder, &query, SearchMode::Vector, &all(&vectors));
        let fused = all(&hybrid(&words, &vectors));
        assert_ranking(&index, &folder, &query, SearchMode::Hybrid, &fused);
    }

    #[test]
    fn ranks_are_those_of_the_first_ten_of_each_leg(folder in folder(), query in query()) {
        let index = project(&folder).ingested();
        let place = |mode, id: &str| {
            search(&index, &query, 10, mode).iter().position(|h| h.chunk_id == id).map(|i| i + 1)
        };
        for hit in search(&index, &query, 99, SearchMode::Hybrid) {
            prop_assert_eq!(hit.bm25_rank, place(SearchMode::Bm25, &hit.chunk_id));
            prop_assert_eq!(hit.vector_rank, place(SearchMode::Vector, &hit.chunk_id));
        }
    }

    /// Whatever happened to the folder, the index is that of its last state.
    #[test]
    fn history_does_not_matter(states in proptest::collection::vec(folder(), 1..4), query in query()) {
        let moved = Project::new(&[]);
        let mut index = moved.open();
        for folder in &states {
            let _ = fs_err::remove_dir_all(moved.docs());
            for (path, words) in folder.iter().rev() {
                moved.write(path, words.join(" "));
            }
            ingest(&mut index, &moved.docs()).unwrap();
            for hit in search(&index, &query, 99, SearchMode::Hybrid) {
                prop_assert!(folder.contains_key(&hit.document));
            }
        }
        let clean = project(states.last().unwrap()).ingested();
        prop_assert_eq!(index.snapshot_hash(), clean.snapshot_hash());
        for mode in [SearchMode::Hybrid, SearchMode::Bm25, SearchMode::Vector] {
            prop_assert_eq!(search(&index, &query, 99, mode), search(&clean, &query, 99, mode));
        }
    }
}
